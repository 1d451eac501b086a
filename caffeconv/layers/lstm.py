"""Lstm, older than Caffe's own LSTM (junhyukoh/caffe-lstm, CTPN, caffe_ocr: lstm_layer.cpp)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import Arity, Layer, Node
from caffeconv.layers.recurrent import by_gates, lower_unit
from caffeconv.layers.weight_layouts import dense_kernel, flattened
from caffeconv.tensor.axis_order import AxisOrder, Segment, as_caffe
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, count, format_shape
from caffeconv.tensor.weight_array import WeightArrays

if TYPE_CHECKING:
    from numpy.random import Generator
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Lstm(Layer):
    """c = f·c' + i·g, h = o·tanh c, the output being h; i, f, o, g are σ, σ, σ, tanh of the parts of W_x·x + W_h·h' + b.

    Bottoms: T×N×I… (CTPN, caffe_ocr), or (T·N)×I… with N = `batch_size` (junhyukoh): as the weights file's W_x has it, or
    the latter where batch_size is set or nothing is left for I after two axes. The state starts at zero. With a second
    bottom of T·N numbers, the state of the pass before goes on, and 0 starts a new sequence; the forks read the number of
    step t and item n at place t + n. Top T×N×D, or (T·N)×D, D being num_output. Parameters: W_x 4D×I, W_h 4D×D, b 4D.

    With several items this is what the forks' GPU code does; their CPU code adds the first item's W_h·h' to every item.
    `clipping_threshold` is of the gradient only, for which there is no rule here.
    """

    bottoms: ClassVar[Arity] = Arity(1, 2)
    in_place: ClassVar[bool] = False
    never_forced: ClassVar[tuple[int, ...]] = (1,)
    tops_as_caffe: ClassVar[bool] = True

    num_output: int
    batch_size: int | None
    """How many items there are where batch_size tells."""
    stored_inputs: int | None
    """How many inputs W_x has in the weights file, where there is one."""
    has_indicator: bool
    weight_filler: Filler
    bias_filler: Filler

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.lstm_param
        if p.num_output < 1:
            raise LayerError(f"num_output is {p.num_output}; num_output must be positive. Add it to lstm_param.")
        if p.batch_size < 1:
            raise LayerError(f"batch_size is {p.batch_size}; at least 1 was needed")
        fillers = Filler.parse(p.weight_filler), Filler.parse(p.bias_filler)
        batch_size = p.batch_size if p.HasField("batch_size") else None
        stored = layer.stored_shapes or ()
        stored_inputs = stored[0][-1] if stored and stored[0] else None
        return cls(p.num_output, batch_size, stored_inputs, len(layer.bottoms) > 1, *fillers)

    def _joins_steps(self, x: Shape) -> bool:
        """Whether steps and items lie along one axis."""
        joined, apart = count(x, 1), count(x, 2)
        if joined != apart and self.stored_inputs in (joined, apart):
            return self.stored_inputs == joined
        return self.batch_size is not None or apart == 1

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x = bottoms[0]
        if len(x) < 2:
            raise LayerError(f"bottom[0] is {format_shape(x)}; at least 2 axes were needed (steps, then values)")
        if self._joins_steps(x) and x[0] % (self.batch_size or 1):
            raise LayerError(
                f"bottom[0] is {format_shape(x)}; a multiple of {self.batch_size} items was needed (batch_size)"
            )
        rows = x[:1] if self._joins_steps(x) else x[:2]
        if self.has_indicator and count(bottoms[1]) != count(rows):
            raise LayerError(
                f"bottom[1] is {format_shape(bottoms[1])}; {count(rows)} numbers were needed, one for each step and item"
            )
        return [(*rows, self.num_output)]

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        x, gates = bottoms[0], 4 * self.num_output
        inputs = count(x, 1 if self._joins_steps(x) else 2)
        return {"W_x": (gates, inputs), "W_h": (gates, self.num_output), "b": (gates,)}

    def fillers(self) -> Mapping[str, Filler]:
        return {"W_x": self.weight_filler, "W_h": self.weight_filler, "b": self.bias_filler}

    def state_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        if not self.has_indicator:
            return {}
        return dict.fromkeys(("h", "c"), (self._items(bottoms[0][1:2], bottoms[0]), self.num_output))

    def _items(self, second: Shape, x: Shape) -> int:
        return (self.batch_size or 1) if self._joins_steps(x) else second[0]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        shape, dims = node.bottom_shapes[0], onnx.dims(node.bottoms[0])
        joined = self._joins_steps(shape)
        second = () if joined else onnx.fixed(dims[1:2], "the first state needs the number of sequences (axis 1 of x)")
        items = self._items(second, shape)
        steps = dims[0] if dims[0] is None or not joined else dims[0] // items
        flat = onnx.op("Flatten", [node.bottoms[0]], what="x", axis=1 if joined else 2)
        gates = onnx.op("Gemm", [flat, onnx.weight("W_x"), onnx.weight("b")], what="W_x_x", transB=1)
        gates = onnx.reshape(gates, (steps, items, 4 * self.num_output), what="W_x_x_steps")
        weight, always = onnx.weight("W_h"), onnx.floats("continues", [[1]])

        def step(states: Sequence[str], now: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
            (h, c), follows = states, now[1] if len(now) > 1 else always
            hidden = onnx.op("Mul", [h, follows], what="h_before") if len(now) > 1 else h
            inputs = onnx.op("Gemm", [hidden, weight, now[0]], what="gate_input", transB=1)
            cell, factors = lower_unit(onnx, c, inputs, follows, self.num_output)
            output = onnx.op("Mul", factors, what="h")
            return [output, cell], [output]

        size = items, self.num_output
        sequences = [gates, self._indicator(node, onnx, steps, items)] if self.has_indicator else [gates]
        starts = [
            onnx.state(name, size) if self.has_indicator else onnx.floats("start", np.zeros(size)) for name in "hc"
        ]
        ends, (outputs,) = onnx.scan(step, starts, sequences, steps=steps)
        if self.has_indicator:
            for start, end in zip(starts, ends, strict=True):
                onnx.keep_state(start, end)
        onnx.reshape(outputs, onnx.dims(node.tops[0]), to=node.tops[0])

    def _indicator(self, node: Node, onnx: OnnxBuilder, steps: int | None, items: int) -> str:
        """Whether each sequence goes on, steps × items × 1."""
        if items == 1:
            return onnx.reshape(node.bottoms[1], (steps, 1, 1), what="follows")
        (known,) = onnx.fixed((steps,), "the number of steps has to be known where there are several sequences")
        numbers = onnx.reshape(node.bottoms[1], (known * items,), what="indicators")
        places = np.arange(known)[:, None, None] + np.arange(items)[:, None]
        return onnx.op("Gather", [numbers, onnx.ints("places", places)], what="follows")

    def channel_axis_of(self, node: Node, bottom: int) -> int | None:
        return None if bottom or self._joins_steps(node.bottom_shapes[0]) else 2

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        return [as_caffe(shape) for shape in node.top_shapes]

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays:
        inputs = bottoms[0].along(1 if self._joins_steps(node.bottom_shapes[0]) else 2)
        kernel = dense_kernel(node, node.param("W_x"), "kernel", inputs)
        hidden = dense_kernel(node, node.param("W_h"), "recurrent_kernel", (Segment((self.num_output,)),))
        bias = flattened(node, node.param("b"), "bias")
        note = "Caffe's blobs are time × items × …, Keras's items × time × …"
        return WeightArrays(tuple(by_gates(array) for array in (kernel, hidden, bias)), notes=(note,))

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return 4 * self.num_output * (count(bottoms[0]) + count(tops[0]))

    def example(self, bottom: int, shapes: Shapes, random: Generator) -> FloatArray | None:
        if bottom != 1:
            return None
        follows: FloatArray = np.ones(shapes[1], np.float32)
        follows.flat[0] = 0
        return follows
