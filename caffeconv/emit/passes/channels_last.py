"""NHWC: a model whose pictures have their channels last, the way TensorFlow, Keras and PIL hold them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto

from caffeconv.emit.metadata import LAYOUT_KEY, layouts
from caffeconv.emit.passes.editor import Dims, ModelEdit, dims_of, reads, set_dims

_KIND_KEY = "caffeconv.kind."
_ROW_KINDS = frozenset(("detections",))
"""Outputs of four axes that are rows."""
_ELEMENTWISE = frozenset(
    (
        "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Greater",
        "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Min",
        "Mish", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus",
        "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Where",
    )
)  # fmt: skip


def note_layouts(metadata: dict[str, str], ranks: Mapping[str, int]) -> None:
    """Writes into a model's metadata that inputs and outputs, of so many axes, have their channels last."""
    names = {name: channels_last_name(rank) for name, rank in ranks.items()}
    if names:
        metadata[LAYOUT_KEY] = json.dumps({**layouts(metadata), **names}, sort_keys=True)


def channels_last_name(rank: int) -> str:
    """``NHWC`` for 4 axes, ``NDHWC`` for 5."""
    return {4: "NHWC", 5: "NDHWC"}.get(rank, f"N{rank - 2}SC")


def channels_last(dims: Sequence[int | str]) -> Dims:
    """N×C×spatial… → N×spatial…×C."""
    return (dims[0], *dims[2:], dims[1])


def to_nhwc(model: ModelProto) -> ModelProto:
    """The same model with channels last in every input and output that is an image blob.

    An image blob has four axes or more: N×C×H×W becomes N×H×W×C, N×C×D×H×W becomes N×D×H×W×C. Blobs of fewer axes, rows
    of detections, and inputs whose layout was chosen before stay as they are, and so do all values in between. A
    Transpose stands at the edge; a Reshape where only axes of size 1 change places; neither where the rows of the first
    Gemm can be put in order instead, or nothing between an input and an output minds the order.
    """
    edit = ModelEdit(model)
    earlier_layouts = layouts(edit.metadata)
    inputs = [value for value in edit.inputs if len(dims_of(value)) >= 4 and value.name not in earlier_layouts]
    outputs = [value for value in edit.outputs if len(dims_of(value)) >= 4 and not _holds_rows(edit, value.name)]
    order_free = _order_free_values(edit, inputs, outputs)
    edges = {value.name for value in (*inputs, *outputs)}
    edit.rename({name: edit.fresh(f"{name}/nhwc") for name in sorted(order_free - edges)})
    note_layouts(edit.metadata, {value.name: len(dims_of(value)) for value in (*inputs, *outputs)})
    turned_inputs = [value for value in inputs if value.name not in order_free and not _reorder_gemm(edit, value)]
    turned_outputs = [value for value in outputs if value.name not in order_free]
    inner = {value.name: edit.fresh(f"{value.name}/nchw") for value in (*turned_inputs, *turned_outputs)}
    edit.rename(inner)
    edit.nodes[:0] = [_turned_input(edit, value, inner[value.name]) for value in reversed(turned_inputs)]
    edit.nodes += [_turned_output(edit, value, inner[value.name]) for value in turned_outputs]
    for value in (*inputs, *outputs):
        set_dims(value, channels_last(dims_of(value)))
    return edit.model()


def _holds_rows(edit: ModelEdit, output: str) -> bool:
    return edit.metadata.get(_KIND_KEY + output, "") in _ROW_KINDS


def _turned_input(edit: ModelEdit, value: ValueInfoProto, inner: str) -> NodeProto:
    """Given  data (NCHW) → conv   Result  data (NHWC) → Transpose → data/nchw → conv ."""
    dims = dims_of(value)
    last = len(dims) - 1
    perm = (0, last, *range(1, last))
    return transpose_node(edit, value.name, inner, channels_last(dims), perm, f"{value.name}/to_nchw")


def _turned_output(edit: ModelEdit, value: ValueInfoProto, inner: str) -> NodeProto:
    """Given  conv → y (NCHW)   Result  conv → y/nchw → Transpose → y (NHWC) ."""
    dims = dims_of(value)
    perm = (0, *range(2, len(dims)), 1)
    return transpose_node(edit, inner, value.name, dims, perm, f"{value.name}/to_nhwc")


def transpose_node(edit: ModelEdit, source: str, output: str, dims: Dims, perm: Sequence[int], name: str) -> NodeProto:
    """The node that transposes `source` of shape `dims`: a Reshape where only axes of size 1 change places."""
    order = [axis for axis in perm if dims[axis] != 1]
    target = _reshape_target([dims[axis] for axis in perm])
    if order != sorted(order) or target is None:
        return edit.node("Transpose", [source], output, name, perm=perm)
    shape = edit.constant(f"{name}_shape", np.array(target, np.int64))
    return edit.node("Reshape", [source, shape], output, name)


def _reshape_target(dims: Sequence[int | str]) -> list[int] | None:
    """What a Reshape is given for that shape: 0 copies the batch, -1 stands for one more open size; None: neither can."""
    target = [size if isinstance(size, int) else 0 if axis == 0 else -1 for axis, size in enumerate(dims)]
    return None if target.count(-1) > 1 or 0 in target[1:] or dims[0] == 0 else target


def _reorder_gemm(edit: ModelEdit, value: ValueInfoProto) -> bool:
    """Given  data (NCHW) → Flatten → Gemm   Result  data (NHWC) → Flatten → Gemm with its rows in NHWC's order .

    False where that is not what reads the input, or the weights have other readers too.
    """
    dims = dims_of(value)
    readers = edit.readers(value.name)
    sizes = [size for size in dims[1:] if isinstance(size, int)]
    if len(readers) != 1 or len(sizes) != len(dims) - 1 or not _makes_rows(edit, readers[0], math.prod(sizes)):
        return False
    gemms = edit.readers(readers[0].output[0])
    if len(gemms) != 1 or gemms[0].op_type != "Gemm" or gemms[0].input[0] != readers[0].output[0]:
        return False
    name = gemms[0].input[1]
    if readers[0].output[0] in gemms[0].input[1:] or name not in edit.initializers or len(edit.readers(name)) != 1:
        return False
    if any(output.name == readers[0].output[0] for output in edit.outputs):
        return False
    weight = edit.array(name)
    transposed = bool(next((a.i for a in gemms[0].attribute if a.name == "transB"), 0))
    rows = weight.T if transposed else weight  # K×N
    last = len(dims) - 1
    reordered = rows.reshape(*sizes, -1).transpose(*range(1, last), 0, last).reshape(rows.shape)
    edit.replace_constant(name, reordered.T if transposed else reordered)
    return True


def _makes_rows(edit: ModelEdit, node: NodeProto, size: int) -> bool:
    """Whether a node makes N×C·H·W of N×C×H×W, of which C·H·W is `size`."""
    if node.op_type == "Flatten":
        return next((a.i for a in node.attribute if a.name == "axis"), 1) == 1
    if node.op_type != "Reshape" or node.input[1] not in edit.initializers:
        return False
    target = edit.array(node.input[1]).tolist()
    return len(target) == 2 and target[1] == size


def _order_free_values(
    edit: ModelEdit, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
) -> frozenset[str]:
    """Inputs and outputs between which all nodes work element by element, so that no order is better than another."""
    dims = {value.name: dims_of(value) for value in inputs}
    leads_from_input = dict.fromkeys(dims, True)
    """For each value that only elementwise nodes lie before: whether these begin at an input."""
    makers: dict[str, NodeProto] = {}
    for node in edit.nodes:
        sources = [name for name in node.input if name and not _is_single(edit, name)]
        if node.domain or node.op_type not in _ELEMENTWISE or not all(name in leads_from_input for name in sources):
            continue
        for name in node.output:
            makers[name] = node
            leads_from_input.setdefault(name, any(leads_from_input[source] for source in sources))
    values: set[str] = set()
    waiting = [value.name for value in outputs if leads_from_input.get(value.name)]
    while waiting:
        name = waiting.pop()
        if name in values or not name or _is_single(edit, name):
            continue
        values.add(name)
        if name not in dims:
            waiting.extend(makers[name].input)
    input_dims = {dims[name] for name in values if name in dims}
    outer_nodes = [node for node in edit.nodes if values & reads(node) and not values.issuperset(node.output)]
    if len(input_dims) != 1 or outer_nodes:
        return frozenset()
    return frozenset(values)


def _is_single(edit: ModelEdit, name: str) -> bool:
    """Whether a value is a constant of one element, which means the same to every order."""
    tensor = edit.initializers.get(name)
    return tensor is not None and all(size == 1 for size in tensor.dims)
