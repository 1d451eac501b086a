"""Layers that move values about without changing them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Gradients, Layer, Node, Settings
from caffeconv.layers.concat_slice import Split
from caffeconv.layers.gradient_ops import like_bottom
from caffeconv.layers.rearranging import Move, moved, moved_back, pixel_shuffle
from caffeconv.tensor.axis_order import AxisOrder, as_caffe, concatenated, flat, reshaped
from caffeconv.tensor.shape import MOST_AXES, Shape, Shapes, canonical_axis, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


INT64_MIN = -(2**63)


class _SameValues(Layer):
    """The bottom's values under another shape."""

    in_place: ClassVar[bool] = False
    propagates_always: ClassVar[bool] = True
    only_moves_data: ClassVar[bool] = True

    def shares_memory(self, node: Node) -> bool:
        return True

    def only_flattens(self, node: Node) -> bool:
        return _makes_rows(node)

    def as_convolution(self, node: Node, bottoms: Shapes) -> Node:
        return _left_out(node) if self.only_flattens(node) else super().as_convolution(node, bottoms)

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        top = reshaped(bottoms[0], node.top_shapes[0])
        return None if top is None else [top]


@dataclass(frozen=True)
class Flatten(_SameValues):
    """Makes one axis of the axes `axis` to `end_axis` (caffe: flatten_layer.cpp)."""

    axis: int
    end_axis: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(layer.proto.flatten_param.axis, layer.proto.flatten_param.end_axis)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x = bottoms[0]
        start, end = canonical_axis(self.axis, len(x), x), canonical_axis(self.end_axis, len(x), x)
        if end < start:
            raise LayerError(f"end_axis {end} lies before axis {start}")
        return [(*x[:start], count(x, start, end + 1), *x[end + 1 :])]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.reshape(node.bottoms[0], onnx.dims(node.tops[0]), to=node.tops[0])

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return Gradients((like_bottom(onnx, node, top_diffs[0]),))


@dataclass(frozen=True)
class Reshape(_SameValues):
    """Another shape for the same values: 0 copies the bottom's axis, -1 is inferred (caffe: reshape_layer.cpp).

    Only axes axis…axis+num_axes-1 are replaced; axis -1 means after the last axis. With `pixelshuffler` r the shape is
    not read: r² channels of N×C×H×W become r × r places (Synopsys, Intel).
    """

    settings: ClassVar[str] = "reshape_param"

    dims: tuple[int, ...]
    axis: int
    num_axes: int
    pixelshuffler: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.reshape_param
        dims = tuple(p.shape.dim)
        if dims.count(-1) > 1:
            raise LayerError("new shape contains multiple -1 dims; at most a single (1) value of -1 may be specified")
        if any(dim < -1 for dim in dims):
            raise LayerError(f"new shape {format_shape(dims)} contains a size below -1")
        if p.num_axes < -1:
            raise LayerError("num_axes must be >= 0, or -1 for all")
        if p.pixelshuffler < 1:
            raise LayerError(f"pixelshuffler is {p.pixelshuffler}; at least 1 was needed")
        return cls(dims, p.axis, p.num_axes, p.pixelshuffler)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x = bottoms[0]
        if self.pixelshuffler > 1:
            return [_shuffled(x, self.pixelshuffler)]
        start = self.axis if self.axis >= 0 else len(x) + self.axis + 1
        if not 0 <= start <= len(x):
            raise LayerError(f"axis {self.axis} out of range for a bottom of {len(x)} axes")
        end = len(x) if self.num_axes == -1 else start + self.num_axes
        if end > len(x):
            raise LayerError("end_axis = axis + num_axes is out of range")
        middle = []
        for i, dim in enumerate(self.dims):
            if dim == 0 and start + i >= len(x):
                raise LayerError(
                    "new shape contains a 0, but there was no corresponding bottom axis to copy "
                    f"(axis {start + i} of {format_shape(x)})"
                )
            middle.append(x[start + i] if dim == 0 else dim)
        return [_inferred(x, (*x[:start], *middle, *x[end:]))]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if self.pixelshuffler > 1:
            moved(onnx, node.bottoms[0], self._move(node, onnx), onnx.dims(node.tops[0]), to=node.tops[0])
        else:
            onnx.reshape(node.bottoms[0], onnx.dims(node.tops[0]), to=node.tops[0])

    def _move(self, node: Node, onnx: OnnxBuilder) -> Move:
        return pixel_shuffle(node.bottom_shapes[0], onnx.dims(node.bottoms[0])[0], self.pixelshuffler)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        if self.pixelshuffler > 1:
            move = self._move(node, onnx)
            return Gradients((moved_back(onnx, top_diffs[0], move, onnx.dims(node.bottoms[0])),))
        return Gradients((like_bottom(onnx, node, top_diffs[0]),))

    def shares_memory(self, node: Node) -> bool:
        return self.pixelshuffler == 1

    def only_flattens(self, node: Node) -> bool:
        return self.pixelshuffler == 1 and super().only_flattens(node)

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        return super().axis_orders(node, bottoms) if self.pixelshuffler == 1 else None

    def for_any_batch(self, bottoms: Shapes) -> Self:
        # an explicit first size that is the batch's own copies it: every item then gives what it gives alone
        if self.axis == 0 and self.dims and bottoms[0] and self.dims[0] == bottoms[0][0]:
            return replace(self, dims=(0, *self.dims[1:]))
        return self

    @property
    def mixes_positions(self) -> bool:
        return True

    @classmethod
    def repairs(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[Settings]:
        dims = tuple(layer.proto.reshape_param.shape.dim)
        if len(dims) > MOST_AXES:
            return ()
        rest = tuple(1 if dim == -1 else dim for dim in dims)
        # the explicit size that stands for the rest is inferred instead; what was inferred before becomes 1
        return [{"dim": (*rest[:i], -1, *rest[i + 1 :])} for i, dim in reversed(list(enumerate(dims))) if dim > 0]

    def why_refused(self, bottoms: Shapes) -> Sequence[str]:
        explicit = [(i, dim) for i, dim in enumerate(self.dims) if dim > 0]
        if -1 in self.dims or self.num_axes != -1 or not explicit:
            return ()
        total, rest = count(bottoms[0]), count(bottoms[0], 0, max(self.axis, 0))
        for i, dim in enumerate(self.dims):
            start = max(self.axis, 0) + i
            rest *= bottoms[0][start] if dim == 0 and start < len(bottoms[0]) else max(dim, 1)
        fitting = [(i, dim, total // (rest // dim)) for i, dim in explicit if rest and total % (rest // dim) == 0]
        return [
            f"With the other sizes as they are, {total} values need `dim: {size}` in place of `dim: {dim}` (number {i + 1})."
            for i, dim, size in fitting if size != dim
        ]  # fmt: skip


def _shuffled(bottom: Shape, size: int) -> Shape:
    """The shape of the top of `pixelshuffler: size`."""
    if len(bottom) != 4 or bottom[1] % size**2:
        raise LayerError(
            f"the bottom is {format_shape(bottom)} and pixelshuffler {size}; N×C×H×W with a multiple of {size**2} channels "
            "was needed"
        )
    return bottom[0], bottom[1] // size**2, bottom[2] * size, bottom[3] * size


def _makes_rows(node: Node) -> bool:
    """Whether the top is N×K of a bottom N×…; 1×1 may follow."""
    x, y = node.bottom_shapes[0], node.top_shapes[0]
    return len(x) > 1 and len(y) > 1 and x[0] == y[0] and y[1] == count(x, 1)


def _left_out(node: Node) -> Node:
    """The node as a copy of its bottom."""
    proto = LayerParameter(name=node.name, type="Split", bottom=node.definition.bottoms, top=node.definition.tops)
    return replace(node, definition=node.definition.with_proto(proto), layer=Split(1))


def _inferred(x: Shape, shape: Shape) -> Shape:
    total = count(x)
    if -1 in shape:
        explicit = -math.prod(shape)
        if explicit == 0 or total % explicit:
            raise LayerError(
                f"bottom count ({total}) must be divisible by the product of the specified dimensions ({explicit})"
            )
        shape = tuple(total // explicit if dim == -1 else dim for dim in shape)
    if count(shape) != total:
        raise LayerError(
            f"output count must match input count: {format_shape(shape)} has {count(shape)} values, the bottom "
            f"{format_shape(x)} has {total}"
        )
    return shape


@dataclass(frozen=True)
class Permute(Layer):
    """Axes in another order; those that `order` leaves out follow in their own order (ssd: permute_layer.cpp)."""

    propagates_always: ClassVar[bool] = True
    only_moves_data: ClassVar[bool] = True
    settings: ClassVar[str] = "permute_param"

    order: tuple[int, ...]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        order = tuple(layer.proto.permute_param.order)
        if len(set(order)) != len(order):
            raise LayerError(f"order {list(order)} names an axis twice; there are duplicate orders")
        return cls(order)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return [tuple(bottoms[0][axis] for axis in self.full_order(len(bottoms[0])))]

    def full_order(self, rank: int) -> tuple[int, ...]:
        if any(axis >= rank for axis in self.order):
            raise LayerError(f"order {list(self.order)} names an axis that a blob of {rank} axes lacks")
        return (*self.order, *(axis for axis in range(rank) if axis not in self.order))

    @classmethod
    def settings_for_channels(cls, layer: LayerDef, bottoms: Shapes, channels: int) -> Sequence[Settings]:
        axes = range(1, len(bottoms[0]))
        return [{"order": (0, a, *(b for b in axes if b != a))} for a in axes if bottoms[0][a] == channels]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Transpose", node.bottoms, node.tops, perm=self.full_order(len(node.bottom_shapes[0])))

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        order = self.full_order(len(node.bottom_shapes[0]))
        back = sorted(range(len(order)), key=order.__getitem__)
        return Gradients((onnx.op("Transpose", top_diffs, what="bottom_diff", perm=back),))

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        bottom, shape = bottoms[0], node.top_shapes[0]
        order = self.full_order(len(shape))
        if bottom.is_flattening:
            return [flat(shape, bottom.pieces)] if order[-1:] == (len(shape) - 1,) else None
        # to whoever holds images channels last, 0 2 3 1 does nothing
        return [as_caffe(shape)]

    @property
    def mixes_positions(self) -> bool:
        return True


@dataclass(frozen=True)
class Transpose(Permute):
    """Axes in another order, each of them named: top axis i is bottom axis dim[i] (caffe_ocr: transpose_layer.cpp)."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        dims = tuple(layer.proto.transpose_param.dim)
        if sorted(dims) != list(range(len(dims))):
            raise LayerError(f"dim is {list(dims)}; every axis of the bottom was needed, once each, counted from 0")
        return cls(dims)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if len(self.order) != len(bottoms[0]):
            raise LayerError(
                f"the bottom is {format_shape(bottoms[0])}; {len(self.order)} axes were needed, one for each dim"
            )
        return super().top_shapes(bottoms)


@dataclass(frozen=True)
class Reverse(Layer):
    """Reverses the order along an axis, or several (caffe_ocr: reverse_layer.cpp)."""

    in_place: ClassVar[bool] = False
    only_moves_data: ClassVar[bool] = True

    axes: tuple[int, ...]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(tuple(layer.proto.reverse_param.axis) or (0,))

    def _axes(self, bottom: Shape) -> list[int]:
        axes = [canonical_axis(axis, len(bottom), bottom) for axis in self.axes]
        if len(set(axes)) != len(axes):
            raise LayerError(f"axis is {list(self.axes)}, which names one twice; each was needed once at most")
        return axes

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        self._axes(bottoms[0])
        return [bottoms[0]]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Slice", [node.bottoms[0], *self._bounds(node, onnx)], node.tops)

    def _bounds(self, node: Node, onnx: OnnxBuilder) -> list[str]:
        axes = self._axes(node.bottom_shapes[0])
        number = len(axes)
        return [
            onnx.ints("last", [-1] * number), onnx.ints("before_first", [INT64_MIN] * number),
            onnx.ints("axes", axes), onnx.ints("backward", [-1] * number),
        ]  # fmt: skip

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return Gradients((onnx.op("Slice", [top_diffs[0], *self._bounds(node, onnx)], what="bottom_diff"),))

    @property
    def mixes_positions(self) -> bool:
        return True


@dataclass(frozen=True)
class Tile(Layer):
    """Repeats the bottom along an axis (caffe: tile_layer.cpp)."""

    only_moves_data: ClassVar[bool] = True

    axis: int
    tiles: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.tile_param
        if not p.HasField("tiles"):
            raise LayerError("Number of tiles must be specified")
        if p.tiles < 1:
            raise LayerError("Number of tiles must be positive.")
        return cls(p.axis, p.tiles)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x = bottoms[0]
        axis = canonical_axis(self.axis, len(x), x)
        return [(*x[:axis], x[axis] * self.tiles, *x[axis + 1 :])]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        rank = len(node.bottom_shapes[0])
        axis = canonical_axis(self.axis, rank)
        repeats = [self.tiles if i == axis else 1 for i in range(rank)]
        onnx.emit("Tile", [node.bottoms[0], onnx.ints("repeats", repeats)], node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        axis, dims = canonical_axis(self.axis, len(node.bottom_shapes[0])), onnx.dims(node.bottoms[0])
        tiles = onnx.reshape(top_diffs[0], (*dims[:axis], self.tiles, *dims[axis:]), what="tiles_diff")
        return Gradients((onnx.reduce("ReduceSum", tiles, [axis], keepdims=False, what="bottom_diff"),))

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        axis = canonical_axis(self.axis, len(node.bottom_shapes[0]))
        top = concatenated(list(bottoms) * self.tiles, axis, node.top_shapes[0])
        return None if top is None else [top]


@dataclass(frozen=True)
class Squeeze(_SameValues):
    """Drops the axes `axis`, which have length 1; all that have where none is named (Synopsys: squeeze_layer.cpp)."""

    axes: tuple[int, ...]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(tuple(layer.proto.squeeze_param.axis))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x = bottoms[0]
        dropped = {canonical_axis(axis, len(x), x) for axis in self.axes}
        for axis in dropped:
            if x[axis] != 1:
                raise LayerError(f"axis {axis} of {format_shape(x)} has length {x[axis]}; 1 was needed to drop it")
        if not self.axes:
            dropped = {axis for axis, size in enumerate(x) if size == 1}
        return [tuple(size for axis, size in enumerate(x) if axis not in dropped)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        shape = node.bottom_shapes[0]
        if not self.axes:  # an axis whose length values decide would stay, or go, in each pass anew
            ones = tuple(dim for dim, size in zip(onnx.dims(node.bottoms[0]), shape, strict=True) if size == 1)
            onnx.fixed(ones, "Squeeze without `axis` needs to know which axes have length 1; `axis` says which")
        if len(onnx.dims(node.tops[0])) == len(shape):
            onnx.emit("Identity", node.bottoms, node.tops)
        else:
            onnx.reshape(node.bottoms[0], onnx.dims(node.tops[0]), to=node.tops[0])

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return Gradients((like_bottom(onnx, node, top_diffs[0]),))


@dataclass(frozen=True)
class Pad(Layer):
    """Adds `constant_values` around the bottom: `paddings` before and after each axis (Synopsys: pad_layer.cpp).

    `pad_h` and `pad_w` instead add as many rows and columns of 0 on each side of N×C×H×W (Face_Parsing_2016: pad_layer.cpp).
    """

    in_place: ClassVar[bool] = False

    paddings: tuple[int, ...]
    """Before and after, for each axis in turn."""
    value: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.pad_param
        if p.HasField("pad_h") or p.HasField("pad_w"):
            if p.paddings or p.HasField("constant_values"):
                raise LayerError(
                    "pad_h or pad_w beside paddings or constant_values, of which each is another fork's; either was needed"
                )
            return cls((0, 0, 0, 0, p.pad_h, p.pad_h, p.pad_w, p.pad_w), 0)
        if len(p.paddings) % 2:
            raise LayerError(f"{len(p.paddings)} paddings; Paddings for each dimension should have 2 values!")
        return cls(tuple(p.paddings), p.constant_values)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x = bottoms[0]
        if len(self.paddings) != 2 * len(x):
            raise LayerError(
                f"{len(self.paddings)} paddings for the bottom {format_shape(x)}; Paddings' num should be 2 times of "
                "bottom dimension!"
            )
        return [tuple(size + sum(self.paddings[2 * i : 2 * i + 2]) for i, size in enumerate(x))]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if not self.paddings:  # of a blob without axes, which onnxruntime's Pad does not take
            onnx.emit("Identity", node.bottoms, node.tops)
            return
        pads = onnx.ints("pads", [*self.paddings[::2], *self.paddings[1::2]])
        onnx.emit("Pad", [node.bottoms[0], pads, onnx.floats("constant_values", self.value)], node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        before, after = self.paddings[::2], self.paddings[1::2]
        ends = [-size if size else 2**31 - 1 for size in after]
        bounds = onnx.ints("begin", before), onnx.ints("end", ends)
        return Gradients((onnx.op("Slice", [top_diffs[0], *bounds], what="bottom_diff"),))
