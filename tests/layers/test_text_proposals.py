"""CTPN's text proposals against its own code's steps, written with loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import run_model, write_net

import caffeconv

F = np.float32
LAYER = """layer { name: "p" type: "Python" bottom: "scores" bottom: "offsets" bottom: "im_info" top: "rois" top: "found"
    python_param { module: "layers.text_proposal_layer" layer: "ProposalLayer" param_str: "PARAMETERS" } }
"""


def test_boxes_move_up_and_down_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    scores, offsets = rng.random((1, 20, 2, 3)).astype(F), rng.normal(0, 0.5, (1, 20, 2, 3)).astype(F)
    info = np.array([[32, 40, 1]], F)
    feeds = {"scores": scores, "offsets": offsets, "im_info": info}
    layer = LAYER.replace("PARAMETERS", "'feat_stride': 16")
    got = run_model(caffeconv.convert(write_net(tmp_path, {k: v.shape for k, v in feeds.items()}, layer)), feeds)
    rows = []
    for y, x in np.ndindex(2, 3):
        for k, (up, down) in enumerate([(2, 12), (0, 15), (-3, 18), (-8, 23), (-16, 31), (-26, 41), (-40, 55), (-61, 76),
                                        (-91, 106), (-133, 148)]):  # fmt: skip
            height, middle = down - up + 1, (up + down) / 2 + 16 * y
            dy, dh = offsets[0, 2 * k : 2 * k + 2, y, x]
            grown = np.exp(dh) * height
            low = dy * height + middle - grown / 2
            box = np.array([16 * x, low, 16 * x + 15, low + grown])
            rows.append(np.clip(box, 0, [39, 31, 39, 31]))
    np.testing.assert_allclose(got["rois"], rows, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(got["found"][:, 0], scores[0, 10:].transpose(1, 2, 0).ravel())


@pytest.mark.parametrize(
    ("scores", "parameters", "complaint"),
    [
        ((1, 20, 2, 3), "'scales': [8]", "'feat_stride': 16 was needed"),
        ((1, 18, 2, 3), "'feat_stride': 16", "1×20×H×W was needed"),
        ((2, 20, 2, 3), "'feat_stride': 16", "Only single item batches"),
    ],
)
def test_refusals(tmp_path: Path, scores: tuple[int, ...], parameters: str, complaint: str) -> None:
    inputs = {"scores": scores, "offsets": scores, "im_info": (1, 3)}
    with pytest.raises(caffeconv.CaffeconvError, match=complaint):
        caffeconv.convert(write_net(tmp_path, inputs, LAYER.replace("PARAMETERS", parameters)))
