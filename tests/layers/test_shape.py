"""Layers that give their bottom another shape: what values decide is not guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.small_nets import write_net

import caffeconv

BOXES = """
layer { name: "y" type: "Yolov3DetectionOutput" bottom: "x" top: "boxes" yolov3_detection_output_param {
  num_classes: 1 num_box: 1 mask_group_num: 1 biases: 10 biases: 13 anchors_scale: 32 mask: 0 } }
layer { name: "s" type: "Squeeze" bottom: "boxes" top: "rows" squeeze_param { %s } }
"""


def test_squeeze_drops_no_axis_whose_length_values_decide(tmp_path: Path) -> None:
    path = write_net(tmp_path, {"x": (1, 6, 1, 1)}, BOXES % "")
    with pytest.raises(caffeconv.CaffeconvError, match="needs to know which axes have length 1; `axis` says which"):
        caffeconv.convert(path)
    caffeconv.convert(write_net(tmp_path, {"x": (1, 6, 1, 1)}, BOXES % "axis: 0 axis: 1"))


def test_nothing_is_written_for_the_size_that_was_guessed(tmp_path: Path) -> None:
    """Whatever the layer: its nodes are compared with those for another size."""
    boxes = BOXES.partition('layer { name: "s"')[0]
    fields = "unpooling_param { kernel_size: 2 stride: 2 unpool_h: 2 unpool_w: 14 }"
    layer = f'layer {{ name: "u" type: "Unpooling" bottom: "boxes" top: "u" {fields} }}'
    with pytest.raises(caffeconv.CaffeconvError, match="u: it needs to know the size of a bottom, which values decide"):
        caffeconv.convert(write_net(tmp_path, {"x": (1, 6, 1, 1)}, boxes + layer))
