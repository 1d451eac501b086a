"""Layers that resize planes by rules of their own: ResizeBilinear, ResizeNearestNeighbor, DeephiResize, Resize and kin."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from caffeconv.caffe_pb2 import ResizeBilinearParameter, ResizeNearestNeighborParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Gradients, Layer, Node
from caffeconv.layers.gradient_ops import refuse_all, sum_over
from caffeconv.tensor.axis_order import AxisOrder
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

FORMATS = {"NHWC": (1, 2), "NCHW": (2, 3), "NCHWD": (2, 3, 4)}
"""`data_format` → the axes that are resized."""


@dataclass(frozen=True)
class TargetSize:
    """One size of a top: given, or the bottom's times a factor, rounded down."""

    size: int | None
    factor: float

    def over(self, bottom: int) -> int:
        return math.floor(np.float32(bottom) * np.float32(self.factor)) if self.size is None else self.size


@dataclass(frozen=True)
class Resize(Layer):
    """What Synopsys' two resizing layers share. `data_format` says which axes are height and width; NHWC by default."""

    in_place: ClassVar[bool] = False

    axes: tuple[int, ...]
    targets: tuple[TargetSize, ...]
    coordinates: str
    """align_corners, half_pixel_centers, …: the field that says which place of the bottom a place of the top lies at."""

    @classmethod
    def _parse_from(
        cls, p: ResizeBilinearParameter | ResizeNearestNeighborParameter, modes: Sequence[str], axes: tuple[int, ...]
    ) -> Self:
        chosen = [mode for mode in modes if getattr(p, mode)]
        if len(chosen) > 1:
            raise LayerError(f"{' and '.join(chosen)}: true; at most one of them was needed")
        targets = []
        for name in ("height", "width", "depth")[: len(axes)]:
            size = getattr(p, f"output_{name}") if p.HasField(f"output_{name}") else None
            targets.append(TargetSize(size, getattr(p, f"scale_{name}")))
        return cls(axes, tuple(targets), chosen[0] if chosen else "")

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        axes = max(self.axes[-1] + 1, 4)
        if len(bottoms[0]) != axes:
            raise LayerError(f"the bottom is {format_shape(bottoms[0])}; {axes} axes were needed")
        top = list(bottoms[0])
        for axis, target in zip(self.axes, self.targets, strict=True):
            top[axis] = target.over(bottoms[0][axis])
        if min(top) < 1:
            raise LayerError(
                f"the top would be {format_shape(top)}; output_height and output_width, or scale_height and scale_width, "
                "of which a place is left were needed"
            )
        return [tuple(top)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x = node.bottoms[0]
        onnx.fixed(tuple(onnx.dims(x)[axis] for axis in self.axes), "resizing needs to know the sizes of its input")
        # the fork interpolates along the last axis first
        for axis in reversed(self.axes):
            size, places = node.bottom_shapes[0][axis], node.top_shapes[0][axis]
            x = self.along(axis, size, places, x, onnx)
        onnx.emit("Identity", [x], node.tops)

    @abstractmethod
    def along(self, axis: int, size: int, places: int, x: str, onnx: OnnxBuilder) -> str:
        """`x` with `places` in place of `size` along an axis."""

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        return super().axis_orders(node, bottoms) if self.axes[0] == 2 else None

    def _step(self, size: int, places: int) -> np.float32:
        """How far apart places of the top lie in the bottom."""
        if self.coordinates == "align_corners" and places > 1:
            size, places = size - 1, places - 1
        step: np.float32 = np.float32(size) / np.float32(places)
        return step


@dataclass(frozen=True)
class ResizeNearestNeighbor(Resize):
    """Each place of the top takes the value of one place of the bottom (Synopsys: resize_nearest_neighbor_layer.cpp)."""

    only_moves_data: ClassVar[bool] = True

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.resize_nearest_neighbor_param
        axes = FORMATS["NHWC" if p.data_format == "NHWC" else "NCHW"]
        return cls._parse_from(p, ("align_corners", "half_pixel_centers", "half_pixel_onnx"), axes)

    def along(self, axis: int, size: int, places: int, x: str, onnx: OnnxBuilder) -> str:
        sources = self.sources(size, places)
        if size == places and (sources == np.arange(size)).all():
            return x
        return onnx.op("Gather", [x, onnx.ints(f"sources_{axis}", sources)], axis=axis, what="picked")

    def sources(self, size: int, places: int) -> NDArray[np.int64]:
        """The place of the bottom that each place of the top takes its value from."""
        step, place = self._step(size, places), np.arange(places, dtype=np.float32)
        half = np.float32(0.5)
        if self.coordinates == "align_corners":
            position = np.floor(place * step + half)  # halves away from zero, and nothing is below zero
        elif self.coordinates == "half_pixel_centers":
            position = np.floor((place + half) * step)
        elif self.coordinates == "half_pixel_onnx":
            position = np.floor((place + half) * step - half)
        else:
            position = np.floor(place * step)
        sources: NDArray[np.int64] = np.clip(position, 0, size - 1).astype(np.int64)
        return sources


@dataclass(frozen=True)
class ResizeBilinear(Resize):
    """Linear interpolation along height and width (and depth: NCHWD) (Synopsys: resize_bilinear_layer.cpp)."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.resize_bilinear_param
        quantized = [name for name, default in QUANTIZATION.items() if getattr(p, name) != default]
        if quantized:
            raise LayerError(
                f"{', '.join(quantized)} of a quantised net; a net of floating-point numbers was needed, in which these "
                "fields are left out"
            )
        if p.data_format not in FORMATS:
            raise LayerError(f"data_format is {p.data_format!r}; one of {', '.join(FORMATS)} was needed")
        modes = ("align_corners", "half_pixel_centers", "pytorch_half_pixel")
        return cls._parse_from(p, modes, FORMATS[p.data_format])

    def along(self, axis: int, size: int, places: int, x: str, onnx: OnnxBuilder) -> str:
        lower, upper, share = self.neighbours(size, places)
        if size == places and not share.any() and (lower == np.arange(size)).all():
            return x
        below = onnx.op("Gather", [x, onnx.ints(f"lower_{axis}", lower)], axis=axis, what="below")
        above = onnx.op("Gather", [x, onnx.ints(f"upper_{axis}", upper)], axis=axis, what="above")
        after = max(self.axes[-1] + 1, 4) - axis - 1
        shares = onnx.floats(f"share_{axis}", share.reshape(-1, *([1] * after)))
        step = onnx.op("Mul", [onnx.op("Sub", [above, below], what="difference"), shares], what="step")
        return onnx.op("Add", [below, step], what="interpolated")

    def neighbours(self, size: int, places: int) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
        """For each place of the top: the places of the bottom below and above it, and the share of the latter."""
        step, place, half = self._step(size, places), np.arange(places, dtype=np.float32), np.float32(0.5)
        if self.coordinates == "pytorch_half_pixel" and places == 1:
            position = np.full(1, -0.5, np.float32)
        elif self.coordinates in ("half_pixel_centers", "pytorch_half_pixel"):
            position = (place + half) * step - half
        else:
            position = place * step
        floor = np.floor(position)
        lower = np.maximum(floor, 0).astype(np.int64)
        upper = np.minimum(np.ceil(position), size - 1).astype(np.int64)
        share: FloatArray = (position - floor).astype(np.float32)
        return lower, upper, share


@dataclass(frozen=True)
class DeephiResize(ResizeBilinear):
    """Height and width of N×C×H×W as OpenCV resizes them (caffe-xilinx: deephi_resize_layer.cpp).

    BILINEAR: linear between the centres of places; NEAREST: the place to the upper left.
    """

    in_place: ClassVar[bool] = True

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.deephi_resize_param
        for names in (("new_height", "new_width"), ("scale_h", "scale_w")):
            if p.HasField(names[0]) != p.HasField(names[1]):
                raise LayerError(f"one of {' and '.join(names)}; {' and '.join(names)} should be set at the same time")
        sizes = (p.new_height, p.new_width) if p.HasField("new_height") else (None, None)
        targets = tuple(TargetSize(*pair) for pair in zip(sizes, (p.scale_h, p.scale_w), strict=True))
        return cls((2, 3), targets, "" if p.resize_type == p.NEAREST else "half_pixel_centers")

    def along(self, axis: int, size: int, places: int, x: str, onnx: OnnxBuilder) -> str:
        if self.coordinates:
            return super().along(axis, size, places, x, onnx)
        return ResizeNearestNeighbor(self.axes, self.targets, "").along(axis, size, places, x, onnx)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return refuse_all(propagate_down)


@dataclass(frozen=True)
class PlaneResize(Resize):
    """Height and width of N×C×H×W by `resize_ratio`, or to given sizes (Face_Parsing_2016: resize_layer.cpp).

    BILINEAR: linear from the first place on; beyond the last place is 0. NEAREST: the place that the ratio leads back to.
    """

    ratio: float = 1.0

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.resize_param
        foreign = [name for name in ("function_type", "intepolation_type", "resize_factor") if p.HasField(name)]
        if foreign:
            raise LayerError(
                f"{foreign[0]} is of another fork's Resize, whose rule is not known; resize_ratio was needed"
            )
        if not p.resize_ratio > 0:
            raise LayerError(f"resize_ratio is {p.resize_ratio:g}; a number above 0 was needed")
        sizes: tuple[int | None, int | None] = (None, None)
        factors = p.resize_ratio, p.resize_ratio
        if p.is_pyramid_test:
            factors = p.out_height_scale, p.out_width_scale
        elif p.HasField("height"):
            sizes = int(p.height), int(p.width)
        targets = tuple(TargetSize(*pair) for pair in zip(sizes, factors, strict=True))
        return cls((2, 3), targets, p.Type.Name(p.type), p.resize_ratio)

    def along(self, axis: int, size: int, places: int, x: str, onnx: OnnxBuilder) -> str:
        weights = self.weights(size, places) if self.coordinates == "BILINEAR" else self._picks(size, places)
        return _along(onnx, axis, x, weights, f"weights_{axis}")

    def weights(self, size: int, places: int) -> FloatArray:
        """places × size."""
        position = np.arange(places, dtype=np.float32) * self._step(size, places)
        lower = np.floor(position).astype(np.int64)
        share = position - lower
        weights = np.zeros((places, size + 1), np.float32)
        weights[np.arange(places), lower], weights[np.arange(places), lower + 1] = 1 - share, share
        return weights[:, :size]

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        tops = super().top_shapes(bottoms)
        for axis in self.axes if self.coordinates == "NEAREST" else ():
            last, size = int(self._sources(tops[0][axis])[-1]), bottoms[0][axis]
            if last >= size:
                raise LayerError(
                    f"place {last} of {size} would be read; NEAREST goes by resize_ratio, with sizes of its own BILINEAR "
                    "was needed"
                )
        return tops

    def _sources(self, places: int) -> NDArray[np.int64]:
        sources: NDArray[np.int64] = (np.arange(places, dtype=np.float32) / np.float32(self.ratio)).astype(np.int64)
        return sources

    def _picks(self, size: int, places: int) -> FloatArray:
        picks: FloatArray = np.eye(size, dtype=np.float32)[self._sources(places)]
        return picks

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        diff = top_diffs[0]
        for axis in self.axes:
            size, places = node.bottom_shapes[0][axis], node.top_shapes[0][axis]
            back = self.weights(size, places).T if self.coordinates == "BILINEAR" else self._cells(size, places)
            diff = _along(onnx, axis, diff, back, f"weights_back_{axis}")
        return Gradients((diff,))

    def _cells(self, size: int, places: int) -> FloatArray:
        """Which places of the top each place of the bottom takes its diff from: size × places."""
        ratio = np.float32(self.ratio)
        first = (np.arange(size, dtype=np.float32) * ratio).astype(np.int64)[:, None]
        end = (first.astype(np.float32) + ratio).astype(np.int64)
        place = np.arange(places)
        cells: FloatArray = ((place >= first) & (place < end)).astype(np.float32)
        return cells


def _along(onnx: OnnxBuilder, axis: int, x: str, weights: FloatArray, what: str) -> str:
    """Sums of N×C×H×W along its axis 2 or 3, with weights new size × old size."""
    if axis == 2:
        return onnx.op("MatMul", [onnx.floats(what, weights), x], what="along_rows")
    return onnx.op("MatMul", [x, onnx.floats(what, weights.T)], what="along_columns")


QUANTIZATION = {"input_scale": 1, "output_scale": 1, "input_zero_point": 0, "output_zero_point": 0}
"""Fields of Synopsys' quantised nets, with the values that change nothing."""


@dataclass(frozen=True)
class UpsampleDarknet(Layer):
    """Each value of N×C×H×W becomes stride × stride of them (Synopsys: upsample_darknet_layer.cpp)."""

    in_place: ClassVar[bool] = False
    only_moves_data: ClassVar[bool] = True

    stride: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        stride = layer.proto.upsample_darknet_param.stride
        if stride < 1:
            raise LayerError(f"stride is {stride}; at least 1 was needed")
        return cls(stride)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if len(bottoms[0]) != 4:
            raise LayerError(f"the bottom is {format_shape(bottoms[0])}; N×C×H×W was needed")
        return [(*bottoms[0][:2], *(size * self.stride for size in bottoms[0][2:]))]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit(
            "Resize", [node.bottoms[0], "", onnx.floats("scales", [1, 1, self.stride, self.stride])], node.tops,
            mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        dims, (height, width) = onnx.dims(node.bottoms[0]), node.bottom_shapes[0][2:]
        cells = onnx.reshape(top_diffs[0], (*dims[:2], height, self.stride, width, self.stride), what="cells")
        return Gradients((sum_over(onnx, cells, [3, 5], "bottom_diff"),))


@dataclass(frozen=True)
class Downsample(Layer):
    """N×C×H×W → N×C×top_height×top_width, averaged around places between corners (FlowNet2: downsample_layer.cu).

    Weights fall linearly to 0 at the distance of one place of the top. Values that are NaN do not count; where they
    have more than half of the others' weight the result is NaN. A second bottom gives its own height and width.
    """

    bottoms: ClassVar[Arity] = Arity(1, 2)
    in_place: ClassVar[bool] = False

    size: tuple[int, int] | None
    """top_height, top_width; None: the second bottom's."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.downsample_param
        if len(layer.bottoms) == 2:
            return cls(None)
        return cls((p.top_height, p.top_width))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        for bottom in bottoms:
            if len(bottom) != 4:
                raise LayerError(f"a bottom is {format_shape(bottom)}; N×C×H×W was needed")
        size = bottoms[-1][2:] if self.size is None else self.size
        if size != bottoms[0][2:] and min(size) < 2:
            raise LayerError(
                f"top_height and top_width are {format_shape(size)}; at least 2 were needed, as places lie between corners"
            )
        return [(*bottoms[0][:2], *size)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x, top = node.bottoms[0], node.tops[0]
        sizes: Shape = onnx.fixed(onnx.dims(x)[2:], "downsampling needs to know the sizes of its input")
        places = node.top_shapes[0][2:]
        if sizes == places:
            onnx.emit("Identity", [x], [top])
            return
        missing = onnx.op("IsNaN", [x], what="missing")
        zero, one = onnx.floats("zero", 0), onnx.floats("one", 1)
        rows = onnx.floats("rows", _triangle(sizes[0], places[0]))
        columns = onnx.floats("columns", _triangle(sizes[1], places[1]).T)
        sums = []
        for what, value in (
            ("value", onnx.op("Where", [missing, zero, x], what="known")),
            ("weight", onnx.op("Where", [missing, zero, one], what="counts")),
            ("missing_weight", onnx.op("Where", [missing, one, zero], what="counts_missing")),
        ):
            by_column = onnx.op("MatMul", [value, columns], what="by_column")
            sums.append(onnx.op("MatMul", [rows, by_column], what=what))
        average = onnx.op("Div", [sums[0], sums[1]], what="average")
        share = onnx.op("Div", [sums[2], sums[1]], what="missing_share")
        unknown = onnx.op("Greater", [share, onnx.floats("half", 0.5)], what="unknown")
        onnx.emit("Where", [unknown, onnx.floats("nan", math.nan), average], [top])


def _triangle(size: int, places: int) -> FloatArray:
    """The weights of `size` places of the bottom for each place of the top: places × size."""
    ratio = np.float32(size - 1) / np.float32(places - 1)
    centre = np.arange(places, dtype=np.float32) / np.float32(places - 1) * np.float32(size - 1)
    distance = np.abs(np.arange(size, dtype=np.float32)[None, :] - centre[:, None])
    weights: FloatArray = np.maximum(np.float32(0), 1 - distance / ratio).astype(np.float32)
    return weights
