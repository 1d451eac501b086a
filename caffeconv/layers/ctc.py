"""CTCGreedyDecoder (TextBoxes++, caffe_ocr: ctc_decoder_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import FLOAT, INT64
from caffeconv.ir.layer import Arity, Gradients, Layer, Node
from caffeconv.layers.gradient_ops import refuse_all
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, count, format_shape

if TYPE_CHECKING:
    from numpy.random import Generator
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

BEYOND = 1e6
"""Added to what may not be the least; more than any number of edits."""


@dataclass(frozen=True)
class CTCGreedyDecoder(Layer):
    """The best class of every step, repeats merged (`ctc_merge_repeated`) and blanks left out: N×T×1×1, -1 after the end.

    Bottom: scores T×N×C. caffe_ocr's takes labels N×L as a second bottom, negative after their end, blanks among them left
    out, and then makes 1×2×1×1 instead: 1 - the mean normalised edit distance, and the share of items without any, where an
    item without classes and labels adds 0 to both means. The original's second bottom is T×N,
    where a 0 ends the item that goes before; further tops are the scores, N×1×1×1, minus the sum of the best values,
    and, with labels T×N as a third bottom, 1 - the mean normalised edit distance, 1×1×1×1. blank_index is 0 unless given,
    with the original's bottoms -1, the last class.
    """

    bottoms: ClassVar[Arity] = Arity(1, 3)
    tops: ClassVar[Arity] = Arity(1, 3)
    in_place: ClassVar[bool] = False
    computes_in_float32: ClassVar[bool] = True
    float32_tops: ClassVar[tuple[int, ...]] = (0, 1, 2)
    is_discontinuous: ClassVar[bool] = True
    tops_as_caffe: ClassVar[bool] = True

    blank_index: int | None
    merges: bool
    number_of_tops: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.ctc_decoder_param
        most = len(layer.bottoms)
        if len(layer.tops) > most:
            raise LayerError(f"{len(layer.tops)} tops over {most} bottoms; at most {most} were needed")
        return cls(p.blank_index if p.HasField("blank_index") else None, p.ctc_merge_repeated, len(layer.tops))

    def form(self, bottoms: Shapes) -> Literal["decodes", "measures", "original"]:
        """What the bottoms ask for; where a second one could be both, as T = N = L, it is the original's."""
        if len(bottoms) == 1:
            return "decodes"
        steps, items = bottoms[0][:2]
        if tuple(bottoms[1][:2]) == (steps, items):
            return "original"
        return "measures"

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        scores = bottoms[0]
        if len(scores) != 3:
            raise LayerError(f"bottom[0] is {format_shape(scores)}; 3 axes were needed (T×N×C)")
        steps, items, classes = scores
        if not -classes <= (self.blank_index or 0) < classes:
            raise LayerError(
                f"blank_index is {self.blank_index}; one of {classes} classes was needed, or -1 for the last"
            )
        sequences: Shape = (items, steps, 1, 1)
        form = self.form(bottoms)
        if form == "measures":
            self._check_labels(bottoms, items)
            return [(1, 2, 1, 1)]
        for i, bottom in enumerate(bottoms[1:], 1):
            if bottom != (steps, items):
                raise LayerError(f"bottom[{i}] is {format_shape(bottom)}; {steps}×{items} was needed (T×N)")
        score: Shape = (items, 1, 1, 1)
        accuracy: Shape = (1, 1, 1, 1)
        extra = [score] if len(bottoms) == 2 else [score, accuracy] if self.number_of_tops == 3 else [accuracy]
        return [sequences, *extra][: self.number_of_tops]

    def _check_labels(self, bottoms: Shapes, items: int) -> None:
        steps, labels = bottoms[0][0], bottoms[1]
        if len(bottoms) > 2 or len(labels) < 2 or count(labels, 2) != 1 or labels[0] != items:
            raise LayerError(
                f"bottom[1] is {format_shape(labels)}; {steps}×{items} was needed, which tells where sequences end, or, "
                f"with no third bottom, labels {items}×L"
            )
        if self.number_of_tops > 1:
            raise LayerError(f"{self.number_of_tops} tops; with labels the layer makes 1")

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        form = self.form(node.bottom_shapes)
        best = onnx.op("ArgMax", [node.bottoms[0]], what="best", axis=2, keepdims=0)
        active = self._active(node, onnx) if form == "original" else None
        decoded = self._decoded(node, onnx, best, active)
        if form == "measures":
            distance, longest = self._distance(node, onnx, decoded, self._labels(node, onnx), node.bottom_shapes[1][1])
            right = onnx.op("Equal", [distance, onnx.floats("no_edit", 0)], what="is_right")
            right = onnx.op("And", [right, onnx.op("Greater", [longest, onnx.floats("empty", 0)])], what="is_right")
            right = onnx.op("Cast", [right], what="right", to=FLOAT)
            numbers = [self._accuracy(onnx, distance, longest), onnx.reduce("ReduceMean", right, [0], keepdims=True)]
            onnx.reshape(onnx.op("Concat", numbers, what="measures", axis=0), (1, 2, 1, 1), to=node.tops[0])
            return
        rows = onnx.op("Transpose", [decoded], what="by_item", perm=[1, 0])
        onnx.emit("Unsqueeze", [rows, onnx.ints("last_axes", [2, 3])], node.tops[:1])
        if active is not None and len(node.tops) > 1:
            self._lower_original_tops(node, onnx, decoded, active)

    def _labels(self, node: Node, onnx: OnnxBuilder) -> str:
        """caffe_ocr's labels without blanks, N×L, -1 after the end of each."""
        labels = onnx.reshape(node.bottoms[1], onnx.dims(node.bottoms[1])[:2], what="labels")
        inside = self._before_negative(onnx, labels)
        blank = (self.blank_index or 0) % node.bottom_shapes[0][2]
        target = onnx.op("Floor", [onnx.op("Add", [labels, onnx.floats("half", 0.5)])], what="label")
        is_class = onnx.op("Not", [onnx.op("Equal", [target, onnx.floats("blank_label", blank)])], what="is_label")
        counts = onnx.op("And", [inside, is_class], what="label_counts")
        number, axis = onnx.op("Cast", [counts], what="label_number", to=INT64), onnx.ints("labels_axis", 1)
        place = onnx.op("CumSum", [number, axis], what="label_place", exclusive=1)
        length = node.bottom_shapes[1][1]
        place = onnx.op("Where", [counts, place, onnx.ints("no_place", length)], what="label_place")
        larger = onnx.op("Add", [onnx.op("Shape", [labels]), onnx.ints("one_label_more", [0, 1])], what="larger")
        empty = onnx.op("Expand", [onnx.floats("end", -1), larger], what="empty_labels")
        filled = onnx.op("ScatterElements", [empty, place, target], what="label_row", axis=1)
        bounds = [onnx.ints("first", [0]), onnx.ints("label_end", [length]), onnx.ints("columns", [1])]
        return onnx.op("Slice", [filled, *bounds], what="classes_of_labels")

    def _before_negative(self, onnx: OnnxBuilder, labels: str) -> str:
        """Which labels stand before the first negative one of their item, N×L."""
        negative = onnx.op("Cast", [onnx.op("Less", [labels, onnx.floats("ended", 0)])], what="negative", to=FLOAT)
        after = onnx.op("CumSum", [negative, onnx.ints("labels_axis", 1)], what="after")
        return onnx.op("Equal", [after, onnx.floats("not_after", 0)], what="inside")

    def _lower_original_tops(self, node: Node, onnx: OnnxBuilder, decoded: str, active: str) -> None:
        tops = list(node.tops[1:])
        if len(node.bottoms) == 2 or len(tops) == 2:
            value = onnx.reduce("ReduceMax", node.bottoms[0], [2], keepdims=False, what="best_value")
            counted = onnx.op("Where", [active, value, onnx.floats("nothing", 0)], what="counted")
            total = onnx.reduce("ReduceSum", counted, [0], keepdims=False, what="total")
            score = onnx.op("Neg", [total], what="score")
            onnx.emit("Unsqueeze", [score, onnx.ints("score_axes", [1, 2, 3])], [tops.pop(0)])
        if tops:
            (length,) = onnx.fixed(onnx.dims(node.bottoms[2])[:1], "the number of steps (axis 0) has to be known")
            labels = onnx.op("Transpose", [node.bottoms[2]], what="labels", perm=[1, 0])
            distance, longest = self._distance(node, onnx, decoded, labels, length)
            onnx.reshape(self._accuracy(onnx, distance, longest), (1, 1, 1, 1), to=tops[0])

    def _active(self, node: Node, onnx: OnnxBuilder) -> str:
        """Which steps belong to an item, T×N: those before the first 0 from the second step on."""
        is_zero = onnx.op("Equal", [node.bottoms[1], onnx.floats("start", 0)], what="is_zero")
        ends = self._below_false(onnx, onnx.op("Slice", [is_zero, *self._rows(onnx, 1, None)], what="is_next"), is_zero)
        ended = onnx.op("CumSum", [onnx.op("Cast", [ends], to=INT64), onnx.ints("steps_axis", 0)], what="ended")
        return onnx.op("Equal", [ended, onnx.ints("none", 0)], what="active")

    def _rows(self, onnx: OnnxBuilder, start: int, end: int | None) -> list[str]:
        """Bounds of a slice along the steps."""
        last = np.iinfo(np.int64).max if end is None else end
        return [onnx.ints(f"from_{start}", [start]), onnx.ints(f"to_{end}", [last]), onnx.ints("rows_axis", [0])]

    def _below_false(self, onnx: OnnxBuilder, rows: str, like: str) -> str:
        """Booleans under a row of `false`, of which there are as many as `like` has along axis 1."""
        first = onnx.op("Slice", [like, *self._rows(onnx, 0, 1)], what="first_row")
        never = onnx.op("And", [first, onnx.op("Not", [first], what="other")], what="never")
        return onnx.op("Concat", [never, rows], what="below_false", axis=0)

    def _decoded(self, node: Node, onnx: OnnxBuilder, best: str, active: str | None) -> str:
        """The classes that are left of each item's best ones, T×N as floats, -1 after the last."""
        classes, default = node.bottom_shapes[0][2], -1 if active is not None else 0
        blank = (default if self.blank_index is None else self.blank_index) % classes
        is_blank = onnx.op("Equal", [best, onnx.ints("blank", blank)], what="is_blank")
        counts = onnx.op("Not", [is_blank], what="is_class")
        if self.merges:
            here = onnx.op("Slice", [best, *self._rows(onnx, 1, None)], what="here")
            before = onnx.op("Slice", [best, *self._rows(onnx, 0, -1)], what="before")
            same = self._below_false(onnx, onnx.op("Equal", [here, before], what="same"), is_blank)
            counts = onnx.op("And", [counts, onnx.op("Not", [same], what="differs")], what="counts")
        if active is not None:
            counts = onnx.op("And", [counts, active], what="counts")
        number = onnx.op("Cast", [counts], what="number", to=INT64)
        place = onnx.op("CumSum", [number, onnx.ints("steps_axis", 0)], what="place", exclusive=1)
        shape = onnx.op("Shape", [best], what="steps_items")
        steps = onnx.op("Gather", [shape, onnx.ints("steps_axis", 0)], what="steps")
        place = onnx.op("Where", [counts, place, steps], what="place")  # what does not count goes to a row of its own
        larger = onnx.op("Add", [shape, onnx.ints("one_step_more", [1, 0])], what="larger")
        empty = onnx.op("Expand", [onnx.floats("end", -1), larger], what="empty")
        values = onnx.op("Cast", [best], what="class", to=FLOAT)
        filled = onnx.op("ScatterElements", [empty, place, values], what="filled", axis=0)
        return onnx.op("Slice", [filled, *self._rows(onnx, 0, -1)], what="decoded")

    def _distance(self, node: Node, onnx: OnnxBuilder, decoded: str, labels: str, length: int) -> tuple[str, str]:
        """The edits from the decoded sequences (T×N) to the labels (N×length), and the longer one's length; N each."""
        inside = self._before_negative(onnx, labels)
        size = onnx.reduce("ReduceSum", onnx.op("Cast", [inside], to=FLOAT), [1], keepdims=False, what="label_length")
        target = onnx.op("Floor", [onnx.op("Add", [labels, onnx.floats("half", 0.5)])], what="target")
        index = np.arange(length + 1, dtype=np.float32)
        start_shape = onnx.op("Concat", [self._items(node, onnx), onnx.ints("row_size", [length + 1])], axis=0)
        start = onnx.op("Expand", [onnx.floats("row", index[None]), start_shape], what="start")

        def step(states: Sequence[str], now: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
            return [self._next_row(onnx, states[0], now[0], target, index)], []

        (row,), _ = onnx.scan(step, [start], [decoded], steps=onnx.dims(node.bottoms[0])[0])
        last = onnx.op("Unsqueeze", [onnx.op("Cast", [size], to=INT64), onnx.ints("one_axis", [1])], what="last")
        distance = onnx.op("GatherElements", [row, last], what="at_last", axis=1)
        is_class = onnx.op("GreaterOrEqual", [decoded, onnx.floats("least_class", 0)], what="is_decoded")
        own = onnx.reduce(
            "ReduceSum", onnx.op("Cast", [is_class], to=FLOAT), [0], keepdims=False, what="decoded_length"
        )
        longest = onnx.op("Max", [size, own], what="longest")
        return onnx.op("Squeeze", [distance, onnx.ints("one_axis", [1])], what="distance"), longest

    def _items(self, node: Node, onnx: OnnxBuilder) -> str:
        """N, as a shape of one axis."""
        return onnx.op("Gather", [onnx.shape(node.bottoms[0]), onnx.ints("items_axis", [1])], what="items")

    def _next_row(self, onnx: OnnxBuilder, row: str, now: str, target: str, index: FloatArray) -> str:
        """Edits to every start of the labels (N × length + 1) with one more class; the same where the item has ended."""
        one, bounds = onnx.floats("edit", 1), [onnx.ints("second", [1]), onnx.ints("columns", [1])]
        column = onnx.op("Unsqueeze", [now, onnx.ints("one_axis", [1])], what="column")
        differs = onnx.op("Not", [onnx.op("Equal", [target, column], what="equal")], what="differs")
        cost = onnx.op("Cast", [differs], what="cost", to=FLOAT)
        shorter = onnx.op(
            "Slice", [row, onnx.ints("first", [0]), onnx.ints("but_last", [-1]), bounds[1]], what="shorter"
        )
        first = onnx.op("Slice", [row, onnx.ints("first", [0]), bounds[0], bounds[1]], what="first_column")
        replaced = onnx.op("Add", [shorter, cost], what="replaced")
        replaced = onnx.op("Concat", [onnx.op("Add", [first, one]), replaced], what="replaced", axis=1)
        least = onnx.op("Min", [onnx.op("Add", [row, one], what="left_out"), replaced], what="least")
        # put in: entry j is the least of entries k ≤ j, plus j - k
        puts = np.where(index[None] <= index[:, None], index[:, None] - index[None], np.float32(BEYOND))
        paths = onnx.op("Unsqueeze", [least, onnx.ints("one_axis", [1])], what="paths")
        paths = onnx.op("Add", [paths, onnx.floats("puts", puts)], what="paths")
        following = onnx.reduce("ReduceMin", paths, [2], keepdims=False, what="following")
        ended = onnx.op("Less", [column, onnx.floats("least_class", 0)], what="has_ended")
        return onnx.op("Where", [ended, row, following], what="next_row")

    def _accuracy(self, onnx: OnnxBuilder, distance: str, longest: str) -> str:
        """1 - the mean normalised distance, one number on one axis."""
        share = onnx.op("Div", [distance, onnx.op("Max", [longest, onnx.floats("one_class", 1)])], what="share")
        mean = onnx.reduce("ReduceMean", share, [0], keepdims=True, what="mean_share")
        return onnx.op("Sub", [onnx.floats("whole", [1]), mean], what="accuracy")

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return refuse_all(propagate_down)

    def example(self, bottom: int, shapes: Shapes, random: Generator) -> FloatArray | None:
        if bottom == 0:
            return None
        if bottom == 1 and self.form(shapes) == "original":
            follows: FloatArray = np.ones(shapes[1], np.float32)
            follows[0] = 0
            return follows
        return random.integers(0, shapes[0][2], shapes[bottom]).astype(np.float32)
