"""Builds the graph: every layer is read, and every blob gets its shape. All problems are found in one go."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from caffeconv.errors import Diagnostic, InvalidNetError, LayerError, close_names, near_name, shortened
from caffeconv.ir.definition import LayerDef, NetDef
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Layer, Node
from caffeconv.layers import LAYERS, PYTHON_LAYERS, TYPES_BY_FIELD
from caffeconv.layers.layer_types import KNOWN_ELSEWHERE, OTHER_NAMES
from caffeconv.layers.training_only import is_training_only
from caffeconv.layers.unknown_type import UnknownType
from caffeconv.tensor.param import Param
from caffeconv.tensor.shape import MOST_AXES, Shape, count, format_shape
from caffeconv.tensor.window import INT_MAX


@dataclass
class PartialGraph:
    """A graph as far as it could be built, with what was wrong with the rest."""

    nodes: list[Node] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    problems: list[Diagnostic] = field(default_factory=list)
    unbuilt: list[LayerDef] = field(default_factory=list)
    unknown: list[LayerDef] = field(default_factory=list)
    """Layers of unknown types whose shapes are known all the same."""
    undecided: list[Diagnostic] = field(default_factory=list)
    """Layers whose rule only the caller can choose: such a graph has all its shapes, but is not for running."""

    @property
    def summary(self) -> list[Diagnostic]:
        """The problems, but each unknown type once: where it stands first and in how many layers, and the ways on."""
        unknown: dict[str, list[LayerDef]] = {}
        for layer in (*self.unknown, *self.unbuilt):
            if layer.type and layer.type not in LAYERS:
                unknown.setdefault(layer.type, []).append(layer)
        names = {layer.name for layers in unknown.values() for layer in layers}
        types = [_unknown_type(layers) for layers in unknown.values()]
        if types:
            types[-1] = replace(types[-1], hint=WAYS_ON)
        return [*types, *(problem for problem in self.problems if problem.layer not in names)]


WAYS_ON = (
    "What can be done: cut the net before it, with a blob that does not depend on it (`outputs=…`); add the type with "
    'caffeconv.register_layer (docs/custom_layers.md); where it is Python code, write `type: "Python"` with a python_param '
    "and allow that (`allow_python=True`). docs/layers.md lists the types that are known. The weights file by itself, without "
    "the net, becomes an .npz, .h5 or .safetensors all the same."
)


def build(
    net: NetDef, input_shapes: Mapping[str, Sequence[int]] | None = None, *, data_size: int | None = None
) -> Graph:
    """The net's graph; `input_shapes` (blob → shape) replaces what the net says of its inputs.

    Axes whose size follows from values (Filter, DetectionOutput) have the size that Caffe's Reshape guesses, or
    `data_size`, which also lifts Caffe's limit on a blob's size: such a graph is not for running. Raises
    InvalidNetError with every problem: unknown types, faulty parameters, shapes that do not go together.
    """
    draft = build_partial_graph(net, input_shapes, data_size=data_size)
    if draft.problems or draft.unknown or draft.undecided:
        raise InvalidNetError([*draft.summary, *draft.undecided])
    return finish(net, draft)


def finish(net: NetDef, draft: PartialGraph) -> Graph:
    """A draft without problems as a graph, with its inputs and outputs."""
    inputs = tuple(top for node in draft.nodes if node.layer.is_input for top in node.tops)
    own = set(inputs)
    read = {value for node in draft.nodes for value in node.bottoms}
    # caffe: net outputs are what no layer reads, in the order of their names
    outputs = sorted(value for node in draft.nodes for value in node.tops if value not in read and value not in own)
    return Graph(net, tuple(draft.nodes), inputs, tuple(outputs), draft.shapes)


def build_partial_graph(
    net: NetDef, input_shapes: Mapping[str, Sequence[int]] | None = None, *, data_size: int | None = None
) -> PartialGraph:
    """As `build`, going on past problems as far as shapes are known."""
    draft = PartialGraph()
    requested = {name: tuple(shape) for name, shape in (input_shapes or {}).items()}
    for definition in net.layers:
        try:
            node = _node(definition, draft.shapes, requested, data_size)
        except LayerError as error:
            draft.problems.append(Diagnostic("error", definition.where, str(error), layer=definition.name))
            node = None
        if node is None:
            draft.unbuilt.append(definition)
            continue
        draft.nodes.append(node)
        if node.layer.is_unknown:
            draft.unknown.append(definition)
        choice = definition.undecided or node.layer.undecided(node.bottom_shapes)
        if choice:
            draft.undecided.append(Diagnostic("error", definition.where, choice, layer=definition.name))
        draft.shapes.update(zip(node.tops, node.top_shapes, strict=True))
    layers = [(node.layer, node.definition) for node in draft.nodes]
    inputs = {top for layer, definition in layers if layer.is_input for top in definition.tops}
    open_tops = {top for layer, definition in layers if layer.has_dynamic_shapes for top in definition.tops}
    for name in requested:
        if name not in inputs | open_tops and not draft.unbuilt:
            draft.problems.append(_no_such_input(name, sorted(inputs)))
    return draft


def _no_such_input(name: str, inputs: list[str]) -> Diagnostic:
    near = close_names(name, inputs)
    hint = f"Did you mean '{near[0]}'?" if near else ""
    return Diagnostic(
        "error", "", f"shape given for '{name}', which is no input of the net; inputs: {', '.join(inputs)}", hint
    )


def _node(
    definition: LayerDef, shapes: Mapping[str, Shape], requested: Mapping[str, Shape], data_size: int | None
) -> Node | None:
    """The layer in its place; None where a bottom's shape is not known because of an earlier problem."""
    definition, layer = parse_layer(definition, requested)
    kind = type(layer)
    if any(value not in shapes for value in definition.bottom_values):
        return None
    bottoms = tuple(shapes[value] for value in definition.bottom_values)
    tops = infer_tops(definition, layer, bottoms, requested, data_size)
    top_values = definition.top_values
    if kind.makes_missing_tops and len(top_values) < len(tops):
        top_values = (*top_values, *_automatic_tops(definition, shapes, len(tops) - len(top_values)))
    if len(tops) != len(top_values):
        raise LayerError(f"{len(top_values)} tops; {len(tops)} were needed")
    if data_size is None and not kind.has_dynamic_shapes:
        refuse_empty(definition, tops)
    if definition.is_in_place and (fault := layer.in_place_fault(bottoms, tops)):
        raise LayerError(
            f"top '{definition.tops[0]}' is its own bottom; {definition.type} does not work in place: {fault}. Give it a "
            "top of its own"
        )
    params = tuple(Param(name, tuple(shape)) for name, shape in layer.weight_shapes(bottoms).items())
    if len(definition.param_specs) > len(params):
        raise LayerError(
            f"{len(definition.param_specs)} param given, and the layer has {len(params)} parameters; Too many params "
            f"specified for layer {definition.name}"
        )
    for param in params:
        if count(param.shape) > INT_MAX:
            raise LayerError(
                f"its parameter {param.name} would be {format_shape(param.shape)}: blob size exceeds INT_MAX"
            )
    return Node(definition, layer, definition.bottom_values, top_values, bottoms, tops, params)


def parse_layer(definition: LayerDef, requested: Mapping[str, Shape]) -> tuple[LayerDef, Layer]:
    """The definition with the shapes that the caller asks for, and what it says; raises LayerError."""
    kind = known_python(definition, requested) or layer_class(definition, requested)
    _check_arity(definition, kind)
    definition = kind.with_requested_shapes(definition, requested)
    return definition, kind.parse(definition).with_tops(definition.tops, requested)


def known_python(definition: LayerDef, requested: Mapping[str, Shape]) -> type[Layer] | None:
    """The rule for a layer in Python whose code is known, where that code cannot run and nobody says what it makes."""
    param = definition.proto.python_param
    kind = PYTHON_LAYERS.get(f"{param.module}.{param.layer}")
    if kind is None or any(top in requested for top in definition.tops):
        return None
    host = definition.python_host
    return None if host is not None and host.finds(param.module) else kind


def infer_tops(
    definition: LayerDef,
    layer: Layer,
    bottoms: tuple[Shape, ...],
    requested: Mapping[str, Shape],
    data_size: int | None,
) -> tuple[Shape, ...]:
    """A layer's top shapes: the caller's for an input, else by its rule; `data_size` as for `build`."""
    shapes = layer.input_shapes(definition.tops, requested) if layer.is_input else layer.top_shapes(bottoms)
    tops = tuple(tuple(shape) for shape in shapes)
    _check_sizes(definition, tops, limited=data_size is None)
    axis = layer.open_axis
    if data_size is None or axis is None:
        return tops
    return tuple((*shape[:axis], data_size, *shape[axis + 1 :]) if axis < len(shape) else shape for shape in tops)


def _automatic_tops(definition: LayerDef, shapes: Mapping[str, Shape], missing: int) -> tuple[str, ...]:
    """Names for tops that Caffe would make and call ``(automatic)``: the layer's own, where that is free."""
    names = []
    own = definition.name or definition.type
    for i in range(missing):
        name = own if i == 0 else f"{own}_{i}"
        names.append(name if name not in shapes else f"{own}/automatic_{i}")
    return tuple(names)


def layer_class(definition: LayerDef, requested: Mapping[str, Shape]) -> type[Layer]:
    """The class of a layer's type; raises LayerError with the nearest known name.

    An unknown type has one too where the shapes of its tops are known: the layer works in place, or the caller says them.
    """
    if not definition.type:
        raise LayerError('the layer has no type; add `type: "…"` (Unknown layer type: )')
    kind = LAYERS.get(definition.type)
    if kind is not None:
        return _type_by_field(definition, kind) or kind
    if UnknownType.has_shapes(definition, requested):
        return UnknownType
    raise LayerError(f"{_unknown_words(definition.type)}. {WAYS_ON}")


def _type_by_field(definition: LayerDef, kind: type[Layer]) -> type[Layer] | None:
    settings = getattr(definition.proto, kind.settings) if kind.settings else None
    fields = [] if settings is None else [field.name for field, _ in settings.ListFields()]
    fields += [f"bottom[{i}]" for i in range(1, len(definition.bottoms))]
    rules = (TYPES_BY_FIELD.get(f"{definition.type}.{field}") for field in fields)
    return next((rule for rule in rules if rule is not None), None)


def _unknown_words(kind: str) -> str:
    if kind in KNOWN_ELSEWHERE:
        return f"Unknown layer type: {kind}; it is probably that of {KNOWN_ELSEWHERE[kind]}"
    bare = re.sub(r"[^a-z0-9]", "", kind.lower())
    near = OTHER_NAMES.get(bare) or near_name(kind, LAYERS)
    return f"Unknown layer type: {shortened(kind)}" + (f"; did you mean {near}?" if near else "")


def _unknown_type(layers: Sequence[LayerDef]) -> Diagnostic:
    """One problem for all layers of one unknown type."""
    first, *others = layers
    number = f" ({len(layers)} layers)" if others else ""
    if is_training_only(first):
        message = f"Unknown layer type: {first.type}{number}; only training has it: `deploy=True` takes it out"
    elif not first.bottoms and first.tops:
        message = f"Unknown layer type: {first.type}{number}; as data, it becomes an input with `deploy=True`"
    else:
        message = _unknown_words(first.type) + number
    return Diagnostic("error", first.where, message, layer=first.name)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _check_arity(definition: LayerDef, kind: type[Layer]) -> None:
    # caffe: Layer::CheckBlobCounts
    number = len(definition.bottoms)
    if not kind.bottoms.fits(number):
        raise LayerError(
            f"{_counted(number, 'bottom')}; {definition.type} Layer takes {kind.bottoms} bottom blob(s) as input."
        )
    number = len(definition.tops)
    enough = number <= kind.tops.least and kind.makes_missing_tops
    if not (kind.tops.fits(number) or enough):
        raise LayerError(
            f"{_counted(number, 'top')}; {definition.type} Layer produces {kind.tops} top blob(s) as output."
        )
    if not kind.in_place and any(b == t for b, t in zip(definition.bottoms, definition.tops, strict=False)):
        raise LayerError(
            f"top '{definition.tops[0]}' is its own bottom; {definition.type} Layer does not allow in-place computation."
        )
    weights, tops = len(definition.loss_weights), max(number, kind.tops.least if kind.makes_missing_tops else 0)
    if weights and weights != tops:
        raise LayerError(
            f"{weights} loss_weight for {tops} tops; loss_weight must be unspecified or specified once per top blob."
        )
    flags = len(definition.propagate_down)
    if flags and flags != len(definition.bottoms):
        raise LayerError("propagate_down param must be specified either 0 or bottom_size times")


def refuse_empty(definition: LayerDef, tops: Sequence[Shape]) -> None:
    """Raises LayerError for tops without values."""
    # caffe: SyncedMemory is only there once a blob had a value; later it may be reshaped to none
    for blob, shape in zip(definition.tops, tops, strict=False):
        if not count(shape):
            raise LayerError(
                f"blob '{blob}' would be {format_shape(shape)}, without any values, and nothing can be read of it "
                "(Check failed: data_). Use a larger input or a smaller window"
            )


def _check_sizes(definition: LayerDef, tops: Sequence[Shape], *, limited: bool) -> None:
    for blob, shape in zip(definition.tops, tops, strict=False):
        if len(shape) > MOST_AXES:
            raise LayerError(f"blob '{blob}' would have {len(shape)} axes; {MOST_AXES} at most are possible")
        if any(dim < 0 for dim in shape):
            raise LayerError(f"blob '{blob}' would be {'×'.join(map(str, shape))}; sizes of at least 0 are possible")
        total = 1
        for dim in shape:
            total *= max(dim, 1)  # an empty blob of vast sizes is refused too: what follows from them is not empty
        if limited and total > INT_MAX:
            # caffe: Blob::Reshape — a blob's size must fit an int
            raise LayerError(f"blob '{blob}' would be {'×'.join(map(str, shape))}: blob size exceeds INT_MAX")
