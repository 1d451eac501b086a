"""Pooling of regions of interest: ROIPooling (Fast R-CNN) and PSROIPooling (R-FCN).

A region is a row (picture, x1, y1, x2, y2) in pixels of the picture; `spatial_scale` brings it to the feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import DOUBLE, FLOAT, INT64
from caffeconv.ir.layer import Arity, Gradients, Node, Settings, exactly
from caffeconv.layers.gradient_ops import added_at, refuse_to
from caffeconv.layers.place_distance import ReadsPlaces
from caffeconv.layers.pooling import LOWEST
from caffeconv.tensor.shape import Dims, FloatArray, Shape, Shapes, count, format_shape

if TYPE_CHECKING:
    from numpy.random import Generator
    from typing_extensions import Self

    from caffeconv.caffe_pb2 import PSROIPoolingParameter
    from caffeconv.ir.onnx_builder import OnnxBuilder


def check_bottoms(bottoms: Shapes) -> None:
    features, rois = bottoms
    if len(features) != 4:
        raise LayerError(f"the features are {format_shape(features)}; N×C×H×W was needed")
    if not rois or count(rois, 1) != 5:
        raise LayerError(
            f"the rois are {format_shape(rois)}; R×5 was needed, rows (picture, x1, y1, x2, y2) (ROI layer C x W x H must == 5)"
        )


def example_rois(shapes: Shapes, spatial_scale: float, random: Generator) -> FloatArray:
    """Regions that lie within the pictures of the batch."""
    features, rois = shapes
    height, width = (size / spatial_scale for size in features[2:])
    x, y = (np.sort(random.uniform(0, size, (rois[0], 2)), axis=1) for size in (width, height))
    numbers = random.integers(features[0], size=rois[0]) if features[0] else np.zeros(rois[0])
    rows = np.stack([numbers, x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)
    return rows.astype(np.float32).reshape(rois)


def _is_placeholder(rois: Shape) -> bool:
    """Whether it is 1×4, as some deploy nets say; the layer's own code never looks at the second axis."""
    return bool(rois) and rois[0] == 1 and count(rois, 1) == 4


@dataclass(frozen=True)
class ScaledRegions(ReadsPlaces):
    """Regions in pixels of the picture, which `spatial_scale` of the layer's `settings` brings to the feature map."""

    distance_field: ClassVar[str] = "spatial_scale"

    @classmethod
    def place_distance(cls, layer: LayerDef) -> float | None:
        scale: float = getattr(layer.proto, cls.settings).spatial_scale
        return 1 / scale if scale > 0 else None

    @classmethod
    def with_place_distance(cls, layer: LayerDef, pixels: int) -> LayerParameter:
        proto = LayerParameter()
        proto.CopyFrom(layer.proto)
        getattr(proto, cls.settings).spatial_scale = 1 / pixels
        return proto


@dataclass(frozen=True)
class ROIPooling(ScaledRegions):
    """The greatest value in each of pooled_h × pooled_w bins of each region; 0 where a bin lies outside the features.

    Bottoms: features N×C×H×W, regions R×5; top R×C×pooled_h×pooled_w. Corners are scaled and rounded (halves away
    from 0), both ends belong to the region, which is at least 1×1; a bin goes from the floor of its start to the
    ceiling of its end (caffe-fast-rcnn: roi_pooling_layer.cpp). onnxruntime's MaxRoiPool does just this. Before all
    that each side moves outward by `pad_ratio` of the region's size (mscnn, cascade-rcnn).
    """

    bottoms: ClassVar[Arity] = exactly(2)
    in_place: ClassVar[bool] = False
    computes_in_float32: ClassVar[bool] = True
    settings: ClassVar[str] = "roi_pooling_param"
    size_settings: ClassVar[tuple[str, ...]] = ("pooled_h", "pooled_w")

    pooled: tuple[int, int]
    spatial_scale: float
    pad_ratio: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.roi_pooling_param
        if p.pooled_h < 1 or p.pooled_w < 1:
            raise LayerError(f"pooled_h is {p.pooled_h}, pooled_w {p.pooled_w}; both must be > 0")
        return cls((p.pooled_h, p.pooled_w), p.spatial_scale, p.pad_ratio)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        features, rois = bottoms
        check_bottoms((features, (rois[0], 5)) if _is_placeholder(rois) else bottoms)
        return [(rois[0], features[1], *self.pooled)]

    def undecided(self, bottoms: Shapes) -> str:
        rois = bottoms[1]
        if not _is_placeholder(rois):
            return ""
        return (
            f"the rois are {format_shape(rois)}, which holds the place of R×5, rows (picture, x1, y1, x2, y2), until the "
            "program that runs the net gives them their shape. Do so: `shapes={'rois': (1, 5)}`"
        )

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        rois = as_rows(node, onnx)
        if self.pad_ratio:
            rois = onnx.op("Concat", self._columns(node, onnx), axis=1, what="padded")
        onnx.emit(
            "MaxRoiPool", [node.bottoms[0], rois], node.tops, pooled_shape=self.pooled, spatial_scale=self.spatial_scale
        )

    def _columns(self, node: Node, onnx: OnnxBuilder) -> Sequence[str]:
        edges = columns(node, onnx)
        return padded(onnx, edges, self.pad_ratio) if self.pad_ratio else edges

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        refuse_to("regions", propagate_down, 1)
        (_, channels, height, width), (high, wide) = node.bottom_shapes[0], self.pooled
        edges = self._columns(node, onnx)
        top, bottom = self._bins(onnx, edges[2], edges[4], high, height)
        left, right = self._bins(onnx, edges[1], edges[3], wide, width)

        def places(_: Sequence[str], items: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
            """Where in its plane each bin of one region has its first greatest value: channels×high×wide."""
            picture, top, bottom, left, right = items
            features = onnx.op(
                "Gather", [node.bottoms[0], onnx.op("Cast", [picture], to=INT64)], axis=0, what="picture"
            )
            features = onnx.reshape(features, (channels, height, 1, width), what="features")
            best, column = _first_greatest(onnx, features, _inside(onnx, left, right, width, (wide, 1)), 3)
            best = onnx.reshape(best, (channels, 1, height, wide), what="best_of_rows")
            rows = _inside(onnx, top, bottom, height, (high, 1))
            rows = onnx.reshape(rows, (1, high, height, 1), what="rows_inside")
            _, row = _first_greatest(onnx, best, rows, 2)
            column = onnx.reshape(column, (channels, height, wide), what="best_columns")
            row = onnx.reshape(row, (channels, high, wide), what="best_row")
            column = onnx.op("GatherElements", [column, row], axis=1, what="best_column")
            place = onnx.op("Add", [onnx.op("Mul", [row, onnx.ints("width", width)]), column], what="place")
            return (), (onnx.op("Cast", [place], to=FLOAT, what="place"),)

        _, (place,) = onnx.scan(places, (), (edges[0], top, bottom, left, right), steps=node.bottom_shapes[1][0])
        plane = onnx.ints("plane_size", height * width)
        picture = onnx.op("Cast", [edges[0]], to=INT64, what="picture")
        picture = onnx.op("Mul", [picture, onnx.ints("channels", channels)], what="first_plane")
        picture = onnx.op("Unsqueeze", [picture, onnx.ints("bin_axes", [2, 3])], what="first_plane")
        planes = onnx.op("Add", [picture, onnx.ints("planes", np.arange(channels).reshape(-1, 1, 1))], what="planes")
        place = onnx.op("Cast", [place], to=INT64, what="place")
        place = onnx.op("Add", [onnx.op("Mul", [planes, plane], what="plane_start"), place], what="place")
        tall = onnx.op("Unsqueeze", [onnx.op("Less", [top, bottom]), onnx.ints("y_axes", [1, 3])], what="tall")
        broad = onnx.op("Unsqueeze", [onnx.op("Less", [left, right]), onnx.ints("x_axes", [1, 2])], what="broad")
        diff = onnx.op(
            "Where", [onnx.op("And", [tall, broad], what="filled"), top_diffs[0], onnx.floats("nothing", 0)],
            what="bin_diff",
        )  # fmt: skip
        flat = onnx.reshape(node.bottoms[0], (None,), what="flat")
        flat_diffs = added_at(
            onnx, flat, onnx.reshape(place, (None,), what="flat_place"), onnx.reshape(diff, (None,), what="flat_diff"),
            0, "flat_diff",
        )  # fmt: skip
        return Gradients((onnx.reshape(flat_diffs, onnx.dims(node.bottoms[0]), what="bottom_diff"), None))

    def _bins(self, onnx: OnnxBuilder, low: str, high: str, bins: int, size: int) -> tuple[str, str]:
        """Where the bins of each region start and end along one axis: R×bins, whole numbers within 0…size."""
        scale, one = onnx.floats("spatial_scale", self.spatial_scale), onnx.floats("one", 1)
        start, end = (rounded(onnx, onnx.op("Mul", [edge, scale], what="scaled")) for edge in (low, high))
        extent = onnx.op("Add", [onnx.op("Sub", [end, start], what="extent"), one], what="extent")
        extent = onnx.op("Max", [extent, one], what="extent")
        step = onnx.op("Div", [extent, onnx.floats("bins", bins)], what="bin")
        edges = []
        for what, first, rounding in (("bin_start", 0, "Floor"), ("bin_end", 1, "Ceil")):
            numbers = onnx.floats(f"{what}s", np.arange(first, first + bins))
            edge = onnx.op(rounding, [onnx.op("Mul", [step, numbers], what=what)], what=what)
            edge = onnx.op("Add", [edge, start], what=what)
            edges.append(onnx.op("Clip", [edge, onnx.floats("zero", 0), onnx.floats(f"size_{size}", size)], what=what))
        return edges[0], edges[1]

    def float32_values(self, node: Node) -> frozenset[str]:
        return frozenset(node.bottoms[1:])

    @property
    def mixes_positions(self) -> bool:
        return True

    @classmethod
    def settings_for(cls, layer: LayerDef, bottoms: Shapes, top: int, wanted: Shape) -> Sequence[Settings]:
        return ({"pooled_h": wanted[2], "pooled_w": wanted[3]},) if len(wanted) == 4 else ()

    def example(self, bottom: int, shapes: Shapes, random: Generator) -> FloatArray | None:
        return example_rois(shapes, self.spatial_scale, random) if bottom == 1 else None


def check_position_sensitive(p: PSROIPoolingParameter) -> None:
    """Raises LayerError where there is no scale, or no bin that reads channels of its own."""
    if p.spatial_scale <= 0:
        raise LayerError(f"spatial_scale is {p.spatial_scale:g}; spatial_scale must be > 0")
    if p.output_dim < 1 or p.group_size < 1:
        raise LayerError(f"output_dim is {p.output_dim}, group_size {p.group_size}; both must be > 0")


def position_sensitive_shape(bottoms: Shapes, output_dim: int, group_size: int) -> Shape:
    """R×output_dim×group_size×group_size, each bin of which reads channels of its own."""
    check_bottoms(bottoms)
    wanted = output_dim * group_size**2
    if bottoms[0][1] != wanted:
        raise LayerError(
            f"the features have {bottoms[0][1]} channels; output_dim × group_size × group_size = {wanted} were "
            "needed (input channel number does not match layer parameters)"
        )
    return (bottoms[1][0], output_dim, group_size, group_size)


@dataclass(frozen=True)
class PSROIPooling(ScaledRegions):
    """The average in each of group_size × group_size bins, each bin in channels of its own; 0 for an empty bin.

    Bottoms: features N×(output_dim·g·g)×H×W, regions R×5; top R×output_dim×g×g, where bin (i, j) of output d reads
    channel (d·g + i)·g + j. Corners are rounded (halves away from 0), the end moved by 1, then both scaled; a region is
    at least 0.1 wide and high; a bin goes from the floor of its start to the ceiling of its end (R-FCN:
    psroi_pooling_layer.cu).
    """

    bottoms: ClassVar[Arity] = exactly(2)
    in_place: ClassVar[bool] = False
    computes_in_float32: ClassVar[bool] = True
    settings: ClassVar[str] = "psroi_pooling_param"
    class_settings: ClassVar[tuple[str, ...]] = ("output_dim",)

    spatial_scale: float
    output_dim: int
    group_size: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.psroi_pooling_param
        check_position_sensitive(p)
        return cls(p.spatial_scale, p.output_dim, p.group_size)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return [position_sensitive_shape(bottoms, self.output_dim, self.group_size)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        # sums over rectangles from sums over everything above and left of a corner, in double, where none get lost
        size, (channels, height, width) = self.group_size, node.bottom_shapes[0][1:]
        x = onnx.op("Pad", [node.bottoms[0], onnx.ints("border", [0, 0, 1, 1, 0, 0, 0, 0])], what="bordered")
        x = onnx.op("Cast", [x], to=DOUBLE, what="double")
        for axis in (2, 3):
            x = onnx.op("CumSum", [x, onnx.ints(f"axis_{axis}", axis)], what="summed")
        sums = onnx.reshape(x, (None,), what="sums")

        edges = columns(node, onnx)
        top, bottom = self._bins(onnx, edges[2], edges[4], height)
        left, right = self._bins(onnx, edges[1], edges[3], width)
        left, right = (onnx.op("Unsqueeze", [edge, onnx.ints("x_axes", [1, 2])], what="x") for edge in (left, right))
        top, bottom = (onnx.op("Unsqueeze", [edge, onnx.ints("y_axes", [1, 3])], what="y") for edge in (top, bottom))

        plane = (height + 1) * (width + 1)
        picture = onnx.op("Cast", [edges[0]], to=INT64, what="picture")
        picture = onnx.op("Mul", [picture, onnx.ints("picture_size", channels * plane)], what="picture_start")
        picture = onnx.op("Unsqueeze", [picture, onnx.ints("bin_axes", [2, 3])], what="picture_start")
        starts = np.arange(channels).reshape(self.output_dim, size, size) * plane
        start = onnx.op("Add", [picture, onnx.ints("channel_start", starts)], what="plane_start")

        def corner(y: str, x: str) -> str:
            row = onnx.op("Mul", [y, onnx.ints("row_size", width + 1)], what="row_start")
            place = onnx.op("Add", [onnx.op("Add", [start, row], what="row"), x], what="place")
            return onnx.op("Gather", [sums, place], axis=0, what="corner")

        below = onnx.op("Sub", [corner(bottom, right), corner(bottom, left)], what="below")
        above = onnx.op("Sub", [corner(top, right), corner(top, left)], what="above")
        total = onnx.op("Sub", [below, above], what="total")
        area = onnx.op("Mul", [onnx.op("Sub", [bottom, top]), onnx.op("Sub", [right, left])], what="area")
        # an empty bin sums to nothing; its start may lie behind its end only where both are clipped
        divisor = onnx.op("Cast", [onnx.op("Max", [area, onnx.ints("one", 1)])], to=DOUBLE, what="divisor")
        onnx.emit("Cast", [onnx.op("Div", [total, divisor], what="average")], node.tops, to=FLOAT)

    def _bins(self, onnx: OnnxBuilder, low: str, high: str, size: int) -> tuple[str, str]:
        """Where the bins of each region start and end along one axis: R×group_size, int64, within 0…size."""
        scale = onnx.floats("spatial_scale", self.spatial_scale)
        start = onnx.op("Mul", [rounded(onnx, low), scale], what="start")
        end = onnx.op("Add", [rounded(onnx, high), onnx.floats("one_more", 1)], what="end")
        extent = onnx.op("Sub", [onnx.op("Mul", [end, scale], what="end"), start], what="extent")
        extent = onnx.op("Max", [extent, onnx.floats("least", 0.1)], what="extent")
        step = onnx.op("Div", [extent, onnx.floats("group_size", self.group_size)], what="bin")
        edges = []
        for what, first, rounding in (("bin_start", 0, "Floor"), ("bin_end", 1, "Ceil")):
            numbers = onnx.floats(f"{what}s", np.arange(first, first + self.group_size))
            edge = onnx.op("Add", [onnx.op("Mul", [step, numbers], what=what), start], what=what)
            edge = onnx.op("Cast", [onnx.op(rounding, [edge], what=what)], to=INT64, what=what)
            edges.append(onnx.op("Clip", [edge, onnx.ints("zero", 0), onnx.ints(f"size_{size}", size)], what=what))
        return edges[0], edges[1]

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        refuse_to("regions", propagate_down, 1)
        size, (height, width) = self.group_size, node.bottom_shapes[0][2:]
        edges, (num, *rest) = columns(node, onnx), onnx.dims(node.bottoms[0])
        top, bottom = self._bins(onnx, edges[2], edges[4], height)
        left, right = self._bins(onnx, edges[1], edges[3], width)
        top, bottom, left, right = (
            onnx.op("Cast", [edge], to=FLOAT, what="edge") for edge in (top, bottom, left, right)
        )
        rows = _share(onnx, _inside(onnx, top, bottom, height, (None, size, 1)))
        across = _share(onnx, _inside(onnx, left, right, width, (None, size, 1)))
        rows = onnx.op("Unsqueeze", [rows, onnx.ints("x_axes", [2, 4])], what="rows")
        across = onnx.op("Unsqueeze", [across, onnx.ints("y_axes", [1, 3])], what="columns")
        shares = onnx.reshape(onnx.op("Mul", [rows, across], what="shares"), (None, size**2, height * width))
        shares = onnx.op("Transpose", [shares], perm=[1, 0, 2], what="shares")  # bin, region, place

        batch = onnx.op("Gather", [onnx.shape(node.bottoms[0]), onnx.ints("first", 0)], axis=0, what="batch")
        numbers = onnx.op("Range", [onnx.ints("zero", 0), batch, onnx.ints("one", 1)], what="pictures")
        numbers = onnx.op("Unsqueeze", [numbers, onnx.ints("number_axes", [1, 2])], what="pictures")
        picture = onnx.reshape(onnx.op("Cast", [edges[0]], to=INT64, what="picture"), (1, 1, None), what="picture")
        belongs = onnx.op(
            "Cast", [onnx.op("Equal", [numbers, picture])], to=FLOAT, what="belongs"
        )  # picture, 1, region
        diff = onnx.reshape(top_diffs[0], (None, self.output_dim, size**2), what="bin_diff")
        diff = onnx.op("Transpose", [diff], perm=[2, 1, 0], what="bin_diff")
        diff = onnx.op("Unsqueeze", [diff, onnx.ints("picture_axis", [1])], what="bin_diff")
        diff = onnx.op("Mul", [diff, belongs], what="diff_of_picture")  # bin, picture, output, region
        shares = onnx.op("Unsqueeze", [shares, onnx.ints("picture_axis", [1])], what="shares")
        place_diffs = onnx.op("MatMul", [diff, shares], what="place_diff")
        place_diffs = onnx.op("Transpose", [place_diffs], perm=[1, 2, 0, 3], what="place_diff")
        return Gradients((onnx.reshape(place_diffs, (num, *rest), what="bottom_diff"), None))

    def float32_values(self, node: Node) -> frozenset[str]:
        return frozenset(node.bottoms[1:])

    @property
    def mixes_positions(self) -> bool:
        return True

    def example(self, bottom: int, shapes: Shapes, random: Generator) -> FloatArray | None:
        return example_rois(shapes, self.spatial_scale, random) if bottom == 1 else None


def columns(node: Node, onnx: OnnxBuilder) -> list[str]:
    """Picture, x1, y1, x2 and y2 of the regions, R×1 each."""
    rois = as_rows(node, onnx)
    return [onnx.op("Gather", [rois, onnx.ints(f"column_{i}", [i])], axis=1, what="column") for i in range(5)]


def padded(onnx: OnnxBuilder, edges: Sequence[str], pad_ratio: float) -> list[str]:
    """`columns` with each side moved outward by pad_ratio · (x2 - x1 + 1), pad_ratio · (y2 - y1 + 1)."""
    picture, left, top, right, bottom = edges
    moved: list[str] = []
    for low, high in ((left, right), (top, bottom)):
        size = onnx.op("Add", [onnx.op("Sub", [high, low], what="size"), onnx.floats("one", 1)], what="size")
        pad = onnx.op("Mul", [size, onnx.floats("pad_ratio", pad_ratio)], what="pad")
        moved += [onnx.op("Sub", [low, pad], what="low"), onnx.op("Add", [high, pad], what="high")]
    return [picture, moved[0], moved[2], moved[1], moved[3]]


def _inside(onnx: OnnxBuilder, start: str, end: str, size: int, dims: Dims) -> str:
    """Whether each place of an axis lies within start…end-1; these get the shape `dims`, the axis comes last."""
    places = onnx.floats(f"places_{size}", np.arange(size))
    start, end = onnx.reshape(start, dims, what="start"), onnx.reshape(end, dims, what="end")
    outside = onnx.op(
        "Or", [onnx.op("Less", [places, start]), onnx.op("GreaterOrEqual", [places, end])], what="outside"
    )
    return onnx.op("Not", [outside], what="inside")


def _first_greatest(onnx: OnnxBuilder, values: str, inside: str, axis: int) -> tuple[str, str]:
    """The greatest value along an axis of those inside, and its first index; both keep the axis."""
    candidates = onnx.op("Where", [inside, values, onnx.floats("lowest", LOWEST)], what="kept")
    best = onnx.reduce("ReduceMax", candidates, [axis], keepdims=True, what="best")
    return best, onnx.op("ArgMax", [candidates], axis=axis, keepdims=1, what="best_place")


def _share(onnx: OnnxBuilder, inside: str) -> str:
    """What each place counts in its bin's average along one axis, the last."""
    counts = onnx.op("Cast", [inside], to=FLOAT, what="counts")
    total = onnx.reduce("ReduceSum", counts, [2], keepdims=True, what="places")
    return onnx.op("Div", [counts, onnx.op("Max", [total, onnx.floats("one", 1)])], what="share")


def as_rows(node: Node, onnx: OnnxBuilder) -> str:
    """The regions, R×5."""
    rois, dims = node.bottoms[1], onnx.dims(node.bottoms[1])
    return rois if len(dims) == 2 else onnx.reshape(rois, (dims[0], 5), what="rois")


def rounded(onnx: OnnxBuilder, value: str) -> str:
    """C's round: halves away from 0, where ONNX's goes to the even number."""
    size = onnx.op("Abs", [value], what="size")
    whole = onnx.op("Floor", [size], what="whole")
    rest = onnx.op("GreaterOrEqual", [onnx.op("Sub", [size, whole], what="rest"), onnx.floats("half", 0.5)])
    whole = onnx.op("Add", [whole, onnx.op("Cast", [rest], to=FLOAT, what="carry")], what="whole")
    return onnx.op("Mul", [whole, onnx.op("Sign", [value])], what="rounded")
