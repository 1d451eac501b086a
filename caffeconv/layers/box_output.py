"""Boxes in mscnn and Cascade R-CNN: BoxOutput, BoxGroupOutput, DecodeBBox, FrcnnOutput and ScaleRoute."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from caffeconv.caffe_pb2 import BBoxRegParameter, BoxGroupOutputParameter, BoxOutputParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import FLOAT
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, at_least, exactly
from caffeconv.layers.gradient_ops import refuse_all
from caffeconv.layers.greedy_suppression import Overlap, best_first, survivors
from caffeconv.tensor.shape import Shape, Shapes, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Deviations:
    """What turns a net's four numbers of a box into offsets: v · std + mean."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def parse(cls, p: BBoxRegParameter) -> Self:
        for name, values in (("bbox_mean", p.bbox_mean), ("bbox_std", p.bbox_std)):
            if len(values) not in (0, 4):
                raise LayerError(f"{len(values)} {name}; four, or none, were needed")
        return cls(tuple(p.bbox_mean) or (0.0,) * 4, tuple(p.bbox_std) or (1.0,) * 4)

    def offsets(self, onnx: OnnxBuilder, values: str) -> str:
        """…×4 → …×4"""
        scaled = onnx.op("Mul", [values, onnx.floats("bbox_std", self.std)], what="scaled")
        return onnx.op("Add", [scaled, onnx.floats("bbox_mean", self.mean)], what="offsets")


class Coordinates(Layer):
    """A layer whose tops hold rows of coordinates, as many as values say."""

    data_axis: ClassVar[int | None] = 0
    in_place: ClassVar[bool] = False
    computes_in_float32: ClassVar[bool] = True
    float32_tops: ClassVar[tuple[int, ...]] = (0, 1)
    tops_as_caffe: ClassVar[bool] = True
    is_discontinuous: ClassVar[bool] = True

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return refuse_all(propagate_down)


@dataclass(frozen=True)
class Thinning:
    """Which boxes go on: a score of `fg_thr` at least, both sides of `min_size`, and no better box near."""

    fg_thr: float
    min_size: float
    overlap: Overlap
    most_before: int | None
    most_after: int | None

    @classmethod
    def parse(cls, p: BoxOutputParameter | BoxGroupOutputParameter, *, whole_pixels: bool) -> Self:
        overlap = Overlap.parse(p.nms_type, p.iou_thr, whole_pixels=whole_pixels)
        return cls(p.fg_thr, p.min_size, overlap, p.max_nms_num or None, p.max_post_nms_num or None)


@dataclass(frozen=True)
class MapBoxes(Coordinates):
    """Boxes at every place of several maps, thinned by non-maximum suppression over all maps of a picture.

    Tops R×5×1×1, rows (picture, x1, y1, x2, y2), picture by picture, the best first, and R×6×1×1 with the scores as well;
    without any box (0, 1, 1, 10, 10), and zeros.
    """

    tops: ClassVar[Arity] = Arity(1, 2)

    thinning: Thinning
    deviations: Deviations
    field_xyr: float
    """The centre moves by a field's size through this at most."""
    field_whr: float
    """Sides are this many fields at most, and one through this many at least."""
    number_of_tops: int

    @abstractmethod
    def _maps(self, node: Node, onnx: OnnxBuilder) -> Sequence[tuple[str, str, str]]:
        """For each map the scores N × places, the boxes N × places × 4, x1, y1, x2, y2, and their sides N × places × 2."""

    def _shapes(self) -> Shapes:
        return [(1, 5, 1, 1), (1, 6, 1, 1)][: self.number_of_tops]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        maps = self._maps(node, onnx)
        scores, boxes, sides = (
            onnx.op("Concat", [parts[i] for parts in maps], axis=1, what=what)
            for i, what in enumerate(("scores", "boxes", "sides"))
        )
        scores = self._of_counting(onnx, scores, sides)
        scores, boxes = best_first(onnx, scores, boxes, self.thinning.most_before)
        counts = onnx.op("Greater", [scores, onnx.floats("dropped", -np.inf)], what="counts")
        left = survivors(onnx, boxes, onnx.op("Cast", [counts], to=FLOAT), self.thinning.overlap)
        if self.thinning.most_after is not None:
            rank = onnx.op("CumSum", [left, onnx.ints("candidates", 1)], what="rank")
            first = onnx.op("LessOrEqual", [rank, onnx.floats("max_post_nms_num", self.thinning.most_after)])
            left = onnx.op("Mul", [left, onnx.op("Cast", [first], to=FLOAT)], what="first_ones")
        places = onnx.op("Transpose", [onnx.op("NonZero", [left])], perm=[1, 0], what="places")
        picture = onnx.op("Gather", [places, onnx.ints("first", [0])], axis=1, what="picture")
        score = onnx.op("GatherND", [scores, places], what="score")
        score = onnx.op("Unsqueeze", [score, onnx.ints("column_axis", [1])], what="score")
        parts = [
            onnx.op("Cast", [picture], to=FLOAT, what="picture"), onnx.op("GatherND", [boxes, places], what="box"), score
        ]  # fmt: skip
        none = [onnx.floats("no_box", [[0, 1, 1, 10, 10]]), onnx.floats("no_box_and_score", np.zeros((1, 6)))]
        for top, width, fake in zip(node.tops, (5, 6), none, strict=False):
            rows = onnx.op("Concat", parts[: width - 3], axis=1, what="rows")
            _emit_rows(onnx, rows, fake, top, width)

    def _of_counting(self, onnx: OnnxBuilder, scores: str, sides: str) -> str:
        """The scores; the lowest of all for boxes that do not count."""
        small = onnx.reduce("ReduceMin", sides, [2], keepdims=False, what="shorter_side")
        large = onnx.op("GreaterOrEqual", [small, onnx.floats("min_size", self.thinning.min_size)], what="large")
        good = onnx.op("GreaterOrEqual", [scores, onnx.floats("fg_thr", self.thinning.fg_thr)], what="good")
        both = onnx.op("And", [large, good], what="counting")
        return onnx.op("Where", [both, scores, onnx.floats("dropped", -np.inf)], what="counting_scores")

    def _centre_and_size(self, onnx: OnnxBuilder, values: str, field: str, centres: str) -> tuple[str, str]:
        """Centres and sizes, …×2 each, of the net's numbers …×4; field: width and height; centres: of the places."""
        offsets = self.deviations.offsets(onnx, values)
        move, growth = onnx.ops("Split", [offsets, onnx.ints("halves", [2, 2])], 2, what="parts", axis=-1)
        for_move = 1 / self.field_xyr
        # held after Exp, whose rounding would decide about sides that are just min_size
        least, most = (np.exp(np.float32(sign * np.log(np.float32(self.field_whr)))) for sign in (-1, 1))
        move = onnx.op("Clip", [move, onnx.floats("least_move", -for_move), onnx.floats("most_move", for_move)])
        growth = onnx.op("Clip", [onnx.op("Exp", [growth]), onnx.floats("least", least), onnx.floats("most", most)])
        centre = onnx.op("Add", [onnx.op("Mul", [move, field], what="moved"), centres], what="centre")
        return centre, onnx.op("Mul", [growth, field], what="size")


@dataclass(frozen=True)
class BoxOutput(MapBoxes):
    """mscnn's boxes of one field a place of each map.

    Bottoms N×(classes + 4)×H×W, scores (0: background) and x, y, log w, log h.

    A box's score is its best class's without the background's. Corners are held to the picture's upper left edges, sides
    to its lower right ones (box_output_layer.cpp).
    """

    bottoms: ClassVar[Arity] = at_least(1)
    settings: ClassVar[str] = "box_output_param"

    fields: tuple[tuple[int, int, int], ...]
    """width, height and pixels a place, for each bottom."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p, number = layer.proto.box_output_param, len(layer.bottoms)
        if not len(p.field_w) == len(p.field_h) == len(p.downsample_rate) == number:
            raise LayerError(
                f"{number} bottoms, {len(p.field_w)} field_w, {len(p.field_h)} field_h, {len(p.downsample_rate)} "
                "downsample_rate; one of each for every bottom was needed"
            )
        fields = tuple(zip(p.field_w, p.field_h, p.downsample_rate, strict=True))
        return cls(
            Thinning.parse(p, whole_pixels=False), Deviations.parse(layer.proto.bbox_reg_param), p.field_xyr, p.field_whr,
            len(layer.tops), fields,
        )  # fmt: skip

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        for shape in bottoms:
            if len(shape) != 4 or shape[1] < 6:
                raise LayerError(
                    f"a bottom is {format_shape(shape)}; N×(classes + 4)×H×W with 2 classes at least was needed"
                )
        return self._shapes()

    def _maps(self, node: Node, onnx: OnnxBuilder) -> Sequence[tuple[str, str, str]]:
        return [self._map(node, onnx, i) for i in range(len(node.bottoms))]

    def _map(self, node: Node, onnx: OnnxBuilder, i: int) -> tuple[str, str, str]:
        channels, height, width = node.bottom_shapes[i][1:]
        field_w, field_h, rate = self.fields[i]
        values = onnx.reshape(node.bottoms[i], (onnx.dims(node.bottoms[i])[0], channels, height * width), what="map")
        values = onnx.op("Transpose", [values], perm=[0, 2, 1], what="by_place")
        parts = onnx.ints(f"parts_{channels}", [1, channels - 5, 4])
        background, classes, box = onnx.ops("Split", [values, parts], 3, what="part", axis=2)
        score = onnx.reduce("ReduceMax", classes, [2], keepdims=False, what="best_class")
        score = onnx.op("Sub", [score, onnx.op("Squeeze", [background, onnx.ints("last_axis", [2])])], what="score")
        field = onnx.floats(f"field_{i}", [field_w, field_h])
        centre, size = self._centre_and_size(
            onnx, box, field, onnx.floats(f"centres_{i}", _centres(height, width, rate))
        )
        half = onnx.op("Div", [size, onnx.floats("two", 2)], what="half")
        corner = onnx.op("Max", [onnx.op("Sub", [centre, half]), onnx.floats("zero", 0)], what="corner")
        rest = onnx.op("Sub", [onnx.floats(f"picture_{i}", [width * rate, height * rate]), corner], what="rest")
        sides = onnx.op("Min", [size, rest], what="sides")
        end = onnx.op("Add", [corner, sides], what="end")
        return score, onnx.op("Concat", [corner, end], axis=2, what="map_boxes"), sides


@dataclass(frozen=True)
class BoxGroupOutput(MapBoxes):
    """cascade-rcnn's boxes of G fields a place of each map.

    Pairs of bottoms, probabilities (N·G)×classes×H×W and boxes (N·G)×4×H×W.

    A box's score is 1 less the background's probability; boxes reach from pixel to pixel, and are clipped to the picture
    (box_group_output_layer.cpp).
    """

    bottoms: ClassVar[Arity] = at_least(2)
    settings: ClassVar[str] = "box_group_output_param"

    fields: tuple[tuple[tuple[tuple[int, int], ...], int], ...]
    """For each pair the fields, width and height, and pixels a place."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p, number = layer.proto.box_group_output_param, len(layer.bottoms)
        if number != 2 * len(p.box_group_param):
            raise LayerError(
                f"{number} bottoms and {len(p.box_group_param)} box_group_param; one for each pair was needed"
            )
        for group in p.box_group_param:
            if not group.field_w or len(group.field_w) != len(group.field_h):
                raise LayerError(
                    f"{len(group.field_w)} field_w and {len(group.field_h)} field_h; as many of each were needed"
                )
        fields = tuple((tuple(zip(g.field_w, g.field_h, strict=True)), g.stride) for g in p.box_group_param)
        return cls(
            Thinning.parse(p, whole_pixels=True), Deviations.parse(layer.proto.bbox_reg_param), p.field_xyr, p.field_whr,
            len(layer.tops), fields,
        )  # fmt: skip

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        for i, (fields, _) in enumerate(self.fields):
            scores, boxes = bottoms[2 * i : 2 * i + 2]
            if len(scores) != 4 or boxes != (scores[0], 4, *scores[2:]) or scores[0] % len(fields):
                raise LayerError(
                    f"bottoms {format_shape(scores)} and {format_shape(boxes)}; (N·{len(fields)})×classes×H×W and "
                    f"(N·{len(fields)})×4×H×W were needed"
                )
        return self._shapes()

    def _maps(self, node: Node, onnx: OnnxBuilder) -> Sequence[tuple[str, str, str]]:
        return [self._map(node, onnx, i) for i in range(len(self.fields))]

    def _map(self, node: Node, onnx: OnnxBuilder, i: int) -> tuple[str, str, str]:
        (fields, stride), (classes, height, width) = self.fields[i], node.bottom_shapes[2 * i][1:]
        groups, places = len(fields), height * width
        probabilities = onnx.reshape(node.bottoms[2 * i], (None, groups, classes, places), what="probabilities")
        first = onnx.op("Gather", [probabilities, onnx.ints("background", 0)], axis=2, what="background")
        score = onnx.op("Sub", [onnx.floats("one", 1), first], what="score")
        score = onnx.reshape(score, (None, groups * places), what="scores")
        box = onnx.reshape(node.bottoms[2 * i + 1], (None, groups, 4, places), what="map")
        box = onnx.op("Transpose", [box], perm=[0, 1, 3, 2], what="by_place")
        field = onnx.floats(f"fields_{i}", np.array(fields).reshape(groups, 1, 2))
        centres = onnx.floats(f"centres_{i}", _centres(height, width, stride))
        centre, size = self._centre_and_size(onnx, box, field, centres)
        zero, one = onnx.floats("zero", 0), onnx.floats("one", 1)
        picture = onnx.floats(f"picture_{i}", [width * stride, height * stride])
        low = onnx.op("Sub", [centre, onnx.op("Div", [size, onnx.floats("two", 2)], what="half")], what="low")
        high = onnx.op("Sub", [onnx.op("Add", [low, size]), one], what="high")
        edges = [onnx.op("Max", [low, zero], what="low"), onnx.op("Min", [high, picture], what="high")]
        boxes = onnx.op("Concat", edges, axis=3, what="map_boxes")
        sides = onnx.op("Add", [onnx.op("Sub", edges[::-1], what="extent"), one], what="sides")
        sides = onnx.reshape(sides, (None, groups * places, 2), what="sides")
        return score, onnx.reshape(boxes, (None, groups * places, 4), what="map_boxes"), sides


def _centres(height: int, width: int, rate: int) -> NDArray[np.float64]:
    """x and y of the places' middles, row by row: (H·W)×2."""
    y, x = np.meshgrid(np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64), indexing="ij")
    centres: NDArray[np.float64] = np.stack([x, y], axis=-1).reshape(-1, 2)
    return (centres + 0.5) * float(rate)


def _emit_rows(onnx: OnnxBuilder, rows: str, fake: str, top: str, width: int) -> None:
    """Writes rows×width, or the one row `fake` where there are none, as a blob of four axes."""
    none, one = onnx.ints("none", [0]), onnx.ints("one_row", [1])
    number = onnx.op("Gather", [onnx.op("Shape", [rows]), none], axis=0, what="row_count")
    end = onnx.op("Where", [onnx.op("Equal", [number, none]), one, none], what="fake_count")
    fake = onnx.op("Slice", [fake, none, end, none], what="fake_rows")
    rows = onnx.op("Concat", [rows, fake], axis=0, what="rows")
    onnx.reshape(rows, (None, width, 1, 1), to=top)


def decoded(onnx: OnnxBuilder, offsets: str, rois: str) -> str:
    """x1, y1, x2, y2 of boxes about regions: offsets R×B×4, rois R×1×4; R×B×4."""
    halves = onnx.ints("halves", [2, 2])
    low, high = onnx.ops("Split", [rois, halves], 2, what="roi_corners", axis=2)
    move, growth = onnx.ops("Split", [offsets, halves], 2, what="parts", axis=2)
    one, two = onnx.floats("one", 1), onnx.floats("two", 2)
    size = onnx.op("Add", [onnx.op("Sub", [high, low], what="extent"), one], what="roi_size")
    middle = onnx.op("Div", [onnx.op("Add", [low, high], what="ends"), two], what="middle")
    centre = onnx.op("Add", [onnx.op("Mul", [move, size], what="moved"), middle], what="centre")
    extent = onnx.op("Sub", [onnx.op("Mul", [onnx.op("Exp", [growth]), size], what="grown"), one], what="extent")
    first = onnx.op("Sub", [centre, onnx.op("Div", [extent, two], what="half")], what="first")
    return onnx.op("Concat", [first, onnx.op("Add", [first, extent], what="last")], axis=2, what="decoded")


@dataclass(frozen=True)
class DecodeBBox(Coordinates):
    """Regions moved by the second four of eight offsets: bottoms R×8 and R×5, top R×5×1×1, not clipped.

    mscnn, cascade-rcnn: decode_bbox_layer.cpp.
    """

    data_axis: ClassVar[int | None] = None
    is_discontinuous: ClassVar[bool] = False
    bottoms: ClassVar[Arity] = Arity(2, 3)

    deviations: Deviations

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        if layer.phase == "TRAIN":
            raise LayerError("in TRAIN the layer drops boxes, which is not supported; `phase='TEST'` was needed")
        return cls(Deviations.parse(layer.proto.bbox_reg_param))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        offsets, rois = bottoms[:2]
        if count(offsets, 1) != 8 or count(rois, 1) != 5 or offsets[0] != rois[0]:
            raise LayerError(
                f"the offsets are {format_shape(offsets)}, the rois {format_shape(rois)}; R×8 and R×5 were needed"
            )
        return [(rois[0], 5, 1, 1)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        offsets = onnx.reshape(node.bottoms[0], (None, 2, 4), what="offsets_of_classes")
        offsets = onnx.op("Gather", [offsets, onnx.ints("class_1", [1])], axis=1, what="class_offsets")
        rois = onnx.reshape(node.bottoms[1], (None, 1, 5), what="rois")
        number, box = onnx.ops("Split", [rois, onnx.ints("number_and_box", [1, 4])], 2, what="roi", axis=2)
        moved = decoded(onnx, self.deviations.offsets(onnx, offsets), box)
        rows = onnx.op("Concat", [number, moved], axis=2, what="rows")
        onnx.reshape(rows, (onnx.dims(node.tops[0])[0], 5, 1, 1), to=node.tops[0])


@dataclass(frozen=True)
class FrcnnOutput(Coordinates):
    """The detections of one picture, class by class from 1 on.

    Bottoms: probabilities R×classes, offsets R×(4·classes), or R×8 without `cls_aware`, of which the second four count
    for all; rois R×5 or R×6; the picture's height and width. Top (1 + found)×7×1×1: a row (0, -1, …), then rows
    (0, x1, y1, x2, y2, class, score), the best of a class first (cascade-rcnn: frcnn_output_layer.cpp).
    """

    bottoms: ClassVar[Arity] = exactly(4)
    settings: ClassVar[str] = "frcnn_output_param"

    deviations: Deviations
    class_aware: bool
    conf_thr: float
    overlap: Overlap
    most: int | None

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p, regression = layer.proto.frcnn_output_param, layer.proto.bbox_reg_param
        overlap = Overlap.parse(p.nms_type, p.iou_thr, whole_pixels=True)
        return cls(Deviations.parse(regression), regression.cls_aware, p.conf_thr, overlap, p.max_det_num or None)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        scores, offsets, rois, size = bottoms
        classes = count(scores, 1)
        sets = classes if self.class_aware else 2
        if classes < 2 or count(offsets, 1) != 4 * sets or count(rois, 1) not in (5, 6) or count(size) != 2:
            raise LayerError(
                f"bottoms {', '.join(map(format_shape, bottoms))}; R×classes, R×{4 * sets}, R×5 and 1×2 were needed"
            )
        return [(1, 7, 1, 1)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        classes, columns = count(node.bottom_shapes[0], 1), count(node.bottom_shapes[2], 1)
        labels = classes - 1
        scores = onnx.reshape(node.bottoms[0], (None, classes), what="probabilities")
        scores = onnx.op("Gather", [scores, onnx.ints("labels", np.arange(1, classes))], axis=1, what="class_scores")
        scores = onnx.op("Transpose", [scores], perm=[1, 0], what="scores")
        boxes = self._boxes(node, onnx, classes, columns)
        good = onnx.op("GreaterOrEqual", [scores, onnx.floats("conf_thr", self.conf_thr)], what="good")
        scores = onnx.op("Where", [good, scores, onnx.floats("dropped", -np.inf)], what="counting_scores")
        scores, boxes = best_first(onnx, scores, boxes, None)
        counts = onnx.op("Greater", [scores, onnx.floats("dropped", -np.inf)], what="counts")
        left = survivors(onnx, boxes, onnx.op("Cast", [counts], to=FLOAT), self.overlap)
        left = onnx.op("Greater", [left, onnx.floats("nothing", 0)], what="left")
        if self.most is not None:
            left = self._best(onnx, left, scores, self.most)
        places = onnx.op("Transpose", [onnx.op("NonZero", [left])], perm=[1, 0], what="places")
        rank = onnx.op("Gather", [places, onnx.ints("first", [0])], axis=1, what="rank")
        label = onnx.op("Gather", [onnx.floats("label_numbers", np.arange(1, labels + 1)), rank], axis=0, what="label")
        score = onnx.op("GatherND", [scores, places], what="score")
        score = onnx.op("Unsqueeze", [score, onnx.ints("column_axis", [1])], what="score")
        picture = onnx.op("Mul", [label, onnx.floats("picture", 0)], what="picture")
        box = onnx.op("GatherND", [boxes, places], what="box")
        rows = onnx.op("Concat", [picture, box, label, score], axis=1, what="rows")
        rows = onnx.op("Concat", [onnx.floats("first_row", [[0, *[-1] * 6]]), rows], axis=0, what="all_rows")
        onnx.reshape(rows, (None, 7, 1, 1), to=node.tops[0])

    def _boxes(self, node: Node, onnx: OnnxBuilder, classes: int, columns: int) -> str:
        """The boxes of each class but the background, clipped: (classes - 1) × R × 4."""
        sets = classes if self.class_aware else 2
        wanted = np.arange(1, classes) if self.class_aware else np.ones(classes - 1)
        offsets = onnx.reshape(node.bottoms[1], (None, sets, 4), what="offsets_of_classes")
        offsets = onnx.op("Gather", [offsets, onnx.ints("sets", wanted)], axis=1, what="class_offsets")
        rois = onnx.reshape(node.bottoms[2], (None, 1, columns), what="rois")
        rois = onnx.op("Gather", [rois, onnx.ints("box_columns", [1, 2, 3, 4])], axis=2, what="roi_boxes")
        boxes = decoded(onnx, self.deviations.offsets(onnx, offsets), rois)
        size = onnx.reshape(node.bottoms[3], (2,), what="height_and_width")
        size = onnx.op("Gather", [size, onnx.ints("x_and_y", [1, 0])], axis=0, what="limits")
        low, high = onnx.ops("Split", [boxes, onnx.ints("halves", [2, 2])], 2, what="corners", axis=2)
        # a box wholly below or right of the picture stays there, turned inside out
        low = onnx.op("Max", [low, onnx.floats("zero", 0)], what="low")
        boxes = onnx.op("Concat", [low, onnx.op("Min", [high, size], what="high")], axis=2, what="clipped")
        return onnx.op("Transpose", [boxes], perm=[1, 0, 2], what="boxes")

    def _best(self, onnx: OnnxBuilder, left: str, scores: str, most: int) -> str:
        """`left`, of which only the `most` best of all classes stay."""
        lowest = onnx.op("Where", [left, scores, onnx.floats("dropped", -np.inf)], what="left_scores")
        flat = onnx.reshape(lowest, (None,), what="flat_scores")
        number = onnx.op("Min", [onnx.op("Shape", [flat]), onnx.ints("max_det_num", [most])], what="number")
        best, _ = onnx.ops("TopK", [flat, number], 2, what="best_of_all", axis=0)
        least = onnx.reduce("ReduceMin", best, None, keepdims=False, what="least")
        return onnx.op("And", [left, onnx.op("GreaterOrEqual", [lowest, least])], what="best_left")


@dataclass(frozen=True)
class ScaleRoute(Coordinates):
    """The items whose region has a size √(w·h) of low_scale at least and below high_scale, of every bottom alike.

    Bottoms: rois R×5, then blobs R×…; each top has the bottom's axes, four at least. Where no region fits, the one
    nearest, on a logarithmic scale, to the middle stays (cascade-rcnn: scale_route_layer.cpp).
    """

    bottoms: ClassVar[Arity] = at_least(1)
    tops: ClassVar[Arity] = at_least(1)
    settings: ClassVar[str] = "scale_route_param"

    low: float | None
    high: float | None

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        if len(layer.tops) != len(layer.bottoms):
            raise LayerError(f"{len(layer.tops)} tops for {len(layer.bottoms)} bottoms; one for each was needed")
        p = layer.proto.scale_route_param
        return cls(p.low_scale if p.HasField("low_scale") else None, p.high_scale if p.HasField("high_scale") else None)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if count(bottoms[0], 1) != 5 or any(shape[:1] != bottoms[0][:1] for shape in bottoms):
            raise LayerError(f"bottoms {', '.join(map(format_shape, bottoms))}; R×5, then R items in each, were needed")
        return [_four_axes(shape) for shape in bottoms]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        rois = onnx.reshape(node.bottoms[0], (None, 5), what="rois")
        low, high = (
            onnx.op("Gather", [rois, onnx.ints(what, columns)], axis=1, what=what)
            for what, columns in (("low", [1, 2]), ("high", [3, 4]))
        )
        size = onnx.op("Add", [onnx.op("Sub", [high, low], what="extent"), onnx.floats("one", 1)], what="size")
        scale = onnx.op("Sqrt", [onnx.reduce("ReduceProd", size, [1], keepdims=False, what="area")], what="scale")
        least, most = onnx.floats("low_scale", self.low or 0), onnx.floats("high_scale", self.high or np.inf)
        above = onnx.op("GreaterOrEqual", [scale, least], what="above")
        fits = onnx.op("And", [above, onnx.op("Less", [scale, most])], what="fits")
        fitting = onnx.reshape(onnx.op("NonZero", [fits]), (None,), what="fitting")
        middle = onnx.floats("middle", np.log(self._middle()))
        far = onnx.op("Abs", [onnx.op("Sub", [onnx.op("Log", [scale]), middle], what="far")], what="far")
        nearest = onnx.op("ArgMin", [far], axis=0, keepdims=1, what="nearest")
        none = onnx.ints("none", [0])
        is_none = onnx.op("Equal", [onnx.op("Shape", [fitting]), none], what="none_fits")
        end = onnx.op("Where", [is_none, onnx.ints("one_item", [1]), none], what="nearest_count")
        nearest = onnx.op("Slice", [nearest, none, end, none], what="nearest")
        items = onnx.op("Concat", [fitting, nearest], axis=0, what="items")
        for bottom, shape, top in zip(node.bottoms, node.bottom_shapes, node.tops, strict=True):
            chosen = onnx.op("Gather", [bottom, items], axis=0, what="chosen")
            onnx.reshape(chosen, (None, *_four_axes(shape)[1:]), to=top)

    def _middle(self) -> float:
        if self.low and self.high:
            return float(np.sqrt(self.low * self.high))
        return self.low or self.high or 256.0


def _four_axes(shape: Shape) -> Shape:
    return (*shape, *([1] * (4 - len(shape))))
