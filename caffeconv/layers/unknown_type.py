"""A layer of a type that nobody knows, in a net that is only looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Layer, Node, at_least
from caffeconv.tensor.shape import Shape, Shapes

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class UnknownType(Layer):
    """It keeps the shape of a blob that it works on in place; other tops have the shapes that the caller says.

    Its parameters are those that the weights file has for it. Nothing computes it.
    """

    bottoms: ClassVar[Arity] = at_least(0)
    tops: ClassVar[Arity] = at_least(0)
    is_unknown: ClassVar[bool] = True
    has_dynamic_shapes: ClassVar[bool] = True

    bottom_of_top: tuple[int | None, ...]
    """For each top, the bottom that is the same blob, if one is."""
    stored: tuple[Shape, ...]
    requested: tuple[Shape | None, ...] = ()

    @staticmethod
    def has_shapes(layer: LayerDef, requested: Mapping[str, Shape]) -> bool:
        """Whether the shapes of all tops are known, once those of the bottoms are."""
        return bool(layer.type) and all(top in requested or top in layer.bottoms for top in layer.tops)

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        places = tuple(layer.bottoms.index(top) if top in layer.bottoms else None for top in layer.tops)
        return cls(places, tuple(map(tuple, layer.stored_shapes or ())), (None,) * len(layer.tops))

    def with_tops(self, tops: Sequence[str], shapes: Mapping[str, Shape]) -> Self:
        return replace(self, requested=tuple(shapes.get(top) for top in tops))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        shapes: list[Shape] = []
        for place, requested in zip(self.bottom_of_top, self.requested, strict=True):
            if requested is None and place is None:
                raise LayerError("the shape of a top is not known; `shapes={TOP: (N, …)}` was needed")
            shapes.append(requested if requested is not None else bottoms[place or 0])
        return shapes

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        return {f"blob{i}": shape for i, shape in enumerate(self.stored)}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        raise LayerError(f"Unknown layer type: {node.type}")

    @property
    def mixes_positions(self) -> bool:
        return True
