"""Another number of classes, said in many places at once: scores, boxes of each class, Reshapes, DetectionOutput."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from caffeconv.inspection.diagnose.edit import DIM, collapsed, settings_of, with_settings
from caffeconv.inspection.diagnose.trial_net import MOST_STEPS, Misfit, TrialNet
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Setting
from caffeconv.layers import LAYERS
from caffeconv.tensor.shape import count


@dataclass(frozen=True)
class ClassCount:
    """How many classes the net's scores are for, and those of the file."""

    net: int
    file: int
    outputs: Mapping[int, int]
    """Index of a layer whose weights are for the file's number → its outputs there."""


def class_edits(trial: TrialNet, misfit: Misfit) -> Iterator[Mapping[int, LayerDef]]:
    """Layers that together change the number of classes to that of the file: index → definition.

    All whose stored weights differ from the net in the same proportion, and what follows them and counts classes.
    """
    counts = class_count(trial, misfit)
    if counts is None:
        return
    definitions = {i: _with_outputs(trial.net.layers[i], number) for i, number in counts.outputs.items()}
    for i in _descendants(trial, counts.outputs):
        if i in definitions:
            continue
        settings = _scaled(trial, i, counts)
        if settings:
            definitions[i] = with_settings(trial.net.layers[i], settings)
    if definitions.keys() - counts.outputs.keys():
        yield definitions


def told_by_locations(trial: TrialNet, misfit: Misfit) -> Iterator[Mapping[int, LayerDef]]:
    """Layers behind the scores of an SSD, with as many classes as there are scores for each of its boxes.

    The number of boxes is that of the locations, four numbers each; the layers that make scores stay as they are.
    """
    for i in (misfit.index, *_descendants(trial, {misfit.index: 0})) if not misfit.stored else ():
        layer, settings = trial.net.layers[i], settings_of(trial.net.layers[i])
        declared = _class_settings(layer).get("num_classes")
        if not isinstance(declared, int) or settings.get("share_location") is not True or len(layer.bottoms) < 2:
            continue
        way = _way_back(trial, layer.bottom_values[1])
        values = (layer.bottom_values[1], *(trial.net.layers[j].bottom_values[0] for j in way))
        scores = next((count(trial.shapes[value], 1) for value in values if value in trial.shapes), 0)
        boxes = count(trial.shapes.get(layer.bottom_values[0], ()), 1) // 4
        classes, rest = divmod(scores, max(boxes, 1))
        if rest or classes in (0, declared):
            continue
        counts = ClassCount(declared, classes, {})
        scaled = {j: settings for j in (*way, i) if (settings := _scaled(trial, j, counts))}
        yield {j: with_settings(trial.net.layers[j], settings) for j, settings in scaled.items()}


def _way_back(trial: TrialNet, value: str) -> list[int]:
    """The layers that a value comes from, nearest first, as long as each reads one blob and has no weights."""
    way: list[int] = []
    for _ in range(MOST_STEPS):
        index = trial.makers.get(value)
        layer = trial.net.layers[index] if index is not None else None
        kind = LAYERS.get(layer.type) if layer is not None else None
        if index is None or layer is None or kind is None or len(layer.bottoms) != 1 or kind.channel_setting:
            break
        way.append(index)
        value = layer.bottom_values[0]
    return way


def class_words(trial: TrialNet, misfit: Misfit) -> Iterator[str]:
    """``The file's 84 outputs are 4 × 21 classes, the net's 176 are 4 × 44.``"""
    counts = class_count(trial, misfit)
    if counts is None or misfit.index not in counts.outputs:
        return
    own = _outputs(trial.net.layers[misfit.index])
    if not _is_declared(trial, counts):
        return
    each = own // counts.net if own is not None and own % counts.net == 0 else 0
    if not each or own is None:
        return
    per = f"{each} × " if each > 1 else ""
    if _is_for_priors(trial, counts):
        per = f"{each} priors × "
    file_outputs = counts.outputs[misfit.index]
    yield (
        f"The file's {file_outputs} outputs are {per}{counts.file} classes, the net's {own} are {per}{counts.net}: "
        "another number of classes."
    )


def output_words(trial: TrialNet, misfit: Misfit) -> Iterator[str]:
    """That all layers that do not fit have other numbers of outputs, in one proportion, where nothing counts classes."""
    own, stored = _outputs(trial.net.layers[misfit.index]), _stored_outputs(trial, misfit)
    others = [other for other in trial.misfits.values() if other.stored]
    ratios = {_ratio(trial, other) for other in others}
    if not own or not stored or len(ratios) > 1 or any((*class_words(trial, misfit), *anchor_words(trial, misfit))):
        return
    if _is_for_priors(trial, ClassCount(1, 1, {misfit.index: stored})):
        yield f"The file's {stored} outputs and the net's {own} are for other numbers of priors at each place."
        return
    number = {1: "", 2: "both", 3: "all three"}.get(len(others), f"all {len(others)}")
    which = f"In {number} layers that do not fit, only" if number else "Only"
    them = "the layers" if len(others) > 1 else "the layer"
    yield (
        f"{which} the number of outputs differs: {stored} in the file, {own} in the net. To fine-tune for {own} classes, "
        f"rename {them}; to use the file as it is, `num_output: {stored}`."
    )


def anchor_words(trial: TrialNet, misfit: Misfit) -> Iterator[str]:
    """``The file's 24 outputs are 2 for each of 12 anchors, the net's 18 are 2 for each of 9.``"""
    own, stored = _outputs(trial.net.layers[misfit.index]), _stored_outputs(trial, misfit)
    if not own or not stored:
        return
    layers = [trial.layers[i] for i in _descendants(trial, {misfit.index: 0})]
    for anchors in dict.fromkeys(layer.boxes_at_each_place for layer in layers if layer is not None):
        if anchors and own % anchors == 0 and stored % (own // anchors) == 0:
            each = own // anchors
            yield (
                f"The file's {stored} outputs are {each} for each of {stored // each} anchors, the net's {own} are {each} for "
                f"each of {anchors}: another number of anchors."
            )


def class_count(trial: TrialNet, misfit: Misfit) -> ClassCount | None:
    """The numbers of classes that explain a misfit; None where they do not, or nothing in the net counts classes."""
    ratio = _ratio(trial, misfit)
    if ratio is None or ratio == 1:
        return None
    outputs = {
        i: number
        for i, other in trial.misfits.items()
        if _ratio(trial, other) == ratio and (number := _stored_outputs(trial, other)) is not None
    }
    numbers = [number for number in _counted(trial, outputs) if (number * ratio).denominator == 1]
    return ClassCount(numbers[0], int(numbers[0] * ratio), outputs) if numbers else None


def explains_all(trial: TrialNet) -> bool:
    """Whether another number of classes is all that keeps layers from taking their weights."""
    misfits = {i: misfit for i, misfit in trial.misfits.items() if misfit.stored}
    counts = class_count(trial, misfits[min(misfits)]) if misfits else None
    return counts is not None and counts.outputs.keys() == misfits.keys()


def _counted(trial: TrialNet, outputs: Mapping[int, int]) -> Iterator[int]:
    """Numbers of classes behind some layers: what says so itself; then a layer's outputs that are said there once more."""
    descendants = _descendants(trial, outputs)
    for i in descendants:
        yield from (v for v in _class_settings(trial.net.layers[i]).values() if isinstance(v, int) and v > 1)
    own = sorted({number for i in outputs if (number := _outputs(trial.net.layers[i])) is not None})
    for i in descendants:
        dims = settings_of(trial.net.layers[i]).get(DIM, ())
        repeats = dims if isinstance(dims, tuple) else ()
        if trial.net.layers[i].name not in trial.context.stored:
            repeats = (*repeats, _outputs(trial.net.layers[i]) or 0)
        yield from (number for number in own if number in repeats)


def _ratio(trial: TrialNet, misfit: Misfit) -> Fraction | None:
    """The file's outputs to the net's, where a layer's stored weights differ in that alone."""
    own, stored = _outputs(trial.net.layers[misfit.index]), _stored_outputs(trial, misfit)
    return Fraction(stored, own) if own and stored else None


def _outputs(layer: LayerDef) -> int | None:
    kind = LAYERS.get(layer.type)
    value = settings_of(layer).get(kind.channel_setting) if kind is not None and kind.channel_setting else None
    return value if isinstance(value, int) else None


def _stored_outputs(trial: TrialNet, misfit: Misfit) -> int | None:
    layer, bottoms = trial.net.layers[misfit.index], trial.bottoms(misfit.index)
    kind = LAYERS.get(layer.type)
    if kind is None or not misfit.stored or not kind.channel_setting or not bottoms:
        return None
    own = settings_of(layer)
    for settings in kind.implied_settings(layer, bottoms, misfit.stored):
        values = {name: collapsed(value) if isinstance(value, tuple) else value for name, value in settings.items()}
        changed = {name: value for name, value in values.items() if own.get(name) != value}
        value = changed.get(kind.channel_setting)
        if len(changed) == 1 and isinstance(value, int):
            return value
    return None


def _with_outputs(layer: LayerDef, number: int) -> LayerDef:
    return with_settings(layer, {LAYERS[layer.type].channel_setting: number})


def _descendants(trial: TrialNet, indices: Mapping[int, int]) -> list[int]:
    """The layers that values of some layers lead to, in the net's order."""
    reached: set[int] = set()
    pending = list(indices)
    while pending:
        for value in trial.net.layers[pending.pop()].top_values:
            more = [i for i in trial.readers.get(value, ()) if i not in reached]
            reached.update(more)
            pending += more
    return sorted(reached)


def _class_settings(layer: LayerDef) -> dict[str, Setting]:
    kind = LAYERS.get(layer.type)
    settings = settings_of(layer) if kind is not None and kind.class_settings else {}
    return {name: settings[name] for name in (kind.class_settings if kind is not None else ()) if name in settings}


def _scaled(trial: TrialNet, index: int, counts: ClassCount) -> dict[str, Setting]:
    """The fields of a layer behind the scores that have to change with the number of classes."""
    layer = trial.net.layers[index]
    settings, kind = settings_of(layer), LAYERS.get(layer.type)
    scaled: dict[str, Setting] = {
        name: counts.file for name, value in _class_settings(layer).items() if value == counts.net
    }
    dims = settings.get(DIM)
    if isinstance(dims, tuple) and counts.net in dims:
        scaled[DIM] = tuple(counts.file if dim == counts.net else dim for dim in dims)
    if kind is not None and layer.name not in trial.context.stored and _outputs(layer) == counts.net:
        scaled |= {name: counts.file for name in (kind.channel_setting, "group") if settings.get(name) == counts.net}
    return scaled


def _is_declared(trial: TrialNet, counts: ClassCount) -> bool:
    """Whether a layer behind the scores tells that the number is one of classes: it says so, or makes probabilities."""
    return any(
        counts.net in _class_settings(trial.net.layers[i]).values() or _makes_probabilities(trial, i, counts.net)
        for i in _descendants(trial, counts.outputs)
    )


def _makes_probabilities(trial: TrialNet, index: int, classes: int) -> bool:
    layer, bottoms = trial.layers[index], trial.bottoms(index)
    if layer is None or not bottoms or "probabilities" not in layer.top_kinds:
        return False
    return classes in bottoms[0][1:2]


def _is_for_priors(trial: TrialNet, counts: ClassCount) -> bool:
    """Whether the scores are those of prior boxes, several at each place."""
    return any(_class_settings(trial.net.layers[i]).get("num_classes") for i in _descendants(trial, counts.outputs))
