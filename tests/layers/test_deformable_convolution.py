"""DeformableConvolution beside its rule, written out tap by tap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, run_model, write_net, write_weights

import caffeconv


def bilinear(plane: Array, y: float, x: float) -> float:
    height, width = plane.shape
    if not (0 <= y < height and 0 <= x < width):
        return 0.0
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    b, a = min(y, height - 1) - top if top == height - 1 else y - top, x - left if left < width - 1 else 0.0
    above = (1 - a) * plane[top, left] + a * plane[top, right]
    below = (1 - a) * plane[bottom, left] + a * plane[bottom, right]
    return float((1 - b) * above + b * below)


@pytest.mark.parametrize(("groups", "group", "dilation", "bias"), [(1, 1, 1, True), (2, 1, 2, True), (4, 2, 1, False)])
def test_rule(groups: int, group: int, dilation: int, bias: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 5, 6)).astype(np.float32)
    offsets = rng.normal(size=(2, 18 * groups, 5, 6)).astype(np.float32)
    weight, shift = rng.normal(size=(6, 4 // group, 3, 3)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    text = (
        'layer { name: "l" type: "DeformableConvolution" bottom: "x" bottom: "o" top: "y" deformable_convolution_param { '
        f"num_output: 6 kernel_size: 3 pad: {dilation} dilation: {dilation} deformable_group: {groups} group: {group} "
        f"bias_term: {str(bias).lower()} }} }}"
    )
    net = write_net(tmp_path, {"x": (1, 4, 5, 6), "o": (1, 18 * groups, 5, 6)}, text)
    weights = write_weights(tmp_path / "w.caffemodel", "l", [weight, shift] if bias else [weight])
    y = run_model(caffeconv.convert(net, weights), {"x": x, "o": offsets})["y"]
    want = np.zeros((2, 6, 5, 6)) + (shift[:, None, None] if bias else 0)
    for n, c, tap, i, j in np.ndindex(2, 4, 9, 5, 6):
        channel = 2 * (9 * (c // (4 // groups)) + tap)
        at_y = i - dilation + tap // 3 * dilation + offsets[n, channel, i, j]
        at_x = j - dilation + tap % 3 * dilation + offsets[n, channel + 1, i, j]
        outputs = slice(c // (4 // group) * (6 // group), (c // (4 // group) + 1) * (6 // group))
        want[n, outputs, i, j] += weight[outputs, c % (4 // group), tap // 3, tap % 3] * bilinear(x[n, c], at_y, at_x)
    np.testing.assert_allclose(y, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("kernel_size: 3 pad: 1", "1×72×5×6 was needed, 2 for each of 9 taps and `deformable_group: 4`"),
        ("kernel_size: 3 deformable_group: 1", "the top would be 3×4 and the offsets are 5×6"),
        ("kernel_size: 3 pad: 1 deformable_group: 3", "a multiple of `deformable_group: 3`"),
        ("kernel_size: 3 pad: 1 axis: 2", "axis is 2; 1 was needed"),
    ],
)
def test_refused(param: str, message: str, tmp_path: Path) -> None:
    text = (
        'layer { name: "l" type: "DeformableConvolution" bottom: "x" bottom: "o" top: "y" deformable_convolution_param { '
        f"num_output: 2 {param} }} }}"
    )
    with pytest.raises(caffeconv.CaffeconvError) as caught:
        caffeconv.convert(write_net(tmp_path, {"x": (1, 4, 5, 6), "o": (1, 18, 5, 6)}, text))
    assert message in str(caught.value)
