"""DetectionOutput (weiliu89/caffe, branch ssd, and forks of it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.caffe_pb2 import PriorBoxParameter
from caffeconv.errors import Diagnostic, LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import FLOAT
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, Settings, at_least
from caffeconv.layers.detection_inputs import POLYGON, DetectionForm, DetectionInputs
from caffeconv.layers.detection_suppression import Suppression, length
from caffeconv.layers.gradient_ops import refuse_all
from caffeconv.tensor.shape import Shape, Shapes, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


def legacy_shape(shape: Shape) -> tuple[int, int, int, int]:
    """num, channels, height, width; axes that the blob lacks count as 1 (caffe: Blob::LegacyShape)."""
    if len(shape) > 4:
        raise LayerError(f"the bottom is {format_shape(shape)}; Cannot use legacy accessors on Blobs with > 4 axes.")
    num, channels, height, width = (*shape, *([1] * (4 - len(shape))))
    return num, channels, height, width


@dataclass(frozen=True)
class DetectionOutput(Layer):
    """Boxes from offsets to the prior boxes, thinned by non-maximum suppression, class by class.

    Bottoms: locations N×(priors·4), or N×(priors·classes·4) without `share_location`; confidences N×(priors·classes);
    prior boxes 1×2×(priors·4); `DetectionForm` says what forks have besides. Top 1×1×found×7 with rows (picture, label,
    score, xmin, ymin, xmax, ymax), with polygons ×15: picture by picture, label by label, the best first; where the
    whole batch has none, a row (picture, -1, …, -1) for each.

    A class takes the `top_k` best boxes whose score lies above `confidence_threshold`, equal ones by their number, and
    keeps a box that overlaps no better kept one by more than `nms_threshold` (intersection over union; nothing
    overlaps a box whose edges are in the wrong order). With `eta` below 1 that threshold sinks by this factor after
    each kept box as long as it is above 0.5; `soft_nms` is deepdetect's rule (`softly_kept`). A picture keeps the
    `keep_top_k` best of all its classes (ssd: detection_output_layer.cpp; ApplyNMSFast in bbox_util.cpp).
    """

    bottoms: ClassVar[Arity] = at_least(3)
    data_axis: ClassVar[int | None] = 2
    top_kinds: ClassVar[tuple[str, ...]] = ("detections",)
    computes_in_float32: ClassVar[bool] = True
    float32_tops: ClassVar[tuple[int, ...]] = (0,)
    tops_as_caffe: ClassVar[bool] = True
    is_discontinuous: ClassVar[bool] = True
    settings: ClassVar[str] = "detection_output_param"
    class_settings: ClassVar[tuple[str, ...]] = ("num_classes",)

    num_classes: int
    share_location: bool
    background: int
    code: str
    variance_in_target: bool
    nms: Suppression
    keep_top_k: int | None
    form: DetectionForm

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.detection_output_param
        if not p.HasField("num_classes"):
            raise LayerError("Must specify num_classes")
        if p.num_classes < 1:
            raise LayerError(f"num_classes is {p.num_classes}; at least 1 was needed")
        keep_top_k = p.keep_top_k if p.keep_top_k > -1 else None
        return cls(
            p.num_classes, p.share_location, p.background_label_id, PriorBoxParameter.CodeType.Name(p.code_type),
            p.variance_encoded_in_target, Suppression.parse(p), keep_top_k,
            DetectionForm.parse(p, len(layer.bottoms), layer.dialect),
        )  # fmt: skip

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        self.form.first_stage(bottoms)
        bottoms = self.form.joined(bottoms)
        locations, confidences, priors = (legacy_shape(bottom) for bottom in bottoms)
        number, sets = priors[2] // 4, 1 if self.share_location else self.num_classes
        if locations[0] != confidences[0]:
            raise LayerError(
                f"the locations are {format_shape(bottoms[0])}, the confidences {format_shape(bottoms[1])}; "
                "as many pictures in both were needed (bottom[0]->num() == bottom[1]->num())"
            )
        if priors[1:] != (2, number * 4, 1) or number < 1:
            raise LayerError(
                f"the prior boxes are {format_shape(bottoms[2])}; 1×2×(priors·4), as PriorBox makes, was needed"
            )
        polygons = self.form.has_polygons(bottoms, share_location=self.share_location)
        wanted = number * (4 + POLYGON) if polygons else number * sets * 4
        if polygons and (not self.share_location or self.code != "CENTER_SIZE"):
            raise LayerError(f"polygons with code_type {self.code}; share_location: true and CENTER_SIZE were needed")
        if locations[1:] != (wanted, 1, 1):
            raise LayerError(
                f"the locations are {format_shape(bottoms[0])}, and there are {number} priors and {sets} sets of boxes, "
                f"{wanted} values a picture; Number of priors must match number of location predictions."
            )
        if confidences[1:] != (number * self.num_classes, 1, 1):
            raise LayerError(
                f"the confidences are {format_shape(bottoms[1])}, and there are {number} priors and {self.num_classes} "
                f"classes, {number * self.num_classes} values a picture; Number of priors must match number of "
                "confidence predictions."
            )
        return [(1, 1, 1, 7 + POLYGON if polygons else 7)]

    def fitting_bottoms(self, bottoms: Shapes) -> Sequence[Mapping[int, Shape]]:
        # locations and confidences agree, the prior boxes do not: these are of the wrong number
        if not self.bottoms.fits(len(bottoms)):
            return ()
        locations, confidences = (count(bottom, 1) for bottom in bottoms[:2])
        priors = locations // (4 if self.share_location else 4 * self.num_classes)
        agree = confidences == priors * self.num_classes and len(bottoms[2]) == 3
        return ({2: (*bottoms[2][:2], priors * 4)},) if agree else ()

    @classmethod
    def repairs(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[Settings]:
        priors, scores = count(bottoms[2], 2) // 4 if len(bottoms[2]) > 2 else 0, count(bottoms[1], 1)
        return ({"num_classes": scores // priors},) if priors and scores % priors == 0 else ()

    @property
    def fault(self) -> str:
        """Why SSD, which builds the layer, stops at its first picture; empty where it does not."""
        if not self.share_location or self.background != -1:
            return ""
        # ssd: the one set of shared boxes has label -1 itself, and is taken for the background's
        return (
            "background_label_id is -1 with share_location: true, for which SSD finds no boxes "
            "(Could not find location predictions for label -1); use a background_label_id that no class has, "
            f"such as {self.num_classes}"
        )

    def lint(self, node: Node, sources: Sequence[Node | None]) -> Sequence[Diagnostic]:
        return [Diagnostic("warning", node.definition.where, self.fault, layer=node.name)] if self.fault else []

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if self.fault:
            raise LayerError(self.fault)
        pictures, leading = length(onnx, node.bottoms[1]), onnx.ints("leading_axes", [0, 1])
        fake = no_detections(onnx, pictures, node.top_shapes[0][3])
        if not self.labels or 0 in (self.nms.top_k, self.keep_top_k):
            onnx.emit("Unsqueeze", [fake, leading], node.tops)
            return
        emit_detections(node, onnx, self._rows(node, onnx), fake, pictures)

    @property
    def labels(self) -> list[int]:
        """The classes that are looked for."""
        return [label for label in range(self.num_classes) if label != self.background]

    def _rows(self, node: Node, onnx: OnnxBuilder) -> str:
        """The detections, found×7, or found×15 with polygons."""
        priors, labels, num = self.form.priors(node.bottom_shapes), self.labels, onnx.dims(node.bottoms[0])[0]
        groups = None if num is None else num * len(labels)  # a group: one class in one picture
        candidates = priors if self.nms.top_k is None else min(self.nms.top_k, priors)
        per_picture = len(labels) * candidates

        confidences = self.form.confidences(node, onnx, classes=self.num_classes, background=self.background)
        scores, order = self._best(confidences, onnx, candidates)  # N × labels × candidates
        inputs = self.form.inputs(node, onnx, sets=1 if self.share_location else self.num_classes)
        boxes = self._candidate_boxes(inputs, onnx, candidates, order)  # groups × candidates × 4 or 12
        scores = onnx.reshape(scores, (groups, candidates), what="group_scores")
        row_order, scores_left = self.nms.kept(onnx, self._upright(inputs, onnx, boxes), scores, candidates)
        if row_order is not None:
            scores, boxes, scores_left = self._in_order(onnx, row_order, (scores, boxes, scores_left), per_picture)
        scores_left = onnx.reshape(scores_left, (num, per_picture), what="kept")
        scores = onnx.reshape(scores, (num, per_picture), what="picture_scores")
        if self.keep_top_k is not None and self.keep_top_k < per_picture:
            scores_left = _best_kept(onnx, scores_left, scores, self.keep_top_k)

        # found × (picture, place)
        places = onnx.op("Transpose", [onnx.op("NonZero", [scores_left])], what="places", perm=[1, 0])
        column = onnx.ints("column_axis", [1])
        picture = onnx.op("Gather", [places, onnx.ints("first", [0])], axis=1, what="picture")
        place = onnx.op("Gather", [places, onnx.ints("second", [1])], axis=1, what="place")
        rank = onnx.op("Div", [place, onnx.ints("candidates", candidates)], what="label_rank")
        label = onnx.op("Gather", [onnx.floats("labels", labels), rank], axis=0, what="label")
        score = onnx.op("Unsqueeze", [onnx.op("GatherND", [scores, places], what="score"), column], what="score_column")
        boxes = onnx.reshape(boxes, (num, per_picture, self._width(inputs)), what="picture_boxes")
        box = onnx.op("GatherND", [boxes, places], what="box")
        number = onnx.op("Cast", [picture], to=FLOAT, what="picture_number")
        return onnx.op("Concat", [number, label, score, box], axis=1, what="detections")

    def _upright(self, inputs: DetectionInputs, onnx: OnnxBuilder, boxes: str) -> str:
        """The boxes alone, without their polygons: groups × candidates × 4."""
        if self._width(inputs) == 4:
            return boxes
        bounds = [onnx.ints(what, [value]) for what, value in (("box_start", 0), ("box_end", 4), ("last_axis", 2))]
        return onnx.op("Slice", [boxes, *bounds], what="upright")

    def _best(self, confidences: str, onnx: OnnxBuilder, candidates: int) -> tuple[str, str]:
        """Scores of each class's best priors, best first, and the priors' numbers; N × labels × candidates each."""
        scores = onnx.op("Transpose", [confidences], what="class_scores", perm=[0, 2, 1])
        if len(self.labels) < self.num_classes:
            scores = onnx.op("Gather", [scores, onnx.ints("wanted", self.labels)], axis=1, what="wanted_scores")
        best, order = onnx.ops("TopK", [scores, onnx.ints("top_k", [candidates])], 2, what="best", axis=2)
        return best, order

    def _candidate_boxes(self, inputs: DetectionInputs, onnx: OnnxBuilder, candidates: int, order: str) -> str:
        """The decoded boxes of the priors in `order`: groups × candidates × 4, or 12 with polygons."""
        labels, num, priors, width = self.labels, inputs.num, inputs.count, self._width(inputs)
        groups = None if num is None else num * len(labels)
        boxes = self._decoded(inputs, onnx)  # N × priors × sets × 4
        if self.share_location:
            boxes = onnx.reshape(boxes, (num, priors, 4), what="shared_boxes")
            if self._width(inputs) > 4:
                boxes = onnx.op("Concat", [boxes, self._beside(inputs, onnx, boxes)], axis=2, what="boxes_and_more")
            index = onnx.reshape(order, (num, len(labels) * candidates, 1), what="order")
            picked = onnx.op("GatherND", [boxes, index], what="candidates", batch_dims=1)
            return onnx.reshape(picked, (groups, candidates, width), what="boxes")
        boxes = onnx.op("Transpose", [boxes], what="class_boxes", perm=[0, 2, 1, 3])
        if len(labels) < self.num_classes:
            boxes = onnx.op("Gather", [boxes, onnx.ints("wanted", labels)], axis=1, what="wanted_boxes")
        boxes = onnx.reshape(boxes, (groups, priors, 4), what="group_boxes")
        index = onnx.reshape(order, (groups, candidates, 1), what="order")
        return onnx.op("GatherND", [boxes, index], what="boxes", batch_dims=1)

    def _decoded(self, inputs: DetectionInputs, onnx: OnnxBuilder) -> str:
        """Locations and prior boxes → boxes xmin, ymin, xmax, ymax: N × priors × sets × 4 (ssd: DecodeBBox)."""
        prior = onnx.op("Gather", [inputs.priors, onnx.ints("zero", 0)], axis=0, what="prior")  # priors × 1 × 4
        variance = None
        if not self.variance_in_target:
            variance = onnx.op("Gather", [inputs.priors, onnx.ints("one", 1)], axis=0, what="variance")
        if inputs.anchor_locations is not None:  # refinedet: the first stage's boxes are the second's priors
            prior = self._moved(onnx, inputs.anchor_locations, prior, variance)
        return self._moved(onnx, inputs.locations, prior, variance)

    def _width(self, inputs: DetectionInputs) -> int:
        """How many numbers a candidate has: its box, and what stands beside it."""
        return 4 if inputs.polygons is None else 4 + POLYGON

    def _beside(self, inputs: DetectionInputs, onnx: OnnxBuilder, boxes: str) -> str:
        """What stands beside the boxes N × priors × 4 in a row: N × priors × numbers."""
        return self._polygons(inputs, onnx)

    def _polygons(self, inputs: DetectionInputs, onnx: OnnxBuilder) -> str:
        """x1, y1, … x4, y4 of the corners, clockwise from the upper left: N × priors × 8 (TextBoxes++: DecodeBBoxes)."""
        assert inputs.polygons is not None
        corners = onnx.ints("corners", [0, 1, 2, 1, 2, 3, 0, 3])
        prior = onnx.op("Gather", [inputs.priors, onnx.ints("zero", 0)], axis=0, what="prior")
        prior = onnx.reshape(prior, (inputs.count, 4), what="prior")
        low, high = onnx.ops("Split", [prior, onnx.ints("halves", [2, 2])], 2, what="corners_of_prior", axis=-1)
        size = onnx.op("Sub", [high, low], what="size")
        move = onnx.op("Mul", [inputs.polygons, onnx.op("Concat", [size] * 4, axis=1, what="sizes")], what="move")
        if not self.variance_in_target:
            variance = onnx.op("Gather", [inputs.priors, onnx.ints("one", 1)], axis=0, what="variance")
            variance = onnx.reshape(variance, (inputs.count, 4), what="variance")
            variance = onnx.op("Gather", [variance, onnx.ints("x_and_y", [0, 1] * 4)], axis=1, what="variance")
            move = onnx.op("Mul", [move, variance], what="move")
        return onnx.op("Add", [onnx.op("Gather", [prior, corners], axis=1, what="corner"), move], what="polygons")

    def _moved(self, onnx: OnnxBuilder, location: str, prior: str, variance: str | None) -> str:
        """The priors, priors × 1 × 4 or N × priors × 1 × 4, moved by the locations N × priors × sets × 4."""
        if variance is not None:
            location = onnx.op("Mul", [variance, location], what="scaled")
        if self.code == "CORNER":
            return onnx.op("Add", [prior, location], what="decoded")
        halves = onnx.ints("halves", [2, 2])
        low, high = onnx.ops("Split", [prior, halves], 2, what="corners", axis=-1)
        size = onnx.op("Sub", [high, low], what="size")
        if self.code == "CORNER_SIZE":
            sizes = onnx.op("Concat", [size, size], what="sizes", axis=-1)
            return onnx.op("Add", [prior, onnx.op("Mul", [location, sizes], what="moved")], what="decoded")
        shift, growth = onnx.ops("Split", [location, halves], 2, what="parts", axis=-1)
        two = onnx.floats("two", 2)
        middle = onnx.op("Div", [onnx.op("Add", [low, high], what="ends"), two], what="middle")
        centre = onnx.op("Add", [onnx.op("Mul", [shift, size], what="moved"), middle], what="centre")
        grown = onnx.op("Mul", [onnx.op("Exp", [growth]), size], what="grown")
        half = onnx.op("Div", [grown, two], what="half")
        corners = [onnx.op(sign, [centre, half], what="corner") for sign in ("Sub", "Add")]
        return onnx.op("Concat", corners, what="decoded", axis=-1)

    def _in_order(
        self, onnx: OnnxBuilder, order: str, values: tuple[str, str, str], per_picture: int
    ) -> tuple[str, str, str]:
        """Scores, boxes and whether they stay, in the order in which deepdetect kept them.

        In a picture that has more than `keep_top_k` the best of each class come first all the same.
        """
        scores, boxes, left = values
        scores, boxes = (
            onnx.op("GatherND", [v, _column(onnx, order)], what="in_order", batch_dims=1) for v in values[:2]
        )
        if self.keep_top_k is None or self.keep_top_k >= per_picture:
            return scores, boxes, left
        kept = onnx.op("Cast", [onnx.op("Reshape", [left, onnx.ints("by_picture", [-1, per_picture])])], to=FLOAT)
        number = onnx.reduce("ReduceSum", kept, [1], keepdims=True, what="kept_count")
        full = onnx.op("Greater", [number, onnx.floats("room", self.keep_top_k)], what="full")
        groups = onnx.ints("groups_of_picture", [1, len(self.labels)])
        full = onnx.op("Reshape", [onnx.op("Expand", [full, groups]), onnx.ints("a_group_each", [-1, 1])], what="full")
        places = onnx.floats("minus_places", -np.arange(per_picture // len(self.labels)))
        key = onnx.op("Where", [full, scores, places], what="row_key")
        _, rows = onnx.ops("TopK", [key, onnx.ints("top_k", [per_picture // len(self.labels)])], 2, what="rows", axis=1)
        moved = [
            onnx.op("GatherND", [v, _column(onnx, rows)], what="by_row", batch_dims=1) for v in (scores, boxes, left)
        ]
        return moved[0], moved[1], moved[2]

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return refuse_all(propagate_down)


def no_detections(onnx: OnnxBuilder, pictures: str, width: int) -> str:
    """What stands for a batch without detections: N rows (picture, -1, …, -1) of `width` numbers."""
    end = onnx.op("Squeeze", [pictures], what="picture_count")
    numbers = onnx.op("Range", [onnx.ints("zero", 0), end, onnx.ints("one", 1)], what="picture_range")
    numbers = onnx.op("Cast", [numbers], what="picture_numbers", to=FLOAT)
    column = onnx.op("Unsqueeze", [numbers, onnx.ints("column_axis", [1])], what="picture_column")
    more = onnx.ints("six_more" if width == 7 else "columns_more", [0, 0, 0, width - 1])
    return onnx.op("Pad", [column, more, onnx.floats("no_value", -1)], what="no_rows")


def emit_detections(node: Node, onnx: OnnxBuilder, rows: str, no_rows: str, pictures: str) -> None:
    """Writes the top 1×1×found×…: the rows found×…, or where there are none `no_rows`, of which there are `pictures`."""
    none = onnx.ints("none", [0])
    found_none = onnx.op("Equal", [length(onnx, rows), none], what="found_none")
    end = onnx.op("Where", [found_none, pictures, none], what="fake_count")
    fake = onnx.op("Slice", [no_rows, none, end, none], what="fake_rows")
    rows = onnx.op("Concat", [rows, fake], axis=0, what="rows")
    onnx.emit("Unsqueeze", [rows, onnx.ints("leading_axes", [0, 1])], node.tops)


def _column(onnx: OnnxBuilder, places: str) -> str:
    """Places along the second axis, as GatherND with batch_dims=1 wants them."""
    return onnx.op("Unsqueeze", [places, onnx.ints("last_axis", [-1])], what="places")


def _best_kept(onnx: OnnxBuilder, scores_left: str, scores: str, number: int) -> str:
    """`scores_left`, of which only the `number` best of each row stay; pictures × places each."""
    lowest = onnx.op("Where", [scores_left, scores, onnx.floats("dropped", -np.inf)], what="kept_scores")
    _, best = onnx.ops("TopK", [lowest, onnx.ints("keep_top_k", [number])], 2, what="kept_best", axis=1)
    nothing = onnx.op("Expand", [onnx.bools("no", False), onnx.op("Shape", [scores_left])], what="nothing")
    ones = onnx.op("Expand", [onnx.bools("yes", True), onnx.op("Shape", [best])], what="all_best")
    chosen = onnx.op("ScatterElements", [nothing, best, ones], axis=1, what="chosen")
    return onnx.op("And", [scores_left, chosen], what="kept_top_k")
