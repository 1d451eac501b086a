"""Gradients of the losses against central differences of their forward rules, written anew in numpy and float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.golden_cases import forward
from support.small_nets import Array, blob, write_net

import caffeconv

Double = NDArray[np.float64]
Loss = Callable[[Double], float]
MODES = (None, "FULL", "VALID", "BATCH_SIZE", "NONE")
few = settings(max_examples=12)
_numbers = count()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loss_gradients")


def differences(loss: Loss, x: Array, step: float = 1e-6) -> Double:
    """The gradient of `loss` at x, by central differences."""
    at = x.astype(np.float64)
    gradient = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        around = []
        for sign in (1, -1):
            moved = at.copy()
            moved[place] += sign * step
            around.append(loss(moved))
        gradient[place] = (around[0] - around[1]) / (2 * step)
    return gradient


def diffs(
    folder: Path,
    type_: str,
    feeds: dict[str, Array],
    extra: str = "",
    *,
    forced: bool = True,
    wanted: Sequence[str] = "x",
) -> dict[str, Array]:
    """The diffs that a loss over these inputs gives; not `forced`: of an Eltwise over x that learns."""
    bottoms = list(feeds)
    below = ""
    if not forced:
        bottoms[0] = "s"
        below = 'layer { name: "s" type: "Bias" bottom: "x" top: "s" }\n'
    names = "".join(f' bottom: "{bottom}"' for bottom in bottoms)
    text = f'{below}layer {{ name: "l" type: "{type_}"{names} top: "loss" {extra} }}\n'
    head = "force_backward: true\n" if forced else ""
    net = caffeconv.Net(write_net(folder, {name: values.shape for name, values in feeds.items()}, text, head))
    forward(net, feeds)
    return net.backward(diffs=[*wanted])


def close(got: Array, want: Double | Array) -> None:
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-6)


# -- class scores ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """Scores with classes on `axis`, and labels, some of them ignored."""

    scores: Array
    labels: Array
    axis: int
    mode: str | None
    ignore_label: int | None
    weight: float
    seed: int

    @property
    def classes(self) -> int:
        return int(self.scores.shape[self.axis])

    @property
    def extra(self) -> str:
        mode = f"normalization: {self.mode}" if self.mode else ""
        ignore = "" if self.ignore_label is None else f"ignore_label: {self.ignore_label}"
        return f"loss_param {{ {mode} {ignore} }} loss_weight: {self.weight}"

    def total(self, scores: Double, terms: Callable[[Double, NDArray[np.int64]], Double]) -> float:
        """The weighted loss; `terms` gives one for each row of log-probabilities and its label."""
        rows = np.moveaxis(scores, self.axis, -1).reshape(-1, self.classes)
        rows = rows - rows.max(1, keepdims=True)
        labels = np.trunc(self.labels).astype(np.int64).ravel()
        counted = labels != self.ignore_label
        log_prob = rows - np.log(np.exp(rows).sum(1, keepdims=True))
        loss = float(terms(log_prob[counted], labels[counted]).sum())
        outer = math.prod(self.scores.shape[: self.axis])
        divisor = {"FULL": len(labels), "BATCH_SIZE": outer, "NONE": 1}.get(self.mode or "VALID", int(counted.sum()))
        return self.weight * loss / max(1, divisor)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    shape = [draw(st.integers(1, 4)) for _ in range(draw(st.integers(2, 4)))]
    axis = draw(st.integers(1, len(shape) - 1))
    seed = draw(st.integers(0, 1 << 30))
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 2, shape).astype(np.float32)
    rest = [dim for i, dim in enumerate(shape) if i != axis]
    labels = (rng.integers(0, shape[axis], rest) + rng.choice([0, 0.4, 0.9], rest)).astype(np.float32)
    ignore = draw(st.sampled_from([None, 0, 255, -1]))
    if ignore is not None:
        labels = np.where(rng.random(rest) < 0.4, ignore, labels).astype(np.float32)
    return Problem(
        scores, labels, axis, draw(st.sampled_from(MODES)), ignore, draw(st.sampled_from([1, 0.5, -2])), seed
    )


@few
@given(problems())
def test_softmax_with_loss(folder: Path, problem: Problem) -> None:
    extra = f"softmax_param {{ axis: {problem.axis} }} {problem.extra}"
    got = diffs(folder, "SoftmaxWithLoss", {"x": problem.scores, "y": problem.labels}, extra)["x"]
    want = differences(
        lambda x: problem.total(x, lambda log_prob, labels: -log_prob[range(len(labels)), labels]), problem.scores
    )
    close(got, want)


@few
@given(problems(), st.booleans())
def test_infogain_loss(folder: Path, problem: Problem, as_bottom: bool) -> None:
    h = np.random.default_rng(problem.seed + 1).normal(0, 1, (problem.classes,) * 2).astype(np.float32)
    extra, feeds = f"infogain_loss_param {{ axis: {problem.axis} }}", {"x": problem.scores, "y": problem.labels}
    if as_bottom:
        feeds["h"] = h
    else:
        name = f"H{next(_numbers)}.binaryproto"
        (folder / name).write_bytes(blob(h).SerializeToString())
        extra = f'infogain_loss_param {{ axis: {problem.axis} source: "{name}" }}'
    wanted = "x" if not as_bottom else "s"
    got = diffs(folder, "InfogainLoss", feeds, f"{extra} {problem.extra}", forced=not as_bottom, wanted=wanted)[wanted]
    want = differences(
        lambda x: problem.total(x, lambda log_prob, labels: -(h[labels] * log_prob).sum(1)), problem.scores
    )
    close(got, want)


@few
@given(problems())
def test_infogain_with_identity_is_softmax(folder: Path, problem: Problem) -> None:
    feeds = {"x": problem.scores, "y": problem.labels}
    softmax = diffs(folder, "SoftmaxWithLoss", feeds, f"softmax_param {{ axis: {problem.axis} }} {problem.extra}")["x"]
    name = f"I{problem.classes}.binaryproto"
    (folder / name).write_bytes(blob(np.eye(problem.classes, dtype=np.float32)).SerializeToString())
    extra = f'infogain_loss_param {{ axis: {problem.axis} source: "{name}" }} {problem.extra}'
    np.testing.assert_allclose(diffs(folder, "InfogainLoss", feeds, extra)["x"], softmax, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e2, 1e4])
@pytest.mark.parametrize("type_", ["SoftmaxWithLoss", "InfogainLoss"])
def test_wide_scores_have_finite_gradients(folder: Path, type_: str, scale: float) -> None:
    rng = np.random.default_rng(3)
    feeds = {"x": rng.normal(0, scale, (6, 4)).astype(np.float32), "y": rng.integers(0, 4, 6).astype(np.float32)}
    if type_ == "InfogainLoss":
        feeds["h"] = rng.random((4, 4)).astype(np.float32)
    got = diffs(folder, type_, feeds, forced=False, wanted="s")["s"]
    assert np.isfinite(got).all()
    assert np.abs(got.sum(1)).max() < 1e-6


def labelled(rng: np.random.Generator, items: int, classes: int) -> tuple[Array, list[int]]:
    labels = rng.integers(0, classes, items)
    return (labels + 0.5).astype(np.float32), [int(label) for label in labels]


@few
@given(st.integers(1, 4), st.integers(1, 5), st.booleans(), st.integers(0, 1 << 30))
def test_hinge_loss(folder: Path, items: int, classes: int, squared: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (items, classes)).astype(np.float32)
    y, labels = labelled(rng, items, classes)

    def loss(scores: Double) -> float:
        signs = np.ones_like(scores)
        signs[range(items), labels] = -1
        margins = np.maximum(0, 1 + signs * scores)
        return float((margins**2 if squared else margins).sum()) / items

    got = diffs(folder, "HingeLoss", {"x": x, "y": y}, f"hinge_loss_param {{ norm: {'L2' if squared else 'L1'} }}")["x"]
    close(got, differences(loss, x))


@few
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 1 << 30))
def test_multinomial_logistic_loss(folder: Path, items: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.05, 1, (items, classes, 1, 1)).astype(np.float32)
    y, labels = labelled(rng, items, classes)
    got = diffs(folder, "MultinomialLogisticLoss", {"x": x, "y": y})["x"]
    close(got, differences(lambda prob: -float(np.log(prob[range(items), labels]).sum()) / items, x))


def test_multinomial_gradient_is_clamped(folder: Path) -> None:
    feeds = {"x": np.array([[0, 1e-30, 1]], np.float32), "y": np.array([0], np.float32)}
    np.testing.assert_allclose(diffs(folder, "MultinomialLogisticLoss", feeds)["x"], [[-1e20, 0, 0]], rtol=1e-6)


# -- values ------------------------------------------------------------------------------------------------------------

shapes = st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple)
seeds = st.integers(0, 1 << 30)


@few
@given(shapes, seeds)
def test_euclidean_loss(folder: Path, shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(0, 1, shape).astype(np.float32) for _ in range(2))
    got = diffs(folder, "EuclideanLoss", {"x": x, "y": y}, "loss_weight: 3", wanted="xy")
    close(got["x"], differences(lambda a: 1.5 * float(((a - y) ** 2).sum()) / shape[0], x))
    close(got["y"], differences(lambda b: 1.5 * float(((x - b) ** 2).sum()) / shape[0], y))


@few
@given(shapes, seeds, st.sampled_from(MODES), st.sampled_from([None, -1, 1]))
def test_sigmoid_cross_entropy_loss(
    folder: Path, shape: tuple[int, ...], seed: int, mode: str | None, ignore: int | None
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0, 3, shape).astype(np.float32), rng.random(shape).astype(np.float32)
    if ignore is not None:
        y = np.where(rng.random(shape) < 0.4, ignore, y).astype(np.float32)
    counted = np.ones(shape, bool) if ignore is None else np.trunc(y) != ignore

    def loss(scores: Double) -> float:
        terms = np.logaddexp(0, scores) - scores * y
        divisor = {"FULL": x.size, "VALID": int(counted.sum()), "NONE": 1}.get(mode or "", shape[0])
        return float(terms[counted].sum()) / max(1, divisor)

    given_ = f"normalization: {mode}" if mode else ""
    extra = f"loss_param {{ {given_} {'' if ignore is None else f'ignore_label: {ignore}'} }}"
    close(diffs(folder, "SigmoidCrossEntropyLoss", {"x": x, "y": y}, extra)["x"], differences(loss, x))


@few
@given(st.integers(1, 5), st.integers(1, 4), seeds, st.booleans())
def test_contrastive_loss(folder: Path, items: int, channels: int, seed: int, legacy: bool) -> None:
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(0, 1, (items, channels)).astype(np.float32) for _ in range(2))
    similar = rng.integers(0, 2, items).astype(np.float32)

    def loss(a: Double | Array, b: Double | Array) -> float:
        distance_sq = ((a - b) ** 2).sum(1)
        apart = np.maximum(2 - distance_sq, 0) if legacy else np.maximum(2 - np.sqrt(distance_sq), 0) ** 2
        return float(np.where(similar > 0, distance_sq, apart).sum()) / (2 * items)

    extra = f"contrastive_loss_param {{ margin: 2 legacy_version: {str(legacy).lower()} }}"
    got = diffs(folder, "ContrastiveLoss", {"x": x, "y": y, "z": similar}, extra, wanted="xy")
    # Caffe adds 1e-4 to the distance that it divides by
    nearest = float(np.sqrt(((x - y) ** 2).sum(1)).min())
    tolerance = 2e-4 + (0 if legacy else 2e-4 / max(nearest, 1e-4))
    for blob_, want in (("x", differences(lambda a: loss(a, y), x)), ("y", differences(lambda b: loss(x, b), y))):
        np.testing.assert_allclose(got[blob_], want, rtol=tolerance, atol=2e-6)


@few
@given(shapes, seeds, st.sampled_from([1, 0.5, 3]), st.sampled_from([0, 2]))
def test_smooth_l1_loss(folder: Path, shape: tuple[int, ...], seed: int, sigma: float, weights: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, inside, outside = (rng.normal(0, 1, shape).astype(np.float32) for _ in range(4))

    def loss(a: Double | Array, b: Double | Array) -> float:
        d = np.abs((a - b) * (inside if weights else 1))
        terms = np.where(d < 1 / sigma**2, 0.5 * (sigma * d) ** 2, d - 0.5 / sigma**2)
        return float((terms * (outside if weights else 1)).sum()) / shape[0]

    feeds = {"x": x, "y": y, "inside": inside, "outside": outside}
    feeds = {name: feeds[name] for name in list(feeds)[: 2 + weights]}
    extra = f"loss_weight: 1 smooth_l1_loss_param {{ sigma: {sigma} }}"
    got = diffs(folder, "SmoothL1Loss", feeds, extra, wanted="xy")
    close(got["x"], differences(lambda a: loss(a, y), x))
    close(got["y"], differences(lambda b: loss(x, b), y))


def test_fast_rcnn_form_has_no_loss_weight_of_its_own(folder: Path) -> None:
    feeds = {name: np.ones((2, 3), np.float32) * i for i, name in enumerate("xyzw", 1)}
    assert not diffs(folder, "SmoothL1Loss", feeds)["x"].any()
    assert diffs(folder, "SmoothL1Loss", feeds, "loss_weight: 1")["x"].all()


def test_class_weights_of_segnet(folder: Path) -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(0, 1, (4, 3)).astype(np.float32), np.array([0, 2, 1, 2], np.float32)
    weights = np.array([0.5, 2, 3])
    extra = "loss_param { weight_by_label_freqs: true class_weighting: 0.5 class_weighting: 2 class_weighting: 3 }"
    problem = Problem(x, y, 1, None, None, 1, 0)
    want = differences(
        lambda a: problem.total(a, lambda log_prob, labels: -weights[labels] * log_prob[range(4), labels]), x
    )
    close(diffs(folder, "SoftmaxWithLoss", {"x": x, "y": y}, extra)["x"], want)
