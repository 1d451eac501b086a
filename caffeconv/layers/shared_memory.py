"""What a layer in place leaves in the blobs that share its bottom's memory; no prototxt has such a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, exactly
from caffeconv.tensor.axis_order import AxisOrder
from caffeconv.tensor.shape import Shapes

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class SharedMemory(Layer):
    """The second bottom's values under the first one's shape.

    The first bottom is a blob as it was, the second what was written over it. Diffs pass by that write in Caffe: who reads
    the blob afterwards gives its diff to the blob itself.
    """

    bottoms: ClassVar[Arity] = exactly(2)
    only_moves_data: ClassVar[bool] = True
    stands_in_net: ClassVar[bool] = False
    without_diff: ClassVar[tuple[int, ...]] = (1,)

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls()

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return [bottoms[0]]

    def in_place_fault(self, bottoms: Shapes, tops: Shapes) -> str:
        return ""

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.reshape(node.bottoms[1], onnx.dims(node.tops[0]), to=node.tops[0])

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return Gradients((top_diffs[0], None))

    def as_convolution(self, node: Node, bottoms: Shapes) -> Node:
        return node  # whatever the two blobs' shapes have become, they hold equally many values

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        # values that were written in the other blob's order would have to be moved
        return [bottoms[0]] if node.bottom_shapes[0] == node.bottom_shapes[1] and bottoms[0] == bottoms[1] else None
