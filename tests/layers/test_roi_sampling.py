"""Layers that sample regions of interest: what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.small_nets import write_net

import caffeconv


@pytest.mark.parametrize(
    ("inputs", "layer", "complaint"),
    [
        (
            {"x": (1, 2, 4, 4), "r": (3, 5)},
            'type: "ROIAlign" roi_align_param { pooled_h: 2 pooled_w: 2 }',
            "roi_align_param, Mask R-CNN's rule",
        ),
        ({"x": (1, 2, 4, 4), "r": (3, 5)}, 'type: "ROIAlign" roi_pooling_param { pooled_h: 2 }', "both must be > 0"),
        (
            {"x": (1, 2, 4, 4), "r": (3, 4)},
            'type: "ROIWarping" roi_warping_param { pooled_h: 2 pooled_w: 2 }',
            "R×5 was needed",
        ),
        (
            {"x": (1, 2, 4, 4), "r": (3, 5)},
            'type: "PSROIAlign" psroi_pooling_param { spatial_scale: 1 output_dim: 1 group_size: 2 }',
            "output_dim × group_size × group_size = 4",
        ),
        ({"x": (1, 2, 4, 4), "m": (1, 2, 4, 4)}, 'type: "MaskPooling"', "N×1×H×W were needed"),
        ({"x": (1, 1, 4, 4)}, 'type: "MaskResize" mask_resize_param { output_height: 3 }', "must be larger than 0"),
    ],
)
def test_refused(tmp_path: Path, inputs: dict[str, tuple[int, ...]], layer: str, complaint: str) -> None:
    bottoms = " ".join(f'bottom: "{name}"' for name in inputs)
    path = write_net(tmp_path, inputs, f'layer {{ name: "l" {bottoms} top: "y" {layer} }}')
    with pytest.raises(caffeconv.CaffeconvError) as error:
        caffeconv.convert(path)
    assert complaint in str(error.value)
