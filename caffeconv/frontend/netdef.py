"""From a net as read to the layers that run: NetState rules, and in-place writes given names of their own.

caffe: Net::FilterNet, Net::StateMeetsRule, InsertSplits, Net::AppendTop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from caffeconv.caffe_format import upgrade
from caffeconv.caffe_format.crop_offset import UndecidedCrop, align_crops
from caffeconv.caffe_format.prototxt import NetSource
from caffeconv.caffe_format.terms import Phase
from caffeconv.caffe_pb2 import LayerParameter, NetState, NetStateRule
from caffeconv.caffe_pb2 import Phase as Phases
from caffeconv.errors import CaffeconvError, Diagnostic, InvalidNetError, close_names
from caffeconv.files.net_folders import NetFolders
from caffeconv.frontend.options import NetOptions
from caffeconv.ir.definition import LayerDef, NetDef
from caffeconv.layers import LAYERS
from caffeconv.python_layers.host import PythonLayerHost
from caffeconv.tensor.shape import unique_name

NAMELESS = "nameless"
"""The value of a blob that is called nothing."""
MOST_SUGGESTIONS = 20
"""Unknown blobs for which a known one is looked for that may be meant."""


def define_net(source: NetSource, options: NetOptions) -> NetDef:
    """The layers that the options keep; raises InvalidNetError with every faulty bottom and top."""
    net, problems = draft_net(source, options)
    if problems:
        raise InvalidNetError(problems)
    return net


def draft_net(source: NetSource, options: NetOptions) -> tuple[NetDef, list[Diagnostic]]:
    """The layers that the options keep, and what is wrong with their bottoms and tops.

    A bottom that no layer makes is a value that no layer makes; of two layers that make one blob, the later counts.
    """
    source = upgrade.upgrade_net(source)
    net = source.net
    where = str(source.path or "net")
    if not net.layer:
        raise CaffeconvError(f"{where}: the net has no layers; a net definition with `layer {{ … }}` blocks was needed")
    stages = (*net.state.stage, *options.stages)  # pycaffe adds stages to the net's own and replaces phase and level
    full_state = NetState(phase=options.phase, level=options.level, stage=stages)
    layers, left_out = [], []
    for proto, line in zip(net.layer, source.lines, strict=True):
        if proto.include and proto.exclude:
            raise CaffeconvError(
                f"{where}: layer '{proto.name}', line {line}: Specify either include rules or exclude rules; not both."
            )
        if keeps_layer(proto, full_state):
            layers.append((proto, line))
        else:
            left_out.append(proto)
    python_host = (
        PythonLayerHost(source.directory if options.allow_python is True else None) if options.allow_python else None
    )
    names = _unique_names([proto.name for proto, _ in layers])
    definitions = [
        _definition(proto, name, line, options, source, python_host)
        for (proto, line), name in zip(layers, names, strict=True)
    ]
    definitions = [_with_dialect(layer, definitions) for layer in definitions]
    crop_problems = _align_crops(definitions, options.dialect)
    named, last_value, problems = _name_values(definitions, _in_other_states(left_out, full_state))
    definition = NetDef(net.name, tuple(named), options.phase, source.directory, source.path, last_value, python_host)
    return definition, [*crop_problems, *problems]


def _in_other_states(left_out: Sequence[LayerParameter], state: NetState) -> dict[str, str]:
    """Blobs of layers that the net's rules leave out → which layer makes the blob, and how to have it."""
    hints: dict[str, str] = {}
    for layer in reversed(left_out):
        kind = LAYERS.get(layer.type)
        hint = f"Layer '{layer.name}' ({layer.type}) makes it{_state_words(layer, state)}."
        if layer.top and not layer.bottom and (kind is None or kind.is_input):
            shapes = {layer.top[0]: (1, 3, 224, 224)}
            hint += f" A net for use has an input in its place: `deploy=True` `shapes={shapes}`."
        hints |= dict.fromkeys(layer.top, hint)
    return hints


def _state_words(layer: LayerParameter, state: NetState) -> str:
    """In which other state a layer is kept, where its first rule says one."""
    rule = layer.include[0] if layer.include else NetStateRule()
    stages = tuple(sorted({*rule.stage} - {*state.stage}))
    words = [f"`phase={Phases.Name(rule.phase)!r}`"] if rule.HasField("phase") and rule.phase != state.phase else []
    words += [f"`stages={stages}`"] if stages else []
    return f" with {' and '.join(words)}" if words else " in another state of the net (phase, level, stages)"


def _with_dialect(layer: LayerDef, layers: Sequence[LayerDef]) -> LayerDef:
    """The layer with the dialect that the others show it to follow, where the caller chose none."""
    kind = LAYERS.get(layer.type)
    if kind is None or layer.dialect is not None:
        return layer
    return replace(layer, dialect=kind.dialect_of_net(layer, layers))


def _align_crops(layers: list[LayerDef], dialect: str | None) -> list[Diagnostic]:
    """Gives Crop layers that look for their offset what they find; what is wrong with the others."""
    problems = []
    for i, crop in align_crops([layer.proto for layer in layers], dialect).items():
        if isinstance(crop, UndecidedCrop):
            layers[i] = replace(layers[i], undecided=str(crop))
        elif isinstance(crop, str):
            problems.append(Diagnostic("error", layers[i].where, crop, layer=layers[i].name))
        else:
            layers[i] = layers[i].with_proto(crop)
    return problems


def keeps_layer(layer: LayerParameter, state: NetState) -> bool:
    """Whether a layer's rules keep it in this state: any include rule that is met, or no exclude rule that is."""
    if layer.include:
        return any(meets_rule(state, rule) for rule in layer.include)
    return not any(meets_rule(state, rule) for rule in layer.exclude)


def meets_rule(state: NetState, rule: NetStateRule) -> bool:
    """Whether a state satisfies everything that one rule asks for (caffe: Net::StateMeetsRule)."""
    if rule.HasField("phase") and rule.phase != state.phase:
        return False
    if rule.HasField("min_level") and state.level < rule.min_level:
        return False
    if rule.HasField("max_level") and state.level > rule.max_level:
        return False
    stages = set(state.stage)
    return stages.issuperset(rule.stage) and stages.isdisjoint(rule.not_stage)


def _unique_names(names: Sequence[str]) -> list[str]:
    """The names, a further layer of one name as ``name_2``: Caffe, too, gives only the first one a file's weights."""
    taken = set(names)
    seen: set[str] = set()
    unique = []
    for name in names:
        unique.append(unique_name(name, taken) if name in seen else name)
        seen.add(name)
    return unique


def _folders(source: NetSource, options: NetOptions) -> NetFolders:
    root, output = (None if folder is None else Path(folder) for folder in (options.root, options.output_dir))
    if output is None and options.allow_python:
        output = Path()  # a net whose code may run may write as well, in the current folder and below
    return NetFolders(source.directory, root, output)


def _definition(
    proto: LayerParameter,
    name: str,
    line: int,
    options: NetOptions,
    source: NetSource,
    python_host: PythonLayerHost | None,
) -> LayerDef:
    own: Phase = ("TRAIN", "TEST")[proto.phase] if proto.HasField("phase") else options.phase
    return LayerDef(
        name, proto.type, tuple(proto.bottom), tuple(proto.top), (), (), proto, own,
        _folders(source, options),
        line or None, source.net.force_backward, options.extended, source.extra.get(line, {}),
        options.infogain, options.dialect, python_host,
    ).with_proto(proto)  # fmt: skip


def blob_faults(layers: Sequence[LayerDef]) -> list[Diagnostic]:
    """Bottoms that no layer above makes, blobs that several layers make."""
    return _writes(layers, {})[1]


def _name_values(
    layers: Sequence[LayerDef], elsewhere: Mapping[str, str]
) -> tuple[list[LayerDef], dict[str, str], list[Diagnostic]]:
    """Gives each write of a blob a value name of its own; the last write has the blob's name.

    elsewhere: of blobs that layers in other states make, which and when.
    """
    writes, problems = _writes(layers, elsewhere)
    return *_assign(layers, writes), problems


def _writes(
    layers: Sequence[LayerDef], elsewhere: Mapping[str, str]
) -> tuple[dict[str, list[tuple[int, int]]], list[Diagnostic]]:
    """Blob → where it is written, as (layer, top), and what is wrong with that."""
    uses, problems = _count_uses(layers, elsewhere)
    writes: dict[str, list[tuple[int, int]]] = {}
    for i, layer in enumerate(layers):
        for j, top in enumerate(layer.tops):
            before = writes.setdefault(top, [])
            in_place = j < len(layer.bottoms) and layer.bottoms[j] == top and bool(before) and uses[before[-1]] == 1
            if before and not in_place:
                problems.append(_multiple_sources(layer, top, layers[before[-1][0]], j < len(layer.bottoms)))
            before.append((i, j))
    return writes, problems


def _assign(
    layers: Sequence[LayerDef], writes: dict[str, list[tuple[int, int]]]
) -> tuple[list[LayerDef], dict[str, str]]:
    taken = set(writes)
    value_of: dict[tuple[int, int], str] = {}
    for blob, where in writes.items():
        overwrites_input = len(where) > 1 and _is_input(layers[where[0][0]])
        keeper = where[0] if overwrites_input else where[-1]
        for i, j in where:
            # a blob may be called nothing in Caffe, a value may not in ONNX
            name = blob or unique_name(NAMELESS, taken)
            value_of[i, j] = name if (i, j) == keeper else unique_name(f"{name}/{layers[i].name}", taken)
    current: dict[str, str] = {}
    named = []
    for i, layer in enumerate(layers):
        bottoms = tuple(current.get(bottom) or unique_name(f"{bottom}/missing", taken) for bottom in layer.bottoms)
        tops = tuple(value_of[i, j] for j in range(len(layer.tops)))
        current.update(zip(layer.tops, tops, strict=True))
        named.append(replace(layer, bottom_values=bottoms, top_values=tops))
    return named, current


def _is_input(layer: LayerDef) -> bool:
    kind = LAYERS.get(layer.type)
    return kind is not None and kind.is_input


def _count_uses(
    layers: Sequence[LayerDef], elsewhere: Mapping[str, str]
) -> tuple[Counter[tuple[int, int]], list[Diagnostic]]:
    """How many layers read each write of a blob; a loss weight on it counts as one more (caffe: InsertSplits).

    `elsewhere`: blob → what to say, at its first reader, of the layer that makes it in another state.
    """
    hints: dict[str, str] = dict(elsewhere)
    uses: Counter[tuple[int, int]] = Counter()
    current: dict[str, tuple[int, int]] = {}
    problems: list[Diagnostic] = []
    for i, layer in enumerate(layers):
        for j, bottom in enumerate(layer.bottoms):
            if bottom in current:
                uses[current[bottom]] += 1
            else:
                known = list(current) if len(problems) < MOST_SUGGESTIONS else []
                problems.append(_unknown_bottom(layer, bottom, j, known, hints.get(bottom)))
                if bottom in hints:
                    hints[bottom] = ""
        current.update((top, (i, j)) for j, top in enumerate(layer.tops))
        for weight, top in zip(layer.loss_weights, layer.tops, strict=False):
            uses[current[top]] += bool(weight)
    return uses, problems


def _unknown_bottom(
    layer: LayerDef, bottom: str, index: int, known: Sequence[str], elsewhere: str | None
) -> Diagnostic:
    if elsewhere is None:
        near = close_names(bottom, known)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        hint += (
            "No layer above makes this blob in this phase; an input needs a shape (`input_shape`, or an Input layer)."
        )
    else:
        hint = elsewhere
    kind = LAYERS.get(layer.type)
    if kind is not None and index in kind.label_bottoms:
        hint += f" It holds labels: a net for use has no layer '{layer.name}', and `deploy=True` takes it out."
    message = f"Unknown bottom blob '{bottom}' (layer '{layer.name}', bottom index {index})"
    return Diagnostic("error", layer.where, message, hint, layer.name)


def _multiple_sources(layer: LayerDef, top: str, first: LayerDef, may_be_in_place: bool) -> Diagnostic:
    hint = f"'{first.name}' makes it too. Give one of them another top name"
    if may_be_in_place and top in layer.bottoms:
        hint = "A blob that another layer reads as well cannot be overwritten in place: give this layer its own top"
    message = f"Top blob '{top}' produced by multiple sources."
    return Diagnostic("error", layer.where, message, hint + ".", layer.name)
