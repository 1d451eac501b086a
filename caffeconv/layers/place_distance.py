"""What layers say that bring boxes in pixels of the picture together with the places of a feature map."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Layer


@dataclass(frozen=True)
class ReadsPlaces(Layer):
    """A layer that is told how many pixels of the picture lie between neighbouring places of its first bottom."""

    distance_field: ClassVar[str]
    """The field that tells it: `feat_stride`; or `spatial_scale`, which is one over that."""

    @classmethod
    @abstractmethod
    def place_distance(cls, layer: LayerDef) -> float | None:
        """How many pixels lie between places by that field; None where nothing says so."""

    @classmethod
    @abstractmethod
    def with_place_distance(cls, layer: LayerDef, pixels: int) -> LayerParameter:
        """The layer with that field for so many pixels."""
