"""Layers that choose items by numbers or selectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import INT64
from caffeconv.ir.layer import Arity, Gradients, LabelRule, Layer, Node, at_least, exactly
from caffeconv.layers.gradient_ops import added_rows, refuse_to
from caffeconv.tensor.axis_order import AxisOrder
from caffeconv.tensor.shape import Dims, Shapes, canonical_axis, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class BatchReindex(Layer):
    """Picks items of the batch: top[i] = bottom[0][bottom[1][i]] (caffe: batch_reindex_layer.cpp)."""

    bottoms: ClassVar[Arity] = exactly(2)
    in_place: ClassVar[bool] = False
    only_moves_data: ClassVar[bool] = True

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls()

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if len(bottoms[1]) != 1:
            raise LayerError(f"the indices are {format_shape(bottoms[1])}; one axis was needed")
        canonical_axis(0, len(bottoms[0]), bottoms[0])
        return [(*bottoms[1], *bottoms[0][1:])]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        rows = onnx.op("Cast", [node.bottoms[1]], what="rows", to=7)
        onnx.emit("Gather", [node.bottoms[0], rows], node.tops, axis=0)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        refuse_to("the index", propagate_down, 1)
        rows = onnx.op("Cast", [node.bottoms[1]], what="rows", to=INT64)
        diff = added_rows(onnx, node.bottoms[0], rows, top_diffs[0], len(node.bottom_shapes[0]), "bottom_diff")
        return Gradients((diff, None))

    def label_rules(self, node: Node) -> Sequence[LabelRule]:
        return (LabelRule(1, node.bottom_shapes[0][0], of_batch=True),)

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        return [replace(bottoms[0], shape=node.top_shapes[0])] if bottoms[0].lead else None


@dataclass(frozen=True)
class Filter(Layer):
    """Passes on the items of each bottom for which the last bottom, the selector, is not 0 (caffe: filter_layer.cpp)."""

    bottoms: ClassVar[Arity] = at_least(2)
    tops: ClassVar[Arity] = at_least(1)
    in_place: ClassVar[bool] = False
    data_axis: ClassVar[int | None] = 0
    only_moves_data: ClassVar[bool] = True
    is_discontinuous: ClassVar[bool] = True

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        if len(layer.tops) != len(layer.bottoms) - 1:
            raise LayerError(
                f"{len(layer.bottoms)} bottoms need {len(layer.bottoms) - 1} tops: all but the selector pass"
            )
        return cls()

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        selector = bottoms[-1]
        if not selector or count(selector, 1) != 1:
            raise LayerError(f"the selector is {format_shape(selector)}; Selector blob must have shape N × 1 × …")
        for i, bottom in enumerate(bottoms[:-1]):
            if bottom[:1] != selector[:1]:
                raise LayerError(
                    f"bottom[{i}] is {format_shape(bottom)}, the selector {format_shape(selector)}; "
                    "Each bottom should have the same 0th dimension as the selector blob"
                )
        return bottoms[:-1]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        selector = onnx.op(
            "Cast", [onnx.reshape(node.bottoms[-1], _flat(onnx, node.bottoms[-1]))], what="selected", to=9
        )
        for bottom, top in zip(node.bottoms[:-1], node.tops, strict=True):
            onnx.emit("Compress", [bottom, selector], [top], axis=0)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        refuse_to("filter index inputs", propagate_down, len(node.bottoms) - 1)
        flat = onnx.reshape(node.bottoms[-1], _flat(onnx, node.bottoms[-1]), what="selector")
        rows = onnx.reshape(onnx.op("NonZero", [flat], what="passed"), (-1,), what="rows")
        diffs = [
            added_rows(onnx, bottom, rows, diff, len(shape), "bottom_diff")
            for bottom, diff, shape in zip(node.bottoms, top_diffs, node.bottom_shapes, strict=False)
        ]
        return Gradients((*diffs, None))

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        return bottoms[:-1] if all(bottom.lead for bottom in bottoms[:-1]) else None


def _flat(onnx: OnnxBuilder, value: str) -> Dims:
    return (onnx.dims(value)[0],)
