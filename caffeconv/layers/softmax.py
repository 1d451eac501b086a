"""Softmax, ArgMax and Reduction (caffe: softmax_layer.cpp, argmax_layer.cpp, reduction_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Gradients, Layer, Node
from caffeconv.layers.gradient_ops import filled_like, refuse_all, times
from caffeconv.tensor.axis_order import AxisOrder, as_caffe
from caffeconv.tensor.shape import Shapes, canonical_axis, count

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Softmax(Layer):
    """exp x / Σ exp x along one axis."""

    propagates_always: ClassVar[bool] = True
    top_kinds: ClassVar[tuple[str, ...]] = ("probabilities",)
    computes_in_float32: ClassVar[bool] = True
    is_pointwise: ClassVar[bool] = True

    axis: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(layer.proto.softmax_param.axis)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        canonical_axis(self.axis, len(bottoms[0]), bottoms[0])
        return [bottoms[0]]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Softmax", node.bottoms, node.tops, axis=canonical_axis(self.axis, len(node.bottom_shapes[0])))

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        axis = canonical_axis(self.axis, len(node.bottom_shapes[0]))
        product = onnx.op("Mul", [top_diffs[0], node.tops[0]], what="diff_y")
        shared = onnx.reduce("ReduceSum", product, [axis], keepdims=True, what="shared")
        own = onnx.op("Sub", [top_diffs[0], shared], what="own")
        return Gradients((onnx.op("Mul", [own, node.tops[0]], what="bottom_diff"),))

    def is_spatially_uniform(self, node: Node) -> bool:
        return self.axis == 1


@dataclass(frozen=True)
class ArgMax(Layer):
    """The indices of the `top_k` greatest values, along `axis`, or over all of an item's values where none is given.

    Without axis the top is N×1×top_k, or N×2×top_k with `out_max_val` (indices, then values); with an axis it is the
    bottom's shape with top_k along that axis, and holds values where `out_max_val` is set. Of equal values the one
    with the larger index comes first.
    """

    in_place: ClassVar[bool] = False
    computes_in_float32: ClassVar[bool] = True
    float32_tops: ClassVar[tuple[int, ...]] = (0,)
    is_discontinuous: ClassVar[bool] = True

    axis: int | None
    top_k: int
    out_max_val: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.argmax_param
        if p.top_k < 1:
            raise LayerError("top k must not be less than 1.")
        return cls(p.axis if p.HasField("axis") else None, p.top_k, p.out_max_val)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x = bottoms[0]
        if self.axis is not None:
            axis = canonical_axis(self.axis, len(x), x)
            if self.top_k > x[axis]:
                raise LayerError(
                    f"top_k {self.top_k} must be less than or equal to the dimension of the axis ({x[axis]})."
                )
            return [(*x[:axis], self.top_k, *x[axis + 1 :])]
        items = x[canonical_axis(0, len(x), x)]
        if self.top_k > count(x, 1):
            raise LayerError(
                f"top_k {self.top_k} must be less than or equal to the dimension of the flattened bottom blob per instance "
                f"({count(x, 1)})."
            )
        # caffe: the top keeps the bottom's number of axes, but at least 3, and ends with 1 or 2, then top_k at axis 2
        shape = [1] * max(len(x), 3)
        shape[0], shape[1], shape[2] = items, 2 if self.out_max_val else 1, self.top_k
        return [tuple(shape)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        rank = len(node.bottom_shapes[0])
        if self.axis is None:
            x, axis, size = onnx.op("Flatten", node.bottoms, axis=1), 1, count(node.bottom_shapes[0], 1)
        else:
            x, axis = node.bottoms[0], canonical_axis(self.axis, rank)
            size = onnx.fixed((onnx.dims(x)[axis],), "ArgMax along the batch axis needs to know the batch size")[0]
        # ONNX's TopK puts the smaller index first among equals: look at the axis from its end
        backwards = onnx.op(
            "Slice", [x, onnx.ints("last", [-1]), onnx.ints("before_first", [-size - 1]), onnx.ints("axis", [axis]),
                      onnx.ints("step", [-1])], what="backwards",
        )  # fmt: skip
        values, places = onnx.ops("TopK", [backwards, onnx.ints("top_k", [self.top_k])], 2, axis=axis)
        if self.axis is not None and self.out_max_val:
            onnx.emit("Identity", [values], node.tops)
            return
        indices = onnx.op("Cast", [onnx.op("Sub", [onnx.ints("end", size - 1), places], what="index")], to=1)
        if self.axis is not None:
            onnx.emit("Identity", [indices], node.tops)
            return
        if self.out_max_val:
            indices = onnx.op("Concat", [indices, values], axis=1)
        onnx.reshape(indices, onnx.dims(node.tops[0]), to=node.tops[0])

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return refuse_all(propagate_down)

    def is_spatially_uniform(self, node: Node) -> bool:
        return self.axis == 1

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        if self.axis is not None:
            return super().axis_orders(node, bottoms)
        return None if bottoms[0].moves else [as_caffe(node.top_shapes[0])]


@dataclass(frozen=True)
class Reduction(Layer):
    """coeff · sum, mean, sum of |x| or of x² over all axes from `axis` on."""

    in_place: ClassVar[bool] = False
    computes_in_float32: ClassVar[bool] = True

    operation: str
    axis: int
    coeff: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.reduction_param
        return cls(p.ReductionOp.Name(p.operation), p.axis, p.coeff)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return [bottoms[0][: canonical_axis(self.axis, len(bottoms[0]), bottoms[0])]]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        rank = len(node.bottom_shapes[0])
        axes = list(range(canonical_axis(self.axis, rank), rank))
        op_type = {"SUM": "ReduceSum", "ASUM": "ReduceL1", "SUMSQ": "ReduceSumSquare", "MEAN": "ReduceMean"}
        if self.coeff == 1:
            onnx.reduce(op_type[self.operation], node.bottoms[0], axes or None, keepdims=False, to=node.tops[0])
            return
        reduced = onnx.reduce(op_type[self.operation], node.bottoms[0], axes or None, keepdims=False)
        onnx.emit("Mul", [reduced, onnx.floats("coeff", self.coeff)], node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        x, shape = node.bottoms[0], node.bottom_shapes[0]
        axis = canonical_axis(self.axis, len(shape))
        diff = top_diffs[0]
        if len(shape) > axis:
            diff = onnx.op("Unsqueeze", [diff, onnx.ints("reduced_axes", range(axis, len(shape)))], what="spread_diff")
        slopes = {"ASUM": lambda: onnx.op("Sign", [x]), "SUMSQ": lambda: times(onnx, x, 2, "twice")}
        slope = slopes.get(self.operation, lambda: filled_like(onnx, x, 1, "ones"))()
        coeff = self.coeff / max(count(shape, axis), 1) if self.operation == "MEAN" else self.coeff
        return Gradients((onnx.op("Mul", [times(onnx, diff, coeff, "scaled_diff"), slope], what="bottom_diff"),))
