"""The detections of YOLO nets: what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.small_nets import write_net

import caffeconv


@pytest.mark.parametrize(
    ("inputs", "layer", "complaint"),
    [
        (
            {"x": (1, 16, 3, 3)},
            'type: "YoloDetectionOutput" yolo_detection_output_param { num_classes: 3 num_box: 2 biases: 1 biases: 2 }',
            "two biases for each",
        ),
        (
            {"x": (1, 8, 3, 4)},
            'type: "YoloDetectionOutput" yolo_detection_output_param { num_classes: 3 num_box: 1 biases: 1 biases: 2 }',
            "as many rows as columns",
        ),
        (
            {"x": (1, 7, 3, 3)},
            'type: "YoloDetectionOutput" yolo_detection_output_param { num_classes: 3 num_box: 1 biases: 1 biases: 2 }',
            "N×8×H×W was needed",
        ),
        (
            {"x": (1, 8, 3, 3)},
            'type: "Yolov3DetectionOutput" yolov3_detection_output_param { num_classes: 3 num_box: 1 mask: 0 }',
            "an anchors_scale and a group",
        ),
        (
            {"x": (1, 8, 3, 3)},
            'type: "Yolov3DetectionOutput" yolov3_detection_output_param { gaussian_box: true }',
            "gaussian_box: true is not supported",
        ),
    ],
)
def test_refused(tmp_path: Path, inputs: dict[str, tuple[int, ...]], layer: str, complaint: str) -> None:
    bottoms = " ".join(f'bottom: "{name}"' for name in inputs)
    path = write_net(tmp_path, inputs, f'layer {{ name: "l" {bottoms} top: "y" {layer} }}')
    with pytest.raises(caffeconv.CaffeconvError) as error:
        caffeconv.convert(path)
    assert complaint in str(error.value)
