"""Parameters that a session computes with where they lie in this process's memory, instead of in copies of its own.

A model as one protobuf message is copied on its way into onnxruntime several times over, and holds at most 2 GiB.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from caffeconv.emit.lazy_model import LazyModel, dtype_of, packed, without
from caffeconv.runtime.session import SharedModel
from caffeconv.tensor.param import Param
from caffeconv.tensor.param_values import FileValues

_LEAST_BYTES = 1 << 10
"""Smaller tensors go with the model, where onnxruntime looks into them while it rewrites it."""
_IN_MEMORY = "lent"
"""Stands where ONNX wants the name of a file; none of it is opened."""


def share_initializers(model: LazyModel) -> SharedModel:
    """The model without its large parameters, and these as arrays in C order, in the types that the model has them in.

    What still lies in a weights file is read, so that the session does not change when the file does.
    What the model has values of stays in it.
    """
    graph = without(model.model.graph, {"initializer"})
    arrays: dict[str, NDArray[np.generic]] = {}
    for proto in model.model.graph.initializer:
        tensor = graph.initializer.add()
        tensor.CopyFrom(proto)
        param = model.params.get(proto.name)
        if param is None:
            continue
        array = _array(param, dtype_of(proto))
        if array.nbytes < _LEAST_BYTES:
            tensor.raw_data = packed(array)
            continue
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=_IN_MEMORY)
        arrays[proto.name] = array
    stripped = without(model.model, {"graph"})
    stripped.graph.CopyFrom(graph)
    return SharedModel(stripped, arrays)


def _array(param: Param, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """A parameter's values in C order: the very ones that are in memory, or those of a file, read once."""
    if not isinstance(param.values, FileValues):
        return np.require(param.array(), dtype, ("C", "ALIGNED"))
    array = np.empty(param.shape, dtype)
    flat, start = array.reshape(-1), 0
    for block in param.values.blocks():
        flat[start : start + block.size] = block
        start += block.size
    return array
