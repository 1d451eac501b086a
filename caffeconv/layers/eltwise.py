"""Sums, products and maxima of blobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from caffeconv.errors import Diagnostic, LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, at_least
from caffeconv.layers.gradient_ops import squared, times
from caffeconv.tensor.shape import Shape, Shapes, shape_string

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Eltwise(Layer):
    """Product, weighted sum or greatest of two or more blobs of one shape (caffe: eltwise_layer.cpp)."""

    bottoms: ClassVar[Arity] = at_least(2)
    is_pointwise: ClassVar[bool] = True

    operation: str
    coefficients: tuple[float, ...]
    stable_prod_grad: bool
    """Whether the gradient of a product multiplies the other bottoms, and not divides the top by the bottom."""

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
        return cls(operation, tuple(p.coeff) or (1.0,) * len(layer.bottoms), p.stable_prod_grad)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        for i, bottom in enumerate(bottoms):
            if bottom != bottoms[0]:
                raise LayerError(
                    f"bottom[0]: {shape_string(bottoms[0])}, bottom[{i}]: {shape_string(bottom)}; "
                    "all bottoms must have one shape"
                )
        return [bottoms[0]]

    def lint(self, node: Node, sources: Sequence[Node | None]) -> Sequence[Diagnostic]:
        if not (node.is_in_place and self.operation == "SUM"):
            return ()
        blob = node.definition.tops[0]
        message = (
            f"its sum is written into its own bottom '{blob}', which Caffe makes 0 first: '{blob}' is left out of it"
        )
        return [Diagnostic("warning", node.definition.where, message, "Give the sum a top of its own.", node.name)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        for i, bottom in enumerate(node.bottoms):
            onnx.keep(f"bottom{i}", bottom)
        if self.operation == "MAX":
            onnx.emit("Max", node.bottoms, node.tops)
        elif self.operation == "PROD":
            self._fold("Mul", node.bottoms, node, onnx)
        else:
            terms = [self._term(i, onnx, bottom) for i, bottom in enumerate(node.bottoms)]
            # caffe: the top is made 0 before anything is added, and in place it is the first bottom
            self._fold("Add", terms[1:] if node.is_in_place else terms, node, onnx)

    def _term(self, index: int, onnx: OnnxBuilder, bottom: str) -> str:
        coefficient = self.coefficients[index]
        if coefficient == 1:
            return bottom
        return onnx.op("Mul", [bottom, onnx.floats(f"coeff{index}", coefficient)], what=f"term{index}")

    def _fold(self, op_type: str, terms: Sequence[str], node: Node, onnx: OnnxBuilder) -> None:
        if len(terms) == 1:
            onnx.emit("Identity", terms, node.tops)
            return
        total = terms[0]
        for term in terms[1:-1]:
            total = onnx.op(op_type, [total, term], what="partial")
        onnx.emit(op_type, [total, terms[-1]], node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        diff, factors = top_diffs[0], self._factors(node, onnx)
        diffs = []
        for i, factor in enumerate(factors):
            # caffe: in place the first bottom's diff is the top's, so that a product meets itself there …
            if i == 0 and node.is_in_place and self.operation == "PROD":
                diffs.append(squared(onnx, str(factor)))
            else:
                diffs.append(times(onnx, diff, factor))
            if node.is_in_place and propagate_down[0]:  # … and the other bottoms find it in place of the top's
                diff = diffs[0]
        return Gradients(diffs)

    def _factors(self, node: Node, onnx: OnnxBuilder) -> Sequence[str | float]:
        """By what the top's diff is multiplied for each bottom's."""
        if self.operation == "SUM":
            return self.coefficients
        if self.operation == "PROD":
            return self._others(node, onnx)
        bottoms = [onnx.kept(f"bottom{i}") for i in range(len(node.bottoms))]
        return [onnx.op("Cast", [wins], what="wins", to=1) for wins in self._greatest(bottoms, onnx)]

    def _others(self, node: Node, onnx: OnnxBuilder) -> list[str]:
        """By what each bottom was multiplied."""
        if not self.stable_prod_grad:
            return [onnx.op("Div", [node.tops[0], bottom], what="others") for bottom in node.bottoms]
        factors = []
        for i in range(len(node.bottoms)):
            first, *rest = (bottom for j, bottom in enumerate(node.bottoms) if j != i)
            for other in rest:
                first = onnx.op("Mul", [first, other], what="others")
            factors.append(first)
        return factors

    def _greatest(self, bottoms: Sequence[str], onnx: OnnxBuilder) -> list[str]:
        """Where each bottom is the greatest, boolean; of equal ones, the second of the first two, else the earliest."""
        first, second, *rest = bottoms
        wins = [onnx.op("Greater", [first, second], what="wins")]  # caffe: only a greater first bottom wins
        wins.append(onnx.op("Not", wins, what="wins"))
        greatest = onnx.op("Max", [first, second], what="greatest")
        for bottom in rest:
            beats = onnx.op("Greater", [bottom, greatest], what="beats")
            stays = onnx.op("Not", [beats], what="stays")
            wins = [*(onnx.op("And", [won, stays], what="wins") for won in wins), beats]
            greatest = onnx.op("Max", [greatest, bottom], what="greatest")
        return wins

    def is_spatially_uniform(self, node: Node) -> bool:
        return True

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        models = dict.fromkeys(bottoms)
        return [{i: model for i, bottom in enumerate(bottoms) if bottom != model} for model in models]
