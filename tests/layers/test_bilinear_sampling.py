"""Values between the places of planes, and outside them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from caffeconv.ir.onnx_builder import OnnxBuilder
from caffeconv.layers.bilinear_sampling import sampled


@pytest.mark.parametrize("outside", [0.0, -7.0])
def test_sampled(outside: float) -> None:
    builder = OnnxBuilder(13, {"planes": (1, 1, 2, 6), "y": (1, 1, 1, 6), "x": (1, 1, 1, 6)})
    builder.enter("l", ["top"], [])
    result = sampled(builder, "planes", ("y", "x"), (2, 3), outside=outside)
    shapes = {"planes": (1, 1, 2, 6), "y": (1, 1, 1, 6), "x": (1, 1, 1, 6)}
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims) for name, dims in shapes.items()]
    graph = helper.make_graph(
        builder.nodes, "g", inputs,
        [helper.make_tensor_value_info(result, onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in builder.initializers.items()
         if isinstance(value, np.ndarray)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    planes = np.array([[0, 1, 2, 10, 11, 12], [0, 0, 0, 0, 0, 8]], np.float32).reshape(1, 1, 2, 6)
    #         on a place; between four; the last row is held, and the last column; outside; no number
    y = np.array([1, 0.5, 1.9, 0, -0.1, np.nan], np.float32).reshape(1, 1, 1, 6)
    x = np.array([2, 0.5, 0, 2.5, 0, 0], np.float32).reshape(1, 1, 1, 6)
    (values,) = session.run(None, {"planes": planes, "y": y, "x": x})
    np.testing.assert_allclose(values[0, 0], [[12, 5.5, 10, 2, outside, outside], [8, 0, 0, 0, outside, outside]])
