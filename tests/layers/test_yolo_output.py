"""The detections of YOLO nets: what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.golden_cases import forward
from support.small_nets import Array, write_net

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
            {"x": (1, 16, 13, 14)},
            'type: "DetectionOutput" detection_output_param { num_classes: 3 num_box: 2 biases: [1, 2, 3, 4] }',
            "as many rows as columns",
        ),
        (
            {"x": (1, 16, 3, 3)},
            'type: "DetectionOutput" detection_output_param { num_classes: 3 num_box: 2 biases: [1, 2, 3, 4] }',
            "13×13 places (side)",
        ),
        (
            {"x": (1, 16, 3, 3)},
            'type: "DetectionOutput" detection_output_param { num_classes: 3 biases: [1, 2, 3, 4] side: 3 }',
            "two biases for each",
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


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union of boxes given by middle and size."""
    sides = [
        min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2) - max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2) for i in (0, 1)
    ]
    shared = max(sides[0], 0) * max(sides[1], 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def region_rows(x: Array, anchors: list[tuple[float, float]], confidence: float, threshold: float) -> list[list[float]]:
    """caffe-yolov2's rule, box by box."""
    boxes, side = x.reshape(len(anchors), -1, *x.shape[2:]), x.shape[2]
    rows: list[list[float]] = []
    for y, left, n in np.ndindex(side, side, len(anchors)):
        values = boxes[n, :, y, left]
        classes = np.exp(values[5:]) / np.exp(values[5:]).sum()
        score = sigmoid(values[4]) * classes.max()
        middle = [(left + sigmoid(values[0])) / side, (y + sigmoid(values[1])) / side]
        box = [*middle, *(np.exp(values[2:4]) * anchors[n] / side)]
        if score >= confidence and all(overlap(box, row[3:]) < threshold for row in rows):
            rows.append([0, classes.argmax(), score, *box])
    return rows


def test_detections_of_yolo_v2_in_the_order_of_places(tmp_path: Path) -> None:
    fields = "num_classes: 3 num_box: 2 side: 4 biases: [1, 2, 3, 1.5] confidence_threshold: 0.3 nms_threshold: 0.2"
    text = f'layer {{ name: "l" type: "DetectionOutput" bottom: "x" top: "y" detection_output_param {{ {fields} }} }}'
    net = caffeconv.Net(write_net(tmp_path, {"x": (1, 16, 4, 4)}, text))
    x = np.random.default_rng(1).normal(0, 1, (1, 16, 4, 4)).astype(np.float32)
    rows = region_rows(x, [(1, 2), (3, 1.5)], 0.3, 0.2)
    assert 3 < len(rows) < 32
    np.testing.assert_allclose(forward(net, {"x": x})["y"][0, 0], rows, rtol=1e-5, atol=1e-6)
    x[:, 4::8] = -20
    np.testing.assert_array_equal(forward(net, {"x": x})["y"], np.full((1, 1, 1, 7), -1) + np.eye(1, 7))


def test_second_map_counts_too(tmp_path: Path) -> None:
    fields = "num_classes: 2 num_box: 1 biases: [1, 1] confidence_threshold: 0.3"
    text = 'layer { name: "l" type: "YoloDetectionOutput" bottom: "a" bottom: "b" top: "y" '
    text += f"yolo_detection_output_param {{ {fields} }} }}"
    maps = {"a": np.zeros((1, 7, 2, 2), np.float32), "b": np.zeros((1, 7, 4, 4), np.float32)}
    for name, row, column in (("a", 1, 0), ("b", 0, 3)):
        maps[name][0, 4] = -20
        maps[name][0, 4:6, row, column] = 9
    net = caffeconv.Net(write_net(tmp_path, {name: x.shape for name, x in maps.items()}, text))
    boxes = forward(net, maps)["y"][0, 0, :, 3:]
    np.testing.assert_allclose(sorted(map(tuple, boxes)), [(0, 0.5, 0.5, 1), (0.75, 0, 1, 0.25)], atol=1e-6)
