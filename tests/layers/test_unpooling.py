"""DeconvNet's Unpooling beside its rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import run_model, write_net

import caffeconv


@pytest.mark.parametrize("method", ["MAX", "AVE", "TILE"])
@pytest.mark.parametrize(("kernel", "stride", "size"), [(2, 2, (6, 8)), (3, 2, (6, 9)), (3, 1, (5, 6)), (2, 3, (5, 7))])
def test_without_mask(method: str, kernel: int, stride: int, size: tuple[int, int], tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 2, 3, 4)).astype(np.float32)
    param = f"unpool: {method} kernel_size: {kernel} stride: {stride} unpool_h: {size[0]} unpool_w: {size[1]}"
    layer = f'layer {{ name: "l" type: "Unpooling" bottom: "x" top: "y" unpooling_param {{ {param} }} }}'
    y = run_model(caffeconv.convert(write_net(tmp_path, {"x": (1, 2, 3, 4)}, layer)), {"x": x})["y"]
    want = np.zeros((2, 2, *size), np.float32)
    for i, j in np.ndindex(3, 4):
        top, left = i * stride, j * stride
        window = want[:, :, top : top + kernel, left : left + kernel]
        if method == "MAX":  # beyond the top: on its last place
            want[:, :, min(top, size[0] - 1), min(left, size[1] - 1)] = x[:, :, i, j]
        elif window.size:
            places = window.shape[2] * window.shape[3] if method == "AVE" else 1
            window += x[:, :, i, j, None, None] / places
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("kernel_size: 2", "unpool_size is 0×0"),
        ("kernel_size: 2 unpool_size: 4 pad: 1", "Unpooling knows no pad but 0"),
        ("kernel_size: 2 unpool_size: 4 unpool_h: 4 unpool_w: 4", "unpool_size OR unpool_h and unpool_w"),
        ("kernel_size: 2 unpool_size: 4 pool: AVE", "pool is a field of another fork's Unpooling"),
    ],
)
def test_refused(param: str, message: str, tmp_path: Path) -> None:
    layer = f'layer {{ name: "l" type: "Unpooling" bottom: "x" top: "y" unpooling_param {{ {param} }} }}'
    with pytest.raises(caffeconv.CaffeconvError) as caught:
        caffeconv.convert(write_net(tmp_path, {"x": (1, 2, 3, 4)}, layer))
    assert message in str(caught.value)
