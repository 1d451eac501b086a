"""Crop, to the size of another blob."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.errors import Diagnostic, LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, Settings, exactly
from caffeconv.layers.gradient_ops import filled_like
from caffeconv.tensor.axis_order import AxisOrder, as_caffe
from caffeconv.tensor.shape import Shape, Shapes, canonical_axis, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Crop(Layer):
    """Cuts the first bottom to the second's size from `axis` on, at `offset` (caffe: crop_layer.cpp)."""

    bottoms: ClassVar[Arity] = exactly(2)
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
        if node.is_in_place:  # caffe: the bottom's diff is made 0 first, and is the top's
            return Gradients((filled_like(onnx, top_diffs[0], 0, "bottom_diff"), None))
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
        number = len(layer.proto.crop_param.offset)
        one = len(set(centred)) == 1 and number < 2
        return [{"offset": centred[:1] if one else centred}, {"offset": (0,) * max(number, 1)}]

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


@dataclass(frozen=True)
class AutoCrop(Crop):
    """RCF's Crop, which finds its offset in the net (caffe_format/crop_offset.py) and never looks whether all of it is there.

    Over the end of a row it reads on in the next one, over the end of a plane in the next plane, and after the last one
    what happens to lie in memory: 0 here (yun-liu/RCF: auto_crop_layer.cpp).
    """

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x, like = bottoms
        if len(x) != 4 or len(like) != 4:
            raise LayerError(
                f"bottom[0] is {format_shape(x)}, bottom[1] is {format_shape(like)}; 4 axes each were needed"
            )
        if any(size > whole for size, whole in zip(like[2:], x[2:], strict=True)):
            raise LayerError(
                f"bottom[1] is {format_shape(like)}, larger than bottom[0], {format_shape(x)}; AutoCrop only cuts off"
            )
        return [(*x[:2], *like[2:])]

    def _reads_on(self, node: Node) -> bool:
        whole, window = node.bottom_shapes[0][2:], node.top_shapes[0][2:]
        offsets = self.offsets(node.bottom_shapes[0])
        return any(part + offset > all_ for all_, part, offset in zip(whole, window, offsets, strict=True))

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if not self._reads_on(node):
            super().lower(node, onnx)
            return
        (_, _, height, width), (top, left) = onnx.dims(node.bottoms[0]), self.offsets(node.bottom_shapes[0])
        height, width = onnx.fixed((height, width), "an AutoCrop over the edge needs to know the sizes")
        skipped = onnx.ints("skipped", [top * width + left])
        values = onnx.reshape(node.bottoms[0], (None,), what="values")
        beyond = onnx.op("Pad", [values, onnx.ints("beyond", [0, top * width + left])], what="with_beyond")
        end, axis = onnx.ints("end", [np.iinfo(np.int64).max]), onnx.ints("axis", [0])
        moved = onnx.op("Slice", [beyond, skipped, end, axis], what="moved")
        moved = onnx.reshape(moved, onnx.dims(node.bottoms[0]), what="moved_planes")
        window = onnx.ints("window", node.top_shapes[0][2:])
        onnx.emit("Slice", [moved, onnx.ints("begin", [0, 0]), window, onnx.ints("axes", [2, 3])], node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        if self._reads_on(node):
            raise LayerError("the crop goes over the edge of its bottom, so its code would write outside of the diff")
        return super().lower_gradient(node, onnx, top_diffs, propagate_down)

    def lint(self, node: Node, sources: Sequence[Node | None]) -> Sequence[Diagnostic]:
        if not self._reads_on(node):
            return ()
        x, offsets = node.bottom_shapes[0], self.offsets(node.bottom_shapes[0])
        message = (
            f"bottom[0] is {format_shape(x)}; offset {', '.join(map(str, offsets))} and {format_shape(node.top_shapes[0][2:])} "
            "places go over its edge, where RCF's code reads what lies behind in memory. A picture of another size may not"
        )
        return [Diagnostic("warning", node.definition.where, message, layer=node.name)]
