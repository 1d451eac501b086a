"""The boxes of mscnn and Cascade R-CNN: what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import write_net

import caffeconv


@pytest.mark.parametrize(
    ("inputs", "layer", "complaint"),
    [
        (
            {"x": (1, 6, 3, 3)},
            'type: "BoxOutput" box_output_param { field_w: 8 field_h: 8 }',
            "one of each for every bottom",
        ),
        (
            {"x": (1, 6, 3, 3)},
            'type: "BoxOutput" box_output_param { field_w: 8 field_h: 8 downsample_rate: 4 nms_type: "SOFT" }',
            "IOU, IOMU or IOFU was needed",
        ),
        ({"x": (1, 2, 3, 3), "b": (1, 4, 3, 3)}, 'type: "BoxGroupOutput"', "one for each pair was needed"),
        (
            {"x": (3, 2, 3, 3), "b": (3, 4, 3, 3)},
            'type: "BoxGroupOutput" '
            "box_group_output_param { box_group_param { field_w: [8, 9] field_h: [8, 9] stride: 4 } }",
            "were needed",
        ),
        ({"x": (3, 4), "b": (3, 5)}, 'type: "DecodeBBox"', "R×8 and R×5 were needed"),
        ({"x": (3, 8), "b": (3, 5)}, 'type: "DecodeBBox" bbox_reg_param { bbox_std: 1 }', "1 bbox_std; four, or none"),
        ({"p": (3, 2), "o": (3, 4), "r": (3, 5), "s": (1, 2)}, 'type: "FrcnnOutput"', "R×classes, R×8"),
        ({"r": (3, 5), "f": (3, 2)}, 'type: "ScaleRoute"', "1 tops for 2 bottoms"),
    ],
)
def test_refused(tmp_path: Path, inputs: dict[str, tuple[int, ...]], layer: str, complaint: str) -> None:
    bottoms = " ".join(f'bottom: "{name}"' for name in inputs)
    path = write_net(tmp_path, inputs, f'layer {{ name: "l" {bottoms} top: "y" {layer} }}')
    with pytest.raises(caffeconv.CaffeconvError) as error:
        caffeconv.convert(path)
    assert complaint in str(error.value)


def test_a_side_of_just_min_size_is_kept_anywhere(tmp_path: Path) -> None:
    """The field's half is the least side that there is, and it is not measured again between the corners."""
    fields = "field_w: 30 field_h: 30 downsample_rate: 8 iou_thr: 1 fg_thr: 0.5"
    text = f'layer {{ name: "l" type: "BoxOutput" bottom: "x" top: "y" box_output_param {{ {fields} }} }}'
    x = np.zeros((1, 6, 2, 40), np.float32)
    x[:, 1], x[:, 4:] = 1, -9
    x[:, 2] = np.random.default_rng(4).uniform(-0.3, 0.3, (2, 40))
    net = caffeconv.Net(write_net(tmp_path, {"x": x.shape}, text))
    net.forward(x=x)
    middles = x[0, 2] * 30 + (np.arange(40) + 0.5) * 8
    whole = middles + 7.5 <= 320  # the others are cut off at the picture's right edge
    assert len(net.blobs["y"].data) == whole[0].sum() > 30  # and those of the lower row at the lower one
