"""ContrastiveLoss, over pairs of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import INT64
from caffeconv.ir.layer import Arity, Gradients, Node, exactly
from caffeconv.layers.label_ops import (
    emit_quotient,
    extent,
    first_labels,
    legacy_shape,
    not_below,
    unflattened,
    weighted,
)
from caffeconv.layers.losses import Loss
from caffeconv.tensor.shape import Shape, Shapes, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class ContrastiveLoss(Loss):
    """loss = Σ (d² where similar, else max(margin - d, 0)²) / 2N (caffe: contrastive_loss_layer.cpp).

    bottom[0], bottom[1]: N×C(×1×1), d their Euclidean distance; bottom[2]: N(×1×1×1), similar where it is not 0 once
    truncated toward zero. `legacy_version`: max(margin - d², 0) for those that are not similar.
    """

    bottoms: ClassVar[Arity] = exactly(3)
    never_forced: ClassVar[tuple[int, ...]] = (2,)
    label_bottoms: ClassVar[tuple[int, ...]] = (2,)

    margin: float
    legacy_version: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.contrastive_loss_param
        return cls(p.margin, p.legacy_version)

    def check(self, bottoms: Shapes) -> None:
        a, b, similar = (legacy_shape(bottom, i) for i, bottom in enumerate(bottoms))
        if a[1] != b[1]:
            raise LayerError(
                f"the bottoms are {format_shape(bottoms[0])} and {format_shape(bottoms[1])}; "
                f"bottom[0]->channels() == bottom[1]->channels() ({a[1]} vs. {b[1]}) was needed"
            )
        sizes = {
            "bottom[0]->height()": a[2], "bottom[0]->width()": a[3], "bottom[1]->height()": b[2],
            "bottom[1]->width()": b[3], "bottom[2]->channels()": similar[1], "bottom[2]->height()": similar[2],
            "bottom[2]->width()": similar[3],
        }  # fmt: skip
        for name, size in sizes.items():
            if size != 1:
                raise LayerError(f"{name} == 1 ({size} vs. 1): N×C, N×C and N were needed")
        if similar[0] < a[0]:
            raise LayerError(f"bottom[2] is {format_shape(bottoms[2])}; a number for each of {a[0]} pairs was needed")

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        return [{2: bottoms[0][:1]}] if bottoms[0] == bottoms[1] else [{1: bottoms[0], 2: bottoms[0][:1]}]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        pairs = self._pairs(node, onnx)
        missing = not_below(onnx, pairs.short, 0, "missing")
        apart = missing if self.legacy_version else onnx.op("Mul", [missing, missing], what="apart")
        terms = onnx.op("Where", [pairs.unlike, apart, pairs.distance_sq], what="terms")
        total = onnx.reduce("ReduceSum", terms, None, keepdims=False, what="total")
        half = onnx.op("Mul", [total, onnx.floats("half", 0.5)], what="half_total")
        emit_quotient(onnx, half, extent(onnx, node.bottoms[0], [0], "items"), node.tops[0])

    def _pairs(self, node: Node, onnx: OnnxBuilder) -> _Pairs:
        a, b = (onnx.op("Flatten", [node.bottoms[i]], what=f"rows_{i}", axis=1) for i in (0, 1))
        diff = onnx.op("Sub", [a, b], what="diff")
        distance_sq = onnx.reduce("ReduceSumSquare", diff, [1], keepdims=True, what="distance_sq")
        distance = onnx.op("Sqrt", [distance_sq], what="distance")
        margin = onnx.floats("margin", self.margin)
        short = onnx.op("Sub", [margin, distance_sq if self.legacy_version else distance], what="short")
        whole = onnx.op("Cast", [first_labels(onnx, node, 2)], what="whole_label", to=INT64)
        unlike = onnx.op("Equal", [whole, onnx.ints("unlike", 0)], what="unlike")
        return _Pairs(diff, distance_sq, distance, short, unlike)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        pairs, zero = self._pairs(node, onnx), onnx.floats("zero", 0)
        pull = onnx.floats("minus_one", -1)
        if not self.legacy_version:
            # caffe: 1e-4 keeps the distance from being 0
            guarded = onnx.op("Add", [pairs.distance, onnx.floats("least_distance", 1e-4)], what="guarded_distance")
            pull = onnx.op("Neg", [onnx.op("Div", [pairs.short, guarded], what="push")], what="pull")
        near = onnx.op("Greater", [pairs.short, zero], what="near")
        factor = onnx.op("Where", [near, pull, zero], what="unlike_factor")
        factor = onnx.op("Where", [pairs.unlike, factor, onnx.floats("one", 1)], what="factor")
        slope, items = onnx.op("Mul", [pairs.diff, factor], what="slope"), extent(onnx, node.bottoms[0], [0], "items")
        both = (weighted(onnx, slope, top_diffs[0], items, sign) for sign in (1, -1))
        return Gradients((*(unflattened(onnx, node, rows_diff, i) for i, rows_diff in enumerate(both)), None))


@dataclass(frozen=True)
class _Pairs:
    """Values of ContrastiveLoss: a - b, N×C; the rest N×1."""

    diff: str
    distance_sq: str
    distance: str
    short: str
    """By how much the distance (legacy: its square) falls short of the margin."""
    unlike: str
