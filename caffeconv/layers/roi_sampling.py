"""Regions of interest sampled bilinearly: ROIAlign (Cascade R-CNN), PSROIAlign (R-FCN's successors) and MNC's layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import FLOAT, INT64
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, exactly
from caffeconv.layers.gradient_ops import added_rows, refuse_to
from caffeconv.layers.rois import (
    ScaledRegions,
    check_bottoms,
    check_position_sensitive,
    columns,
    example_rois,
    padded,
    position_sensitive_shape,
    rounded,
)
from caffeconv.tensor.shape import FloatArray, Shapes, format_shape

if TYPE_CHECKING:
    from numpy.random import Generator
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Samples:
    """Where an axis is read: values that broadcast to R×P×Q."""

    low: str
    """The neighbour below, int64."""
    high: str
    share: str
    """How much of the value is the upper neighbour's."""
    inside: str
    """1 where the place counts, else 0."""


def samples(onnx: OnnxBuilder, places: str, size: int, margin: float) -> Samples:
    """Reads an axis of `size` at `places`, held to it; those further than `margin` outside 0…size-1 do not count."""
    last = onnx.floats(f"last_{size}", size - 1)
    below = onnx.op("Less", [places, onnx.floats("first_place", -margin)], what="below")
    above = onnx.op("Greater", [places, onnx.floats(f"last_place_{size}", size - 1 + margin)], what="above")
    inside = onnx.op("Not", [onnx.op("Or", [below, above], what="outside")], what="inside")
    place = onnx.op("Clip", [places, onnx.floats("zero", 0), last], what="place")
    low = onnx.op("Floor", [place], what="low")
    high = onnx.op("Min", [onnx.op("Add", [low, onnx.floats("one", 1)], what="high"), last], what="high")
    return Samples(
        onnx.op("Cast", [low], to=INT64, what="low_place"), onnx.op("Cast", [high], to=INT64, what="high_place"),
        onnx.op("Sub", [place, low], what="share"), onnx.op("Cast", [inside], to=FLOAT, what="inside"),
    )  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """Where R regions are read, at P×Q places each, in planes that lie one after another, row after row of `width`."""

    plane: str
    """The first place of the plane, int64, that broadcasts to R×P×Q."""
    width: int
    y: Samples
    x: Samples


def bilinear(onnx: OnnxBuilder, rows: str, grid: Grid) -> str:
    """Values between four neighbours: R×P×Q×C, of rows places×C."""
    column, plane, width, y, x = onnx.ints("last_axis", [-1]), grid.plane, grid.width, grid.y, grid.x

    def line(row: str) -> str:
        start = onnx.op("Mul", [row, onnx.ints("row_size", width)], what="row_start")
        start = onnx.op("Add", [plane, start], what="row_start")
        low, high = (
            onnx.op("Gather", [rows, onnx.op("Add", [start, place], what="index")], axis=0, what="neighbour")
            for place in (x.low, x.high)
        )
        return _between(onnx, low, high, onnx.op("Unsqueeze", [x.share, column], what="x_share"))

    value = _between(onnx, line(y.low), line(y.high), onnx.op("Unsqueeze", [y.share, column], what="y_share"))
    counts = onnx.op("Unsqueeze", [onnx.op("Mul", [y.inside, x.inside], what="counts"), column], what="counts")
    return onnx.op("Mul", [value, counts], what="samples")


def spread(onnx: OnnxBuilder, rows: str, grid: Grid, diff: str, channels: int) -> str:
    """The transpose of `bilinear`: what diffs R×P×Q×C add to the rows, places×C."""
    indices, updates = [], []
    one = onnx.floats("whole", 1)
    y_shares = ((grid.y.low, onnx.op("Sub", [one, grid.y.share], what="rest")), (grid.y.high, grid.y.share))
    x_shares = ((grid.x.low, onnx.op("Sub", [one, grid.x.share], what="rest")), (grid.x.high, grid.x.share))
    counts = onnx.op("Mul", [grid.y.inside, grid.x.inside], what="counts")
    for row, y_share in y_shares:
        start = onnx.op("Mul", [row, onnx.ints("row_size", grid.width)], what="row_start")
        start = onnx.op("Add", [grid.plane, start], what="row_start")
        for place, x_share in x_shares:
            share = onnx.op("Mul", [onnx.op("Mul", [y_share, x_share], what="share"), counts], what="share")
            share = onnx.op("Unsqueeze", [share, onnx.ints("last_axis", [-1])], what="share")
            updates.append(onnx.op("Mul", [diff, share], what="update"))
            indices.append(onnx.reshape(onnx.op("Add", [start, place], what="index"), (None,), what="index"))
    places = onnx.op("Concat", indices, axis=0, what="indices")
    added = onnx.op("Concat", updates, axis=0, what="updates")
    added = onnx.reshape(added, (None, channels), what="updates")
    return added_rows(onnx, rows, places, added, 2, "rows_diff")


def _between(onnx: OnnxBuilder, low: str, high: str, share: str) -> str:
    rest = onnx.op("Sub", [onnx.floats("whole", 1), share], what="rest")
    return onnx.op("Add", [onnx.op("Mul", [low, rest]), onnx.op("Mul", [high, share])], what="between")


@dataclass(frozen=True)
class SampledRegions(ScaledRegions):
    """Features N×C×H×W and regions R×5, rows (picture, x1, y1, x2, y2), of which each is read at a grid of places."""

    bottoms: ClassVar[Arity] = exactly(2)
    in_place: ClassVar[bool] = False
    computes_in_float32: ClassVar[bool] = True

    scale: float
    """What brings a pixel of the picture to the feature map."""

    @abstractmethod
    def _grid(self, node: Node, onnx: OnnxBuilder) -> Grid:
        """Where the regions are read in `_rows`."""

    def _rows(self, node: Node, onnx: OnnxBuilder) -> str:
        """The features, a row for each place: (N·H·W)×C."""
        rows = onnx.op("Transpose", [node.bottoms[0]], perm=[0, 2, 3, 1], what="channels_last")
        return onnx.reshape(rows, (None, node.bottom_shapes[0][1]), what="rows")

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        values = bilinear(onnx, self._rows(node, onnx), self._grid(node, onnx))
        onnx.emit("Transpose", [values], node.tops, perm=[0, 3, 1, 2])

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        refuse_to("regions", propagate_down, 1)
        channels, height, width = node.bottom_shapes[0][1:]
        diff = onnx.op("Transpose", [top_diffs[0]], perm=[0, 2, 3, 1], what="diff_of_places")
        rows = spread(onnx, self._rows(node, onnx), self._grid(node, onnx), diff, channels)
        rows = onnx.reshape(rows, (onnx.dims(node.bottoms[0])[0], height, width, channels), what="rows_diff")
        return Gradients((onnx.op("Transpose", [rows], perm=[0, 3, 1, 2], what="bottom_diff"), None))

    def float32_values(self, node: Node) -> frozenset[str]:
        return frozenset(node.bottoms[1:])

    @property
    def mixes_positions(self) -> bool:
        return True

    def example(self, bottom: int, shapes: Shapes, random: Generator) -> FloatArray | None:
        return example_rois(shapes, self.scale, random) if bottom == 1 else None


@dataclass(frozen=True)
class ROIAlign(SampledRegions):
    """The features at the corners of a grid of pooled_h × pooled_w cells over each region.

    Top R×C×(pooled_h+1)×(pooled_w+1); an average pooling of 2×2 usually follows. A region is widened by `pad_ratio` of
    its size, scaled, and moved by half a cell of the map; a place more than half a cell outside the map, and a region
    without extent, give 0 (cascade-rcnn: roi_align_layer.cpp, which reads roi_pooling_param).
    """

    settings: ClassVar[str] = "roi_pooling_param"

    pooled: tuple[int, int]
    pad_ratio: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        if layer.proto.HasField("roi_align_param"):
            raise LayerError(
                "roi_align_param, Mask R-CNN's rule, is not supported; ROIAlign of Cascade R-CNN reads "
                "roi_pooling_param { pooled_h pooled_w spatial_scale pad_ratio }, which samples the corners of the grid"
            )
        p = layer.proto.roi_pooling_param
        if p.pooled_h < 1 or p.pooled_w < 1:
            raise LayerError(f"pooled_h is {p.pooled_h}, pooled_w {p.pooled_w}; both must be > 0")
        return cls(p.spatial_scale, (p.pooled_h, p.pooled_w), p.pad_ratio)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        check_bottoms(bottoms)
        return [(bottoms[1][0], bottoms[0][1], self.pooled[0] + 1, self.pooled[1] + 1)]

    def _grid(self, node: Node, onnx: OnnxBuilder) -> Grid:
        height, width = node.bottom_shapes[0][2:]
        picture, left, top, right, bottom = padded(onnx, columns(node, onnx), self.pad_ratio)
        y = self._samples(onnx, top, bottom, height, self.pooled[0], axis=2)
        x = self._samples(onnx, left, right, width, self.pooled[1], axis=1)
        return _whole_maps(node, onnx, picture, y, x)

    def _samples(self, onnx: OnnxBuilder, low: str, high: str, size: int, cells: int, *, axis: int) -> Samples:
        scale, half = onnx.floats("spatial_scale", self.scale), onnx.floats("half", 0.5)
        start, end = (onnx.op("Sub", [onnx.op("Mul", [edge, scale]), half], what="edge") for edge in (low, high))
        extent = onnx.op("Sub", [end, start], what="extent")
        reading = samples(onnx, _places(onnx, start, extent, cells, cells + 1, axis), size, 0.5)
        has_extent = onnx.op("Greater", [extent, onnx.floats("zero", 0)], what="has_extent")
        has_extent = onnx.op("Unsqueeze", [has_extent, onnx.ints(f"axis_{axis}", [axis])], what="has_extent")
        counts = onnx.op("Mul", [reading.inside, onnx.op("Cast", [has_extent], to=FLOAT)], what="counts")
        return Samples(reading.low, reading.high, reading.share, counts)


@dataclass(frozen=True)
class ROIWarping(SampledRegions):
    """The features at pooled_h × pooled_w places of each region, each at the start of its bin.

    Top R×C×pooled_h×pooled_w. The corners are scaled and rounded (halves away from 0); a place more than half a cell
    outside the map gives 0 (MNC: roi_warping_layer.cu).
    """

    settings: ClassVar[str] = "roi_warping_param"

    pooled: tuple[int, int]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.roi_warping_param
        if p.pooled_h < 1 or p.pooled_w < 1:
            raise LayerError(f"pooled_h is {p.pooled_h}, pooled_w {p.pooled_w}; both must be > 0")
        return cls(p.spatial_scale, (p.pooled_h, p.pooled_w))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        check_bottoms(bottoms)
        return [(bottoms[1][0], bottoms[0][1], *self.pooled)]

    def _grid(self, node: Node, onnx: OnnxBuilder) -> Grid:
        height, width = node.bottom_shapes[0][2:]
        picture, left, top, right, bottom = columns(node, onnx)
        y = self._samples(onnx, top, bottom, height, self.pooled[0], axis=2)
        x = self._samples(onnx, left, right, width, self.pooled[1], axis=1)
        return _whole_maps(node, onnx, picture, y, x)

    def _samples(self, onnx: OnnxBuilder, low: str, high: str, size: int, bins: int, *, axis: int) -> Samples:
        scale = onnx.floats("spatial_scale", self.scale)
        start, end = (rounded(onnx, onnx.op("Mul", [edge, scale], what="scaled")) for edge in (low, high))
        extent = onnx.op("Relu", [onnx.op("Sub", [end, start], what="extent")], what="extent")
        return samples(onnx, _places(onnx, start, extent, bins, bins, axis), size, 0.5)


@dataclass(frozen=True)
class PSROIAlign(SampledRegions):
    """The average of four samples in each of group_size × group_size bins, each bin in channels of its own.

    Bottoms: features N×(output_dim·g·g)×H×W, regions R×5; top R×output_dim×g×g, where bin (i, j) of output d reads
    channel (d·g + i)·g + j at a quarter and three quarters of its sides; a sample outside the map counts as 0, and so
    does a bin without extent (fallingdust/caffe-fast-rcnn: psroi_align_layer.cu, which reads psroi_pooling_param).
    """

    settings: ClassVar[str] = "psroi_pooling_param"
    class_settings: ClassVar[tuple[str, ...]] = ("output_dim",)

    output_dim: int
    group_size: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        if not layer.proto.HasField("psroi_pooling_param"):
            raise LayerError("psroi_pooling_param { spatial_scale output_dim group_size } was needed")
        p = layer.proto.psroi_pooling_param
        check_position_sensitive(p)
        return cls(p.spatial_scale, p.output_dim, p.group_size)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return [position_sensitive_shape(bottoms, self.output_dim, self.group_size)]

    def _rows(self, node: Node, onnx: OnnxBuilder) -> str:
        """The features, a row for each place of each bin's channels: (N·g·g·H·W)×output_dim."""
        places = int(np.prod(node.bottom_shapes[0][1:])) // self.output_dim
        rows = onnx.reshape(node.bottoms[0], (onnx.dims(node.bottoms[0])[0], self.output_dim, places), what="planes")
        rows = onnx.op("Transpose", [rows], perm=[0, 2, 1], what="planes")
        return onnx.reshape(rows, (None, self.output_dim), what="rows")

    def _grid(self, node: Node, onnx: OnnxBuilder) -> Grid:
        size, (height, width) = self.group_size, node.bottom_shapes[0][2:]
        picture, left, top, right, bottom = columns(node, onnx)
        picture = onnx.op("Cast", [picture], to=INT64, what="picture")
        picture = onnx.op("Mul", [picture, onnx.ints("picture_size", size * size * height * width)], what="picture")
        bins = np.arange(2 * size) // 2  # two samples a bin
        starts = (bins[:, None] * size + bins) * height * width
        plane = onnx.op("Unsqueeze", [picture, onnx.ints("column_axis", [2])], what="picture")
        plane = onnx.op("Add", [plane, onnx.ints("bin_start", starts)], what="plane_start")
        y = self._samples(onnx, top, bottom, height, axis=2)
        return Grid(plane, width, y, self._samples(onnx, left, right, width, axis=1))

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        size = self.group_size
        values = bilinear(onnx, self._rows(node, onnx), self._grid(node, onnx))
        values = onnx.reshape(values, (None, size, 2, size, 2, self.output_dim), what="samples_of_bins")
        total = onnx.reduce("ReduceSum", values, [2, 4], keepdims=False, what="sum")
        average = onnx.op("Div", [total, onnx.floats("samples_of_bin", 4)], what="average")
        onnx.emit("Transpose", [average], node.tops, perm=[0, 3, 1, 2])

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        refuse_to("regions", propagate_down, 1)
        diff = onnx.op("Div", [top_diffs[0], onnx.floats("samples_of_bin", 4)], what="diff_of_sample")
        diff = onnx.op("Transpose", [diff], perm=[0, 2, 3, 1], what="diff_of_bins")
        bins = onnx.ints("bins", np.arange(2 * self.group_size) // 2)
        for axis in (1, 2):
            diff = onnx.op("Gather", [diff, bins], axis=axis, what="diff_of_samples")
        rows = spread(onnx, self._rows(node, onnx), self._grid(node, onnx), diff, self.output_dim)
        num, places = onnx.dims(node.bottoms[0])[0], int(np.prod(node.bottom_shapes[0][1:])) // self.output_dim
        rows = onnx.reshape(rows, (num, places, self.output_dim), what="rows_diff")
        planes = onnx.op("Transpose", [rows], perm=[0, 2, 1], what="planes_diff")
        return Gradients((onnx.reshape(planes, onnx.dims(node.bottoms[0]), what="bottom_diff"), None))

    def _samples(self, onnx: OnnxBuilder, low: str, high: str, size: int, *, axis: int) -> Samples:
        scale, bins = onnx.floats("spatial_scale", self.scale), self.group_size
        start, end = (onnx.op("Mul", [edge, scale], what="edge") for edge in (low, high))
        extent = onnx.op("Sub", [end, start], what="extent")
        step = onnx.op("Div", [extent, onnx.floats("group_size", bins)], what="bin")
        parts = np.arange(bins).repeat(2) + np.tile([0.25, 0.75], bins)
        places = onnx.op("Mul", [step, onnx.floats("parts", parts)], what="moved")
        places = onnx.op("Add", [places, start], what="places")
        places = onnx.op("Unsqueeze", [places, onnx.ints(f"axis_{axis}", [axis])], what="places")
        reading = samples(onnx, places, size, 0)
        has_extent = onnx.op("Greater", [extent, onnx.floats("zero", 0)], what="has_extent")
        has_extent = onnx.op("Unsqueeze", [has_extent, onnx.ints(f"axis_{axis}", [axis])], what="has_extent")
        counts = onnx.op("Mul", [reading.inside, onnx.op("Cast", [has_extent], to=FLOAT)], what="counts")
        return Samples(reading.low, reading.high, reading.share, counts)


def _places(onnx: OnnxBuilder, start: str, extent: str, cells: int, number: int, axis: int) -> str:
    """start + i · extent / cells for i below `number`: R×number, with a further axis at `axis`."""
    step = onnx.op("Div", [extent, onnx.floats("cells", cells)], what="cell")
    places = onnx.op("Mul", [step, onnx.floats("corners", np.arange(number))], what="moved")
    places = onnx.op("Add", [start, places], what="places")
    return onnx.op("Unsqueeze", [places, onnx.ints(f"axis_{axis}", [axis])], what="places")


def _whole_maps(node: Node, onnx: OnnxBuilder, picture: str, y: Samples, x: Samples) -> Grid:
    """The grid in the features of the pictures R×1."""
    height, width = node.bottom_shapes[0][2:]
    plane = onnx.op("Cast", [picture], to=INT64, what="picture")
    plane = onnx.op("Mul", [plane, onnx.ints("picture_size", height * width)], what="plane_start")
    plane = onnx.op("Unsqueeze", [plane, onnx.ints("column_axis", [2])], what="plane_start")
    return Grid(plane, width, y, x)


@dataclass(frozen=True)
class MaskPooling(Layer):
    """Features N×C×H×W times a mask N×1×H×W (MNC: mask_pooling_layer.cu)."""

    bottoms: ClassVar[Arity] = exactly(2)
    in_place: ClassVar[bool] = False
    is_pointwise: ClassVar[bool] = True

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls()

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        features, mask = bottoms
        if len(features) != 4 or mask != (features[0], 1, *features[2:]):
            raise LayerError(
                f"the features are {format_shape(features)}, the mask {format_shape(mask)}; N×C×H×W and N×1×H×W were needed"
            )
        return [features]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Mul", node.bottoms, node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        features, mask = node.bottoms
        product = onnx.op("Mul", [top_diffs[0], features], what="product")
        mask_diff = onnx.reduce("ReduceSum", product, [1], keepdims=True, what="mask_diff")
        return Gradients((onnx.op("Mul", [top_diffs[0], mask], what="features_diff"), mask_diff))


@dataclass(frozen=True)
class MaskResize(Layer):
    """N×C×H×W → N×C×output_height×output_width, bilinear: row y reads y · H / output_height (MNC: mask_resize_layer.cu)."""

    in_place: ClassVar[bool] = False
    settings: ClassVar[str] = "mask_resize_param"

    size: tuple[int, int]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.mask_resize_param
        if p.output_height < 1 or p.output_width < 1:
            raise LayerError(
                f"output_height is {p.output_height}, output_width {p.output_width}; both must be larger than 0"
            )
        return cls((p.output_height, p.output_width))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if len(bottoms[0]) != 4:
            raise LayerError(f"the bottom is {format_shape(bottoms[0])}; N×C×H×W was needed")
        return [(*bottoms[0][:2], *self.size)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        rows, across = self._shares(node)
        values = onnx.op("MatMul", [onnx.floats("rows", rows), node.bottoms[0]], what="rows_resized")
        onnx.emit("MatMul", [values, onnx.floats("columns", across.T)], node.tops)

    def _shares(self, node: Node) -> list[FloatArray]:
        """What each place of the top takes of each of the bottom, along both axes: output × input."""
        return [_shares(size, wanted) for size, wanted in zip(node.bottom_shapes[0][2:], self.size, strict=True)]

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        rows, across = self._shares(node)
        diff = onnx.op("MatMul", [onnx.floats("rows_back", rows.T), top_diffs[0]], what="rows_diff")
        return Gradients((onnx.op("MatMul", [diff, onnx.floats("columns_back", across)], what="bottom_diff"),))

    @property
    def mixes_positions(self) -> bool:
        return True


def _shares(size: int, wanted: int) -> FloatArray:
    """wanted × size: row i holds what lies at i · size / wanted between its neighbours, the last held."""
    places = np.arange(wanted, dtype=np.float32) * (np.float32(size) / np.float32(wanted))
    low = np.minimum(np.floor(places).astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    shares: FloatArray = np.zeros((wanted, size), np.float32)
    np.add.at(shares, (np.arange(wanted), low), 1 - (places - low))
    np.add.at(shares, (np.arange(wanted), high), places - low)
    return shares
