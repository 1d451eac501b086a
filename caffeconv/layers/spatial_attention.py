"""PointwiseSpatialAttention: every place gathers from, or hands out to, all others (PSANet)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Layer, Node, exactly
from caffeconv.tensor.shape import Shape, Shapes, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class PointwiseSpatialAttention(Layer):
    """Sums over places, weighted by a mask that each place has of its surroundings (PSANet: hszhao/PSANet).

    Bottoms: x N×C×H×W; mask N×(mh·mw)×H×W, whose channel i·mw + j at the place p belongs to the place
    p + (i - (mh-1)/2, j - (mw-1)/2) = q. COLLECT: top[p] = Σ x[q]·mask_p(q); DISTRIBUTE: top[q] = Σ x[p]·mask_p(q).
    With is_softmax the weights of one place of the top go through a softmax, 0 where the mask does not reach; all is
    divided by normalization_factor, mh·mw by default. mh×mw is (2H-1)×(2W-1) unless said.
    """

    bottoms: ClassVar[Arity] = exactly(2)
    in_place: ClassVar[bool] = False

    mask: tuple[int, int] | None
    """Height and width; None: all places."""
    collects: bool
    softmax: bool
    divisor: float | None

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.pointwise_spatial_attention_param
        height, width = p.HasField("attention_mask_height"), p.HasField("attention_mask_width")
        mask = (p.attention_mask_height, p.attention_mask_width) if height and width else None
        if height != width:
            raise LayerError("attention_mask_height and attention_mask_width: both or none were needed")
        if mask is not None and any(size % 2 == 0 or size == 1 for size in mask):
            raise LayerError(f"the mask is {format_shape(mask)} (height × width); odd numbers above 1 were needed")
        divisor = p.normalization_factor if p.HasField("normalization_factor") else None
        if divisor == 0:
            raise LayerError("normalization_factor is 0; the sums are divided by it")
        return cls(mask, p.psa_type == p.COLLECT, p.is_softmax, divisor)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        x, mask = bottoms
        if len(x) != 4:
            raise LayerError(f"the bottom is {format_shape(x)}; N×C×H×W was needed")
        needed = (x[0], count(self._mask_size(x)), *x[2:])
        if mask != needed:
            raise LayerError(
                f"the mask is {format_shape(mask)}; {format_shape(needed)} was needed, a channel for each place of "
                f"{format_shape(self._mask_size(x))} around one"
            )
        return [x]

    def _mask_size(self, x: Shape) -> tuple[int, int]:
        return self.mask or (2 * x[2] - 1, 2 * x[3] - 1)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        num, channels, height, width = onnx.dims(node.bottoms[0])
        size = onnx.fixed((height, width), "attention over all places needs to know how many there are")
        mask_size, places = self._mask_size(node.bottom_shapes[0]), count(size)
        weights = self._weights(node, onnx, size, mask_size)
        if self.softmax:
            weights = onnx.op("Softmax", [weights], axis=1, what="shares")
        x = onnx.reshape(node.bottoms[0], (num, channels, places), what="flat")
        total = onnx.op("MatMul", [x, weights], what="total")
        divisor = count(mask_size) if self.divisor is None else self.divisor
        if divisor != 1:
            total = onnx.op("Div", [total, onnx.floats("normalization_factor", divisor)], what="normalized")
        onnx.reshape(total, onnx.dims(node.tops[0]), to=node.tops[0])

    def _weights(self, node: Node, onnx: OnnxBuilder, size: Shape, mask_size: Shape) -> str:
        """N × places of x × places of the top: what the first counts in the second; 0 where the mask does not reach."""
        (height, width), places = size, count(size)
        flat = onnx.reshape(node.bottoms[1], (onnx.dims(node.bottoms[1])[0], count(mask_size) * places), what="mask")
        rows, columns = (_reach(own, whole, collects=self.collects) for own, whole in zip(size, mask_size, strict=True))
        # place of x (row, column), place of the top (row, column): small factors, which broadcasting makes large
        row_start = rows[0].reshape(height, 1, height, 1) * mask_size[1] * places
        column_start = columns[0].reshape(1, width, 1, width) * places
        owner = np.arange(places).reshape((1, 1, *size) if self.collects else (*size, 1, 1))
        index = onnx.op("Add", [onnx.ints("rows", row_start), onnx.ints("columns", column_start)], what="channel")
        index = onnx.op("Add", [index, onnx.ints("owner", owner)], what="index")
        index = onnx.reshape(index, (places * places,), what="index")
        weights = onnx.op("Gather", [flat, index], axis=1, what="weights")
        weights = onnx.reshape(weights, (onnx.dims(node.bottoms[1])[0], places, places), what="weights")
        if rows[1].all() and columns[1].all():
            return weights
        high, wide = rows[1].reshape(height, 1, height, 1), columns[1].reshape(1, width, 1, width)
        reached = onnx.op(
            "And", [onnx.bools("rows_reached", high), onnx.bools("columns_reached", wide)], what="reached"
        )
        reached = onnx.reshape(reached, (places, places), what="reached")
        return onnx.op("Where", [reached, weights, onnx.floats("nothing", 0)], what="weights")

    @property
    def mixes_positions(self) -> bool:
        return True

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(bottoms[0]) * count(bottoms[0], 2)


def _reach(size: int, mask: int, *, collects: bool) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Along one axis, for the places of x × those of the top: the mask's place, and whether there is one."""
    x, top = np.arange(size)[:, None], np.arange(size)[None, :]
    place = (x - top if collects else top - x) + (mask - 1) // 2
    return np.clip(place, 0, mask - 1), (place >= 0) & (place < mask)
