"""Layers that move values about without changing them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Gradients, LabelRule, Layer, Node, Settings, at_least, exactly
from caffeconv.layers.gradients import INT64, added_rows, like_bottom, refuse_to
from caffeconv.tensor.axis_order import Arrangement, as_caffe, concatenated, flat, reshaped, sliced
from caffeconv.tensor.shape import Dims, Shape, Shapes, by_x, canonical_axis, count

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Split(Layer):
    """Every top is the bottom (caffe: split_layer.cpp)."""

    tops: ClassVar[Arity] = at_least(1)
    in_place: ClassVar[bool] = False
    keeps_places: ClassVar[bool] = True
    moves_values: ClassVar[bool] = True

    copies: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(len(layer.tops))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return [bottoms[0]] * self.copies

    def is_identity(self, node: Node) -> bool:
        return self.copies == 1

    def repeats_bottom(self, node: Node) -> bool:
        return True

    def treats_places_alike(self, node: Node) -> bool:
        return True

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        for top in node.tops:
            onnx.emit("Identity", node.bottoms, [top])

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return Gradients((onnx.op("Sum", top_diffs, what="bottom_diff"),))


@dataclass(frozen=True)
class Silence(Layer):
    """Takes any bottoms and makes nothing, so that they are no outputs of the net (caffe: silence_layer.cpp)."""

    bottoms: ClassVar[Arity] = at_least(1)
    tops: ClassVar[Arity] = exactly(0)
    moves_values: ClassVar[bool] = True

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls()

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return []

    def treats_places_alike(self, node: Node) -> bool:
        return True

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        return

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return Gradients([None] * len(node.bottoms))


class _SameValues(Layer):
    """The bottom's values under another shape."""

    in_place: ClassVar[bool] = False
    propagates_always: ClassVar[bool] = True
    moves_values: ClassVar[bool] = True

    def only_flattens(self, node: Node) -> bool:
        return _makes_rows(node)

    def over_places(self, node: Node, bottoms: Shapes) -> Node:
        return _left_out(node) if self.only_flattens(node) else super().over_places(node, bottoms)

    def arrange(self, node: Node, bottoms: Sequence[Arrangement]) -> Sequence[Arrangement] | None:
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

    Only axes axis…axis+num_axes-1 are replaced; axis -1 means after the last axis.
    """

    settings: ClassVar[str] = "reshape_param"

    dims: tuple[int, ...]
    axis: int
    num_axes: int

    @classmethod
    def repairs(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[Settings]:
        dims = tuple(layer.proto.reshape_param.shape.dim)
        rest = tuple(1 if dim == -1 else dim for dim in dims)
        # the explicit size that stands for the rest is inferred instead; what was inferred before becomes 1
        return [{"dim": (*rest[:i], -1, *rest[i + 1 :])} for i, dim in reversed(list(enumerate(dims))) if dim > 0]

    @property
    def mixes_places(self) -> bool:
        return True

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.reshape_param
        dims = tuple(p.shape.dim)
        if dims.count(-1) > 1:
            raise LayerError("new shape contains multiple -1 dims; at most a single (1) value of -1 may be specified")
        if any(dim < -1 for dim in dims):
            raise LayerError(f"new shape {by_x(dims)} contains a size below -1")
        if p.num_axes < -1:
            raise LayerError("num_axes must be >= 0, or -1 for all")
        return cls(dims, p.axis, p.num_axes)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x = bottoms[0]
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
                    f"(axis {start + i} of {by_x(x)})"
                )
            middle.append(x[start + i] if dim == 0 else dim)
        return [_inferred(x, (*x[:start], *middle, *x[end:]))]

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

    def for_any_batch(self, bottoms: Shapes) -> Layer:
        # an explicit first size that is the batch's own copies it: every item then gives what it gives alone
        if self.axis == 0 and self.dims and bottoms[0] and self.dims[0] == bottoms[0][0]:
            return replace(self, dims=(0, *self.dims[1:]))
        return self

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.reshape(node.bottoms[0], onnx.dims(node.tops[0]), to=node.tops[0])

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return Gradients((like_bottom(onnx, node, top_diffs[0]),))


def _makes_rows(node: Node) -> bool:
    """Whether the top is N×K of a bottom N×…; 1×1 may follow."""
    x, y = node.bottom_shapes[0], node.top_shapes[0]
    return len(x) > 1 and len(y) > 1 and x[0] == y[0] and y[1] == count(x, 1)


def _left_out(node: Node) -> Node:
    """The node as a copy of its bottom."""
    proto = LayerParameter(name=node.name, type="Split", bottom=node.definition.bottoms, top=node.definition.tops)
    return replace(node, definition=replace(node.definition, type="Split", proto=proto), layer=Split(1))


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
            f"output count must match input count: {by_x(shape)} has {count(shape)} values, the bottom {by_x(x)} has {total}"
        )
    return shape


@dataclass(frozen=True)
class Concat(Layer):
    """Lays the bottoms one after the other along an axis (caffe: concat_layer.cpp)."""

    bottoms: ClassVar[Arity] = at_least(1)
    in_place: ClassVar[bool] = False
    moves_values: ClassVar[bool] = True

    axis: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.concat_param
        if p.HasField("axis") and p.HasField("concat_dim"):
            raise LayerError("Either axis or concat_dim should be specified; not both.")
        return cls(p.concat_dim if p.HasField("concat_dim") else p.axis)

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        rank = len(bottoms[0])
        if any(len(bottom) != rank for bottom in bottoms) or not -rank <= self.axis < rank:
            return ()
        axis = self.axis % rank
        return [
            {
                i: (*model[:axis], bottom[axis], *model[axis + 1 :])
                for i, bottom in enumerate(bottoms)
                if bottom[:axis] != model[:axis] or bottom[axis + 1 :] != model[axis + 1 :]
            }
            for model in bottoms
        ]

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        first = bottoms[0]
        axis = canonical_axis(self.axis, len(first), first)
        for i, bottom in enumerate(bottoms):
            if len(bottom) != len(first):
                raise LayerError(
                    f"All inputs must have the same #axes: bottom[0] is {by_x(first)}, bottom[{i}] is {by_x(bottom)}"
                )
            if any(j != axis and dim != first[j] for j, dim in enumerate(bottom)):
                raise LayerError(
                    "All inputs must have the same shape, except at concat_axis: "
                    f"bottom[0] is {by_x(first)}, bottom[{i}] is {by_x(bottom)}, axis {axis}"
                )
        return [(*first[:axis], sum(bottom[axis] for bottom in bottoms), *first[axis + 1 :])]

    def treats_places_alike(self, node: Node) -> bool:
        return self.axis in (0, 1)  # not axis -1, which is another one for N×C than for N×C×H×W

    def arrange(self, node: Node, bottoms: Sequence[Arrangement]) -> Sequence[Arrangement] | None:
        top = concatenated(bottoms, canonical_axis(self.axis, len(node.bottom_shapes[0])), node.top_shapes[0])
        return None if top is None else [top]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Concat", node.bottoms, node.tops, axis=canonical_axis(self.axis, len(node.bottom_shapes[0])))

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        if len(node.bottoms) == 1:
            return Gradients(top_diffs)
        axis = canonical_axis(self.axis, len(node.bottom_shapes[0]))
        axis_of_bottoms = tuple(onnx.dims(bottom)[axis] for bottom in node.bottoms)
        sizes = onnx.fixed(axis_of_bottoms, "the gradient of a Concat needs to know the sizes of its bottoms")
        parts = [top_diffs[0], onnx.ints("sizes", sizes)]
        return Gradients(onnx.ops("Split", parts, len(sizes), what="bottom_diff", axis=axis))


@dataclass(frozen=True)
class Slice(Layer):
    """Cuts the bottom into its tops along an axis, evenly or at `slice_point`s (caffe: slice_layer.cpp)."""

    tops: ClassVar[Arity] = at_least(1)
    in_place: ClassVar[bool] = False
    settings: ClassVar[str] = "slice_param"
    moves_values: ClassVar[bool] = True

    axis: int
    points: tuple[int, ...]
    parts: int

    @classmethod
    def repairs(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[Settings]:
        p, parts = layer.proto.slice_param, max(1, len(layer.tops))
        axis = p.slice_dim if p.HasField("slice_dim") else p.axis
        size = bottoms[0][axis] if -len(bottoms[0]) <= axis < len(bottoms[0]) else 0
        even = tuple(size * i // parts for i in range(1, parts))
        known: list[Settings] = [{"slice_point": tuple(sorted(p.slice_point))}]
        known += [{"slice_point": ()}] if size % parts == 0 else []
        return [*known, {"slice_point": even}] if size >= parts else known

    @classmethod
    def settings_for(cls, layer: LayerDef, bottoms: Shapes, top: int, wanted: Shape) -> Sequence[Settings]:
        self, x = cls.parse(layer), bottoms[0]
        axis, parts = canonical_axis(self.axis, len(x), x), list(self.sizes(x))
        if len(wanted) != len(x) or len(parts) < 2:
            return ()
        neighbour = top + 1 if top + 1 < len(parts) else top - 1
        parts[neighbour] -= wanted[axis] - parts[top]
        parts[top] = wanted[axis]
        return ({"slice_point": tuple(itertools.accumulate(parts))[:-1]},) if min(parts) > 0 else ()

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        if not self.points or any(after <= before for before, after in itertools.pairwise((0, *self.points))):
            return ()
        x = bottoms[0]
        axis = canonical_axis(self.axis, len(x), x)
        # the last part as large as the one before it
        size = 2 * self.points[-1] - (0, *self.points)[-2]
        return [{0: (*x[:axis], size, *x[axis + 1 :])}]

    def why_refused(self, bottoms: Shapes) -> Sequence[str]:
        x = bottoms[0]
        axis = canonical_axis(self.axis, len(x), x)
        if not self.points:
            return ()
        beyond = [point for point in self.points if point >= x[axis]]
        if not beyond:
            return ["Each slice_point is where a top begins, and must be greater than the one before it."]
        return [
            f"slice_point {beyond[0]} would start a top at place {beyond[0]} of axis {axis}, whose places are "
            f"0 to {x[axis] - 1}."
        ]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.slice_param
        if p.HasField("axis") and p.HasField("slice_dim"):
            raise LayerError("Either axis or slice_dim should be specified; not both.")
        if p.slice_point and len(p.slice_point) != len(layer.tops) - 1:
            raise LayerError(
                f"{len(p.slice_point)} slice_point for {len(layer.tops)} tops; {len(layer.tops) - 1} were needed "
                "(slice_point_.size() == top.size() - 1)"
            )
        return cls(p.slice_dim if p.HasField("slice_dim") else p.axis, tuple(p.slice_point), len(layer.tops))

    def sizes(self, bottom: Shape) -> tuple[int, ...]:
        """How much of the axis each top gets."""
        size = bottom[canonical_axis(self.axis, len(bottom), bottom)]
        if not self.points:
            if size % self.parts:
                raise LayerError(
                    f"Number of top blobs ({self.parts}) should evenly divide input slice axis ({size}); or give slice_point"
                )
            return (size // self.parts,) * self.parts
        edges = (0, *self.points, size)
        sizes = tuple(after - before for before, after in itertools.pairwise(edges))
        if any(part <= 0 for part in sizes):
            raise LayerError(f"slice_point {list(self.points)} must rise, and end below the axis's size {size}")
        return sizes

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x = bottoms[0]
        sizes = self.sizes(x)
        axis = canonical_axis(self.axis, len(x), x)
        return [(*x[:axis], size, *x[axis + 1 :]) for size in sizes]

    def treats_places_alike(self, node: Node) -> bool:
        return self.axis in (0, 1)

    def arrange(self, node: Node, bottoms: Sequence[Arrangement]) -> Sequence[Arrangement] | None:
        return sliced(bottoms[0], canonical_axis(self.axis, len(node.bottom_shapes[0])), node.top_shapes)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        axis = canonical_axis(self.axis, len(node.bottom_shapes[0]))
        if self.parts == 1:
            onnx.emit("Identity", node.bottoms, node.tops)
            return
        axis_of_tops = tuple(onnx.dims(top)[axis] for top in node.tops)
        sizes = onnx.fixed(axis_of_tops, "a Slice along the batch axis needs to know the batch size")
        onnx.emit("Split", [node.bottoms[0], onnx.ints("sizes", sizes)], node.tops, axis=axis)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        axis = canonical_axis(self.axis, len(node.bottom_shapes[0]))
        return Gradients((onnx.op("Concat", top_diffs, what="bottom_diff", axis=axis),))


@dataclass(frozen=True)
class Permute(Layer):
    """Axes in another order; those that `order` leaves out follow in their own order (ssd: permute_layer.cpp)."""

    propagates_always: ClassVar[bool] = True
    moves_values: ClassVar[bool] = True

    order: tuple[int, ...]

    @property
    def mixes_places(self) -> bool:
        return True

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        order = tuple(layer.proto.permute_param.order)
        if len(set(order)) != len(order):
            raise LayerError(f"order {list(order)} names an axis twice; there are duplicate orders")
        return cls(order)

    def full_order(self, rank: int) -> tuple[int, ...]:
        if any(axis >= rank for axis in self.order):
            raise LayerError(f"order {list(self.order)} names an axis that a blob of {rank} axes lacks")
        return (*self.order, *(axis for axis in range(rank) if axis not in self.order))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return [tuple(bottoms[0][axis] for axis in self.full_order(len(bottoms[0])))]

    def arrange(self, node: Node, bottoms: Sequence[Arrangement]) -> Sequence[Arrangement] | None:
        bottom, shape = bottoms[0], node.top_shapes[0]
        order = self.full_order(len(shape))
        if bottom.is_flattening:
            return [flat(shape, bottom.pieces)] if order[-1:] == (len(shape) - 1,) else None
        # to whoever holds images channels last, 0 2 3 1 does nothing
        return [as_caffe(shape)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Transpose", node.bottoms, node.tops, perm=self.full_order(len(node.bottom_shapes[0])))

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        order = self.full_order(len(node.bottom_shapes[0]))
        back = sorted(range(len(order)), key=order.__getitem__)
        return Gradients((onnx.op("Transpose", top_diffs, what="bottom_diff", perm=back),))


@dataclass(frozen=True)
class Crop(Layer):
    """Cuts the first bottom to the second's size from `axis` on, at `offset` (caffe: crop_layer.cpp)."""

    bottoms: ClassVar[Arity] = exactly(2)
    in_place: ClassVar[bool] = False
    moves_values: ClassVar[bool] = True

    settings: ClassVar[str] = "crop_param"

    axis: int
    offset: tuple[int, ...]

    @classmethod
    def repairs(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[Settings]:
        axis = layer.proto.crop_param.axis
        spare = [whole - part for whole, part in zip(bottoms[0][axis:], bottoms[1][axis:], strict=False)]
        centred = tuple(max(0, size // 2) for size in spare)
        return [{"offset": centred[:1] if len(set(centred)) == 1 else centred}, {"offset": (0,)}]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(layer.proto.crop_param.axis, tuple(layer.proto.crop_param.offset))

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
            f"Crop only cuts off: bottom[0] must have at least bottom[1]'s places and the offset, {by_x(least)}; it has "
            f"{by_x(x[self.start(x) :])}."
        ]

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

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x, like = bottoms
        if len(x) != len(like):
            raise LayerError(f"bottom[0] is {by_x(x)}, bottom[1] is {by_x(like)}; the same number of axes was needed")
        start = self.start(x)
        for i, offset in enumerate(self.offsets(x), start):
            if x[i] - offset < like[i]:
                raise LayerError(
                    f"the crop for dimension {i} is out-of-bounds with size {like[i]} and offset {offset} "
                    f"(bottom[0] is {by_x(x)}, bottom[1] is {by_x(like)})"
                )
        return [(*x[:start], *like[start:])]

    def arrange(self, node: Node, bottoms: Sequence[Arrangement]) -> Sequence[Arrangement] | None:
        whole, start = bottoms[0], self.start(node.bottom_shapes[0])
        if whole.is_flattening and start < len(whole.shape):
            return None
        return [replace(whole, shape=node.top_shapes[0])] if len(whole.item) > 1 else [as_caffe(node.top_shapes[0])]

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
        whole, kept = (onnx.fixed(onnx.dims(value)[start:], why) for value in (node.bottoms[0], node.tops[0]))
        before = self.offsets(node.bottom_shapes[0])
        after = [size - offset - rest for size, offset, rest in zip(whole, before, kept, strict=True)]
        pads = [*([0] * start), *before, *([0] * start), *after]
        return Gradients((onnx.op("Pad", [top_diffs[0], onnx.ints("cut_off", pads)], what="bottom_diff"), None))


@dataclass(frozen=True)
class Tile(Layer):
    """Repeats the bottom along an axis (caffe: tile_layer.cpp)."""

    in_place: ClassVar[bool] = False
    moves_values: ClassVar[bool] = True

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

    def arrange(self, node: Node, bottoms: Sequence[Arrangement]) -> Sequence[Arrangement] | None:
        axis = canonical_axis(self.axis, len(node.bottom_shapes[0]))
        top = concatenated(list(bottoms) * self.tiles, axis, node.top_shapes[0])
        return None if top is None else [top]

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


@dataclass(frozen=True)
class BatchReindex(Layer):
    """Picks items of the batch: top[i] = bottom[0][bottom[1][i]] (caffe: batch_reindex_layer.cpp)."""

    bottoms: ClassVar[Arity] = exactly(2)
    in_place: ClassVar[bool] = False
    moves_values: ClassVar[bool] = True

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls()

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if len(bottoms[1]) != 1:
            raise LayerError(f"the indices are {by_x(bottoms[1])}; one axis was needed")
        return [(*bottoms[1], *bottoms[0][1:])]

    def arrange(self, node: Node, bottoms: Sequence[Arrangement]) -> Sequence[Arrangement] | None:
        return [replace(bottoms[0], shape=node.top_shapes[0])] if bottoms[0].lead else None

    def label_rules(self, node: Node) -> Sequence[LabelRule]:
        return (LabelRule(1, node.bottom_shapes[0][0], of_batch=True),)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        rows = onnx.op("Cast", [node.bottoms[1]], what="rows", to=7)
        onnx.emit("Gather", [node.bottoms[0], rows], node.tops, axis=0)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        refuse_to("the index", propagate_down, 1)
        rows = onnx.op("Cast", [node.bottoms[1]], what="rows", to=INT64)
        diff = added_rows(onnx, node.bottoms[0], rows, top_diffs[0], len(node.bottom_shapes[0]), "bottom_diff")
        return Gradients((diff, None))


@dataclass(frozen=True)
class Filter(Layer):
    """Passes on the items of each bottom for which the last bottom, the selector, is not 0 (caffe: filter_layer.cpp)."""

    bottoms: ClassVar[Arity] = at_least(2)
    tops: ClassVar[Arity] = at_least(1)
    in_place: ClassVar[bool] = False
    data_axis: ClassVar[int | None] = 0
    moves_values: ClassVar[bool] = True
    decides: ClassVar[bool] = True

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        if len(layer.tops) != len(layer.bottoms) - 1:
            raise LayerError(
                f"{len(layer.bottoms)} bottoms need {len(layer.bottoms) - 1} tops: all but the selector pass"
            )
        return cls()

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        selector = bottoms[-1]
        if count(selector, 1) != 1:
            raise LayerError(f"the selector is {by_x(selector)}; Selector blob must have shape N × 1 × …")
        for i, bottom in enumerate(bottoms[:-1]):
            if bottom[0] != selector[0]:
                raise LayerError(
                    f"bottom[{i}] is {by_x(bottom)}, the selector {by_x(selector)}; "
                    "Each bottom should have the same 0th dimension as the selector blob"
                )
        return bottoms[:-1]

    def arrange(self, node: Node, bottoms: Sequence[Arrangement]) -> Sequence[Arrangement] | None:
        return bottoms[:-1] if all(bottom.lead for bottom in bottoms[:-1]) else None

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        selector = onnx.op(
            "Cast", [onnx.reshape(node.bottoms[-1], _flat(onnx, node.bottoms[-1]))], what="selected", to=9
        )
        for bottom, top in zip(node.bottoms[:-1], node.tops, strict=True):
            onnx.emit("Compress", [bottom, selector], [top], axis=0)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        refuse_to("filter index inputs", propagate_down, len(node.bottoms) - 1)
        flat = onnx.reshape(node.bottoms[-1], _flat(onnx, node.bottoms[-1]), what="selector")
        rows = onnx.reshape(onnx.op("NonZero", [flat], what="passed"), (-1,), what="rows")
        diffs = [
            added_rows(onnx, bottom, rows, diff, len(shape), "bottom_diff")
            for bottom, diff, shape in zip(node.bottoms, top_diffs, node.bottom_shapes, strict=False)
        ]
        return Gradients((*diffs, None))


def _flat(onnx: OnnxBuilder, value: str) -> Dims:
    return (onnx.dims(value)[0],)
