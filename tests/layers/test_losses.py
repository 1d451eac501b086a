"""Losses and Accuracy against slow numpy in float64, written from Caffe's source, one label at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_nets import Array, blob, run_model, run_net, write_net

import caffeconv
from caffeconv.caffe_pb2 import BlobProto
from caffeconv.conversion.load import load
from caffeconv.ir.layer import LabelRule

FLT_MIN = float(np.finfo(np.float32).tiny)
MODES = ("FULL", "VALID", "BATCH_SIZE", "NONE")
few = settings(max_examples=25)
_numbers = count()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("losses")


def layer(type_: str, bottoms: Sequence[str], tops: Sequence[str] = ("loss",), extra: str = "", name: str = "l") -> str:
    names = "".join(f' bottom: "{b}"' for b in bottoms) + "".join(f' top: "{t}"' for t in tops)
    return f'layer {{ name: "{name}" type: "{type_}"{names} {extra} }}\n'


def close(got: Array, want: object) -> None:
    np.testing.assert_allclose(np.asarray(got, np.float64), np.asarray(want, np.float64), rtol=2e-5, atol=2e-6)


def mixed(rng: np.random.Generator, shape: Sequence[int], scale: float = 2) -> Array:
    return rng.normal(0, scale, tuple(shape)).astype(np.float32)


# -- class scores and labels -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    scores: Array
    labels: Array
    axis: int
    mode: str | None
    ignore_label: int | None
    seed: int

    @property
    def classes(self) -> int:
        classes: int = self.scores.shape[self.axis]
        return classes

    @property
    def loss_param(self) -> str:
        mode = f"normalization: {self.mode}" if self.mode else ""
        return f"loss_param {{ {mode} {self.ignore} }}"

    @property
    def ignore(self) -> str:
        return "" if self.ignore_label is None else f"ignore_label: {self.ignore_label}"

    def each(self) -> list[tuple[int, list[float]]]:
        """(label as int, scores of the classes) of every prediction, as Caffe walks them."""
        outer = math.prod(self.scores.shape[: self.axis % self.scores.ndim])
        inner = self.scores.size // (outer * self.classes)
        data, labels = self.scores.reshape(outer, self.classes, inner).astype(float), self.labels.ravel()
        return [(int(labels[i * inner + j]), list(data[i, :, j])) for i in range(outer) for j in range(inner)]

    def counted(self) -> list[tuple[int, list[float]]]:
        return [(label, row) for label, row in self.each() if label != self.ignore_label]

    def normalizer(self) -> float:
        if self.mode == "NONE":
            return 1
        if self.mode == "BATCH_SIZE":
            return max(1, math.prod(self.scores.shape[: self.axis % self.scores.ndim]))
        return max(1, len(self.counted() if self.mode != "FULL" else self.each()))


@st.composite
def problems(draw: st.DrawFn, *, scale: float = 3) -> Problem:
    rank = draw(st.integers(2, 4))
    shape = [draw(st.integers(1, 4)) for _ in range(rank)]
    axis = draw(st.integers(1, rank - 1))
    seed = draw(st.integers(0, 1 << 30))
    rng = np.random.default_rng(seed)
    scores = mixed(rng, shape, scale)
    rest = [dim for i, dim in enumerate(shape) if i != axis]
    label_shape = draw(st.sampled_from([rest, [*shape[:axis], 1, *shape[axis + 1 :]], [shape[0], math.prod(rest[1:])]]))
    # fractions are cut off toward zero, so that -0.9 is class 0
    labels = rng.integers(0, shape[axis], label_shape) + rng.choice([0, 0.4, 0.9], label_shape)
    labels = np.where((labels < 1) & (rng.random(label_shape) < 0.3), -0.9, labels).astype(np.float32)
    ignore = draw(st.sampled_from([None, 0, 1, 255, -1]))
    if ignore is not None:
        labels = np.where(rng.random(label_shape) < 0.4, ignore + 0.5 * np.sign(ignore), labels).astype(np.float32)
    written = axis - rank if draw(st.booleans()) else axis
    return Problem(scores, labels, written, draw(st.sampled_from([None, *MODES])), ignore, seed)


def log_softmax(row: list[float]) -> list[float]:
    top = max(row)
    total = math.log(sum(math.exp(x - top) for x in row))
    return [x - top - total for x in row]


@few
@given(problems(), st.booleans())
def test_softmax_with_loss(folder: Path, problem: Problem, wide: bool) -> None:
    if wide:
        problem = Problem(problem.scores * 40, *list(vars(problem).values())[1:])
    text = layer("SoftmaxWithLoss", "xy", extra=f"softmax_param {{ axis: {problem.axis} }} {problem.loss_param}")
    got = run_net(folder, text, {"x": problem.scores, "y": problem.labels}, written_batch=5)["loss"]
    total = sum(-max(log_softmax(row)[label], math.log(FLT_MIN)) for label, row in problem.counted())
    assert got.shape == ()
    close(got, total / problem.normalizer())


@pytest.mark.parametrize(
    ("loss_param", "divisor"),
    [
        ("normalize: true", 5), ("normalize: false", 2), ("normalize: false normalization: FULL", 6), ("", 5),
        ("normalization: PRE_FIXED pre_fixed_normalizer: 4", 4),
        ("normalization: PRE_FIXED pre_fixed_normalizer: 0.1", 1),
    ],
)  # fmt: skip
def test_softmax_normalize_is_the_old_normalization(folder: Path, loss_param: str, divisor: float) -> None:
    scores = mixed(np.random.default_rng(0), (2, 4, 3))
    labels = np.array([[0, 3, 2], [9, 1, 1]], np.float32)
    text = layer("SoftmaxWithLoss", "xy", extra=f"loss_param {{ ignore_label: 9 {loss_param} }}")
    got = run_net(folder, text, {"x": scores, "y": labels})["loss"]
    problem = Problem(scores, labels, 1, "FULL", 9, 0)
    close(got, sum(-log_softmax(row)[label] for label, row in problem.counted()) / divisor)


@pytest.mark.parametrize("axis", [2, -2])
def test_batch_size_is_all_before_the_class_axis(folder: Path, axis: int) -> None:
    scores, labels = mixed(np.random.default_rng(4), (2, 3, 4, 5)), np.zeros((2, 3, 5), np.float32)
    extra = f"softmax_param {{ axis: {axis} }} loss_param {{ normalization: BATCH_SIZE }}"
    got = run_net(folder, layer("SoftmaxWithLoss", "xy", extra=extra), {"x": scores, "y": labels}, written_batch=3)
    total = sum(-log_softmax(row)[0] for _, row in Problem(scores, labels, axis, None, None, 0).each())
    close(got["loss"], total / 6)


def test_softmax_classes_on_the_batch_axis(folder: Path) -> None:
    scores, labels = mixed(np.random.default_rng(3), (3, 6)), np.array([[0, 2], [1, 1], [2, 0]], np.float32)
    text = layer("SoftmaxWithLoss", "xy", extra="softmax_param { axis: 0 }")
    got = run_net(folder, text, {"x": scores, "y": labels})["loss"]
    close(got, np.mean([-log_softmax(row)[label] for label, row in Problem(scores, labels, 0, None, None, 0).each()]))


def test_segnet_class_weights(folder: Path) -> None:
    scores, labels = mixed(np.random.default_rng(1), (3, 2)), np.array([0, 1, 1], np.float32)
    extra = "loss_param { weight_by_label_freqs: true class_weighting: 0.25 class_weighting: 3 }"
    got = run_net(folder, layer("SoftmaxWithLoss", "xy", extra=extra), {"x": scores, "y": labels})["loss"]
    problem = Problem(scores, labels, 1, None, None, 0)
    terms = [-log_softmax(row)[label] * (0.25, 3)[label] for label, row in problem.each()]
    close(got, sum(terms) / 3)


def infogain(problem: Problem, h: Array) -> float:
    total = 0.0
    for label, row in problem.counted():
        logs = [max(value, math.log(1e-20)) for value in log_softmax(row)]
        total -= sum(float(weight) * value for weight, value in zip(h[label], logs, strict=True))
    return total / problem.normalizer()


@few
@given(problems(scale=20), st.sampled_from(["shape", "legacy", "double", "flat"]), st.booleans())
def test_infogain_loss(folder: Path, problem: Problem, stored: str, two_tops: bool) -> None:
    classes = problem.classes
    h = mixed(np.random.default_rng(problem.seed + 1), (classes, classes))
    name = f"H{next(_numbers)}.binaryproto"
    _write_h(folder / name, h, stored)
    tops = ("loss", "prob") if two_tops else ("loss",)
    weights = "loss_weight: 1 loss_weight: 0" if two_tops else ""
    extra = f'infogain_loss_param {{ axis: {problem.axis} source: "{name}" }} {problem.loss_param} {weights}'
    feeds = {"x": problem.scores, "y": problem.labels}
    got = run_net(folder, layer("InfogainLoss", "xy", tops, extra), feeds, written_batch=5)
    close(got["loss"], infogain(problem, h))
    if two_tops:
        x = problem.scores.astype(float) - problem.scores.max(problem.axis, keepdims=True)
        close(got["prob"], np.exp(x) / np.exp(x).sum(problem.axis, keepdims=True))


def _write_h(path: Path, h: Array, stored: str) -> None:
    proto = blob(h)
    if stored == "legacy":
        proto = BlobProto(num=1, channels=1, height=len(h), width=len(h), data=h.ravel().tolist())
    elif stored == "double":
        proto.ClearField("data")
        proto.double_data.extend(h.ravel().astype(float))
    elif stored == "flat":
        proto.shape.dim[:] = [h.size]
    path.write_bytes(proto.SerializeToString())


def test_infogain_matrix_as_input(folder: Path) -> None:
    rng = np.random.default_rng(5)
    problem = Problem(mixed(rng, (4, 3)), np.array([2, 0, 1, 2], np.float32), 1, None, None, 0)
    h = mixed(rng, (3, 3))
    feeds = {"x": problem.scores, "y": problem.labels, "h": h.reshape(1, 1, 3, 3)}
    close(run_net(folder, layer("InfogainLoss", "xyh"), feeds)["loss"], infogain(problem, h))


def test_infogain_layers_that_differ_in_one_net(folder: Path) -> None:
    rng = np.random.default_rng(6)
    problem = Problem(mixed(rng, (4, 3)), np.array([2, 0, 1, 2], np.float32), 1, "VALID", 1, 0)
    h = mixed(rng, (3, 3))
    _write_h(folder / "H.binaryproto", h, "shape")
    variants = {"a": "VALID", "b": "NONE", "c": "VALID", "d": "NONE"}
    text = "".join(
        layer("InfogainLoss", "xy", [top], 'infogain_loss_param { source: "H.binaryproto" } '
              f"loss_param {{ ignore_label: 1 normalization: {mode} }}", name=top)
        for top, mode in variants.items()
    )  # fmt: skip
    path = write_net(folder, {"x": (4, 3), "y": (4,)}, text)
    model = caffeconv.convert(path, outputs="all")
    assert len(model.functions) == 2
    assert model.functions[0].overload == ""
    assert {init.name for init in model.graph.initializer} >= {"a/H", "d/H"}
    got = run_model(model, {"x": problem.scores, "y": problem.labels})
    for top, mode in variants.items():
        close(got[top], infogain(Problem(problem.scores, problem.labels, 1, mode, 1, 0), h))


@few
@given(problems(), st.integers(0, 4), st.booleans())
def test_accuracy(folder: Path, problem: Problem, top_k: int, per_class: bool) -> None:
    top_k = min(top_k, problem.classes)
    scores = np.round(problem.scores).astype(np.float32)  # ties
    problem = Problem(scores, *list(vars(problem).values())[1:])
    extra = f"accuracy_param {{ axis: {problem.axis} top_k: {top_k} {problem.ignore} }}"
    tops = ("a", "each") if per_class else ("a",)
    got = run_net(folder, layer("Accuracy", "xy", tops, extra), {"x": scores, "y": problem.labels}, written_batch=5)
    hits, sizes = [0] * problem.classes, [0] * problem.classes
    for label, row in problem.counted():
        sizes[label] += 1
        better = sum(score >= row[label] for score in row) - 1
        hits[label] += better < top_k
    close(got["a"], sum(hits) / sum(sizes) if sum(sizes) else 0)
    if per_class:
        close(got["each"], [hit / size if size else 0 for hit, size in zip(hits, sizes, strict=True)])


def test_accuracy_of_labels_with_another_batch(folder: Path) -> None:
    scores = mixed(np.random.default_rng(8), (2, 3, 2))
    feeds = {"x": scores, "y": np.array([0, 1, 2, 2], np.float32)}
    rows = np.moveaxis(scores, 1, -1).reshape(4, 3)
    want = np.mean(rows.argmax(1) == feeds["y"])
    close(run_net(folder, layer("Accuracy", "xy", ["a"]), feeds)["a"], want)


@few
@given(st.integers(1, 4), st.lists(st.integers(1, 3), max_size=3), st.booleans(), st.integers(0, 1 << 30))
def test_hinge_loss(folder: Path, n: int, rest: list[int], squared: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = mixed(rng, (n, *rest))
    labels = (rng.integers(0, x.size // n, (n, 2)) + 0.7).astype(np.float32)
    extra = "hinge_loss_param { norm: L2 }" if squared else ""
    got = run_net(folder, layer("HingeLoss", "xy", extra=extra), {"x": x, "y": labels}, written_batch=5)["loss"]
    total = 0.0
    for i, row in enumerate(x.reshape(n, -1).astype(float)):
        for j, score in enumerate(row):
            # of 2·n labels the first n are read
            margin = max(0.0, 1 - score if j == int(labels.ravel()[i]) else 1 + score)
            total += margin**2 if squared else margin
    close(got, total / n)


@few
@given(st.integers(1, 4), st.lists(st.integers(1, 3), max_size=3), st.integers(0, 1 << 30))
def test_multinomial_logistic_loss(folder: Path, n: int, rest: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.choice([0, 1e-25, 0.2, 0.9, -1], (n, *rest)).astype(np.float32)
    labels = (rng.integers(0, p.size // n, (n, 1, 1)) + 0.5).astype(np.float32)
    got = run_net(folder, layer("MultinomialLogisticLoss", "py"), {"p": p, "y": labels}, written_batch=5)["loss"]
    rows = p.reshape(n, -1).astype(float)
    close(got, sum(-math.log(max(row[int(label)], 1e-20)) for row, label in zip(rows, labels.ravel(), strict=True)) / n)


@pytest.mark.parametrize(
    "kind", ["SoftmaxWithLoss", "InfogainLoss", "MultinomialLogisticLoss", "HingeLoss", "Accuracy"]
)
@pytest.mark.parametrize("label", [3, -1, 1e12, math.nan])
def test_illegal_label_gives_nan(folder: Path, kind: str, label: float) -> None:
    _write_h(folder / "H.binaryproto", np.eye(3, dtype=np.float32), "shape")
    extra = 'infogain_loss_param { source: "H.binaryproto" }' if kind == "InfogainLoss" else ""
    feeds = {"x": np.full((2, 3), 0.3, np.float32), "y": np.array([1, label], np.float32)}
    assert math.isnan(run_net(folder, layer(kind, "xy", extra=extra), feeds)["loss"])


# -- values ------------------------------------------------------------------------------------------------------------


@few
@given(st.integers(1, 4), st.lists(st.integers(1, 3), max_size=3), st.booleans(), st.integers(0, 1 << 30))
def test_euclidean_loss(folder: Path, n: int, rest: list[int], flat: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = mixed(rng, (n, *rest)), mixed(rng, (n, math.prod(rest)) if flat else (n, *rest))
    got = run_net(folder, layer("EuclideanLoss", "ab"), {"a": a, "b": b}, written_batch=5)["loss"]
    close(got, sum((float(x) - float(y)) ** 2 for x, y in zip(a.ravel(), b.ravel(), strict=True)) / n / 2)


@few
@given(
    st.integers(1, 4), st.lists(st.integers(1, 3), max_size=3), st.booleans(), st.integers(0, 1 << 30),
    st.sampled_from(["", *(f"normalization: {mode}" for mode in MODES), "normalize: true", "normalize: false"]),
    st.sampled_from([None, 0, 1, -1]),
)  # fmt: skip
def test_sigmoid_cross_entropy_loss(
    folder: Path, n: int, rest: list[int], flat: bool, seed: int, norm: str, ignore: int | None
) -> None:
    rng = np.random.default_rng(seed)
    x = mixed(rng, (n, *rest), 30)
    target = rng.choice([0, 1, 0.3, 1.5, -1.5], (n, math.prod(rest)) if flat else (n, *rest)).astype(np.float32)
    extra = f"loss_param {{ {norm} {'' if ignore is None else f'ignore_label: {ignore}'} }}"
    text = layer("SigmoidCrossEntropyLoss", "xt", extra=extra)
    got = run_net(folder, text, {"x": x, "t": target}, written_batch=5)["loss"]
    pairs = [(float(v), float(t)) for v, t in zip(x.ravel(), target.ravel(), strict=True) if int(t) != ignore]
    total = -sum(v * (t - (v >= 0)) - math.log(1 + math.exp(v - 2 * v * (v >= 0))) for v, t in pairs)
    mode = {"": "BATCH_SIZE", "normalize: true": "VALID", "normalize: false": "BATCH_SIZE"}.get(norm, norm[15:])
    close(got, total / max(1, {"FULL": x.size, "VALID": len(pairs), "BATCH_SIZE": n, "NONE": 1}[mode]))


@few
@given(st.integers(1, 5), st.integers(1, 3), st.booleans(), st.sampled_from([0.5, 2, 0]), st.integers(0, 1 << 30))
def test_contrastive_loss(folder: Path, n: int, channels: int, legacy: bool, margin: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = mixed(rng, (n, channels), 1), mixed(rng, (n, channels, 1, 1), 1)
    same = rng.choice([0, 1, 0.7, -0.7, -1, 2], (n, 1)).astype(np.float32)
    extra = f"contrastive_loss_param {{ margin: {margin} legacy_version: {str(legacy).lower()} }}"
    feeds = {"a": a, "b": b, "s": same}
    got = run_net(folder, layer("ContrastiveLoss", "abs", extra=extra), feeds, written_batch=7)["loss"]
    total = 0.0
    for i in range(n):
        square = sum((float(x) - float(y)) ** 2 for x, y in zip(a[i].ravel(), b[i].ravel(), strict=True))
        if int(same[i, 0]):
            total += square
        elif legacy:
            total += max(margin - square, 0)
        else:
            total += max(margin - math.sqrt(square), 0) ** 2
    close(got, total / n / 2)


@few
@given(
    st.integers(1, 4), st.lists(st.integers(1, 3), max_size=3), st.integers(2, 4), st.sampled_from([1, 3, 0.5]),
    st.integers(0, 1 << 30),
)  # fmt: skip
def test_smooth_l1_loss(folder: Path, n: int, rest: list[int], bottoms: int, sigma: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sigma = 1 if bottoms == 3 else sigma
    a, w_in, w_out = (mixed(rng, (n, *rest), 1) for _ in range(3))
    b = a + mixed(rng, a.shape, 1 / sigma**2)  # on both sides of the bend
    feeds = dict(zip("abio"[:bottoms], (a, b, w_in, w_out), strict=False))
    if len(rest) < 3:
        feeds["b"] = feeds["b"][..., None]  # only num, channels, height and width count
    extra = "" if sigma == 1 else f"smooth_l1_loss_param {{ sigma: {sigma} }}"
    got = run_net(folder, layer("SmoothL1Loss", "abio"[:bottoms], extra=extra), feeds, written_batch=5)["loss"]
    total = 0.0
    for x, y, inside, outside in zip(*(v.ravel().astype(float) for v in (a, b, w_in, w_out)), strict=True):
        d = abs((x - y) * (inside if bottoms > 2 else 1))
        value = 0.5 * (sigma * d) ** 2 if d < 1 / sigma**2 else d - 0.5 / sigma**2
        total += value * (outside if bottoms > 3 else 1)
    close(got, total / n)


# -- nets --------------------------------------------------------------------------------------------------------------

EVERY_LOSS = (
    layer("SoftmaxWithLoss", "xy", ["softmax"], "loss_param { ignore_label: 1 }", "softmax")
    + layer("InfogainLoss", "xyh", ["infogain"], "loss_param { ignore_label: 1 }", "infogain")
    + layer("EuclideanLoss", "xt", ["euclidean"], name="euclidean")
    + layer("HingeLoss", "xz", ["hinge"], "hinge_loss_param { norm: L2 }", "hinge")
    + layer("SigmoidCrossEntropyLoss", "xt", ["sigmoid"], "loss_param { ignore_label: 1 }", "sigmoid")
    + layer("ContrastiveLoss", "vwz", ["contrastive"], name="contrastive")
    + layer("MultinomialLogisticLoss", "vz", ["multinomial"], name="multinomial")
    + layer("SmoothL1Loss", "xt", ["smooth"], name="smooth")
    + layer("Accuracy", "xy", ["accuracy", "each"], "accuracy_param { ignore_label: 1 top_k: 2 }", "accuracy")
)


def test_every_opset_gives_the_same(folder: Path) -> None:
    rng = np.random.default_rng(11)
    feeds = {
        "x": mixed(rng, (4, 3, 2)), "t": mixed(rng, (4, 3, 2)), "y": rng.integers(0, 3, (4, 2)).astype(np.float32),
        "z": rng.integers(0, 3, 4).astype(np.float32), "h": mixed(rng, (3, 3)), "v": mixed(rng, (4, 3)),
        "w": mixed(rng, (4, 3)),
    }  # fmt: skip
    results = {opset: run_net(folder, EVERY_LOSS, feeds, opset=opset) for opset in (13, 15, 17, 18, 21)}
    assert len(results[17]) == 10
    for result in results.values():
        for name, value in result.items():
            close(value, results[17][name])
            assert np.isfinite(value).all()


def test_label_rules(tmp_path: Path) -> None:
    inputs: dict[str, tuple[int, ...]] = {
        "x": (4, 3, 2), "t": (4, 3, 2), "y": (4, 2), "z": (4,), "h": (3, 3), "v": (4, 3), "w": (4, 3)
    }  # fmt: skip
    graph = load(write_net(tmp_path, inputs, EVERY_LOSS)).graph
    rules = {node.name: tuple(node.layer.label_rules(node)) for node in graph.nodes}
    assert {name: found for name, found in rules.items() if found} == {
        "softmax": (LabelRule(1, 3, 1),), "infogain": (LabelRule(1, 3, 1),), "accuracy": (LabelRule(1, 3, 1),),
        "hinge": (LabelRule(1, 6),), "multinomial": (LabelRule(1, 3),),
    }  # fmt: skip
    assert [node.name for node in graph.nodes if node.layer.is_loss] == [
        "softmax", "infogain", "euclidean", "hinge", "sigmoid", "contrastive", "multinomial", "smooth"
    ]  # fmt: skip


def test_loss_without_top_gets_one(folder: Path) -> None:
    feeds = {"a": np.array([[1, 2]], np.float32), "b": np.zeros((1, 2), np.float32)}
    assert list(run_net(folder, layer("EuclideanLoss", "ab", []), feeds).values()) == [2.5]


@dataclass(frozen=True)
class Refused:
    kind: str
    inputs: dict[str, tuple[int, ...]]
    message: str
    extra: str = ""


PAIR: dict[str, tuple[int, ...]] = {"x": (2, 4), "y": (2,)}
REFUSED = {
    "batch": Refused(
        "SoftmaxWithLoss", {"x": (2, 4), "y": (3,)},
        "The data and label should have the same first dimension. (2 vs. 3",
    ),
    "scalar": Refused("EuclideanLoss", {"x": (), "y": ()}, "axis 0 out of range for 0-D Blob; a blob with axes was"),
    "label count": Refused("SoftmaxWithLoss", {"x": (2, 4), "y": (2, 3)}, "(2 vs. 6"),
    "label count infogain": Refused("InfogainLoss", {"x": (2, 4), "y": (2, 3)}, "e.g., if infogain axis == 1", "H"),
    "label count accuracy": Refused("Accuracy", {"x": (2, 4, 3), "y": (2, 2)}, "e.g., if label axis == 1"),
    "softmax axis": Refused("SoftmaxWithLoss", PAIR, "axis 2 out of range for 2-D Blob", "softmax_param { axis: 2 }"),
    "adaptive": Refused(
        "SoftmaxWithLoss", PAIR, "adaptive_weighting and scale", "loss_param { adaptive_weighting: true gamma: 0.5 }"
    ),
    "smoothing": Refused("SoftmaxWithLoss", PAIR, "label_smoothing is 0.1", "loss_param { label_smoothing: 0.1 }"),
    "weights": Refused(
        "SoftmaxWithLoss", PAIR, "1 class_weighting for 4",
        "loss_param { weight_by_label_freqs: true class_weighting: 1 }",
    ),
    "no source": Refused("InfogainLoss", PAIR, "Infogain matrix source must be specified."),
    "no file": Refused("InfogainLoss", PAIR, "File not found: none", 'infogain_loss_param { source: "none" }'),
    "no matrix": Refused("InfogainLoss", PAIR, "net.prototxt: ", 'infogain_loss_param { source: "net.prototxt" }'),
    "h size": Refused(
        "InfogainLoss", {"x": (2, 5), "y": (2,)}, "infogain->count() == num_labels_*num_labels_ (16 vs. 25)", "H"
    ),
    "h bottom": Refused("InfogainLoss", {"x": (2, 4), "y": (2,), "h": (4, 3)}, "(12 vs. 16)"),
    "normalize": Refused(
        "InfogainLoss", PAIR, 'normalize is deprecated. use "normalization"', "H loss_param { normalize: false }"
    ),
    "pre fixed": Refused("InfogainLoss", PAIR, "PRE_FIXED", "H loss_param { normalization: PRE_FIXED }"),
    "euclidean": Refused(
        "EuclideanLoss", {"x": (2, 4), "y": (2, 3)}, "Inputs must have the same dimension. (4 vs. 3"
    ),
    "5 axes": Refused(
        "EuclideanLoss", {"x": (2, 1, 1, 1, 1), "y": (2,)}, "Cannot use legacy accessors on Blobs with > 4 axes."
    ),
    "sigmoid": Refused(
        "SigmoidCrossEntropyLoss", {"x": (2, 4), "y": (2, 3)}, "inputs must have the same count. (8 vs. 6)"
    ),
    "multinomial": Refused(
        "MultinomialLogisticLoss", {"x": (2, 4), "y": (2, 2)}, "bottom[1]->channels() == 1 (2 vs. 1)"
    ),
    "multinomial width": Refused(
        "MultinomialLogisticLoss", {"x": (2, 4), "y": (2, 1, 1, 3)}, "bottom[1]->width() == 1 (3 vs. 1)"
    ),
    "channels": Refused(
        "ContrastiveLoss", {"x": (2, 4), "y": (2, 3), "s": (2,)},
        "bottom[0]->channels() == bottom[1]->channels() (4 vs. 3)",
    ),
    "height": Refused(
        "ContrastiveLoss", {"x": (2, 4, 2), "y": (2, 4), "s": (2,)}, "bottom[0]->height() == 1 (2 vs. 1)"
    ),
    "similar": Refused(
        "ContrastiveLoss", {"x": (2, 4), "y": (2, 4), "s": (2, 2)}, "bottom[2]->channels() == 1 (2 vs. 1)"
    ),
    "pairs": Refused("ContrastiveLoss", {"x": (2, 4), "y": (2, 4), "s": (1,)}, "a number for each of 2 pairs"),
    "smooth": Refused("SmoothL1Loss", {"x": (2, 4), "y": (2, 3)}, "bottom[1] 2×3"),
    "sigma": Refused(
        "SmoothL1Loss", {"x": (2, 4), "y": (2, 4), "i": (2, 4)}, "must specify both",
        "smooth_l1_loss_param { sigma: 3 }",
    ),
    "top k": Refused(
        "Accuracy", PAIR, "less than or equal to the number of classes. (5 vs. 4)", "accuracy_param { top_k: 5 }"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path: Path, case: str) -> None:
    refused = REFUSED[case]
    _write_h(tmp_path / "H.binaryproto", np.eye(4, dtype=np.float32), "shape")
    extra = refused.extra.replace("H", 'infogain_loss_param { source: "H.binaryproto" }')
    path = write_net(tmp_path, refused.inputs, layer(refused.kind, list(refused.inputs), extra=extra))
    with pytest.raises(caffeconv.CaffeconvError, match=re.escape(refused.message)) as refusal:
        caffeconv.convert(path)
    assert str(refusal.value).startswith(f"l ({refused.kind}), line")


@pytest.mark.parametrize("weights", ["", "loss_weight: 1", "loss_weight: 1 loss_weight: 0"])
def test_softmax_with_two_tops_is_refused_as_by_caffe(tmp_path: Path, weights: str) -> None:
    path = write_net(tmp_path, PAIR, layer("SoftmaxWithLoss", "xy", ["loss", "prob"], weights))
    with pytest.raises(caffeconv.CaffeconvError, match="must be unspecified or specified once per top blob"):
        caffeconv.convert(path)


def test_infogain_with_two_tops_needs_two_weights(tmp_path: Path) -> None:
    inputs = {"x": (2, 4), "y": (2,), "h": (4, 4)}
    path = write_net(tmp_path, inputs, layer("InfogainLoss", "xyh", ["loss", "prob"]))
    with pytest.raises(caffeconv.CaffeconvError, match="Add `loss_weight: 1 loss_weight: 0`"):
        caffeconv.convert(path)


def test_gradient_of_h_is_refused(tmp_path: Path) -> None:
    inputs = {"x": (2, 4), "y": (2,), "h": (4, 4)}
    path = write_net(tmp_path, inputs, layer("InfogainLoss", "xyh"), "force_backward: true\n")
    with pytest.raises(caffeconv.CaffeconvError, match="cannot backpropagate to infogain inputs"):
        caffeconv.convert(path)
