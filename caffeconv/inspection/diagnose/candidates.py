"""Edits that might mend the first misfit of a net: what the file proves, then what changes the sizes before it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from caffeconv.errors import LayerError
from caffeconv.inspection.diagnose.class_counts import class_edits, told_by_locations
from caffeconv.inspection.diagnose.edit import (
    BOTTOM,
    DIM,
    PARAM_STR,
    TYPE,
    collapsed,
    edit_between,
    image_size,
    input_shapes,
    settings_of,
    with_picture_channels,
    with_settings,
    with_shapes,
    with_swapped,
)
from caffeconv.inspection.diagnose.joint_edits import edits_for_shape, for_bottoms, for_sizes
from caffeconv.inspection.diagnose.picture_sizes import likely_sizes, resized_inputs
from caffeconv.inspection.diagnose.place_distances import wrong_distances
from caffeconv.inspection.diagnose.prior_counts import prior_edits
from caffeconv.inspection.diagnose.trial_net import Misfit, TrialNet, fitting_bottoms, stored_shapes
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Setting, Settings
from caffeconv.layers import LAYERS
from caffeconv.tensor.shape import Shape

_KERNELS, _STRIDES, _PADS, _DILATIONS = (1, 2, 3, 4, 5, 6, 7, 11), (1, 2, 3, 4, 8, 16), (0, 1, 2, 3, 4, 5, 6), (1, 2, 4)
_PAIRS: tuple[Settings, ...] = (
    *({"kernel_size": (k,), "pad": (p,)} for k, p in ((1, 0), (3, 1), (5, 2), (7, 3), (2, 0), (3, 0))),
    *({"kernel_size": (k,), "stride": (s,)} for k, s in ((2, 2), (3, 2), (3, 1), (2, 1))),
)
_COUNTED, _COUNTS = ("pooled_h", "pooled_w"), (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)
CHANNELS = (1, 3, 4)
"""Of pictures: grey, colour, colour and alpha."""
MANY = 99
"""Bottoms that only a layer takes to which their order is one of places: Concat, Eltwise."""
MOST_PRODUCERS = 6
MOST_MAKERS = 8
"""Layers before a Reshape whose channels it may be meant to restore."""


@dataclass(frozen=True)
class Candidate:
    """Layers with other definitions: index → definition; `proven`: (index, field) that the file's shapes imply."""

    definitions: Mapping[int, LayerDef]
    proven: frozenset[tuple[int, str]] = frozenset()
    is_whole: bool = False
    """Whether the net is known to have no misfit then."""


def candidates(trial: TrialNet, misfit: Misfit) -> Iterator[Candidate]:
    """Edits after which the misfit's layer, and all before it, fit."""
    if not misfit.is_curable:
        return
    class_candidates = list(_classes(trial, misfit))
    same_candidates = [] if class_candidates else list(_same_everywhere(trial, misfit))
    yield from (*class_candidates, *same_candidates)
    if class_candidates or same_candidates:
        return
    yield from _input_axes(trial, misfit)
    yield from _place_distances(trial, misfit)
    yield from _label_maps(trial, misfit)
    yield from _own_fields(trial, misfit)
    yield from _channels(trial, misfit)
    yield from _sizes(trial, misfit)
    yield from _inputs(trial, misfit)
    for definitions in (
        *prior_edits(trial, misfit),
        *for_bottoms(trial, misfit),
        *for_sizes(trial, misfit, lambda i: variants(trial, i)),
    ):
        candidate = Candidate(definitions)
        if _mends(trial, candidate, misfit):
            yield candidate


def _input_axes(trial: TrialNet, misfit: Misfit) -> Iterator[Candidate]:
    """Pictures in Caffe's order of axes, N×C×H×W, where an input has them in another or lacks the first of them."""
    for j in ancestors(trial, misfit.index):
        definition = trial.net.layers[j]
        shapes = input_shapes(definition)
        ordered = [in_caffes_order(shape) or shape for shape in shapes]
        if ordered == shapes or _has_caller_shape(trial, definition):
            continue
        after = with_shapes(definition, ordered)
        edit = edit_between(j, definition, after)
        candidate = Candidate({j: after}, frozenset((j, name) for name in edit.after))
        if _mends(trial, candidate, misfit):
            yield candidate


def _place_distances(trial: TrialNet, misfit: Misfit) -> Iterator[Candidate]:
    """A layer that does not say how far apart the places lie that it reads, with what the strides before it come to."""
    for distance in wrong_distances(trial):
        candidate = Candidate({distance.index: distance.after}, frozenset({(distance.index, PARAM_STR)}))
        if distance.index == misfit.index and distance.said is None and _mends(trial, candidate, misfit):
            yield candidate


def in_caffes_order(shape: Shape) -> Shape | None:
    """N×C×H×W for pictures in the order N×H×W×C, H×W×C or C×H×W, known by the channels; None for what is none of these."""
    if len(shape) == 4 and shape[3] in CHANNELS and min(shape[1:3]) > max(CHANNELS):
        return (shape[0], shape[3], shape[1], shape[2])
    if len(shape) == 3 and shape[2] in CHANNELS and min(shape[:2]) > max(CHANNELS):
        return (1, shape[2], shape[0], shape[1])
    return (1, *shape) if len(shape) == 3 and shape[0] in CHANNELS and min(shape[1:]) > max(CHANNELS) else None


def _label_maps(trial: TrialNet, misfit: Misfit) -> Iterator[Candidate]:
    """Labels of the size of the scores: a loss's rule says what they have to be, so they are mended where they are made."""
    definition, bottoms = trial.net.layers[misfit.index], trial.bottoms(misfit.index)
    kind, layer = LAYERS.get(definition.type), trial.layers[misfit.index]
    if kind is None or layer is None or not bottoms or misfit.stored or not kind.label_bottoms:
        return
    for wanted in fitting_bottoms(layer, bottoms):
        pairs = [(i, bottoms[i], shape) for i, shape in wanted.items()]
        if all(i == kind.label_bottoms[0] and len(old) == len(new) > 2 and old[:2] == new[:2] for i, old, new in pairs):
            options = [edits_for_shape(trial, definition.bottom_values[i], new)[:1] for i, _, new in pairs]
            definitions = {i: layer for option in options for each in option for i, layer in each.items()}
            edits = (edit_between(i, trial.net.layers[i], layer) for i, layer in definitions.items())
            candidate = Candidate(definitions, frozenset((edit.index, name) for edit in edits for name in edit.after))
            if definitions and _mends(trial, candidate, misfit):
                yield candidate


def _classes(trial: TrialNet, misfit: Misfit) -> Iterator[Candidate]:
    """All that another number of classes changes at once."""
    for definitions in (*class_edits(trial, misfit), *told_by_locations(trial, misfit)):
        edits = (edit_between(i, trial.net.layers[i], layer) for i, layer in definitions.items())
        candidate = Candidate(definitions, frozenset((edit.index, name) for edit in edits for name in edit.after))
        if _mends(trial, candidate, misfit):
            yield candidate


def _same_everywhere(trial: TrialNet, misfit: Misfit) -> Iterator[Candidate]:
    """One change of the same fields that the file proves for several layers: every BatchNorm's `scale_bias`."""
    if not misfit.stored:
        return
    for candidate in implied(trial, misfit):
        edit = edit_between(misfit.index, trial.net.layers[misfit.index], candidate.definitions[misfit.index])
        parts = [candidate, *_alike(trial, misfit, edit.after)]
        if len(parts) > 1:
            joint = Candidate(
                {i: layer for part in parts for i, layer in part.definitions.items()},
                frozenset().union(*(part.proven for part in parts)),
            )
            if _mends(trial, joint, misfit):
                yield joint


def _alike(trial: TrialNet, misfit: Misfit, after: Mapping[str, Setting | str]) -> Iterator[Candidate]:
    """What the file proves for the other misfits, where that is the same change."""
    for i, other in trial.misfits.items():
        if i == misfit.index or not other.stored:
            continue
        for candidate in implied(trial, other):
            if edit_between(i, trial.net.layers[i], candidate.definitions[i]).after == after:
                yield candidate
                break


def ancestors(trial: TrialNet, index: int) -> list[int]:
    """The layers that a layer's bottoms come from, nearest first."""
    return sorted(trial.ancestors(trial.net.layers[index].bottom_values), reverse=True)


def _mends(trial: TrialNet, candidate: Candidate, misfit: Misfit) -> bool:
    if len(candidate.definitions) == 1:
        ((index, definition),) = candidate.definitions.items()
        return trial.reach(index, definition, misfit.index).misfit_index > misfit.index
    first = trial.edited(candidate.definitions).first
    return first is None or first.index > misfit.index


# -- the layer's own fields --------------------------------------------------------------------------------------------


def implied(trial: TrialNet, misfit: Misfit) -> Iterator[Candidate]:
    """The layer with the fields that its stored parameters imply."""
    definition = trial.net.layers[misfit.index]
    bottoms = trial.bottoms(misfit.index)
    kind = LAYERS.get(definition.type)
    stored = misfit.stored or _stored(trial, definition.name)
    if kind is None or bottoms is None or not bottoms or not stored:
        return
    current = settings_of(definition)
    for settings in kind.implied_settings(definition, bottoms, stored):
        changes = {
            name: _comparable(value) for name, value in settings.items() if current.get(name) != _comparable(value)
        }
        if changes:
            proven = frozenset((misfit.index, name) for name in changes)
            yield Candidate({misfit.index: with_settings(definition, changes)}, proven)
    for proto in kind.other_types(definition, bottoms, stored):
        yield Candidate({misfit.index: definition.with_proto(proto)}, frozenset({(misfit.index, TYPE)}))


def _stored(trial: TrialNet, name: str) -> tuple[Shape, ...]:
    return stored_shapes(trial.context.stored.get(name))


def _comparable(value: Setting) -> Setting:
    return collapsed(value) if isinstance(value, tuple) else value


def _own_fields(trial: TrialNet, misfit: Misfit) -> Iterator[Candidate]:
    for candidate in implied(trial, misfit):
        if _mends(trial, candidate, misfit):
            yield candidate
    definition, layer = trial.net.layers[misfit.index], trial.layers[misfit.index]
    bottoms = trial.bottoms(misfit.index)
    kind = (
        type(layer) if layer is not None else LAYERS.get(definition.type)
    )  # a Python layer's: the known one of that name
    mendable = kind is not None and bottoms is not None and not misfit.stored and kind.bottoms.fits(len(bottoms))
    repairs = kind.repairs(definition, bottoms) if kind is not None and bottoms is not None and mendable else ()
    rules = kind.other_rules(definition, bottoms) if kind is not None and bottoms is not None and mendable else ()
    for proto in rules:
        candidate = Candidate({misfit.index: definition.with_proto(proto)}, frozenset({(misfit.index, TYPE)}))
        if _mends(trial, candidate, misfit):
            yield candidate
    yield from _swapped_bottoms(trial, misfit)
    for settings in (*repairs, *_channels_as_dims(trial, misfit), *variants(trial, misfit.index)):
        is_only_one = len(repairs) == 1 and settings is repairs[0] and DIM not in settings
        proven = frozenset((misfit.index, name) for name in settings) if is_only_one else frozenset[tuple[int, str]]()
        candidate = Candidate({misfit.index: with_settings(definition, settings)}, proven)
        if _mends(trial, candidate, misfit):
            yield candidate


def _swapped_bottoms(trial: TrialNet, misfit: Misfit) -> Iterator[Candidate]:
    """The layer with two of its bottoms in each other's place: labels before scores, regions before features."""
    definition, kind = trial.net.layers[misfit.index], LAYERS.get(trial.net.layers[misfit.index].type)
    if misfit.stored or kind is None or not kind.bottoms.fits(len(definition.bottoms)) or kind.bottoms.fits(MANY):
        return
    shapes = trial.bottoms(misfit.index) or ()
    for i, j in itertools.combinations(range(len(shapes)), 2):
        maker = trial.net.layers[trial.makers[definition.bottom_values[j]]]
        if maker.type in LAYERS and LAYERS[maker.type].is_input:
            continue  # what the net is given comes after what it makes: labels, regions, the picture that scores are cropped to
        is_proven = len(shapes[i]) != len(shapes[j])
        proven = frozenset({(misfit.index, BOTTOM)}) if is_proven else frozenset[tuple[int, str]]()
        candidate = Candidate({misfit.index: with_swapped(definition, i, j)}, proven)
        if _mends(trial, candidate, misfit):
            yield candidate


def _channels_as_dims(trial: TrialNet, misfit: Misfit) -> Iterator[Settings]:
    """A Reshape with one of its sizes that of the channels of a blob before it: what a softmax made rows of, put back."""
    dims = settings_of(trial.net.layers[misfit.index]).get(DIM)
    if misfit.stored or not isinstance(dims, tuple):
        return
    makers = [trial.net.layers[i] for i in ancestors(trial, misfit.index)[:MOST_MAKERS]]
    shapes = (trial.shapes.get(layer.top_values[0], ()) for layer in makers if layer.top_values)
    for channels in dict.fromkeys(shape[1] for shape in shapes if len(shape) == 4):
        yield from (
            {DIM: (*dims[:i], channels, *dims[i + 1 :])} for i, dim in enumerate(dims) if dim > 1 and dim != channels
        )


# -- the channels that it sees -----------------------------------------------------------------------------------------


def _channels(trial: TrialNet, misfit: Misfit) -> Iterator[Candidate]:
    bottoms = trial.bottoms(misfit.index)
    kind = LAYERS.get(trial.net.layers[misfit.index].type)
    axis = kind.input_axis if kind is not None and misfit.stored else 1
    if not bottoms or len(bottoms[0]) <= axis or (not misfit.stored and any(len(bottom) < 2 for bottom in bottoms)):
        return
    bases: list[Candidate] = [Candidate({}), *implied(trial, misfit)]
    keys: set[tuple[frozenset[int], int]] = set()
    for base in bases:
        definition = base.definitions.get(misfit.index, trial.net.layers[misfit.index])
        for target, current in _channel_targets(trial, definition, bottoms, misfit):
            for candidate in (
                *channel_edits(trial, misfit.index, target, current),
                *_shaped_channels(trial, misfit.index, bottoms[0], axis, target),
            ):
                both = Candidate({**base.definitions, **candidate.definitions}, base.proven | candidate.proven)
                if _mends(trial, both, misfit):
                    key = (frozenset(candidate.definitions), target)
                    if key not in keys:
                        keys.add(key)
                        yield both


def _shaped_channels(trial: TrialNet, index: int, bottom: Shape, axis: int, target: int) -> Iterator[Candidate]:
    """Layers that together make the first bottom's channels: all that an Eltwise adds, one of those a Concat joins."""
    value = trial.net.layers[index].bottom_values[0]
    shape = (*bottom[:axis], target, *bottom[axis + 1 :])
    yield from (Candidate(definitions) for definitions in edits_for_shape(trial, value, shape))


def _channel_targets(
    trial: TrialNet, definition: LayerDef, bottoms: tuple[Shape, ...], misfit: Misfit
) -> Iterator[tuple[int, int]]:
    """(target, current): channels that a bottom might need, and those that it has."""
    kind = LAYERS.get(definition.type)
    if kind is None:
        return
    stored = misfit.stored or _stored(trial, definition.name)
    if stored:
        target = kind.implied_channels(definition, bottoms, stored)
        current = bottoms[0][kind.input_axis]
        if target and target != current:
            yield target, current
    if misfit.stored:
        return
    if kind.label_bottoms:  # a loss says what its labels have to be, not its scores
        yield from ((bottoms[0][1], current) for current in {bottom[1] for bottom in bottoms[1:]} - {bottoms[0][1]})
        return
    counts = sorted({bottom[1] for bottom in bottoms})
    for current in counts:
        for target in counts:
            if target != current:
                yield target, current
    group = settings_of(definition).get("group", 1)
    if isinstance(group, int) and group > 1 and counts[0] % group:
        yield from (
            (counts[0] // group * group + step * group, counts[0]) for step in (1, 0) if counts[0] // group + step
        )


def channel_edits(trial: TrialNet, index: int, target: int, current: int) -> Iterator[Candidate]:
    """Layers before `index` that make `target` channels instead of `current`, or as many more or fewer."""
    producers = 0
    for j in ancestors(trial, index):
        definition = trial.net.layers[j]
        kind = LAYERS.get(definition.type)
        if kind is None:
            continue
        if kind.channel_setting:
            outputs = settings_of(definition)[kind.channel_setting]
            assert isinstance(outputs, int)
            options = (outputs + target - current, target, outputs * target // current if current else 0)
            for new in dict.fromkeys(option for option in options if option > 0 and option != outputs):
                yield Candidate({j: with_settings(definition, {kind.channel_setting: new})})
            producers += 1
        elif settings := kind.settings_for_channels(definition, trial.bottoms(j) or ((),), target):
            yield from (Candidate({j: with_settings(definition, each)}) for each in settings)
        elif not _has_caller_shape(trial, definition):
            new_definition = with_picture_channels(definition, target, current)
            if new_definition is not None:
                yield Candidate({j: new_definition})
        if producers >= MOST_PRODUCERS:
            return


def _has_caller_shape(trial: TrialNet, definition: LayerDef) -> bool:
    return any(top in trial.context.input_shapes for top in definition.tops)


# -- the sizes that it sees --------------------------------------------------------------------------------------------


def variants(trial: TrialNet, index: int) -> Iterator[Settings]:
    """Settings near a layer's own that may change the sizes of its tops."""
    definition = trial.net.layers[index]
    kind = LAYERS.get(definition.type)
    if kind is None or not kind.size_settings:
        return
    current = settings_of(definition)
    has_weights = bool(_stored(trial, definition.name))
    if current.get("global_pooling"):
        return
    choices = {"kernel_size": () if has_weights else _KERNELS, "stride": _STRIDES, "pad": _PADS, "dilation": _DILATIONS}
    for name in kind.size_settings:
        old = current.get(name)
        if name == "round_mode" and isinstance(old, int):
            yield {name: 1 - old}
        elif isinstance(old, tuple) and old:
            yield from ({name: new} for new in _other_values(old, choices[name]))
    count_names = tuple(name for name in kind.size_settings if name in _COUNTED)
    for names in (count_names, *((name,) for name in count_names)):
        yield from (dict.fromkeys(names, new) for new in _COUNTS if any(current[name] != new for name in names))
    if not has_weights:
        for pair in _PAIRS:
            if all(current.get(name) not in (value, None, ()) for name, value in pair.items()):
                yield pair


def _other_values(old: tuple[int, ...], choices: Sequence[int]) -> Iterator[tuple[int, ...]]:
    if not choices:
        return
    if len(old) == 1:
        values = dict.fromkeys((*choices, old[0] + 1, old[0] - 1))
        yield from ((value,) for value in values if value != old[0] and value >= min(choices))
        return
    for axis, current in enumerate(old):
        for value in dict.fromkeys((*choices, *old)):
            new = (*old[:axis], value, *old[axis + 1 :])
            if value != current:
                yield collapsed(new)


def _sizes(trial: TrialNet, misfit: Misfit) -> Iterator[Candidate]:
    index = misfit.index
    for j in ancestors(trial, index):
        for settings in variants(trial, j):
            if trial.context.budget.empty:
                return
            definition = with_settings(trial.net.layers[j], settings)
            result = trial.reach(j, definition, index)
            if result.misfit_index > index:
                yield Candidate({j: definition})
            elif result.misfit_index == index and result.bottoms is not None and misfit.stored:
                yield from _with_channels(trial, misfit, Candidate({j: definition}), result.bottoms)


def _with_channels(
    trial: TrialNet, misfit: Misfit, sized: Candidate, bottoms: tuple[Shape, ...]
) -> Iterator[Candidate]:
    """An edit of sizes along with the one of channels that makes both together fit."""
    layer = trial.net.layers[misfit.index]
    kind = LAYERS.get(layer.type)
    old = trial.bottoms(misfit.index)
    if kind is None or len(bottoms[0]) < 3 or old is None or bottoms[0][2:] == old[0][2:]:
        return
    try:
        channels = kind.implied_channels(layer, bottoms, misfit.stored)
    except LayerError:
        return
    if channels is None or channels == bottoms[0][1]:
        return
    ((j, definition),) = sized.definitions.items()
    for more in channel_edits(trial, misfit.index, channels, bottoms[0][1]):
        ((p, _),) = more.definitions.items()
        if _stored(trial, trial.net.layers[p].name):
            continue
        if p == j:
            channel = LAYERS[definition.type].channel_setting
            both = {j: with_settings(definition, {channel: settings_of(more.definitions[p])[channel]})}
        else:
            both = {**sized.definitions, **more.definitions}
        candidate = Candidate(both, sized.proven)
        if _mends(trial, candidate, misfit):
            yield candidate
            return


def _inputs(trial: TrialNet, misfit: Misfit) -> Iterator[Candidate]:
    """Input layers with pictures of another size: one of them, or all that have the same size together."""
    inputs = [j for j in ancestors(trial, misfit.index) if not _has_caller_shape(trial, trial.net.layers[j])]
    pairs = ((j, image_size(trial.net.layers[j])) for j in inputs)
    sizes = {j: size for j, size in pairs if size is not None}
    groups = [[j for j in sizes if sizes[j] == size] for size in dict.fromkeys(sizes.values())]
    for group in (*([j] for j in sizes), *(group for group in groups if len(group) > 1)):
        for alike in likely_sizes(trial, misfit, group):
            sized = (Candidate(resized_inputs(trial, group, size)) for size in alike if not trial.context.budget.empty)
            fitting = [each for each in sized if each.definitions and _mends(trial, each, misfit)]
            whole = [replace(each, is_whole=True) for each in fitting if trial.edited(each.definitions).first is None]
            yield from whole or fitting
            if whole:
                break
