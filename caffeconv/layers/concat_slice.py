"""Layers that put blobs together, take them apart, copy or drop them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, Settings, at_least, exactly
from caffeconv.tensor.axis_order import AxisOrder, concatenated, sliced
from caffeconv.tensor.shape import Shape, Shapes, canonical_axis, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Split(Layer):
    """Every top is the bottom (caffe: split_layer.cpp)."""

    tops: ClassVar[Arity] = at_least(1)
    in_place: ClassVar[bool] = False
    only_moves_data: ClassVar[bool] = True
    is_pointwise: ClassVar[bool] = True

    copies: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(len(layer.tops))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return [bottoms[0]] * self.copies

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        for top in node.tops:
            onnx.emit("Identity", node.bottoms, [top])

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return Gradients((onnx.op("Sum", top_diffs, what="bottom_diff"),))

    def is_identity(self, node: Node) -> bool:
        return self.copies == 1

    def repeats_bottom(self, node: Node) -> bool:
        return True

    def shares_memory(self, node: Node) -> bool:
        return True

    def is_spatially_uniform(self, node: Node) -> bool:
        return True


@dataclass(frozen=True)
class Silence(Layer):
    """Takes any bottoms and makes nothing, so that they are no outputs of the net (caffe: silence_layer.cpp)."""

    bottoms: ClassVar[Arity] = at_least(1)
    tops: ClassVar[Arity] = exactly(0)
    only_moves_data: ClassVar[bool] = True

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls()

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return []

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        return

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return Gradients([None] * len(node.bottoms))

    def is_spatially_uniform(self, node: Node) -> bool:
        return True


@dataclass(frozen=True)
class Concat(Layer):
    """Concatenates the bottoms along an axis (caffe: concat_layer.cpp).

    Intel's `per_fla_fuse` does what the Permute (to N×H×W×C) and Flatten before each bottom did, which are left out.
    """

    bottoms: ClassVar[Arity] = at_least(1)
    only_moves_data: ClassVar[bool] = True
    settings: ClassVar[str] = "concat_param"

    axis: int
    flattens: bool = False
    """Whether each bottom is brought into one row of places and channels."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.concat_param
        if p.HasField("axis") and p.HasField("concat_dim"):
            raise LayerError("Either axis or concat_dim should be specified; not both.")
        return cls(p.concat_dim if p.HasField("concat_dim") else p.axis, p.per_fla_fuse)

    @classmethod
    def repairs(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[Settings]:
        """The one axis on which the bottoms differ."""
        differing = [axis for axis, sizes in enumerate(zip(*bottoms, strict=False)) if len(set(sizes)) > 1]
        is_one = len(differing) == 1 and len({len(bottom) for bottom in bottoms}) == 1
        return [{"axis": differing[0]}] if is_one and not layer.proto.concat_param.HasField("concat_dim") else []

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if self.flattens:
            if self.axis != 1 or any(len(bottom) != 4 for bottom in bottoms):
                shapes = ", ".join(map(format_shape, bottoms))
                raise LayerError(f"per_fla_fuse with axis {self.axis} over {shapes}; axis 1 and N×C×H×W were needed")
            bottoms = [(bottom[0], count(bottom, 1)) for bottom in bottoms]
        first = bottoms[0]
        axis = canonical_axis(self.axis, len(first), first)
        for i, bottom in enumerate(bottoms):
            if len(bottom) != len(first):
                raise LayerError(
                    f"All inputs must have the same #axes: bottom[0] is {format_shape(first)}, bottom[{i}] is "
                    f"{format_shape(bottom)}"
                )
            if any(j != axis and dim != first[j] for j, dim in enumerate(bottom)):
                raise LayerError(
                    "All inputs must have the same shape, except at concat_axis: "
                    f"bottom[0] is {format_shape(first)}, bottom[{i}] is {format_shape(bottom)}, axis {axis}"
                )
        return [(*first[:axis], sum(bottom[axis] for bottom in bottoms), *first[axis + 1 :])]

    def shares_memory(self, node: Node) -> bool:
        return len(node.bottoms) == 1

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        bottoms = [self._row(onnx, bottom) for bottom in node.bottoms] if self.flattens else node.bottoms
        onnx.emit("Concat", bottoms, node.tops, axis=canonical_axis(self.axis, len(node.top_shapes[0])))

    def _row(self, onnx: OnnxBuilder, bottom: str) -> str:
        by_place = onnx.op("Transpose", [bottom], perm=[0, 2, 3, 1], what="by_place")
        return onnx.op("Flatten", [by_place], axis=1, what="row")

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        if len(node.bottoms) == 1 and not self.flattens:
            return Gradients(top_diffs)
        axis = canonical_axis(self.axis, len(node.bottom_shapes[0]))
        if self.flattens:
            return self._gradient_of_rows(node, onnx, top_diffs[0])
        axis_of_bottoms = tuple(onnx.dims(bottom)[axis] for bottom in node.bottoms)
        sizes = onnx.fixed(axis_of_bottoms, "the gradient of a Concat needs to know the sizes of its bottoms")
        parts = [top_diffs[0], onnx.ints("sizes", sizes)]
        return Gradients(onnx.ops("Split", parts, len(sizes), what="bottom_diff", axis=axis))

    def _gradient_of_rows(self, node: Node, onnx: OnnxBuilder, diff: str) -> Gradients:
        sizes = [count(shape, 1) for shape in node.bottom_shapes]
        rows = onnx.ops("Split", [diff, onnx.ints("sizes", sizes)], len(sizes), what="row_diff", axis=1)
        diffs = []
        for row, bottom in zip(rows, node.bottoms, strict=True):
            num, channels, height, width = onnx.dims(bottom)
            by_place = onnx.reshape(row, (num, height, width, channels), what="place_diff")
            diffs.append(onnx.op("Transpose", [by_place], perm=[0, 3, 1, 2], what="bottom_diff"))
        return Gradients(diffs)

    def is_spatially_uniform(self, node: Node) -> bool:
        if self.flattens:
            return False
        return self.axis in (0, 1)  # not axis -1, which is another one for N×C than for N×C×H×W

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        if self.flattens:
            return None
        top = concatenated(bottoms, canonical_axis(self.axis, len(node.bottom_shapes[0])), node.top_shapes[0])
        return None if top is None else [top]

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        rank = len(bottoms[0])
        if self.flattens or any(len(bottom) != rank for bottom in bottoms) or not -rank <= self.axis < rank:
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


@dataclass(frozen=True)
class Slice(Layer):
    """Cuts the bottom into its tops along an axis, evenly or at `slice_point`s (caffe: slice_layer.cpp)."""

    tops: ClassVar[Arity] = at_least(1)
    only_moves_data: ClassVar[bool] = True
    settings: ClassVar[str] = "slice_param"

    axis: int
    points: tuple[int, ...]
    parts: int

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

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x = bottoms[0]
        sizes = self.sizes(x)
        axis = canonical_axis(self.axis, len(x), x)
        return [(*x[:axis], size, *x[axis + 1 :]) for size in sizes]

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

    def shares_memory(self, node: Node) -> bool:
        return self.parts == 1

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

    def is_spatially_uniform(self, node: Node) -> bool:
        return self.axis in (0, 1)

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        return sliced(bottoms[0], canonical_axis(self.axis, len(node.bottom_shapes[0])), node.top_shapes)

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
