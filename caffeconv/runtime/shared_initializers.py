"""Parameters that a session computes with where they lie in this process's memory, instead of in copies of its own.

A model as one protobuf message is copied on its way into onnxruntime several times over, and holds at most 2 GiB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from caffeconv.emit.lazy_model import LazyModel, dtype_of, packed, without
from caffeconv.tensor.param import Param
from caffeconv.tensor.stored_values import StoredValues

if TYPE_CHECKING:
    import onnxruntime

_LEAST_BYTES = 1 << 10
"""Smaller tensors go with the model, where onnxruntime looks into them while it rewrites it."""
_IN_MEMORY = "lent"
"""Stands where ONNX wants the name of a file; none of it is opened."""


def share_initializers(
    model: ModelProto | LazyModel, options: onnxruntime.SessionOptions
) -> tuple[ModelProto, Sequence[onnxruntime.OrtValue]]:
    """The model without its large parameters, which `options` lend to a session; and what must live as long as that.

    What still lies in a weights file is read, so that nothing happens to the session when somebody changes the file. A
    ModelProto, whose values are its own, stays as it is.
    """
    import onnxruntime

    if isinstance(model, ModelProto):
        return model, ()
    outline = model
    graph = without(outline.model.graph, {"initializer"})
    names: list[str] = []
    values: list[onnxruntime.OrtValue] = []
    for proto in outline.model.graph.initializer:
        tensor = graph.initializer.add()
        tensor.CopyFrom(proto)
        param = outline.params.get(proto.name)
        if param is None:
            continue
        array = _array(param, dtype_of(proto))
        if array.nbytes < _LEAST_BYTES:
            tensor.raw_data = packed(array)
            continue
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=_IN_MEMORY)
        names.append(proto.name)
        values.append(onnxruntime.OrtValue.ortvalue_from_numpy(array))
    if names:
        options.add_external_initializers(names, values)
    lean = without(outline.model, {"graph"})
    lean.graph.CopyFrom(graph)
    return lean, values


def _array(param: Param, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """A parameter's values in C order: the very ones that are in memory, or those of a file, read once."""
    if not isinstance(param.values, StoredValues):
        return np.require(param.array(), dtype, ("C", "ALIGNED"))
    array = np.empty(param.shape, dtype)
    flat, start = array.reshape(-1), 0
    for block in param.values.blocks():
        flat[start : start + block.size] = block
        start += block.size
    return array
