"""Prior boxes of SSD's forks: whose rule a text follows, and what no rule takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.small_nets import write_net

import caffeconv


@pytest.mark.parametrize(
    ("inputs", "layer", "complaint"),
    [
        (
            {"f": (1, 2, 2, 2), "d": (1, 3, 8, 8)},
            'type: "PriorBox" prior_box_param { min_size: 32 min_size: 64 min_size: 128 }',
            "`dialect='ssd'`",
        ),
        (
            {"f": (1, 2, 2, 2), "d": (1, 3, 8, 8)},
            'type: "PriorBox" prior_box_param { min_size: 32 max_size: 64 faceboxes: true }',
            "squares of min_size alone",
        ),
        (
            {"f": (1, 2, 2, 2), "d": (1, 3, 8, 8)},
            'type: "PriorBox" prior_box_param { box_width: 4 }',
            "1 box_width and 0 box_height",
        ),
        (
            {"f": (1, 2, 2, 2), "d": (1, 3, 8, 8)},
            'type: "PriorBoxClustered" prior_box_param { min_size: 4 }',
            "a pair for each prior was needed",
        ),
        (
            {"f": (1, 2, 2, 2), "d": (1, 3, 8, 8)},
            'type: "PriorBoxClustered" prior_box_param { width: 4 height: 0 }',
            "each must be above 0",
        ),
    ],
)
def test_refused(tmp_path: Path, inputs: dict[str, tuple[int, ...]], layer: str, complaint: str) -> None:
    bottoms = " ".join(f'bottom: "{name}"' for name in inputs)
    path = write_net(tmp_path, inputs, f'layer {{ name: "l" {bottoms} top: "y" {layer} }}')
    with pytest.raises(caffeconv.CaffeconvError) as error:
        caffeconv.convert(path)
    assert complaint in str(error.value)
