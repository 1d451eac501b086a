"""Convolutions and inner products in numbers of few bits (Ristretto: base_ristretto_layer.cpp).

What a layer reads, its parameters, and what it makes are rounded; the sums between are exact. The fork rounds the
bottom where it stands, so that layers that read it afterwards see it rounded, too (`RoundedInPlace`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import NO_GRADIENT, Gradients, Layer, Node
from caffeconv.layers.convolution import Convolution, Deconvolution
from caffeconv.layers.inner_product import InnerProduct
from caffeconv.tensor.axis_order import AxisOrder
from caffeconv.tensor.param import Param
from caffeconv.tensor.shape import FloatArray, Shapes, format_shape
from caffeconv.tensor.weight_array import WeightArrays

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.caffe_pb2 import QuantizationParameter
    from caffeconv.ir.onnx_builder import OnnxBuilder

Part = Literal["layer_in", "layer_out", "params"]
FRACTION_BITS = 16
"""Of `fl_…` where the prototxt has none."""


@dataclass(frozen=True)
class Quantization:
    """How Ristretto rounds what a layer reads, its parameters, and what it makes."""

    precision: str
    bits: Mapping[Part, tuple[int, int]]
    """Bits of a number, and how many of them follow the point; of DYNAMIC_FIXED_POINT."""
    mantissa: int
    exponent: int
    exponents: tuple[int, int]
    """The least and greatest exponent of INTEGER_POWER_OF_2_WEIGHTS."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Quantization:
        p: QuantizationParameter = layer.proto.quantization_param
        if not layer.proto.HasField("quantization_param"):
            raise LayerError("no quantization_param, which says how numbers are rounded; it was needed")
        if layer.phase != "TEST":
            raise LayerError("layers of Ristretto are known in TEST only; `phase='TEST'` was needed")
        if p.rounding_scheme != p.NEAREST:
            raise LayerError("rounding_scheme STOCHASTIC draws numbers; `rounding_scheme: NEAREST` was needed")
        bits: dict[Part, tuple[int, int]] = {
            "layer_in": (p.bw_layer_in, _fraction(p.fl_layer_in)),
            "layer_out": (p.bw_layer_out, _fraction(p.fl_layer_out)),
            "params": (p.bw_params, _fraction(p.fl_params)),
        }
        return cls(p.Precision.Name(p.precision), bits, p.mant_bits, p.exp_bits, (p.exp_min, p.exp_max))

    def rounded(self, onnx: OnnxBuilder, value: str, part: Part, *, to: str | None = None) -> str:
        """`value` rounded as that part of the layer."""
        if self.precision == "DYNAMIC_FIXED_POINT":
            result = self._fixed_point(onnx, value, *self.bits[part])
        elif self.precision == "MINIFLOAT":
            result = self._mini_float(onnx, value)
        else:
            result = self._power_of_2(onnx, value) if part == "params" else value
        if to is None:
            return result
        onnx.emit("Identity", [result], [to])
        return to

    def _fixed_point(self, onnx: OnnxBuilder, value: str, bits: int, fraction: int) -> str:
        step = 2.0**-fraction
        least, most = -(2.0 ** (bits - 1)) * step, (2.0 ** (bits - 1) - 1) * step
        held = onnx.op("Clip", [value, onnx.floats("least", least), onnx.floats("most", most)], what="held")
        steps = onnx.op("Div", [held, onnx.floats("step", step)], what="steps")
        return onnx.op("Mul", [nearest(onnx, steps), onnx.floats("step", step)], what="fixed_point")

    def _mini_float(self, onnx: OnnxBuilder, value: str) -> str:
        """sign · (1 + mantissa) · 2^exponent; from the first value on that is too small, all stay, that one becomes 0."""
        bias = 2 ** (self.exponent - 1) - 1
        greatest, unit = 2**self.exponent - 1 - bias, 2.0**self.mantissa
        size, two = onnx.op("Abs", [value], what="size"), onnx.floats("two", 2)
        exponent = exponent_of(onnx, size)
        power = onnx.op("Pow", [two, exponent], what="power")
        parts = onnx.op(
            "Mul", [onnx.op("Div", [size, power], what="significand"), onnx.floats("unit", unit)], what="parts"
        )
        near = onnx.op("Div", [nearest(onnx, parts), onnx.floats("unit", unit)], what="rounded_significand")
        rounded = onnx.op("Mul", [near, power], what="rounded")
        most = onnx.floats("greatest", (2 - 1 / unit) * 2.0**greatest)
        over = onnx.op("Greater", [exponent, onnx.floats("greatest_exponent", greatest)], what="over")
        held = onnx.op("Where", [over, most, rounded], what="held_size")
        result = onnx.op("Mul", [onnx.op("Sign", [value]), held], what="mini_float")
        small = onnx.op("Less", [size, onnx.floats("least_size", max(2.0**-bias, 2.0**-126))], what="small")
        count = _count_before_and_here(onnx, small, value)
        zero = onnx.floats("zero", 0)
        is_first = onnx.op(
            "And", [small, onnx.op("Equal", [count, onnx.floats("one", 1)], what="once")], what="is_first"
        )
        before = onnx.op("Equal", [count, zero], what="before")
        rest = onnx.op("Where", [is_first, zero, value], what="rest")
        return onnx.op("Where", [before, result, rest], what="mini_floats")

    def _power_of_2(self, onnx: OnnxBuilder, value: str) -> str:
        least, most = (onnx.floats(f"exponent_{i}", exponent) for i, exponent in enumerate(self.exponents))
        logarithm = onnx.op("Log", [onnx.op("Abs", [value], what="size")], what="logarithm")
        binary = onnx.op("Mul", [logarithm, onnx.floats("per_log_2", 1 / math.log(2))], what="binary_logarithm")
        held = onnx.op("Max", [nearest(onnx, binary), least], what="raised")
        power = onnx.op("Pow", [onnx.floats("two", 2), onnx.op("Min", [held, most], what="exponent")], what="power")
        negative = onnx.op("Less", [value, onnx.floats("zero", 0)], what="negative")
        return onnx.op("Where", [negative, onnx.op("Neg", [power], what="negative_power"), power], what="power_of_2")


EXACT = Quantization("NONE", {}, 0, 0, (0, 0))
"""Of a layer that is not parsed yet."""


def _fraction(values: Sequence[int]) -> int:
    if len(values) > 1:
        raise LayerError(f"fl_… is given {len(values)} times, as in Intel's fork; once, as in Ristretto, was needed")
    return values[0] if values else FRACTION_BITS


def nearest(onnx: OnnxBuilder, value: str) -> str:
    """The nearest whole number, halves away from zero."""
    raised = onnx.op("Add", [onnx.op("Abs", [value]), onnx.floats("half", 0.5)], what="raised")
    return onnx.op("Mul", [onnx.op("Sign", [value]), onnx.op("Floor", [raised])], what="nearest")


def exponent_of(onnx: OnnxBuilder, size: str) -> str:
    """The whole e with 2^e ≤ size < 2^(e+1)."""
    two, one = onnx.floats("two", 2), onnx.floats("one", 1)
    above_zero = onnx.op("Max", [size, onnx.floats("least_normal", 2.0**-126)], what="above_zero")
    binary = onnx.op(
        "Mul", [onnx.op("Log", [above_zero]), onnx.floats("per_log_2", 1 / math.log(2))], what="binary_log"
    )
    guess = onnx.op("Floor", [binary], what="guess")
    # the logarithm may be off by a rounding where size is a power of 2
    over = onnx.op("Greater", [onnx.op("Pow", [two, guess]), above_zero], what="too_great")
    guess = onnx.op("Sub", [guess, onnx.op("Cast", [over], to=1)], what="lowered")
    under = onnx.op("LessOrEqual", [onnx.op("Pow", [two, onnx.op("Add", [guess, one])]), above_zero], what="too_small")
    return onnx.op("Add", [guess, onnx.op("Cast", [under], to=1)], what="exponent")


def _count_before_and_here(onnx: OnnxBuilder, flags: str, like: str) -> str:
    """How many flags are set up to each place, in the order of memory."""
    numbers = onnx.op("Cast", [onnx.op("Reshape", [flags, onnx.ints("row", [-1])], what="flat")], to=1, what="numbers")
    counts = onnx.op("CumSum", [numbers, onnx.ints("first_axis", 0)], what="counts")
    return onnx.op("Reshape", [counts, onnx.op("Shape", [like])], what="count")


@dataclass(frozen=True)
class RoundedInPlace(Layer):
    """What a layer in numbers of few bits leaves in a bottom: the same values, rounded; no prototxt has such a layer."""

    stands_in_net: ClassVar[bool] = False
    is_pointwise: ClassVar[bool] = True
    computes_in_float32: ClassVar[bool] = True
    is_discontinuous: ClassVar[bool] = True

    quantization: Quantization

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(Quantization.parse(layer))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return bottoms

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        self.quantization.rounded(onnx, node.bottoms[0], "layer_in", to=node.tops[0])

    def is_spatially_uniform(self, node: Node) -> bool:
        return True


@dataclass(frozen=True)
class _InFewBits(Layer):
    """What the layers in numbers of few bits have alike."""

    computes_in_float32: ClassVar[bool] = True
    is_discontinuous: ClassVar[bool] = True

    quantization: Quantization = EXACT

    def parameter(self, onnx: OnnxBuilder, name: str) -> str:
        """The parameter of that name, rounded; a bias is no power of 2."""
        if name == "bias" and self.quantization.precision == "INTEGER_POWER_OF_2_WEIGHTS":
            return onnx.weight(name)
        return self.quantization.rounded(onnx, onnx.weight(name), "params")

    def rewritten_bottoms(self, node: Node) -> Mapping[int, Layer]:
        if self.quantization.precision == "INTEGER_POWER_OF_2_WEIGHTS":
            return {}
        return {i: RoundedInPlace(self.quantization) for i in range(len(node.bottoms))}

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        raise LayerError(NO_GRADIENT)

    def fold_affine(self, node: Node, factor: FloatArray, shift: FloatArray) -> tuple[Param, ...] | None:
        return None


def _lower_rounded(
    quantization: Quantization, node: Node, onnx: OnnxBuilder, lower: Callable[[Node, OnnxBuilder], None]
) -> None:
    """Writes the layer over its rounded bottoms by `lower`, and rounds what that makes."""
    bottoms = tuple(quantization.rounded(onnx, bottom, "layer_in") for bottom in node.bottoms)
    exact = tuple(f"{top}/exact" for top in node.tops)
    lower(replace(node, bottoms=bottoms, tops=exact), onnx)
    for value, top in zip(exact, node.tops, strict=True):
        quantization.rounded(onnx, value, "layer_out", to=top)


def _check_axis(layer: LayerDef, axis: int) -> None:
    if axis != 1:
        raise LayerError(f"axis is {axis}; {layer.type} is known for `axis: 1` only")


NOTE = "the layer rounds what it reads, its parameters and what it makes; the parameters are as stored, not rounded"


@dataclass(frozen=True)
class ConvolutionRistretto(_InFewBits, Convolution):
    """A Convolution in numbers of few bits, said by quantization_param (Ristretto: conv_ristretto_layer.cpp)."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        _check_axis(layer, layer.proto.convolution_param.axis)
        return replace(super().parse(layer), quantization=Quantization.parse(layer))

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        _check_planes(node)
        _lower_rounded(self.quantization, node, onnx, super().lower)

    def _notes(self, node: Node) -> tuple[str, ...]:
        return (*super()._notes(node), NOTE)


@dataclass(frozen=True)
class DeconvolutionRistretto(ConvolutionRistretto, Deconvolution):
    """A Deconvolution in numbers of few bits, said by quantization_param (Ristretto: deconv_ristretto_layer.cpp)."""


def _check_planes(node: Node) -> None:
    if len(node.bottom_shapes[0]) < 3:
        raise LayerError(f"the bottom is {format_shape(node.bottom_shapes[0])}; N×C×H×W was needed")


@dataclass(frozen=True)
class FcRistretto(_InFewBits, InnerProduct):
    """An InnerProduct in numbers of few bits, said by quantization_param (Ristretto: fc_ristretto_layer.cpp)."""

    is_fully_connected: ClassVar[bool] = False

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.inner_product_param
        _check_axis(layer, p.axis)
        if p.normalize:
            raise LayerError("normalize: true is another fork's (happynear); FcRistretto is known without")
        return replace(super().parse(layer), quantization=Quantization.parse(layer))

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        _lower_rounded(self.quantization, node, onnx, super().lower)

    def as_convolution(self, node: Node, bottoms: Shapes) -> Node:
        raise LayerError(
            "FcRistretto has no form that slides over larger inputs; a layer that does not round was needed"
        )

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays | None:
        return None
