"""Nets that Xilinx's tools quantise: FixedNeuron, ConvolutionFixed, InnerProductFixed (caffe-xilinx, of Vitis AI)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from caffeconv.caffe_format.terms import Phase
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import FLOAT
from caffeconv.ir.layer import Gradients, Layer, Node
from caffeconv.layers.activations import Elementwise
from caffeconv.layers.convolution import Convolution
from caffeconv.layers.inner_product import InnerProduct
from caffeconv.layers.ristretto import exponent_of, nearest
from caffeconv.tensor.axis_order import AxisOrder
from caffeconv.tensor.param import Param
from caffeconv.tensor.shape import FloatArray, Shape, Shapes
from caffeconv.tensor.weight_array import WeightArrays

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

_TRIALS = {"DIFF_S": 5, "DIFF_A": 5, "DIFF_S_SIGMOID": 10}
"""Method → how many positions of the point it tries, from the last one on that overflows nowhere."""


@dataclass(frozen=True)
class FixedPoint:
    """Numbers of `bits` bits, of which a position says how many follow the point."""

    method: str
    bits: int

    @classmethod
    def parse(cls, layer: LayerDef, methods: Sequence[str]) -> Self:
        """Raises LayerError where fixed_param lacks one of both, or names a method that is none of those."""
        p = layer.proto.fixed_param
        if not p.HasField("bit_width") or p.bit_width < 1:
            raise LayerError("no bit_width above 0 in fixed_param; it was needed (Bit width must be larger than 0.)")
        method = p.FixedMethod.Name(p.fixed_method)
        if not p.HasField("fixed_method") or method not in methods:
            raise LayerError(f"fixed_method is {method}; one of {', '.join(methods)} was needed")
        return cls(method, p.bit_width)

    def held(self, onnx: OnnxBuilder, whole: str, step: str) -> str:
        """Whole numbers of steps, held to what `bits` bits hold, times the step."""
        half = 2.0 ** (self.bits - 1)
        low = onnx.op("Max", [whole, onnx.floats("least", -half)], what="above_least")
        return onnx.op("Mul", [onnx.op("Min", [low, onnx.floats("most", half - 1)], what="held"), step], what="fixed")

    def position(self, onnx: OnnxBuilder, value: str) -> str:
        """Where the value's own numbers want the point: the last place without overflow, or the one that loses least."""
        guard = 2.0 ** (self.bits - 1)
        low = onnx.op("Div", [onnx.reduce("ReduceMin", value, None, keepdims=False), onnx.floats("low", -guard - 0.5)])
        high = onnx.op("Div", [onnx.reduce("ReduceMax", value, None, keepdims=False), onnx.floats("high", guard - 0.5)])
        step, one = onnx.op("Max", [low, high], what="least_step"), onnx.floats("one", 1)
        # zeros stay so with any step
        step = onnx.op("Where", [onnx.op("Equal", [step, onnx.floats("zero", 0)]), one, step], what="least_step")
        first = exponent_of(onnx, onnx.op("Div", [one, step], what="steps_in_one"))
        if self.method == "OVER_FLOW":
            return first

        def seen(values: str) -> str:
            return onnx.op("Sigmoid", [values]) if self.method == "DIFF_S_SIGMOID" else values

        errors = []
        for i in range(_TRIALS[self.method]):
            trial = self.rounded(onnx, value, onnx.op("Add", [first, onnx.floats(f"more_{i}", i)], what="position"))
            loss = onnx.op("Sub", [seen(value), seen(trial)], what="loss")
            error = onnx.reduce("ReduceSumSquare", loss, None, keepdims=False)
            errors.append(onnx.op("Reshape", [error, onnx.ints("column", [-1])]))
        best = onnx.op("ArgMin", [onnx.op("Concat", errors, axis=0, what="errors")], axis=0, keepdims=0, what="best")
        return onnx.op("Add", [first, onnx.op("Cast", [best], to=FLOAT)], what="best_position")

    def rounded(self, onnx: OnnxBuilder, value: str, position: str) -> str:
        """The value in such numbers, halves away from zero, its point at the position."""
        step = _step(onnx, position)
        return self.held(onnx, nearest(onnx, onnx.op("Div", [value, step], what="steps")), step)


def _step(onnx: OnnxBuilder, position: str) -> str:
    return onnx.op("Pow", [onnx.floats("two", 2), onnx.op("Neg", [position])], what="step")


@dataclass(frozen=True)
class FixedNeuron(Elementwise):
    """The bottom in numbers of few bits: their point stands where the parameter says, rounded down.

    Halves are rounded up, as the DPU does; with `follow_data_layer` what lies behind the point is cut off, and nothing
    is held to a range. In TRAIN the point stands where the batch wants it, which is also left in the parameter, and
    `follow_data_layer` rounds halves away from zero; a solver takes the position that came most often
    (caffe-xilinx: fixed_neuron_layer.cpp).
    """

    computes_in_float32: ClassVar[bool] = True
    is_discontinuous: ClassVar[bool] = True
    param_axes: ClassVar[Mapping[str, str]] = {"position": "one"}

    numbers: FixedPoint | None
    """None: they stay as they are."""
    follows_data: bool
    phase: Phase

    running_statistics: ClassVar[frozenset[str]] = frozenset(("position",))

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.fixed_param
        numbers = FixedPoint.parse(layer, ("OVER_FLOW", *_TRIALS))
        return cls(numbers if p.enable else None, p.follow_data_layer, layer.phase)

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        return {"position": (1,)}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if self.numbers is None:
            onnx.emit("Identity", node.bottoms, node.tops)
            return
        x = node.bottoms[0]
        if self.phase == "TRAIN":
            position = self.numbers.position(onnx, x)
            if onnx.open_params:
                onnx.change_param("position", onnx.op("Reshape", [position, onnx.ints("one_number", [1])]))
        else:
            position = onnx.op("Floor", [onnx.weight("position")], what="whole_position")
            if not node.bottom_shapes[0]:
                position = onnx.op("Squeeze", [position], what="scalar_position")
        if self.follows_data and self.phase == "TRAIN":
            onnx.emit("Identity", [self.numbers.rounded(onnx, x, position)], node.tops)
            return
        step = _step(onnx, position)
        steps = onnx.op("Div", [x, step], what="steps")
        if self.follows_data:
            whole = onnx.op("Mul", [onnx.op("Sign", [steps]), onnx.op("Floor", [onnx.op("Abs", [steps])])], what="cut")
            onnx.emit("Mul", [whole, step], node.tops)
            return
        whole = onnx.op("Floor", [onnx.op("Add", [steps, onnx.floats("half", 0.5)])], what="nearest")
        onnx.emit("Identity", [self.numbers.held(onnx, whole, step)], node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        return diff

    def is_identity(self, node: Node) -> bool:
        return self.numbers is None

    def is_spatially_uniform(self, node: Node) -> bool:
        return self.phase == "TEST" or self.numbers is None


NOTE = "the layer rounds its parameters to few bits; they are as stored here, not rounded"


@dataclass(frozen=True)
class _FixedParameters(Layer):
    """What the layers with rounded parameters have alike. Their gradient is that of the parameters as they are."""

    computes_in_float32: ClassVar[bool] = True
    is_discontinuous: ClassVar[bool] = True

    numbers: FixedPoint | None = None
    """None: the parameters stay as they are."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        numbers = FixedPoint.parse(layer, ("OVER_FLOW", "DIFF_S"))
        return replace(super().parse(layer), numbers=numbers if layer.proto.fixed_param.enable else None)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        plain = replace(self, numbers=None)
        return super(_FixedParameters, plain).lower_gradient(node, onnx, top_diffs, propagate_down)

    def parameter(self, onnx: OnnxBuilder, name: str) -> str:
        """The parameter of that name, rounded."""
        value = onnx.weight(name)
        return value if self.numbers is None else self.numbers.rounded(onnx, value, self.numbers.position(onnx, value))

    def fold_affine(self, node: Node, factor: FloatArray, shift: FloatArray) -> tuple[Param, ...] | None:
        return None


@dataclass(frozen=True)
class ConvolutionFixed(_FixedParameters, Convolution):
    """A Convolution whose parameters are rounded to few bits (caffe-xilinx: conv_fixed_layer.cpp)."""

    def _notes(self, node: Node) -> tuple[str, ...]:
        return (*super()._notes(node), NOTE)


@dataclass(frozen=True)
class InnerProductFixed(_FixedParameters, InnerProduct):
    """An InnerProduct whose parameters are rounded to few bits (caffe-xilinx: inner_product_fixed_layer.cpp)."""

    is_fully_connected: ClassVar[bool] = False

    def as_convolution(self, node: Node, bottoms: Shapes) -> Node:
        raise LayerError(
            "InnerProductFixed has no form that slides over larger inputs; a layer that does not round was needed"
        )

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays | None:
        return None
