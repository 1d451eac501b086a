"""Layers that treat every element by itself, and Eltwise, which combines blobs of one shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.caffe_format.terms import Phase
from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import NO_GRADIENT, Gradients, Layer, Node, Settings
from caffeconv.layers.convolution import with_slopes
from caffeconv.layers.gradient_ops import class_sums, filled_like, refuse_all, squared, sum_over, times
from caffeconv.layers.weight_layouts import along
from caffeconv.tensor.axis_order import AxisOrder
from caffeconv.tensor.shape import Shape, Shapes, count, format_shape
from caffeconv.tensor.weight_array import WeightArrays

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


MOST_EXPONENT = 700  # where exp leaves float64; float32 is infinite long before


@dataclass(frozen=True)
class Elementwise(Layer):
    """One bottom, one top of the same shape."""

    is_pointwise: ClassVar[bool] = True

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls()

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return [bottoms[0]]

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return Gradients((self.bottom_diff(node, onnx, top_diffs[0]),))

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        """The bottom's diff, given the top's; raises LayerError where no rule is known."""
        raise LayerError(NO_GRADIENT)

    def is_spatially_uniform(self, node: Node) -> bool:
        return True


@dataclass(frozen=True)
class AbsVal(Elementwise):
    """y = |x| (caffe: absval_layer.cpp)."""

    in_place: ClassVar[bool] = False

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Abs", node.bottoms, node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        return times(onnx, diff, onnx.op("Sign", node.bottoms))


@dataclass(frozen=True)
class BNLL(Elementwise):
    """y = log(1 + exp x) (caffe: bnll_layer.cpp)."""

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        # |x| keeps exp from overflowing, as Caffe's two branches do
        negative = onnx.op("Neg", [onnx.op("Abs", node.bottoms)])
        grown = onnx.op("Add", [onnx.op("Exp", [negative]), onnx.floats("one", 1)], what="grown")
        positive = onnx.op("Relu", node.bottoms)
        onnx.emit("Add", [positive, onnx.op("Log", [grown])], node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        return times(onnx, diff, onnx.op("Sigmoid", node.bottoms, what="slope"))


@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """y = 1 / (1 + exp -x) (caffe: sigmoid_layer.cpp)."""

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Sigmoid", node.bottoms, node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        rest = onnx.op("Sub", [onnx.floats("one", 1), node.tops[0]], what="rest")
        return times(onnx, diff, onnx.op("Mul", [node.tops[0], rest], what="slope"))


@dataclass(frozen=True)
class TanH(Elementwise):
    """y = tanh x (caffe: tanh_layer.cpp)."""

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Tanh", node.bottoms, node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        square = onnx.op("Mul", [node.tops[0], node.tops[0]], what="square")
        return times(onnx, diff, onnx.op("Sub", [onnx.floats("one", 1), square], what="slope"))


@dataclass(frozen=True)
class ReLU(Elementwise):
    """y = max(x, 0) + negative_slope · min(x, 0) (caffe: relu_layer.cpp).

    Synopsys: NaN becomes 0 and y is held to 6 (`relu6`), to `maximum` where above 0 and to `minimum` where not 0.
    """

    negative_slope: float
    minimum: float = -math.inf
    maximum: float = math.inf

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.relu_param
        limits = [limit for limit in (p.maximum, 6.0 if p.relu6 else 0.0) if limit > 0]
        return cls(p.negative_slope, p.minimum or -math.inf, min(limits, default=math.inf))

    @classmethod
    def other_types(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[LayerParameter]:
        return with_slopes(layer, bottoms, stored)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if self._is_bounded:
            self._lower_bounded(node, onnx)
        elif self.negative_slope == 0:
            onnx.emit("Relu", node.bottoms, node.tops)
        else:
            onnx.emit("LeakyRelu", node.bottoms, node.tops, alpha=self.negative_slope)

    @property
    def _is_bounded(self) -> bool:
        return (self.minimum, self.maximum) != (-math.inf, math.inf)

    def _lower_bounded(self, node: Node, onnx: OnnxBuilder) -> None:
        zero = onnx.floats("zero", 0)
        x = onnx.op("Where", [onnx.op("IsNaN", node.bottoms, what="is_nan"), zero, node.bottoms[0]], what="number")
        y = onnx.op("LeakyRelu", [x], alpha=self.negative_slope, what="unbounded")
        if self.maximum < math.inf:
            y = onnx.op("Min", [y, onnx.floats("maximum", self.maximum)], what="capped")
        # synopsys: the minimum comes last, and so wins
        least = onnx.floats("minimum", max(self.minimum, float(np.finfo(np.float32).min)))
        onnx.emit("Max", [y, least], node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        zero, x = onnx.floats("zero", 0), node.bottoms[0]
        if self.maximum < math.inf:
            below = onnx.op("Less", [x, onnx.floats("maximum", self.maximum)], what="below_maximum")
            diff = onnx.op("Where", [below, diff, zero], what="below_diff")
        if self.minimum > -math.inf:
            above = onnx.op("Greater", [x, onnx.floats("minimum", self.minimum)], what="above_minimum")
            diff = onnx.op("Where", [above, diff, zero], what="above_diff")
        if onnx.training_ops:
            slope = onnx.floats("negative_slope", self.negative_slope)
            return onnx.library_values("ReLUGrad", [x, diff, slope], 1, what="bottom_diff")[0]
        below = zero if self.negative_slope == 0 else times(onnx, diff, self.negative_slope, "negative_diff")
        return onnx.op("Where", [onnx.op("Greater", [x, zero]), diff, below], what="bottom_diff")


@dataclass(frozen=True)
class PReLU(Elementwise):
    """y = max(x, 0) + slope_c · min(x, 0); weight C, or a scalar with `channel_shared` (caffe: prelu_layer.cpp)."""

    keeps_bottoms: ClassVar[bool] = True
    takes_any_vector: ClassVar[bool] = True
    param_axes: ClassVar[Mapping[str, str]] = {"slope": "channels"}
    settings: ClassVar[str] = "prelu_param"

    channel_shared: bool
    filler: Filler

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.prelu_param
        return cls(p.channel_shared, Filler.parse(p.filler) if p.HasField("filler") else Filler(value=0.25))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if not 2 <= len(bottoms[0]) <= 4:
            raise LayerError(
                f"the bottom is {format_shape(bottoms[0])}; Number of axes of bottom blob must be 2 to 4 "
                "(Cannot use legacy accessors on Blobs with > 4 axes.)"
            )
        return [bottoms[0]]

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        return {"slope": () if self.channel_shared else (bottoms[0][1],)}

    def fillers(self) -> Mapping[str, Filler]:
        return {"slope": self.filler}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("PRelu", [node.bottoms[0], self._slope(node, onnx)], node.tops)

    def _slope(self, node: Node, onnx: OnnxBuilder) -> str:
        rank = len(node.bottom_shapes[0])
        # ONNX lines shapes up at their last axis, Caffe's slope belongs to axis 1
        return onnx.weight("slope", (1,) if self.channel_shared else (node.bottom_shapes[0][1], *([1] * (rank - 2))))

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        x, rank, zero = node.bottoms[0], len(node.bottom_shapes[0]), onnx.floats("zero", 0)
        positive = onnx.op("Greater", [x, zero], what="positive")
        sloped = onnx.op("Mul", [top_diffs[0], self._slope(node, onnx)], what="negative_diff")
        diff = onnx.op("Where", [positive, top_diffs[0], sloped], what="bottom_diff")
        product = onnx.op("Mul", [top_diffs[0], x], what="diff_x")
        negative = onnx.op("Where", [positive, zero, product], what="negative_diff_x")
        if self.channel_shared:
            slope_diff = sum_over(onnx, negative, range(rank), "slope_diff")
        else:
            slope_diff = class_sums(onnx, negative, rank, 1, "slope_diff")
        return Gradients((diff,), {"slope": slope_diff})

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays:
        slope = along(node, node.param("slope"), "alpha", 1, bottoms[0])
        # Keras: alpha has every axis but the batch's, with 1 for those in shared_axes
        axes = len(bottoms[0].shape) - 1
        slope = replace(slope, shape=(*([1] * (axes - len(slope.shape))), *slope.shape))
        if slope.transposition == "none" and slope.shape != node.param("slope").shape:
            slope = replace(
                slope, transposition=f"{format_shape(node.param('slope').shape)} → {format_shape(slope.shape)}"
            )
        shared = [axis + 1 for axis, size in enumerate(slope.shape) if size == 1 < bottoms[0].held_shape[axis + 1]]
        return WeightArrays((slope,), {"shared_axes": shared})

    @classmethod
    def implied_settings(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[Settings]:
        if not stored or count(stored[0]) not in (1, bottoms[0][1]):
            return ()
        return ({"channel_shared": count(stored[0]) == 1},)

    @classmethod
    def implied_channels(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> int | None:
        return count(stored[0]) if stored and stored[0] else None


@dataclass(frozen=True)
class ELU(Elementwise):
    """y = x for x > 0, else alpha · (exp x - 1) (caffe: elu_layer.cpp)."""

    alpha: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(layer.proto.elu_param.alpha)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Elu", node.bottoms, node.tops, alpha=self.alpha)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        slope = onnx.op("Add", [node.tops[0], onnx.floats("alpha", self.alpha)], what="slope")
        positive = onnx.op("Greater", [node.bottoms[0], onnx.floats("zero", 0)], what="positive")
        return onnx.op("Where", [positive, diff, times(onnx, diff, slope, "negative_diff")], what="bottom_diff")


@dataclass(frozen=True)
class Exp(Elementwise):
    """y = base^(shift + scale · x); base -1 stands for e (caffe: exp_layer.cpp)."""

    inner: float
    outer: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.exp_param
        log_base = _log_base(p.base)
        power = log_base * p.shift
        return cls(log_base * p.scale, math.exp(power) if power < MOST_EXPONENT else math.inf)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x = node.bottoms[0]
        if self.inner != 1:
            x = onnx.op("Mul", [x, onnx.floats("inner_scale", self.inner)], what="inner")
        if self.outer == 1:
            onnx.emit("Exp", [x], node.tops)
        else:
            onnx.emit("Mul", [onnx.op("Exp", [x]), onnx.floats("outer_scale", self.outer)], node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        return times(onnx, times(onnx, diff, node.tops[0], "diff_y"), self.inner)


@dataclass(frozen=True)
class Log(Elementwise):
    """y = log_base(shift + scale · x); base -1 stands for e (caffe: log_layer.cpp)."""

    base_scale: float
    scale: float
    shift: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.log_param
        log_base = _log_base(p.base)
        if log_base == 0:
            raise LayerError("log_param.base is 1, whose logarithm is 0; another base was needed")
        return cls(1 / log_base, p.scale, p.shift)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x = scaled_and_shifted(onnx, node.bottoms[0], self.scale, self.shift)
        if self.base_scale == 1:
            onnx.emit("Log", [x], node.tops)
        else:
            onnx.emit("Mul", [onnx.op("Log", [x]), onnx.floats("base_scale", self.base_scale)], node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        x = scaled_and_shifted(onnx, node.bottoms[0], self.scale, self.shift)
        factor = self.scale * self.base_scale
        if node.is_in_place:
            return squared(onnx, onnx.op("Div", [onnx.floats("factor", factor), x], what="slope"))
        return onnx.op("Div", [times(onnx, diff, factor, "scaled_diff"), x], what="bottom_diff")


def _log_base(base: float) -> float:
    if base == -1:
        return 1.0
    if base <= 0:
        raise LayerError(f"base is {base:g}; base must be strictly positive (or -1, which stands for e).")
    return math.log(base)


def scaled_and_shifted(onnx: OnnxBuilder, x: str, scale: float, shift: float) -> str:
    """scale · x + shift, without the steps that change nothing."""
    if scale != 1:
        x = onnx.op("Mul", [x, onnx.floats("scale", scale)], what="scaled")
    if shift != 0:
        x = onnx.op("Add", [x, onnx.floats("shift", shift)], what="shifted")
    return x


@dataclass(frozen=True)
class Power(Elementwise):
    """y = (shift + scale · x)^power (caffe: power_layer.cpp)."""

    power: float
    scale: float
    shift: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.power_param
        return cls(p.power, p.scale, p.shift)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x = node.bottoms[0]
        if self.power * self.scale == 0:
            # caffe: the top is a constant then, even for x that is NaN or infinite
            value = 1.0 if self.power == 0 else _c_pow(self.shift, self.power)
            shape = onnx.op("Shape", [x])
            onnx.emit("Expand", [onnx.floats("value", value), shape], node.tops)
            return
        x = scaled_and_shifted(onnx, x, self.scale, self.shift)
        if self.power == 1:
            onnx.emit("Identity", [x], node.tops)
        elif self.power == 2:
            onnx.emit("Mul", [x, x], node.tops)
        else:
            onnx.emit("Pow", [x, onnx.floats("power", self.power)], node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        factor = self.power * self.scale
        if factor == 0:
            return filled_like(onnx, diff, 0, "bottom_diff")
        if self.power == 1:
            return filled_like(onnx, diff, factor**2, "bottom_diff") if node.is_in_place else times(onnx, diff, factor)
        x = scaled_and_shifted(onnx, node.bottoms[0], self.scale, self.shift)
        # caffe: y / (shift + scale · x) for the power less one, so NaN where that is 0
        slope = x if self.power == 2 else onnx.op("Div", [node.tops[0], x], what="slope")
        if node.is_in_place:
            return squared(onnx, times(onnx, slope, factor, "factor_slope"))
        return times(onnx, times(onnx, diff, slope, "diff_slope"), factor)


def _c_pow(base: float, exponent: float) -> float:
    with np.errstate(all="ignore"):
        return float(np.power(np.float32(base), np.float32(exponent)))


@dataclass(frozen=True)
class Clip(Elementwise):
    """y = x clipped to min … max (caffe: clip_layer.cpp)."""

    low: float
    high: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.clip_param
        for name in ("min", "max"):
            if not p.HasField(name):
                raise LayerError(f"clip_param.{name} is required")
        return cls(p.min, p.max)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        low, high = onnx.floats("min", self.low), onnx.floats("max", self.high)
        if self.low <= self.high:
            onnx.emit("Clip", [node.bottoms[0], low, high], node.tops)
        else:  # caffe: the min is taken last, and so is what comes out; ONNX's Clip gives the max
            onnx.emit("Max", [onnx.op("Min", [node.bottoms[0], high], what="below_max"), low], node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        above = onnx.op("GreaterOrEqual", [node.bottoms[0], onnx.floats("min", self.low)], what="above_min")
        below = onnx.op("LessOrEqual", [node.bottoms[0], onnx.floats("max", self.high)], what="below_max")
        inside = onnx.op("And", [above, below], what="inside")
        return onnx.op("Where", [inside, diff, onnx.floats("zero", 0)], what="bottom_diff")


@dataclass(frozen=True)
class Swish(Elementwise):
    """y = x · sigmoid(beta · x) (caffe: swish_layer.cpp)."""

    keeps_bottoms: ClassVar[bool] = True

    beta: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(layer.proto.swish_param.beta)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Mul", [node.bottoms[0], self._gate(node, onnx)], node.tops)

    def _gate(self, node: Node, onnx: OnnxBuilder) -> str:
        return onnx.op("Sigmoid", [times(onnx, node.bottoms[0], self.beta, "scaled")])

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        part = times(onnx, node.tops[0], self.beta, "part")
        rest = onnx.op("Sub", [onnx.floats("one", 1), part], what="rest")
        gated = onnx.op("Mul", [self._gate(node, onnx), rest], what="gated_rest")
        return times(onnx, diff, onnx.op("Add", [part, gated], what="slope"))


@dataclass(frozen=True)
class Threshold(Elementwise):
    """y = 1 where x > threshold, else 0 (caffe: threshold_layer.cpp)."""

    is_discontinuous: ClassVar[bool] = True

    threshold: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(layer.proto.threshold_param.threshold)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        above = onnx.op("Greater", [node.bottoms[0], onnx.floats("threshold", self.threshold)])
        onnx.emit("Cast", [above], node.tops, to=1)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return refuse_all(propagate_down)


@dataclass(frozen=True)
class Dropout(Elementwise):
    """TEST: y = x. TRAIN: each element is kept, and grown by 1/(1-ratio), or made 0 (caffe: dropout_layer.cpp).

    `scale_train: false` (caffe-fast-rcnn) moves the factor: TEST: y = (1-ratio) · x; TRAIN: kept ones do not grow.
    `sample_weights_test: true` (SegNet): TEST drops as TRAIN does, so that several passes show how sure the net is.
    """

    ratio: float
    phase: Phase
    """The phase as which it acts."""
    scale_train: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.dropout_param
        phase: Phase = "TRAIN" if p.sample_weights_test else layer.phase
        if phase == "TRAIN" and not 0 <= p.dropout_ratio <= 1:
            raise LayerError(f"dropout_ratio is {p.dropout_ratio:g}; a value from 0 to 1 was needed (p >= 0, p <= 1)")
        return cls(p.dropout_ratio, phase, p.scale_train)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if self.is_identity(node):
            onnx.emit("Identity", node.bottoms, node.tops)
            return
        x, share = node.bottoms[0], onnx.floats("kept_share", 1 - self.ratio)
        if self.phase == "TEST":
            onnx.emit("Mul", [x, share], node.tops)
            return
        if self.ratio == 1:
            onnx.emit("Mul", [x, onnx.floats("factor", self._whole_factor)], node.tops)
            return
        onnx.keep("mask", f"{node.tops[0]}/mask")
        if onnx.stateful:
            self._lower_by_noise(node, onnx)
            return
        inputs = [x, onnx.floats("ratio", self.ratio), onnx.bools("training", True)]
        if self.scale_train:
            onnx.emit("Dropout", inputs, [*node.tops, onnx.kept("mask")])
        else:
            dropped = f"{node.tops[0]}/dropped"
            onnx.emit("Dropout", inputs, [dropped, onnx.kept("mask")])
            onnx.emit("Mul", [dropped, share], node.tops)

    def _lower_by_noise(self, node: Node, onnx: OnnxBuilder) -> None:
        """As ONNX's Dropout, whose generator nobody can set back: forward and backward pass need the same mask."""
        noise = onnx.uniform_noise("noise", node.top_shapes[0])
        onnx.emit("GreaterOrEqual", [noise, onnx.floats("ratio", self.ratio)], [onnx.kept("mask")])
        grown = times(onnx, node.bottoms[0], 1 / (1 - self.ratio) if self.scale_train else 1, "grown")
        onnx.emit("Where", [onnx.kept("mask"), grown, onnx.floats("dropped", 0)], node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        if self.phase == "TEST":
            return diff if self.scale_train else times(onnx, diff, 1 - self.ratio)
        if self.ratio == 1:
            return times(onnx, diff, self._whole_factor)
        grown = times(onnx, diff, 1 / (1 - self.ratio), "grown_diff") if self.scale_train else diff
        return onnx.op("Where", [onnx.kept("mask"), grown, onnx.floats("zero", 0)], what="bottom_diff")

    @property
    def _whole_factor(self) -> float:
        """By what all elements are multiplied where none is kept; caffe: 0 times 1/0, so NaN."""
        return math.nan if self.scale_train else 0.0

    def is_identity(self, node: Node) -> bool:
        return self.phase == "TEST" and self.scale_train

    @property
    def is_random(self) -> bool:
        return self.phase == "TRAIN"


@dataclass(frozen=True)
class Mish(Elementwise):
    """y = x · tanh(log(1 + exp x)) (darknet and its ports to Caffe: mish_layer.cpp)."""

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Mul", [node.bottoms[0], self._gate(node, onnx)], node.tops)

    def _gate(self, node: Node, onnx: OnnxBuilder) -> str:
        return onnx.op("Tanh", [onnx.op("Softplus", node.bottoms)], what="gate")

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        gate = self._gate(node, onnx)
        open_part = onnx.op("Sub", [onnx.floats("one", 1), onnx.op("Mul", [gate, gate])], what="open_part")
        gate_slope = onnx.op("Mul", [open_part, onnx.op("Sigmoid", node.bottoms)], what="gate_slope")
        moved_part = onnx.op("Mul", [node.bottoms[0], gate_slope], what="moved_part")
        return times(onnx, diff, onnx.op("Add", [gate, moved_part], what="slope"))
