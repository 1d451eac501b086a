"""Unpooling of DeconvNet: each value goes back to the window, or to the place of it, that it was pooled from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.caffe_pb2 import UnpoolingParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, Settings
from caffeconv.layers.resampling import check_4d, picked_by_mask, scattered_by_mask
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Unpooling(Layer):
    """N×C×H×W → N×C×unpool_h×unpool_w (DeconvNet, HyeonwooNoh/caffe: unpooling_layer.cpp).

    MAX: each value goes to its place of the second bottom, the mask of a MAX Pooling layer, or without one to the first
    place of its window; the rest is 0. TILE: each value fills its window. AVE: it is spread over the window, divided by
    the window's places inside the top. Where windows overlap, TILE and AVE add.
    """

    bottoms: ClassVar[Arity] = Arity(1, 2)
    in_place: ClassVar[bool] = False
    settings: ClassVar[str] = "unpooling_param"
    size_settings: ClassVar[tuple[str, ...]] = ("kernel_size", "stride", "unpool_h", "unpool_w")

    method: str
    """MAX, AVE or TILE."""
    kernel: tuple[int, int]
    stride: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.unpooling_param
        foreign = [name for name in ("pool", "pad_u", "pad_d", "pad_l", "pad_r") if p.HasField(name)]
        if foreign:
            raise LayerError(
                f"{foreign[0]} is a field of another fork's Unpooling (Akrit2013/caffe-dev), whose rule is not known; "
                "DeconvNet's was needed, with `unpool` and `unpool_size`"
            )
        kernel = _height_and_width(p, "kernel_size", "kernel_h", "kernel_w")
        stride = _height_and_width(p, "stride", "stride_h", "stride_w")
        size = _height_and_width(p, "unpool_size", "unpool_h", "unpool_w")
        if p.pad or p.pad_h or p.pad_w:
            raise LayerError(f"pad is {max(p.pad, p.pad_h, p.pad_w)}; Unpooling knows no pad but 0")
        method = UnpoolingParameter.UnpoolMethod.Name(p.unpool)
        if len(layer.bottoms) == 2 and method != "MAX":
            raise LayerError(f"a mask as second bottom and `unpool: {method}`; only MAX reads one")
        return cls(method, kernel, stride, size)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        check_4d(bottoms[0])
        if len(bottoms) == 2 and bottoms[1] != bottoms[0]:
            raise LayerError(
                f"the mask is {format_shape(bottoms[1])}, the bottom {format_shape(bottoms[0])}; one shape was needed"
            )
        last = [(places - 1) * step for places, step in zip(bottoms[0][2:], self.stride, strict=True)]
        if len(bottoms) == 1 and any(start >= size for start, size in zip(last, self.size, strict=True)):
            raise LayerError(
                f"the top is {format_shape(self.size)}, and the last window would start at {format_shape(last)}; a larger "
                "unpool_size, or a smaller stride, was needed"
            )
        return [(*bottoms[0][:2], *self.size)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if len(node.bottoms) == 2:
            scattered_by_mask(node, onnx)
            return
        rows, columns = self._spread(node.bottom_shapes[0])
        tall = onnx.op("MatMul", [onnx.floats("rows", rows), node.bottoms[0]], what="tall")
        onnx.emit("MatMul", [tall, onnx.floats("columns", columns.T)], node.tops)

    def _spread(self, bottom: Shape) -> tuple[FloatArray, FloatArray]:
        """The matrices top × bottom by which values are spread along height and along width."""
        kernel = (1, 1) if self.method == "MAX" else self.kernel
        axes = zip(bottom[2:], self.size, kernel, self.stride, strict=True)
        rows, columns = (_axis_spread(*sizes, is_shared=self.method == "AVE") for sizes in axes)
        return rows, columns

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        if len(node.bottoms) == 2:
            return Gradients((picked_by_mask(node, onnx, top_diffs[0]), None))
        rows, columns = self._spread(node.bottom_shapes[0])
        low = onnx.op("MatMul", [onnx.floats("rows_back", rows.T), top_diffs[0]], what="low")
        return Gradients((onnx.op("MatMul", [low, onnx.floats("columns_back", columns)], what="bottom_diff"),))

    @classmethod
    def settings_for(cls, layer: LayerDef, bottoms: Shapes, top: int, wanted: Shape) -> Sequence[Settings]:
        return ({"unpool_h": wanted[2], "unpool_w": wanted[3]},) if len(wanted) == 4 else ()


def _axis_spread(places: int, size: int, kernel: int, stride: int, *, is_shared: bool) -> FloatArray:
    """The matrix size × places that puts each place's value on its window, or shares it out among that."""
    matrix = np.zeros((size, places), np.float32)
    for place in range(places):
        start, end = place * stride, min(place * stride + kernel, size)
        matrix[start:end, place] = 1 / (end - start) if is_shared else 1
    return matrix


def _height_and_width(p: UnpoolingParameter, both: str, height: str, width: str) -> tuple[int, int]:
    """A setting that is given once, or for each axis; raises LayerError where it is given in both ways or in none."""
    by_axis = p.HasField(height) or p.HasField(width)
    if by_axis and (p.HasField(both) or not (p.HasField(height) and p.HasField(width))):
        raise LayerError(f"{both} OR {height} and {width}; not both, and both of the latter, were needed")
    sizes = (int(getattr(p, height)), int(getattr(p, width))) if by_axis else (int(getattr(p, both)),) * 2
    if min(sizes) < 1:
        raise LayerError(f"{both} is {format_shape(sizes)} (height × width); at least 1 was needed")
    return sizes
