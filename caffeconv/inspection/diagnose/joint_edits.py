"""Edits of several layers that only together help: what an Eltwise adds, what a Concat joins, labels and their scores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from caffeconv.inspection.diagnose.edit import input_shapes, resized, with_picture_channels, with_settings, with_shapes
from caffeconv.inspection.diagnose.trial_net import Misfit, TrialNet, fitting_bottoms
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Settings
from caffeconv.layers import LAYERS
from caffeconv.tensor.shape import Shape

MOST_DEPTH = 64
MOST_JOINS = 2
MOST_LAYERS = 4
"""Of each branch, those next to the join."""
Definitions = Mapping[int, LayerDef]
"""Index → the layer's new definition."""
Branch = Mapping[Shape, Mapping[str, Definitions]]
"""Sizes that a branch may have → edits that give it these, by what they say."""


def for_bottoms(trial: TrialNet, misfit: Misfit) -> Iterator[Definitions]:
    """Edits that give a layer bottoms of the shapes that, by its own rule, would go together."""
    layer, bottoms = trial.layers[misfit.index], trial.bottoms(misfit.index)
    if layer is None or not bottoms or misfit.stored:
        return
    values = trial.net.layers[misfit.index].bottom_values
    for target in fitting_bottoms(layer, bottoms):
        yield from _merged([edits_for_shape(trial, values[i], shape) for i, shape in target.items()])


def _merged(options: Sequence[Sequence[Definitions]]) -> Iterator[Definitions]:
    if options:
        yield from ({i: d for part in parts for i, d in part.items()} for parts in itertools.product(*options))


# -- one blob of another shape -----------------------------------------------------------------------------------------


Memo = dict[tuple[str, Shape], list[Definitions]]
"""Edits for a value and a shape; without it a net of many joins would be walked through again and again."""


def edits_for_shape(trial: TrialNet, value: str, target: Shape) -> list[Definitions]:
    """Edits after which a value has the shape `target`, as far as the layers that it comes through let that through."""
    return _memoized_edits(trial, value, target, {}, 0)


def _memoized_edits(trial: TrialNet, value: str, target: Shape, memo: Memo, depth: int) -> list[Definitions]:
    if (value, target) not in memo:
        memo[value, target] = []  # for itself, while it is being looked for
        memo[value, target] = list(_edits_for_shape(trial, value, target, memo, depth))
    return memo[value, target]


def _edits_for_shape(trial: TrialNet, value: str, target: Shape, memo: Memo, depth: int) -> Iterator[Definitions]:
    index, current = trial.makers.get(value), trial.shapes.get(value)
    if index is None or current is None or depth > MOST_DEPTH or trial.context.budget.empty:
        return
    if current == target:
        yield {}
        return
    definition, bottoms = trial.net.layers[index], trial.bottoms(index)
    kind, top = LAYERS.get(definition.type), definition.top_values.index(value)
    if kind is None or bottoms is None:
        return
    if kind.is_input or kind.shapes_message:
        new_definition = (
            None
            if set(definition.tops) & trial.context.input_shapes.keys()
            else _input_with_shape(definition, top, current, target)
        )
        if new_definition is not None:
            yield {index: new_definition}
        return
    if len(current) != len(target):
        return
    for settings in kind.settings_for(definition, bottoms, top, target):
        new_definition = with_settings(definition, settings)
        _, tops, misfit = trial.evaluate(index, new_definition, None, {})
        if misfit is None and tops.get(value) == target:
            yield {index: new_definition}
    for shapes in _bottoms_for(trial, index, value, target):
        parts = [_memoized_edits(trial, v, shape, memo, depth + 1)[:1] for v, shape in shapes.items()]
        if all(parts):
            yield from _merged(parts)


def _input_with_shape(definition: LayerDef, top: int, current: Shape, target: Shape) -> LayerDef | None:
    shapes = input_shapes(definition)
    if shapes:
        each = shapes if len(shapes) == len(definition.tops) else shapes * len(definition.tops)
        return with_shapes(definition, [target if i == top else shape for i, shape in enumerate(each)])
    if len(target) != 4 or len(current) != 4 or target[0] != current[0]:
        return None
    if target[2:] == current[2:]:
        return with_picture_channels(definition, target[1], current[1])
    return resized(definition, target[2], target[3]) if target[1] == current[1] else None


def _bottoms_for(trial: TrialNet, index: int, value: str, target: Shape) -> Iterator[Mapping[str, Shape]]:
    """Shapes of a layer's bottoms with which its top is of the shape `target`: one of them changed, or all alike."""
    definition, current = trial.net.layers[index], trial.shapes[value]
    bottoms = {v: trial.shapes[v] for v in definition.bottom_values}
    choices: Iterable[Mapping[str, Shape]] = (
        *({v: _resized_bottom(shape, current, target)} for v, shape in bottoms.items()),
        *([{v: _resized_bottom(shape, current, target) for v, shape in bottoms.items()}] if len(bottoms) > 1 else []),
    )
    for new_shapes in choices:
        if any(min(shape, default=1) < 1 or shape == bottoms[v] for v, shape in new_shapes.items()):
            continue
        _, tops, misfit = trial.evaluate(index, definition, trial.layers[index], new_shapes)
        if misfit is None and tops.get(value) == target:
            yield new_shapes


def _resized_bottom(bottom: Shape, current: Shape, target: Shape) -> Shape:
    """The bottom as much larger or smaller on each axis as the top is to become."""
    if len(bottom) != len(current):
        return bottom
    return tuple(size + after - before for size, before, after in zip(bottom, current, target, strict=True))


# -- branches of other sizes -------------------------------------------------------------------------------------------


def for_sizes(trial: TrialNet, misfit: Misfit, variants: Callable[[int], Iterable[Settings]]) -> Iterator[Definitions]:
    """Edits of two or more branches that lead to a layer that does not fit, or join before it, to one size for all.

    `variants`: the settings that may be tried for a layer.
    """
    ancestors = trial.ancestors(trial.net.layers[misfit.index].bottom_values)
    joins = [
        i for i in (misfit.index, *sorted(ancestors, reverse=True)) if len(set(trial.net.layers[i].bottom_values)) > 1
    ]
    for join in joins[:MOST_JOINS]:
        branches = [
            _branch(trial, join, value, variants) for value in dict.fromkeys(trial.net.layers[join].bottom_values)
        ]
        for size in branches[0]:
            if all(size in branch for branch in branches):
                yield from _same_edit([branch[size] for branch in branches])


def _branch(trial: TrialNet, join: int, value: str, variants: Callable[[int], Iterable[Settings]]) -> Branch:
    """What the branch that ends in `value` may come to where only layers are edited that no other branch has."""
    values = trial.net.layers[join].bottom_values
    other_ancestors = trial.ancestors(v for v in values if v != value)
    branch: dict[Shape, dict[str, Definitions]] = {}
    if value in trial.shapes:
        branch[trial.shapes[value][2:]] = {"": {}}
    for i in sorted(trial.ancestors([value]) - other_ancestors, reverse=True)[:MOST_LAYERS]:
        for settings in variants(i):
            definition = with_settings(trial.net.layers[i], settings)
            bottoms = trial.reach(i, definition, join).bottoms
            if bottoms is not None:
                sizes = bottoms[values.index(value)][2:]
                branch.setdefault(sizes, {}).setdefault(str(settings), {i: definition})
    return branch


def _same_edit(options: Sequence[Mapping[str, Definitions]]) -> Iterator[Definitions]:
    """The same edit in every branch that has to change; and the first one of each."""
    changing = [option for option in options if "" not in option]
    if len(changing) < 2:
        return
    for name in changing[0]:
        if all(name in option for option in changing):
            yield from _merged([[option[name]] for option in changing])
    yield from _merged([[next(iter(option.values()))] for option in changing])
