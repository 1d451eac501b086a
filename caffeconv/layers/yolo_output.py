"""The detections of YOLO nets (eric612/MobileNet-YOLO): YoloDetectionOutput and Yolov3DetectionOutput."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import FLOAT
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, at_least, exactly
from caffeconv.layers.detection import emit_detections, no_detections
from caffeconv.layers.detection_suppression import length
from caffeconv.layers.gradient_ops import refuse_all
from caffeconv.tensor.shape import Shape, Shapes, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

Size = tuple[float, float]
"""width, height"""


@dataclass(frozen=True)
class YoloOutput(Layer):
    """Boxes of anchors at every place of some maps N×(boxes·(5+classes))×H×W, thinned by non-maximum suppression.

    Of each box x, y, log w, log h, objectness, classes. Top 1×1×found×7 with rows (0, label from 1, confidence, xmin,
    ymin, xmax, ymax), fractions of the picture, the best first; N rows (picture, -1, …, -1) where there are none. A box
    counts with its best class. All boxes, those of other classes and pictures too, are thinned together, and go from an
    overlap of `nms_threshold` on.
    """

    data_axis: ClassVar[int | None] = 2
    in_place: ClassVar[bool] = False
    top_kinds: ClassVar[tuple[str, ...]] = ("detections",)
    computes_in_float32: ClassVar[bool] = True
    float32_tops: ClassVar[tuple[int, ...]] = (0,)
    tops_as_caffe: ClassVar[bool] = True
    is_discontinuous: ClassVar[bool] = True
    first_label: ClassVar[int] = 1

    num_classes: int
    num_box: int
    confidence_threshold: float
    nms_threshold: float

    @abstractmethod
    def _anchors(self, number: int, shape: Shape) -> Sequence[Size]:
        """The anchors of bottom `number`, of that shape, as multiples of a place's size."""

    @abstractmethod
    def _class_scores(self, onnx: OnnxBuilder, values: str) -> str:
        """The classes' scores, N × boxes × classes."""

    @abstractmethod
    def _least_confidence(self) -> float:
        """The number above which a box counts."""

    def _maps(self, bottoms: Shapes) -> Shapes:
        return bottoms

    def _shown(self, onnx: OnnxBuilder, boxes: str) -> str:
        """What the rows say of boxes that are given by their edges, …×4."""
        return boxes

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        channels = self.num_box * (5 + self.num_classes)
        for shape in self._maps(bottoms):
            if len(shape) != 4 or shape[1] != channels:
                raise LayerError(
                    f"a bottom is {format_shape(shape)}; N×{channels}×H×W was needed: num_box × (5 + num_classes) channels"
                )
        return [(1, 1, 1, 7)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        maps = self._maps(node.bottom_shapes)
        parts = [self._of_map(node, onnx, i, shape) for i, shape in enumerate(maps)]
        boxes, scores = (
            onnx.op("Concat", [part[i] for part in parts], axis=1, what=what)
            for i, what in enumerate(("boxes", "scores"))
        )
        boxes = onnx.reshape(boxes, (1, None, 4), what="all_boxes")
        scores = onnx.reshape(scores, (None, self.num_classes), what="all_scores")
        label = onnx.op("ArgMax", [scores], axis=1, keepdims=1, what="class")
        score = onnx.reduce("ReduceMax", scores, [1], keepdims=False, what="confidence")

        index = self._survivors(onnx, boxes, score)
        label = onnx.op("Cast", [onnx.op("Gather", [label, index], axis=0, what="class")], to=FLOAT, what="class")
        label = onnx.op("Add", [label, onnx.floats("first_label", self.first_label)], what="label")
        score = onnx.op("Gather", [score, index], axis=0, what="score")
        score = onnx.op("Unsqueeze", [score, onnx.ints("column_axis", [1])], what="score")
        box = onnx.op("Gather", [onnx.reshape(boxes, (None, 4), what="box_rows"), index], axis=0, what="box")
        picture = onnx.op("Mul", [score, onnx.floats("picture", 0)], what="picture")
        rows = onnx.op("Concat", [picture, label, score, self._shown(onnx, box)], axis=1, what="detections")
        pictures = length(onnx, node.bottoms[0])
        emit_detections(node, onnx, rows, no_detections(onnx, pictures, 7), pictures)

    def _of_map(self, node: Node, onnx: OnnxBuilder, number: int, shape: Shape) -> tuple[str, str]:
        """Boxes N × places × 4 (edges), and confidences of all classes N × places × classes, of one map."""
        num, (height, width) = onnx.dims(node.bottoms[number])[0], shape[2:]
        count = self.num_box * height * width
        values = onnx.reshape(
            node.bottoms[number], (num, self.num_box, 5 + self.num_classes, height * width), what="map"
        )
        values = onnx.op("Transpose", [values], perm=[0, 1, 3, 2], what="by_box")
        values = onnx.reshape(values, (num, count, 5 + self.num_classes), what="values")
        sizes = onnx.ints("parts", [2, 2, 1, self.num_classes])
        move, growth, objectness, classes = onnx.ops("Split", [values, sizes], 4, what="part", axis=2)

        y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
        places = np.tile(np.stack([x, y], axis=-1).reshape(-1, 2), (self.num_box, 1))
        anchors = np.repeat(np.array(self._anchors(number, shape)), height * width, axis=0)
        cells = onnx.floats(f"cells_{number}", [width, height])
        centre = onnx.op("Add", [onnx.op("Sigmoid", [move]), onnx.floats(f"places_{number}", places)], what="centre")
        centre = onnx.op("Div", [centre, cells], what="centre")
        size = onnx.op("Mul", [onnx.op("Exp", [growth]), onnx.floats(f"anchors_{number}", anchors)], what="size")
        half = onnx.op("Mul", [onnx.op("Div", [size, cells], what="size"), onnx.floats("half", 0.5)], what="half_size")
        edges = [onnx.op(sign, [centre, half], what="edge") for sign in ("Sub", "Add")]
        boxes = onnx.op("Concat", edges, axis=2, what="map_boxes")
        scores = onnx.op(
            "Mul", [onnx.op("Sigmoid", [objectness]), self._class_scores(onnx, classes)], what="map_scores"
        )
        return boxes, scores

    def _survivors(self, onnx: OnnxBuilder, boxes: str, score: str) -> str:
        """The numbers of the boxes that stay, the best first: found."""
        # ONNX drops a box above the threshold, this rule from the threshold on; at 0 that is every box but the first
        threshold = np.nextafter(np.float32(self.nms_threshold), np.float32(-1))
        most = 1 if threshold < 0 else np.iinfo(np.int32).max
        scores = onnx.op("Unsqueeze", [score, onnx.ints("leading_axes", [0, 1])], what="nms_scores")
        selected = onnx.op(
            "NonMaxSuppression",
            [
                boxes, scores, onnx.ints("most", [most]), onnx.floats("nms_threshold", [np.clip(threshold, 0, 1)]),
                onnx.floats("confidence_threshold", [self._least_confidence()]),
            ],
            what="selected",
        )  # fmt: skip
        return onnx.reshape(
            onnx.op("Gather", [selected, onnx.ints("box_column", [2])], axis=1, what="selected"),
            (None,),
            what="selected",
        )

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return refuse_all(propagate_down)


@dataclass(frozen=True)
class YoloDetectionOutput(YoloOutput):
    """YOLO v2: one map or two, anchors in places, a softmax over the classes (yolo_detection_output_layer.cpp)."""

    bottoms: ClassVar[Arity] = Arity(1, 2)
    settings: ClassVar[str] = "yolo_detection_output_param"

    anchors: tuple[Size, ...]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.yolo_detection_output_param
        anchors = _pairs(p.biases)
        if p.coords != 4:
            raise LayerError(f"coords is {p.coords}; 4 was needed")
        if len(anchors) != p.num_box or p.num_classes < 1:
            raise LayerError(
                f"{len(p.biases)} biases for num_box {p.num_box} and num_classes {p.num_classes}; two biases for each "
                "box and at least one class were needed"
            )
        return cls(p.num_classes, p.num_box, p.confidence_threshold, p.nms_threshold, anchors)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        shapes = super().top_shapes(bottoms)
        for shape in self._maps(bottoms):
            if shape[2] != shape[3]:
                raise LayerError(f"a bottom is {format_shape(shape)}; as many rows as columns were needed")
        return shapes

    def _anchors(self, number: int, shape: Shape) -> Sequence[Size]:
        return self.anchors

    def _class_scores(self, onnx: OnnxBuilder, values: str) -> str:
        return onnx.op("Softmax", [values], axis=2, what="classes")

    def _least_confidence(self) -> float:
        return float(np.nextafter(np.float32(self.confidence_threshold), np.float32(-1)))  # the threshold itself counts


@dataclass(frozen=True)
class RegionDetectionOutput(YoloDetectionOutput):
    """DetectionOutput of gklz1982/caffe-yolov2, the forerunner of YoloDetectionOutput, for one picture.

    Rows (0, label from 0, confidence, x, y, w, h), x and y of the middle, in the order of the places, row by row, and of
    the anchors at each. In that order, not by their confidence, boxes drop later ones that overlap them.
    """

    bottoms: ClassVar[Arity] = exactly(1)
    settings: ClassVar[str] = "detection_output_param"
    first_label: ClassVar[int] = 0

    side: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.detection_output_param
        anchors = _pairs(p.biases)
        if p.coords != 4:
            raise LayerError(f"coords is {p.coords}; 4 was needed")
        if not p.HasField("num_classes") or p.num_classes < 1 or len(anchors) != p.num_box:
            raise LayerError(
                f"{len(p.biases)} biases for num_box {p.num_box} and num_classes {p.num_classes}; two biases for each box "
                "and at least one class were needed"
            )
        confidence = p.confidence_threshold if p.HasField("confidence_threshold") else 0.01
        return cls(p.num_classes, p.num_box, confidence, p.nms_threshold, anchors, p.side)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        shapes = super().top_shapes(bottoms)
        if bottoms[0][0] != 1 or bottoms[0][2] != self.side:
            raise LayerError(
                f"the bottom is {format_shape(bottoms[0])}; one picture of {self.side}×{self.side} places (side) was needed"
            )
        return shapes

    def _shown(self, onnx: OnnxBuilder, boxes: str) -> str:
        low, high = onnx.ops("Split", [boxes, onnx.ints("halves", [2, 2])], 2, what="corners", axis=1)
        middle = onnx.op("Mul", [onnx.op("Add", [low, high]), onnx.floats("half", 0.5)], what="middle")
        return onnx.op("Concat", [middle, onnx.op("Sub", [high, low], what="extent")], axis=1, what="shown")

    def _survivors(self, onnx: OnnxBuilder, boxes: str, score: str) -> str:
        places = self.side * self.side
        counts = onnx.op("GreaterOrEqual", [score, onnx.floats("least", self.confidence_threshold)], what="counts")
        # candidates run anchor by anchor
        turns = np.arange(places * self.num_box).reshape(places, self.num_box).T.ravel()
        ranks = onnx.floats("ranks", places * self.num_box - turns)
        return super()._survivors(onnx, boxes, onnx.op("Where", [counts, ranks, onnx.floats("none", 0)], what="rank"))

    def _least_confidence(self) -> float:
        return 0.5  # ranks, from 1 on


@dataclass(frozen=True)
class Yolov3DetectionOutput(YoloOutput):
    """YOLO v3: several maps, anchors in pixels, each class by itself (yolov3_detection_output_layer.cpp).

    Map t has the anchors that its share of `mask` names, and `anchors_scale[t]` pixels a place. Caffe enters a box once
    for each class above the threshold; as these overlap wholly, the best one is what its suppression leaves of them.
    """

    bottoms: ClassVar[Arity] = at_least(1)
    settings: ClassVar[str] = "yolov3_detection_output_param"

    anchors: tuple[Size, ...]
    """In pixels, map by map."""
    pixels: tuple[int, ...]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.yolov3_detection_output_param
        if p.gaussian_box:
            raise LayerError("gaussian_box: true is not supported: the layer's two implementations disagree there")
        maps, sizes = len(layer.bottoms), _pairs(p.biases)
        share = len(p.mask) // max(p.mask_group_num, 1)
        if len(p.anchors_scale) < maps or share < p.num_box or p.mask_group_num < maps or p.num_classes < 1:
            raise LayerError(
                f"{maps} bottoms, {len(p.anchors_scale)} anchors_scale, {len(p.mask)} mask in {p.mask_group_num} groups of "
                f"num_box {p.num_box}, num_classes {p.num_classes}; an anchors_scale and a group of num_box masks for each "
                "bottom, and at least one class, were needed"
            )
        masks = [p.mask[i * share + n] for i in range(maps) for n in range(p.num_box)]
        if max(masks, default=0) >= len(sizes):
            raise LayerError(f"mask {max(masks)} with {len(p.biases)} biases; two biases for each anchor were needed")
        return cls(
            p.num_classes, p.num_box, p.confidence_threshold, p.nms_threshold, tuple(sizes[mask] for mask in masks),
            tuple(p.anchors_scale[:maps]),
        )  # fmt: skip

    def _anchors(self, number: int, shape: Shape) -> Sequence[Size]:
        own = self.anchors[number * self.num_box : (number + 1) * self.num_box]
        return [(width / self.pixels[number], height / self.pixels[number]) for width, height in own]

    def _class_scores(self, onnx: OnnxBuilder, values: str) -> str:
        return onnx.op("Sigmoid", [values], what="classes")

    def _least_confidence(self) -> float:
        return self.confidence_threshold


def _pairs(biases: Sequence[float]) -> tuple[Size, ...]:
    return tuple(zip(biases[::2], biases[1::2], strict=False))
