"""LRN's sum over neighbours, in each of its forms, against the formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import write_net

import caffeconv
from caffeconv.layers.lrn import MOST_BAND_CHANNELS


@pytest.mark.parametrize("size", [1, 3, 11])
@pytest.mark.parametrize("channels", [2, 7, MOST_BAND_CHANNELS + 1])
def test_sum_over_channels(tmp_path: Path, channels: int, size: int) -> None:
    param = f"lrn_param {{ local_size: {size} alpha: 0.5 beta: 0.75 k: 2 }}"
    path = write_net(
        tmp_path, {"x": (2, channels, 2, 1)}, f'layer {{ name: "n" type: "LRN" bottom: "x" top: "y" {param} }}'
    )
    x = np.random.default_rng(0).normal(size=(2, channels, 2, 1)).astype(np.float32)
    padded = np.pad(x.astype(np.float64) ** 2, ((0, 0), (size // 2,) * 2, (0, 0), (0, 0)))
    total = sum(padded[:, i : i + channels] for i in range(size))
    np.testing.assert_allclose(caffeconv.Net(path).forward(x=x)["y"], x / (2 + 0.5 / size * total) ** 0.75, 1e-5, 1e-6)
