"""Which of a class's boxes DetectionOutput keeps: SSD's suppression, a threshold that sinks, and deepdetect's soft one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caffeconv.errors import LayerError
from caffeconv.ir.element_types import FLOAT, INT64
from caffeconv.layers.pooling import LOWEST
from caffeconv.layers.soft_suppression import SoftRule, softly_kept

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.caffe_pb2 import DetectionOutputParameter
    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Suppression:
    """What the non-maximum suppression of a class starts from, and what it drops.

    Groups are the classes of each picture; boxes are groups × candidates × 4, scores groups × candidates, best first.
    """

    threshold: float
    """How much of a box's union with a better one may be common."""
    eta: float
    """By this the threshold sinks with each kept box while it is above 0.5."""
    top_k: int | None
    confidence: float
    """Boxes of scores up to this one take no part."""
    theta: float | None
    """Of deepdetect's soft suppression; None: SSD's."""

    @classmethod
    def parse(cls, p: DetectionOutputParameter) -> Self:
        nms = p.nms_param
        if nms.nms_threshold < 0:
            raise LayerError(f"nms_threshold is {nms.nms_threshold:g}; nms_threshold must be non negative.")
        if nms.soft_nms and nms.theta == 0:
            raise LayerError("theta is 0 with soft_nms: true, which divides by it; a value above 0 was needed")
        if not 0 < nms.eta <= 1:
            raise LayerError(f"eta is {nms.eta:g}; a value above 0 and at most 1 was needed")
        top_k = nms.top_k if nms.HasField("top_k") and nms.top_k > -1 else None
        confidence = p.confidence_threshold if p.HasField("confidence_threshold") else LOWEST
        return cls(nms.nms_threshold, nms.eta, top_k, confidence, nms.theta if nms.soft_nms else None)

    def kept(self, onnx: OnnxBuilder, boxes: str, scores: str, candidates: int) -> tuple[str | None, str]:
        """In which order the candidates go on, int64, and which of these stay, bool; groups × candidates each.

        None: in the order that they have.
        """
        if self.theta is None:
            return None, self._kept(onnx, boxes, scores, candidates)
        above = onnx.op("Greater", [scores, onnx.floats("confidence_threshold", self.confidence)], what="above")
        scores = onnx.op("Where", [above, scores, onnx.floats("nobody", -np.inf)], what="queued")
        return softly_kept(onnx, boxes, scores, candidates, SoftRule(self.threshold, self.eta, self.theta))

    def _kept(self, onnx: OnnxBuilder, boxes: str, scores: str, candidates: int) -> str:
        """Which candidates of each group stay, bool."""
        low, high = onnx.ops("Split", [boxes, onnx.ints("halves", [2, 2])], 2, what="edges", axis=-1)
        narrowest = onnx.reduce("ReduceMin", onnx.op("Sub", [high, low], what="extent"), [-1], keepdims=True)
        # ONNX puts edges in order, SSD lets such a box overlap nothing: as does a box without area
        in_order = onnx.op("GreaterOrEqual", [narrowest, onnx.floats("no_extent", 0)], what="in_order")
        boxes = onnx.op("Where", [in_order, boxes, onnx.floats("no_extent", 0)], what="nms_boxes")
        if self.eta < 1 and self.threshold > 0.5:
            return self._kept_adaptively(onnx, boxes, scores, candidates)
        selected = onnx.op(
            "NonMaxSuppression",
            [
                boxes, onnx.op("Unsqueeze", [scores, onnx.ints("column_axis", [1])], what="nms_scores"),
                onnx.ints("most", [candidates]), onnx.floats("nms_threshold", [min(self.threshold, 1.0)]),
                onnx.floats("confidence_threshold", [self.confidence]),
            ],
        )  # fmt: skip
        index = onnx.op("Gather", [selected, onnx.ints("group_and_place", [0, 2])], axis=1, what="selected")
        nothing = onnx.op("Expand", [onnx.bools("no", False), onnx.op("Shape", [scores])], what="nothing")
        ones = onnx.op("Expand", [onnx.bools("yes", True), length(onnx, selected)], what="all_selected")
        return onnx.op("ScatterND", [nothing, index, ones], what="kept_groups")

    def _kept_adaptively(self, onnx: OnnxBuilder, boxes: str, scores: str, candidates: int) -> str:
        """The same with a threshold that sinks (`eta`): candidates one after another, in all groups at once."""
        column, zero = onnx.ints("column_axis", [1]), onnx.floats("nothing", 0)
        above = onnx.op("Greater", [scores, onnx.floats("confidence_threshold", self.confidence)])
        above = onnx.op("Cast", [above], to=FLOAT, what="above")
        counts = onnx.reduce("ReduceSum", above, [1], keepdims=False, what="counts")
        most = onnx.op("Cast", [onnx.reduce("ReduceMax", counts, None, keepdims=False)], to=INT64, what="most_above")
        most = onnx.op("Max", [most, onnx.ints("one", 1)], what="at_least_one")
        steps = onnx.op("Unsqueeze", [most, onnx.ints("none", [0])], what="steps")

        def first(value: str) -> str:
            return onnx.op("Slice", [value, onnx.ints("none", [0]), steps, onnx.ints("none", [0])], what="sequence")

        low, high = onnx.ops("Split", [boxes, onnx.ints("halves", [2, 2])], 2, what="nms_edges", axis=-1)
        areas = _area(onnx, onnx.op("Sub", [high, low], what="nms_extent"))
        numbers = onnx.floats("numbers", np.arange(candidates))

        def step(states: Sequence[str], items: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
            (left, threshold), (box, is_above, number) = states, items
            box = onnx.op("Unsqueeze", [box, column], what="box")
            box_low, box_high = onnx.ops("Split", [box, onnx.ints("halves", [2, 2])], 2, what="box_edges", axis=-1)
            common = onnx.op("Sub", [onnx.op("Min", [high, box_high]), onnx.op("Max", [low, box_low])], what="common")
            common = _area(onnx, onnx.op("Relu", [common]))
            area = _area(onnx, onnx.op("Sub", [box_high, box_low], what="box_extent"))
            union = onnx.op("Sub", [onnx.op("Add", [areas, area]), common], what="union")
            overlap = onnx.op("Div", [common, union], what="overlap")  # 0 / 0 is greater than nothing
            too_near = onnx.op("Cast", [onnx.op("Greater", [overlap, threshold])], to=FLOAT, what="too_near")
            beaten = onnx.reduce("ReduceMax", onnx.op("Mul", [too_near, left]), [1], keepdims=True, what="beaten")
            stays = onnx.op("Mul", [is_above, onnx.op("Sub", [onnx.floats("sure", 1), beaten])], what="stays")
            place = onnx.op("Cast", [onnx.op("Equal", [numbers, number])], to=FLOAT, what="place")
            left = onnx.op("Max", [left, onnx.op("Mul", [stays, place])], what="kept")
            high_yet = onnx.op("Cast", [onnx.op("Greater", [threshold, onnx.floats("half_way", 0.5)])], to=FLOAT)
            stands = onnx.op("Sub", [onnx.floats("sure", 1), onnx.op("Mul", [stays, high_yet])], what="stands")  # or 0
            factor = onnx.op("Max", [stands, onnx.floats("eta", self.eta)], what="factor")
            threshold = onnx.op("Mul", [threshold, factor], what="threshold")
            # before opset 16 a Scan forgets its states' shapes, and onnxruntime wants to know them
            return [onnx.reshape(left, (None, candidates)), onnx.reshape(threshold, (None, 1))], []

        groups = length(onnx, scores)
        thresholds = onnx.op("Concat", [groups, onnx.ints("a_column", [1])], axis=0, what="threshold_shape")
        states = [
            onnx.op("Expand", [zero, onnx.op("Shape", [scores])], what="none_kept"),
            onnx.op("Expand", [onnx.floats("nms_threshold", self.threshold), thresholds], what="thresholds"),
        ]
        sequences = [
            first(onnx.op("Transpose", [boxes], perm=[1, 0, 2])),
            first(onnx.op("Unsqueeze", [onnx.op("Transpose", [above], perm=[1, 0]), onnx.ints("last_axis", [2])])),
            first(numbers),
        ]
        (left, _), _ = onnx.scan(step, states, sequences, steps=None)
        return onnx.op("Greater", [left, zero], what="kept_groups")


def length(onnx: OnnxBuilder, value: str) -> str:
    """How long the value's first axis is, as a shape of one axis."""
    return onnx.op("Gather", [onnx.op("Shape", [value]), onnx.ints("none", [0])], axis=0, what="length")


def _area(onnx: OnnxBuilder, extent: str) -> str:
    """width · height: …×2 → …"""
    width, height = onnx.ops("Split", [extent, onnx.ints("ones", [1, 1])], 2, what="sides", axis=-1)
    return onnx.op("Squeeze", [onnx.op("Mul", [width, height]), onnx.ints("sides_axis", [-1])], what="area")
