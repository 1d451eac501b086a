"""An ONNX model without the values of its parameters, which are fetched when they are written."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, helper

from caffeconv.errors import CaffeconvError
from caffeconv.tensor.param import Param

MOST_BYTES = (1 << 31) - (1 << 20)
"""What protobuf takes in one message, with a little room."""


@dataclass(frozen=True)
class LazyModel:
    """A model in which the initializers named in `params` have name, type and dims, but no values yet.

    Where such an initializer's type is another than float32, its values are cast to it when they are written. Any
    ModelProto is one, with no `params`: its values are then all in memory.
    """

    model: ModelProto
    params: Mapping[str, Param]

    @property
    def bytes(self) -> int:
        """The size of the model with all values in it, but for a few bytes for each tensor."""
        tensors = (tensor for tensor in self.model.graph.initializer if tensor.name in self.params)
        return self.model.ByteSize() + sum(dtype_of(tensor).itemsize * math.prod(tensor.dims) for tensor in tensors)

    def materialize(self) -> ModelProto:
        """The model with all values; CaffeconvError, before memory is taken, where one message cannot hold them."""
        if not self.params:
            return self.model
        refuse_too_large(self)
        model = ModelProto()
        model.CopyFrom(self.model)
        for tensor in model.graph.initializer:
            if tensor.name in self.params:
                tensor.raw_data = packed(self.params[tensor.name].array(), dtype_of(tensor))
        return model

    def to_check(self) -> ModelProto:
        """The model with its parameters as inputs: a checker's verdict on it holds for the whole model."""
        constants = [tensor for tensor in self.model.graph.initializer if tensor.name not in self.params]
        inputs = [_as_input(tensor) for tensor in self.model.graph.initializer if tensor.name in self.params]
        graph = without(self.model.graph, {"initializer"})
        graph.initializer.extend(constants)
        graph.input.extend(inputs)
        model = without(self.model, {"graph"})
        model.graph.CopyFrom(graph)
        return model


def refuse_too_large(model: LazyModel) -> None:
    """Raises CaffeconvError where one ONNX file cannot hold all values."""
    if model.bytes >= MOST_BYTES:
        raise CaffeconvError(
            f"the model takes {model.bytes / 1e9:.1f} GB; one ONNX file holds at most {MOST_BYTES / 1e9:.1f} GB. "
            "Write it with its weights beside it: `caffeconv.convert_to(storage='external')`"
        )


def dtype_of(tensor: TensorProto) -> np.dtype[np.generic]:
    """NumPy's name for a tensor's type."""
    dtype: np.dtype[np.generic] = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return dtype


def packed(values: NDArray[np.generic], dtype: np.dtype[np.generic] | None = None) -> bytes:
    """The values, cast to `dtype` unless None, as ONNX's raw_data has them: C order, little-endian."""
    return np.ascontiguousarray(values, (dtype or values.dtype).newbyteorder("<")).tobytes()


_Part = TypeVar("_Part", ModelProto, GraphProto)


def without(message: _Part, fields: Collection[str]) -> _Part:
    """A copy of a message that lacks some of its fields, which are not copied on the way either."""
    copy = type(message)()
    for field, value in message.ListFields():
        if field.name in fields:
            continue
        if isinstance(value, Message):
            getattr(copy, field.name).CopyFrom(value)
        elif isinstance(value, (bool, int, float, str, bytes)):
            setattr(copy, field.name, value)
        else:
            getattr(copy, field.name).extend(value)
    return copy


def _as_input(tensor: TensorProto) -> ValueInfoProto:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dimension(dim_value=dim) for dim in tensor.dims])
    kind = TypeProto(tensor_type=TypeProto.Tensor(elem_type=tensor.data_type, shape=shape))
    return ValueInfoProto(name=tensor.name, type=kind)
