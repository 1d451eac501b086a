"""SeLU in its forks, and the dropout that goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Node
from caffeconv.layers.activations import Elementwise
from caffeconv.layers.gradient_ops import times

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

SELU_ALPHA, SELU_LAMBDA = 1.6732632423543772, 1.0507009873554805


@dataclass(frozen=True)
class SeLu(Elementwise):
    """y = λ · x for x > 0, else λ · α · (exp x - 1); λ 1.0507…, α 1.6733… (py-RFCN-priv: selu_layer.cpp)."""

    scale: float = SELU_LAMBDA
    alpha: float = SELU_ALPHA

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Selu", node.bottoms, node.tops, alpha=self.alpha, gamma=self.scale)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        # by the top, as ELU's: λ·α·exp x = y + λ·α
        curve = onnx.op("Add", [node.tops[0], onnx.floats("depth", self.scale * self.alpha)], what="curve")
        positive = onnx.op("Greater", [node.bottoms[0], onnx.floats("zero", 0)], what="positive")
        slope = onnx.op("Where", [positive, onnx.floats("lambda", self.scale), curve], what="slope")
        return times(onnx, diff, slope)


@dataclass(frozen=True)
class SeLU(SeLu):
    """The same, with λ and α of selu_param (Synopsys: selu_layer.cpp)."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.selu_param
        return cls(getattr(p, "lambda"), p.alpha)


@dataclass(frozen=True)
class SeLuDropout(Elementwise):
    """TEST: y = x. TRAIN, where elements become the least value of SELU at random, is refused (deepdetect, Synopsys)."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        if layer.phase != "TEST":
            raise LayerError(
                "SeLuDropout in TRAIN is not known; `phase='TEST'`, where it copies its bottom, was needed"
            )
        return cls()

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Identity", node.bottoms, node.tops)

    def bottom_diff(self, node: Node, onnx: OnnxBuilder, diff: str) -> str:
        return diff

    def is_identity(self, node: Node) -> bool:
        return True
