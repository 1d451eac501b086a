"""A model for half precision, in memory."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto
from support.net_objects import net_objects

from caffeconv.conversion.half_precision import to_half_precision
from caffeconv.conversion.to_onnx import to_onnx


def test_weights_are_float16_and_inputs_stay(tmp_path: Path) -> None:
    lazy = to_onnx(net_objects(tmp_path).loaded, ("double",))
    path = tmp_path / "model.onnx"
    onnx.save(lazy.materialize(), path)
    for model in (to_half_precision(lazy), to_half_precision(path)):
        types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
        assert types == {"x": TensorProto.FLOAT, "double": TensorProto.FLOAT}
        (weight,) = (tensor for tensor in model.graph.initializer if list(tensor.dims) in ([2, 3], [3, 2]))
        assert weight.data_type == TensorProto.FLOAT16
