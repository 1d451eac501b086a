"""MergeCrop, of nets for segmentation (naibaf7/caffe, OpenCL Caffe)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, exactly
from caffeconv.layers.gradient_ops import filled_like
from caffeconv.tensor.shape import Shapes, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class MergeCrop(Layer):
    """The middle of the second bottom behind the channels of the first, or added to it (`operation: ADD`).

    Bottoms N×C×spatial…, the second at least as large; the top has the sizes of the first. `forward: false` makes zeros of
    a bottom, `backward` says which get a diff: the first alone unless it says otherwise. Where the bottoms have not as many
    channels the fork mixes them up, but of one picture whose first has a multiple of the second's (mergecrop_layer.cu).
    """

    bottoms: ClassVar[Arity] = exactly(2)
    in_place: ClassVar[bool] = False

    adds: bool
    forward: tuple[bool, bool]
    backward: tuple[bool, bool]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.mergecrop_param
        return cls(p.operation == p.ADD, _two(p.forward, (True, True)), _two(p.backward, (True, False)))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        first, second = bottoms
        fits = len(first) == len(second) > 2 and first[0] == second[0]
        if not fits or any(size > whole for size, whole in zip(first[2:], second[2:], strict=True)):
            raise LayerError(
                f"the bottoms are {format_shape(first)} and {format_shape(second)}; as many axes and pictures, and no size "
                "of the first above that of the second, were needed"
            )
        is_one = first[0] == 1 and second[1] and first[1] % second[1] == 0
        if first[1] != second[1] and (self.adds or not is_one):
            raise LayerError(
                f"the bottoms are {format_shape(first)} and {format_shape(second)}; as many channels in both were needed, "
                "as the fork mixes up others"
            )
        return [(first[0], first[1] if self.adds else first[1] + second[1], *first[2:])]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if node.bottom_shapes[0][1] != node.bottom_shapes[1][1]:
            onnx.fixed(onnx.dims(node.bottoms[0])[:1], "bottoms of different channels are merged for one picture alone")
        starts, ends, axes = self._window(node, onnx)
        second = onnx.op("Slice", [node.bottoms[1], starts, ends, axes], what="middle")
        parts = [
            part if kept else filled_like(onnx, part, 0, f"no_{what}")
            for part, kept, what in zip((node.bottoms[0], second), self.forward, ("first", "second"), strict=True)
        ]
        if self.adds:
            onnx.emit("Add", parts, node.tops)
        else:
            onnx.emit("Concat", parts, node.tops, axis=1)

    def _window(self, node: Node, onnx: OnnxBuilder) -> tuple[str, str, str]:
        first, second = (
            onnx.fixed(onnx.dims(bottom)[2:], "the middle of a bottom needs to know its sizes")
            for bottom in node.bottoms
        )
        begin = [(whole - size) // 2 for size, whole in zip(first, second, strict=True)]
        end = [start + size for start, size in zip(begin, first, strict=True)]
        return onnx.ints("begin", begin), onnx.ints("end", end), onnx.ints("axes", range(2, 2 + len(begin)))

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        first, second = node.bottom_shapes
        halves = (top_diffs[0], top_diffs[0])
        if not self.adds:
            channels = onnx.ints("channels", [first[1], second[1]])
            half, other = onnx.ops("Split", [top_diffs[0], channels], 2, what="halves", axis=1)
            halves = (half, other)
        begin = [(whole - size) // 2 for size, whole in zip(first[2:], second[2:], strict=True)]
        rest = [whole - size - start for size, whole, start in zip(first[2:], second[2:], begin, strict=True)]
        padded = onnx.op("Pad", [halves[1], onnx.ints("around", [0, 0, *begin, 0, 0, *rest])], what="around_middle")
        diffs = (halves[0], padded)
        return Gradients(
            [
                diff if kept else filled_like(onnx, bottom, 0, "no_diff")
                for diff, bottom, kept in zip(diffs, node.bottoms, self.backward, strict=True)
            ]
        )


def _two(values: Sequence[bool], default: tuple[bool, bool]) -> tuple[bool, bool]:
    """A value for each bottom; those that are not given are the defaults."""
    first, second = (*values, *default[len(values) :])[:2]
    return first, second
