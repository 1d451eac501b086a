"""The two forms of a convolution's weight diff; whole gradients are in test_layer_gradients.py."""

from __future__ import annotations

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


def weight_diff(shape: Shape, outputs: int, window: Window, group: int) -> Array:
    places = (shape[0], outputs, *window.conv_size(shape[2:]))
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(size=dims).astype(np.float32) for name, dims in (("x", shape), ("dy", places))}
    builder = OnnxBuilder(17, {"x": shape, "dy": places})
    builder.enter("conv", (), ())
    result = gradient_ops.filter_diff(
        builder, "x", "dy", window, group, image_dims=shape, places_dims=places, what="weight_diff"
    )
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


@pytest.mark.parametrize("name", CASES)
def test_both_forms_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_ops, "LEAST_CHANNELS", 1000)
    expected = weight_diff(*CASES[name])
    monkeypatch.setattr(gradient_ops, "LEAST_CHANNELS", 1)
    shape, outputs, window, group = CASES[name]
    assert expected.shape == (outputs, shape[1] // group, *window.kernel)
    np.testing.assert_allclose(weight_diff(*CASES[name]), expected, 1e-4, 1e-4)
