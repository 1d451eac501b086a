"""Layers of FlowNet2: Correlation, FlowWarp, Resample, ChannelNorm (lmb-freiburg/flownet2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from caffeconv.caffe_pb2 import CorrelationParameter, FlowWarpParameter, ResampleParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, Settings, exactly
from caffeconv.layers.bilinear_sampling import sampled
from caffeconv.layers.resampling import check_4d
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Correlation(Layer):
    """How alike two maps are, place by place, when one is shifted (correlation_layer.cu).

    Two bottoms N×C×H×W, first padded by zeros; top N×D²×…, D = 2·⌊max_displacement/stride_2⌋ + 1, a channel for each
    shift d, row by row: the mean of a(p)·b(p + stride_2·d), or with SUBTRACT of |a(p) - b(p + stride_2·d)|, over the
    channels and a window of kernel_size × kernel_size, every stride_1 places.
    """

    bottoms: ClassVar[Arity] = exactly(2)
    in_place: ClassVar[bool] = False
    settings: ClassVar[str] = "correlation_param"
    size_settings: ClassVar[tuple[str, ...]] = ("pad", "stride_1")

    pad: int
    kernel: int
    displacement: int
    stride: int
    step: int
    """stride_2: between two shifts."""
    subtracts: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.correlation_param
        if not (p.HasField("kernel_size") and p.HasField("max_displacement")):
            raise LayerError("kernel_size and max_displacement: both were needed")
        if p.kernel_size % 2 == 0:
            raise LayerError(f"kernel_size is {p.kernel_size}; an odd number was needed (Odd kernel size required)")
        if min(p.stride_1, p.stride_2) < 1:
            raise LayerError(f"stride_1 is {p.stride_1}, stride_2 {p.stride_2}; both must be at least 1")
        subtracts = p.correlation_type == CorrelationParameter.SUBTRACT
        return cls(p.pad, p.kernel_size, p.max_displacement, p.stride_1, p.stride_2, subtracts)

    @property
    def shifts(self) -> int:
        """How many shifts there are along each axis."""
        return 2 * (self.displacement // self.step) + 1

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        check_4d(bottoms[0])
        if bottoms[0] != bottoms[1]:
            raise LayerError(
                f"the bottoms are {format_shape(bottoms[0])} and {format_shape(bottoms[1])}; one shape was needed"
            )
        border = self.displacement + (self.kernel - 1) // 2
        sizes = [-(-(size + 2 * self.pad - 2 * border) // self.stride) for size in bottoms[0][2:]]
        if min(sizes) < 1:
            raise LayerError(
                f"the top would be {format_shape(sizes)} (height × width); a larger input or pad, or a smaller "
                "max_displacement was needed (Correlation cannot be done with current settings. Neighborhood and kernel "
                "don't fit in blob)"
            )
        return [(bottoms[0][0], self.shifts**2, *sizes)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        # before windows are averaged: every place that one of them covers
        sizes = [(size - 1) * self.stride + self.kernel for size in node.top_shapes[0][2:]]
        first, second = (self._padded(onnx, bottom) for bottom in node.bottoms)
        start = [self.displacement, self.displacement]
        first = _window(onnx, first, start, sizes, [2, 3], "first")
        first = onnx.op("Unsqueeze", [first, onnx.ints("shift_axis", [2])], what="first")
        shifts = self.displacement + (np.arange(self.shifts) - self.shifts // 2) * self.step
        columns = onnx.ints("columns", shifts[:, None] + np.arange(sizes[1]))
        rows_of_shifts = []
        for shift in shifts:
            rows = _window(onnx, second, [int(shift)], sizes[:1], [2], "rows")
            shifted = onnx.op("Gather", [rows, columns], axis=3, what="shifted")  # N×C×rows×D×columns
            shifted = onnx.op("Transpose", [shifted], perm=[0, 1, 3, 2, 4], what="shifted")
            if self.subtracts:
                likeness = onnx.op("Abs", [onnx.op("Sub", [first, shifted], what="apart")], what="likeness")
            else:
                likeness = onnx.op("Mul", [first, shifted], what="likeness")
            rows_of_shifts.append(onnx.reduce("ReduceMean", likeness, [1], keepdims=False, what="mean"))
        if self.kernel == self.stride == 1:
            onnx.emit("Concat", rows_of_shifts, node.tops, axis=1)
            return
        places = onnx.op("Concat", rows_of_shifts, axis=1, what="places")
        window = [self.kernel] * 2
        onnx.emit("AveragePool", [places], node.tops, kernel_shape=window, strides=[self.stride] * 2)

    def _padded(self, onnx: OnnxBuilder, bottom: str) -> str:
        if not self.pad:
            return bottom
        return onnx.op("Pad", [bottom, onnx.ints("border", [0, 0, self.pad, self.pad] * 2)], what="padded")

    @property
    def mixes_positions(self) -> bool:
        return True

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(tops[0]) * bottoms[0][1] * self.kernel**2


def _window(
    onnx: OnnxBuilder, value: str, start: Sequence[int], sizes: Sequence[int], axes: Sequence[int], what: str
) -> str:
    end = [first + size for first, size in zip(start, sizes, strict=True)]
    bounds = [onnx.ints(f"{what}_start", start), onnx.ints(f"{what}_end", end), onnx.ints(f"{what}_axes", axes)]
    return onnx.op("Slice", [value, *bounds], what=what)


@dataclass(frozen=True)
class FlowWarp(Layer):
    """Each value from where a flow says it comes from: bilinear at (x + u, y + v) (flow_warp_layer.cpp).

    Bottoms: N×C×H×W, and the flow N×2×H×W, u and v in pixels. Outside 0 ≤ x < W, 0 ≤ y < H it is fill_value, 0 or NaN;
    the last row and column are held.
    """

    bottoms: ClassVar[Arity] = exactly(2)
    in_place: ClassVar[bool] = False
    computes_in_float32: ClassVar[bool] = True

    fill: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        fill = layer.proto.flow_warp_param.fill_value
        return cls(float("nan") if fill == FlowWarpParameter.NOT_A_NUMBER else 0.0)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x, flow = bottoms
        check_4d(x)
        if flow != (x[0], 2, *x[2:]):
            raise LayerError(
                f"the flow is {format_shape(flow)}; {format_shape((x[0], 2, *x[2:]))} was needed, for the bottom "
                f"{format_shape(x)}"
            )
        return [x]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        num, channels, *plane = onnx.dims(node.bottoms[0])
        size = onnx.fixed(tuple(plane), "a FlowWarp needs to know the size of its input")
        places = count(size)
        planes = onnx.reshape(node.bottoms[0], (num, 1, channels, places), what="planes")
        flow = onnx.reshape(node.bottoms[1], (num, 2, 1, places), what="flow")
        rows, columns = np.indices(size).reshape(2, -1)
        coordinates = []
        for name, channel, start in (("y", 1, rows), ("x", 0, columns)):
            move = onnx.op("Gather", [flow, onnx.ints(f"{name}_channel", [channel])], axis=1, what="move")
            coordinates.append(onnx.op("Add", [move, onnx.floats(f"{name}_start", start)], what=name))
        value = sampled(onnx, planes, (coordinates[0], coordinates[1]), size, outside=self.fill)
        onnx.reshape(value, onnx.dims(node.tops[0]), to=node.tops[0])

    def float32_values(self, node: Node) -> frozenset[str]:
        return frozenset(node.bottoms[1:])

    @property
    def mixes_positions(self) -> bool:
        return True


@dataclass(frozen=True)
class Resample(Layer):
    """Another size: NEAREST, LINEAR (a triangle's weights) or CUBIC (Catmull-Rom's) (resample_layer.cu).

    N×C×H×W → N×C×height×width; the size is the second bottom's, or width and height, or `factor` times the bottom's.
    A place x of the top reads at x·fx + fy/2 - 0.5 and y·fy + fx/2 - 0.5, fx and fy being bottom / top: the halves are
    swapped, as in the fork. Where the top is smaller along an axis, `antialias` widens the weights by the ratios.
    """

    bottoms: ClassVar[Arity] = Arity(1, 2)
    in_place: ClassVar[bool] = False
    settings: ClassVar[str] = "resample_param"
    size_settings: ClassVar[tuple[str, ...]] = ("height", "width")

    method: str
    size: tuple[int, int] | None
    factor: float
    antialias: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.resample_param
        method = ResampleParameter.ResampleType.Name(p.type)
        if method == "AREA":
            raise LayerError("`type: AREA` has no rule in the fork either; NEAREST, LINEAR or CUBIC was needed")
        if p.HasField("width") != p.HasField("height"):
            raise LayerError("width and height: both or none were needed")
        return cls(method, (p.height, p.width) if p.HasField("width") else None, p.factor, p.antialias)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        check_4d(bottoms[0])
        if len(bottoms) == 2:
            check_4d(bottoms[1], "the second bottom")
        size = self._size(bottoms)
        if min(size) < 1:
            raise LayerError(f"the top would be {format_shape(size)} (height × width); at least 1×1 was needed")
        if self.method == "NEAREST":
            _nearest(bottoms[0][2:], size)
        return [(*bottoms[0][:2], *size)]

    def _size(self, bottoms: Shapes) -> Shape:
        if len(bottoms) == 2:
            return bottoms[1][2:]
        return self.size or tuple(int(size * np.float32(self.factor)) for size in bottoms[0][2:])

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        why = "a Resample needs to know the size of its input"
        inside, size = (onnx.fixed(onnx.dims(blob)[2:], why) for blob in (node.bottoms[0], node.tops[0]))
        x = node.bottoms[0]
        if inside == size:
            onnx.emit("Identity", [x], node.tops)
        elif self.method == "NEAREST":
            row_places, column_places = _nearest(inside, size)
            tall = onnx.op("Gather", [x, onnx.ints("rows", row_places)], axis=2, what="tall")
            onnx.emit("Gather", [tall, onnx.ints("columns", column_places)], node.tops, axis=3)
        else:
            rows, columns = self._weights(inside, size)
            tall = onnx.op("MatMul", [onnx.floats("rows", rows), x], what="tall")
            onnx.emit("MatMul", [tall, onnx.floats("columns", columns.T)], node.tops)

    def _weights(self, inside: Shape, size: Shape) -> tuple[FloatArray, FloatArray]:
        """The matrices top × bottom of the weights along height and along width."""
        positions, ratios = _positions(inside, size)
        widened = self.antialias and max(ratios) > 1
        rule = _triangle if self.method == "LINEAR" else _catmull_rom
        matrices = []
        for places, position, ratio in zip(inside, positions, ratios, strict=True):
            width = ratio if widened else np.float32(1)
            weights = rule(((position[:, None] - np.arange(places)) / width).astype(np.float32))
            total = weights.sum(axis=1, keepdims=True)
            # caffe: nothing but 0 where no place has a weight
            matrices.append(np.divide(weights, total, out=np.zeros_like(weights), where=total != 0))
        return matrices[0], matrices[1]

    @classmethod
    def settings_for(cls, layer: LayerDef, bottoms: Shapes, top: int, wanted: Shape) -> Sequence[Settings]:
        return ({"height": wanted[2], "width": wanted[3]},) if len(wanted) == 4 else ()

    @property
    def mixes_positions(self) -> bool:
        return True


def _positions(inside: Shape, size: Shape) -> tuple[Sequence[FloatArray], tuple[np.float32, np.float32]]:
    """Where each row and each column of the top reads, in float as the fork has it, and the ratios bottom / top."""
    fy, fx = (np.float32(before) / np.float32(after) for before, after in zip(inside, size, strict=True))
    halves = (fx / np.float32(2), fy / np.float32(2))
    numbers = (np.arange(places, dtype=np.float32) for places in size)
    positions = [
        number * ratio + half - np.float32(0.5) for number, ratio, half in zip(numbers, (fy, fx), halves, strict=True)
    ]
    return positions, (fy, fx)


def _nearest(inside: Shape, size: Shape) -> Sequence[NDArray[np.int64]]:
    """The bottom's row and column for each of the top; raises LayerError where one lies outside."""
    places = []
    for limit, position in zip(inside, _positions(inside, size)[0], strict=True):
        place = (np.sign(position) * np.floor(np.abs(position) + np.float32(0.5))).astype(np.int64)
        if place.min() < 0 or place.max() >= limit:
            raise LayerError(
                f"from {format_shape(inside)} to {format_shape(size)} with `type: NEAREST`: the fork would read outside the "
                "bottom. Both ratios should be equal, or `type: LINEAR`"
            )
        places.append(place)
    return places


def _triangle(distance: FloatArray) -> FloatArray:
    return np.asarray(np.maximum(0, 1 - np.abs(distance)), np.float32)


def _catmull_rom(distance: FloatArray) -> FloatArray:
    """Cubic convolution with a = -0.5."""
    d = np.abs(distance)
    near, far = ((1.5 * d - 2.5) * d) * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.asarray(np.where(d < 1, near, np.where(d < 2, far, 0)), np.float32)


@dataclass(frozen=True)
class ChannelNorm(Layer):
    """The root of the sum of squares over the channels, N×1×H×W (channel_norm_layer.cu)."""

    in_place: ClassVar[bool] = False
    computes_in_float32: ClassVar[bool] = True

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls()

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        check_4d(bottoms[0])
        return [(bottoms[0][0], 1, *bottoms[0][2:])]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.reduce("ReduceL2", node.bottoms[0], [1], keepdims=True, to=node.tops[0])

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        # caffe: so small a number keeps the quotient finite where all channels are 0
        norm = onnx.op("Add", [node.tops[0], onnx.floats("least", 1e-9)], what="norm")
        share = onnx.op("Div", [node.bottoms[0], norm], what="share")
        return Gradients((onnx.op("Mul", [share, top_diffs[0]], what="bottom_diff"),))
