"""Prior boxes of another number than the locations have room for, branch by branch of an SSD."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from caffeconv.inspection.diagnose.edit import settings_of, with_settings
from caffeconv.inspection.diagnose.trial_net import MOST_STEPS, Misfit, TrialNet, fitting_bottoms
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Settings
from caffeconv.layers import LAYERS
from caffeconv.tensor.shape import Shape, count

MOST_LINES = 6


@dataclass(frozen=True)
class Branch:
    """One layer that makes prior boxes, and what makes the locations of these."""

    index: int
    """Of the layer that makes the boxes."""
    boxes: int
    """At each place."""
    wanted: int
    """As many as the locations are for."""
    locations: int | None
    """Index of the layer that the locations come from."""


def prior_edits(trial: TrialNet, misfit: Misfit) -> Iterator[Mapping[int, LayerDef]]:
    """Edits of all layers whose boxes are too many or too few: index → definition; one change for all of them first."""
    wrong = [branch for branch in branches(trial, misfit) if branch.boxes != branch.wanted]
    options = [list(_settings_for(trial, branch)) for branch in wrong]
    if not options or not all(options):
        return
    common = [settings for settings in options[0] if all(settings in others for others in options[1:])]
    for choice in (*([settings] * len(wrong) for settings in common), [each[0] for each in options]):
        yield {
            branch.index: with_settings(trial.net.layers[branch.index], settings)
            for branch, settings in zip(wrong, choice, strict=True)
        }


def prior_words(trial: TrialNet, misfit: Misfit) -> Iterator[str]:
    """``a_prior makes 6 boxes a place, the 16 outputs of a_loc are 4 numbers for each of 4.``"""
    wrong = [branch for branch in branches(trial, misfit) if branch.boxes != branch.wanted]
    for branch in wrong[:MOST_LINES]:
        name = trial.net.layers[branch.index].name
        source = trial.net.layers[branch.locations] if branch.locations is not None else None
        outputs = settings_of(source).get(LAYERS[source.type].channel_setting) if source is not None else None
        if source is not None and isinstance(outputs, int) and outputs % branch.wanted == 0:
            room = f"the {outputs} outputs of {source.name} are {outputs // branch.wanted} numbers for each of {branch.wanted}"
        else:
            room = f"the locations are for {branch.wanted}"
        yield f"{name} makes {branch.boxes} boxes a place, {room}."
    if wrong:
        yield (
            "Each min_size makes one box and one for each further aspect_ratio (two with `flip`), each max_size one more."
        )


def branches(trial: TrialNet, misfit: Misfit) -> list[Branch]:
    """The layers whose boxes a layer takes that does not fit, in the order in which it takes their locations."""
    definition, layer, bottoms = (
        trial.net.layers[misfit.index], trial.layers[misfit.index], trial.bottoms(misfit.index),
    )  # fmt: skip
    if misfit.stored or layer is None or not bottoms:
        return []
    for wanted in fitting_bottoms(layer, bottoms):
        for i, shape in wanted.items():
            makers = [trial.makers.get(value) for value in _parts(trial, definition.bottom_values[i])]
            locations = _parts(trial, definition.bottom_values[0])
            if len(makers) == len(locations) and all(m is not None and _boxes(trial, m) for m in makers):
                per_box = count(bottoms[0], 1) // max(shape[-1] // 4, 1)
                pairs = zip([m for m in makers if m is not None], locations, strict=True)
                return list(_branches(trial, list(pairs), per_box))
    return []


def _branches(trial: TrialNet, pairs: Sequence[tuple[int, str]], per_box: int) -> Iterator[Branch]:
    for index, value in pairs:
        features, shape = trial.bottoms(index), trial.shapes.get(value)
        if not features or shape is None or len(features[0]) != 4 or per_box < 1:
            return
        wanted, rest = divmod(count(shape, 1), per_box * count(features[0], 2))
        if rest or wanted < 1:
            return
        yield Branch(index, _boxes(trial, index), wanted, _producer(trial, value))


def _boxes(trial: TrialNet, index: int) -> int:
    layer = trial.layers[index]
    return layer.boxes_at_each_place if layer is not None else 0


def _settings_for(trial: TrialNet, branch: Branch) -> Iterator[Settings]:
    """Settings with which a layer makes as many boxes as its locations are for."""
    definition, bottoms = trial.net.layers[branch.index], trial.bottoms(branch.index) or ()
    before = trial.shapes[definition.top_values[0]]
    target: Shape = (*before[:-1], before[-1] // branch.boxes * branch.wanted)
    own = settings_of(definition)
    options = (*LAYERS[definition.type].settings_for(definition, bottoms, 0, target), *_up_to_next_size(trial, branch))
    for settings in options:
        if not all(name in own for name in settings):
            continue
        _, tops, misfit = trial.evaluate(branch.index, with_settings(definition, settings), None, {})
        if misfit is None and tops.get(definition.top_values[0]) == target:
            yield settings


def _up_to_next_size(trial: TrialNet, branch: Branch) -> Iterator[Settings]:
    """A `max_size` for a layer without one: the least `min_size` above its own, which is how SSD's script makes them."""
    layers = [settings_of(trial.net.layers[i]) for i in range(len(trial.net.layers)) if _boxes(trial, i)]
    least, own = "min_size", settings_of(trial.net.layers[branch.index])
    sizes = {size for each in layers for size in _sizes(each, least)}
    above = [min((size for size in sizes if size > each), default=0) for each in _sizes(own, least)]
    if not _sizes(own, "max_size") and all(above):
        yield {"max_size": tuple(above)}


def _sizes(settings: Settings, name: str) -> tuple[int, ...]:
    value = settings.get(name, ())
    return value if isinstance(value, tuple) else ()


def _parts(trial: TrialNet, value: str) -> Sequence[str]:
    """What a value is joined of, by one layer and any number of others that only put numbers in other places."""
    for _ in range(MOST_STEPS):
        index = trial.makers.get(value)
        values = trial.net.layers[index].bottom_values if index is not None else ()
        shapes = [trial.shapes.get(each, ()) for each in (value, *values)]
        if not values or count(shapes[0]) != sum(map(count, shapes[1:])):
            return [value]
        if len(values) > 1:
            return values
        value = values[0]
    return [value]


def _producer(trial: TrialNet, value: str) -> int | None:
    """The nearest layer with outputs of its own that a value comes from."""
    for _ in range(MOST_STEPS):
        index = trial.makers.get(value)
        if index is None or LAYERS[trial.net.layers[index].type].channel_setting:
            return index
        values = trial.net.layers[index].bottom_values
        if len(values) != 1:
            return None
        value = values[0]
    return None
