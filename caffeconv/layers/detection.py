"""PriorBox and DetectionOutput (weiliu89/caffe, branch ssd)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from caffeconv.caffe_pb2 import PriorBoxParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import FLOAT, INT64
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, exactly
from caffeconv.layers.gradient_ops import refuse_all
from caffeconv.layers.pooling import LOWEST
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


def legacy_shape(shape: Shape) -> tuple[int, int, int, int]:
    """num, channels, height, width; axes that the blob lacks count as 1 (caffe: Blob::LegacyShape)."""
    if len(shape) > 4:
        raise LayerError(f"the bottom is {format_shape(shape)}; Cannot use legacy accessors on Blobs with > 4 axes.")
    num, channels, height, width = (*shape, *([1] * (4 - len(shape))))
    return num, channels, height, width


# -- PriorBox ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PriorBox(Layer):
    """The prior boxes of every place of a feature map, as fractions of the picture: a constant.

    Bottoms: the features N×C×H×W and the picture, of which only the sizes count. Top 1×2×(H·W·priors·4): first the
    boxes (xmin, ymin, xmax, ymax; row by row, place by place, prior by prior), then their variances. The priors of a
    place: for each min_size a square of it, one of √(min_size·max_size) where there are max sizes, and one for each
    further aspect ratio (width min_size·√ratio, height min_size/√ratio). Sizes are cut to whole pixels (ssd:
    prior_box_layer.cpp).
    """

    bottoms: ClassVar[Arity] = exactly(2)
    computes_in_float32: ClassVar[bool] = True
    float32_tops: ClassVar[tuple[int, ...]] = (0,)
    tops_as_caffe: ClassVar[bool] = True

    min_sizes: tuple[float, ...]
    max_sizes: tuple[float, ...]
    aspect_ratios: tuple[float, ...]
    """The ratios other than 1, flipped ones included."""
    clip: bool
    variances: tuple[float, ...]
    """One for all, or one for each edge."""
    image: tuple[int, int] | None
    """height, width; None: the second bottom's."""
    step: tuple[float, float] | None
    """height, width of a place in pixels; None: the picture's by the feature map's."""
    offset: float

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.prior_box_param
        min_sizes, max_sizes = tuple(p.min_size), tuple(p.max_size)
        if not min_sizes:
            raise LayerError("must provide min_size.")
        if min(min_sizes) <= 0:
            raise LayerError(f"min_size is {min(min_sizes):g}; min_size must be positive.")
        if max_sizes and len(max_sizes) != len(min_sizes):
            raise LayerError(
                f"{len(max_sizes)} max_size for {len(min_sizes)} min_size; none, or one for each, was needed"
            )
        for low, high in zip(min_sizes, max_sizes, strict=False):
            if high <= low:
                raise LayerError(f"max_size {high:g} for min_size {low:g}; max_size must be greater than min_size.")
        if len(p.variance) not in (0, 1, 4):
            raise LayerError(f"{len(p.variance)} variance; Must and only provide 4 variance, or one for all")
        if any(variance <= 0 for variance in p.variance):
            raise LayerError(f"variance {list(p.variance)}; each must be above 0")
        if any(ratio <= 0 for ratio in p.aspect_ratio):
            raise LayerError(f"aspect_ratio {list(p.aspect_ratio)}; each must be above 0")
        return cls(
            min_sizes, max_sizes, _aspect_ratios(p.aspect_ratio, flip=p.flip), p.clip, tuple(p.variance) or (0.1,),
            _image(p), _step(p), p.offset,
        )  # fmt: skip

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        _, _, height, width = legacy_shape(bottoms[0])
        legacy_shape(bottoms[1])
        size = height * width * self.priors * 4
        if size < 1:
            raise LayerError(f"the features are {format_shape(bottoms[0])}; at least one place was needed")
        return [(1, 2, size)]

    @property
    def priors(self) -> int:
        """How many boxes each place has."""
        return len(self.min_sizes) * (1 + len(self.aspect_ratios)) + len(self.max_sizes)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Identity", [onnx.floats("boxes", self.boxes(node.bottom_shapes))], node.tops)

    def sizes(self) -> NDArray[np.float32]:
        """Width and height of each prior of a place, pixels: priors × 2."""
        sizes: list[tuple[float, float]] = []
        for i, low in enumerate(self.min_sizes):
            side = int(low)  # ssd: the sizes go through an int
            sizes.append((side, side))
            if self.max_sizes:
                middle = np.sqrt(float(side) * int(self.max_sizes[i]))
                sizes.append((middle, middle))
            for ratio in self.aspect_ratios:
                root = np.sqrt(np.float32(ratio))
                sizes.append((side * root, side / root))
        return np.array(sizes, np.float32)

    def boxes(self, bottoms: Shapes) -> FloatArray:
        """The top: 1 × 2 × size."""
        _, _, rows, columns = legacy_shape(bottoms[0])
        _, _, *picture = legacy_shape(bottoms[1])
        height, width = self.image or picture
        step_h, step_w = self.step or (np.float32(height) / np.float32(rows), np.float32(width) / np.float32(columns))
        offset = np.float32(self.offset)
        y = (np.arange(rows, dtype=np.float32) + offset) * np.float32(step_h)
        x = (np.arange(columns, dtype=np.float32) + offset) * np.float32(step_w)
        centres = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1).astype(np.float64)  # rows, columns, xy
        halves = self.sizes().astype(np.float64) / 2
        centres = centres[:, :, None, :]
        edges = np.concatenate([centres - halves, centres + halves], axis=-1) / np.array([width, height] * 2)
        edges = edges.astype(np.float32)
        if self.clip:
            edges = np.clip(edges, 0, 1)
        variances = np.broadcast_to(np.array(self.variances, np.float32), edges.shape)
        top: FloatArray = np.stack([edges.ravel(), variances.ravel()])[None]
        return top

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return Gradients((None, None))  # ssd: Backward_cpu returns at once


def _aspect_ratios(ratios_of_layer: Sequence[float], *, flip: bool) -> tuple[float, ...]:
    """The ratios without 1 and without repetitions; with `flip` each is followed by its inverse."""
    ratios = [1.0]
    for ratio in ratios_of_layer:
        if any(abs(ratio - known) < 1e-6 for known in ratios):
            continue
        ratios.append(ratio)
        if flip:
            ratios.append(float(np.float32(1 / ratio)))
    return tuple(ratios[1:])


def _image(p: PriorBoxParameter) -> tuple[int, int] | None:
    if p.HasField("img_h") or p.HasField("img_w"):
        if p.HasField("img_size"):
            raise LayerError("Either img_size or img_h/img_w should be specified; not both.")
        image = (p.img_h, p.img_w)
    elif p.HasField("img_size"):
        image = (p.img_size, p.img_size)
    else:
        return None
    if min(image) < 1:
        raise LayerError(
            f"the picture's size is given as {format_shape(image)} (img_h × img_w); both should be larger than 0."
        )
    return image


def _step(p: PriorBoxParameter) -> tuple[float, float] | None:
    if p.HasField("step_h") or p.HasField("step_w"):
        if p.HasField("step"):
            raise LayerError("Either step or step_h/step_w should be specified; not both.")
        step = (p.step_h, p.step_w)
    elif p.HasField("step"):
        step = (p.step, p.step)
    else:
        return None
    if min(step) <= 0:
        raise LayerError(f"step_h is {step[0]:g}, step_w {step[1]:g}; both should be larger than 0.")
    return step


# -- DetectionOutput ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DetectionOutput(Layer):
    """Boxes from offsets to the prior boxes, thinned by non-maximum suppression, class by class.

    Bottoms: locations N×(priors·4), or N×(priors·classes·4) without `share_location`; confidences N×(priors·classes);
    prior boxes 1×2×(priors·4). Top 1×1×found×7 with rows (picture, label, score, xmin, ymin, xmax, ymax): picture by
    picture, label by label, the best first; where the whole batch has none, a row (picture, -1, …, -1) for each.

    A class takes the `top_k` best boxes whose score lies above `confidence_threshold`, equal ones by their number, and
    keeps a box that overlaps no better kept one by more than `nms_threshold` (intersection over union; nothing
    overlaps a box whose edges are in the wrong order). With `eta` below 1 that threshold sinks by this factor after
    each kept box as long as it is above 0.5. A picture keeps the `keep_top_k` best of all its classes (ssd:
    detection_output_layer.cpp; ApplyNMSFast in bbox_util.cpp).
    """

    bottoms: ClassVar[Arity] = exactly(3)
    data_axis: ClassVar[int | None] = 2
    top_kinds: ClassVar[tuple[str, ...]] = ("detections",)
    computes_in_float32: ClassVar[bool] = True
    float32_tops: ClassVar[tuple[int, ...]] = (0,)
    tops_as_caffe: ClassVar[bool] = True
    is_discontinuous: ClassVar[bool] = True

    num_classes: int
    share_location: bool
    background: int
    code: str
    variance_in_target: bool
    confidence_threshold: float
    nms_threshold: float
    eta: float
    top_k: int | None
    keep_top_k: int | None

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.detection_output_param
        nms = p.nms_param
        if not p.HasField("num_classes"):
            raise LayerError("Must specify num_classes")
        if p.num_classes < 1:
            raise LayerError(f"num_classes is {p.num_classes}; at least 1 was needed")
        if nms.nms_threshold < 0:
            raise LayerError(f"nms_threshold is {nms.nms_threshold:g}; nms_threshold must be non negative.")
        if not 0 < nms.eta <= 1:
            raise LayerError(f"eta is {nms.eta:g}; a value above 0 and at most 1 was needed")
        if p.share_location and p.background_label_id == -1:
            # ssd: the one set of shared boxes has label -1 itself, and is taken for the background's
            raise LayerError(
                "background_label_id is -1 with share_location: true, for which SSD finds no boxes "
                "(Could not find location predictions for label -1); use a background_label_id that no class has, "
                f"such as {p.num_classes}"
            )
        threshold = p.confidence_threshold if p.HasField("confidence_threshold") else LOWEST
        top_k = nms.top_k if nms.HasField("top_k") and nms.top_k > -1 else None
        keep_top_k = p.keep_top_k if p.keep_top_k > -1 else None
        return cls(
            p.num_classes, p.share_location, p.background_label_id, PriorBoxParameter.CodeType.Name(p.code_type),
            p.variance_encoded_in_target, threshold, nms.nms_threshold, nms.eta, top_k, keep_top_k,
        )  # fmt: skip

    def top_shapes(self, bottoms: Shapes) -> Shapes:
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
        if locations[1:] != (number * sets * 4, 1, 1):
            raise LayerError(
                f"the locations are {format_shape(bottoms[0])}, and there are {number} priors and {sets} sets of boxes, "
                f"{number * sets * 4} values a picture; Number of priors must match number of location predictions."
            )
        if confidences[1:] != (number * self.num_classes, 1, 1):
            raise LayerError(
                f"the confidences are {format_shape(bottoms[1])}, and there are {number} priors and {self.num_classes} "
                f"classes, {number * self.num_classes} values a picture; Number of priors must match number of "
                "confidence predictions."
            )
        return [(1, 1, 1, 7)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        pictures = _length(onnx, node.bottoms[1])
        leading = onnx.ints("leading_axes", [0, 1])
        fake = self._no_rows(pictures, onnx)
        if not self.labels or 0 in (self.top_k, self.keep_top_k):
            onnx.emit("Unsqueeze", [fake, leading], node.tops)
            return
        rows = self._rows(node, onnx)
        none = onnx.ints("none", [0])
        found_none = onnx.op("Equal", [_length(onnx, rows), none], what="found_none")
        end = onnx.op("Where", [found_none, pictures, none], what="fake_count")
        fake = onnx.op("Slice", [fake, none, end, none], what="fake_rows")
        rows = onnx.op("Concat", [rows, fake], axis=0, what="rows")
        onnx.emit("Unsqueeze", [rows, leading], node.tops)

    @property
    def labels(self) -> list[int]:
        """The classes that are looked for."""
        return [label for label in range(self.num_classes) if label != self.background]

    def _no_rows(self, pictures: str, onnx: OnnxBuilder) -> str:
        """What stands for a batch without detections: N rows (picture, -1, …, -1)."""
        end = onnx.op("Squeeze", [pictures], what="picture_count")
        numbers = onnx.op("Range", [onnx.ints("zero", 0), end, onnx.ints("one", 1)], what="picture_range")
        numbers = onnx.op("Cast", [numbers], what="picture_numbers", to=FLOAT)
        column = onnx.op("Unsqueeze", [numbers, onnx.ints("column_axis", [1])], what="picture_column")
        more = onnx.ints("six_more", [0, 0, 0, 6])
        return onnx.op("Pad", [column, more, onnx.floats("no_value", -1)], what="no_rows")

    def _rows(self, node: Node, onnx: OnnxBuilder) -> str:
        """The detections, found×7."""
        priors, labels = legacy_shape(node.bottom_shapes[2])[2] // 4, self.labels
        num = onnx.dims(node.bottoms[1])[0]
        groups = None if num is None else num * len(labels)  # a group: one class in one picture
        candidates = priors if self.top_k is None else min(self.top_k, priors)
        per_picture = len(labels) * candidates

        scores, order = self._best(node, onnx, priors, candidates)  # N × labels × candidates
        boxes = self._candidate_boxes(node, onnx, priors, candidates, order)  # groups × candidates × 4
        scores_left = self._suppressed(
            onnx, boxes, onnx.reshape(scores, (groups, candidates), what="group_scores"), candidates
        )  # groups × candidates, bool
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
        boxes = onnx.reshape(boxes, (num, per_picture, 4), what="picture_boxes")
        box = onnx.op("GatherND", [boxes, places], what="box")
        number = onnx.op("Cast", [picture], to=FLOAT, what="picture_number")
        return onnx.op("Concat", [number, label, score, box], axis=1, what="detections")

    def _best(self, node: Node, onnx: OnnxBuilder, priors: int, candidates: int) -> tuple[str, str]:
        """Scores of each class's best priors, best first, and the priors' numbers; N × labels × candidates each."""
        num = onnx.dims(node.bottoms[1])[0]
        scores = onnx.reshape(node.bottoms[1], (num, priors, self.num_classes), what="scores")
        scores = onnx.op("Transpose", [scores], what="class_scores", perm=[0, 2, 1])
        if len(self.labels) < self.num_classes:
            scores = onnx.op("Gather", [scores, onnx.ints("wanted", self.labels)], axis=1, what="wanted_scores")
        best, order = onnx.ops("TopK", [scores, onnx.ints("top_k", [candidates])], 2, what="best", axis=2)
        return best, order

    def _candidate_boxes(self, node: Node, onnx: OnnxBuilder, priors: int, candidates: int, order: str) -> str:
        """The decoded boxes of the priors in `order`: groups × candidates × 4."""
        labels = self.labels
        num = onnx.dims(node.bottoms[0])[0]
        groups = None if num is None else num * len(labels)
        boxes = self._decoded(node, onnx, priors)  # N × priors × sets × 4
        if self.share_location:
            boxes = onnx.reshape(boxes, (num, priors, 4), what="shared_boxes")
            index = onnx.reshape(order, (num, len(labels) * candidates, 1), what="order")
            picked = onnx.op("GatherND", [boxes, index], what="candidates", batch_dims=1)
            return onnx.reshape(picked, (groups, candidates, 4), what="boxes")
        boxes = onnx.op("Transpose", [boxes], what="class_boxes", perm=[0, 2, 1, 3])
        if len(labels) < self.num_classes:
            boxes = onnx.op("Gather", [boxes, onnx.ints("wanted", labels)], axis=1, what="wanted_boxes")
        boxes = onnx.reshape(boxes, (groups, priors, 4), what="group_boxes")
        index = onnx.reshape(order, (groups, candidates, 1), what="order")
        return onnx.op("GatherND", [boxes, index], what="boxes", batch_dims=1)

    def _decoded(self, node: Node, onnx: OnnxBuilder, priors: int) -> str:
        """Locations and prior boxes → boxes xmin, ymin, xmax, ymax: N × priors × sets × 4 (ssd: DecodeBBox)."""
        sets = 1 if self.share_location else self.num_classes
        location = onnx.reshape(node.bottoms[0], (onnx.dims(node.bottoms[0])[0], priors, sets, 4), what="locations")
        both = node.bottoms[2]
        if onnx.dims(both)[0] != 1:  # ssd: the first picture's prior boxes count
            none = onnx.ints("none", [0])
            both = onnx.op("Slice", [both, none, onnx.ints("second", [1]), none], what="first_priors")
        both = onnx.reshape(both, (2, priors, 1, 4), what="priors")
        prior = onnx.op("Gather", [both, onnx.ints("zero", 0)], axis=0, what="prior")  # priors × 1 × 4
        if not self.variance_in_target:
            variance = onnx.op("Gather", [both, onnx.ints("one", 1)], axis=0, what="variance")
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

    def _suppressed(self, onnx: OnnxBuilder, boxes: str, scores: str, candidates: int) -> str:
        """Which candidates of each group stay, bool; boxes groups × candidates × 4, scores groups × candidates."""
        low, high = onnx.ops("Split", [boxes, onnx.ints("halves", [2, 2])], 2, what="edges", axis=-1)
        narrowest = onnx.reduce("ReduceMin", onnx.op("Sub", [high, low], what="extent"), [-1], keepdims=True)
        # ONNX puts edges in order, SSD lets such a box overlap nothing: as does a box without area
        in_order = onnx.op("GreaterOrEqual", [narrowest, onnx.floats("no_extent", 0)], what="in_order")
        boxes = onnx.op("Where", [in_order, boxes, onnx.floats("no_extent", 0)], what="nms_boxes")
        if self.eta < 1 and self.nms_threshold > 0.5:
            return self._suppressed_adaptively(onnx, boxes, scores, candidates)
        selected = onnx.op(
            "NonMaxSuppression",
            [
                boxes, onnx.op("Unsqueeze", [scores, onnx.ints("column_axis", [1])], what="nms_scores"),
                onnx.ints("most", [candidates]), onnx.floats("nms_threshold", [min(self.nms_threshold, 1.0)]),
                onnx.floats("confidence_threshold", [self.confidence_threshold]),
            ],
        )  # fmt: skip
        index = onnx.op("Gather", [selected, onnx.ints("group_and_place", [0, 2])], axis=1, what="selected")
        nothing = onnx.op("Expand", [onnx.bools("no", False), onnx.op("Shape", [scores])], what="nothing")
        ones = onnx.op("Expand", [onnx.bools("yes", True), _length(onnx, selected)], what="all_selected")
        return onnx.op("ScatterND", [nothing, index, ones], what="kept_groups")

    def _suppressed_adaptively(self, onnx: OnnxBuilder, boxes: str, scores: str, candidates: int) -> str:
        """The same with a threshold that sinks (`eta`): candidates one after another, in all groups at once."""
        column, zero = onnx.ints("column_axis", [1]), onnx.floats("nothing", 0)
        above = onnx.op("Greater", [scores, onnx.floats("confidence_threshold", self.confidence_threshold)])
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

        groups = _length(onnx, scores)
        thresholds = onnx.op("Concat", [groups, onnx.ints("a_column", [1])], axis=0, what="threshold_shape")
        states = [
            onnx.op("Expand", [zero, onnx.op("Shape", [scores])], what="none_kept"),
            onnx.op("Expand", [onnx.floats("nms_threshold", self.nms_threshold), thresholds], what="thresholds"),
        ]
        sequences = [
            first(onnx.op("Transpose", [boxes], perm=[1, 0, 2])),
            first(onnx.op("Unsqueeze", [onnx.op("Transpose", [above], perm=[1, 0]), onnx.ints("last_axis", [2])])),
            first(numbers),
        ]
        (left, _), _ = onnx.scan(step, states, sequences, steps=None)
        return onnx.op("Greater", [left, zero], what="kept_groups")

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return refuse_all(propagate_down)


def _length(onnx: OnnxBuilder, value: str) -> str:
    """How long the value's first axis is, as a shape of one axis."""
    return onnx.op("Gather", [onnx.op("Shape", [value]), onnx.ints("none", [0])], axis=0, what="length")


def _area(onnx: OnnxBuilder, extent: str) -> str:
    """width · height: …×2 → …"""
    width, height = onnx.ops("Split", [extent, onnx.ints("ones", [1, 1])], 2, what="sides", axis=-1)
    return onnx.op("Squeeze", [onnx.op("Mul", [width, height]), onnx.ints("sides_axis", [-1])], what="area")


def _best_kept(onnx: OnnxBuilder, scores_left: str, scores: str, number: int) -> str:
    """`scores_left`, of which only the `number` best of each row stay; pictures × places each."""
    lowest = onnx.op("Where", [scores_left, scores, onnx.floats("dropped", -np.inf)], what="kept_scores")
    _, best = onnx.ops("TopK", [lowest, onnx.ints("keep_top_k", [number])], 2, what="kept_best", axis=1)
    nothing = onnx.op("Expand", [onnx.bools("no", False), onnx.op("Shape", [scores_left])], what="nothing")
    ones = onnx.op("Expand", [onnx.bools("yes", True), onnx.op("Shape", [best])], what="all_best")
    chosen = onnx.op("ScatterElements", [nothing, best, ones], axis=1, what="chosen")
    return onnx.op("And", [scores_left, chosen], what="kept_top_k")
