"""Sums, differences, products and quotients that broadcast, and products of pairs: Add, Sub, Mul, Div, ChannelScale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, exactly
from caffeconv.layers.gradient_ops import like_bottom, sum_over, times
from caffeconv.tensor.axis_order import AxisOrder
from caffeconv.tensor.shape import Shape, Shapes, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

Operator = Literal["Add", "Sub", "Mul", "Div"]


@dataclass(frozen=True)
class BroadcastArithmetic(Layer):
    """Two blobs, of shapes aligned at the last axis and broadcast as numpy does (Synopsys: mul_layer.cpp and its kin).

    With one bottom the other operand is a parameter of the shape `mul_shape` (`add_shape`, …), empty for a number.
    """

    bottoms: ClassVar[Arity] = Arity(1, 2)
    operator: ClassVar[Operator]

    operand_shape: Shape | None
    """The parameter's shape; None: the second bottom is the operand."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        field = f"{cls.operator.lower()}_shape"
        message = getattr(layer.proto, f"{cls.operator.lower()}_param")
        shape = tuple(int(dim) for dim in getattr(message, field))
        if len(layer.bottoms) == 2:
            if shape:
                raise LayerError(f"a second bottom and {field}; one of them was needed to say the second operand")
            return cls(None)
        return cls(shape)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return [_broadcast(bottoms[0], self._operand(bottoms))]

    def _operand(self, bottoms: Shapes) -> Shape:
        return bottoms[1] if self.operand_shape is None else self.operand_shape

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        return {} if self.operand_shape is None else {"operand": self.operand_shape}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit(self.operator, [node.bottoms[0], self._second(node, onnx)], node.tops)

    def _second(self, node: Node, onnx: OnnxBuilder) -> str:
        return node.bottoms[1] if self.operand_shape is None else onnx.weight("operand")

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        first, second = self._operand_diffs(node, onnx, top_diffs[0])
        top, operand = node.top_shapes[0], self._operand(node.bottom_shapes)
        bottom_diff = _summed(onnx, first, top, node.bottom_shapes[0], "bottom_diff")
        operand_diff = _summed(onnx, second, top, operand, "operand_diff")
        if self.operand_shape is None:
            return Gradients((bottom_diff, operand_diff))
        return Gradients((bottom_diff,), {"operand": operand_diff})

    def _operand_diffs(self, node: Node, onnx: OnnxBuilder, diff: str) -> tuple[str, str]:
        """The diffs of both operands, shaped as the top."""
        if self.operator == "Add":
            return diff, diff
        if self.operator == "Sub":
            return diff, onnx.op("Neg", [diff], what="negative_diff")
        second = self._second(node, onnx)
        if self.operator == "Mul":
            return times(onnx, diff, second, "first_diff"), times(onnx, diff, node.bottoms[0], "second_diff")
        share = onnx.op("Div", [diff, second], what="first_diff")
        change = onnx.op("Neg", [onnx.op("Mul", [share, node.tops[0]], what="change")], what="second_diff")
        return share, change

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        return None


def _broadcast(first: Shape, second: Shape) -> Shape:
    axes = max(len(first), len(second))
    pairs = zip((1,) * (axes - len(first)) + first, (1,) * (axes - len(second)) + second, strict=True)
    sizes = []
    for a, b in pairs:
        if a != b and 1 not in (a, b):
            raise LayerError(
                f"the operands are {format_shape(first)} and {format_shape(second)}, aligned at the last axis; "
                "sizes that are equal, or 1, were needed"
            )
        sizes.append(b if a == 1 else a)
    return tuple(sizes)


def _summed(onnx: OnnxBuilder, diff: str, shape: Shape, operand: Shape, what: str) -> str:
    """The diff of a broadcast operand: `diff`, of `shape`, summed where the operand was repeated."""
    before = len(shape) - len(operand)
    repeated = [i for i, size in enumerate(operand) if size == 1 and shape[before + i] != 1]
    if repeated:
        axes = [before + i for i in repeated]
        diff = onnx.reduce("ReduceSum", diff, axes, keepdims=True, what=what)
    return sum_over(onnx, diff, list(range(before)), what)


@dataclass(frozen=True)
class Add(BroadcastArithmetic):
    """The sum of two blobs that broadcast, or of a blob and a parameter of the shape `add_shape` (Synopsys)."""

    operator: ClassVar[Operator] = "Add"


@dataclass(frozen=True)
class Sub(BroadcastArithmetic):
    """The first blob less the second, which broadcast, or less a parameter of the shape `sub_shape` (Synopsys)."""

    operator: ClassVar[Operator] = "Sub"


@dataclass(frozen=True)
class Mul(BroadcastArithmetic):
    """The product of two blobs that broadcast, or of a blob and a parameter of the shape `mul_shape` (Synopsys)."""

    operator: ClassVar[Operator] = "Mul"


@dataclass(frozen=True)
class Div(BroadcastArithmetic):
    """The first blob by the second, which broadcast, or by a parameter of the shape `div_shape` (Synopsys)."""

    operator: ClassVar[Operator] = "Div"


@dataclass(frozen=True)
class ChannelScale(Layer):
    """y[n, c, place] = x[n, c, place] · factor[n, place] (happynear's caffe-windows: channel_scale_layer.cpp).

    Bottoms: x N×C×…, and the factors, as many as x has values in a channel. `global_scale` multiplies by one number
    instead, the parameter, held to min_global_scale…max_global_scale; a second top is that number.
    `do_forward: false` copies x.
    """

    bottoms: ClassVar[Arity] = exactly(2)
    tops: ClassVar[Arity] = Arity(1, 2)

    forward: bool
    global_range: tuple[float, float] | None
    """The least and the greatest number that `global_scale` multiplies by; None: the second bottom has the factors."""
    tells_scale: bool
    """Whether a second top is the global scale."""
    scales_diff: bool
    """Whether the bottom's diff is that of the top times the factors, or a copy of it."""
    factors_learn: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.channel_scale_param
        if len(layer.tops) == 2 and not (p.global_scale and p.do_forward):
            raise LayerError(
                "a second top is the global scale; `global_scale: true` and `do_forward: true` were needed"
            )
        limits = (p.min_global_scale, p.max_global_scale) if p.global_scale else None
        return cls(p.do_forward, limits, len(layer.tops) == 2, p.do_backward_feature, p.do_backward_scale)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x, factors = bottoms
        if len(x) < 2 or factors[:1] != x[:1] or count(x, 0, 1) * count(x, 2) != count(factors):
            raise LayerError(
                f"the bottoms are {format_shape(x)} and {format_shape(factors)}; a factor for each place of each item "
                "of the first was needed"
            )
        return [x, (1,)] if self.tells_scale else [x]

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        return {} if self.global_range is None else {"scale": (1,)}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if not self.forward:
            onnx.emit("Identity", node.bottoms[:1], node.tops[:1])
            return
        onnx.emit("Mul", [node.bottoms[0], self._factor(node, onnx)], node.tops[:1])
        if len(node.tops) == 2:
            onnx.emit("Identity", [self._factor(node, onnx)], node.tops[1:])

    def _factor(self, node: Node, onnx: OnnxBuilder) -> str:
        if self.global_range is not None:
            least, most = self.global_range
            capped = onnx.op("Min", [onnx.weight("scale"), onnx.floats("most", most)], what="capped")
            return onnx.op("Max", [capped, onnx.floats("least", least)], what="scale_in_range")
        return self._factors(node, onnx)

    def _factors(self, node: Node, onnx: OnnxBuilder) -> str:
        batch, _, *places = onnx.dims(node.bottoms[0])
        return onnx.reshape(node.bottoms[1], (batch, 1, *places), what="factors")

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        # whatever the top is made of, the fork goes backward through x times the second bottom
        diff = times(onnx, top_diffs[0], self._factors(node, onnx)) if self.scales_diff else top_diffs[0]
        if not self.factors_learn:
            return Gradients((diff, None))
        change = onnx.op("Mul", [top_diffs[0], node.bottoms[0]], what="changes")
        factor_diff = sum_over(onnx, change, [1], "factor_diff")
        x = node.bottom_shapes[0]
        return Gradients((diff, like_bottom(onnx, node, factor_diff, 1, shape=(x[0], *x[2:]))))


@dataclass(frozen=True)
class Pairwise(Layer):
    """All pairs of items of two blobs: M×K and N×K → M×N×K (happynear's caffe-windows: pairwise_layer.cpp).

    SUM weighs them by `coeff`, PROD multiplies, MAX takes the greater.
    """

    bottoms: ClassVar[Arity] = exactly(2)
    in_place: ClassVar[bool] = False

    operation: str
    coefficients: tuple[float, ...]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.pairwise_param
        if p.coeff and len(p.coeff) != 2:
            raise LayerError(
                f"{len(p.coeff)} coeff for 2 bottoms; Pairwise Layer takes one coefficient per bottom blob."
            )
        operation = p.PairwiseOp.Name(p.operation)
        if p.coeff and operation == "PROD":
            raise LayerError("Pairwise layer only takes coefficients for summation.")
        return cls(operation, tuple(p.coeff) or (1.0, 1.0))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        for bottom in bottoms:
            if len(bottom) < 2 or count(bottom, 2) != 1 or bottom[1] != bottoms[0][1]:
                raise LayerError(
                    f"the bottoms are {format_shape(bottoms[0])} and {format_shape(bottoms[1])}; M×K and N×K were needed"
                )
        return [(bottoms[0][0], bottoms[1][0], bottoms[0][1])]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        first, second = self._spread(node, onnx)
        if self.operation == "SUM":
            first = times(onnx, first, self.coefficients[0], "first_term")
            second = times(onnx, second, self.coefficients[1], "second_term")
        onnx.emit({"SUM": "Add", "PROD": "Mul", "MAX": "Max"}[self.operation], [first, second], node.tops)

    def _spread(self, node: Node, onnx: OnnxBuilder) -> tuple[str, str]:
        """The bottoms as M×1×K and 1×N×K."""
        k = node.bottom_shapes[0][1]
        first = onnx.reshape(node.bottoms[0], (onnx.dims(node.bottoms[0])[0], 1, k), what="first")
        second = onnx.reshape(node.bottoms[1], (1, onnx.dims(node.bottoms[1])[0], k), what="second")
        return first, second

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        first, second = self._spread(node, onnx)
        diff = top_diffs[0]
        if self.operation == "SUM":
            parts = times(onnx, diff, self.coefficients[0], "f"), times(onnx, diff, self.coefficients[1], "s")
        elif self.operation == "PROD":
            parts = times(onnx, diff, second, "first_part"), times(onnx, diff, first, "second_part")
        else:
            wins, zero = onnx.op("Greater", [first, second], what="wins"), onnx.floats("zero", 0)
            parts = (
                onnx.op("Where", [wins, diff, zero], what="first_part"),
                onnx.op("Where", [wins, zero, diff], what="second_part"),
            )
        m, n, k = node.top_shapes[0]
        sums = sum_over(onnx, parts[0], [1], "first_diff"), sum_over(onnx, parts[1], [0], "second_diff")
        shapes = (m, k), (n, k)
        return Gradients([like_bottom(onnx, node, sums[i], i, shape=shapes[i]) for i in (0, 1)])
