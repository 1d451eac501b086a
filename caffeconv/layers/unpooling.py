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
        axes = zip(bottom[2:], self.size, self.kernel, self.stride, strict=True)
        if self.method == "MAX":
            # caffe: of several values for one place the last one stays
            rows, columns = (_last_in_row(_first_places(places, size, step)) for places, size, _, step in axes)
        else:
            rows, columns = (_windows(*sizes, is_shared=self.method == "AVE") for sizes in axes)
        return rows, columns

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        if len(node.bottoms) == 2:
            return Gradients((picked_by_mask(node, onnx, top_diffs[0]), None))
        axes = zip(node.bottom_shapes[0][2:], self.size, self.kernel, self.stride, strict=True)
        if self.method == "MAX":
            rows, columns = (_first_places(places, size, step) for places, size, _, step in axes)
        else:
            # caffe: TILE's backward pass divides by the window too
            rows, columns = (_windows(*sizes, is_shared=True) for sizes in axes)
        low = onnx.op("MatMul", [onnx.floats("rows_back", rows.T), top_diffs[0]], what="low")
        return Gradients((onnx.op("MatMul", [low, onnx.floats("columns_back", columns)], what="bottom_diff"),))

    @classmethod
    def settings_for(cls, layer: LayerDef, bottoms: Shapes, top: int, wanted: Shape) -> Sequence[Settings]:
        return ({"unpool_h": wanted[2], "unpool_w": wanted[3]},) if len(wanted) == 4 else ()


def _windows(places: int, size: int, kernel: int, stride: int, *, is_shared: bool) -> FloatArray:
    """The matrix size × places that puts each place's value on its window, or shares it out among that."""
    matrix = np.zeros((size, places), np.float32)
    for place in range(places):
        start, end = place * stride, min(place * stride + kernel, size)
        if start < end:
            matrix[start:end, place] = 1 / (end - start) if is_shared else 1
    return matrix


def _first_places(places: int, size: int, stride: int) -> FloatArray:
    """The matrix size × places that puts each place's value where its window starts, or on the last place."""
    matrix = np.zeros((size, places), np.float32)
    matrix[np.minimum(np.arange(places) * stride, size - 1), np.arange(places)] = 1
    return matrix


def _last_in_row(matrix: FloatArray) -> FloatArray:
    """The matrix with only the last 1 of each row."""
    later = np.cumsum(matrix[:, ::-1], axis=1)[:, ::-1] - matrix
    return np.asarray(matrix * (later == 0), np.float32)


def _height_and_width(p: UnpoolingParameter, both: str, height: str, width: str) -> tuple[int, int]:
    """A setting that is given once, or for each axis; raises LayerError where it is given in both ways or in none."""
    by_axis = p.HasField(height) or p.HasField(width)
    if by_axis and (p.HasField(both) or not (p.HasField(height) and p.HasField(width))):
        raise LayerError(f"{both} OR {height} and {width}; not both, and both of the latter, were needed")
    sizes = (int(getattr(p, height)), int(getattr(p, width))) if by_axis else (int(getattr(p, both)),) * 2
    if min(sizes) < 1:
        raise LayerError(f"{both} is {format_shape(sizes)} (height × width); at least 1 was needed")
    return sizes
