"""Layers that cut planes or batches into blocks and lay them elsewhere: DepthToSpace, BatchToSpaceND, Reorg, Flip."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.caffe_pb2 import DepthToSpaceParameter, SpaceToDepthParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Gradients, Layer, Node
from caffeconv.tensor.axis_order import AxisOrder
from caffeconv.tensor.shape import Dims, Shape, Shapes, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

Move = tuple[Dims, tuple[int, ...]]
"""The shape in which blocks have axes of their own, and the order that these axes get."""


def moved(onnx: OnnxBuilder, value: str, move: Move, dims: Dims, *, to: str | None = None) -> str:
    """`value` with its blocks moved, in the shape `dims`."""
    split, perm = move
    cells = onnx.reshape(value, split, what="cells")
    return onnx.reshape(onnx.op("Transpose", [cells], perm=perm, what="moved"), dims, to=to, what="blocks")


def moved_back(onnx: OnnxBuilder, diff: str, move: Move, dims: Dims) -> str:
    """The diff of what `moved` moved, in its shape `dims`."""
    split, perm = move
    cells = onnx.reshape(diff, tuple(split[axis] for axis in perm), what="moved_diff")
    back = onnx.op("Transpose", [cells], perm=np.argsort(perm).tolist(), what="cells_diff")
    return onnx.reshape(back, dims, what="bottom_diff")


@dataclass(frozen=True)
class Rearranging(Layer):
    """A layer whose top has the bottom's values in another order."""

    in_place: ClassVar[bool] = False
    only_moves_data: ClassVar[bool] = True

    @abstractmethod
    def move(self, bottom: Shape, batch: int | None) -> Move:
        """How the blocks of a bottom of that shape move; `batch` stands for its first axis."""

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x, top = node.bottoms[0], node.tops[0]
        moved(onnx, x, self._move_of(node, onnx), onnx.dims(top), to=top)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        diff = moved_back(onnx, top_diffs[0], self._move_of(node, onnx), onnx.dims(node.bottoms[0]))
        return Gradients((diff,))

    def _move_of(self, node: Node, onnx: OnnxBuilder) -> Move:
        batch, *rest = onnx.dims(node.bottoms[0])
        onnx.fixed(tuple(rest), "blocks of a plane need to know its size")
        return self.move(node.bottom_shapes[0], batch)

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        return None


@dataclass(frozen=True)
class _SpaceAndDepth(Rearranging):
    """What DepthToSpace and SpaceToDepth share: blocks of `size` × `size` places of a plane are as many channels."""

    formats: ClassVar[tuple[str, ...]]

    size: int
    data_format: str

    @classmethod
    def _parse_from(cls, p: DepthToSpaceParameter | SpaceToDepthParameter) -> Self:
        if p.block_size < 1:
            raise LayerError(f"block_size is {p.block_size}; at least 1 was needed")
        if p.data_format not in cls.formats:
            raise LayerError(f"data_format is {p.data_format!r}; one of {', '.join(cls.formats)} was needed")
        return cls(p.block_size, p.data_format)

    def _sizes(self, bottom: Shape) -> tuple[int, int, int]:
        """Channels, height and width."""
        if len(bottom) != 4:
            raise LayerError(f"the bottom is {format_shape(bottom)}; 4 axes were needed")
        return (bottom[3], bottom[1], bottom[2]) if self.data_format == "NHWC" else (bottom[1], bottom[2], bottom[3])

    def _shape(self, batch: int, channels: int, height: int, width: int) -> Shape:
        if self.data_format == "NHWC":
            return batch, height, width, channels
        return batch, channels, height, width


@dataclass(frozen=True)
class DepthToSpace(_SpaceAndDepth):
    """block_size² channels become block_size × block_size places (Synopsys: depth_to_space_layer.cpp).

    `data_format`: NHWC, the default, and NCHW = DCR have the block before the channel that it is of, CRD after it.
    """

    formats: ClassVar[tuple[str, ...]] = ("NHWC", "NCHW", "DCR", "CRD")

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls._parse_from(layer.proto.depth_to_space_param)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        channels, height, width = self._sizes(bottoms[0])
        if channels % self.size**2:
            raise LayerError(f"{channels} channels; a multiple of block_size² = {self.size**2} was needed")
        return [self._shape(bottoms[0][0], channels // self.size**2, height * self.size, width * self.size)]

    def move(self, bottom: Shape, batch: int | None) -> Move:
        channels, height, width = self._sizes(bottom)
        s, fewer = self.size, channels // self.size**2
        if self.data_format == "NHWC":
            return (batch, height, width, s, s, fewer), (0, 1, 3, 2, 4, 5)
        if self.data_format == "CRD":
            return pixel_shuffle(bottom, batch, s)
        return (batch, s, s, fewer, height, width), (0, 3, 4, 1, 5, 2)


@dataclass(frozen=True)
class SpaceToDepth(_SpaceAndDepth):
    """block_size × block_size places become block_size² channels (Synopsys: space_to_depth_layer.cpp).

    `data_format`: NHWC, the default, or NCHW; the place within the block comes before the channel.
    """

    formats: ClassVar[tuple[str, ...]] = ("NHWC", "NCHW")

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls._parse_from(layer.proto.space_to_depth_param)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        channels, height, width = self._sizes(bottoms[0])
        if height % self.size or width % self.size:
            raise LayerError(f"height and width are {height}×{width}; multiples of block_size {self.size} were needed")
        return [self._shape(bottoms[0][0], channels * self.size**2, height // self.size, width // self.size)]

    def move(self, bottom: Shape, batch: int | None) -> Move:
        channels, height, width = self._sizes(bottom)
        s = self.size
        if self.data_format == "NHWC":
            return (batch, height // s, s, width // s, s, channels), (0, 1, 3, 2, 4, 5)
        return (batch, channels, height // s, s, width // s, s), (0, 3, 5, 1, 2, 4)


def pixel_shuffle(bottom: Shape, batch: int | None, size: int) -> Move:
    """Channel c·size² + row·size + column of N×C×H×W goes to that row and column of a block of channel c."""
    return (batch, bottom[1] // size**2, size, size, *bottom[2:]), (0, 1, 4, 2, 5, 3)


def _check_blocks(blocks: Shape, margins: Shape, field: str) -> None:
    if not blocks or min(blocks) < 1:
        raise LayerError(
            f"block_shape is {list(blocks)}; a size of at least 1 for each axis after the first was needed"
        )
    if len(margins) != 2 * len(blocks):
        raise LayerError(
            f"{len(margins)} {field} for {len(blocks)} axes; 2 for each (before, after) were needed, which may be 0"
        )


def _check_axes(bottom: Shape, blocks: Shape) -> None:
    if len(bottom) <= len(blocks):
        raise LayerError(f"the bottom is {format_shape(bottom)}; more than {len(blocks)} axes were needed")


@dataclass(frozen=True)
class SpaceToBatchND(Layer):
    """Blocks of places become items, after padding with 0, from axis 1 on (TensorFlow; Synopsys)."""

    in_place: ClassVar[bool] = False

    blocks: Shape
    paddings: Shape
    """Before and after, for each axis in turn."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.space_to_batch_nd_param
        blocks, paddings = tuple(p.block_shape), tuple(p.paddings)
        _check_blocks(blocks, paddings, "paddings")
        return cls(blocks, paddings)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        _check_axes(bottoms[0], self.blocks)
        padded = self._padded(bottoms[0])
        for i, block in enumerate(self.blocks):
            if padded[i + 1] % block:
                raise LayerError(f"axis {i + 1} is {padded[i + 1]} with its paddings; a multiple of {block} was needed")
        sizes = (padded[i + 1] // block for i, block in enumerate(self.blocks))
        return [(bottoms[0][0] * count(self.blocks), *sizes, *bottoms[0][len(self.blocks) + 1 :])]

    def _padded(self, bottom: Shape) -> Shape:
        axes = len(self.blocks)
        sizes = (bottom[i + 1] + sum(self.paddings[2 * i : 2 * i + 2]) for i in range(axes))
        return (bottom[0], *sizes, *bottom[axes + 1 :])

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x, bottom = node.bottoms[0], node.bottom_shapes[0]
        onnx.fixed(onnx.dims(x), "making items of places needs to know the size of the batch")
        if any(self.paddings):
            rest = [0] * (len(bottom) - len(self.blocks) - 1)
            pads = [0, *self.paddings[::2], *rest, 0, *self.paddings[1::2], *rest]
            x = onnx.op("Pad", [x, onnx.ints("pads", pads)], what="padded")
        top = node.top_shapes[0]
        moved(onnx, x, self._move(self._padded(bottom)), top, to=node.tops[0])

    def _move(self, padded: Shape) -> Move:
        axes = len(self.blocks)
        cells = [size for i, block in enumerate(self.blocks) for size in (padded[i + 1] // block, block)]
        rest = range(2 * axes + 1, 2 * axes + len(padded) - axes)
        perm = (*range(2, 2 * axes + 1, 2), 0, *range(1, 2 * axes, 2), *rest)
        return (padded[0], *cells, *padded[axes + 1 :]), perm

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        return None


@dataclass(frozen=True)
class BatchToSpaceND(Layer):
    """Items become blocks of places, of which `crops` are cut off, from axis 1 on (TensorFlow; Synopsys)."""

    in_place: ClassVar[bool] = False

    blocks: Shape
    crops: Shape
    """Before and after, for each axis in turn."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.batch_to_space_nd_param
        blocks, crops = tuple(p.block_shape), tuple(p.crops)
        _check_blocks(blocks, crops, "crops")
        return cls(blocks, crops)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        bottom, axes = bottoms[0], len(self.blocks)
        _check_axes(bottom, self.blocks)
        if bottom[0] % count(self.blocks):
            raise LayerError(
                f"the batch is {bottom[0]}; a multiple of the block's {count(self.blocks)} places was needed"
            )
        whole = self._whole(bottom)
        sizes = [whole[i + 1] - sum(self.crops[2 * i : 2 * i + 2]) for i in range(axes)]
        if min(sizes) < 1:
            raise LayerError(
                f"the top would be {format_shape(sizes)} along the blocks' axes; smaller crops were needed"
            )
        return [(whole[0], *sizes, *bottom[axes + 1 :])]

    def _whole(self, bottom: Shape) -> Shape:
        """The top's shape before crops."""
        sizes = (bottom[i + 1] * block for i, block in enumerate(self.blocks))
        return (bottom[0] // count(self.blocks), *sizes, *bottom[len(self.blocks) + 1 :])

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x, bottom, axes = node.bottoms[0], node.bottom_shapes[0], len(self.blocks)
        onnx.fixed(onnx.dims(x), "making places of items needs to know the size of the batch")
        whole = self._whole(bottom)
        split = (*self.blocks, whole[0], *bottom[1:])
        pairs = (axis for i in range(axes) for axis in (axes + 1 + i, i))
        move = split, (axes, *pairs, *range(2 * axes + 1, len(split)))
        if not any(self.crops):
            moved(onnx, x, move, whole, to=node.tops[0])
            return
        bounds = [
            onnx.ints("begin", self.crops[::2]),
            onnx.ints("end", [whole[i + 1] - crop for i, crop in enumerate(self.crops[1::2])]),
            onnx.ints("block_axes", range(1, axes + 1)),
        ]
        onnx.emit("Slice", [moved(onnx, x, move, whole), *bounds], node.tops)

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        return None


@dataclass(frozen=True)
class Reorg(Rearranging):
    """Darknet's `reorg`: stride × stride places become channels, or with `reverse` channels become places.

    N×C×H×W → N×(C·s²)×(H/s)×(W/s). Darknet counts as if the bottom had C/s² channels of s times the height and width,
    so this is no plain space-to-depth. `reverse`: N×C×H×W → N×(C/s²)×(H·s)×(W·s) (MobileNet-YOLO: reorg_layer.cpp,
    darknet: reorg_cpu). Synopsys' fork takes the width for the height and the height for the width, which differs where
    a plane is not square; it knows stride 2 only, and no `reverse`.
    """

    stride: int
    reverse: bool
    sides_swapped: bool
    """Whether height and width change places, as in Synopsys' fork."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.reorg_param
        if not p.HasField("stride"):
            raise LayerError("Reorg Layer needs stride param.")
        if p.stride < 1:
            raise LayerError(f"stride is {p.stride}; at least 1 was needed")
        synopsys = layer.dialect == "synopsys"
        if synopsys and (p.stride != 2 or p.reverse):
            raise LayerError(
                f"stride is {p.stride}, reverse {str(p.reverse).lower()}; Synopsys' Reorg makes a top of the wrong size then. "
                "`stride: 2` without reverse, or another dialect than `dialect='synopsys'`, was needed"
            )
        return cls(p.stride, p.reverse, synopsys)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if len(bottoms[0]) != 4:
            raise LayerError(
                f"the bottom is {format_shape(bottoms[0])}; Input must have 4 axes, corresponding to (num, channels, "
                "height, width)"
            )
        (num, channels, height, width), s = bottoms[0], self.stride
        if channels % s**2:
            raise LayerError(f"{channels} channels and stride {s}; a multiple of stride × stride = {s**2} was needed")
        if self.reverse:
            return [(num, channels // s**2, height * s, width * s)]
        if height % s or width % s:
            raise LayerError(
                f"a plane of {format_shape((height, width))} and stride {s}; multiples of the stride were needed"
            )
        return [(num, channels * s**2, height // s, width // s)]

    def move(self, bottom: Shape, batch: int | None) -> Move:
        (_, channels, height, width), s = bottom, self.stride
        if self.sides_swapped:
            height, width = width, height
        fewer = channels // s**2
        if self.reverse:  # row and column within a cell, channel, cell's row, cell's column
            return (batch, s, s, fewer, height, width), (0, 3, 4, 1, 5, 2)
        # channel, row, row within a cell, column, column within a cell, of planes s times as high and wide
        return (batch, fewer, height, s, width, s), (0, 3, 5, 1, 2, 4)


@dataclass(frozen=True)
class Flip(Layer):
    """Turns N×C×H×W round, from left to right (`flip_width`), from top to bottom (`flip_height`) (caffe-windows)."""

    only_moves_data: ClassVar[bool] = True

    width: bool
    height: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.flip_param
        return cls(p.flip_width, p.flip_height)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if len(bottoms[0]) != 4:
            raise LayerError(f"the bottom is {format_shape(bottoms[0])}; N×C×H×W was needed")
        return [bottoms[0]]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        inputs = [node.bottoms[0], *self._bounds(onnx)]
        onnx.emit("Slice" if len(inputs) > 1 else "Identity", inputs, node.tops)

    def _bounds(self, onnx: OnnxBuilder) -> list[str]:
        """The inputs of Slice after the value; none where nothing is turned."""
        axes = [2] * self.height + [3] * self.width
        if not axes:
            return []
        backwards = [-1] * len(axes), [-(2**31)] * len(axes), axes, [-1] * len(axes)
        return [onnx.ints(what, numbers) for what, numbers in zip(_SLICE_INPUTS, backwards, strict=True)]

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        bounds = self._bounds(onnx)
        return Gradients((onnx.op("Slice", [top_diffs[0], *bounds], what="bottom_diff") if bounds else top_diffs[0],))


_SLICE_INPUTS = ("last", "before_first", "turned_axes", "backwards")
