"""Crop, to the size of another blob."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, Settings, exactly
from caffeconv.tensor.axis_order import AxisOrder, as_caffe
from caffeconv.tensor.shape import Shape, Shapes, canonical_axis, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Crop(Layer):
    """Cuts the first bottom to the second's size from `axis` on, at `offset` (caffe: crop_layer.cpp)."""

    bottoms: ClassVar[Arity] = exactly(2)
    in_place: ClassVar[bool] = False
    only_moves_data: ClassVar[bool] = True
    settings: ClassVar[str] = "crop_param"

    axis: int
    offset: tuple[int, ...]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(layer.proto.crop_param.axis, tuple(layer.proto.crop_param.offset))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x, like = bottoms
        if len(x) != len(like):
            raise LayerError(
                f"bottom[0] is {format_shape(x)}, bottom[1] is {format_shape(like)}; the same number of axes was needed"
            )
        start = self.start(x)
        for i, offset in enumerate(self.offsets(x), start):
            if x[i] - offset < like[i]:
                raise LayerError(
                    f"the crop for dimension {i} is out-of-bounds with size {like[i]} and offset {offset} "
                    f"(bottom[0] is {format_shape(x)}, bottom[1] is {format_shape(like)})"
                )
        return [(*x[:start], *like[start:])]

    def start(self, bottom: Shape) -> int:
        start = canonical_axis(self.axis, len(bottom), bottom)
        if len(self.offset) > 1 and len(self.offset) != len(bottom) - start:
            raise LayerError(
                f"{len(self.offset)} offsets for {len(bottom) - start} axes; number of offset values specified must be "
                "equal to the number of dimensions following axis."
            )
        return start

    def offsets(self, bottom: Shape) -> tuple[int, ...]:
        axes = len(bottom) - self.start(bottom)
        return self.offset if len(self.offset) > 1 else (self.offset or (0,)) * axes

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x = node.bottom_shapes[0]
        start = self.start(x)
        sizes = onnx.fixed(onnx.dims(node.tops[0])[start:], "a Crop along the batch axis needs to know the batch size")
        begin = self.offsets(x)
        end = [offset + size for offset, size in zip(begin, sizes, strict=True)]
        axes = list(range(start, len(x)))
        inputs = [node.bottoms[0], onnx.ints("begin", begin), onnx.ints("end", end), onnx.ints("axes", axes)]
        onnx.emit("Slice", inputs, node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        start = self.start(node.bottom_shapes[0])
        why = "the gradient of a Crop needs to know the sizes of its bottoms"
        whole, window = (onnx.fixed(onnx.dims(value)[start:], why) for value in (node.bottoms[0], node.tops[0]))
        before = self.offsets(node.bottom_shapes[0])
        after = [size - offset - rest for size, offset, rest in zip(whole, before, window, strict=True)]
        pads = [*([0] * start), *before, *([0] * start), *after]
        return Gradients((onnx.op("Pad", [top_diffs[0], onnx.ints("cut_off", pads)], what="bottom_diff"), None))

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        whole, start = bottoms[0], self.start(node.bottom_shapes[0])
        if whole.is_flattening and start < len(whole.shape):
            return None
        return [replace(whole, shape=node.top_shapes[0])] if len(whole.item) > 1 else [as_caffe(node.top_shapes[0])]

    @classmethod
    def repairs(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[Settings]:
        axis = layer.proto.crop_param.axis
        spare = [whole - part for whole, part in zip(bottoms[0][axis:], bottoms[1][axis:], strict=False)]
        centred = tuple(max(0, size // 2) for size in spare)
        return [{"offset": centred[:1] if len(set(centred)) == 1 else centred}, {"offset": (0,)}]

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        x, like = bottoms
        if len(x) != len(like):
            return ()
        start, offsets = self.start(x), self.offsets(x)
        ends = [max(size, like[i] + offsets[i - start]) if i >= start else size for i, size in enumerate(x)]
        room = [min(size, x[i] - offsets[i - start]) if i >= start else size for i, size in enumerate(like)]
        return [{0: tuple(ends)}, {1: tuple(room)}]

    def why_refused(self, bottoms: Shapes) -> Sequence[str]:
        x, like = bottoms
        if len(x) != len(like):
            return ()
        least = [size + offset for size, offset in zip(like[self.start(x) :], self.offsets(x), strict=True)]
        return [
            "Crop only cuts off: bottom[0] must have at least bottom[1]'s places and the offset, "
            f"{format_shape(least)}; it has "
            f"{format_shape(x[self.start(x) :])}."
        ]
