"""Activations held between bounds: ReLU6, ReLUX, HardSigmoid, HardSwish, ScaleTanH, Truncation; Sparsify, which cuts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Node
from caffeconv.layers.activations import Elementwise, TanH
from caffeconv.layers.gradient_ops import times

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class ReLU6(Elementwise):
    """y = min(max(x, 0) + negative_slope · min(x, 0), 6) (MobileNet-YOLO: relu6_layer.cpp; others have no slope)."""

    negative_slope: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(layer.proto.relu6_param.negative_slope)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        most = onnx.floats("most", 6)
        if self.negative_slope == 0:
            onnx.emit("Clip", [node.bottoms[0], onnx.floats("least", 0), most], node.tops)
            return
        leaky = onnx.op("LeakyRelu", node.bottoms, alpha=self.negative_slope, what="leaky")
        onnx.emit("Min", [leaky, most], node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        zero = onnx.floats("zero", 0)
        below = zero if self.negative_slope == 0 else times(onnx, diff, self.negative_slope, "negative_diff")
        positive = onnx.op("Where", [onnx.op("Greater", [node.bottoms[0], zero]), diff, below], what="positive_diff")
        capped = onnx.op("Less", [node.bottoms[0], onnx.floats("most", 6)], what="below_most")
        return onnx.op("Where", [capped, positive, zero], what="bottom_diff")


@dataclass(frozen=True)
class ReLUX(Elementwise):
    """y = min(max(x, 0), maximal_value) + negative_slope · min(x, 0) (py-RFCN-priv: relux_layer.cpp)."""

    negative_slope: float
    maximal_value: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.relux_param
        if p.maximal_value < 0:
            raise LayerError(f"maximal_value is {p.maximal_value:g}; maximal_value must be non-negative.")
        return cls(p.negative_slope, p.maximal_value)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        limits = [onnx.floats("zero", 0), onnx.floats("maximal_value", self.maximal_value)]
        if self.negative_slope == 0:
            onnx.emit("Clip", [node.bottoms[0], *limits], node.tops)
            return
        positive = onnx.op("Clip", [node.bottoms[0], *limits], what="positive")
        negative = onnx.op("Min", [node.bottoms[0], limits[0]], what="negative")
        sloped = onnx.op("Mul", [negative, onnx.floats("negative_slope", self.negative_slope)], what="sloped")
        onnx.emit("Add", [positive, sloped], node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        zero = onnx.floats("zero", 0)
        below = zero if self.negative_slope == 0 else times(onnx, diff, self.negative_slope, "negative_diff")
        capped = onnx.op("Less", [node.bottoms[0], onnx.floats("maximal_value", self.maximal_value)], what="below_most")
        above = onnx.op("Where", [capped, diff, zero], what="above_diff")
        return onnx.op("Where", [onnx.op("Greater", [node.bottoms[0], zero]), above, below], what="bottom_diff")


@dataclass(frozen=True)
class HardSigmoid(Elementwise):
    """y = alpha · x + beta held between 0 and 1 (Synopsys: hard_sigmoid_layer.cpp; MobileNet-YOLO's has no fields)."""

    alpha: float
    beta: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.hard_sigmoid_param
        return cls(p.alpha, p.beta)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("HardSigmoid", node.bottoms, node.tops, alpha=self.alpha, beta=self.beta)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        return _between(onnx, node.tops[0], 0, 1, times(onnx, diff, self.alpha, "sloped_diff"))


@dataclass(frozen=True)
class HardSwish(Elementwise):
    """y = x · min(max(x + 3, 0), 6) / 6 (Synopsys: hard_swish_layer.cpp)."""

    keeps_bottoms: ClassVar[bool] = True

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Mul", [node.bottoms[0], self._gate(node, onnx)], node.tops)

    def _gate(self, node: Node, onnx: OnnxBuilder) -> str:
        return onnx.op("HardSigmoid", node.bottoms, alpha=1 / 6, beta=0.5, what="gate")

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        gated = times(onnx, diff, self._gate(node, onnx), "gated_diff")
        steep = times(onnx, times(onnx, diff, node.bottoms[0], "diff_x"), 1 / 6, "steep_diff")
        moved = _between(onnx, node.bottoms[0], -3, 3, steep)
        return onnx.op("Add", [gated, moved], what="bottom_diff")


@dataclass(frozen=True)
class ScaleTanH(TanH):
    """y = tanh(init_scale · x) (HashNet: scale_tanh_layer.cpp).

    The fork lets the scale grow every `step_size` passes; here it stays what it is before the first of these steps.
    """

    scale: float = 1.0

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(layer.proto.scale_tanh_param.init_scale)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Tanh", [times(onnx, node.bottoms[0], self.scale, "scaled")], node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        return times(onnx, super().bottom_diff(node, onnx, diff), self.scale, "scaled_diff")


@dataclass(frozen=True)
class Truncation(Elementwise):
    """y = x clipped to lower_bound … upper_bound (happynear's caffe-windows: truncation_layer.cpp)."""

    keeps_bottoms: ClassVar[bool] = True

    low: float
    high: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.truncation_param
        return cls(p.lower_bound, p.upper_bound)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        limits = [onnx.floats("lower_bound", self.low), onnx.floats("upper_bound", self.high)]
        onnx.emit("Min", [onnx.op("Max", [node.bottoms[0], limits[0]], what="raised"), limits[1]], node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        return _between(onnx, node.bottoms[0], self.low, self.high, diff)


def _between(onnx: OnnxBuilder, x: str, low: float, high: float, diff: str) -> str:
    """`diff` where `x` lies between two numbers, else 0."""
    above = onnx.op("Greater", [x, onnx.floats("low", low)], what="above")
    below = onnx.op("Less", [x, onnx.floats("high", high)], what="below")
    inside = onnx.op("And", [above, below], what="inside")
    return onnx.op("Where", [inside, diff, onnx.floats("zero", 0)], what="inside_diff")


@dataclass(frozen=True)
class Sparsify(Elementwise):
    """y = x nearer to 0 by `thre`, and 0 where |x| is at most that (wenwei202's SSL: sparsify_layer.cpp).

    Backward adds `coef` · sign(y) to the diff, the slope of an L1 norm that no loss has.
    """

    threshold: float
    coefficient: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.sparsify_param
        if p.thre < 0 or p.coef < 0:
            raise LayerError(f"thre is {p.thre:g}, coef {p.coef:g}; at least 0 was needed")
        return cls(p.thre, p.coef)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Shrink", node.bottoms, node.tops, lambd=self.threshold, bias=self.threshold)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        sign = onnx.op("Sign", [node.tops[0]], what="sign")
        if self.coefficient:
            slope = onnx.op("Mul", [sign, onnx.floats("coef", self.coefficient)], what="norm_slope")
            diff = onnx.op("Add", [diff, slope], what="regularized_diff")
        if self.threshold == 0:
            return onnx.op("Identity", [diff], what="bottom_diff")
        return onnx.op("Mul", [diff, onnx.op("Abs", [sign], what="is_kept")], what="bottom_diff")


@dataclass(frozen=True)
class Cosine(Elementwise):
    """y = cos x (happynear's caffe-windows: cosine_layer.cpp)."""

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Cos", node.bottoms, node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        return onnx.op("Neg", [onnx.op("Sin", node.bottoms)], what="slope")  # the fork leaves the top's diff out
