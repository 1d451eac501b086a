"""Scale and Bias: products and sums along chosen axes (caffe: scale_layer.cpp, bias_layer.cpp)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, Settings, exactly
from caffeconv.layers.gradient_ops import like_bottom, sum_over
from caffeconv.layers.weight_layouts import along
from caffeconv.tensor.axis_order import AxisOrder
from caffeconv.tensor.param import Param
from caffeconv.tensor.shape import Dims, FloatArray, Shape, Shapes, canonical_axis, count, format_shape
from caffeconv.tensor.weight_array import WeightArrays

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class _AlongAxes(Layer):
    """A factor or summand laid along axes axis…axis+num_axes-1 of the bottom: a parameter, or the second bottom."""

    bottoms: ClassVar[Arity] = Arity(1, 2)
    is_pointwise: ClassVar[bool] = True
    word: ClassVar[str]

    axis: int
    num_axes: int
    filler: Filler
    second_bottom: bool

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        self.operand_shape(bottoms)
        return [bottoms[0]]

    def start(self, bottoms: Shapes) -> int:
        """The axis at which the operand starts; caffe takes 0 for an operand without axes."""
        if len(bottoms) > 1 and not bottoms[1]:
            return 0
        return canonical_axis(self.axis, len(bottoms[0]), bottoms[0])

    def operand_shape(self, bottoms: Shapes) -> Shape:
        x, axis = bottoms[0], self.start(bottoms)
        if len(bottoms) == 1:
            end = len(x) if self.num_axes == -1 else axis + self.num_axes
            if end > len(x):
                raise LayerError(
                    f"{self.word} blob's shape extends past bottom[0]'s shape when applied starting with bottom[0] "
                    f"axis = {axis} (num_axes {self.num_axes}, bottom of {len(x)} axes)"
                )
            return x[axis:end]
        operand = bottoms[1]
        if axis + len(operand) > len(x):
            raise LayerError(
                f"{self.word} blob's shape extends past bottom[0]'s shape when applied starting with bottom[0] axis = {axis}"
            )
        for i, dim in enumerate(operand):
            if x[axis + i] != dim:
                raise LayerError(
                    f"dimension mismatch between bottom[0]->shape({axis + i}) and {self.word}->shape({i}): "
                    f"{x[axis + i]} vs. {dim}"
                )
        return operand

    def is_per_channel(self, node: Node) -> bool:
        """Whether the operand is a value for each channel (axis 1)."""
        return self.start(node.bottom_shapes) == 1 and len(self.operand_shape(node.bottom_shapes)) == 1

    def is_spatially_uniform(self, node: Node) -> bool:
        return not self.second_bottom and self.axis == 1 and self.num_axes == 1

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays:
        start, names = self.start(node.bottom_shapes), {"scale": "gamma", "bias": "beta"}
        return WeightArrays(tuple(along(node, param, names[param.name], start, bottoms[0]) for param in node.params))

    def lined_up(self, shape: Dims, bottoms: Shapes) -> Dims:
        """The operand's shape with ones after it, since ONNX lines shapes up at their last axis."""
        return (*shape, *([1] * (len(bottoms[0]) - self.start(bottoms) - len(shape))))

    def operand(self, node: Node, onnx: OnnxBuilder, name: str) -> str:
        """The operand in a shape that broadcasts."""
        if not self.second_bottom:
            shape = self.lined_up(self.operand_shape(node.bottom_shapes), node.bottom_shapes)
            return onnx.weight(name, onnx.fixed(shape, "a parameter's shape"))
        dims = onnx.dims(node.bottoms[1])
        lined_up = self.lined_up(dims, node.bottom_shapes)
        return node.bottoms[1] if lined_up == dims else onnx.reshape(node.bottoms[1], lined_up, what=name)

    def operand_diff(self, node: Node, onnx: OnnxBuilder, diff: str, what: str) -> str:
        """A diff shaped as bottom[0], summed over the axes along which the operand is repeated."""
        rank, start = len(node.bottom_shapes[0]), self.start(node.bottom_shapes)
        end = start + len(self.operand_shape(node.bottom_shapes))
        return sum_over(onnx, diff, [*range(start), *range(end, rank)], what)

    @classmethod
    def implied_channels(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> int | None:
        return stored[0][0] if stored and len(stored[0]) == 1 else None


@dataclass(frozen=True)
class Bias(_AlongAxes):
    """y = x + b, b laid along axes `axis`… ; `num_axes` -1: to the last, 0: one number."""

    param_axes: ClassVar[Mapping[str, str]] = {"bias": "channels"}
    settings: ClassVar[str] = "bias_param"
    word: ClassVar[str] = "bias"

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.bias_param
        return cls(p.axis, p.num_axes, Filler.parse(p.filler), len(layer.bottoms) > 1)

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        return {} if self.second_bottom else {"bias": self.operand_shape(bottoms)}

    def fillers(self) -> Mapping[str, Filler]:
        return {"bias": self.filler}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Add", [node.bottoms[0], self.operand(node, onnx, "bias")], node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        bias_diff = self.operand_diff(node, onnx, top_diffs[0], "bias_diff")
        if self.second_bottom:
            return Gradients((top_diffs[0], bias_diff))
        return Gradients(top_diffs, {"bias": bias_diff})

    def channel_affine(self, node: Node) -> tuple[FloatArray, FloatArray] | None:
        if self.second_bottom or not self.is_per_channel(node):
            return None
        bias = node.param("bias").array()
        return np.ones_like(bias), bias

    def factor_and_summand(self, node: Node) -> tuple[Param | None, Param | None] | None:
        if self.second_bottom or not self.is_per_channel(node):
            return None
        return None, node.param("bias")


@dataclass(frozen=True)
class Scale(_AlongAxes):
    """y = a · x (+ b), a and b laid along axes `axis`… ; `num_axes` -1: to the last, 0: one number."""

    keeps_bottoms: ClassVar[bool] = True
    param_axes: ClassVar[Mapping[str, str]] = {"scale": "channels", "bias": "channels"}
    settings: ClassVar[str] = "scale_param"
    word: ClassVar[str] = "scale"

    bias: bool
    bias_filler: Filler

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.scale_param
        filler = Filler.parse(p.filler) if p.HasField("filler") else Filler(value=1.0)
        return cls(p.axis, p.num_axes, filler, len(layer.bottoms) > 1, p.bias_term, Filler.parse(p.bias_filler))

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        shape = self.operand_shape(bottoms)
        scale = {} if self.second_bottom else {"scale": shape}
        return {**scale, "bias": shape} if self.bias else scale

    def fillers(self) -> Mapping[str, Filler]:
        return {"scale": self.filler, "bias": self.bias_filler}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        inputs = [node.bottoms[0], self.operand(node, onnx, "scale")]
        if not self.bias:
            onnx.emit("Mul", inputs, node.tops)
            return
        shape = self.lined_up(node.param("bias").shape, node.bottom_shapes)
        bias = onnx.weight("bias", onnx.fixed(shape, "a parameter's shape"))
        onnx.emit("Add", [onnx.op("Mul", inputs), bias], node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        diff = onnx.op("Mul", [top_diffs[0], self.operand(node, onnx, "scale")], what="bottom_diff")
        product = onnx.op("Mul", [top_diffs[0], node.bottoms[0]], what="diff_x")
        scale_diff = self.operand_diff(node, onnx, product, "scale_diff")
        params = {"bias": self.operand_diff(node, onnx, top_diffs[0], "bias_diff")} if self.bias else {}
        if self.second_bottom:
            return Gradients((diff, scale_diff), params)
        overwritten = frozenset(("scale",) if self._overwrites(node) else ())
        return Gradients((diff,), {"scale": scale_diff, **params}, overwritten)

    def _overwrites(self, node: Node) -> bool:
        """Whether Caffe forgets the diff that the scale has had before: it is written to directly then."""
        bottom, operand = node.bottom_shapes[0], self.operand_shape(node.bottom_shapes)
        start = self.start(node.bottom_shapes)
        outer, inner = count(bottom, 0, start), count(bottom, start + len(operand))
        return count(bottom) == count(operand) or (outer == 1 and inner > 1 and count(operand) > 1)

    def channel_affine(self, node: Node) -> tuple[FloatArray, FloatArray] | None:
        if self.second_bottom or not self.is_per_channel(node):
            return None
        scale = node.param("scale").array()
        return scale, node.param("bias").array() if self.bias else np.zeros_like(scale)

    def factor_and_summand(self, node: Node) -> tuple[Param | None, Param | None] | None:
        if self.second_bottom or not self.is_per_channel(node):
            return None
        return node.param("scale"), node.param("bias") if self.bias else None

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(tops[0])

    @classmethod
    def implied_settings(cls, layer: LayerDef, bottoms: Shapes, stored: Shapes) -> Sequence[Settings]:
        return ({"bias_term": len(stored) > len(bottoms) % 2},)


@dataclass(frozen=True)
class Axpy(Layer):
    """top = a · x + y, a number a for each channel of each picture (SENet: axpy_layer.cpp).

    Bottoms: a N×C (or N×C×1×1), x N×C×…, y as x.
    """

    bottoms: ClassVar[Arity] = exactly(3)
    in_place: ClassVar[bool] = False

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls()

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        factor, x, y = bottoms
        if x != y:
            raise LayerError(
                f"x (bottom[1]) is {format_shape(x)}, y (bottom[2]) is {format_shape(y)}; one shape was needed"
            )
        if len(x) < 2 or factor[:2] != x[:2] or count(factor, 2) != 1:
            raise LayerError(
                f"a (bottom[0]) is {format_shape(factor)}, x (bottom[1]) is {format_shape(x)}; for a "
                f"{format_shape(x[:2])}, one number for "
                "each channel, was needed"
            )
        return [x]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        _, x, y = node.bottoms
        onnx.emit("Add", [onnx.op("Mul", [self._factor(node, onnx), x], what="scaled"), y], node.tops)

    def _factor(self, node: Node, onnx: OnnxBuilder) -> str:
        factor = node.bottoms[0]
        spread = (*onnx.dims(factor)[:2], *([1] * (len(node.bottom_shapes[1]) - 2)))
        return factor if spread == onnx.dims(factor) else onnx.reshape(factor, spread, what="factor")

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        product = onnx.op("Mul", [top_diffs[0], node.bottoms[1]], what="diff_x")
        total = sum_over(onnx, product, range(2, len(node.bottom_shapes[1])), "factor_diff")
        factor_diff = like_bottom(onnx, node, total, shape=node.bottom_shapes[1][:2])
        x_diff = onnx.op("Mul", [top_diffs[0], self._factor(node, onnx)], what="x_diff")
        return Gradients((factor_diff, x_diff, top_diffs[0]))

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(tops[0])
