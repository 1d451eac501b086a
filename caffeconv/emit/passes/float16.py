"""Half precision: weights and computation in float16, but for what the layers say is for float32 alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, defs, helper, numpy_helper
from onnx.shape_inference import infer_shapes

from caffeconv.emit.metadata import HALF_KEY
from caffeconv.emit.passes.editor import ModelEdit, bodies, every_node, reads, rename_in, tensor
from caffeconv.emit.precision import Precision, read_precision
from caffeconv.errors import Diagnostic

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
MOST = float(np.finfo(np.float16).max)
"""65504, the greatest finite number."""
LEAST = float(np.finfo(np.float16).smallest_subnormal)
"""6e-8, the least number above 0; half of it and less becomes 0."""
Side = Literal["input", "output"]
_SUFFIX: dict[int, str] = {FLOAT: "float32", HALF: "half"}
_MOVING = frozenset(
    (
        "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose",
        "Unsqueeze",
    )
)  # fmt: skip
"""Operators that only move values: between two that compute in float32 a half would lose digits for nothing."""
_LITTLE = 1024
"""Bytes of a constant that type inference may look into."""


def to_half(model: ModelProto, *, keep_io: bool = False, notes: list[Diagnostic] | None = None) -> ModelProto:
    """The model of float32 with weights and computation in float16; notes for the user go to `notes`.

    What stays float32: the nodes of layers that say so (Layer.keeps_float32), nodes with a weight beyond ±65504, what an
    operator takes as float32 only, and inputs and outputs that hold labels, indices, coordinates or losses. Other inputs
    and outputs are float16 too, unless `keep_io`. A Cast stands where the two meet, one for each value.

    Raises CaffeconvError for a model that does not say what has to stay float32.
    """
    edit = ModelEdit(model)
    halving = _Halving(edit, read_precision(edit.metadata), _types(model))
    for value in edit.inputs:
        halving.accept(value, keep_io=keep_io)
    nodes, edit.nodes = edit.nodes, []
    for node in nodes:
        halving.take(node)
    halving.give(edit.outputs, keep_io=keep_io)
    halving.write_constants()
    if notes is not None:
        notes.extend(halving.notes)
    edit.metadata[HALF_KEY] = "float16"
    return edit.model()


class _Halving:
    """Builds up the nodes of a model anew, one after the other, each with its inputs in the type that it wants."""

    def __init__(self, edit: ModelEdit, precision: Precision, types: Mapping[str, int]) -> None:
        self.notes: list[Diagnostic] = []
        self._edit = edit
        self._precision = precision
        self._types = types
        self._value_kinds: dict[str, int] = {}
        """Value → FLOAT or HALF, for those that were float32."""
        self._loose: set[str] = set()
        """Inputs that are float32 only because the caller wants them so."""
        self._casts: dict[tuple[str, int], str] = {}
        self._constants: dict[str, set[int]] = {}
        """Float initializer → the types in which it is read."""
        self._half_names: dict[str, str] = {}
        """Float initializer → the name of its half."""
        self._too_large: dict[str, bool] = {}
        self._kept_for: dict[str, list[str]] = {}
        """Initializer with values beyond half precision → the nodes that stay float32 for it."""
        self._gone: dict[str, int] = {}
        """Float initializer → how many of its values are 0 as halves alone."""
        self._gone_whole: list[str] = []

    def accept(self, value: ValueInfoProto, *, keep_io: bool) -> None:
        """Declares an input in the type that it will have."""
        if value.type.tensor_type.elem_type != FLOAT:
            return
        exact = value.name in self._precision.values
        self._value_kinds[value.name] = value.type.tensor_type.elem_type = FLOAT if keep_io or exact else HALF
        if not exact:
            self._loose.add(value.name)

    def take(self, node: NodeProto) -> None:
        """Adds a node, and before it the Casts that it needs."""
        floats = sorted(name for name in reads(node) if self._is_float(name))
        float_outputs = [i for i, name in enumerate(node.output) if name and self._is_float(name)]
        kind = self._kind(node, floats, float_outputs)
        if float_outputs or len(floats) > 1:
            rename_in(
                node, {name: self._in_kind(name, _input_kind(node, name, kind, self._edit.opset)) for name in floats}
            )
        else:  # nothing floating comes of it, so it takes its only one as it is
            for name in floats:
                self._constant(name, FLOAT)
        if kind == HALF:
            _halve_attributes(node)
        for i in float_outputs:
            self._value_kinds[node.output[i]] = kind if _allows_half(node, "output", i, self._edit.opset) else FLOAT
        self._edit.nodes.append(node)

    def give(self, outputs: Sequence[ValueInfoProto], *, keep_io: bool) -> None:
        """Declares the outputs in the types that they will have, and sees to it that they are made so."""
        names, casts = dict[str, str](), list[NodeProto]()
        for value in outputs:
            if value.type.tensor_type.elem_type != FLOAT:
                continue
            kind = FLOAT if keep_io or value.name in self._precision.values else HALF
            value.type.tensor_type.elem_type = kind
            current = self._value_kinds[value.name]
            if current == kind:
                continue
            inner = names[value.name] = self._edit.fresh(f"{value.name}/{_SUFFIX[current]}")
            cast = self._casts.get((value.name, kind))
            if cast is not None:  # another node reads it in that type already
                names[cast] = value.name
                continue
            name = f"{value.name}/to_{_SUFFIX[kind]}"
            casts.append(self._edit.node("Cast", [inner], value.name, name, to=kind))
        self._edit.rename(names)
        self._edit.nodes += casts

    def write_constants(self) -> None:
        """Casts the initializers to the types in which they are read; one that is read as both is there twice."""
        names: dict[str, str] = {}
        for name, half in self._half_names.items():
            if FLOAT not in self._constants[name]:
                names[half] = name
            values = self._as_half(name)
            target = names.get(half, half)
            self._edit.initializers[target] = tensor(target, values)
        for node in self._edit.nodes:
            rename_in(node, names)
        self._tell_kept()
        self._tell_gone()

    def _as_half(self, name: str) -> NDArray[np.float16]:
        exact = np.asarray(self._edit.array(name), np.float32)
        with np.errstate(under="ignore"):
            values: NDArray[np.float16] = exact.astype(np.float16)
        gone = int(np.count_nonzero(exact)) - int(np.count_nonzero(values))
        if gone:
            self._gone[name] = gone
            self._gone_whole += [name] if not values.any() else []
        return values

    def _tell_kept(self) -> None:
        """One note for all nodes that stay float32 because of what they hold."""
        if not self._kept_for:
            return
        first, *others = self._kept_for
        nodes = [node for kept in self._kept_for.values() for node in kept]
        also = f" and {len(others)} other tensors" if others else ""
        stay = f"{', '.join(nodes[:3])}{f' and {len(nodes) - 3} more' if len(nodes) > 3 else ''}"
        text = f"{first}{also}: values beyond ±{MOST:g}, the most that half precision has; float32 stay: {stay}"
        self.notes.append(Diagnostic("note", "", text))

    def _tell_gone(self) -> None:
        """One note for all weights that are too small to be there in half precision; a warning where a whole tensor is."""
        if not self._gone:
            return
        name = max(self._gone, key=lambda name: self._gone[name])
        text = f"{sum(self._gone.values())} weights of {len(self._gone)} tensors, most in {name}, become 0 in half precision, "
        text += f"as they are below {LEAST / 2:.1g}"
        if self._gone_whole:
            others = f" and {len(self._gone_whole) - 1} others" if len(self._gone_whole) > 1 else ""
            text += f"; nothing is left of {self._gone_whole[0]}{others}"
        self.notes.append(Diagnostic("warning" if self._gone_whole else "note", "", text))

    def _kind(self, node: NodeProto, floats: list[str], float_outputs: list[int]) -> int:
        """The type in which a node computes."""
        if node.name in self._precision.nodes or not all(
            _fits_half(inner, self._edit.opset) for inner in _body_nodes(node)
        ):
            return FLOAT
        if not node.domain and "dtype" in defs.get_schema(node.op_type, self._edit.opset, "").attributes:
            return FLOAT  # onnxruntime draws no random float16 values
        large = next((name for name in floats if self._overflows(name)), None)
        if large is not None:
            self._kept_for.setdefault(large, []).append(node.name)
            return FLOAT
        computed = [name for name in floats if name not in self._edit.initializers]
        native = all(self._value_kinds.get(name) == FLOAT and name not in self._loose for name in computed)
        between = bool(float_outputs and computed) and node.op_type in _MOVING and not node.domain
        return FLOAT if between and native else HALF

    def _is_float(self, name: str) -> bool:
        initializer = self._edit.initializers.get(name)
        return (self._types.get(name, FLOAT) if initializer is None else initializer.data_type) == FLOAT

    def _overflows(self, name: str) -> bool:
        if name not in self._edit.initializers:
            return False
        if name not in self._too_large:
            values = np.asarray(self._edit.array(name), np.float32)
            with np.errstate(invalid="ignore"):
                self._too_large[name] = bool((np.isfinite(values) & (np.abs(values) > MOST)).any())
        return self._too_large[name]

    def _in_kind(self, name: str, kind: int) -> str:
        """The value's name in that type; adds a Cast where it is not there in that type yet."""
        if name in self._edit.initializers:
            return self._constant(name, kind)
        if self._value_kinds.setdefault(name, FLOAT) == kind:
            return name
        if (name, kind) not in self._casts:
            cast = self._edit.fresh(f"{name}/{_SUFFIX[kind]}")
            self._edit.nodes.append(self._edit.node("Cast", [name], cast, cast, to=kind))
            self._casts[name, kind] = cast
        return self._casts[name, kind]

    def _constant(self, name: str, kind: int) -> str:
        if name not in self._edit.initializers:
            return name
        self._constants.setdefault(name, set()).add(kind)
        if kind == FLOAT:
            return name
        if name not in self._half_names:
            self._half_names[name] = self._edit.fresh(f"{name}/half")
        return self._half_names[name]


def _types(model: ModelProto) -> dict[str, int]:
    """The element type of every value that nodes make, as onnx infers it from a model without weights."""
    graph = model.graph
    inputs = list(graph.input)
    small = []
    for initializer in graph.initializer:
        if initializer.data_type == FLOAT or len(initializer.raw_data) > _LITTLE:
            inputs.append(
                helper.make_tensor_value_info(initializer.name, initializer.data_type, list(initializer.dims))
            )
        else:
            small.append(initializer)
    # what operators of our own make are blobs
    custom_outputs = [
        helper.make_tensor_value_info(name, FLOAT, None) for node in graph.node if node.domain for name in node.output if name
    ]  # fmt: skip
    types_graph = GraphProto(
        name="types", node=graph.node, input=inputs, initializer=small, output=graph.output, value_info=custom_outputs
    )
    skeleton = ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions, graph=types_graph
    )
    inferred = infer_shapes(skeleton).graph
    infos = (*inferred.value_info, *inferred.input, *inferred.output)
    return {value.name: value.type.tensor_type.elem_type for value in infos}


def _input_kind(node: NodeProto, name: str, kind: int, opset: int) -> int:
    """The type in which a node of that kind reads a value: float32 where its operator takes nothing else there."""
    positions = [i for i, value in enumerate(node.input) if value == name]
    return kind if all(_allows_half(node, "input", i, opset) for i in positions) else FLOAT


def _body_nodes(node: NodeProto) -> list[NodeProto]:
    """The nodes in the bodies of a Loop, Scan or If."""
    return [part for body in bodies(node) for inner in body.node for part in every_node(inner)]


def _fits_half(node: NodeProto, opset: int) -> bool:
    """Whether a node can be half throughout, as it has to be in a body."""
    inputs_fit = all(_allows_half(node, "input", i, opset) for i, name in enumerate(node.input) if name)
    return inputs_fit and all(_allows_half(node, "output", i, opset) for i in range(len(node.output)))


def _allows_half(node: NodeProto, side: Side, position: int, opset: int) -> bool:
    """Whether an input or output that may be float32 may be float16 just as well, as ONNX's definition has it."""
    if node.domain:
        return False
    schema = defs.get_schema(node.op_type, opset, "")
    formals = schema.inputs if side == "input" else schema.outputs
    formal = formals[min(position, len(formals) - 1)]
    kinds = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    allowed = kinds.get(formal.type_str, [formal.type_str])
    return "tensor(float)" not in allowed or "tensor(float16)" in allowed


def _halve_attributes(node: NodeProto) -> None:
    """Makes float16 of what a node's attributes say to be float32: types, constants, the values of bodies."""
    for part in every_node(node):
        for attribute in part.attribute:
            if attribute.name == "to" and attribute.i == FLOAT:
                attribute.i = HALF
            if attribute.HasField("t") and attribute.t.data_type == FLOAT:
                values = numpy_helper.to_array(attribute.t).astype(np.float16)
                attribute.t.CopyFrom(tensor(attribute.t.name, values))
            if attribute.HasField("g"):
                for value in (*attribute.g.input, *attribute.g.output, *attribute.g.value_info):
                    if value.type.tensor_type.elem_type == FLOAT:
                        value.type.tensor_type.elem_type = HALF
