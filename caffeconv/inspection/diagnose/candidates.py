"""Edits that might mend the first trouble of a net: what the file proves, then what changes the sizes before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from caffeconv.errors import LayerError
from caffeconv.inspection.diagnose.edit import (
    TYPE,
    collapsed,
    picture_size,
    resized,
    settings_of,
    with_settings,
    with_shapes,
)
from caffeconv.inspection.diagnose.joint_edits import for_bottoms, for_sizes, shaped
from caffeconv.inspection.diagnose.ranking import SIZES
from caffeconv.inspection.diagnose.trial_net import Misfit, TrialNet, stored_shapes
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Setting, Settings
from caffeconv.layers import LAYERS
from caffeconv.tensor.shape import Shape, count

_KERNELS, _STRIDES, _PADS, _DILATIONS = (1, 2, 3, 4, 5, 6, 7, 11), (1, 2, 3, 4, 8, 16), (0, 1, 2, 3, 4, 5, 6), (1, 2, 4)
_PAIRS: tuple[Settings, ...] = (
    *({"kernel_size": (k,), "pad": (p,)} for k, p in ((1, 0), (3, 1), (5, 2), (7, 3), (2, 0), (3, 0))),
    *({"kernel_size": (k,), "stride": (s,)} for k, s in ((2, 2), (3, 2), (3, 1), (2, 1))),
)
_COUNTED, _COUNTS = ("pooled_h", "pooled_w"), (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)
MOST_PRODUCERS = 6


@dataclass(frozen=True)
class Candidate:
    """Layers with other definitions: index → definition; `proven`: (index, field) that the file's shapes imply."""

    definitions: Mapping[int, LayerDef]
    proven: frozenset[tuple[int, str]] = frozenset()


def candidates(world: TrialNet, trouble: Misfit) -> Iterator[Candidate]:
    """Edits after which the trouble's layer, and all before it, are well."""
    yield from _own(world, trouble)
    yield from _channels(world, trouble)
    yield from _sizes(world, trouble)
    yield from _inputs(world, trouble)
    for definitions in (*for_bottoms(world, trouble), *for_sizes(world, trouble, lambda i: variants(world, i))):
        candidate = Candidate(definitions)
        if _mends(world, candidate, trouble):
            yield candidate


def ancestors(world: TrialNet, index: int) -> list[int]:
    """The layers that a layer's bottoms come from, nearest first."""
    return sorted(world.ancestors(world.net.layers[index].bottom_values), reverse=True)


def _mends(world: TrialNet, candidate: Candidate, trouble: Misfit) -> bool:
    if len(candidate.definitions) == 1:
        ((index, definition),) = candidate.definitions.items()
        return world.reach(index, definition, trouble.index).trouble > trouble.index
    first = world.edited(candidate.definitions).first
    return first is None or first.index > trouble.index


# -- the layer's own fields --------------------------------------------------------------------------------------------


def implied(world: TrialNet, trouble: Misfit) -> Iterator[Candidate]:
    """The layer with the fields that its stored parameters imply."""
    definition = world.net.layers[trouble.index]
    bottoms = world.bottoms(trouble.index)
    kind = LAYERS.get(definition.type)
    stored = trouble.stored or _stored(world, definition.name)
    if kind is None or bottoms is None or not bottoms or not stored:
        return
    now = settings_of(definition)
    for settings in kind.implied_settings(definition, bottoms, stored):
        other = {name: _comparable(value) for name, value in settings.items() if now.get(name) != _comparable(value)}
        if other:
            proven = frozenset((trouble.index, name) for name in other)
            yield Candidate({trouble.index: with_settings(definition, other)}, proven)
    for proto in kind.other_types(definition, bottoms, stored):
        yield Candidate({trouble.index: definition.with_proto(proto)}, frozenset({(trouble.index, TYPE)}))


def _stored(world: TrialNet, name: str) -> tuple[Shape, ...]:
    return stored_shapes(world.given.stored.get(name))


def _comparable(value: Setting) -> Setting:
    return collapsed(value) if isinstance(value, tuple) else value


def _own(world: TrialNet, trouble: Misfit) -> Iterator[Candidate]:
    for candidate in implied(world, trouble):
        if _mends(world, candidate, trouble):
            yield candidate
    definition = world.net.layers[trouble.index]
    kind, bottoms = LAYERS.get(definition.type), world.bottoms(trouble.index)
    mendable = kind is not None and bottoms is not None and not trouble.stored and kind.bottoms.fits(len(bottoms))
    repairs = kind.repairs(definition, bottoms) if kind is not None and bottoms is not None and mendable else ()
    for settings in (*repairs, *variants(world, trouble.index)):
        candidate = Candidate({trouble.index: with_settings(definition, settings)})
        if _mends(world, candidate, trouble):
            yield candidate


# -- the channels that it sees -----------------------------------------------------------------------------------------


def _channels(world: TrialNet, trouble: Misfit) -> Iterator[Candidate]:
    bottoms = world.bottoms(trouble.index)
    if not bottoms or any(len(bottom) < 2 for bottom in bottoms):
        return
    own: list[Candidate] = [Candidate({}), *implied(world, trouble)]
    seen: set[tuple[frozenset[int], int]] = set()
    for base in own:
        definition = base.definitions.get(trouble.index, world.net.layers[trouble.index])
        for wanted, has in _wanted_channels(definition, bottoms, trouble):
            for candidate in (
                *channel_edits(world, trouble.index, wanted, has),
                *_shaped_channels(world, trouble.index, bottoms[0], wanted),
            ):
                both = Candidate({**base.definitions, **candidate.definitions}, base.proven | candidate.proven)
                if _mends(world, both, trouble):
                    key = (frozenset(candidate.definitions), wanted)
                    if key not in seen:
                        seen.add(key)
                        yield both


def _shaped_channels(world: TrialNet, index: int, bottom: Shape, wanted: int) -> Iterator[Candidate]:
    """Layers that together make the first bottom's channels: all that an Eltwise adds, one of those a Concat joins."""
    value = world.net.layers[index].bottom_values[0]
    yield from (Candidate(definitions) for definitions in shaped(world, value, (bottom[0], wanted, *bottom[2:])))


def _wanted_channels(definition: LayerDef, bottoms: tuple[Shape, ...], trouble: Misfit) -> Iterator[tuple[int, int]]:
    """(needed, there): channels that might be needed of a bottom."""
    kind = LAYERS.get(definition.type)
    if kind is None:
        return
    if trouble.stored:
        wanted = kind.implied_channels(definition, bottoms, trouble.stored)
        if wanted and wanted != bottoms[0][1]:
            yield wanted, bottoms[0][1]
        return
    there = sorted({bottom[1] for bottom in bottoms})
    for has in there:
        for wanted in there:
            if wanted != has:
                yield wanted, has
    group = settings_of(definition).get("group", 1)
    if isinstance(group, int) and group > 1 and there[0] % group:
        yield from ((there[0] // group * group + step * group, there[0]) for step in (1, 0) if there[0] // group + step)


def channel_edits(world: TrialNet, index: int, wanted: int, has: int) -> Iterator[Candidate]:
    """Layers before `index` that make `wanted` channels instead of `has`, or as many more or fewer."""
    tried = 0
    for j in ancestors(world, index):
        definition = world.net.layers[j]
        kind = LAYERS.get(definition.type)
        if kind is None:
            continue
        if kind.channel_setting:
            outputs = settings_of(definition)[kind.channel_setting]
            assert isinstance(outputs, int)
            options = (outputs + wanted - has, wanted, outputs * wanted // has if has else 0)
            for new in dict.fromkeys(option for option in options if option > 0 and option != outputs):
                yield Candidate({j: with_settings(definition, {kind.channel_setting: new})})
            tried += 1
        elif kind.is_input and definition.proto.HasField("input_param") and not _asked(world, definition):
            shapes = [tuple(shape.dim) for shape in definition.proto.input_param.shape]
            changed = [(*s[:1], wanted, *s[2:]) if len(s) > 1 and s[1] == has else s for s in shapes]
            if changed != shapes:
                yield Candidate({j: with_shapes(definition, changed)})
        if tried >= MOST_PRODUCERS:
            return


def _asked(world: TrialNet, definition: LayerDef) -> bool:
    return any(top in world.given.asked for top in definition.tops)


# -- the sizes that it sees --------------------------------------------------------------------------------------------


def variants(world: TrialNet, index: int) -> Iterator[Settings]:
    """Settings near a layer's own that may change the sizes of its tops."""
    definition = world.net.layers[index]
    kind = LAYERS.get(definition.type)
    if kind is None or not kind.size_settings:
        return
    now = settings_of(definition)
    pinned = bool(_stored(world, definition.name))
    if now.get("global_pooling"):
        return
    choices = {"kernel_size": () if pinned else _KERNELS, "stride": _STRIDES, "pad": _PADS, "dilation": _DILATIONS}
    for name in kind.size_settings:
        old = now.get(name)
        if name == "round_mode" and isinstance(old, int):
            yield {name: 1 - old}
        elif isinstance(old, tuple) and old:
            yield from ({name: new} for new in _others(old, choices[name]))
    counted = tuple(name for name in kind.size_settings if name in _COUNTED)
    for names in (counted, *((name,) for name in counted)):
        yield from (dict.fromkeys(names, new) for new in _COUNTS if any(now[name] != new for name in names))
    if not pinned:
        for pair in _PAIRS:
            if all(now.get(name) not in (value, None, ()) for name, value in pair.items()):
                yield pair


def _others(old: tuple[int, ...], choices: Sequence[int]) -> Iterator[tuple[int, ...]]:
    if not choices:
        return
    if len(old) == 1:
        values = dict.fromkeys((*choices, old[0] + 1, old[0] - 1))
        yield from ((value,) for value in values if value != old[0] and value >= 0)
        return
    for axis, here in enumerate(old):
        for value in dict.fromkeys((*choices, *old)):
            new = (*old[:axis], value, *old[axis + 1 :])
            if value != here:
                yield collapsed(new)


def _sizes(world: TrialNet, trouble: Misfit) -> Iterator[Candidate]:
    index = trouble.index
    for j in ancestors(world, index):
        for settings in variants(world, j):
            if world.given.purse.empty:
                return
            definition = with_settings(world.net.layers[j], settings)
            reach = world.reach(j, definition, index)
            if reach.trouble > index:
                yield Candidate({j: definition})
            elif reach.trouble == index and reach.bottoms is not None and trouble.stored:
                yield from _with_channels(world, trouble, Candidate({j: definition}), reach.bottoms)


def _with_channels(
    world: TrialNet, trouble: Misfit, sized: Candidate, bottoms: tuple[Shape, ...]
) -> Iterator[Candidate]:
    """An edit of sizes along with the one of channels that makes both together fit."""
    target = world.net.layers[trouble.index]
    kind = LAYERS.get(target.type)
    old = world.bottoms(trouble.index)
    if kind is None or len(bottoms[0]) < 3 or old is None or bottoms[0][2:] == old[0][2:]:
        return
    try:
        wanted = kind.implied_channels(target, bottoms, trouble.stored)
    except LayerError:
        return
    if wanted is None or wanted == bottoms[0][1]:
        return
    ((j, definition),) = sized.definitions.items()
    for more in channel_edits(world, trouble.index, wanted, bottoms[0][1]):
        ((p, _),) = more.definitions.items()
        if _stored(world, world.net.layers[p].name):
            continue
        if p == j:
            channel = LAYERS[definition.type].channel_setting
            both = {j: with_settings(definition, {channel: settings_of(more.definitions[p])[channel]})}
        else:
            both = {**sized.definitions, **more.definitions}
        candidate = Candidate(both, sized.proven)
        if _mends(world, candidate, trouble):
            yield candidate
            return


def _inputs(world: TrialNet, trouble: Misfit) -> Iterator[Candidate]:
    """Input layers with pictures of another size: one of them, or all that have the same size together."""
    before = [j for j in ancestors(world, trouble.index) if not _asked(world, world.net.layers[j])]
    pairs = ((j, picture_size(world.net.layers[j])) for j in before)
    sizes = {j: size for j, size in pairs if size is not None}
    alike = [[j for j in sizes if sizes[j] == size] for size in dict.fromkeys(sizes.values())]
    for group in (*([j] for j in sizes), *(group for group in alike if len(group) > 1)):
        height, width = sizes[group[0]]
        for size in dict.fromkeys((*_bisected(world, trouble, group), *_likely_sizes(height))):
            if size < 1 or world.given.purse.empty:
                continue
            candidate = Candidate(_resized(world, group, size, size * width // height))
            if candidate.definitions and _mends(world, candidate, trouble):
                yield candidate


def _likely_sizes(height: int) -> tuple[int, ...]:
    near = (height // step * step + more for step in (32, 16, 8, 4, 2) for more in (0, step))
    return (*SIZES, *near, *(range(1, 33) if height <= 64 else ()), height + 1, height - 1)


def _resized(world: TrialNet, indices: Sequence[int], height: int, width: int) -> dict[int, LayerDef]:
    definitions = {j: resized(world.net.layers[j], height, width) for j in indices}
    return {j: definition for j, definition in definitions.items() if definition is not None}


def _bisected(world: TrialNet, trouble: Misfit, indices: Sequence[int]) -> Iterator[int]:
    """The pictures' size at which the trouble's layer sees as many values as its stored weight has columns."""
    if not trouble.stored or len(trouble.stored[0]) != 2:
        return
    wanted, low, high = trouble.stored[0][1], 1, 2048
    while low < high:
        middle = (low + high) // 2
        bottoms = world.edited(_resized(world, indices, middle, middle)).bottoms(trouble.index)
        if bottoms is None or count(bottoms[0], 1) < wanted:
            low = middle + 1
        else:
            high = middle
    yield low
