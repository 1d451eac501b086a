"""Greedy suppression with mscnn's and Cascade R-CNN's overlaps against a slow loop, through BoxOutput and FrcnnOutput."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, run_net

SIZE = (40.0, 60.0)


def overlap(kind: str, a: Array, b: Array) -> float:
    """Of the better box a and b, pixel to pixel."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    if high[0] < low[0] or high[1] <= low[1]:
        return 0.0
    common = np.prod(high - low + 1)
    areas = [np.prod(box[2:] - box[:2] + 1) for box in (a, b)]
    whole = {"IOU": sum(areas) - common, "IOMU": min(areas), "IOFU": areas[0]}[kind]
    return float(common / whole)


@pytest.mark.parametrize("kind", ["IOU", "IOMU", "IOFU"])
@pytest.mark.parametrize("most", [0, 4])
def test_frcnn_output(tmp_path: Path, kind: str, most: int) -> None:
    rng = np.random.default_rng(most)
    number, classes = 12, 3
    low = rng.uniform(0, 30, (number, 2))
    rois = np.concatenate([np.zeros((number, 1)), low, low + rng.uniform(2, 25, (number, 2))], axis=1).astype(
        np.float32
    )
    scores = rng.random((number, classes)).astype(np.float32)
    layer = (
        'layer { name: "f" type: "FrcnnOutput" bottom: "p" bottom: "d" bottom: "r" bottom: "s" top: "y" '
        f'frcnn_output_param {{ conf_thr: 0.3 iou_thr: 0.35 nms_type: "{kind}" max_det_num: {most} }} '
        "bbox_reg_param { cls_aware: false } }"
    )
    feeds = {"p": scores, "d": np.zeros((number, 8), np.float32), "r": rois, "s": np.array([SIZE], np.float32)}
    rows = run_net(tmp_path, layer, feeds)["y"].reshape(-1, 7)
    boxes = np.concatenate([np.maximum(rois[:, 1:3], 0), np.minimum(rois[:, 3:], SIZE[::-1])], axis=1)
    want = []
    for label in range(1, classes):
        kept: list[int] = []
        for i in sorted(np.flatnonzero(scores[:, label] >= 0.3), key=lambda i: -scores[i, label]):
            if all(overlap(kind, boxes[k], boxes[i]) <= 0.35 for k in kept):
                kept.append(int(i))
        want += [(0, *boxes[i], label, scores[i, label]) for i in kept]
    if most:
        least = sorted((row[-1] for row in want), reverse=True)[:most][-1]
        want = [row for row in want if row[-1] >= least]
    np.testing.assert_allclose(rows, [(0, *[-1] * 6), *want], rtol=1e-5, atol=1e-5)
