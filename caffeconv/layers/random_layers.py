"""Layers that draw a factor at random in TRAIN: Insanity for each negative value, ScaleFilter for each plane."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffeconv.caffe_format.terms import Phase
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import NO_GRADIENT, Node
from caffeconv.layers.activations import Elementwise
from caffeconv.layers.gradient_ops import times
from caffeconv.tensor.shape import Dims, Shapes, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


def _emit_drawn(onnx: OnnxBuilder, what: str, dims: Dims, low: float, high: float) -> str:
    """Numbers from `low` to `high`, drawn anew in each pass, which the backward pass finds as `onnx.kept(what)`."""
    shape = onnx.fixed(dims, f"{what} are drawn for one batch size")
    if not onnx.stateful:
        drawn = onnx.op("RandomUniform", [], what="drawn", shape=shape, low=low, high=high)
    else:
        noise = onnx.uniform_noise("noise", shape)
        grown = onnx.op("Mul", [noise, onnx.floats("width", high - low)], what="grown")
        drawn = onnx.op("Add", [grown, onnx.floats("low", low)], what="drawn")
    onnx.emit("Identity", [drawn], [onnx.kept(what)])
    return onnx.kept(what)


@dataclass(frozen=True)
class Insanity(Elementwise):
    """y = max(x, 0) + min(x, 0) / a, the randomised leaky ReLU (happynear's caffe-windows: insanity_layer.cpp).

    TRAIN: a is drawn between lb and ub for each value. TEST: a = (ub - lb) / (log |ub| - log |lb|); Caffe divides
    diffs by slopes there that it never drew, so there is no gradient.
    """

    low: float
    high: float
    phase: Phase

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.insanity_param
        if not p.ub > p.lb:
            raise LayerError(f"lb is {p.lb:g}, ub {p.ub:g}; upper bound must > lower bound.")
        if p.lb * p.ub == 0:
            raise LayerError(f"lb is {p.lb:g}, ub {p.ub:g}; lower & upper bound must not be 0.")
        if layer.phase == "TEST" and abs(p.lb) == abs(p.ub):
            raise LayerError(
                f"lb is {p.lb:g}, ub {p.ub:g}; sizes that differ were needed, whose logarithms are compared"
            )
        return cls(p.lb, p.ub, layer.phase)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if len(bottoms[0]) < 2:
            raise LayerError(f"the bottom is {format_shape(bottoms[0])}; Number of axes of bottom blob must be >=2.")
        return super().top_shapes(bottoms)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x = node.bottoms[0]
        if self.phase == "TEST":
            slope = (math.log(abs(self.high)) - math.log(abs(self.low))) / (self.high - self.low)
            onnx.emit("LeakyRelu", [x], node.tops, alpha=slope)
            return
        onnx.keep("slopes", f"{node.tops[0]}/slopes")
        slopes = _emit_drawn(onnx, "slopes", onnx.dims(x), self.low, self.high)
        positive = onnx.op("Greater", [x, onnx.floats("zero", 0)], what="positive")
        onnx.emit("Where", [positive, x, onnx.op("Div", [x, slopes], what="below")], node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        if self.phase == "TEST":
            raise LayerError(NO_GRADIENT)
        positive = onnx.op("Greater", [node.bottoms[0], onnx.floats("zero", 0)], what="positive")
        below = onnx.op("Div", [diff, onnx.kept("slopes")], what="below_diff")
        return onnx.op("Where", [positive, diff, below], what="bottom_diff")

    @property
    def is_random(self) -> bool:
        return self.phase == "TRAIN"


@dataclass(frozen=True)
class ScaleFilter(Elementwise):
    """TEST: y = x. TRAIN: each plane of N×C×H×W times a number drawn between min_scale and max_scale.

    (openvinotoolkit's training_toolbox_caffe: scale_filter_layer.cpp)
    """

    low: float
    high: float
    phase: Phase

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.scale_filter_param
        return cls(p.min_scale, p.max_scale, layer.phase)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if len(bottoms[0]) != 4:
            raise LayerError(f"the bottom is {format_shape(bottoms[0])}; N×C×H×W was needed")
        return super().top_shapes(bottoms)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if self.phase == "TEST":
            onnx.emit("Identity", node.bottoms, node.tops)
            return
        onnx.keep("scales", f"{node.tops[0]}/scales")
        scales = _emit_drawn(onnx, "scales", (*onnx.dims(node.bottoms[0])[:2], 1, 1), self.low, self.high)
        onnx.emit("Mul", [node.bottoms[0], scales], node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        return diff if self.phase == "TEST" else times(onnx, diff, onnx.kept("scales"), "bottom_diff")

    def is_identity(self, node: Node) -> bool:
        return self.phase == "TEST"

    @property
    def is_random(self) -> bool:
        return self.phase == "TRAIN"
