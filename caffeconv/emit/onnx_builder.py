"""Collects ONNX nodes and initializers while layers are lowered, one scope of names per layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import FunctionProto, GraphProto, NodeProto, TensorProto, helper

from caffeconv.errors import CaffeconvError
from caffeconv.ir import Dims, FloatArray, Node, Param, Shape

OUR_DOMAIN = "caffeconv"
Attribute = int | float | str | Sequence[int] | Sequence[float] | TensorProto | GraphProto
Array = NDArray[np.float32] | NDArray[np.int64] | NDArray[np.bool_] | NDArray[np.int32] | NDArray[np.float64]


class NeedsFixedBatch(CaffeconvError):
    """A layer can be written only for a known batch size; the message says why."""


class OnnxBuilder:
    """What a layer's `lower` writes to.

    Values are named by strings. `emit` writes a node that makes the layer's tops; `op` one that makes something in
    between, named ``layer/what``. Attributes are ONNX's own, by their ONNX names.
    """

    def __init__(self, opset: int, dims: Mapping[str, Dims]) -> None:
        self.opset = opset
        self.nodes: list[NodeProto] = []
        self.functions: dict[tuple[str, str], FunctionProto] = {}
        self.initializers: dict[str, Array | Param] = {}
        self._dims = dict(dims)
        self._names: set[str] = set(dims)
        self._node_names: set[str] = set()
        self._node: Node | None = None
        self._scope = ""
        self._scope_used = False

    def enter(self, node: Node) -> None:
        """Starts a layer: names from here on lie in its scope."""
        self._node = node
        self._scope = node.name
        number = 1
        while self._scope in self._node_names:
            number += 1
            self._scope = f"{node.name}_{number}"
        self._node_names.add(self._scope)
        self._scope_used = False

    # -- shapes ---------------------------------------------------------------------------------------------------

    def dims(self, value: str) -> Dims:
        """A blob's shape, with None for an axis that varies with the batch."""
        return self._dims[value]

    def fixed(self, dims: Dims, why: str) -> Shape:
        """A shape without varying axes; raises NeedsFixedBatch, saying why the layer needs it, where there are."""
        shape = tuple(dim for dim in dims if dim is not None)
        if len(shape) != len(dims):
            raise NeedsFixedBatch(f"{self._scope}: {why}")
        return shape

    # -- nodes ----------------------------------------------------------------------------------------------------

    def emit(
        self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], *, domain: str = "", overload: str = "",
        **attributes: Attribute,
    ) -> None:  # fmt: skip
        """Writes the node that makes `outputs`, the layer's tops; the node has the layer's name."""
        self._add(op_type, inputs, outputs, self._fresh_node_name(""), domain, overload, attributes)

    def op(self, op_type: str, inputs: Sequence[str], *, what: str = "", **attributes: Attribute) -> str:
        """Writes a node within the layer and returns the value that it makes, ``layer/what``."""
        return self.ops(op_type, inputs, 1, what=what, **attributes)[0]

    def ops(
        self, op_type: str, inputs: Sequence[str], outputs: int, *, what: str = "", **attributes: Attribute
    ) -> tuple[str, ...]:
        """As `op`, for a node with several outputs."""
        what = what or op_type.lower()
        values = tuple(self._fresh(what if i == 0 else f"{what}_{i}") for i in range(outputs))
        self._add(op_type, inputs, values, self._fresh_node_name(what), "", "", attributes)
        return values

    def function_op(
        self, function: FunctionProto, inputs: Sequence[str], outputs: Sequence[str], **attributes: Attribute
    ) -> None:
        """Writes a node of our domain that makes the layer's tops, with the model-local function that spells it out."""
        key = (function.name, function.overload)
        known = self.functions.setdefault(key, function)
        if known.SerializeToString(deterministic=True) != function.SerializeToString(deterministic=True):
            raise RuntimeError(f"two bodies for {key}")
        self.emit(function.name, inputs, outputs, domain=OUR_DOMAIN, overload=function.overload, **attributes)

    def overload_for(self, name: str, body_key: str) -> str:
        """An `overload` for a function: empty for the first body of that name, then one for each other body."""
        return "" if not any(n == name for n, _ in self.functions) else body_key

    def _add(
        self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], name: str, domain: str, overload: str,
        attributes: Mapping[str, Attribute],
    ) -> None:  # fmt: skip
        node = helper.make_node(op_type, inputs, outputs, name, domain=domain or None)
        if overload:
            node.overload = overload
        # in order of their names, so that the same net always gives the same bytes
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        self.nodes.append(node)

    # -- values ---------------------------------------------------------------------------------------------------

    def weight(self, name: str, shape: Shape | None = None) -> str:
        """The layer's parameter of that name, as an initializer (in another shape, where given); a shared one is its owner's."""
        assert self._node is not None
        param = self._node.param(name)
        param = param if shape is None else replace(param, shape=shape)
        if param.owner is None:
            return self._initializer(f"{self._scope}/{name}", param)
        owned = "/".join(param.owner)
        held = self.initializers.setdefault(owned, param)
        if held.shape != param.shape:  # caffe: PERMISSIVE sharing takes the same numbers in another shape
            return self.op("Reshape", [owned, self.ints(f"{name}_shape", param.shape)], what=name)
        return owned

    def values(self, name: str) -> FloatArray:
        """A parameter's values, float32, for a layer that folds them into something else."""
        assert self._node is not None
        return self._node.param(name).array()

    def floats(self, what: str, values: ArrayLike) -> str:
        """A float32 constant, ``layer/what``."""
        return self._initializer(f"{self._scope}/{what}", np.asarray(values, np.float32))

    def ints(self, what: str, values: ArrayLike) -> str:
        """An int64 constant, ``layer/what``."""
        return self._initializer(f"{self._scope}/{what}", np.asarray(values, np.int64))

    def bools(self, what: str, values: ArrayLike) -> str:
        """A boolean constant, ``layer/what``."""
        return self._initializer(f"{self._scope}/{what}", np.asarray(values, np.bool_))

    def _initializer(self, name: str, value: Array | Param) -> str:
        held = self.initializers.get(name)
        if held is None:
            self._names.add(name)
            self.initializers[name] = value
            return name
        if held is value or (isinstance(held, np.ndarray) and isinstance(value, np.ndarray) and same(held, value)):
            return name
        return self._initializer(self._fresh(name.removeprefix(self._scope + "/")), value)

    def _fresh(self, what: str) -> str:
        name, number = f"{self._scope}/{what}", 1
        while name in self._names or name in self.initializers:
            number += 1
            name = f"{self._scope}/{what}_{number}"
        self._names.add(name)
        return name

    def _fresh_node_name(self, what: str) -> str:
        if not what and not self._scope_used:
            self._scope_used = True
            return self._scope
        base = f"{self._scope}/{what}" if what else self._scope
        name, number = base, 1
        while name in self._node_names:
            number += 1
            name = f"{base}_{number}"
        self._node_names.add(name)
        return name

    # -- what many layers need --------------------------------------------------------------------------------------

    def reshape(self, value: str, dims: Dims, *, to: str | None = None, what: str = "reshape") -> str:
        """Reshapes to `dims`, of which at most one may vary with the batch; raises NeedsFixedBatch otherwise."""
        if sum(dim is None for dim in dims) > 1:
            raise NeedsFixedBatch(f"{self._scope}: a shape with more than one axis that varies with the batch")
        target = self.ints(f"{what}_shape", [-1 if dim is None else dim for dim in dims])
        # allowzero: a 0 is a size, not a copy
        attributes = {"allowzero": 1} if 0 in dims and self.opset >= 14 and None not in dims else {}
        if to is None:
            return self.op("Reshape", [value, target], what=what, **attributes)
        self.emit("Reshape", [value, target], [to], **attributes)
        return to

    def reduce(self, op_type: str, value: str, axes: Sequence[int] | None, *, keepdims: bool, what: str = "") -> str:
        """A Reduce… node; `axes` are an attribute or an input, as the opset wants it; None: all axes."""
        inputs, attributes = self.reduction(op_type, value, axes)
        return self.op(op_type, inputs, what=what, keepdims=int(keepdims), **attributes)

    def reduction(
        self, op_type: str, value: str, axes: Sequence[int] | None
    ) -> tuple[list[str], dict[str, Sequence[int]]]:
        """Inputs and attributes of a Reduce… node in this opset (ReduceSum changed in 13, the others in 18)."""
        if axes is None:
            return [value], {}
        if self.opset >= 18 or op_type == "ReduceSum":
            return [value, self.ints("axes" + "_".join(map(str, axes)), axes)], {}
        return [value], {"axes": axes}


def same(a: Array, b: Array) -> bool:
    """Whether two constants are equal bit by bit."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
