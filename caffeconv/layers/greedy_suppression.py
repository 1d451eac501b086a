"""Non-maximum suppression where ONNX's own rule does not do: other overlaps than intersection over union."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from caffeconv.errors import LayerError
from caffeconv.ir.element_types import FLOAT, INT64

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

Kind = Literal["IOU", "IOMU", "IOFU"]


@dataclass(frozen=True)
class Overlap:
    """What share of two boxes is common, and how much of it is too much.

    IOU: of their union; IOMU: of the smaller; IOFU: of the better one. whole_pixels: a box reaches from its first to its
    last pixel, so that sizes are x2 - x1 + 1.
    """

    kind: Kind
    threshold: float
    whole_pixels: bool

    @classmethod
    def parse(cls, kind: str, threshold: float, *, whole_pixels: bool) -> Self:
        for known in ("IOU", "IOMU", "IOFU"):
            if kind == known:
                return cls(known, threshold, whole_pixels)
        raise LayerError(f"nms_type is {kind!r}; IOU, IOMU or IOFU was needed")


def best_first(onnx: OnnxBuilder, scores: str, boxes: str, most: int | None) -> tuple[str, str]:
    """The `most` best of each group, best first, equal ones the later first; groups × K and groups × K × 4 each."""
    end, step = onnx.ints("before_first", [-(2**31)]), onnx.ints("backwards", [-1])
    start, axis = onnx.ints("last", [-1]), onnx.ints("candidate_axis", [1])
    scores, boxes = (onnx.op("Slice", [v, start, end, axis, step], what="backwards") for v in (scores, boxes))
    # Slice, not Gather: of a gathered size onnxruntime 1.24 infers no shape
    bounds = onnx.ints("second", [1]), onnx.ints("third", [2])
    number = onnx.op("Slice", [onnx.op("Shape", [scores]), *bounds], what="candidates")
    if most is not None:
        number = onnx.op("Min", [number, onnx.ints("most", [most])], what="most")
    scores, order = onnx.ops("TopK", [scores, number], 2, what="best", axis=1)
    order = onnx.op("Unsqueeze", [order, onnx.ints("last_axis", [2])], what="order")
    return scores, onnx.op("GatherND", [boxes, order], what="best_boxes", batch_dims=1)


def survivors(onnx: OnnxBuilder, boxes: str, counts: str, overlap: Overlap) -> str:
    """Which boxes overlap no better one that stays: 1 or 0, groups × K.

    boxes: x1, y1, x2, y2, groups × K × 4, best first; counts: 1 for those that take part, groups × K, the first ones.
    """
    column, one = onnx.ints("column_axis", [1]), onnx.floats("one", 1)
    low, high = onnx.ops("Split", [boxes, onnx.ints("halves", [2, 2])], 2, what="edges", axis=-1)
    areas = _area(onnx, low, high, overlap)
    number = onnx.op("Gather", [onnx.op("Shape", [counts]), onnx.ints("candidate_axis_0d", 1)], axis=0)
    numbers = onnx.op("Range", [onnx.ints("zero", 0), number, onnx.ints("next", 1)], what="numbers")
    numbers = onnx.op("Cast", [numbers], to=FLOAT, what="numbers")

    def step(states: Sequence[str], items: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        (left,), (box, takes_part, place) = states, items
        box = onnx.op("Unsqueeze", [box, column], what="box")
        box_low, box_high = onnx.ops("Split", [box, onnx.ints("halves", [2, 2])], 2, what="box_edges", axis=-1)
        share = _share(onnx, (low, high, areas), (box_low, box_high), overlap)
        threshold = onnx.floats("nms_threshold", overlap.threshold)
        near = onnx.op("Cast", [onnx.op("Greater", [share, threshold])], to=FLOAT, what="near")
        beaten = onnx.reduce("ReduceMax", onnx.op("Mul", [near, left]), [1], keepdims=True, what="beaten")
        stays = onnx.op("Mul", [takes_part, onnx.op("Sub", [one, beaten])], what="stays")
        here = onnx.op("Cast", [onnx.op("Equal", [numbers, place])], to=FLOAT, what="here")
        left = onnx.op("Max", [left, onnx.op("Mul", [stays, here])], what="left")
        # before opset 16 a Scan forgets its states' shapes, and onnxruntime wants to know them
        return [onnx.op("Reshape", [left, onnx.ints("two_axes", [0, -1])], what="left")], []

    total = onnx.reduce("ReduceSum", counts, [1], keepdims=False, what="counts")
    most = onnx.op("Cast", [onnx.reduce("ReduceMax", total, None, keepdims=False)], to=INT64, what="most")
    most = onnx.op("Max", [most, onnx.ints("next", 1)], what="most")
    steps, first = onnx.op("Unsqueeze", [most, onnx.ints("none", [0])], what="steps"), onnx.ints("none", [0])
    by_place = [
        onnx.op("Transpose", [boxes], perm=[1, 0, 2]),
        onnx.op("Unsqueeze", [onnx.op("Transpose", [counts], perm=[1, 0]), onnx.ints("last_axis", [2])]),
        numbers,
    ]
    sequences = [onnx.op("Slice", [value, first, steps, first], what="sequence") for value in by_place]
    nothing = onnx.op("Expand", [onnx.floats("nothing", 0), onnx.op("Shape", [counts])], what="none_left")
    (left,), _ = onnx.scan(step, [nothing], sequences, steps=None)
    return left


def shares_of(onnx: OnnxBuilder, boxes: str, box: str, overlap: Overlap) -> str:
    """What share of each of the boxes groups × K × 4 and of the box groups × 1 × 4 is common: groups × K."""
    halves = onnx.ints("halves", [2, 2])
    low, high = onnx.ops("Split", [boxes, halves], 2, what="edges", axis=-1)
    box_low, box_high = onnx.ops("Split", [box, halves], 2, what="box_edges", axis=-1)
    return _share(onnx, (low, high, _area(onnx, low, high, overlap)), (box_low, box_high), overlap)


def _area(onnx: OnnxBuilder, low: str, high: str, overlap: Overlap) -> str:
    """width · height: …×2 → …"""
    size = onnx.op("Sub", [high, low], what="extent")
    if overlap.whole_pixels:
        size = onnx.op("Add", [size, onnx.floats("one", 1)], what="size")
    width, height = onnx.ops("Split", [size, onnx.ints("ones", [1, 1])], 2, what="sides", axis=-1)
    return onnx.op("Squeeze", [onnx.op("Mul", [width, height]), onnx.ints("sides_axis", [-1])], what="area")


def _share(onnx: OnnxBuilder, boxes: tuple[str, str, str], box: tuple[str, str], overlap: Overlap) -> str:
    """What share of each of the boxes (low, high, areas) and of the box is common: groups × K."""
    low = onnx.op("Max", [boxes[0], box[0]], what="common_low")
    high = onnx.op("Min", [boxes[1], box[1]], what="common_high")
    common = _area(onnx, low, high, overlap)
    extent = onnx.op("Sub", [high, low], what="common_extent")
    width, height = onnx.ops("Split", [extent, onnx.ints("ones", [1, 1])], 2, what="common_sides", axis=-1)
    zero = onnx.floats("nothing", 0)
    # cascade-rcnn: boxes that share only a line of pixels count as apart in y, not in x
    wide = onnx.op("GreaterOrEqual" if overlap.whole_pixels else "Greater", [width, zero], what="wide")
    both = onnx.op("And", [wide, onnx.op("Greater", [height, zero], what="high")], what="overlap")
    both = onnx.op("Squeeze", [both, onnx.ints("sides_axis", [-1])], what="overlap")
    area = _area(onnx, box[0], box[1], overlap)
    if overlap.kind == "IOU":
        whole = onnx.op("Sub", [onnx.op("Add", [boxes[2], area]), common], what="union")
    else:
        whole = onnx.op("Min", [boxes[2], area], what="smaller") if overlap.kind == "IOMU" else boxes[2]
    return onnx.op("Where", [both, onnx.op("Div", [common, whole], what="share"), zero], what="share")
