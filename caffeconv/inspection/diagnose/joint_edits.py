"""Edits of several layers that only together help: what an Eltwise adds, what a Concat joins, labels and their scores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from caffeconv.errors import LayerError
from caffeconv.inspection.diagnose.edit import resized, with_settings, with_shapes
from caffeconv.inspection.diagnose.trial_net import Misfit, TrialNet
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


def for_bottoms(world: TrialNet, trouble: Misfit) -> Iterator[Definitions]:
    """Edits that give a layer bottoms of the shapes that, by its own word, would go together."""
    layer, bottoms = world.layers[trouble.index], world.bottoms(trouble.index)
    if layer is None or not bottoms or trouble.stored:
        return
    try:
        known = layer.fitting_bottoms(bottoms)
    except LayerError:
        return
    values = world.net.layers[trouble.index].bottom_values
    for wanted in known:
        yield from _merged([shaped(world, values[i], shape) for i, shape in wanted.items()])


def _merged(options: Sequence[Sequence[Definitions]]) -> Iterator[Definitions]:
    if options:
        yield from ({i: d for part in parts for i, d in part.items()} for parts in itertools.product(*options))


# -- one blob of another shape -----------------------------------------------------------------------------------------


Known = dict[tuple[str, Shape], list[Definitions]]
"""What was found for a value and a shape; without it a net of many joins would be walked through again and again."""


def shaped(world: TrialNet, value: str, wanted: Shape) -> list[Definitions]:
    """Edits after which a value has the shape `wanted`, as far as the layers that it comes through let that through."""
    return _shaped(world, value, wanted, {}, 0)


def _shaped(world: TrialNet, value: str, wanted: Shape, known: Known, depth: int) -> list[Definitions]:
    if (value, wanted) not in known:
        known[value, wanted] = []  # for itself, while it is being looked for
        known[value, wanted] = list(_ways(world, value, wanted, known, depth))
    return known[value, wanted]


def _ways(world: TrialNet, value: str, wanted: Shape, known: Known, depth: int) -> Iterator[Definitions]:
    index, now = world.makers.get(value), world.shapes.get(value)
    if index is None or now is None or depth > MOST_DEPTH or world.given.purse.empty:
        return
    if now == wanted:
        yield {}
        return
    definition, bottoms = world.net.layers[index], world.bottoms(index)
    kind, top = LAYERS.get(definition.type), definition.top_values.index(value)
    if kind is None or bottoms is None:
        return
    if kind.is_input:
        changed = (
            None if set(definition.tops) & world.given.asked.keys() else _shaped_input(definition, top, now, wanted)
        )
        if changed is not None:
            yield {index: changed}
        return
    if len(now) != len(wanted):
        return
    for settings in kind.settings_for(definition, bottoms, top, wanted):
        changed = with_settings(definition, settings)
        _, tops, trouble = world.evaluate(index, changed, None, {})
        if trouble is None and tops.get(value) == wanted:
            yield {index: changed}
    for shapes in _let_through(world, index, value, wanted):
        parts = [_shaped(world, v, shape, known, depth + 1)[:1] for v, shape in shapes.items()]
        if all(parts):
            yield from _merged(parts)


def _shaped_input(definition: LayerDef, top: int, now: Shape, wanted: Shape) -> LayerDef | None:
    shapes = [tuple(shape.dim) for shape in definition.proto.input_param.shape]
    if shapes:
        each = shapes if len(shapes) == len(definition.tops) else shapes * len(definition.tops)
        return with_shapes(definition, [wanted if i == top else shape for i, shape in enumerate(each)])
    return resized(definition, wanted[2], wanted[3]) if len(wanted) == len(now) == 4 and wanted[:2] == now[:2] else None


def _let_through(world: TrialNet, index: int, value: str, wanted: Shape) -> Iterator[Mapping[str, Shape]]:
    """Shapes of a layer's bottoms with which its top is of the shape `wanted`: one of them changed, or all alike."""
    definition, now = world.net.layers[index], world.shapes[value]
    bottoms = {v: world.shapes[v] for v in definition.bottom_values}
    choices: Iterable[Mapping[str, Shape]] = (
        *({v: _moved(shape, now, wanted)} for v, shape in bottoms.items()),
        *([{v: _moved(shape, now, wanted) for v, shape in bottoms.items()}] if len(bottoms) > 1 else []),
    )
    for changed in choices:
        if any(min(shape, default=1) < 1 or shape == bottoms[v] for v, shape in changed.items()):
            continue
        _, tops, trouble = world.evaluate(index, definition, world.layers[index], changed)
        if trouble is None and tops.get(value) == wanted:
            yield changed


def _moved(bottom: Shape, now: Shape, wanted: Shape) -> Shape:
    """The bottom as much larger or smaller on each axis as the top is to become."""
    if len(bottom) != len(now):
        return bottom
    return tuple(size + after - before for size, before, after in zip(bottom, now, wanted, strict=True))


# -- branches of other sizes -------------------------------------------------------------------------------------------


def for_sizes(world: TrialNet, trouble: Misfit, variants: Callable[[int], Iterable[Settings]]) -> Iterator[Definitions]:
    """Edits of two or more branches that lead to a layer in trouble, or join before it, to one size for all.

    `variants`: the settings that may be tried for a layer.
    """
    before = world.ancestors(world.net.layers[trouble.index].bottom_values)
    joins = [
        i for i in (trouble.index, *sorted(before, reverse=True)) if len(set(world.net.layers[i].bottom_values)) > 1
    ]
    for join in joins[:MOST_JOINS]:
        branches = [
            _branch(world, join, value, variants) for value in dict.fromkeys(world.net.layers[join].bottom_values)
        ]
        for size in branches[0]:
            if all(size in branch for branch in branches):
                yield from _alike([branch[size] for branch in branches])


def _branch(world: TrialNet, join: int, value: str, variants: Callable[[int], Iterable[Settings]]) -> Branch:
    """What the branch that ends in `value` may come to where only layers are edited that no other branch has."""
    values = world.net.layers[join].bottom_values
    others = world.ancestors(v for v in values if v != value)
    found: dict[Shape, dict[str, Definitions]] = {}
    if value in world.shapes:
        found[world.shapes[value][2:]] = {"": {}}
    for i in sorted(world.ancestors([value]) - others, reverse=True)[:MOST_LAYERS]:
        for settings in variants(i):
            definition = with_settings(world.net.layers[i], settings)
            bottoms = world.reach(i, definition, join).bottoms
            if bottoms is not None:
                sizes = bottoms[values.index(value)][2:]
                found.setdefault(sizes, {}).setdefault(str(settings), {i: definition})
    return found


def _alike(options: Sequence[Mapping[str, Definitions]]) -> Iterator[Definitions]:
    """The same edit in every branch that has to change; and the first one of each."""
    changing = [option for option in options if "" not in option]
    if len(changing) < 2:
        return
    for name in changing[0]:
        if all(name in option for option in changing):
            yield from _merged([[option[name]] for option in changing])
    yield from _merged([[next(iter(option.values()))] for option in changing])
