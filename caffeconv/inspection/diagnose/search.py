"""Looks for the smallest edits after which a net is whole and takes all its weights."""

from __future__ import annotations

import heapq
import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.inspection.diagnose.candidates import Candidate, candidates
from caffeconv.inspection.diagnose.edit import Edit, edit_between, input_shapes, settings_of, with_settings, with_shapes
from caffeconv.inspection.diagnose.ranking import WindowStatistics, cost, is_odd
from caffeconv.inspection.diagnose.trial_net import TrialNet
from caffeconv.ir.definition import LayerDef, NetDef
from caffeconv.layers import LAYERS
from caffeconv.tensor.shape import Shape

MOST_CURES = 3
FAR = 2.0
"""How much dearer than the best cure another one may be."""
REPEATED = 0.1
"""What the same change in one more layer costs, against the first one, where the file proves it."""
AGREEING = 1.0
"""What it costs to change the sizes that a further layer says: where several agree, the pictures are likelier wrong."""
_SAID_SIZES = frozenset(("upsample_h", "upsample_w"))
PATIENCE = 15_000
"""Layers to evaluate in search of a better cure than the best one, besides as many again as that one took."""
MOST_STATES = 60
MOST_CHILDREN = 12
MOST_CHEAPER = 4
MISFIT_WEIGHT = 0.4
"""What a layer that still does not fit counts when choosing which edits to go on from."""


@dataclass(frozen=True, repr=False)
class Cure:
    """Edits that were checked to make everything fit; `cost` orders them."""

    edits: tuple[Edit, ...]
    net: NetDef
    cost: float
    source: str = ""
    """Where the values come from, where that is known: the net inside the weights file."""
    layer_counts: Mapping[int, int] = field(default_factory=dict)
    """Index of a layer in the net as it was → how many layers stand in its place, for those that were replaced."""
    unfilled: tuple[str, ...] = ()
    """Layers whose parameters no file has then either."""
    unused: tuple[str, ...] = ()
    """Layers of the file that the net does not have then either."""

    def __str__(self) -> str:
        return self.text(len(self.edits))

    def __repr__(self) -> str:
        return f"<Cure: {self.text(3)}>"

    def _repr_html_(self) -> str:
        """As notebooks show it."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def text(self, most: int) -> str:
        """The edits; of more than `most` the first ones, and how many follow."""
        texts = [str(edit) for edit in self.edits[:most]]
        texts += [f"and {len(self.edits) - most} more edits"] if len(self.edits) > most else []
        return ("\n     " if any("\n" in text for text in texts) else "; ").join(texts)


@dataclass(frozen=True, order=True)
class _State:
    priority: float
    order: int
    trial: TrialNet = field(compare=False)
    definitions: Mapping[int, LayerDef] = field(compare=False)
    proven: frozenset[tuple[int, str]] = field(compare=False)


def find_cures(trial: TrialNet) -> list[Cure]:
    """The least costly edits that leave no misfit, at most three; the work is bounded by the trial's budget."""
    return _distinct(sorted(_search(trial), key=lambda cure: (cure.cost, str(cure))))


def _search(trial: TrialNet) -> Iterator[Cure]:
    queue, statistics = [_State(0.0, 0, trial, {}, frozenset())], WindowStatistics.of(trial.net)
    keys: set[str] = set()
    cure_count = states = order = 0
    best, budget = float("inf"), trial.context.budget
    start, enough = budget.remaining, 0
    while queue and states < MOST_STATES and budget.remaining > enough:
        state = heapq.heappop(queue)
        misfit = state.trial.first
        if misfit is None or state.priority > best + FAR or (cure_count >= MOST_CURES and state.priority > best + 1.5):
            continue
        states += 1
        children = []
        for candidate in candidates(state.trial, misfit):
            child = _child(statistics, state, candidate, order := order + 1)
            key = _key(trial.net, child.definitions)
            if key in keys:
                continue
            keys.add(key)
            children.append((not candidate.is_whole, child))
        for child in _likeliest(children):
            child = replace(child, trial=trial.edited(child.definitions))
            price = _cost(statistics, child.definitions, child.proven)
            if child.trial.first is None:
                if not edits_of(trial.net, child.definitions):
                    continue
                cure = minimal(trial, statistics, child.definitions, child.proven)
                if not cure.edits:
                    continue
                cure_count += 1
                if cure.cost < best:
                    best, enough = cure.cost, max(0, budget.remaining - (start - budget.remaining) - PATIENCE)
                yield cure
            else:
                ahead = MISFIT_WEIGHT * min(len(child.trial.misfits), 20)
                heapq.heappush(queue, replace(child, priority=price + ahead))


def _likeliest(children: Sequence[tuple[bool, _State]]) -> Sequence[_State]:
    """Of (may leave misfits, state): those to go on with, cheap ones that may leave misfits before those that do not."""
    whole, others = (sorted(state for is_open, state in children if is_open == kind) for kind in (False, True))
    if not whole:
        return others[:MOST_CHILDREN]
    cheaper = [state for state in others if state.priority < whole[0].priority]
    return [*cheaper[:MOST_CHEAPER], *whole, *others[len(cheaper[:MOST_CHEAPER]) :]][:MOST_CHILDREN]


def _child(statistics: WindowStatistics, state: _State, candidate: Candidate, order: int) -> _State:
    definitions = {**state.definitions, **candidate.definitions}
    proven = state.proven | candidate.proven
    return _State(_cost(statistics, definitions, proven), order, state.trial, definitions, proven)


def _key(net: NetDef, definitions: Mapping[int, LayerDef]) -> str:
    return "; ".join(str(edit) for edit in edits_of(net, definitions))


def edits_of(net: NetDef, definitions: Mapping[int, LayerDef]) -> tuple[Edit, ...]:
    """What differs, layer by layer, in the net's order."""
    edits = (edit_between(i, net.layers[i], definitions[i]) for i in sorted(definitions))
    return tuple(edit for edit in edits if edit.after)


def _cost(
    statistics: WindowStatistics, definitions: Mapping[int, LayerDef], proven: frozenset[tuple[int, str]]
) -> float:
    total, said_sizes = 0.0, 0
    changes: set[str] = set()
    for edit in edits_of(statistics.net, definitions):
        fields = frozenset(name for i, name in proven if i == edit.index)
        change = str(edit).removeprefix(edit.layer)
        total += cost(statistics, edit, definitions[edit.index], fields) * (
            REPEATED if change in changes and fields else 1.0
        )
        changes.add(change)
        said_sizes += not fields and not _SAID_SIZES.isdisjoint(edit.after)
    return total + AGREEING * max(0, said_sizes - 1)


def minimal(
    trial: TrialNet,
    statistics: WindowStatistics,
    definitions: Mapping[int, LayerDef],
    proven: frozenset[tuple[int, str]],
) -> Cure:
    """The cure with every field put back that it can do without, and that nothing proves: rows of as many scores as there
    are classes fit with any divisor of them, too."""
    smallest = dict(definitions)
    for index in sorted(definitions):
        reduced = {i: definition for i, definition in smallest.items() if i != index}
        is_proven = any(i == index for i, _ in proven)
        if reduced and not is_proven and trial.edited(reduced).first is None:
            smallest = reduced
            continue
        old = settings_of(trial.net.layers[index])
        for name in edit_between(index, trial.net.layers[index], smallest[index]).after:
            if name not in old or (index, name) in proven:
                continue
            attempt = {**smallest, index: with_settings(smallest[index], {name: old[name]})}
            # the same values in another form, `pad_h` alone and `pad_h` with `pad_w`, are no edit that can be shown
            if edits_of(trial.net, attempt) and trial.edited(attempt).first is None:
                smallest = attempt
    return Cure(edits_of(trial.net, smallest), trial.edited(smallest).net, _cost(statistics, smallest, proven))


def _distinct(cures: list[Cure]) -> list[Cure]:
    """The first cures that say different things, and none that another one contains."""
    distinct: list[Cure] = []
    for cure in cures:
        if distinct and cure.cost > distinct[0].cost + FAR:
            break
        parts = {str(edit) for edit in cure.edits}
        if distinct and any(is_odd(edit) for edit in cure.edits):
            continue
        if not any({str(edit) for edit in other.edits} <= parts for other in distinct):
            distinct.append(cure)
    return distinct[:MOST_CURES]


# -- the net that the weights file carries -----------------------------------------------------------------------------


def cure_from(trial: TrialNet, reference: TrialNet, source: str) -> Cure | None:
    """The fewest fields of the layers that differ from those of the same name in `reference` to be set as there."""
    reference_layers = {layer.name: layer for layer in reversed(reference.net.layers)}
    definitions: dict[int, LayerDef] = {}
    for i, layer in enumerate(trial.net.layers):
        other = reference_layers.get(layer.name)
        if other is None:
            continue
        new_layer = like(layer, other)
        if new_layer is not layer:
            definitions[i] = new_layer
    definitions.update(_inputs_like(trial, reference))
    if not definitions or trial.edited(definitions).first is not None:
        return None
    cure = minimal(trial, WindowStatistics.of(trial.net), definitions, frozenset())
    return replace(cure, source=source)


def _inputs_like(trial: TrialNet, reference: TrialNet) -> dict[int, LayerDef]:
    """The Input layers with blobs of another size than in the reference's net, as large as there."""
    definitions: dict[int, LayerDef] = {}
    reference_shapes = _input_shapes(reference)
    for i, layer in enumerate(trial.net.layers):
        shapes = input_shapes(layer)
        if not shapes or len(shapes) != len(layer.tops) or set(layer.tops) & trial.context.input_shapes.keys():
            continue
        target_shapes = [(*s[:1], *reference_shapes.get(top, s)[1:]) for s, top in zip(shapes, layer.tops, strict=True)]
        if target_shapes != shapes:
            definitions[i] = with_shapes(layer, target_shapes)
    return definitions


def _input_shapes(trial: TrialNet) -> dict[str, Shape]:
    """Input blob → shape."""
    return {
        blob: trial.shapes[value]
        for layer in trial.net.layers
        if layer.type in LAYERS and LAYERS[layer.type].is_input
        for blob, value in zip(layer.tops, layer.top_values, strict=True)
        if value in trial.shapes
    }


def like(layer: LayerDef, other: LayerDef) -> LayerDef:
    """The layer with the fields that decide shapes as in `other`; itself where none differ."""
    if layer.type != other.type:
        return _of_type(layer, other)
    settings, other_settings = settings_of(layer), settings_of(other)
    differing = {name: value for name, value in other_settings.items() if settings.get(name) != value}
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
