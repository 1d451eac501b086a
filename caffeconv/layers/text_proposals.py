"""CTPN's text proposals, a layer in Python, by the rule of its code (tianzhi0549/CTPN: text_proposal_layer.py, anchor.py)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Gradients, Node, exactly
from caffeconv.layers.proposals import StrideInParamStr
from caffeconv.tensor.shape import FloatArray, Shapes, count, format_shape

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

HEIGHTS = (11, 16, 23, 33, 48, 68, 97, 139, 198, 283)
"""Of the anchors at each place, all 16 wide."""
_STRIDE = re.compile(r"""^\s*\{?\s*['"]?feat_stride['"]?\s*:\s*(\d+)\s*,?\s*\}?\s*$""")


@dataclass(frozen=True)
class TextProposal(StrideInParamStr):
    """A box for each anchor, moved and grown up and down alone, and held to the picture; none is thinned.

    Bottoms: scores 1×20×H×W, of which the last ten are the text's; offsets 1×20×H×W, (dy, log dh) for each anchor; im_info
    (height, width, …). Tops: boxes R×4 (x1, y1, x2, y2) and scores R×1, R = 10·H·W, place by place. Anchors are whole
    numbers: half a height is rounded down (Python 2), and coordinates toward zero.
    """

    bottoms: ClassVar[Arity] = exactly(3)
    tops: ClassVar[Arity] = exactly(2)
    in_place: ClassVar[bool] = False
    computes_in_float32: ClassVar[bool] = True
    float32_tops: ClassVar[tuple[int, ...]] = (0,)
    tops_as_caffe: ClassVar[bool] = True
    distance_field: ClassVar[str] = "feat_stride"

    stride: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        text = layer.proto.python_param.param_str
        match = _STRIDE.match(text)
        if match is None:
            raise LayerError(f"param_str is {text!r}; 'feat_stride': 16 was needed")
        return cls(int(match[1]))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        scores, offsets, info = bottoms
        number = len(HEIGHTS)
        if len(scores) != 4 or scores[1] != 2 * number:
            raise LayerError(f"the scores are {format_shape(scores)}; 1×{2 * number}×H×W was needed")
        if offsets != scores:
            raise LayerError(
                f"the offsets are {format_shape(offsets)}; {format_shape(scores)} was needed, as the scores"
            )
        if scores[0] != 1:
            raise LayerError(f"a batch of {scores[0]}; Only single item batches are supported")
        if len(info) < 2 or count(info, 1) < 2:
            raise LayerError(f"im_info is {format_shape(info)}; 1×3 (height, width, scale) was needed")
        rows = number * scores[2] * scores[3]
        return [(rows, 4), (rows, 1)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        scores, offsets = node.bottoms[:2]
        onnx.fixed(onnx.dims(scores), "anchors need to know how many places there are")
        last = onnx.ints("text", [len(HEIGHTS)]), onnx.ints("end", [2 * len(HEIGHTS)]), onnx.ints("channels", [1])
        by_place = onnx.op("Transpose", [onnx.op("Slice", [scores, *last])], perm=[0, 2, 3, 1], what="by_place")
        onnx.emit("Reshape", [by_place, onnx.ints("column", [-1, 1])], node.tops[1:])

        anchors = self.anchors(*node.bottom_shapes[0][2:])
        height = onnx.floats("heights", anchors[:, 3:] - anchors[:, 1:2] + 1)
        middle = onnx.floats("middles", (anchors[:, 1:2] + anchors[:, 3:]) / 2)
        offsets = onnx.op("Transpose", [offsets], perm=[0, 2, 3, 1], what="offsets_by_place")
        offsets = onnx.op("Reshape", [offsets, onnx.ints("pairs", [-1, 2])], what="offsets")
        shift, growth = onnx.ops("Split", [offsets, onnx.ints("one_each", [1, 1])], 2, what="parts", axis=1)
        grown = onnx.op("Mul", [onnx.op("Exp", [growth]), height], what="grown")
        centre = onnx.op("Add", [onnx.op("Mul", [shift, height], what="moved"), middle], what="centre")
        low = onnx.op("Sub", [centre, onnx.op("Div", [grown, onnx.floats("two", 2)], what="half")], what="low")
        high = onnx.op("Add", [low, grown], what="high")
        left, right = onnx.floats("left", anchors[:, :1]), onnx.floats("right", anchors[:, 2:3])
        boxes = onnx.op("Concat", [left, low, right, high], axis=1, what="boxes")

        info = onnx.op("Reshape", [node.bottoms[2], onnx.ints("numbers", [-1])], what="info")
        sizes = onnx.op("Gather", [info, onnx.ints("width_and_height", [1, 0, 1, 0])], axis=0, what="sizes")
        limits = onnx.op("Sub", [sizes, onnx.floats("one_pixel", 1)], what="limits")
        onnx.emit("Max", [onnx.op("Min", [boxes, limits], what="below"), onnx.floats("zero", 0)], node.tops[:1])

    def anchors(self, height: int, width: int) -> NDArray[np.float32]:
        """x1, y1, x2, y2 of all places row by row, ten each: R × 4."""
        own = np.array([[0, np.trunc(7.5 - h // 2), 15, np.trunc(7.5 + h // 2)] for h in HEIGHTS])
        y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
        shifts = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4) * self.stride
        placed: NDArray[np.float32] = (shifts + own).astype(np.float32).reshape(-1, 4)
        return placed

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return Gradients((None, None, None))

    def example(self, bottom: int, shapes: Shapes, random: Generator) -> FloatArray | None:
        if bottom != 2:
            return None
        numbers = [size * self.stride for size in shapes[0][2:]]
        values: FloatArray = np.resize(np.array([*numbers, 1], np.float32), shapes[2])
        return values
