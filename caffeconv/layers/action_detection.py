"""Detection of persons and of what they do (openvinotoolkit/training_toolbox_caffe)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.element_types import FLOAT, INT64
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, at_least, exactly
from caffeconv.layers.detection import DetectionOutput
from caffeconv.layers.detection_inputs import DetectionInputs
from caffeconv.layers.gradient_ops import refuse_all
from caffeconv.tensor.shape import Shapes, count, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

WIDTH = 10
"""Numbers of a detection: those of SSD, then anchor, column and row of its place."""
_NUMBER_OF_ANCHORS = re.compile(r"""['"]num_anchors['"]\s*:\s*(\d+)""")
_THINS = re.compile(r"""['"]use_nms['"]\s*:\s*(True|[1-9])""")


@dataclass(frozen=True)
class DetectionOutputExtended(DetectionOutput):
    """DetectionOutput of persons alone, whose rows say from which place and anchor each box comes.

    Bottoms: locations N×H×W×(anchors·4), confidences N×H×W×(anchors·2), prior boxes. Top 1×1×found×10 with rows
    (picture, 1, score, xmin, ymin, xmax, ymax, anchor, column, row). Label 0 is the background, whatever
    `background_label_id` says (detection_output_extended_layer.cpp).
    """

    bottoms: ClassVar[Arity] = exactly(3)
    class_settings: ClassVar[tuple[str, ...]] = ()

    grid: tuple[int, int, int] = (0, 0, 0)
    """Rows, columns and anchors of the bottom that `lower` writes for."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        own = super().parse(layer)
        if own.num_classes != 2:
            raise LayerError(f"num_classes is {own.num_classes}; Number of main classes must be 2")
        if not own.share_location:
            raise LayerError("share_location is false; boxes of both classes together, the default, were needed")
        return replace(own, background=0)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        locations, confidences, priors = bottoms
        if len(locations) != 4 or locations[3] % 4 or not locations[3]:
            raise LayerError(f"the locations are {format_shape(locations)}; N×H×W×(anchors·4) was needed")
        flat = [(bottom[0], count(bottom, 1)) for bottom in (locations, confidences)]
        super().top_shapes([*flat, priors])
        return [(1, 1, 1, WIDTH)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        _, height, width, channels = node.bottom_shapes[0]
        sized = replace(self, grid=(height, width, channels // 4))
        super(DetectionOutputExtended, sized).lower(node, onnx)

    def _width(self, inputs: DetectionInputs) -> int:
        return 4 + 3

    def _beside(self, inputs: DetectionInputs, onnx: OnnxBuilder, boxes: str) -> str:
        row, column, anchor = np.indices(self.grid).reshape(3, -1)
        places = onnx.floats("places", np.stack([anchor, column, row], axis=-1)[None])
        bounds = [onnx.ints("from", [0]), onnx.ints("to", [3]), onnx.ints("numbers", [2])]
        like = onnx.op("Shape", [onnx.op("Slice", [boxes, *bounds], what="three_each")], what="of_all_pictures")
        return onnx.op("Expand", [places, like], what="places_of_pictures")


@dataclass(frozen=True)
class ActionsDetectionOutput(Layer):
    """What each detected person does: the action of the greatest confidence at the box's place, a layer in Python.

    Bottoms: rows 1×1×found×10 of DetectionOutputExtended, and N×H×W×actions for each anchor. Top 1×1×found×8 with rows
    (picture, action, score, the action's confidence, xmin, ymin, xmax, ymax) (actions_detection_output_layer.py).
    """

    bottoms: ClassVar[Arity] = at_least(2)
    in_place: ClassVar[bool] = False
    data_axis: ClassVar[int | None] = 2
    computes_in_float32: ClassVar[bool] = True
    float32_tops: ClassVar[tuple[int, ...]] = (0,)
    tops_as_caffe: ClassVar[bool] = True
    is_discontinuous: ClassVar[bool] = True

    anchors: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        said = layer.proto.python_param.param_str
        number = _NUMBER_OF_ANCHORS.search(said)
        if number is None or int(number[1]) < 1:
            raise LayerError(f"param_str is {said!r}; {{'num_anchors': 4}} was needed")
        if _THINS.search(said):
            raise LayerError(
                f"param_str is {said!r}; without use_nms was needed, which has no rule here. With `allow_python=True` the "
                "module itself runs, where it can be found"
            )
        return cls(int(number[1]))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        rows, *actions = bottoms
        if len(actions) != self.anchors or any(len(shape) != 4 or shape != actions[0] for shape in actions):
            raise LayerError(
                f"the bottoms after the first are {', '.join(map(format_shape, actions))}; {self.anchors} of one shape "
                "N×H×W×actions were needed, one for each anchor"
            )
        if count(rows) % WIDTH:
            raise LayerError(f"the detections are {format_shape(rows)}; rows of {WIDTH} numbers were needed")
        return [(1, 1, 1, 8)]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        rows, *actions = node.bottoms
        rows = onnx.op("Reshape", [rows, onnx.ints("by_row", [-1, WIDTH])], what="rows")

        def columns(what: str, numbers: Sequence[int]) -> str:
            return onnx.op("Gather", [rows, onnx.ints(f"{what}_columns", numbers)], axis=1, what=what)

        stacked = [onnx.op("Unsqueeze", [value, onnx.ints("anchor_axis", [0])], what="anchor") for value in actions]
        by_anchor = onnx.op("Concat", stacked, axis=0, what="by_anchor")  # anchors × N × H × W × actions
        place = onnx.op("Cast", [columns("anchor_picture_row_column", [7, 0, 9, 8])], to=INT64, what="place")
        confidences = onnx.op("GatherND", [by_anchor, place], what="confidences")
        action = onnx.op("ArgMax", [confidences], axis=1, keepdims=1, what="action")
        parts = [
            columns("picture", [0]), onnx.op("Cast", [action], to=FLOAT, what="action_number"), columns("score", [2]),
            onnx.reduce("ReduceMax", confidences, [1], keepdims=True, what="greatest"), columns("box", [3, 4, 5, 6]),
        ]  # fmt: skip
        found = onnx.op("Concat", parts, axis=1, what="detections")
        onnx.emit("Unsqueeze", [found, onnx.ints("leading_axes", [0, 1])], node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return refuse_all(propagate_down)
