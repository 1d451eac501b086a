"""Window arithmetic against brute force: every window is laid out and looked at."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from caffeconv.errors import LayerError
from caffeconv.layers.pooling import divisor_correction
from caffeconv.tensor.window import Window, WindowSetting, WindowSpec

sizes = st.integers(1, 20)


@given(sizes, st.integers(1, 6), st.integers(1, 5), st.integers(0, 4), st.integers(1, 3))
def test_convolution_counts_the_windows_that_fit(size: int, kernel: int, stride: int, pad: int, dilation: int) -> None:
    extent = dilation * (kernel - 1) + 1
    assume(size + 2 * pad >= extent)
    starts = [start for start in range(0, size + 2 * pad, stride) if start + extent <= size + 2 * pad]
    assert Window((kernel,), (stride,), (pad,), (dilation,)).conv_size((size,)) == (len(starts),)


@given(sizes, st.integers(1, 6), st.integers(1, 5), st.integers(0, 4), st.integers(1, 3))
def test_deconvolution_undoes_convolution(size: int, kernel: int, stride: int, pad: int, dilation: int) -> None:
    window = Window((kernel,), (stride,), (pad,), (dilation,))
    (grown,) = window.deconv_size((size,))
    assume(grown >= 1)
    assert window.conv_size((grown,)) == (size,)


@given(
    sizes,
    sizes,
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 7),
    st.integers(0, 5),
    st.integers(0, 5),
    st.booleans(),
)
def test_pooling_sizes(
    height: int, width: int, kernel_h: int, kernel_w: int, stride: int, pad_h: int, pad_w: int, ceil: bool,
) -> None:  # fmt: skip
    assume(pad_h < kernel_h)
    assume(pad_w < kernel_w)
    assume(height + 2 * pad_h >= kernel_h)
    assume(width + 2 * pad_w >= kernel_w)
    window = Window((kernel_h, kernel_w), (stride, stride), (pad_h, pad_w), (1, 1))
    expected = []
    for size, kernel, pad in ((height, kernel_h, pad_h), (width, kernel_w, pad_w)):
        steps = (size + 2 * pad - kernel) / stride
        count = (math.ceil(steps) if ceil else math.floor(steps)) + 1
        # the rule: with padding on either axis, no window may start at or beyond the input's padded beginning + size
        if (pad_h or pad_w) and (count - 1) * stride >= size + pad:
            count -= 1
        expected.append(count)
    assert window.pool_size((height, width), ceil=ceil) == tuple(expected)


@given(sizes, st.integers(1, 6), st.integers(1, 5), st.integers(0, 5))
def test_divisor_counts_padding_but_nothing_beyond(size: int, kernel: int, stride: int, pad: int) -> None:
    assume(pad < kernel)
    assume(size + 2 * pad >= kernel)
    window = Window((kernel, 1), (stride, 1), (pad, 0), (1, 1))
    pooled = window.pool_size((size, 1))
    factor = divisor_correction(window, (size, 1), pooled)[0, 0, :, 0]
    for index, value in enumerate(factor):
        # places in the padded input, which ends at size + 2·pad
        counted = [place for place in range(index * stride, index * stride + kernel) if place < size + 2 * pad]
        # a window without a place in it: Caffe divides 0 by 0 (or by a negative number, further out)
        assert np.isclose(value, kernel / len(counted)) if counted else value == np.inf or value < 0


def spec(
    kernel: tuple[int, ...] = (3,), stride: tuple[int, ...] = (), pad: tuple[int, ...] = (), fault: str = ""
) -> WindowSpec:
    return WindowSpec(
        WindowSetting("kernel_size", kernel), WindowSetting("stride", stride, default=1),
        WindowSetting("pad", pad, default=0), WindowSetting("dilation", default=1), fault,
    )  # fmt: skip


def test_a_window_over_any_number_of_axes() -> None:
    assert spec(stride=(2,)).over(3) == Window((3, 3, 3), (2, 2, 2), (0, 0, 0), (1, 1, 1))
    assert spec((3, 5), pad=(1, 2)).over(2) == Window((3, 5), (1, 1), (1, 2), (1, 1))
    assert spec().over(0) == Window((), (), (), ())
    assert WindowSetting("kernel_size", height_width=(3, 5)).over(2) == (3, 5)


@pytest.mark.parametrize(
    ("faulty", "axes", "message"),
    [
        (
            spec(()),
            2,
            "kernel_size must be specified once, or once per spatial dimension (kernel_size specified 0 times; 2",
        ),
        (
            spec(stride=(1, 2)),
            3,
            "stride must be specified once, or once per spatial dimension (stride specified 2 times; 3",
        ),
        (spec((0,)), 2, "kernel_size is [0, 0]; each must be at least 1, and fit an int"),
        (spec(pad=(1 << 31,)), 1, "pad is [2147483648]; each must fit an int"),
        (spec((0,), fault="another layer's fields"), 2, "another layer's fields"),
        (spec((1, 2, 3), fault="another layer's fields"), 2, "kernel_size must be specified once"),
    ],
)
def test_what_caffe_refuses_is_refused_over_axes(faulty: WindowSpec, axes: int, message: str) -> None:
    with pytest.raises(LayerError) as error:
        faulty.over(axes)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("setting", "axes", "message"),
    [
        (
            WindowSetting("pad", height_width=(1, 1)),
            3,
            "pad_h & pad_w can only be used for 2D convolution; there are 3 axes",
        ),
        (
            WindowSetting("kernel_size", (3,), (3, 3)),
            2,
            "Either kernel_size or kernel_h/w should be specified; not both.",
        ),
        (WindowSetting("hole", fault="one of them was needed"), 2, "one of them was needed"),
    ],
)
def test_height_and_width_stand_alone(setting: WindowSetting, axes: int, message: str) -> None:
    with pytest.raises(LayerError) as error:
        setting.over(axes)
    assert str(error.value) == message
