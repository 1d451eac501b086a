"""ConvWeightGrad, ConvBottomGrad, MaxPoolGrad, ReLUGrad and SGDUpdate: the kernels against what they are short for."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from support.small_nets import Array

import caffeconv.ops

FIELDS = ("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h", "pad_w")
CONV_FIELDS = (*FIELDS, "dilation_h", "dilation_w", "group")


def run_op(op: str, inputs: dict[str, Array], outputs: int, **attributes: int) -> list[Array]:
    names = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, list(inputs), names, domain="caffeconv")
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    graph = helper.make_graph(
        [node], "op",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape) for name, values in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("caffeconv", 1)])
    model.ir_version = 8
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    options.register_custom_ops_library(caffeconv.ops.library_path())
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[Array] = session.run(names, inputs)
    return results


def conv_diffs(x: Array, w: Array, dy: Array, fields: dict[str, int]) -> tuple[Array, Array]:
    """The diffs of a convolution's weight and bottom in float64, one element of the window after another."""
    stride, pad, dilation, group = (
        *((fields[f"{name}_h"], fields[f"{name}_w"]) for name in ("stride", "pad", "dilation")), fields["group"]
    )  # fmt: skip
    places = dy.shape[2:]
    reach = [(p - 1) * s + (k - 1) * d + 1 for p, s, k, d in zip(places, stride, w.shape[2:], dilation, strict=True)]
    padded = np.zeros((*x.shape[:2], *(max(r, p + n) for r, p, n in zip(reach, pad, x.shape[2:], strict=True))))
    whole = slice(None)
    inside = (whole, whole, *(slice(p, p + n) for p, n in zip(pad, x.shape[2:], strict=True)))
    padded[inside] = x
    dx, dw = np.zeros_like(padded), np.zeros(w.shape)
    items, channels, outputs = x.shape[0], x.shape[1] // group, dy.shape[1] // group
    grouped_dy = dy.astype(np.float64).reshape(items, group, outputs, *places)
    for i, j in np.ndindex(*w.shape[2:]):
        steps = zip((i, j), dilation, places, stride, strict=True)
        seen = (whole, whole, *(slice(k * d, k * d + (p - 1) * s + 1, s) for k, d, p, s in steps))
        part = padded[seen].reshape(items, group, channels, *places)
        dw[:, :, i, j] = np.einsum("ngoyx,ngcyx->goc", grouped_dy, part).reshape(-1, channels)
        spread = np.einsum("ngoyx,goc->ngcyx", grouped_dy, w[:, :, i, j].reshape(group, outputs, channels))
        dx[seen] += spread.reshape(items, -1, *places)
    return dw.astype(np.float32), dx[inside].astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(
    items=st.integers(1, 4),
    channels=st.sampled_from([1, 3, 17, 40]),
    outputs=st.sampled_from([1, 8, 20, 33]),
    sizes=st.tuples(*[st.integers(1, 20)] * 4),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    group=st.integers(1, 2),
)
def test_conv_grads(
    items: int, channels: int, outputs: int, sizes: tuple[int, ...], kernel: tuple[int, int],
    stride: tuple[int, int], dilation: tuple[int, int], pads: tuple[int, int], group: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(0)
    x = rng.normal(size=(items, channels * group, *sizes[:2])).astype(np.float32)
    dy = rng.normal(size=(items, outputs * group, *sizes[2:])).astype(np.float32)
    w = rng.normal(size=(outputs * group, channels, *kernel)).astype(np.float32)
    fields = dict(zip(CONV_FIELDS, (*kernel, *stride, *pads, *dilation, group), strict=True))
    (dw,) = run_op("ConvWeightGrad", {"x": x, "dy": dy}, 1, **fields)
    np.testing.assert_allclose(dw, conv_diffs(x, w, dy, fields)[0], 1e-4, 1e-4)
    beyond = [min(p, (k - 1) * d) for p, k, d in zip(pads, kernel, dilation, strict=True)]
    fields |= {"stride_h": 1, "stride_w": 1, "pad_h": beyond[0], "pad_w": beyond[1]}
    (dx,) = run_op("ConvBottomGrad", {"dy": dy, "w": w}, 1, **fields, height=sizes[0], width=sizes[1])
    np.testing.assert_allclose(dx, conv_diffs(x, w, dy, fields)[1], 1e-4, 1e-4)


@pytest.mark.parametrize(
    ("op", "shapes", "change", "message"),
    [
        ("ConvWeightGrad", [(1, 2, 3, 3), (2, 2, 1, 1)], {}, "a bottom N×C×H×W and a diff"),
        ("ConvWeightGrad", [(1, 2, 3, 3), (1, 3, 1, 1)], {"group": 2}, "divided by the group"),
        ("ConvWeightGrad", [(1, 2, 3, 3), (1, 2, 1, 1)], {"dilation_w": 0}, "dilations and a group from 1 on"),
        ("ConvWeightGrad", [(1, 2, 3, 3), (1, 2, 1, 2)], {"stride_w": 2**31 - 1}, "windows beyond 2147483647"),
        ("ConvBottomGrad", [(1, 2, 3, 3), (2, 2, 2, 1)], {}, "a diff N×O×H'×W' and a weight"),
        ("ConvBottomGrad", [(1, 2, 3, 3), (2, 2, 1, 1)], {"stride_h": 2}, "strides of 1"),
        ("ConvBottomGrad", [(1, 2, 3, 3), (2, 2, 1, 1)], {"pad_h": 1}, "pads that windows reach over"),
    ],
)
def test_conv_grads_refuse_what_does_not_fit(
    op: str, shapes: list[tuple[int, ...]], change: dict[str, int], message: str
) -> None:
    fields = dict(zip(CONV_FIELDS, (1, 1, 1, 1, 0, 0, 1, 1, 1), strict=True)) | change
    size = {"height": 3, "width": 3} if op == "ConvBottomGrad" else {}
    first, second = (np.zeros(shape, np.float32) for shape in shapes)
    with pytest.raises(Exception, match=message):
        run_op(op, {"a": first, "b": second}, 1, **fields, **size)


def test_conv_grads_of_nothing_are_0() -> None:
    fields = dict(zip(CONV_FIELDS, (1, 1, 1, 1, 0, 0, 1, 1, 1), strict=True))
    (dw,) = run_op("ConvWeightGrad", {"x": np.zeros((0, 2, 3, 3), np.float32), "dy": np.zeros((0, 4, 3, 3), np.float32)}, 1,
                   **fields)  # fmt: skip
    assert dw.shape == (4, 2, 1, 1)
    assert not dw.any()


def first_winners(x: Array, dy: Array, window: dict[str, int]) -> Array:
    """Each window's diff at the first of its greatest values, as Caffe's loops find it."""
    dx = np.zeros(x.shape)
    for n, c, i, j in np.ndindex(*dy.shape):
        top, left = i * window["stride_h"] - window["pad_h"], j * window["stride_w"] - window["pad_w"]
        rows = slice(max(top, 0), max(top + window["kernel_h"], 0))
        columns = slice(max(left, 0), max(left + window["kernel_w"], 0))
        part = x[n, c, rows, columns]
        if part.size:
            row, column = np.unravel_index(part.argmax(), part.shape)
            dx[n, c, rows.start + row, columns.start + column] += dy[n, c, i, j]
    return dx.astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(3, 8)] * 2, *[st.integers(1, 4)] * 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    seed=st.integers(0, 1000),
)
def test_max_pool_grad(
    sizes: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, sizes[:4]).astype(np.float32)  # ties are common
    dy = rng.normal(size=(*sizes[:2], *sizes[4:])).astype(np.float32)
    window = dict(zip(FIELDS, (*kernel, *stride, *pad), strict=True))
    (dx,) = run_op("MaxPoolGrad", {"x": x, "dy": dy}, 1, **window)
    np.testing.assert_allclose(dx, first_winners(x, dy, window), 1e-5, 1e-6)


@pytest.mark.parametrize("shape", [(), (3,), (50, 1001)])
def test_sgd_update(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    value, gradient, history = (np.asarray(rng.normal(size=shape), np.float32) for _ in range(3))
    scalars = {
        "rate": np.array(0.1, np.float32),
        "momentum": np.array(0.9, np.float32),
        "decay": np.array(0.01, np.float32),
    }
    inputs = {"value": value, "gradient": gradient, "history": history, **scalars}
    following, speed = run_op("SGDUpdate", inputs, 2)
    expected = 0.9 * history + 0.1 * (gradient + 0.01 * value)
    np.testing.assert_allclose(speed, expected, 1e-4, 1e-6)
    np.testing.assert_allclose(following, value - expected, 1e-4, 1e-6)


@pytest.mark.parametrize(
    ("x", "dy", "stride", "message"),
    [
        ((1, 2, 3, 3), (1, 2, 1, 1), 0, "strides from 1 on"),
        ((1, 2, 3, 3), (1, 1, 1, 1), 1, "bottom N×C×H×W and a diff"),
        ((2, 3, 3), (1, 1, 1, 1), 1, "bottom N×C×H×W and a diff"),
    ],
)
def test_what_does_not_fit_is_refused(x: tuple[int, ...], dy: tuple[int, ...], stride: int, message: str) -> None:
    window = dict(zip(FIELDS, (1, 1, stride, stride, 0, 0), strict=True))
    with pytest.raises(Exception, match=message):
        run_op("MaxPoolGrad", {"x": np.zeros(x, np.float32), "dy": np.zeros(dy, np.float32)}, 1, **window)


def test_the_library_says_that_it_has_them() -> None:
    assert caffeconv.ops.has_training_ops()


@pytest.mark.parametrize("slope", [0.0, 0.25, -0.5])
def test_relu_grad(slope: float) -> None:
    random = np.random.default_rng(0)
    x, dy = random.standard_normal((2, 3, 50, 500), np.float32), random.standard_normal((2, 3, 50, 500), np.float32)
    x[0, 0, 0, :3] = 0, -0.0, np.nan
    (dx,) = run_op("ReLUGrad", {"x": x, "dy": dy, "slope": np.array(slope, np.float32)}, 1)
    np.testing.assert_array_equal(dx, np.where(x > 0, dy, np.float32(slope) * dy))


def test_relu_grad_refuses_other_sizes() -> None:
    x, dy = np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)
    with pytest.raises(Exception, match="ReLUGrad: values and a diff of one size"):
        run_op("ReLUGrad", {"x": x, "dy": dy, "slope": np.array(0, np.float32)}, 1)
