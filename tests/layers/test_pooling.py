"""Pooling with padding of each side for itself against Synopsys' rule written as a loop, and what it refuses."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.small_nets import Array, run_model, write_net

import caffeconv

small = st.integers(0, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pooling")


def run(folder: Path, said: str, x: Array) -> Array:
    layer = f'layer {{ name: "l" type: "Pooling" bottom: "x" top: "y" pooling_param {{ {said} }} }}\n'
    return run_model(caffeconv.convert(write_net(folder, {"x": x.shape}, layer), batch="keep"), {"x": x})["y"]


def pooled(x: Array, method: str, kernel: int, stride: int, pads: tuple[int, ...], sizes: tuple[int, int]) -> Array:
    """pads: top, left, bottom, right."""
    height, width = x.shape[2:]
    want = np.empty((*x.shape[:2], *sizes), np.float32)
    for row, column in np.ndindex(*sizes):
        top, left = row * stride - pads[0], column * stride - pads[1]
        bottom, right = min(top + kernel, height + pads[2]), min(left + kernel, width + pads[3])
        counted = (bottom - top) * (right - left)
        part = x[:, :, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
        if method == "MAX":
            want[:, :, row, column] = part.max((2, 3))
        else:
            divisor = counted if method == "AVE" else part.shape[2] * part.shape[3]
            want[:, :, row, column] = part.sum((2, 3)) / divisor
    return want


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["MAX", "AVE", "AVE_EXC_PAD"]), st.integers(1, 4), st.integers(1, 3), st.tuples(small, small, small, small),
    st.integers(4, 8), st.integers(4, 8), st.booleans(),
)  # fmt: skip
def test_sides(
    folder: Path, method: str, kernel: int, stride: int, pads: tuple[int, ...], height: int, width: int, ceil: bool
) -> None:
    assume(max(pads) < kernel)
    x = np.random.default_rng(height * width).normal(0, 1, (2, 2, height, width)).astype(np.float32)
    sizes = []
    for size, before, after in ((height, pads[0], pads[2]), (width, pads[1], pads[3])):
        steps = (size + before + after - kernel) / stride
        places = (math.ceil(steps) if ceil else math.floor(steps)) + 1
        sizes.append(places - 1 if any(pads) and (places - 1) * stride >= size + before else places)
    want = pooled(x, method, kernel, stride, pads, (sizes[0], sizes[1]))
    sides = " ".join(f"pad_{side}: {pad}" for side, pad in zip("tlbr", pads, strict=True))
    got = run(
        folder, f"pool: {method} kernel_size: {kernel} stride: {stride} {sides} ceil_mode: {str(ceil).lower()}", x
    )
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["MAX", "AVE", "AVE_TF"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 3), (1, 2), (4, 1)])
def test_same(folder: Path, method: str, kernel: int, stride: int) -> None:
    x = np.random.default_rng(kernel).normal(0, 1, (1, 2, 6, 7)).astype(np.float32)
    totals = [max(kernel - (size % stride or stride), 0) for size in (6, 7)]
    pads = (totals[0] // 2, totals[1] // 2, totals[0] - totals[0] // 2, totals[1] - totals[1] // 2)
    want = pooled(x, method, kernel, stride, pads, (math.ceil(6 / stride), math.ceil(7 / stride)))
    got = run(folder, f"pool: {method} kernel_size: {kernel} stride: {stride} pad_type: 1", x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("kernel_size: 3 pad: 1 pad_l: 1", "Either pad or pad_l/r/t/b should be specified"),
        ("kernel_size: 3 pad_h: 1 pad_w: 1 pad_type: 1", "Either pad_h or pad_type"),
        ("kernel_size: 3 pad_l: 1 pad_type: 1", "Either pad_type or pad_l/r/t/b"),
        ("kernel_size: 3 pad_type: 2", "pad_type is 2"),
        ("global_pooling: true pad_b: 1", "only pad = 0 and stride = 1"),
    ],
)
def test_refusals(folder: Path, said: str, complaint: str) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match=complaint):
        run(folder, said, np.zeros((1, 1, 6, 6), np.float32))


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("kernel_size: 2 pad_h: 1", "pad is pad OR pad_h and pad_w are required."),
        ("kernel_size: 2 pad: 1 pad_h: 1 pad_w: 1", "pad is pad OR pad_h and pad_w are required."),
        ("kernel_size: 2 stride: 2 stride_h: 1 stride_w: 1", "Stride is stride OR stride_h and stride_w are required."),
        ("kernel_h: 2", "Filter size is kernel_size OR kernel_h and kernel_w; not both"),
        ("kernel_h: 2 kernel_w: 4 stride: 3 round_mode: FLOOR", "without any values, and nothing can be read of it"),
    ],
)
def test_what_caffe_refuses(folder: Path, said: str, fault: str) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match=re.escape(fault)):
        run(folder, said, np.zeros((1, 1, 8, 2), np.float32))


def test_one_of_two_sizes_beside_kernel_size_is_not_read(folder: Path) -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    np.testing.assert_array_equal(run(folder, "kernel_size: 2 kernel_h: 3 stride: 2", x)[0, 0], [[5, 7], [13, 15]])


def test_a_pyramid_too_high(folder: Path) -> None:
    text = 'layer { name: "l" type: "SPP" bottom: "x" top: "y" spp_param { pyramid_height: 4 } }'
    with pytest.raises(caffeconv.CaffeconvError, match=r"level 3 has pad 4×4, .* \(pad_h_ < kernel_h_\)"):
        caffeconv.convert(write_net(folder, {"x": (1, 1, 9, 9)}, text))


def test_dilation_spreads_the_window(folder: Path) -> None:
    """OpenCL Caffe: a window of (3 − 1)·2 + 1 places looks at three of them on each axis."""
    x = np.random.default_rng(0).normal(0, 1, (1, 2, 8, 9)).astype(np.float32)
    want = np.full((1, 2, 4, 5), -np.inf, np.float32)
    for row, column in np.ndindex(3, 3):
        want = np.maximum(want, x[:, :, 2 * row : 2 * row + 4, 2 * column : 2 * column + 5])
    np.testing.assert_array_equal(run(folder, "kernel_size: 3 dilation: 2", x), want)
