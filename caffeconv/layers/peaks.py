"""Nms of OpenPose: where the maps of a body's parts are greatest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import FLOAT
from caffeconv.ir.layer import Gradients, Layer, Node
from caffeconv.layers.gradient_ops import refuse_all
from caffeconv.tensor.shape import Shapes, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

REACH = 3
"""How far around a peak its place is averaged."""


@dataclass(frozen=True)
class Nms(Layer):
    """The peaks of the first `num_parts` maps: places above the threshold and above all eight neighbours.

    Bottom N×C×H×W, top N×num_parts×(max_peaks + 1)×3. Row 0 begins with the number of all peaks; then come the first
    `max_peaks`, row by row of the map: x, y, score, or zeros. x and y are the mean of the 7×7 places around, weighted by
    scores above 0; of these only those from 1 to W - 1 count, for y too (caffe_rtpose: nms_layer.cu).
    """

    in_place: ClassVar[bool] = False
    computes_in_float32: ClassVar[bool] = True
    float32_tops: ClassVar[tuple[int, ...]] = (0,)
    tops_as_caffe: ClassVar[bool] = True
    is_discontinuous: ClassVar[bool] = True
    settings: ClassVar[str] = "nms_param"

    threshold: float
    parts: int
    most: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.nms_param
        for name in ("top_k", "axis", "iou_threshold"):
            if p.HasField(name):
                raise LayerError(
                    f"{name} is no field of OpenPose's Nms; threshold, max_peaks and num_parts were needed"
                )
        if p.num_parts < 1 or p.max_peaks < 1:
            raise LayerError(f"num_parts is {p.num_parts}, max_peaks {p.max_peaks}; both must be > 0")
        return cls(p.threshold, p.num_parts, p.max_peaks)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        shape = bottoms[0]
        if len(shape) != 4 or shape[1] < self.parts or min(shape[2:]) < 3 or shape[2] * shape[3] < self.most:
            raise LayerError(
                f"the bottom is {format_shape(shape)}; N×C×H×W with num_parts {self.parts} channels, 3×3 places and "
                f"max_peaks {self.most} places at least was needed"
            )
        if shape[2] < shape[3] and shape[1] == self.parts:
            raise LayerError(
                f"the bottom is {format_shape(shape)}, wider than high: the layer reads on into the next map there, and "
                f"the last of num_parts {self.parts} has none; one more channel was needed"
            )
        return [(shape[0], self.parts, self.most + 1, 3)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        places = int(np.prod(node.bottom_shapes[0][2:]))
        num = onnx.dims(node.bottoms[0])[0]
        maps = self._cut(onnx, node.bottoms[0], 1, 0, self.parts)
        peaks = onnx.reshape(self._peaks(onnx, maps), (num, self.parts, places), what="peaks")
        number = onnx.reduce("ReduceSum", peaks, [2], keepdims=True, what="number")
        # the first ones, row by row: those whose place, counted from the end, is greatest
        backwards = onnx.floats("places_backwards", np.arange(places, 0, -1))
        key = onnx.op("Mul", [peaks, backwards], what="key")
        best, order = onnx.ops("TopK", [key, onnx.ints("max_peaks", [self.most])], 2, what="first", axis=2)
        there = onnx.op("Cast", [onnx.op("Greater", [best, onnx.floats("zero", 0)])], to=FLOAT, what="there")
        values = []
        for value in (*self._means(node, onnx, maps), maps):
            flat = onnx.reshape(value, (num, self.parts, places), what="flat")
            values.append(onnx.op("GatherElements", [flat, order], axis=2, what="of_peak"))
        last = onnx.ints("last_axis", [3])
        columns = [onnx.op("Unsqueeze", [onnx.op("Mul", [value, there]), last], what="column") for value in values]
        rows = onnx.op("Concat", columns, axis=3, what="rows")
        number = onnx.op("Unsqueeze", [number, last], what="number")
        head = onnx.op("Pad", [number, onnx.ints("two_more", [0] * 7 + [2])], what="head")
        onnx.emit("Concat", [head, rows], node.tops, axis=2)

    def _cut(self, onnx: OnnxBuilder, value: str, axis: int, start: int, end: int) -> str:
        bounds = [onnx.ints(f"bound_{bound}", [bound]) for bound in (start, end, axis)]
        return onnx.op("Slice", [value, *bounds], what="cut")

    def _peaks(self, onnx: OnnxBuilder, maps: str) -> str:
        """1 where there is a peak, else 0: as the maps."""
        around = onnx.op("Pad", [maps, onnx.ints("frame", [0, 0, 1, 1] * 2)], what="framed")
        far = 2**31 - 1
        neighbours = []
        for row in range(3):
            rows = self._cut(onnx, around, 2, row, row - 2 or far)
            for column in range(3):
                if (row, column) != (1, 1):
                    neighbours.append(self._cut(onnx, rows, 3, column, column - 2 or far))
        greater = onnx.op("Greater", [maps, onnx.op("Max", neighbours, what="neighbours")], what="greater")
        high = onnx.op("Greater", [maps, onnx.floats("threshold", self.threshold)], what="high")
        inner = self._cut(onnx, self._cut(onnx, onnx.op("And", [greater, high], what="peak"), 2, 1, -1), 3, 1, -1)
        inner = onnx.op("Cast", [inner], to=FLOAT, what="inner")
        return onnx.op("Pad", [inner, onnx.ints("frame", [0, 0, 1, 1] * 2)], what="peaks")

    def _means(self, node: Node, onnx: OnnxBuilder, maps: str) -> tuple[str, str]:
        """x and y averaged around every place: N × parts × H × W each."""
        height, width = node.bottom_shapes[0][2:]
        more = min(max(width - height, 0), REACH)
        if more:  # the next map begins where this one ends
            following = self._cut(onnx, self._cut(onnx, node.bottoms[0], 1, 1, self.parts + 1), 2, 0, more)
            maps = onnx.op("Concat", [maps, following], axis=2, what="read_on")
        y, x = np.meshgrid(np.arange(height + more), np.arange(width), indexing="ij")
        counts = (x > 0) & (y > 0) & (y < width)
        weight = onnx.op("Mul", [onnx.op("Relu", [maps]), onnx.floats("counts", counts)], what="weight")
        rows = onnx.reshape(weight, (None, 1, height + more, width), what="weights")
        sums = []
        for what, factor in (("total", np.ones_like(x)), ("x", x), ("y", y)):
            value = onnx.op("Mul", [rows, onnx.floats(f"{what}_factor", factor)], what=what)
            kernel = onnx.floats("around", np.ones((1, 1, 2 * REACH + 1, 2 * REACH + 1)))
            pads = [REACH] * 4
            value = onnx.op("Conv", [value, kernel], what=f"{what}_sum", pads=pads, kernel_shape=[2 * REACH + 1] * 2)
            sums.append(self._cut(onnx, value, 2, 0, height))
        # where nothing is above 0 there is no peak, and a mean of 0 / 0 would not vanish
        whole = onnx.op(
            "Where", [onnx.op("Greater", [sums[0], onnx.floats("zero", 0)]), sums[0], onnx.floats("one", 1)]
        )
        return onnx.op("Div", [sums[1], whole], what="x_mean"), onnx.op("Div", [sums[2], whole], what="y_mean")

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return refuse_all(propagate_down)
