"""InfogainLoss and its gradient: the fused kernels and the function bodies, against float64 and against Caffe."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from support.golden_cases import Case, cases, part

import caffeconv
import caffeconv.ops
from caffeconv.layers.infogain_functions import infogain_attributes, infogain_loss_function, infogain_loss_grad_function
from caffeconv.runtime.cuda import load_libraries
from caffeconv.runtime.install import missing_cuda

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]

NORMALIZATIONS = ["FULL", "VALID", "BATCH_SIZE", "NONE"]
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Spec:
    """What a node says."""

    axis: int = 1
    normalization: str = "VALID"
    ignore_label: int | None = None
    probabilities: bool = False


# ---- Caffe's formulas in float64 -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Truth:
    loss: float
    size: float
    """Sum of the terms' absolute values, normalized as the loss: what rounding is measured by."""
    prob: Doubles
    diff: Doubles
    """Of a loss whose own gradient is 1."""


def truth_of(spec: Spec, scores: Array, labels: Array, h: Array) -> Truth:
    """caffe: infogain_loss_layer.cpp, Forward_cpu and Backward_cpu."""
    classes = scores.shape[spec.axis]
    last = np.moveaxis(scores.astype("f8"), spec.axis, -1)
    rows = last.reshape(-1, classes)
    label = np.trunc(labels.astype("f8")).astype(int).ravel()
    counts = np.ones(label.shape, bool) if spec.ignore_label is None else label != spec.ignore_label
    h_rows = h.astype("f8").reshape(classes, classes)[np.where(counts, label, 0)] * counts[:, None]
    prob = rows
    if not spec.probabilities:
        exp = np.exp(rows - rows.max(1, keepdims=True, initial=-np.inf))
        prob = exp / exp.sum(1, keepdims=True)
    outer = math.prod(scores.shape[: spec.axis])
    n = {"FULL": label.size, "VALID": int(counts.sum()), "BATCH_SIZE": outer, "NONE": 1}[spec.normalization]
    n = max(n, 1)
    terms = -h_rows * np.log(np.maximum(prob, 1e-20))
    diff = -h_rows / np.maximum(prob, 1e-20) if spec.probabilities else prob * h_rows.sum(1, keepdims=True) - h_rows

    def back(values: Doubles) -> Doubles:
        moved: Doubles = np.moveaxis(values.reshape(last.shape), -1, spec.axis)
        return moved

    return Truth(float(terms.sum()) / n, float(np.abs(terms).sum()) / n, back(prob), back(diff / n))


# ---- Models of one node --------------------------------------------------------------------------------------------
def model_of(
    spec: Spec,
    rank: int,
    classes: int,
    *,
    gradient: bool = False,
    with_prob: bool = False,
    with_loss: bool = False,
    opset: int = 17,
    half: bool = False,
) -> onnx.ModelProto:
    """One node with its function; every dimension but the classes is dynamic."""
    attributes = infogain_attributes(
        axis=spec.axis,
        normalization=spec.normalization,
        ignore_label=spec.ignore_label,
        probabilities=spec.probabilities,
    )
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    dims = [classes if i == spec.axis else f"d{i}" for i in range(rank)]
    scores = helper.make_tensor_value_info("scores", kind, dims)
    labels = helper.make_tensor_value_info("labels", TensorProto.FLOAT, [f"l{i}" for i in range(rank - 1)])
    h = helper.make_tensor_value_info("H", TensorProto.FLOAT, ["h0", "h1"])
    inputs = [scores, labels, h]
    if gradient:
        inputs.append(helper.make_tensor_value_info("loss_diff", TensorProto.FLOAT, []))
        outputs = [helper.make_tensor_value_info("scores_diff", kind, dims)]
        if with_loss:
            outputs.append(helper.make_tensor_value_info("loss", TensorProto.FLOAT, []))
        function = infogain_loss_grad_function(
            "here",
            rank=rank,
            axis=spec.axis,
            normalization=spec.normalization,
            ignore_label=spec.ignore_label,
            num_classes=None,
            probabilities=spec.probabilities,
            opset=opset,
            with_loss=with_loss,
        )
    else:
        outputs = [helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])]
        if with_prob:
            outputs.append(helper.make_tensor_value_info("prob", kind, dims))
        function = infogain_loss_function(
            "here",
            rank=rank,
            axis=spec.axis,
            normalization=spec.normalization,
            ignore_label=spec.ignore_label,
            num_classes=classes,
            probabilities=spec.probabilities,
            with_prob=with_prob,
            opset=opset,
        )
    node = helper.make_node(
        function.name,
        [i.name for i in inputs],
        [o.name for o in outputs],
        name="infogain",
        domain="caffeconv",
        overload="here",
    )
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return helper.make_model(
        helper.make_graph([node], "one", inputs, outputs),
        functions=[function],
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("caffeconv", 1)],
        ir_version=10,
    )


WAYS = ["function", "kernel", pytest.param("cuda", marks=pytest.mark.cuda)]
both_ways = pytest.mark.parametrize("way", WAYS)


def session_of(
    model: onnx.ModelProto, way: str, options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    """function: a plain onnxruntime. kernel: with the library. cuda: with the library for CUDA, on a GPU."""
    options = options or onnxruntime.SessionOptions()
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    if way == "kernel":
        options.register_custom_ops_library(caffeconv.ops.library_path())
    if way == "cuda":
        library = caffeconv.ops.cuda_library_path()
        if library is None or missing_cuda(onnxruntime, None):
            pytest.skip("needs a CUDA toolkit at build time, onnxruntime-gpu and a GPU")
        load_libraries(onnxruntime)
        options.register_custom_ops_library(library)
        providers.insert(0, "CUDAExecutionProvider")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers)


def loss_of(way: str, spec: Spec, scores: Array, labels: Array, h: Array) -> float:
    model = model_of(spec, scores.ndim, scores.shape[spec.axis])
    (loss,) = session_of(model, way).run(None, {"scores": scores, "labels": labels, "H": h})
    assert loss.shape == ()
    assert loss.dtype == np.float32
    return float(loss)


def loss_and_prob_of(way: str, spec: Spec, scores: Array, labels: Array, h: Array) -> tuple[float, Array]:
    half = scores.dtype == np.float16
    model = model_of(spec, scores.ndim, scores.shape[spec.axis], with_prob=True, half=half)
    loss, prob = session_of(model, way).run(None, {"scores": scores, "labels": labels, "H": h})
    assert loss.shape == ()
    assert loss.dtype == np.float32
    assert prob.shape == scores.shape
    assert prob.dtype == scores.dtype
    return float(loss), prob


def diff_of(way: str, spec: Spec, scores: Array, labels: Array, h: Array, loss_diff: float = 1) -> Array:
    half = scores.dtype == np.float16
    model = model_of(spec, scores.ndim, scores.shape[spec.axis], gradient=True, half=half)
    feeds = {"scores": scores, "labels": labels, "H": h, "loss_diff": np.array(loss_diff, "f4")}
    diff: Array = session_of(model, way).run(None, feeds)[0]
    assert diff.shape == scores.shape
    assert diff.dtype == scores.dtype
    return diff


def diff_and_loss_of(way: str, spec: Spec, scores: Array, labels: Array, h: Array) -> tuple[Array, float]:
    model = model_of(spec, scores.ndim, scores.shape[spec.axis], gradient=True, with_loss=True)
    feeds = {"scores": scores, "labels": labels, "H": h, "loss_diff": np.array(1, "f4")}
    diff, loss = session_of(model, way).run(None, feeds)
    assert loss.shape == ()
    return diff, float(loss)


@dataclass(frozen=True)
class Problem:
    spec: Spec
    scores: Array
    labels: Array
    h: Array


@st.composite
def problems(draw: st.DrawFn, spread: float = 6, probabilities: bool | None = None) -> Problem:
    """Any rank and axis, sizes that fill no vector, one, and several; ties, zero rows of H, fractional labels."""
    rank = draw(st.integers(1, 4))
    axis = draw(st.integers(0, rank - 1))
    sizes = st.sampled_from([1, 2, 3, 5, 17, 40])
    shape = [draw(st.sampled_from([1, 2, 7, 21, 33, 70, 130]) if i == axis else sizes) for i in range(rank)]
    assume(math.prod(shape) < 40_000)
    as_probabilities = draw(st.booleans()) if probabilities is None else probabilities
    spec = Spec(
        axis, draw(st.sampled_from(NORMALIZATIONS)), draw(st.sampled_from([None, -1, 0, 255])), as_probabilities
    )
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = shape.pop(axis)
    labels = random.integers(0, classes, shape) + random.choice([0, 0, 0.5], shape)
    if spec.ignore_label is not None:
        labels = np.where(random.random(shape) < draw(st.sampled_from([0.3, 1])), spec.ignore_label, labels)
    shape.insert(axis, classes)
    scores = random.normal(0, spread, shape)
    scores = np.where(random.random(shape) < 0.1, np.round(scores), scores)
    if as_probabilities:
        scores = np.exp(-np.abs(scores)) * (random.random(shape) > 0.05)
    h = random.normal(size=(classes, classes)) * (random.random((classes, 1)) > 0.2)
    return Problem(spec, np.asarray(scores, "f4"), np.asarray(labels, "f4"), np.asarray(h, "f4"))


# ---- Kernel, function and formula ----------------------------------------------------------------------------------
@both_ways
@given(problem=problems())
@settings(max_examples=30)
def test_any_shape(way: str, problem: Problem) -> None:
    truth = truth_of(problem.spec, problem.scores, problem.labels, problem.h)
    inputs = (problem.spec, problem.scores, problem.labels, problem.h)
    loss, prob = loss_and_prob_of(way, *inputs)
    assert loss == pytest.approx(truth.loss, rel=1e-6, abs=1e-6 * truth.size + 1e-12)
    assert loss_of(way, *inputs) == pytest.approx(loss, rel=1e-6, abs=1e-7 * truth.size)
    np.testing.assert_allclose(prob, truth.prob, rtol=1e-5, atol=1e-9)
    # p·ΣH − H may cancel; −H/p does not.
    atol = 1e-6 if problem.spec.probabilities else 1e-6 * float(np.abs(problem.h).sum(-1).max())
    np.testing.assert_allclose(diff_of(way, *inputs, loss_diff=-2.5), -2.5 * truth.diff, rtol=1e-5, atol=2.5 * atol)
    diff, again = diff_and_loss_of(way, *inputs)
    np.testing.assert_allclose(diff, truth.diff, rtol=1e-5, atol=atol)
    assert again == pytest.approx(loss, rel=1e-6, abs=1e-7 * truth.size)


@given(problem=problems(spread=1, probabilities=False))
@settings(max_examples=25)
def test_gradient_is_the_slope(problem: Problem) -> None:
    spec, scores = problem.spec, problem.scores
    random = np.random.default_rng(0)
    direction = random.normal(size=scores.shape)
    step = 1e-4 / np.linalg.norm(direction)

    def loss_at(moved: Doubles) -> float:
        last = np.moveaxis(moved, spec.axis, -1).reshape(-1, scores.shape[spec.axis])
        log_p = last - last.max(1, keepdims=True)
        log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
        label = np.trunc(problem.labels).astype(int).ravel()
        counts = np.ones(label.shape, bool) if spec.ignore_label is None else label != spec.ignore_label
        rows = problem.h.astype("f8")[np.where(counts, label, 0)] * counts[:, None]
        return float(-(rows * log_p).sum())

    # Sums, not averages: the normalizer is another test's business.
    diff = diff_of("kernel", replace(spec, normalization="NONE"), scores, problem.labels, problem.h)
    slope = (loss_at(scores + step * direction) - loss_at(scores - step * direction)) / (2 * step)
    size = float(np.abs(problem.h).sum(-1).max()) * np.linalg.norm(direction)
    assert float((diff * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-5 * float(size))


@both_ways
@given(problem=problems(probabilities=False))
@settings(max_examples=20)
def test_identity_is_softmax_loss(way: str, problem: Problem) -> None:
    spec, scores, labels = problem.spec, problem.scores, problem.labels
    classes = scores.shape[spec.axis]
    last = np.moveaxis(scores.astype("f8"), spec.axis, -1)
    log_p = last - last.max(-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    label = np.trunc(labels).astype(int)
    counts = np.ones(label.shape, bool) if spec.ignore_label is None else label != spec.ignore_label
    safe = np.where(counts, label, 0)
    picked = np.take_along_axis(log_p, safe[..., None], -1)[..., 0]
    identity = np.eye(classes, dtype="f4")
    spec = replace(spec, normalization="NONE")
    assert loss_of(way, spec, scores, labels, identity) == pytest.approx(
        -float(picked[counts].sum()), rel=1e-5, abs=1e-6
    )
    want = np.moveaxis((np.exp(log_p) - np.eye(classes)[safe]) * counts[..., None], -1, spec.axis)
    np.testing.assert_allclose(diff_of(way, spec, scores, labels, identity), want, rtol=1e-5, atol=1e-6)


@both_ways
def test_label_smoothing(way: str) -> None:
    random = np.random.default_rng(1)
    scores, labels = random.normal(size=(50, 10)).astype("f4"), random.integers(0, 10, 50).astype("f4")
    epsilon = 0.1
    h = ((1 - epsilon) * np.eye(10) + epsilon / 10).astype("f4")
    log_p = scores - np.log(np.exp(scores.astype("f8")).sum(1, keepdims=True))
    targets = (1 - epsilon) * np.eye(10)[labels.astype(int)] + epsilon / 10
    assert loss_of(way, Spec(), scores, labels, h) == pytest.approx(-(targets * log_p).sum() / 50, rel=1e-6)


@both_ways
@pytest.mark.parametrize("shift", [-1e3, 64, 4096])
def test_shift_changes_nothing(way: str, shift: float) -> None:
    random = np.random.default_rng(2)
    # Multiples of 1/256: the shifted scores are exact floats too.
    scores = (random.integers(-1000, 1000, (3, 21, 5, 8)) / 256).astype("f4")
    labels, h = random.integers(0, 21, (3, 5, 8)).astype("f4"), random.random((21, 21)).astype("f4")
    shifted = (scores + np.float32(shift)).astype("f4")
    assert loss_of(way, Spec(), shifted, labels, h) == pytest.approx(loss_of(way, Spec(), scores, labels, h), rel=1e-6)
    moved, still = (diff_of(way, Spec(), x, labels, h) for x in (shifted, scores))
    np.testing.assert_allclose(moved, still, rtol=1e-5, atol=1e-8)


@both_ways
@pytest.mark.parametrize("shape", [(6, 5), (2, 40), (2, 21, 3, 9)])
@pytest.mark.parametrize("scale", [80, 1e3, 1e4])
def test_large_scores(way: str, shape: tuple[int, ...], scale: float) -> None:
    random = np.random.default_rng(3)
    scores = (random.uniform(-1, 1, shape) * scale).astype("f4")
    labels = random.integers(0, shape[1], (shape[0], *shape[2:])).astype("f4")
    h = random.random((shape[1], shape[1])).astype("f4")
    truth = truth_of(Spec(), scores, labels, h)
    assert loss_of(way, Spec(), scores, labels, h) == pytest.approx(truth.loss, rel=1e-6)
    np.testing.assert_allclose(diff_of(way, Spec(), scores, labels, h), truth.diff, rtol=1e-4, atol=1e-6)


@both_ways
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("shape", [(30, 10), (9, 50), (2, 21, 6, 7)])
def test_float16(way: str, shape: tuple[int, ...], *, probabilities: bool) -> None:
    random = np.random.default_rng(4)
    scores = random.random(shape).astype("f2") if probabilities else random.normal(0, 3, shape).astype("f2")
    labels = random.integers(0, shape[1], (shape[0], *shape[2:])).astype("f4")
    h = random.random((shape[1], shape[1])).astype("f4")
    spec = Spec(probabilities=probabilities)
    truth = truth_of(spec, scores.astype("f4"), labels, h)
    loss, prob = loss_and_prob_of(way, spec, scores, labels, h)
    assert loss == pytest.approx(truth.loss, rel=1e-6)
    np.testing.assert_allclose(prob, truth.prob, rtol=1e-3, atol=1e-7)
    diff = diff_of(way, spec, scores, labels, h, loss_diff=64)
    np.testing.assert_allclose(diff, 64 * truth.diff, rtol=1e-3, atol=1e-5)


@both_ways
@pytest.mark.parametrize("shape", [(0, 5), (0, 21, 4, 4), (3, 5, 0)])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_empty_batch(way: str, shape: tuple[int, ...], normalization: str) -> None:
    spec = Spec(normalization=normalization)
    scores, labels = np.zeros(shape, "f4"), np.zeros((shape[0], *shape[2:]), "f4")
    h = np.eye(shape[1], dtype="f4")
    loss, prob = loss_and_prob_of(way, spec, scores, labels, h)
    assert loss == 0
    assert prob.shape == shape
    assert diff_of(way, spec, scores, labels, h).shape == shape


@both_ways
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_all_ignored(way: str, normalization: str) -> None:
    spec = Spec(normalization=normalization, ignore_label=-1)
    scores, h = np.full((4, 3), np.nan, "f4"), np.ones((3, 3), "f4")
    assert loss_of(way, spec, scores, np.full(4, -1, "f4"), h) == 0
    assert not diff_of(way, spec, scores, np.full(4, -1, "f4"), h).any()


@both_ways
@pytest.mark.parametrize("shape", [(4, 5), (4, 40), (1, 5, 4)])
def test_nan_stays(way: str, shape: tuple[int, ...]) -> None:
    scores = np.zeros(shape, "f4")
    scores.reshape(shape[0], shape[1], -1)[0, 2, 0] = np.nan
    labels, h = np.zeros((shape[0], *shape[2:]), "f4"), np.ones((shape[1], shape[1]), "f4")
    loss, prob = loss_and_prob_of(way, Spec(), scores, labels, h)
    assert math.isnan(loss)
    assert np.isnan(prob).sum() == shape[1] == np.isnan(diff_of(way, Spec(), scores, labels, h)).sum()


@both_ways
def test_shape_of_h_and_labels_is_free(way: str) -> None:
    random = np.random.default_rng(5)
    scores, h = random.normal(size=(6, 4)).astype("f4"), random.random((4, 4)).astype("f4")
    labels = random.integers(0, 4, 6).astype("f4")
    model = model_of(Spec(), 2, 4)
    del model.graph.input[1].type.tensor_type.shape.dim[:]
    for name in ("a", "b", "c", "d"):
        model.graph.input[1].type.tensor_type.shape.dim.add().dim_param = name
        model.graph.input[2].type.tensor_type.shape.dim.add().dim_param = f"h{name}"
    del model.graph.input[2].type.tensor_type.shape.dim[:2]
    feeds = {"scores": scores, "labels": labels.reshape(6, 1, 1, 1), "H": h.reshape(1, 1, 4, 4)}
    (loss,) = session_of(model, way).run(None, feeds)
    assert float(loss) == pytest.approx(truth_of(Spec(), scores, labels, h).loss, rel=1e-6)


# ---- Caffe's own numbers -------------------------------------------------------------------------------------------
# In infogain_vs_softmax another loss adds its gradient.
GOLDENS = [c for c in cases("layers") if "infogain" in c.name and "SoftmaxWithLoss" not in c.types]


@both_ways
@pytest.mark.parametrize("case", GOLDENS, ids=lambda case: case.folder.name)
def test_gradient_of_caffe(way: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.folder)
    (record,) = case.records()
    wanted = part(record, "diff/")
    if "score" not in wanted:
        pytest.skip("Caffe recorded no gradient")
    model = caffeconv.convert(case.net, case.weights, outputs="all", batch="keep", **case.state)
    (node,) = (node for node in model.graph.node if node.op_type == "InfogainLoss")
    values = {**{i.name: numpy_helper.to_array(i) for i in model.graph.initializer}, **part(record, "blob/")}
    scores, labels, h = (np.asarray(values[name], "f4") for name in node.input)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    ignore = int(attributes["ignore_label"]) if attributes["has_ignore_label"] else None
    spec = Spec(int(attributes["axis"]), attributes["normalization"].decode(), ignore)
    labels = labels.reshape(np.delete(scores.shape, spec.axis))
    weights = re.findall(r"loss_weight: *([\d.]+)", Path(case.net).read_text())
    diff = diff_of(
        way, spec, scores, labels, h.reshape(scores.shape[spec.axis], -1), float(weights[0]) if weights else 1
    )
    np.testing.assert_allclose(diff, wanted["score"], rtol=1e-5, atol=1e-6)


# ---- Wrong input ---------------------------------------------------------------------------------------------------
BAD_LABELS = [5, -1, -7, 1e30, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("ignore_label", [None, 255])
@pytest.mark.parametrize("label", BAD_LABELS)
def test_kernel_refuses_label(label: float, ignore_label: int | None, *, gradient: bool) -> None:
    spec = Spec(ignore_label=ignore_label)
    labels = np.zeros((2, 3, 4), "f4")
    labels[1, 0, 2] = label
    feeds = {"scores": np.zeros((2, 5, 3, 4), "f4"), "labels": labels, "H": np.eye(5, dtype="f4")}
    if gradient:
        feeds["loss_diff"] = np.array(1, "f4")
    session = session_of(model_of(spec, 4, 5, gradient=gradient), "kernel")
    with pytest.raises(Exception, match="INVALID_ARGUMENT") as caught:
        session.run(None, feeds)
    op = "InfogainLossGrad" if gradient else "InfogainLoss"
    text = "-?nan" if math.isnan(label) else re.escape(f"{np.float32(label):.9g}")
    expected = rf"Name:'infogain' Status Message: {op}: label {text} at position 14 \(1, 0, 2\) is outside 0\.\.4"
    expected += " and is not the ignore_label 255" if ignore_label is not None else "$"
    assert re.search(expected, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("label", BAD_LABELS)
def test_function_answers_nan(label: float) -> None:
    labels = np.array([0, label, 3], "f4")
    scores, h = np.zeros((3, 5), "f4"), np.eye(5, dtype="f4")
    assert math.isnan(loss_of("function", Spec(), scores, labels, h))
    assert math.isnan(loss_of("function", Spec(ignore_label=2), scores, labels, h))
    assert np.isnan(diff_of("function", Spec(), scores, labels, h)).any(1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"labels": np.zeros(3, "f4")}, "3 labels (shape 3) for 4 predictions; scores of shape 4x5"),
        ({"labels": np.zeros(1, "f4")}, "1 labels"),
        ({"H": np.zeros((4, 4), "f4")}, "H has 16 elements (shape 4x4); scores of shape 4x5 have 5 classes on axis 1"),
        ({"H": np.zeros((5, 1), "f4")}, "need an H of 5x5"),
        ({"H": np.zeros((0, 0), "f4")}, "H has 0 elements"),
    ],
)
def test_counts_must_agree(feeds: dict[str, Array], message: str) -> None:
    good = {"scores": np.zeros((4, 5), "f4"), "labels": np.zeros(4, "f4"), "H": np.eye(5, dtype="f4")}
    model = model_of(Spec(), 2, 5)
    with pytest.raises(Exception, match=re.escape(message)):
        session_of(model, "kernel").run(None, {**good, **feeds})
    with pytest.raises(Exception, match="Reshape"):
        session_of(model, "function").run(None, {**good, **feeds})


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        (helper.make_attribute("axis", 2), "axis is 2, but scores of shape 4x5 have 2 axes"),
        (helper.make_attribute("axis", -1), "axis is -1; it must be counted from the front"),
        (helper.make_attribute("normalization", "MEAN"), "normalization is 'MEAN'; it must be FULL"),
        (helper.make_attribute("bottom", "logit"), "bottom is 'logit'; it must be logits or probabilities"),
    ],
)
def test_kernel_refuses_attribute(attribute: onnx.AttributeProto, message: str) -> None:
    model = model_of(Spec(), 2, 5)
    kept = [a for a in model.graph.node[0].attribute if a.name != attribute.name]
    del model.graph.node[0].attribute[:]
    model.graph.node[0].attribute.extend([*kept, attribute])
    feeds = {"scores": np.zeros((4, 5), "f4"), "labels": np.zeros(4, "f4"), "H": np.eye(5, dtype="f4")}
    with pytest.raises(Exception, match=re.escape(message)):
        session_of(model, "kernel").run(None, feeds)


def test_python_refuses() -> None:
    good = {"axis": 1, "normalization": "VALID", "ignore_label": None, "probabilities": False}
    with pytest.raises(ValueError, match="axis -1"):
        infogain_attributes(**{**good, "axis": -1})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'MEAN'"):
        infogain_attributes(**{**good, "normalization": "MEAN"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="axis 3"):
        model_of(Spec(axis=3), 3, 5)
    with pytest.raises(ValueError, match="opset 12"):
        model_of(Spec(), 3, 5, opset=12)


# ---- One model, two ways -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("way", "ours"), [("function", False), ("kernel", True)])
def test_which_operators_ran(way: str, ours: bool, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = session_of(model_of(Spec(), 2, 5), way, options)
    session.run(None, {"scores": np.zeros((4, 5), "f4"), "labels": np.zeros(4, "f4"), "H": np.eye(5, dtype="f4")})
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = {event["args"]["op_name"] for event in events if event.get("cat") == "Node" and "op_name" in event["args"]}
    assert ("InfogainLoss" in ran) == ours
    assert ("LogSoftmax" in ran) != ours


def test_two_overloads_in_one_model() -> None:
    """Two nodes of one type, each with a body of its own."""
    first, second = model_of(Spec(), 2, 5), model_of(Spec(normalization="NONE", ignore_label=0), 2, 5)
    second.graph.node[0].overload = second.functions[0].overload = "there"
    second.graph.node[0].name = "second"
    second.graph.node[0].output[0] = second.graph.output[0].name = "sum"
    first.graph.node.extend(second.graph.node)
    first.graph.output.extend(second.graph.output)
    first.functions.extend(second.functions)
    onnx.checker.check_model(first, full_check=True)
    labels = np.array([0, 0, 1, 1], "f4")
    feeds = {"scores": np.zeros((4, 5), "f4"), "labels": labels, "H": np.eye(5, dtype="f4")}
    for way in ("function", "kernel"):
        mean, total = session_of(first, way).run(None, feeds)
        assert float(mean) == pytest.approx(math.log(5))
        assert float(total) == pytest.approx(2 * math.log(5))


@pytest.mark.parametrize("opset", [13, 14, 15, 17, 18, 21, 23])
@pytest.mark.parametrize("gradient", [False, True])
def test_valid_onnx(opset: int, *, gradient: bool) -> None:
    for both in (False, True):
        model = model_of(Spec(ignore_label=1), 4, 5, gradient=gradient, with_prob=both, with_loss=both, opset=opset)
        onnx.checker.check_model(model, full_check=True)
        feeds = {
            "scores": np.zeros((2, 5, 2, 2), "f4"),
            "labels": np.zeros((2, 2, 2), "f4"),
            "H": np.eye(5, dtype="f4"),
        }
        if gradient:
            feeds["loss_diff"] = np.array(1, "f4")
        session_of(model, "function").run(None, feeds)


def test_same_bits_on_any_number_of_threads() -> None:
    random = np.random.default_rng(6)
    scores, labels = (
        random.normal(size=(2, 21, 200, 200)).astype("f4"),
        random.integers(0, 21, (2, 200, 200)).astype("f4"),
    )
    feeds = {"scores": scores, "labels": labels, "H": random.random((21, 21)).astype("f4")}
    losses = set()
    for threads in (1, 2, 3, 8):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = session_of(model_of(Spec(), 4, 21), "kernel", options)
        losses |= {session.run(None, feeds)[0].tobytes() for _ in range(3)}
    assert len(losses) == 1


def test_large_sum_is_exact() -> None:
    """Caffe's float32 sum over a million pixels is off by percents; ours keeps six digits."""
    random = np.random.default_rng(7)
    scores, labels = (
        random.normal(size=(1, 4, 700, 700)).astype("f4"),
        random.integers(0, 4, (1, 700, 700)).astype("f4"),
    )
    h = random.random((4, 4)).astype("f4")
    spec = Spec(normalization="NONE")
    truth = truth_of(spec, scores, labels, h)
    for way in ("function", "kernel"):
        assert loss_of(way, spec, scores, labels, h) == pytest.approx(truth.loss, rel=1e-6)


# ---- The library ---------------------------------------------------------------------------------------------------
def test_library_path() -> None:
    path = Path(caffeconv.ops.library_path())
    assert path.is_absolute()
    assert path.is_file()


def test_library_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caffeconv.ops, "__path__", [str(tmp_path)])
    with pytest.raises(caffeconv.CaffeconvError, match=r"pip install \."):
        caffeconv.ops.library_path()
    assert caffeconv.ops.cuda_library_path() is None


def test_import_is_light() -> None:
    code = "import sys, caffeconv.ops; sys.exit(bool({'onnx', 'onnxruntime'} & set(sys.modules)))"
    package = Path(caffeconv.ops.__file__).parents[2]  # not a source tree that happens to be the current folder
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=package).returncode == 0


def _sanitizers_work(folder: Path) -> bool:
    if not all(shutil.which(tool) for tool in ("bash", "cmake", "c++")):
        return False
    source = folder / "probe.cc"
    source.write_text("int main() { return 0; }")
    build = ["c++", "-fsanitize=address,undefined", str(source), "-o", str(folder / "probe")]
    return not subprocess.run(build, capture_output=True, check=False).returncode


def test_the_cuda_benchmark_compiles(tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc")
    root = HERE.parents[1]
    command = [nvcc, "-std=c++17", "-Xcompiler=-Wall,-Wextra,-Werror", f"-I{root / 'caffeconv' / 'ops'}", "-c"]
    subprocess.run([*command, root / "benchmarks" / "infogain_cuda.cu", "-o", tmp_path / "b.o"], check=True)


def test_cpp_under_sanitizers(tmp_path: Path) -> None:
    """The kernels' own tests, the CUDA kernels among them: AddressSanitizer, UBSan, and valgrind where there is one."""
    if not _sanitizers_work(tmp_path):
        pytest.skip("needs bash, CMake and a C++ compiler with its sanitizers' libraries")
    valgrind = ["--valgrind"] if shutil.which("valgrind") else []
    run = subprocess.run(["bash", str(HERE / "run.sh"), *valgrind], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "all passed" in run.stdout
