"""deepdetect's soft non-maximum suppression, which keeps a queue of candidates (jolibrain/caffe: bbox_util.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caffeconv.ir.element_types import BOOL, FLOAT, INT64
from caffeconv.layers.greedy_suppression import Overlap, shares_of

if TYPE_CHECKING:
    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class SoftRule:
    """deepdetect's soft suppression: an overlap lowers a score, and above the threshold drops the box all the same.

    threshold: what share of two boxes is too much; it sinks by the factor `eta` after each kept box while above 0.5.
    theta: a copy of a box that overlaps a kept one by `o` waits with its score times exp(-o²/theta).
    """

    threshold: float
    eta: float
    theta: float


@dataclass(frozen=True)
class _Queue:
    """Candidates that wait, best first; behind the last one scores are -∞. groups × K each, as float32."""

    scores: str
    places: str

    def shifted(self, onnx: OnnxBuilder) -> _Queue:
        """Without the first."""
        bounds = onnx.ints("second", [1]), onnx.ints("beyond", [2**31]), onnx.ints("candidate_axis", [1])
        pads, empty = onnx.ints("one_behind", [0, 0, 0, 1]), onnx.floats("nobody", -np.inf)
        rest = [onnx.op("Slice", [value, *bounds], what="rest") for value in (self.scores, self.places)]
        return _Queue(
            onnx.op("Pad", [rest[0], pads, empty], what="rest_scores"),
            onnx.op("Pad", [rest[1], pads], what="rest_places"),
        )

    def replaced(self, onnx: OnnxBuilder, score: str, place: str, numbers: str) -> _Queue:
        """Without the first, and with `place` behind all of at least its score; both groups × 1."""
        rest = self.shifted(onnx)
        better = onnx.op("Cast", [onnx.op("GreaterOrEqual", [rest.scores, score])], to=FLOAT, what="better")
        position = onnx.reduce("ReduceSum", better, [1], keepdims=True, what="position")
        before = onnx.op("Less", [numbers, position], what="before")
        here = onnx.op("Equal", [numbers, position], what="here")

        def mixed(shifted: str, new: str, old: str) -> str:
            return onnx.op("Where", [before, shifted, onnx.op("Where", [here, new, old])], what="queue")

        return _Queue(mixed(rest.scores, score, self.scores), mixed(rest.places, place, self.places))

    def where(self, onnx: OnnxBuilder, condition: str, other: _Queue) -> _Queue:
        return _Queue(
            onnx.op("Where", [condition, self.scores, other.scores], what="queue_scores"),
            onnx.op("Where", [condition, self.places, other.places], what="queue_places"),
        )

    def of_shape(self, onnx: OnnxBuilder) -> Sequence[str]:
        # before opset 16 a Scan forgets its states' shapes, and onnxruntime wants to know them
        return [
            onnx.op("Reshape", [v, onnx.ints("two_axes", [0, -1])], what="queue") for v in (self.scores, self.places)
        ]


def softly_kept(onnx: OnnxBuilder, boxes: str, scores: str, candidates: int, rule: SoftRule) -> tuple[str, str]:
    """Candidates in the order in which deepdetect looks at them, int64, and which of these looks keep one, bool.

    boxes: groups × K × 4; scores: groups × K, best first, -∞ for those that take no part; groups × K each. A look takes
    the first of the queue and goes through the kept boxes until it overlaps one too much: for each of them a copy with a
    lower score queues, and the first, whichever that is by now, leaves; at the end the first leaves once more. So a box
    may be looked at several times or never (jolibrain/caffe: ApplySoftNMSFast in bbox_util.cpp).
    """
    overlap = Overlap("IOU", rule.threshold, whole_pixels=False)
    numbers, column = onnx.floats("numbers", np.arange(candidates)), onnx.ints("column_axis", [1])
    alive = onnx.op("Cast", [onnx.op("Greater", [scores, onnx.floats("nobody", -np.inf)])], to=FLOAT, what="alive")
    looks = onnx.reduce("ReduceMax", onnx.reduce("ReduceSum", alive, [1], keepdims=False), None, keepdims=False)
    looks = _at_least_one(onnx, looks)

    def look(states: Sequence[str], items: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        queue, kept, count, threshold = _Queue(states[0], states[1]), states[2], states[3], states[4]
        first, last = onnx.ints("none", [0]), onnx.ints("second", [1])
        score, place = (onnx.op("Slice", [v, first, last, column], what="front") for v in states[:2])
        box = onnx.op("GatherND", [boxes, onnx.op("Cast", [place], to=INT64)], what="box", batch_dims=1)
        box = onnx.op("Unsqueeze", [box, column], what="box")
        shares = shares_of(onnx, kept, box, overlap)
        is_kept = onnx.op("Less", [numbers, count], what="is_kept")
        near = onnx.op("And", [is_kept, onnx.op("Greater", [shares, threshold])], what="near")
        near = onnx.op("Cast", [near], to=FLOAT, what="near")
        passed = onnx.op("CumSum", [near, onnx.ints("candidate_axis_0d", 1)], what="passed", exclusive=1)
        met = onnx.op("And", [is_kept, onnx.op("Equal", [passed, onnx.floats("nothing", 0)])], what="met")
        someone = onnx.op("Greater", [score, onnx.floats("nobody", -np.inf)], what="someone")
        met = onnx.op("Cast", [onnx.op("And", [met, someone])], to=FLOAT, what="met")
        squares = onnx.op("Div", [onnx.op("Mul", [shares, shares]), onnx.floats("minus_theta", -rule.theta)])
        lower = onnx.op("Mul", [score, onnx.op("Exp", [squares])], what="lower")
        queue = _after_meetings(onnx, queue, (met, lower, place), numbers).shifted(onnx)

        beaten = onnx.reduce("ReduceMax", near, [1], keepdims=True, what="beaten")
        stays = onnx.op("Sub", [onnx.op("Cast", [someone], to=FLOAT), beaten])
        stays = onnx.op("Relu", [stays], what="stays")
        here = onnx.op("And", [onnx.op("Equal", [numbers, count]), onnx.op("Cast", [stays], to=BOOL)], what="appended")
        kept = onnx.op("Where", [onnx.op("Unsqueeze", [here, onnx.ints("last_axis", [2])]), box, kept], what="kept")
        kept = onnx.op("Reshape", [kept, onnx.ints("boxes_shape", [0, -1, 4])], what="kept")
        return [*queue.of_shape(onnx), kept, _column(onnx, onnx.op("Add", [count, stays])),
                _column(onnx, _sunk(onnx, threshold, stays, rule.eta))], [place, stays]  # fmt: skip

    groups = onnx.op("Slice", [onnx.op("Shape", [scores]), onnx.ints("none", [0]), onnx.ints("second", [1])])
    shape = onnx.op("Concat", [groups, onnx.ints("second", [1])], axis=0, what="column_shape")
    states = [
        scores,
        onnx.op("Expand", [numbers, onnx.op("Shape", [scores])], what="places"),
        onnx.op("Expand", [onnx.floats("nothing", 0), onnx.op("Shape", [boxes])], what="none_kept"),
        onnx.op("Expand", [onnx.floats("nothing", 0), shape], what="counts"),
        onnx.op("Expand", [onnx.floats("nms_threshold", rule.threshold), shape], what="thresholds"),
    ]
    turns = onnx.op("Slice", [numbers, onnx.ints("none", [0]), looks, onnx.ints("none", [0])], what="turns")
    _, outputs = onnx.scan(look, states, [turns], steps=None)
    missing = onnx.op("Sub", [onnx.ints("candidates", [candidates]), looks], what="missing")
    pads = onnx.op("Concat", [onnx.ints("front_pads", [0, 0, 0]), missing, onnx.ints("back_pads", [0, 0])], axis=0)
    padded = [onnx.op("Pad", [output, pads], what="looks") for output in outputs]
    by_group = [
        onnx.op("Transpose", [onnx.op("Squeeze", [v, onnx.ints("last_axis", [2])])], perm=[1, 0]) for v in padded
    ]
    return onnx.op("Cast", [by_group[0]], to=INT64, what="order"), onnx.op("Cast", [by_group[1]], to=BOOL, what="stay")


def _after_meetings(onnx: OnnxBuilder, queue: _Queue, meetings: tuple[str, str, str], numbers: str) -> _Queue:
    """The queue after its first met kept boxes (1 or 0, groups × K), each with a score for the copy, and its place."""
    met, lower, place = meetings
    column = onnx.ints("column_axis", [1])
    most = onnx.reduce("ReduceMax", onnx.reduce("ReduceSum", met, [1], keepdims=False), None, keepdims=False)
    end, none = _at_least_one(onnx, most), onnx.ints("none", [0])
    sequences = [
        onnx.op("Slice", [onnx.op("Transpose", [value], perm=[1, 0]), none, end, none], what="meetings")
        for value in (met, lower)
    ]

    def meet(states: Sequence[str], items: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        is_met, score = (onnx.op("Unsqueeze", [item, column], what="meeting") for item in items)
        before = _Queue(states[0], states[1])
        after = before.replaced(onnx, score, place, numbers)
        return after.where(onnx, onnx.op("Cast", [is_met], to=BOOL, what="is_met"), before).of_shape(onnx), []

    (scores, places), _ = onnx.scan(meet, [queue.scores, queue.places], sequences, steps=None)
    return _Queue(scores, places)


def _sunk(onnx: OnnxBuilder, threshold: str, stays: str, eta: float) -> str:
    """The threshold times `eta` where a box stays and it is above 0.5."""
    if eta == 1:
        return threshold
    high = onnx.op("Greater", [threshold, onnx.floats("half_way", 0.5)], what="high_yet")
    sinks = onnx.op("And", [high, onnx.op("Cast", [stays], to=BOOL)], what="sinks")
    return onnx.op("Where", [sinks, onnx.op("Mul", [threshold, onnx.floats("eta", eta)]), threshold], what="threshold")


def _column(onnx: OnnxBuilder, value: str) -> str:
    return onnx.op("Reshape", [value, onnx.ints("one_column", [-1, 1])], what="column")


def _at_least_one(onnx: OnnxBuilder, number: str) -> str:
    """A float32 number as the end of a Slice, at least 1."""
    whole = onnx.op("Max", [onnx.op("Cast", [number], to=INT64), onnx.ints("one_0d", 1)], what="number")
    return onnx.op("Unsqueeze", [whole, onnx.ints("none", [0])], what="end")
