"""Layers that accompany recurrent ones: ReverseTime and ContinuationIndicator. Sequences are T×N×…: time, then items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import INT64
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, exactly
from caffeconv.layers.gradient_ops import refuse_to
from caffeconv.tensor.shape import FloatArray, Shapes, canonical_axis, count, format_shape

if TYPE_CHECKING:
    from numpy.random import Generator
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class ReverseTime(Layer):
    """Reverses each sequence within its length (caffe_ocr: reverse_time_layer.cpp).

    Bottoms: T×N×…, and the N lengths, at most T. What follows a sequence's end is copied with `copy_remaining`, else zero
    (caffe_ocr: what the top held before).
    """

    bottoms: ClassVar[Arity] = exactly(2)
    in_place: ClassVar[bool] = False
    never_forced: ClassVar[tuple[int, ...]] = (1,)
    tops_as_caffe: ClassVar[bool] = True

    copy_remaining: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(layer.proto.reverse_time_param.copy_remaining)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x, lengths = bottoms
        if len(x) < 2:
            raise LayerError(f"bottom[0] is {format_shape(x)}; at least 2 axes were needed (T×N×…)")
        if count(lengths) != x[1]:
            raise LayerError(f"bottom[1] is {format_shape(lengths)}; {x[1]} lengths were needed, one for each sequence")
        return [x]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Identity", [self._reversed(node, onnx, node.bottoms[0])], node.tops)

    def _reversed(self, node: Node, onnx: OnnxBuilder, x: str) -> str:
        """x, shaped as the first bottom, with each sequence turned round."""
        lengths = onnx.reshape(node.bottoms[1], onnx.dims(node.bottoms[0])[1:2], what="length")
        lengths = onnx.op("Cast", [lengths], what="length", to=INT64)
        turned = onnx.op("ReverseSequence", [x, lengths], what="turned", time_axis=0, batch_axis=1)
        if self.copy_remaining:
            return turned
        rank = len(node.bottom_shapes[0])
        steps = onnx.fixed(onnx.dims(node.bottoms[0])[:1], "the number of steps (axis 0) has to be known")[0]
        step = onnx.ints("step", np.arange(steps).reshape(-1, 1))
        inside = onnx.op("Less", [step, lengths], what="inside")
        if rank > 2:
            inside = onnx.op("Unsqueeze", [inside, onnx.ints("other_axes", range(2, rank))], what="inside")
        return onnx.op("Where", [inside, turned, onnx.floats("nothing", 0)], what="within")

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        refuse_to("lengths", propagate_down, 1)
        return Gradients((self._reversed(node, onnx, top_diffs[0]), None))

    @property
    def mixes_positions(self) -> bool:
        return True

    def example(self, bottom: int, shapes: Shapes, random: Generator) -> FloatArray | None:
        if bottom != 1:
            return None
        return random.integers(1, shapes[0][0] + 1, shapes[1]).astype(np.float32)


@dataclass(frozen=True)
class ContinuationIndicator(Layer):
    """0 for the first of T steps, where a sequence starts, and 1 for the others: T×N (crnn.caffe, deepdetect).

    T is time_step. N is batch_size, or with a bottom the size of its axis `axis`.
    """

    bottoms: ClassVar[Arity] = Arity(0, 1)
    in_place: ClassVar[bool] = False
    never_forced: ClassVar[tuple[int, ...]] = (0,)
    tops_as_caffe: ClassVar[bool] = True

    steps: int
    items: int
    axis: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.continuation_indicator_param
        if p.time_step < 1:
            raise LayerError(f"time_step is {p.time_step}; the number of steps was needed, at least 1")
        if not layer.bottoms and p.batch_size < 1:
            raise LayerError(
                f"batch_size is {p.batch_size}; the number of sequences was needed, or a bottom that has them"
            )
        if layer.bottoms and p.HasField("batch_size"):
            raise LayerError("there is a batch_size and a bottom, which has one too; one of them was needed")
        if not layer.bottoms and p.HasField("axis"):
            raise LayerError("there is an axis and no bottom that it is of; batch_size, or a bottom, was needed")
        return cls(p.time_step, p.batch_size, p.axis)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if not bottoms:
            return [(self.steps, self.items)]
        x = bottoms[0]
        return [(self.steps, x[canonical_axis(self.axis, len(x), x)])]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        follows = np.ones((self.steps, 1), np.float32)
        follows[0] = 0
        items = onnx.dims(node.tops[0])[1]
        if items is not None:
            onnx.emit("Identity", [onnx.floats("follows", np.repeat(follows, items, axis=1))], node.tops)
            return
        axis = canonical_axis(self.axis, len(node.bottom_shapes[0]))
        size = onnx.op("Gather", [onnx.shape(node.bottoms[0]), onnx.ints("axis", [axis])], what="items")
        shape = onnx.op("Concat", [onnx.ints("steps", [self.steps]), size], what="top_shape", axis=0)
        onnx.emit("Expand", [onnx.floats("follows", follows), shape], node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return Gradients([None] * len(node.bottoms))
