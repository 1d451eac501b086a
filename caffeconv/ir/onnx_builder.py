"""Collects ONNX nodes and initializers while layers are lowered, one scope of names per layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import FunctionProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from caffeconv.errors import CaffeconvError
from caffeconv.ir.scopes import Scopes
from caffeconv.tensor.param import Param, ParamKey
from caffeconv.tensor.shape import Dims, FloatArray, Shape

OUR_DOMAIN = "caffeconv"
Attribute = int | float | str | Sequence[int] | Sequence[float] | TensorProto | GraphProto
LoopBody = Callable[[Sequence[str], Sequence[str]], tuple[Sequence[str], Sequence[str]]]
"""(states, items of this step) → (next states, outputs of this step)."""
Array = NDArray[np.float32] | NDArray[np.int64] | NDArray[np.bool_] | NDArray[np.int32] | NDArray[np.float64]


class NeedsFixedBatchError(CaffeconvError):
    """A layer can be written only for a known batch size; the message says why."""


class OnnxBuilder(Scopes):
    """What a layer's `lower` writes to.

    Values are named by strings. `emit` writes a node that makes the layer's tops; `op` one that makes something in
    between, named ``layer/what``. Attributes are ONNX's own, by their ONNX names.

    stateful: states that a layer keeps from pass to pass become graph inputs ``layer/name_in`` and outputs
    ``layer/name_out``; otherwise every pass starts from zeros. unroll: a loop is written out step by step where the
    number of steps is known, so that no node has a body. open_params: parameters become graph inputs, so layers look at no
    values of theirs, and a forward pass may change them. training_ops: our library runs the model, so that its operators
    for training (ops/training.h) may stand in it.
    """

    def __init__(
        self, opset: int, dims: Mapping[str, Dims], *, stateful: bool = False, unroll: bool = False,
        open_params: bool = False, training_ops: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(dims)
        self.opset = opset
        self.stateful = stateful
        self.unroll = unroll
        self.open_params = open_params
        self.training_ops = training_ops
        self.states: dict[str, tuple[str, Shape]] = {}
        """Where `stateful`: graph input of a state → the value that leaves it, and its shape."""
        self.nodes: list[NodeProto] = []
        self.functions: dict[tuple[str, str], FunctionProto] = {}
        self.initializers: dict[str, Array | Param] = {}
        self.param_keys: dict[str, ParamKey] = {}
        """Initializer that holds a parameter → which; one parameter may stand there in several shapes."""
        self.changed_params: dict[ParamKey, str] = {}
        """Where `open_params`: parameter that the forward pass itself changes → its new value."""
        self.noise: dict[str, Shape] = {}
        """Where `stateful`: graph input → its shape; float32, uniform in [0, 1), drawn anew for each pass."""
        self.makers: dict[str, str] = {}
        """Node of the model → the name of the layer that it belongs to."""
        self._held_as: dict[ParamKey, str] = {}
        """Parameter → the first initializer that its own layer made of it, whose name may have been taken."""
        self._bodies: dict[str, dict[str, str]] = {}
        self._dims = dict(dims)

    # -- shapes ---------------------------------------------------------------------------------------------------

    def dims(self, value: str) -> Dims:
        """A blob's shape, with None for an axis that varies with the batch."""
        return self._dims[value]

    def fixed(self, dims: Dims, why: str) -> Shape:
        """A shape without varying axes; raises NeedsFixedBatchError, saying why the layer needs it, where there are."""
        shape = tuple(dim for dim in dims if dim is not None)
        if len(shape) != len(dims):
            raise NeedsFixedBatchError(f"{self._scope}: {why}")
        return shape

    def shape(self, value: str) -> str:
        """A value's shape, int64; a constant where it is known."""
        dims = self._dims.get(value, (None,))
        known = [dim for dim in dims if dim is not None]
        return self.ints("shape", known) if len(known) == len(dims) else self.op("Shape", [value])

    # -- nodes ----------------------------------------------------------------------------------------------------

    def emit(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Attribute) -> None:
        """Writes the node that makes `outputs`, the layer's tops; the node has the layer's name."""
        self._add(op_type, inputs, outputs, self._fresh_node_name(""), "", "", attributes)

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

    def library_op(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Attribute) -> None:
        """Writes a node of our domain that makes the layer's tops and that only our library can run."""
        self._add(op_type, inputs, outputs, self._fresh_node_name(""), OUR_DOMAIN, "", attributes)

    def library_values(
        self, op_type: str, inputs: Sequence[str], outputs: int, *, what: str, **attributes: Attribute
    ) -> tuple[str, ...]:
        """As `library_op`, for values within the layer."""
        values = tuple(self._fresh(f"{what}_{i}") for i in range(outputs))
        self._add(op_type, inputs, values, self._fresh_node_name(what), OUR_DOMAIN, "", attributes)
        return values

    def function_op(
        self, function: FunctionProto, inputs: Sequence[str], outputs: Sequence[str], **attributes: Attribute
    ) -> None:
        """Writes a node of our domain that makes the layer's tops, with the model-local function that spells it out."""
        self._call(function, inputs, outputs, self._fresh_node_name(""), attributes)

    def function_value(
        self, function: FunctionProto, inputs: Sequence[str], *, what: str, **attributes: Attribute
    ) -> str:
        """As `function_op`, for a value within the layer."""
        value = self._fresh(what)
        self._call(function, inputs, [value], self._fresh_node_name(what), attributes)
        return value

    def _call(
        self, function: FunctionProto, inputs: Sequence[str], outputs: Sequence[str], name: str,
        attributes: Mapping[str, Attribute],
    ) -> None:  # fmt: skip
        key = (function.name, function.overload)
        known = self.functions.setdefault(key, function)
        if known.SerializeToString(deterministic=True) != function.SerializeToString(deterministic=True):
            raise RuntimeError(f"two bodies for {key}")
        self._add(function.name, inputs, outputs, name, OUR_DOMAIN, function.overload, attributes)

    def overload_for(self, name: str, body_key: str) -> str:
        """An `overload` for a function: empty for the first body of that name, `body_key` for each other body."""
        overloads = self._bodies.setdefault(name, {})
        return overloads.setdefault(body_key, body_key if overloads else "")

    def _add(
        self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], name: str, domain: str, overload: str,
        attributes: Mapping[str, Attribute],
    ) -> None:  # fmt: skip
        node = helper.make_node(op_type, inputs, outputs, name, domain=domain or None)
        if overload:
            node.overload = overload
        # in order of their names, so that the same net always gives the same bytes; of a blob without axes no list of
        # axes is left, which is what the operators do without one
        named = sorted((key, value) for key, value in attributes.items() if not _is_empty(value))
        node.attribute.extend(helper.make_attribute(key, value) for key, value in named)
        self.nodes.append(node)
        if self._layer is not None:
            self.makers[name] = self._layer

    def as_output(self, value: str, name: str) -> str:
        """`value` under a free name, `name` where that is one, for an output that is no blob of the net."""
        output = self._free(name)
        self._add("Identity", [value], [output], self._fresh_node_name("output"), "", "", {})
        return output

    # -- steps and states -----------------------------------------------------------------------------------------

    def state(self, name: str, shape: Shape) -> str:
        """What the last pass left of the layer's state `name`, float32; zeros unless `stateful`."""
        if not self.stateful:
            return self.floats(f"{name}_0", np.zeros(shape))
        value = self._fresh(f"{name}_in")
        self.states[value] = self._fresh(f"{name}_out"), shape
        return value

    def keep_state(self, state: str, value: str) -> None:
        """Leaves `value` as that state for the next pass; `state` is what the method of that name gave."""
        if self.stateful:
            kept = self.states[state][0]
            name = self._fresh_node_name(kept.removeprefix(self._scope + "/"))
            self._add("Identity", [value], [kept], name, "", "", {})

    def scan(
        self, step: LoopBody, states: Sequence[str], sequences: Sequence[str], *, steps: int | None
    ) -> tuple[Sequence[str], Sequence[str]]:
        """Calls for every item along axis 0 of `sequences` one `step`; gives the last states, and the outputs stacked.

        steps: the length of that axis where it is known. All values are float32.
        """
        if self.unroll and steps:
            return self._unrolled(step, states, sequences, steps)
        state_inputs = [self._fresh(f"step/state_{i}") for i in range(len(states))]
        items = [self._fresh(f"step/item_{i}") for i in range(len(sequences))]
        outside, self.nodes = self.nodes, []
        next_states, outputs = step(state_inputs, items)
        # an output of a body may not be a value that is named as another one as well
        results = [self.op("Identity", [value], what="step/result") for value in (*next_states, *outputs)]
        inside, self.nodes = self.nodes, outside
        body = helper.make_graph(
            inside, "step", [_any_shape(value) for value in (*state_inputs, *items)], [_any_shape(v) for v in results]
        )
        values = self.ops(
            "Scan", [*states, *sequences], len(results), what="scan", body=body, num_scan_inputs=len(sequences)
        )
        return values[: len(states)], values[len(states) :]

    def _unrolled(
        self, step: LoopBody, states: Sequence[str], sequences: Sequence[str], steps: int
    ) -> tuple[Sequence[str], Sequence[str]]:
        axis, ones = self.ints("time_axis", [0]), self.ints("one_step_each", [1] * steps)
        items = [self.ops("Split", [sequence, ones], steps, what="steps", axis=0) for sequence in sequences]
        collected: list[Sequence[str]] = []
        for now in zip(*items, strict=True):
            states, outputs = step(states, [self.op("Squeeze", [item, axis], what="item") for item in now])
            collected.append([self.op("Unsqueeze", [output, axis], what="output") for output in outputs])
        return states, [self.op("Concat", stacked, axis=0, what="outputs") for stacked in zip(*collected, strict=True)]

    def uniform_noise(self, name: str, shape: Shape) -> str:
        """Numbers in [0, 1) that whoever runs the model draws for each pass; only where `stateful`."""
        value = self._fresh(f"{name}_in")
        self.noise[value] = shape
        return value

    def change_param(self, name: str, value: str) -> None:
        """Leaves `value`, shaped as it, in the layer's parameter; only where `open_params`."""
        self.changed_params[self._key(name)] = value

    def _key(self, name: str) -> ParamKey:
        return self._params[name].key_in(self._layer or "")

    # -- values ---------------------------------------------------------------------------------------------------

    def weight(self, name: str, shape: Shape | None = None) -> str:
        """The layer's parameter of that name, as an initializer, in `shape` where given; a shared one is its owner's."""
        param = self._params[name]
        param = param if shape is None else replace(param, shape=shape)
        if param.owner is None:
            initializer = self._initializer(f"{self._scope}/{name}", param)
            self.param_keys[initializer] = self._key(name)
            self._held_as.setdefault(self._key(name), initializer)
            return initializer
        owned = self._held_as.get(param.owner) or "/".join(param.owner)
        first = self.initializers.setdefault(owned, param)
        self._names.add(owned)
        self.param_keys[owned] = param.owner
        if first.shape != param.shape:  # caffe: PERMISSIVE sharing takes the same numbers in another shape
            return self.op("Reshape", [owned, self.ints(f"{name}_shape", param.shape)], what=name)
        return owned

    def values(self, name: str) -> FloatArray:
        """A parameter's values, float32, for a layer that folds them into something else."""
        return self._params[name].array()

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
        existing = self.initializers.get(name)
        if existing is value or (isinstance(existing, Param) and isinstance(value, Param) and existing == value):
            return name
        if isinstance(existing, np.ndarray) and isinstance(value, np.ndarray) and same(existing, value):
            return name
        if name in self._names or existing is not None:  # a node's value, or another constant, has that name
            name = self._fresh(name.removeprefix(self._scope + "/"))
        self._names.add(name)
        self.initializers[name] = value
        return name

    # -- what many layers need --------------------------------------------------------------------------------------

    def reshape(self, value: str, dims: Dims, *, to: str | None = None, what: str = "reshape") -> str:
        """Reshapes to `dims`, of which at most one may vary with the batch; raises NeedsFixedBatchError otherwise."""
        if sum(dim is None for dim in dims) > 1:
            raise NeedsFixedBatchError(f"{self._scope}: a shape with more than one axis that varies with the batch")
        if None in dims and 0 in dims:
            raise NeedsFixedBatchError(
                f"{self._scope}: a blob without values, whose batch cannot be told from its size"
            )
        target = self.ints(f"{what}_shape", [-1 if dim is None else dim for dim in dims])
        result = self._fresh(what) if to is None else to
        name = self._fresh_node_name(what if to is None else "")
        # a 0 is a size here, not a copy of the input's axis
        attributes: dict[str, Attribute] = (
            {"allowzero": 1} if 0 in dims and self.opset >= 14 and None not in dims else {}
        )
        self._add("Reshape", [value, target], [result], name, "", "", attributes)
        return result

    def reduce(
        self,
        op_type: str,
        value: str,
        axes: Sequence[int] | None,
        *,
        keepdims: bool,
        what: str = "",
        to: str | None = None,
    ) -> str:
        """A Reduce… node; `axes` are an attribute or an input, as the opset wants it; None: all axes."""
        if op_type == "ReduceL1":  # onnxruntime-openvino 1.24 sums over all axes, whatever the attribute says
            value, op_type = self.op("Abs", [value], what="magnitudes"), "ReduceSum"
        inputs = [value]
        attributes: dict[str, Attribute] = {"keepdims": int(keepdims)}
        if axes is not None and (
            self.opset >= 18 or op_type == "ReduceSum"
        ):  # ReduceSum changed in 13, the others in 18
            inputs.append(self.ints("axes" + "_".join(map(str, axes)), axes))
        elif axes is not None:
            attributes["axes"] = axes
        result = self._fresh(what or op_type.lower()) if to is None else to
        name = self._fresh_node_name((what or op_type.lower()) if to is None else "")
        self._add(op_type, inputs, [result], name, "", "", attributes)
        return result


def _is_empty(value: Attribute) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and not len(value)


def _any_shape(value: str) -> ValueInfoProto:
    return helper.make_tensor_value_info(value, TensorProto.FLOAT, None)


def same(a: Array, b: Array) -> bool:
    """Whether two constants are equal bit by bit."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
