"""Looks for the smallest edits after which a net is whole and takes all its weights."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.inspection.diagnose.candidates import Candidate, candidates
from caffeconv.inspection.diagnose.edit import Edit, edit_between, settings_of, with_settings, with_shapes
from caffeconv.inspection.diagnose.ranking import WindowStatistics, cost
from caffeconv.inspection.diagnose.trial_net import TrialNet
from caffeconv.ir.definition import LayerDef, NetDef
from caffeconv.layers import LAYERS
from caffeconv.tensor.shape import Shape

MOST_CURES = 3
FAR = 2.0
"""How much dearer than the best cure another one may be."""
MOST_STATES = 60
MOST_CHILDREN = 12
TROUBLE_WEIGHT = 0.4
"""What a layer still in trouble counts when choosing which edits to go on from."""


@dataclass(frozen=True)
class Cure:
    """Edits that were checked to make everything fit; `cost` orders them."""

    edits: tuple[Edit, ...]
    net: NetDef
    cost: float
    source: str = ""
    """Where the values come from, where that is known: the net inside the weights file."""
    places: Mapping[int, int] = field(default_factory=dict)
    """Index of a layer in the net as it was → how many layers stand in its place, for those that were replaced."""

    def __str__(self) -> str:
        texts = [str(edit) for edit in self.edits]
        return ("\n     " if any("\n" in text for text in texts) else "; ").join(texts)


@dataclass(frozen=True, order=True)
class _State:
    priority: float
    order: int
    world: TrialNet = field(compare=False)
    definitions: Mapping[int, LayerDef] = field(compare=False)
    proven: frozenset[tuple[int, str]] = field(compare=False)


def find_cures(world: TrialNet) -> list[Cure]:
    """The least costly edits that leave no trouble, at most three; the work is bounded by the world's purse."""
    return _distinct(sorted(_search(world), key=lambda cure: (cure.cost, str(cure))))


def _search(world: TrialNet) -> Iterator[Cure]:
    queue, habits = [_State(0.0, 0, world, {}, frozenset())], WindowStatistics.of(world.net)
    seen: set[str] = set()
    number = states = order = 0
    best = float("inf")
    while queue and states < MOST_STATES and not world.given.purse.empty:
        state = heapq.heappop(queue)
        trouble = state.world.first
        if trouble is None or (number >= MOST_CURES and state.priority > best + 1.5):
            continue
        states += 1
        children = []
        for candidate in candidates(state.world, trouble):
            child = _child(habits, state, candidate, order := order + 1)
            key = _key(world.net, child.definitions)
            if key in seen:
                continue
            seen.add(key)
            children.append(child)
        for child in sorted(children)[:MOST_CHILDREN]:
            child = replace(child, world=world.edited(child.definitions))
            price = _cost(habits, child.definitions, child.proven)
            if child.world.first is None:
                if not edits_of(world.net, child.definitions):
                    continue
                cure = minimal(world, habits, child.definitions, child.proven)
                if not cure.edits:
                    continue
                number, best = number + 1, min(best, cure.cost)
                yield cure
            else:
                ahead = TROUBLE_WEIGHT * min(len(child.world.troubles), 20)
                heapq.heappush(queue, replace(child, priority=price + ahead))


def _child(habits: WindowStatistics, state: _State, candidate: Candidate, order: int) -> _State:
    definitions = {**state.definitions, **candidate.definitions}
    proven = state.proven | candidate.proven
    return _State(_cost(habits, definitions, proven), order, state.world, definitions, proven)


def _key(net: NetDef, definitions: Mapping[int, LayerDef]) -> str:
    return "; ".join(str(edit) for edit in edits_of(net, definitions))


def edits_of(net: NetDef, definitions: Mapping[int, LayerDef]) -> tuple[Edit, ...]:
    """What differs, layer by layer, in the net's order."""
    edits = (edit_between(i, net.layers[i], definitions[i]) for i in sorted(definitions))
    return tuple(edit for edit in edits if edit.after)


def _cost(habits: WindowStatistics, definitions: Mapping[int, LayerDef], proven: frozenset[tuple[int, str]]) -> float:
    total = 0.0
    for edit in edits_of(habits.net, definitions):
        fields = frozenset(name for i, name in proven if i == edit.index)
        total += cost(habits, edit, definitions[edit.index], fields)
    return total


def minimal(
    world: TrialNet, habits: WindowStatistics, definitions: Mapping[int, LayerDef], proven: frozenset[tuple[int, str]]
) -> Cure:
    """The cure with every field put back that it can do without."""
    needed = dict(definitions)
    for index in sorted(definitions):
        rest = {i: definition for i, definition in needed.items() if i != index}
        if rest and world.edited(rest).first is None:
            needed = rest
            continue
        old = settings_of(world.net.layers[index])
        for name in edit_between(index, world.net.layers[index], needed[index]).after:
            if name not in old:
                continue
            trial = {**needed, index: with_settings(needed[index], {name: old[name]})}
            if world.edited(trial).first is None:
                needed = trial
    return Cure(edits_of(world.net, needed), world.edited(needed).net, _cost(habits, needed, proven))


def _distinct(cures: list[Cure]) -> list[Cure]:
    """The first cures that say different things, and none that another one contains."""
    distinct: list[Cure] = []
    for cure in cures:
        if distinct and cure.cost > distinct[0].cost + FAR:
            break
        parts = {str(edit) for edit in cure.edits}
        if not any({str(edit) for edit in other.edits} <= parts for other in distinct):
            distinct.append(cure)
    return distinct[:MOST_CURES]


# -- the net that the weights file carries -----------------------------------------------------------------------------


def cure_from(world: TrialNet, reference: TrialNet, source: str) -> Cure | None:
    """The fewest fields of the layers that differ from those of the same name in `reference` to be set as there."""
    theirs = {layer.name: layer for layer in reversed(reference.net.layers)}
    definitions: dict[int, LayerDef] = {}
    for i, layer in enumerate(world.net.layers):
        other = theirs.get(layer.name)
        if other is None:
            continue
        changed = like(layer, other)
        if changed is not layer:
            definitions[i] = changed
    definitions.update(_inputs_like(world, reference))
    if not definitions or world.edited(definitions).first is not None:
        return None
    cure = minimal(world, WindowStatistics.of(world.net), definitions, frozenset())
    return replace(cure, source=source)


def _inputs_like(world: TrialNet, reference: TrialNet) -> dict[int, LayerDef]:
    """The Input layers with blobs of another size than in the reference's net, as large as there."""
    definitions: dict[int, LayerDef] = {}
    theirs = _input_shapes(reference)
    for i, layer in enumerate(world.net.layers):
        shapes = [tuple(shape.dim) for shape in layer.proto.input_param.shape]
        if len(shapes) != len(layer.tops) or set(layer.tops) & world.given.asked.keys():
            continue
        wanted = [(*s[:1], *theirs.get(top, s)[1:]) for s, top in zip(shapes, layer.tops, strict=True)]
        if wanted != shapes:
            definitions[i] = with_shapes(layer, wanted)
    return definitions


def _input_shapes(world: TrialNet) -> dict[str, Shape]:
    """Input blob → shape."""
    return {
        blob: world.shapes[value]
        for layer in world.net.layers
        if layer.type in LAYERS and LAYERS[layer.type].is_input
        for blob, value in zip(layer.tops, layer.top_values, strict=True)
        if value in world.shapes
    }


def like(layer: LayerDef, other: LayerDef) -> LayerDef:
    """The layer with the fields that decide shapes as in `other`; itself where none differ."""
    if layer.type != other.type:
        return _of_type(layer, other)
    mine, theirs = settings_of(layer), settings_of(other)
    differing = {name: value for name, value in theirs.items() if mine.get(name) != value}
    return with_settings(layer, differing) if differing else layer


def _of_type(layer: LayerDef, other: LayerDef) -> LayerDef:
    """What `other` does in the layer's place; the layer itself where that is an input or reads and makes other blobs."""
    numbers = [(len(side.bottoms), len(side.tops)) for side in (layer, other)]
    if not layer.bottoms or numbers[0] != numbers[1] or not {layer.type, other.type} <= LAYERS.keys():
        return layer
    proto = LayerParameter()
    proto.CopyFrom(other.proto)
    del proto.blobs[:]
    proto.name, proto.bottom[:], proto.top[:] = layer.proto.name, layer.bottoms, layer.tops
    return layer.with_proto(proto)
