"""A net with all shapes and problems, and what becomes of them when a layer is edited: what depends on it is redone."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from caffeconv.caffe_format.caffemodel import StoredLayer, WeightsFile
from caffeconv.errors import LayerError, OutsideError
from caffeconv.frontend.bind import shape_fits
from caffeconv.frontend.build import infer_tops, parse_layer, refuse_empty
from caffeconv.ir.definition import LayerDef, NetDef
from caffeconv.ir.layer import Layer
from caffeconv.tensor.shape import Shape, Shapes

MOST_STEPS = 16
"""Layers that are followed back from a blob to what it is made of."""


@dataclass(frozen=True)
class Misfit:
    """What keeps a layer from being built or from taking its weights."""

    index: int
    text: str
    stored: tuple[Shape, ...] = ()
    """What the file holds for the layer, where that does not fit; empty where the layer cannot be built."""
    is_curable: bool = True
    """Whether an edit of the net may help."""


@dataclass(frozen=True)
class Evaluation:
    """What a layer makes of some bottoms; it keeps the layer, so that no other one has its identity."""

    layer: Layer
    tops: Mapping[str, Shape | None]
    misfit: Misfit | None


@dataclass(frozen=True)
class SearchContext:
    """What no edit changes: the caller's input shapes, the file's blobs, and the budget of layers to evaluate."""

    input_shapes: Mapping[str, Shape]
    stored: Mapping[str, StoredLayer]
    budget: Budget
    evaluations: dict[tuple[int, tuple[Shape, ...]], Evaluation] = field(default_factory=dict)
    """(Identity of a layer's parsed form, bottoms) → what came out: most layers see the same shapes after most edits."""


@dataclass
class Budget:
    """How many layers may still be evaluated: a bound on the work that does not depend on the machine."""

    remaining: int

    @property
    def empty(self) -> bool:
        return self.remaining <= 0


def stored_layers(files: Sequence[WeightsFile]) -> dict[str, StoredLayer]:
    """Layer name → what the files hold for it; the last file counts, and the last layer of a name in it."""
    return {layer.name: layer for file in files for layer in file.layers}


def stored_shapes(layer: StoredLayer | None) -> tuple[Shape, ...]:
    """The blobs' shapes; those of old files without the ones that pad them to four numbers, but for one axis."""
    if layer is None:
        return ()
    return tuple(stored_shape(blob.shape, legacy=blob.legacy) for blob in layer.blobs if blob is not None)


def stored_shape(shape: Shape, *, legacy: bool) -> Shape:
    """A blob's shape; for one of an old file without the leading ones that fill it up to four numbers."""
    if not legacy or len(shape) != 4:
        return shape
    if shape[:3] == (1, 1, 1):
        return shape[3:]
    return shape[2:] if shape[:2] == (1, 1) else shape


@dataclass(frozen=True)
class TrialResult:
    """The outcome of an edit: the first layer that does not fit (the net's length: none so far), and the shapes it sees."""

    misfit_index: int
    bottoms: tuple[Shape, ...] | None


Key = tuple[int, int, tuple[tuple[str, Shape | None], ...]]


@dataclass
class TrialNet:
    """Every layer's definition, parsed form, and misfit; every value's shape. An edit gives a new TrialNet."""

    context: SearchContext
    net: NetDef
    layers: list[Layer | None]
    misfits: dict[int, Misfit]
    shapes: dict[str, Shape]
    readers: Mapping[str, tuple[int, ...]]
    last_reader: Mapping[str, int]
    makers: Mapping[str, int]
    """Value → index of the layer that makes it."""
    ancestry: dict[tuple[str, ...], frozenset[int]]
    """Values → the layers that they come from, of those that were asked for; no edit changes it."""
    memo: dict[Key, TrialResult] = field(default_factory=dict)

    @classmethod
    def of(cls, net: NetDef, context: SearchContext) -> TrialNet:
        """The trial of a net as it is."""
        readers: dict[str, list[int]] = {}
        for i, definition in enumerate(net.layers):
            for value in dict.fromkeys(definition.bottom_values):
                readers.setdefault(value, []).append(i)
        last = {value: indices[-1] for value, indices in readers.items()}
        reader_indices = {v: tuple(r) for v, r in readers.items()}
        makers = {value: i for i, layer in enumerate(net.layers) for value in layer.top_values}
        trial = cls(context, net, [None] * len(net.layers), {}, {}, reader_indices, last, makers, {})
        for i, definition in enumerate(net.layers):
            trial.layers[i], tops, misfit = trial.evaluate(i, definition, None, {})
            trial.shapes.update({v: shape for v, shape in tops.items() if shape is not None})
            if misfit:
                trial.misfits[i] = misfit
        return trial

    @property
    def first(self) -> Misfit | None:
        """The first misfit in the net's order."""
        return self.misfits[min(self.misfits)] if self.misfits else None

    def bottoms(self, index: int) -> tuple[Shape, ...] | None:
        """The shapes of a layer's bottoms; None where one is not known."""
        values = self.net.layers[index].bottom_values
        shapes = tuple(self.shapes[value] for value in values if value in self.shapes)
        return shapes if len(shapes) == len(values) else None

    def ancestors(self, values: Iterable[str]) -> frozenset[int]:
        """The layers that values come from."""
        key = tuple(values)
        if key not in self.ancestry:
            layers: set[int] = set()
            pending = list(key)
            while pending:
                i = self.makers.get(pending.pop())
                if i is not None and i not in layers:
                    layers.add(i)
                    pending += self.net.layers[i].bottom_values
            self.ancestry[key] = frozenset(layers)
        return self.ancestry[key]

    def evaluate(
        self, index: int, definition: LayerDef, layer: Layer | None, changed_shapes: Mapping[str, Shape | None]
    ) -> tuple[Layer | None, Mapping[str, Shape | None], Misfit | None]:
        """A layer's parsed form, its tops' shapes (None: not known) and its misfit, over `shapes` with `changed_shapes`."""
        self.context.budget.remaining -= 1
        if layer is None:
            try:
                definition, layer = parse_layer(definition, self.context.input_shapes)
            except LayerError as error:
                unknown: dict[str, Shape | None] = dict.fromkeys(definition.top_values)
                return None, unknown, Misfit(index, str(error), is_curable=not isinstance(error, OutsideError))
        shapes = [changed_shapes[v] if v in changed_shapes else self.shapes.get(v) for v in definition.bottom_values]
        bottoms = tuple(shape for shape in shapes if shape is not None)
        if len(bottoms) != len(shapes):
            return layer, dict.fromkeys(definition.top_values), None
        evaluation = self.context.evaluations.get((id(layer), bottoms))
        if evaluation is None:
            evaluation = self._evaluated(index, definition, layer, bottoms)
            self.context.evaluations[id(layer), bottoms] = evaluation
        return layer, evaluation.tops, evaluation.misfit

    def _evaluated(self, index: int, definition: LayerDef, layer: Layer, bottoms: tuple[Shape, ...]) -> Evaluation:
        try:
            tops = infer_tops(definition, layer, bottoms, self.context.input_shapes, None)
            if not layer.has_dynamic_shapes:
                refuse_empty(definition, tops)
            weight_shapes = tuple(layer.weight_shapes(bottoms).values())
        except LayerError as error:
            misfit = Misfit(index, str(error), is_curable=not isinstance(error, OutsideError))
            return Evaluation(layer, dict.fromkeys(definition.top_values), misfit)
        top_shapes = dict(zip(definition.top_values, tops, strict=False))
        return Evaluation(layer, top_shapes, self._misfit(index, definition.name, layer, weight_shapes))

    def _misfit(self, index: int, name: str, layer: Layer, weight_shapes: tuple[Shape, ...]) -> Misfit | None:
        stored = self.context.stored.get(name)
        if stored is None:
            return None
        if len(stored.blobs) == len(weight_shapes) or (stored.may_leave_out and len(stored.blobs) < len(weight_shapes)):
            pairs, any_vector = zip(weight_shapes, stored.blobs, strict=False), layer.takes_any_vector
            if all(blob is None or shape_fits(tuple(shape), blob, any_vector=any_vector) for shape, blob in pairs):
                return None
        return Misfit(index, "weights", stored_shapes(stored) or ((),))

    def edited(self, definitions: Mapping[int, LayerDef]) -> TrialNet:
        """The trial after the edit: index → the layer's new definition."""
        layers = tuple(definitions.get(i, layer) for i, layer in enumerate(self.net.layers))
        net = NetDef(self.net.name, layers, self.net.phase, self.net.directory, self.net.source, self.net.last_value)
        trial = TrialNet(
            self.context, net, list(self.layers), dict(self.misfits), dict(self.shapes), self.readers, self.last_reader,
            self.makers, self.ancestry,
        )  # fmt: skip
        queue = sorted(definitions)
        while queue:
            i = heapq.heappop(queue)
            while queue and queue[0] == i:
                heapq.heappop(queue)
            layer = None if i in definitions else self.layers[i]
            trial.layers[i], tops, misfit = trial.evaluate(i, layers[i], layer, {})
            trial.misfits.pop(i, None)
            if misfit:
                trial.misfits[i] = misfit
            for value, shape in tops.items():
                if trial.shapes.get(value) == shape:
                    continue
                if shape is None:
                    trial.shapes.pop(value)
                else:
                    trial.shapes[value] = shape
                for reader in self.readers.get(value, ()):
                    heapq.heappush(queue, reader)
        return trial

    def reach(self, index: int, definition: LayerDef, until: int) -> TrialResult:
        """What layer `until`, with no misfit before it, would see with this definition in place of layer `index`.

        Two edits that leave the same values with the same shapes to what follows come to the same, which is kept.
        """
        changed_shapes: dict[str, Shape | None] = {}
        queue, trail = [index], []
        result = TrialResult(until, None)
        while queue:
            i = heapq.heappop(queue)
            while queue and queue[0] == i:
                heapq.heappop(queue)
            if i > until:
                break
            key = (
                until,
                i,
                tuple(sorted((v, s) for v, s in changed_shapes.items() if self.last_reader.get(v, -1) >= i)),
            )
            if i > index and key in self.memo:
                result = self.memo[key]
                break
            if i > index:
                trail.append(key)
            _, tops, misfit = self.evaluate(
                i,
                definition if i == index else self.net.layers[i],
                None if i == index else self.layers[i],
                changed_shapes,
            )
            if misfit or i == until:
                bottoms = tuple(
                    changed_shapes.get(v) or self.shapes.get(v, ()) for v in self.net.layers[i].bottom_values
                )
                result = TrialResult(i if misfit else len(self.net.layers), bottoms if i == until else None)
                break
            for value, shape in tops.items():
                if self.shapes.get(value) != shape:
                    changed_shapes[value] = shape
                    for reader in self.readers.get(value, ()):
                        heapq.heappush(queue, reader)
        self.memo.update(dict.fromkeys(trail, result))
        return result


def fitting_bottoms(layer: Layer, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
    """What the layer would take instead of its bottoms; nothing where one of its own settings is wrong."""
    try:
        return layer.fitting_bottoms(bottoms)
    except LayerError:
        return ()
