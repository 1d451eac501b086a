"""Layers that treat every element by itself, and Eltwise, which combines blobs of one shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from caffeconv.ir import LayerDef, Node, Phase, Shape, Shapes, by_x, shape_string
from caffeconv.layers.base import Arity, Layer, LayerError, at_least
from caffeconv.layers.filler import Filler

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.emit.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Elementwise(Layer):
    """One bottom, one top of the same shape."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls()

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return [bottoms[0]]


@dataclass(frozen=True)
class AbsVal(Elementwise):
    """y = |x| (caffe: absval_layer.cpp)."""

    in_place: ClassVar[bool] = False

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Abs", node.bottoms, node.tops)


@dataclass(frozen=True)
class BNLL(Elementwise):
    """y = log(1 + exp x) (caffe: bnll_layer.cpp)."""

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        # |x| keeps exp from overflowing, as Caffe's two branches do
        negative = onnx.op("Neg", [onnx.op("Abs", node.bottoms)])
        grown = onnx.op("Add", [onnx.op("Exp", [negative]), onnx.floats("one", 1)], what="grown")
        positive = onnx.op("Relu", node.bottoms)
        onnx.emit("Add", [positive, onnx.op("Log", [grown])], node.tops)


@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """y = 1 / (1 + exp -x) (caffe: sigmoid_layer.cpp)."""

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Sigmoid", node.bottoms, node.tops)


@dataclass(frozen=True)
class TanH(Elementwise):
    """y = tanh x (caffe: tanh_layer.cpp)."""

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Tanh", node.bottoms, node.tops)


@dataclass(frozen=True)
class ReLU(Elementwise):
    """y = max(x, 0) + negative_slope · min(x, 0) (caffe: relu_layer.cpp)."""

    negative_slope: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(layer.proto.relu_param.negative_slope)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if self.negative_slope == 0:
            onnx.emit("Relu", node.bottoms, node.tops)
        else:
            onnx.emit("LeakyRelu", node.bottoms, node.tops, alpha=self.negative_slope)


@dataclass(frozen=True)
class PReLU(Elementwise):
    """y = max(x, 0) + slope_c · min(x, 0); weight C, or a scalar with `channel_shared` (caffe: prelu_layer.cpp)."""

    channel_shared: bool
    filler: Filler

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.prelu_param
        return cls(p.channel_shared, Filler.parse(p.filler) if p.HasField("filler") else Filler(value=0.25))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if not 2 <= len(bottoms[0]) <= 4:
            raise LayerError(
                f"the bottom is {by_x(bottoms[0])}; Number of axes of bottom blob must be 2 to 4 "
                "(Cannot use legacy accessors on Blobs with > 4 axes.)"
            )
        return [bottoms[0]]

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        return {"slope": () if self.channel_shared else (bottoms[0][1],)}

    def fillers(self) -> Mapping[str, Filler]:
        return {"slope": self.filler}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        rank = len(node.bottom_shapes[0])
        # ONNX lines shapes up at their last axis, Caffe's slope belongs to axis 1
        shape = (1,) if self.channel_shared else (node.bottom_shapes[0][1], *([1] * (rank - 2)))
        onnx.emit("PRelu", [node.bottoms[0], onnx.weight("slope", shape)], node.tops)


@dataclass(frozen=True)
class ELU(Elementwise):
    """y = x for x > 0, else alpha · (exp x - 1) (caffe: elu_layer.cpp)."""

    alpha: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(layer.proto.elu_param.alpha)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Elu", node.bottoms, node.tops, alpha=self.alpha)


@dataclass(frozen=True)
class Exp(Elementwise):
    """y = base^(shift + scale · x); base -1 stands for e (caffe: exp_layer.cpp)."""

    inner: float
    outer: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.exp_param
        log_base = _log_base(p.base)
        return cls(log_base * p.scale, math.exp(log_base * p.shift))

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x = node.bottoms[0]
        if self.inner != 1:
            x = onnx.op("Mul", [x, onnx.floats("inner_scale", self.inner)], what="inner")
        if self.outer == 1:
            onnx.emit("Exp", [x], node.tops)
        else:
            onnx.emit("Mul", [onnx.op("Exp", [x]), onnx.floats("outer_scale", self.outer)], node.tops)


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


def _c_pow(base: float, exponent: float) -> float:
    import numpy as np

    with np.errstate(all="ignore"):
        return float(np.power(np.float32(base), np.float32(exponent)))


@dataclass(frozen=True)
class Clip(Elementwise):
    """y = x held between min and max (caffe: clip_layer.cpp)."""

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
        onnx.emit("Clip", [node.bottoms[0], onnx.floats("min", self.low), onnx.floats("max", self.high)], node.tops)


@dataclass(frozen=True)
class Swish(Elementwise):
    """y = x · sigmoid(beta · x) (caffe: swish_layer.cpp)."""

    beta: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(layer.proto.swish_param.beta)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        inner = node.bottoms[0]
        if self.beta != 1:
            inner = onnx.op("Mul", [inner, onnx.floats("beta", self.beta)], what="scaled")
        onnx.emit("Mul", [node.bottoms[0], onnx.op("Sigmoid", [inner])], node.tops)


@dataclass(frozen=True)
class Threshold(Elementwise):
    """y = 1 where x > threshold, else 0 (caffe: threshold_layer.cpp)."""

    threshold: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(layer.proto.threshold_param.threshold)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        above = onnx.op("Greater", [node.bottoms[0], onnx.floats("threshold", self.threshold)])
        onnx.emit("Cast", [above], node.tops, to=1)


@dataclass(frozen=True)
class Dropout(Elementwise):
    """TEST: y = x. TRAIN: each element is kept, and grown by 1/(1-ratio), or made 0 (caffe: dropout_layer.cpp).

    `scale_train: false` (caffe-fast-rcnn) moves the factor: TEST: y = (1-ratio) · x; TRAIN: kept ones do not grow.
    """

    ratio: float
    phase: Phase
    scale_train: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        ratio = layer.proto.dropout_param.dropout_ratio
        if not 0 < ratio < 1:
            raise LayerError(f"dropout_ratio is {ratio:g}; a value between 0 and 1 was needed")
        return cls(ratio, layer.phase, layer.proto.dropout_param.scale_train)

    def is_identity(self, node: Node) -> bool:
        return self.phase == "TEST" and self.scale_train

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if self.is_identity(node):
            onnx.emit("Identity", node.bottoms, node.tops)
            return
        x, kept = node.bottoms[0], onnx.floats("kept_share", 1 - self.ratio)
        dropped = [x, onnx.floats("ratio", self.ratio), onnx.bools("training", True)]
        if self.phase == "TEST":
            onnx.emit("Mul", [x, kept], node.tops)
        elif self.scale_train:
            onnx.emit("Dropout", dropped, node.tops)
        else:
            onnx.emit("Mul", [onnx.op("Dropout", dropped, what="dropped"), kept], node.tops)


@dataclass(frozen=True)
class Eltwise(Layer):
    """Product, weighted sum or greatest of two or more blobs of one shape (caffe: eltwise_layer.cpp)."""

    bottoms: ClassVar[Arity] = at_least(2)

    operation: str
    coefficients: tuple[float, ...]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.eltwise_param
        operation = p.EltwiseOp.Name(p.operation)
        if p.coeff and len(p.coeff) != len(layer.bottoms):
            raise LayerError(
                f"{len(p.coeff)} coeff for {len(layer.bottoms)} bottoms; Eltwise Layer takes one coefficient per bottom blob."
            )
        if p.coeff and operation == "PROD":
            raise LayerError("Eltwise layer only takes coefficients for summation.")
        return cls(operation, tuple(p.coeff) or (1.0,) * len(layer.bottoms))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        for i, bottom in enumerate(bottoms):
            if bottom != bottoms[0]:
                raise LayerError(
                    f"bottom[0]: {shape_string(bottoms[0])}, bottom[{i}]: {shape_string(bottom)}; "
                    "all bottoms must have one shape"
                )
        return [bottoms[0]]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if self.operation == "MAX":
            onnx.emit("Max", node.bottoms, node.tops)
        elif self.operation == "PROD":
            self._fold("Mul", node.bottoms, node, onnx)
        else:
            self._fold("Add", [self._term(i, onnx, bottom) for i, bottom in enumerate(node.bottoms)], node, onnx)

    def _term(self, index: int, onnx: OnnxBuilder, bottom: str) -> str:
        coefficient = self.coefficients[index]
        if coefficient == 1:
            return bottom
        return onnx.op("Mul", [bottom, onnx.floats(f"coeff{index}", coefficient)], what=f"term{index}")

    def _fold(self, op_type: str, terms: list[str] | tuple[str, ...], node: Node, onnx: OnnxBuilder) -> None:
        total = terms[0]
        for term in terms[1:-1]:
            total = onnx.op(op_type, [total, term], what="partial")
        onnx.emit(op_type, [total, terms[-1]], node.tops)
