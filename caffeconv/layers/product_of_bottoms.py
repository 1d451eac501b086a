"""InnerProduct whose weight is a bottom (happynear/caffe-windows, openvinotoolkit/training_toolbox_caffe)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import Arity, Gradients, Layer, Node
from caffeconv.layers.gradient_ops import like_bottom, sum_over
from caffeconv.tensor.shape import Shape, Shapes, canonical_axis, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class ProductOfBottoms(Layer):
    """y = x·Wᵀ + b over the axes of x from `axis` on, taken as one of length K.

    Bottoms: x; W, N×K in all; b of N numbers, which is a parameter where there is no third bottom and `bias_term` holds.
    `num_output` and `normalize` count only where the weight is a parameter (inner_product_layer.cpp).
    """

    bottoms: ClassVar[Arity] = Arity(2, 3)
    in_place: ClassVar[bool] = False
    tops_as_caffe: ClassVar[bool] = True

    axis: int
    bias: bool
    """Whether it is a parameter."""
    bias_filler: Filler

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.inner_product_param
        if p.transpose:
            raise LayerError("transpose: true with the weight as a bottom; a bottom of N×K without it was needed")
        return cls(p.axis, p.bias_term and len(layer.bottoms) == 2, Filler.parse(p.bias_filler))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        axis = canonical_axis(self.axis, len(bottoms[0]), bottoms[0])
        number, length = (*bottoms[1], 1)[0], count(bottoms[0], axis)
        if count(bottoms[1]) != number * length:
            raise LayerError(
                f"bottom[1], the weight, is {format_shape(bottoms[1])}; {number}×{length} was needed, a row for each output"
            )
        if len(bottoms) > 2 and count(bottoms[2]) != number:
            raise LayerError(f"bottom[2], the bias, is {format_shape(bottoms[2])}; {number} numbers were needed")
        return [(*bottoms[0][:axis], number)]

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        return {"bias": (bottoms[1][0],)} if self.bias else {}

    def fillers(self) -> Mapping[str, Filler]:
        return {"bias": self.bias_filler}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        inputs = [self._rows(node, onnx), self._weight(node, onnx)]
        if self.bias:
            inputs.append(onnx.weight("bias"))
        elif len(node.bottoms) > 2:
            inputs.append(onnx.op("Reshape", [node.bottoms[2], onnx.ints("in_a_row", [-1])], what="bias"))
        y = onnx.op("Gemm", inputs, what="rows_of_top", transB=1)
        onnx.reshape(y, onnx.dims(node.tops[0]), to=node.tops[0])

    def _rows(self, node: Node, onnx: OnnxBuilder) -> str:
        axis = canonical_axis(self.axis, len(node.bottom_shapes[0]))
        return onnx.op("Flatten", [node.bottoms[0]], axis=axis, what="x_rows")

    def _weight(self, node: Node, onnx: OnnxBuilder) -> str:
        return onnx.op("Flatten", [node.bottoms[1]], axis=1, what="weight_rows")

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        shape, weight = node.bottom_shapes[:2]
        axis = canonical_axis(self.axis, len(shape))
        diff = onnx.op("Flatten", top_diffs, what="diff_rows", axis=axis)
        rows = onnx.op("Gemm", [diff, self._weight(node, onnx)], what="x_diff_rows")
        weight_diff = onnx.op("Gemm", [diff, self._rows(node, onnx)], what="weight_diff_rows", transA=1)
        diffs = [
            like_bottom(onnx, node, rows, shape=(count(shape, 0, axis), count(shape, axis))),
            onnx.reshape(weight_diff, weight, what="weight_diff"),
        ]
        bias_diff = sum_over(onnx, diff, [0], "bias_diff")
        if len(node.bottoms) > 2:
            diffs.append(onnx.reshape(bias_diff, node.bottom_shapes[2], what="bias_diff_as_bottom"))
        return Gradients(diffs, {"bias": bias_diff} if self.bias else {})

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(tops[0]) * count(bottoms[0], canonical_axis(self.axis, len(bottoms[0])))
