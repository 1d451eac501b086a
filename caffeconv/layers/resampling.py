"""Layers that enlarge, shrink or re-order planes: Upsample, Interp, ImResize, ShuffleChannel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from caffeconv.caffe_pb2 import UpsampleParameter
from caffeconv.errors import Diagnostic, LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import INT64
from caffeconv.ir.layer import NO_GRADIENT, Arity, Gradients, Layer, Node, Settings
from caffeconv.layers.gradient_ops import sum_over
from caffeconv.tensor.shape import Dims, FloatArray, Shape, Shapes, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


def check_4d(bottom: Shape, what: str = "the bottom") -> None:
    if len(bottom) != 4:
        raise LayerError(
            f"{what} is {format_shape(bottom)}; Input must have 4 axes, corresponding to (num, channels, height, width)"
        )


def _shape_of(onnx: OnnxBuilder, value: str, dims: Dims) -> str:
    """`dims` as a value, whose first one, where it varies, is that of `value`."""
    if None not in dims:
        return onnx.ints("top_shape", onnx.fixed(dims, ""))
    batch = onnx.op("Gather", [onnx.op("Shape", [value]), onnx.ints("none", [0])], axis=0, what="batch")
    rest = onnx.fixed(dims[1:], "an axis other than the first that varies")
    return onnx.op("Concat", [batch, onnx.ints("item_shape", rest)], axis=0, what="top_shape")


def scattered_by_mask(node: Node, onnx: OnnxBuilder) -> None:
    """Makes the top: each value of the first bottom at its place of the second, counted within a plane, and 0 elsewhere."""
    x, dims = node.bottoms[0], onnx.dims(node.bottoms[0])
    places, sizes = count(node.bottom_shapes[0], 2), count(node.top_shapes[0], 2)
    values = onnx.reshape(x, (*dims[:2], places), what="values")
    mask = onnx.reshape(node.bottoms[1], (*dims[:2], places), what="mask")
    mask = onnx.op("Cast", [mask], to=INT64, what="place")
    empty = onnx.op("Expand", [onnx.floats("nothing", 0), _shape_of(onnx, x, (*dims[:2], sizes))], what="empty")
    filled = onnx.op("ScatterElements", [empty, mask, values], axis=2, what="filled")
    onnx.reshape(filled, onnx.dims(node.tops[0]), to=node.tops[0])


def picked_by_mask(node: Node, onnx: OnnxBuilder, top_diff: str) -> str:
    """The first bottom's diff: what stands in the top's diff at the places that the second bottom names."""
    dims = onnx.dims(node.bottoms[0])
    planes = onnx.reshape(top_diff, (*dims[:2], count(node.top_shapes[0], 2)), what="planes")
    place = onnx.reshape(node.bottoms[1], (*dims[:2], count(node.bottom_shapes[0], 2)), what="mask")
    picked = onnx.op("GatherElements", [planes, onnx.op("Cast", [place], to=INT64)], axis=2, what="picked")
    return onnx.reshape(picked, dims, what="bottom_diff")


@dataclass(frozen=True)
class Upsample(Layer):
    """With a mask: each value goes to its place of the mask, the rest is 0. Without: each value becomes scale × scale.

    Bottoms: N×C×H×W and, of the same shape, the mask of a MAX Pooling layer, whose numbers count the places of a plane
    row by row. Top N×C×upsample_h×upsample_w, or `scale` times as high and wide, less 1 where `pad_out_h`, `pad_out_w`
    (caffe-segnet: upsample_layer.cpp). One bottom is another layer of that name, which repeats values and knows `scale`
    only (MobileNet-YOLO: upsample_layer.cpp).
    """

    bottoms: ClassVar[Arity] = Arity(1, 2)
    in_place: ClassVar[bool] = False
    settings: ClassVar[str] = "upsample_param"

    scale: tuple[int, int]
    size: tuple[int, int] | None
    """height, width of the top; None: by the scale."""
    less: tuple[int, int]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.upsample_param
        if len(layer.bottoms) == 1:
            return cls._repeating(p)
        if p.HasField("upsample_h") and p.HasField("upsample_w"):
            if min(p.upsample_h, p.upsample_w) < 2:
                raise LayerError(f"upsample_h is {p.upsample_h}, upsample_w {p.upsample_w}; both must be above 1")
            return cls((1, 1), (p.upsample_h, p.upsample_w), (0, 0))
        by_axis = p.HasField("scale_h"), p.HasField("scale_w")
        if any(by_axis) and (not all(by_axis) or p.HasField("scale")):
            raise LayerError(
                "upsample_h & upsample_w are required, else (DEPRECATED) scale OR scale_h & scale_w are required."
            )
        scale = (p.scale_h, p.scale_w) if all(by_axis) else (p.scale, p.scale)
        if min(scale) < 2:
            raise LayerError(f"scale is {format_shape(scale)} (height × width); both must be above 1")
        less = (int(p.pad_out_h), int(p.pad_out_w))
        for name, off, times in zip(("height", "width"), less, scale, strict=True):
            if off and times != 2:
                raise LayerError(
                    f"scale is {format_shape(scale)}; Output {name} padding compensation requires a scale of 2, otherwise the "
                    "output size is ill-defined. Use upsample_h and upsample_w."
                )
        return cls(scale, None, less)

    @classmethod
    def _repeating(cls, p: UpsampleParameter) -> Self:
        foreign = [field.name for field, _ in p.ListFields() if field.name != "scale"]
        if foreign:
            raise LayerError(
                f"one bottom and {foreign[0]}; with one bottom only `scale` is known. For SegNet's unpooling give the "
                "mask of the Pooling layer as a second bottom"
            )
        scale = p.scale if p.HasField("scale") else 1
        if scale < 1:
            raise LayerError(f"scale is {scale}; at least 1 was needed")
        return cls((scale, scale), None, (0, 0))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        check_4d(bottoms[0])
        if len(bottoms) == 2 and bottoms[1] != bottoms[0]:
            raise LayerError(
                f"the mask is {format_shape(bottoms[1])}, the bottom {format_shape(bottoms[0])}; one shape was needed"
            )
        if self.size is not None:
            return [(*bottoms[0][:2], *self.size)]
        sizes = zip(bottoms[0][2:], self.scale, self.less, strict=True)
        return [(*bottoms[0][:2], *(size * scale - less for size, scale, less in sizes))]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x = node.bottoms[0]
        if len(node.bottoms) == 1:
            scales = onnx.floats("scales", [1, 1, *self.scale])
            onnx.emit(
                "Resize", [x, "", scales], node.tops, mode="nearest", coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )  # fmt: skip
            return
        scattered_by_mask(node, onnx)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        dims, (high, wide) = onnx.dims(node.bottoms[0]), node.bottom_shapes[0][2:]
        if len(node.bottoms) == 1:
            split = (*dims[:2], high, self.scale[0], wide, self.scale[1])
            return Gradients((sum_over(onnx, onnx.reshape(top_diffs[0], split, what="cells"), [3, 5], "bottom_diff"),))
        return Gradients((picked_by_mask(node, onnx, top_diffs[0]), None))

    @classmethod
    def settings_for(cls, layer: LayerDef, bottoms: Shapes, top: int, wanted: Shape) -> Sequence[Settings]:
        return ({"upsample_h": wanted[2], "upsample_w": wanted[3]},) if len(wanted) == 4 else ()

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        # the mask has the size of what its Pooling layer made, which is what this layer has to be given back
        if len(bottoms) != 2 or len(bottoms[0]) != 4 or len(bottoms[1]) != 4:
            return ()
        return {0: (*bottoms[0][:2], *bottoms[1][2:])}, {1: (*bottoms[1][:2], *bottoms[0][2:])}


@dataclass(frozen=True)
class Interp(Layer):
    """Interpolation between the corners, which keep their values (DeepLab, PSPNet: interp_layer.cpp).

    N×C×H×W, from which pad_beg rows and columns (≤ 0) are first cut at the start and pad_end at the end, becomes
    N×C×height×width. With `shrink_factor` s a size n becomes (n-1)/s + 1 (rounded down), with `zoom_factor` z
    n + (n-1)·(z-1), with both the one after the other; `height` and `width` count where not just one factor is given;
    `full_zoom_factor` f, where nothing else does, makes n·f of it (synopsys-caffe). A second bottom, with `use_blob_size`
    (lzx1413/CAFFE_SSD) or where nothing else says the size, gives its own. Bilinear, or with `mode: NEAREST`
    (deepdetect) the nearest place, of two as near the later one; that fills the first plane only, as in the fork.
    """

    bottoms: ClassVar[Arity] = Arity(1, 2)
    in_place: ClassVar[bool] = False
    settings: ClassVar[str] = "interp_param"

    shrink: int | None
    zoom: int | None
    size: tuple[int, int] | None
    """height, width; None: by the factors, or the second bottom's."""
    crop: tuple[int, int]
    """How much is cut off at start and end."""
    full_zoom: int | None = None
    nearest: bool = False

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.interp_param
        if p.use_blob_size:
            return cls._like_blob(layer)
        shrink = p.shrink_factor if p.HasField("shrink_factor") else None
        zoom = p.zoom_factor if p.HasField("zoom_factor") else None
        size = (p.height, p.width) if p.HasField("height") and p.HasField("width") else None
        if p.pad_beg > 0 or p.pad_end > 0:
            raise LayerError(
                f"pad_beg is {p.pad_beg}, pad_end {p.pad_end}; Only supports non-pos padding (cropping) for now"
            )
        full_zoom = p.full_zoom_factor if p.HasField("full_zoom_factor") else None
        factors = (("shrink_factor", shrink), ("zoom_factor", zoom), ("full_zoom_factor", full_zoom))
        for name, factor in factors:
            if factor is not None and factor < 1:
                raise LayerError(f"{name} is {factor}; it must be positive")
        has_size = any(value is not None for value in (shrink, zoom, size, full_zoom))
        if len(layer.bottoms) == 2 and has_size:
            raise LayerError("a second bottom and a size or factor; one of them was needed to say the top's size")
        if len(layer.bottoms) == 1 and not has_size:
            raise LayerError("no size; give height and width, shrink_factor or zoom_factor")
        return cls(shrink, zoom, size, (-p.pad_beg, -p.pad_end), full_zoom, p.mode == p.NEAREST)

    @classmethod
    def _like_blob(cls, layer: LayerDef) -> Self:
        """`use_blob_size`, which goes before every other size."""
        p = layer.proto.interp_param
        if len(layer.bottoms) != 2:
            raise LayerError("`use_blob_size: true` and one bottom; a second one was needed, to give the size")
        if p.pad_beg > 0 or p.pad_end > 0:
            raise LayerError(
                f"pad_beg is {p.pad_beg}, pad_end {p.pad_end}; Only supports non-pos padding (cropping) for now"
            )
        return cls(None, None, None, (-p.pad_beg, -p.pad_end), None, p.mode == p.NEAREST)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        check_4d(bottoms[0])
        inside = self._kept(bottoms[0])
        if min(inside) < 1:
            raise LayerError(
                f"the bottom is {format_shape(bottoms[0])}, of which {format_shape(inside)} is left; height should be positive"
            )
        fixed_size = self.size
        if len(bottoms) == 2:
            check_4d(bottoms[1], "the second bottom")
            fixed_size = bottoms[1][2], bottoms[1][3]
        sizes = [self._size(size, fixed_size and fixed_size[i]) for i, size in enumerate(inside)]
        if min(sizes) < 1:
            raise LayerError(f"the top would be {format_shape(sizes)} (height × width); height should be positive")
        return [(*bottoms[0][:2], *sizes)]

    def _size(self, inside: int, wanted: int | None) -> int:
        if wanted is not None and (self.shrink is None) == (self.zoom is None):
            return wanted
        if self.full_zoom is not None and self.shrink is None and self.zoom is None:
            return inside * self.full_zoom
        if self.shrink is not None:
            inside = (inside - 1) // self.shrink + 1
        return inside + (inside - 1) * ((self.zoom or 1) - 1)

    def _kept(self, bottom: Shape) -> tuple[int, int]:
        return bottom[2] - sum(self.crop), bottom[3] - sum(self.crop)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x, bottom, top = node.bottoms[0], node.bottom_shapes[0], node.top_shapes[0]
        inside = self._kept(bottom)
        if any(self.crop):
            begin = [self.crop[0]] * 2
            end = [start + size for start, size in zip(begin, inside, strict=True)]
            x = onnx.op(
                "Slice", [x, onnx.ints("begin", begin), onnx.ints("end", end), onnx.ints("plane_axes", [2, 3])],
                what="kept",
            )  # fmt: skip
        if inside == top[2:]:
            onnx.emit("Identity", [x], node.tops)
            return
        if self.nearest:
            self._emit_nearest(node, onnx, x)
            return
        sizes = _shape_of(onnx, x, onnx.dims(node.tops[0]))
        inputs = [x, "", "", sizes]
        onnx.emit("Resize", inputs, node.tops, mode="linear", coordinate_transformation_mode="align_corners")

    def _emit_nearest(self, node: Node, onnx: OnnxBuilder, x: str) -> None:
        inside, places = self._kept(node.bottom_shapes[0]), node.top_shapes[0][2:]
        rows, columns = (_nearest(size, count) for size, count in zip(inside, places, strict=True))
        # caffe: the loop over the planes is missing from the fork's code, which leaves all but the first one at 0
        items = onnx.fixed(
            onnx.dims(node.bottoms[0])[:1], "of a batch, Interp with `mode: NEAREST` fills only the first item"
        )[0]
        bounds = [onnx.ints(name, values) for name, values in (("first", [0, 0]), ("second", [1, 1]), ("axes", [0, 1]))]
        plane = onnx.op("Slice", [x, *bounds], what="plane")
        tall = onnx.op("Gather", [plane, onnx.ints("row_places", rows)], axis=2, what="tall")
        wide = onnx.op("Gather", [tall, onnx.ints("column_places", columns)], axis=3, what="wide")
        others = [0, 0, 0, 0, items - 1, node.top_shapes[0][1] - 1, 0, 0]
        onnx.emit("Pad", [wide, onnx.ints("other_planes", others)], node.tops)

    def lint(self, node: Node, sources: Sequence[Node | None]) -> Sequence[Diagnostic]:
        if not self.nearest or count(node.top_shapes[0], 0, 2) == 1:
            return ()
        message = "`mode: NEAREST`: deepdetect's code fills only the first plane of the top and leaves the others at 0"
        hint = 'An Upsample layer or `type: "Resample"` repeats values in all planes.'
        return [Diagnostic("warning", node.definition.where, message, hint, node.name)]

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        if self.nearest:
            raise LayerError(NO_GRADIENT)
        high, wide = (
            interpolation(size, inside, places, self.crop[0])
            for size, inside, places in zip(
                node.bottom_shapes[0][2:], self._kept(node.bottom_shapes[0]), node.top_shapes[0][2:], strict=True
            )
        )
        rows = onnx.op("MatMul", [onnx.floats("rows", high.T), top_diffs[0]], what="rows_diff")
        diff = onnx.op("MatMul", [rows, onnx.floats("columns", wide)], what="bottom_diff")
        return Gradients((diff, None)[: len(node.bottoms)])

    @classmethod
    def settings_for(cls, layer: LayerDef, bottoms: Shapes, top: int, wanted: Shape) -> Sequence[Settings]:
        return ({"height": wanted[2], "width": wanted[3]},) if len(wanted) == 4 else ()


def _nearest(inside: int, places: int) -> NDArray[np.int64]:
    """The place of `inside` that is nearest to each of `places` between the same corners, in float as the fork's."""
    step = np.float32(inside - 1) / np.float32(places - 1) if places > 1 else np.float32(0)
    position = step * np.arange(places, dtype=np.float32)
    before = np.floor(position)
    nearest = np.minimum(before + (position - before >= 0.5), inside - 1)
    return np.asarray(nearest, np.int64)


def interpolation(size: int, inside: int, places: int, start: int) -> FloatArray:
    """The matrix places × size that interpolates along one axis, between corners, what lies in start…start+inside-1."""
    matrix = np.zeros((places, size), np.float32)
    if inside == places:  # also where one place is made of one
        matrix[np.arange(places), start + np.arange(places)] = 1
        return matrix
    position = np.arange(places) * ((inside - 1) / (places - 1) if places > 1 else 0.0)
    before = np.minimum(position.astype(int), inside - 1)
    share = position - before
    np.add.at(matrix, (np.arange(places), start + before), 1 - share)
    np.add.at(matrix, (np.arange(places), start + np.minimum(before + 1, inside - 1)), share)
    return matrix


CUBIC: Mapping[str, str | float] = {
    "mode": "cubic", "cubic_coeff_a": -0.75, "coordinate_transformation_mode": "half_pixel",
}  # fmt: skip
"""How ONNX's Resize does as OpenCV's."""


@dataclass(frozen=True)
class ImResize(Layer):
    """OpenCV's cubic enlargement: half a pixel, a = -0.75, borders repeated (OpenPose, caffe_rtpose: imresize_layer.cpp).

    1×C×H×W → 1×C×target_spatial_height×target_spatial_width, or `factor` times the size, rounded down.
    """

    in_place: ClassVar[bool] = False
    settings: ClassVar[str] = "imresize_param"
    size_settings: ClassVar[tuple[str, ...]] = ("target_spatial_height", "target_spatial_width")

    size: tuple[int, int]
    factor: float | None

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.imresize_param
        if p.factor < 0:
            raise LayerError(f"factor is {p.factor:g}; 0 (none) or more was needed")
        return cls((p.target_spatial_height, p.target_spatial_width), p.factor or None)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        check_4d(bottoms[0])
        if bottoms[0][0] != 1:
            raise LayerError(
                f"the bottom is {format_shape(bottoms[0])}, of several pictures, which the fork averages over scales by a "
                "rule that is not known; one picture was needed"
            )
        size = self.size
        if self.factor is not None:
            factor = np.float32(self.factor)
            size = int(bottoms[0][2] * factor), int(bottoms[0][3] * factor)
        if min(size) < 1:
            raise LayerError(f"the top would be {format_shape(size)} (height × width); at least 1×1 was needed")
        return [(*bottoms[0][:2], *size)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.fixed(onnx.dims(node.bottoms[0])[:1], "ImResize takes one picture")
        top, bottom = node.top_shapes[0], node.bottom_shapes[0]
        shape = onnx.ints("top_shape", top)
        if top[2] >= bottom[2] and top[3] >= bottom[3]:
            onnx.emit("Resize", [node.bottoms[0], "", "", shape], node.tops, **CUBIC)
            return
        # onnxruntime moves a Transpose over a Resize, where it then cannot make anything smaller; but not over a Reshape
        planes = onnx.reshape(node.bottoms[0], (bottom[1], 1, *bottom[2:]), what="planes")
        sizes = onnx.ints("planes_shape", (top[1], 1, *top[2:]))
        resized = onnx.op("Resize", [planes, "", "", sizes], what="resized", **CUBIC)
        onnx.emit("Reshape", [resized, shape], node.tops)

    @classmethod
    def settings_for(cls, layer: LayerDef, bottoms: Shapes, top: int, wanted: Shape) -> Sequence[Settings]:
        return ({"target_spatial_height": wanted[2], "target_spatial_width": wanted[3]},) if len(wanted) == 4 else ()


@dataclass(frozen=True)
class ShuffleChannel(Layer):
    """Channel i of group g goes to place i·group + g: N×(group·n)×… seen as a matrix of channels, transposed.

    The top has 4 axes (ShuffleNet: shuffle_channel_layer.cpp).
    """

    in_place: ClassVar[bool] = False
    only_moves_data: ClassVar[bool] = True

    group: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        group = layer.proto.shuffle_channel_param.group
        if group < 1:
            raise LayerError(f"group is {group}; group must be greater than 0")
        return cls(group)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        bottom = bottoms[0]
        if not 2 <= len(bottom) <= 4:
            raise LayerError(f"the bottom is {format_shape(bottom)}; 2 to 4 axes were needed")
        if bottom[1] % self.group:
            raise LayerError(f"{bottom[1]} channels and group {self.group}; Wrong group size.")
        return [(*bottom, *([1] * (4 - len(bottom))))]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        num, dims = onnx.dims(node.bottoms[0])[0], onnx.dims(node.bottoms[0])[1:]
        channels, *sizes = onnx.fixed(dims, "it needs to know how many channels and places there are")
        places = count(tuple(sizes))
        groups = onnx.reshape(node.bottoms[0], (num, self.group, channels // self.group, places), what="groups")
        shuffled = onnx.op("Transpose", [groups], perm=[0, 2, 1, 3], what="shuffled")
        onnx.reshape(shuffled, onnx.dims(node.tops[0]), to=node.tops[0])

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        (num, *_), channels = onnx.dims(node.bottoms[0]), node.bottom_shapes[0][1]
        places = count(node.bottom_shapes[0], 2)
        diff = onnx.reshape(top_diffs[0], (num, channels // self.group, self.group, places), what="shuffled_diff")
        back = onnx.op("Transpose", [diff], perm=[0, 2, 1, 3], what="groups_diff")
        return Gradients((onnx.reshape(back, onnx.dims(node.bottoms[0]), what="bottom_diff"),))
