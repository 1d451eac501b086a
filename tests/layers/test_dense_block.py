"""DenseBlock with use_BC against a slow loop, and what is refused."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, run_net, write_net, write_weights

import caffeconv

F = np.float32
CHANNELS, GROWTH, TRANSITIONS = 3, 2, 2


def convolved(x: Array, filters: Array) -> Array:
    """A true convolution, filters turned, that keeps the size."""
    size, pad = filters.shape[2], filters.shape[2] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    y = np.zeros((x.shape[0], filters.shape[0], *x.shape[2:]), F)
    for i in range(size):
        for j in range(size):
            window = padded[:, :, i : i + x.shape[2], j : j + x.shape[3]]
            y += np.einsum("nchw,oc->nohw", window, filters[:, :, size - 1 - i, size - 1 - j])
    return y


def active(x: Array, statistics: list[Array], factor: float) -> Array:
    scaler, bias, mean, variance = statistics
    normed: Array = (x - mean / factor) / np.sqrt(variance / factor + F(1e-5)) * scaler + bias
    return np.maximum(normed, 0)


def test_bottleneck(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    widths, middle, factor = [CHANNELS + i * GROWTH for i in range(TRANSITIONS)], 4 * GROWTH, 2.0
    filters = [rng.normal(size=(GROWTH, middle, 3, 3)).astype(F) for _ in widths]
    outer = [[rng.uniform(0.5, 2, (1, width, 1, 1)).astype(F) for width in widths] for _ in range(4)]
    narrow = [rng.normal(size=(middle, width, 1, 1)).astype(F) for width in widths]
    inner = [[rng.uniform(0.5, 2, (1, middle, 1, 1)).astype(F) for _ in widths] for _ in range(4)]
    blobs = [*filters, *chain(*outer), *narrow, *chain(*inner), np.array([factor], F)]
    assert len(blobs) == 10 * TRANSITIONS + 1
    x = rng.normal(size=(2, CHANNELS, 4, 5)).astype(F)
    layer = """layer { name: "l" type: "DenseBlock" bottom: "x" top: "y"
        denseblock_param { numTransition: 2 growthRate: 2 use_BC: true } }
"""
    got = run_net(tmp_path, layer, {"x": x}, weights=write_weights(tmp_path / "w.caffemodel", "l", blobs))["y"]
    want: Array = x
    for i in range(TRANSITIONS):
        values = convolved(active(want, [kind[i] for kind in outer], factor), narrow[i])
        grown = convolved(active(values, [kind[i] for kind in inner], factor), filters[i])
        want = np.concatenate([want, grown], axis=1)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("said", "shape", "message"),
    [
        ("numTransition: 0", (1, 3, 4, 4), "at least 1 each was needed"),
        ("conv_verticalStride: 2", (1, 3, 4, 4), "1 was needed"),
        ("filter_H: 5", (1, 3, 4, 4), "filters of 2 · pad + 1"),
        ("", (1, 3), "4 axes were needed"),
    ],
)
def test_refused(tmp_path: Path, said: str, shape: tuple[int, ...], message: str) -> None:
    layer = f'layer {{ name: "l" type: "DenseBlock" bottom: "x" top: "y" denseblock_param {{ {said} }} }}'
    with pytest.raises(caffeconv.CaffeconvError) as refusal:
        caffeconv.Net(write_net(tmp_path, {"x": shape}, layer))
    assert message in str(refusal.value)


def test_training_is_refused(tmp_path: Path) -> None:
    layer = 'layer { name: "l" type: "DenseBlock" bottom: "x" top: "y" }'
    with pytest.raises(caffeconv.CaffeconvError, match="TEST was needed"):
        caffeconv.Net(write_net(tmp_path, {"x": (1, 3, 4, 4)}, layer), phase="TRAIN")
