"""LSTM, RNN (caffe: recurrent_layer.cpp, lstm_layer.cpp, rnn_layer.cpp) and LSTMUnit (caffe: lstm_unit_layer.cpp)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, Settings, exactly
from caffeconv.layers.gradient_ops import filled_like, like_bottom, refuse_to, sum_over
from caffeconv.layers.weight_layouts import dense_kernel, flattened
from caffeconv.tensor.axis_order import AxisOrder, Segment, as_caffe
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, canonical_axis, count, format_shape
from caffeconv.tensor.weight_array import WeightArray, WeightArrays

if TYPE_CHECKING:
    from numpy.random import Generator
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


GATE_ROWS = 1 << 10
"""How many inputs' gates are put in order at once."""


@dataclass(frozen=True)
class Recurrent(Layer):
    """A net over T time steps of N streams; what it keeps from step to step it also keeps from pass to pass.

    bottoms: x, T×N×…; cont, T×N, by which the state of the step before is multiplied: 0 starts a new sequence;
    x_static, N×…, where given, joins every step; with `expose_hidden` the first states, 1×N×num_output each.
    tops: T×N×num_output; with `expose_hidden` the last states. The state comes from the pass before, zero at first,
    unless it is exposed.
    """

    input_axis: ClassVar[int] = 2
    bottoms: ClassVar[Arity] = Arity(2, 5)
    tops: ClassVar[Arity] = Arity(1, 3)
    never_forced: ClassVar[tuple[int, ...]] = (1,)
    propagates_always: ClassVar[bool] = True
    tops_as_caffe: ClassVar[bool] = True
    settings: ClassVar[str] = "recurrent_param"
    gates: ClassVar[int] = 1
    """As many rows of the inputs' weight stand for one number of the output."""
    states: ClassVar[tuple[str, ...]] = ()
    """Names of the states, in the order of their bottoms and tops."""

    num_output: int
    static_input: bool
    expose_hidden: bool
    weight_filler: Filler
    bias_filler: Filler

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.recurrent_param
        exposed = len(cls.states) if p.expose_hidden else 0
        if len(layer.bottoms) not in (2 + exposed, 3 + exposed):
            hidden = f", {exposed} of them states (expose_hidden)" if exposed else ""
            raise LayerError(
                f"{len(layer.bottoms)} bottoms; {layer.type} Layer takes {2 + exposed} to {3 + exposed} bottom blob(s) "
                f"as input{hidden}: x, cont, and x_static where there is one"
            )
        number = len(layer.tops)
        if number != 1 + exposed:
            raise LayerError(f"{number} tops; {layer.type} Layer produces {1 + exposed} top blob(s) as output.")
        if p.num_output < 1:
            raise LayerError(f"num_output is {p.num_output}; num_output must be positive. Add it to recurrent_param.")
        fillers = Filler.parse(p.weight_filler), Filler.parse(p.bias_filler)
        return cls(p.num_output, len(layer.bottoms) == 3 + exposed, p.expose_hidden, *fillers)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x, cont = bottoms[:2]
        if len(x) < 2:
            raise LayerError(
                f"bottom[0] is {format_shape(x)}; it must have at least 2 axes -- (#timesteps, #streams, ...)"
            )
        if len(cont) != 2:
            raise LayerError(
                f"bottom[1] is {format_shape(cont)}; it must have exactly 2 axes -- (#timesteps, #streams)"
            )
        if cont != x[:2]:
            raise LayerError(
                f"bottom[1] is {format_shape(cont)}, bottom[0] {format_shape(x)}; {format_shape(x[:2])} was needed (T_, N_)"
            )
        canonical_axis(2, len(x), x)
        if self.static_input:
            self._check_static(bottoms[2], x[1])
        state = (1, x[1], self.num_output)
        for i, bottom in enumerate(bottoms[2 + self.static_input :], 2 + self.static_input):
            if bottom != state:
                raise LayerError(
                    f"bottom[{i}] is {format_shape(bottom)}; "
                    f"bottom[{i}] shape must match hidden state input shape: {format_shape(state)}"
                )
        return [(*x[:2], self.num_output), *([state] * len(self.states) if self.expose_hidden else [])]

    @classmethod
    def implied_settings(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[Settings]:
        rows = stored[0][0] if stored and stored[0] else 0
        return ({"num_output": rows // cls.gates},) if rows and rows % cls.gates == 0 else ()

    @classmethod
    def implied_channels(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> int | None:
        return stored[0][1] if stored and len(stored[0]) == 2 and len(bottoms[0]) == 3 else None  # W_x: rows × inputs

    def _check_static(self, x_static: Shape, streams: int) -> None:
        if not x_static or x_static[0] != streams:
            raise LayerError(
                f"bottom[2], the static input, is {format_shape(x_static)}; {streams}×… was needed (N_ == bottom[2]->shape(0))"
            )
        canonical_axis(1, len(x_static), x_static)

    def fillers(self) -> Mapping[str, Filler]:
        return {
            **dict.fromkeys(("W_xc", "W_xc_static", "W_hc", "W_xh", "W_xh_static", "W_hh", "W_ho"), self.weight_filler),
            **dict.fromkeys(("b_c", "b_h", "b_o"), self.bias_filler),
        }

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x = self._inputs(node, onnx, *list(self.weight_shapes(node.bottom_shapes))[: 2 + self.static_input])
        cont = onnx.op("Unsqueeze", [node.bottoms[1], onnx.ints("last_axis", [-1])], what="cont")
        before = self._first_states(node, onnx)
        first_axis = onnx.ints("first_axis", [0])
        starts = [onnx.op("Squeeze", [state, first_axis], what="state") for state in before]
        for name, start in zip(self.states, starts, strict=True):
            onnx.keep(name, start)

        def step(states: Sequence[str], items: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
            following, output = self.step(onnx, states, *items)
            return following, [output]

        ends, outputs = onnx.scan(step, starts, [x, cont], steps=onnx.dims(node.bottoms[0])[0])
        if self.expose_hidden:
            for end, top in zip(ends, node.tops[1:], strict=True):
                onnx.emit("Unsqueeze", [end, first_axis], [top])
        else:
            for state, end in zip(before, ends, strict=True):
                onnx.keep_state(state, onnx.op("Unsqueeze", [end, first_axis], what="kept"))
        onnx.emit("Identity", outputs, node.tops[:1])

    @abstractmethod
    def step(self, onnx: OnnxBuilder, states: Sequence[str], x: str, cont: str) -> tuple[Sequence[str], str]:
        """One step: states N×num_output, x what the inputs add to the gates, cont N×1 → next states, output."""

    def _inputs(self, node: Node, onnx: OnnxBuilder, weight: str, bias: str, weight_static: str = "") -> str:
        """What x, and x_static, add to the gates at every step: T×N×gates, in one product."""
        flat = onnx.op("Flatten", [node.bottoms[0]], what="x", axis=2)
        gates = onnx.op("Gemm", [flat, onnx.weight(weight), onnx.weight(bias)], what=f"{weight}_x", transB=1)
        size = node.param(weight).shape[0]
        gates = onnx.reshape(gates, (*onnx.dims(node.bottoms[0])[:2], size), what=f"{weight}_x_steps")
        if not weight_static:
            return gates
        flat = onnx.op("Flatten", [node.bottoms[2]], what="x_static", axis=1)
        static = onnx.op("Gemm", [flat, onnx.weight(weight_static)], what=f"{weight_static}_x", transB=1)
        return onnx.op("Add", [gates, static], what="gates_x")

    def _first_states(self, node: Node, onnx: OnnxBuilder) -> Sequence[str]:
        if self.expose_hidden:
            return node.bottoms[2 + self.static_input :]
        streams = onnx.fixed(
            onnx.dims(node.bottoms[0])[1:2], "the first state needs to know the number of streams (axis 1 of x)"
        )
        return [onnx.state(name, (1, *streams, self.num_output)) for name in self.states]

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        # caffe: the states' own bottoms and tops, where exposed, give and get no diff
        refuse_to("sequence indicators", propagate_down, 1)
        names = list(self.weight_shapes(node.bottom_shapes))[: 2 + self.static_input]
        cont = onnx.op("Unsqueeze", [node.bottoms[1], onnx.ints("last_axis", [-1])], what="cont")
        starts, steps = [onnx.kept(name) for name in self.states], onnx.dims(node.bottoms[0])[0]

        def again(states: Sequence[str], items: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
            return self.step_again(onnx, states, *items)

        def back(later: Sequence[str], items: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
            return self.step_back(onnx, later, items[0], items[1], items[2:])

        _, values = onnx.scan(again, starts, [self._inputs(node, onnx, *names), cont], steps=steps)
        backwards = [_reversed(onnx, sequence) for sequence in (top_diffs[0], cont, *values)]
        _, diffs = onnx.scan(back, [filled_like(onnx, state, 0, "no_diff") for state in starts], backwards, steps=steps)
        diffs = [_reversed(onnx, sequence) for sequence in diffs]
        bottoms, params = self._input_diffs(node, onnx, diffs[0], *names)
        params |= self.hidden_diffs(onnx, diffs, values)
        return Gradients((*bottoms, *([None] * (len(node.bottoms) - len(bottoms)))), params)

    @abstractmethod
    def step_again(
        self, onnx: OnnxBuilder, states: Sequence[str], x: str, cont: str
    ) -> tuple[Sequence[str], Sequence[str]]:
        """As `step`, giving instead of the output what `step_back` needs of the step."""

    @abstractmethod
    def step_back(
        self, onnx: OnnxBuilder, later: Sequence[str], top_diff: str, cont: str, values: Sequence[str]
    ) -> tuple[Sequence[str], Sequence[str]]:
        """One step backward: what later steps and the top give of the new states' diffs → the old states' diffs, and
        the diffs of what parameters were multiplied into, the gates of x first."""

    @abstractmethod
    def hidden_diffs(self, onnx: OnnxBuilder, diffs: Sequence[str], values: Sequence[str]) -> Mapping[str, str]:
        """The diffs of the parameters that are not x's, given all steps' values of `step_back` and `step_again`."""

    def _input_diffs(
        self, node: Node, onnx: OnnxBuilder, gates_diff: str, weight: str, bias: str, weight_static: str = ""
    ) -> tuple[list[str | None], dict[str, str]]:
        """The diffs of x, cont and x_static, and of the parameters that they are multiplied with."""
        shapes, flat = node.bottom_shapes, onnx.op("Flatten", [gates_diff], what="gates_diff", axis=2)
        x = onnx.op("Flatten", [node.bottoms[0]], what="x", axis=2)
        params = {
            weight: onnx.op("Gemm", [flat, x], what=f"{weight}_diff", transA=1),
            bias: sum_over(onnx, flat, [0], f"{bias}_diff"),
        }
        rows = onnx.op("Gemm", [flat, onnx.weight(weight)], what="x_diff")
        x_diff = like_bottom(onnx, node, rows, shape=(count(shapes[0], 0, 2), count(shapes[0], 2)))
        if not weight_static:
            return [x_diff, None], params
        total = sum_over(onnx, gates_diff, [0], "static_gates_diff")
        x_static = onnx.op("Flatten", [node.bottoms[2]], what="x_static", axis=1)
        params[weight_static] = onnx.op("Gemm", [total, x_static], what=f"{weight_static}_diff", transA=1)
        rows = onnx.op("Gemm", [total, onnx.weight(weight_static)], what="x_static_diff")
        return [x_diff, None, like_bottom(onnx, node, rows, 2, shape=(shapes[2][0], count(shapes[2], 1)))], params

    def state_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        if self.expose_hidden:
            return {}
        return dict.fromkeys(self.states, (1, bottoms[0][1], self.num_output))

    def channel_axis_of(self, node: Node, bottom: int) -> int | None:
        return 2 if bottom == 0 or bottom >= 2 + self.static_input else None

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        return [as_caffe(shape) for shape in node.top_shapes]

    def input_weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder]) -> tuple[WeightArray, WeightArray]:
        """Kernel and bias of the inputs; where there is a static one, as if it were joined to x at every step."""
        names = list(self.weight_shapes(node.bottom_shapes))
        kernel = dense_kernel(node, node.param(names[0]), "kernel", bottoms[0].along(2))
        if self.static_input:
            static = dense_kernel(node, node.param(names[2]), "kernel", bottoms[2].along(1))
            kernel = stacked(kernel, static)
        return kernel, flattened(node, node.param(names[1]), "bias")

    def input_notes(self) -> tuple[str, ...]:
        """What Keras's recurrent layers lack."""
        notes: tuple[str, ...] = (
            "Caffe's blobs are time × streams × …, Keras's streams × time × …; Keras has no cont: where it is 0 a new "
            "sequence starts, so give each sequence a row of its own",
        )
        if self.static_input:
            notes += ("the static input stands after x along the features of every step, and so do its rows",)
        if not self.expose_hidden:
            notes += ("Caffe keeps the state from one pass to the next; in Keras that is `stateful=True`",)
        return notes

    def example(self, bottom: int, shapes: Shapes, random: Generator) -> FloatArray | None:
        if bottom != 1:
            return None
        following = np.ones(shapes[1], np.float32)
        following[:1] = 0  # a sequence starts at the first step
        return following


@dataclass(frozen=True)
class LSTM(Recurrent):
    """c = f·cont·c' + i·g, h = o·tanh c, the output being h.

    i, f, o, g are σ, σ, σ, tanh of the four parts of W_xc·x + b_c + W_xc_static·x_static + W_hc·(cont·h').
    Parameters: W_xc 4D×K, b_c 4D, W_xc_static 4D×K_static (only with x_static), W_hc 4D×D; D is num_output.
    """

    gates: ClassVar[int] = 4
    states: ClassVar[tuple[str, ...]] = ("h", "c")

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        gates = 4 * self.num_output
        static = {"W_xc_static": (gates, count(bottoms[2], 1))} if self.static_input else {}
        return {"W_xc": (gates, count(bottoms[0], 2)), "b_c": (gates,), **static, "W_hc": (gates, self.num_output)}

    def step(self, onnx: OnnxBuilder, states: Sequence[str], x: str, cont: str) -> tuple[Sequence[str], str]:
        h, c = states
        hidden = onnx.op("Mul", [h, cont], what="h_conted")
        gates = onnx.op("Gemm", [hidden, onnx.weight("W_hc"), x], what="gate_input", transB=1)
        cell, gated = lower_unit(onnx, c, gates, cont, self.num_output)
        h = onnx.op("Mul", gated, what="h")
        return [h, cell], h

    def step_again(
        self, onnx: OnnxBuilder, states: Sequence[str], x: str, cont: str
    ) -> tuple[Sequence[str], Sequence[str]]:
        h, c = states
        hidden = onnx.op("Mul", [h, cont], what="h_conted")
        gates = onnx.op("Gemm", [hidden, onnx.weight("W_hc"), x], what="gate_input", transB=1)
        cell, gated = lower_unit(onnx, c, gates, cont, self.num_output)
        return [onnx.op("Mul", gated, what="h"), cell], [hidden, gates, c, cell]

    def step_back(
        self, onnx: OnnxBuilder, later: Sequence[str], top_diff: str, cont: str, values: Sequence[str]
    ) -> tuple[Sequence[str], Sequence[str]]:
        _, gates, c, cell = values
        h_diff = onnx.op("Add", [top_diff, later[0]], what="h_diff")
        c_diff, gates_diff = unit_diffs(onnx, c, gates, cont, cell, (later[1], h_diff), self.num_output)
        conted_diff = onnx.op("Gemm", [gates_diff, onnx.weight("W_hc")], what="h_conted_diff")
        return [onnx.op("Mul", [conted_diff, cont], what="h_before_diff"), c_diff], [gates_diff]

    def hidden_diffs(self, onnx: OnnxBuilder, diffs: Sequence[str], values: Sequence[str]) -> Mapping[str, str]:
        return {"W_hc": _product_over_steps(onnx, diffs[0], values[0], "W_hc_diff")}

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays:
        kernel, bias = self.input_weight_arrays(node, bottoms)
        weight = node.param("W_hc")
        hidden = dense_kernel(node, weight, "recurrent_kernel", (Segment((self.num_output,)),))
        return WeightArrays(tuple(by_gates(array) for array in (kernel, hidden, bias)), notes=self.input_notes())

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        static = count(bottoms[2]) if self.static_input else 0
        return 4 * self.num_output * (count(bottoms[0]) + count(tops[0]) + static)


@dataclass(frozen=True)
class RNN(Recurrent):
    """h = tanh(W_xh·x + b_h + W_xh_static·x_static + W_hh·(cont·h')), o = tanh(W_ho·h + b_o).

    Parameters: W_xh D×K, b_h D, W_xh_static D×K_static (only with x_static), W_hh D×D, W_ho D×D, b_o D.
    """

    states: ClassVar[tuple[str, ...]] = ("h",)

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        d = self.num_output
        static = {"W_xh_static": (d, count(bottoms[2], 1))} if self.static_input else {}
        return {"W_xh": (d, count(bottoms[0], 2)), "b_h": (d,), **static, "W_hh": (d, d), "W_ho": (d, d), "b_o": (d,)}

    def step(self, onnx: OnnxBuilder, states: Sequence[str], x: str, cont: str) -> tuple[Sequence[str], str]:
        hidden = onnx.op("Mul", [states[0], cont], what="h_conted")
        neuron_input = onnx.op("Gemm", [hidden, onnx.weight("W_hh"), x], what="h_neuron_input", transB=1)
        h = onnx.op("Tanh", [neuron_input], what="h")
        output = onnx.op("Gemm", [h, onnx.weight("W_ho"), onnx.weight("b_o")], what="W_ho_h", transB=1)
        return [h], onnx.op("Tanh", [output], what="o")

    def step_again(
        self, onnx: OnnxBuilder, states: Sequence[str], x: str, cont: str
    ) -> tuple[Sequence[str], Sequence[str]]:
        hidden = onnx.op("Mul", [states[0], cont], what="h_conted")
        following, output = self.step(onnx, states, x, cont)
        return following, [hidden, following[0], output]

    def step_back(
        self, onnx: OnnxBuilder, later: Sequence[str], top_diff: str, cont: str, values: Sequence[str]
    ) -> tuple[Sequence[str], Sequence[str]]:
        _, h, output = values
        output_diff = _through_tanh(onnx, top_diff, output, "W_ho_h_diff")
        h_diff = onnx.op("Gemm", [output_diff, onnx.weight("W_ho"), later[0]], what="h_diff")
        gates_diff = _through_tanh(onnx, h_diff, h, "h_neuron_input_diff")
        conted_diff = onnx.op("Gemm", [gates_diff, onnx.weight("W_hh")], what="h_conted_diff")
        return [onnx.op("Mul", [conted_diff, cont], what="h_before_diff")], [gates_diff, output_diff]

    def hidden_diffs(self, onnx: OnnxBuilder, diffs: Sequence[str], values: Sequence[str]) -> Mapping[str, str]:
        return {
            "W_hh": _product_over_steps(onnx, diffs[0], values[0], "W_hh_diff"),
            "W_ho": _product_over_steps(onnx, diffs[1], values[1], "W_ho_diff"),
            "b_o": sum_over(onnx, diffs[1], [0, 1], "b_o_diff"),
        }

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays:
        kernel, bias = self.input_weight_arrays(node, bottoms)
        states = (Segment((self.num_output,)),)
        hidden = dense_kernel(node, node.param("W_hh"), "recurrent_kernel", states)
        outputs = dense_kernel(node, node.param("W_ho"), "kernel", states), flattened(node, node.param("b_o"), "bias")
        arrays = kernel, hidden, bias, *(replace(array, part_of="output") for array in outputs)
        note = "a Dense layer with tanh follows Keras's SimpleRNN: o = tanh(W_ho·h + b_o)"
        return WeightArrays(arrays, notes=(*self.input_notes(), note))

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        static = count(bottoms[2]) if self.static_input else 0
        return self.num_output * (count(bottoms[0]) + 2 * count(tops[0]) + static)


def stacked(kernel: WeightArray, below: WeightArray) -> WeightArray:
    """Two kernels of the same outputs as one, the inputs of the second after those of the first."""
    shape = (kernel.shape[0] + below.shape[0], kernel.shape[1])
    words = f"{kernel.transposition}; below it {below.transposition}"
    sources = (*kernel.sources, *below.sources)
    return WeightArray(kernel.name, shape, sources, words, lambda: chain(kernel.parts(), below.parts()))


def by_gates(kernel: WeightArray) -> WeightArray:
    """The kernel with the gates, four equal parts of its last axis, in Keras's order: Caffe's i f o g as i f g o."""

    def parts() -> Iterator[FloatArray]:
        for part in kernel.parts():
            gates = part.reshape(*part.shape[:-1], 4, -1)
            rows = gates if part.ndim > 1 else gates[None]
            for start in range(0, len(rows), GATE_ROWS):
                yield rows[start : start + GATE_ROWS][..., [0, 1, 3, 2], :]

    words = "" if kernel.transposition == "none" else f"{kernel.transposition}; "
    return replace(kernel, parts=parts, transposition=f"{words}gates i f o g → i f g o")


def _through_tanh(onnx: OnnxBuilder, diff: str, y: str, what: str) -> str:
    slope = onnx.op("Sub", [onnx.floats("one", 1), onnx.op("Mul", [y, y], what="square")], what="slope")
    return onnx.op("Mul", [diff, slope], what=what)


def _reversed(onnx: OnnxBuilder, sequence: str) -> str:
    """The steps of a sequence (axis 0), last one first."""
    bounds = [
        onnx.ints("last_step", [-1]), onnx.ints("before_first", [np.iinfo(np.int64).min]),
        onnx.ints("time_axis", [0]), onnx.ints("backward", [-1]),
    ]  # fmt: skip
    return onnx.op("Slice", [sequence, *bounds], what="backwards")


def _product_over_steps(onnx: OnnxBuilder, diffs: str, values: str, what: str) -> str:
    """Σ diffᵀ · value over all steps and streams; both T×N×…."""
    flat = [onnx.op("Flatten", [value], what="steps", axis=2) for value in (diffs, values)]
    return onnx.op("Gemm", flat, what=what, transA=1)


@dataclass(frozen=True)
class LSTMUnit(Layer):
    """One LSTM step: c = σ(f)·cont·c' + σ(i)·tanh(g), h = σ(o)·tanh c.

    bottoms: c', 1×N×D; the gates' inputs i, f, o, g in this order, 1×N×4D; cont, 1×N. tops: c and h, 1×N×D.
    """

    bottoms: ClassVar[Arity] = exactly(3)
    tops: ClassVar[Arity] = exactly(2)
    never_forced: ClassVar[tuple[int, ...]] = (2,)
    propagates_always: ClassVar[bool] = True
    tops_as_caffe: ClassVar[bool] = True

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls()

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        c, gates = bottoms[:2]
        for i, (bottom, axes) in enumerate(zip(bottoms, (3, 3, 2), strict=True)):
            if len(bottom) != axes:
                raise LayerError(f"bottom[{i}] is {format_shape(bottom)}; {axes} == bottom[{i}]->num_axes() was needed")
            if bottom[:2] != (1, c[1]):
                raise LayerError(f"bottom[{i}] is {format_shape(bottom)}; 1 step of {c[1]} num_instances was needed")
        if gates[2] != 4 * c[2]:
            raise LayerError(
                f"bottom[1] is {format_shape(gates)}; 4 * hidden_dim_ == bottom[1]->shape(2) ({4 * c[2]} vs. {gates[2]})"
            )
        return [c, c]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        c, gates, cont = node.bottoms
        cont = onnx.op("Unsqueeze", [cont, onnx.ints("last_axis", [-1])], what="cont")
        cell, gated = lower_unit(onnx, c, gates, cont, node.bottom_shapes[0][2], node.tops[0])
        onnx.emit("Mul", gated, node.tops[1:])
        assert cell == node.tops[0]

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        refuse_to("sequence indicators", propagate_down, 2)
        c, gates, cont = node.bottoms
        cont = onnx.op("Unsqueeze", [cont, onnx.ints("last_axis", [-1])], what="cont")
        size, diffs = node.bottom_shapes[0][2], (top_diffs[0], top_diffs[1])
        return Gradients((*unit_diffs(onnx, c, gates, cont, node.tops[0], diffs, size), None))

    def channel_axis_of(self, node: Node, bottom: int) -> int | None:
        return 2 if bottom < 2 else None


def lower_unit(
    onnx: OnnxBuilder, c: str, gates: str, cont: str, size: int, top: str | None = None
) -> tuple[str, tuple[str, str]]:
    """The next cell state (named `top`, where given), and the two factors of the next hidden state."""
    parts = onnx.ints("gate_sizes", [3 * size, size])
    three, g = onnx.ops("Split", [gates, parts], 2, what="gates", axis=-1)
    opened = onnx.op("Sigmoid", [three], what="i_f_o")
    i, f, o = onnx.ops("Split", [opened, onnx.ints("i_f_o_sizes", [size] * 3)], 3, what="i_f_o_gates", axis=-1)
    forget = onnx.op("Mul", [f, cont], what="f_conted")
    added = onnx.op("Mul", [i, onnx.op("Tanh", [g], what="g")], what="c_added")
    old = onnx.op("Mul", [forget, c], what="c_kept")
    if top is None:
        cell = onnx.op("Add", [old, added], what="c")
    else:
        cell = top
        onnx.emit("Add", [old, added], [top])
    return cell, (o, onnx.op("Tanh", [cell], what="tanh_c"))


def unit_diffs(
    onnx: OnnxBuilder, c: str, gates: str, cont: str, cell: str, top_diffs: tuple[str, str], size: int
) -> tuple[str, str]:
    """The diffs of the cell state before and of the gates' inputs, given those of the two states after."""
    c_diff, h_diff = top_diffs
    one = onnx.floats("one", 1)
    parts = onnx.ints("gate_sizes", [3 * size, size])
    three, g = onnx.ops("Split", [gates, parts], 2, what="gates", axis=-1)
    opened = onnx.op("Sigmoid", [three], what="i_f_o")
    i, f, o = onnx.ops("Split", [opened, onnx.ints("i_f_o_sizes", [size] * 3)], 3, what="i_f_o_gates", axis=-1)
    f, g, tanh_c = onnx.op("Mul", [f, cont], what="f_conted"), onnx.op("Tanh", [g], what="g"), onnx.op("Tanh", [cell])

    def product(first: str, *factors: str) -> str:
        for factor in factors:
            first = onnx.op("Mul", [first, factor], what="product")
        return first

    def rest(value: str) -> str:
        return onnx.op("Sub", [one, value], what="rest")

    through_h = product(h_diff, o, rest(product(tanh_c, tanh_c)))
    total = onnx.op("Add", [c_diff, through_h], what="c_total_diff")
    # caffe: f · (1 - f) where f is f · cont already
    gate_diffs = [
        product(total, g, i, rest(i)), product(total, c, f, rest(f)), product(h_diff, tanh_c, o, rest(o)),
        product(total, i, rest(product(g, g))),
    ]  # fmt: skip
    return product(total, f), onnx.op("Concat", gate_diffs, what="gates_diff", axis=-1)
