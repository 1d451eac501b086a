"""Proposals and poolings of regions that take the places of a feature map to lie further apart, or closer, than they do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from caffeconv.errors import Diagnostic
from caffeconv.frontend.build import known_python
from caffeconv.inspection.costs import ReceptiveField, receptive_fields
from caffeconv.inspection.diagnose.trial_net import TrialNet
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Layer, Node
from caffeconv.layers import LAYERS
from caffeconv.layers.place_distance import ReadsPlaces


@dataclass(frozen=True)
class Distance:
    """What a layer says of the distance of the places that it reads, and what it is, in pixels of the picture."""

    index: int
    field: str
    said: float | None
    """None: nothing."""
    actual: int
    after: LayerDef
    """The layer with what it is."""

    @property
    def is_inverse(self) -> bool:
        return self.field == "spatial_scale"

    def warning(self, layer: LayerDef) -> Diagnostic:
        """That the shapes fit, and the boxes do not."""
        said, actual = ((f"{1 / n:.6g}" if self.is_inverse else f"{n:g}") for n in (self.said or 1, self.actual))
        message = f"{self.field} is {said}; what it reads has a place every {self.actual} pixels of the picture"
        formula = f" (1/{self.actual})" if self.is_inverse else ""
        hint = f"Boxes and features would not lie over each other; no shape tells. `{self.field}: {actual}`{formula}"
        return Diagnostic("warning", layer.where, message, hint, layer.name)


def wrong_distances(trial: TrialNet) -> list[Distance]:
    """The layers whose field is not what the strides of the layers before them come to."""
    kinds = {i: kind for i, layer in enumerate(trial.net.layers) if (kind := _kind(trial, i, layer)) is not None}
    fields = receptive_fields(list(_nodes(trial))) if kinds else {}
    distances = (_distance(trial, i, kind, fields) for i, kind in kinds.items())
    return [each for each in distances if each is not None and each.said != each.actual]


def _kind(trial: TrialNet, index: int, definition: LayerDef) -> type[ReadsPlaces] | None:
    layer = trial.layers[index]
    if layer is not None:
        kind: type[Layer] | None = type(layer)
    else:
        kind = known_python(definition, trial.context.input_shapes) or LAYERS.get(definition.type)
    return kind if kind is not None and issubclass(kind, ReadsPlaces) and definition.bottom_values else None


def _distance(
    trial: TrialNet, index: int, kind: type[ReadsPlaces], fields: Mapping[str, ReceptiveField]
) -> Distance | None:
    definition = trial.net.layers[index]
    places = trial.shapes.get(definition.bottom_values[0], ())[2:]
    bottoms = (v for v in definition.bottom_values if v in fields and trial.shapes[v][2:] == places)
    steps = next((fields[value].stride for value in bottoms), ())  # of scores that a Reshape made, the offsets' instead
    if len(set(steps)) != 1 or steps[0].denominator != 1 or steps[0] == 1:
        return None  # not known; or the features are an input of the net
    after = definition.with_proto(kind.with_place_distance(definition, int(steps[0])))
    return Distance(index, kind.distance_field, kind.place_distance(definition), int(steps[0]), after)


def _nodes(trial: TrialNet) -> Iterator[Node]:
    """The layers whose shapes are known."""
    for i, (layer, definition) in enumerate(zip(trial.layers, trial.net.layers, strict=True)):
        bottoms = trial.bottoms(i)
        tops = tuple(trial.shapes[value] for value in definition.top_values if value in trial.shapes)
        if layer is not None and bottoms is not None and len(tops) == len(definition.top_values):
            yield Node(definition, layer, definition.bottom_values, definition.top_values, bottoms, tops)
