"""The forms of a convolution's diffs against each other; whole gradients are in test_layer_gradients.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper
from support.small_nets import Array, run_model

import caffeconv.layers.gradient_ops as gradient_ops
from caffeconv.ir.onnx_builder import OnnxBuilder
from caffeconv.tensor.shape import Shape
from caffeconv.tensor.window import Window

CASES = {
    "3×3": ((2, 4, 7, 6), 6, Window((3, 3), (1, 1), (1, 1), (1, 1)), 1),
    "stride and overhang": ((2, 4, 8, 7), 6, Window((3, 2), (3, 2), (1, 0), (1, 1)), 1),
    "groups and dilation": ((3, 4, 9, 9), 6, Window((3, 3), (1, 2), (2, 1), (2, 1)), 2),
    "1×1": ((2, 4, 3, 5), 6, Window((1, 1), (1, 1), (0, 0), (1, 1)), 1),
    "1×1 with a stride": ((2, 4, 6, 5), 6, Window((1, 1), (2, 2), (0, 0), (1, 1)), 2),
    "one axis": ((2, 4, 9), 6, Window((4,), (2,), (1,), (1,)), 1),
}


def run_written(shapes: dict[str, Shape], write: Callable[[OnnxBuilder], str | None]) -> Array | None:
    """What the nodes give on values drawn at random; None where nothing was written."""
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(size=dims).astype(np.float32) for name, dims in shapes.items()}
    builder = OnnxBuilder(17, shapes)
    builder.enter("conv", (), ())
    result = write(builder)
    if result is None:
        return None
    graph = helper.make_graph(
        builder.nodes, "diff",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape) for name, values in feeds.items()],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)],
        [
            helper.make_tensor(name, TensorProto.INT64, value.shape, value.ravel())
            for name, value in builder.initializers.items()
            if isinstance(value, np.ndarray)
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return run_model(model, feeds)[result]


def weight_diff(shape: Shape, outputs: int, window: Window, group: int) -> Array:
    places = (shape[0], outputs, *window.conv_size(shape[2:]))

    def write(builder: OnnxBuilder) -> str:
        return gradient_ops.filter_diff(
            builder, "x", "dy", window, group, image_dims=shape, places_dims=places, what="weight_diff"
        )

    result = run_written({"x": shape, "dy": places}, write)
    assert result is not None
    return result


@pytest.mark.parametrize("name", CASES)
def test_all_forms_of_a_weight_diff_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, outputs, window, group = CASES[name]
    monkeypatch.setattr(gradient_ops, "_suits_items", lambda *sizes: False)
    monkeypatch.setattr(gradient_ops, "LEAST_CHANNELS", 1000)
    expected = weight_diff(*CASES[name])
    assert expected.shape == (outputs, shape[1] // group, *window.kernel)
    monkeypatch.setattr(gradient_ops, "LEAST_CHANNELS", 1)
    np.testing.assert_allclose(weight_diff(*CASES[name]), expected, 1e-4, 1e-4)
    monkeypatch.setattr(gradient_ops, "_suits_items", lambda *sizes: True)
    np.testing.assert_allclose(weight_diff(*CASES[name]), expected, 1e-4, 1e-4)


@pytest.mark.parametrize(
    ("shape", "outputs", "window", "group", "is_close"),
    [
        ((2, 4, 7, 6), 6, Window((3, 3), (1, 1), (1, 1), (1, 1)), 1, True),
        ((2, 4, 7, 6), 6, Window((3, 2), (1, 1), (2, 1), (1, 1)), 2, True),
        ((2, 4, 9, 9), 6, Window((3, 3), (1, 1), (2, 3), (2, 3)), 2, True),
        ((2, 4, 3, 5), 6, Window((1, 1), (1, 1), (0, 0), (1, 1)), 1, True),
        ((2, 4, 9), 6, Window((3,), (1,), (1,), (1,)), 4, True),
        ((2, 4, 7, 6), 6, Window((3, 3), (1, 1), (0, 0), (1, 1)), 1, False),
        ((2, 2, 7, 6), 6, Window((3, 3), (1, 1), (1, 1), (1, 1)), 1, False),
        ((2, 4, 7, 6), 6, Window((3, 3), (2, 2), (1, 1), (1, 1)), 1, False),
        ((2, 4, 4, 9), 6, Window((3, 3), (1, 1), (3, 0), (1, 1)), 1, False),
    ],
)
def test_both_forms_of_a_bottom_diff_give_the_same(
    shape: Shape, outputs: int, window: Window, group: int, *, is_close: bool
) -> None:
    outputs = outputs * group // 2 if group > 2 else outputs
    positions, weight = window.conv_size(shape[2:]), (outputs, shape[1] // group, *window.kernel)
    shapes = {"dy": (shape[0], outputs, *positions), "w": weight}

    def close(builder: OnnxBuilder) -> str | None:
        return gradient_ops.spread_by_convolution(
            builder, "dy", "w", window, group, positions=positions, size=shape[2:], shape=weight, what="bottom_diff"
        )

    def apart(builder: OnnxBuilder) -> str:
        return gradient_ops.spread_windows(
            builder, "dy", "w", window, group, positions=positions, size=shape[2:], what="bottom_diff"
        )

    result, expected = run_written(shapes, close), run_written(shapes, apart)
    assert (result is not None) == is_close
    if result is not None:
        assert result.shape == shape
        assert expected is not None
        np.testing.assert_allclose(result, expected, 1e-4, 1e-4)
