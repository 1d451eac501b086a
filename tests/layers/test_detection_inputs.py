"""The bottoms of DetectionOutput in SSD's forks: what no form takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.small_nets import write_net

import caffeconv


@pytest.mark.parametrize(
    ("inputs", "layer", "complaint"),
    [
        (
            {"l": (1, 8), "c": (1, 4), "p": (1, 2, 8), "a": (1, 3), "b": (1, 8)},
            'type: "DetectionOutput" detection_output_param { num_classes: 2 }',
            "two for each of 2 priors",
        ),
        (
            {"l": (1, 8), "c": (1, 4), "p": (1, 2, 8), "a": (1, 4), "b": (1, 7)},
            'type: "DetectionOutput" detection_output_param { num_classes: 2 }',
            "four for each of 2 priors",
        ),
        (
            {"l": (1, 8), "c": (1, 4), "p": (1, 2, 8)},
            'type: "DetectionOutput" detection_output_param { num_classes: 2 no_permute: true }',
            "no_permute without nbottom",
        ),
        (
            {"l": (1, 8), "c": (1, 4), "p": (1, 2, 8), "q": (1, 2, 8)},
            'type: "DetectionOutput" detection_output_param { num_classes: 2 nbottom: 2 }',
            "4 bottoms with nbottom 2",
        ),
        (
            {"l": (1, 24), "c": (1, 4), "p": (1, 2, 8)},
            'type: "DetectionOutput" detection_output_param { num_classes: 2 }',
            "polygons with code_type CORNER",
        ),
        (
            {"l": (1, 8), "c": (1, 4), "p": (1, 2, 8)},
            'type: "DetectionOutput" detection_output_param { num_classes: 2 nms_param { soft_nms: true theta: 0 } }',
            "theta is 0",
        ),
    ],
)
def test_refused(tmp_path: Path, inputs: dict[str, tuple[int, ...]], layer: str, complaint: str) -> None:
    bottoms = " ".join(f'bottom: "{name}"' for name in inputs)
    path = write_net(tmp_path, inputs, f'layer {{ name: "l" {bottoms} top: "y" {layer} }}')
    with pytest.raises(caffeconv.CaffeconvError) as error:
        caffeconv.convert(path)
    assert complaint in str(error.value)
