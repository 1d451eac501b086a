"""Pooling of 5-D blobs: refused as in Caffe, with the remedy; done where the caller asks for more than Caffe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.small_nets import Array, run_model, write_net

import caffeconv


def slow_pool(x: Array, method: str, kernel: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...]) -> Array:
    """Every window looked at by itself."""
    sizes = []
    for axis, length in enumerate(x.shape[2:]):
        count = -(-(length + 2 * pad[axis] - kernel[axis]) // stride[axis]) + 1
        sizes.append(count - 1 if any(pad) and (count - 1) * stride[axis] >= length + pad[axis] else count)
    y = np.zeros((*x.shape[:2], *sizes), np.float32)
    for place in np.ndindex(*sizes):
        starts = [i * s - p for i, s, p in zip(place, stride, pad, strict=True)]
        ends = [min(a + k, n + p) for a, k, n, p in zip(starts, kernel, x.shape[2:], pad, strict=True)]
        cells = tuple(slice(max(a, 0), min(b, n)) for a, b, n in zip(starts, ends, x.shape[2:], strict=True))
        where = (slice(None), slice(None), *cells)
        window = x[where].reshape(*x.shape[:2], -1)
        divisor = np.prod([b - a for a, b in zip(starts, ends, strict=True)])
        there = (slice(None), slice(None), *place)
        y[there] = window.max(-1) if method == "MAX" else window.sum(-1) / divisor
    return y


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(st.integers(3, 6), st.integers(3, 7), st.integers(3, 7)), st.integers(1, 3), st.integers(1, 3),
    st.integers(0, 2), st.sampled_from(["MAX", "AVE"]), st.booleans(),
)  # fmt: skip
def test_extended(
    tmp_path: Path, sizes: tuple[int, int, int], kernel: int, stride: int, pad: int, method: str, by_axis: bool
) -> None:  # fmt: skip
    pad, stride = min(pad, kernel - 1), min(stride, kernel)
    x = np.random.default_rng(0).normal(size=(2, 2, *sizes)).astype(np.float32)
    if by_axis:
        given_as = f"kernel_h: {kernel} kernel_w: 2 stride_h: {stride} stride_w: 1 pad_h: {pad} pad_w: 0"
        window = (1, kernel, 2), (1, stride, 1), (0, pad, 0)
    else:
        given_as = f"kernel_size: {kernel} stride: {stride} pad: {pad}"
        window = (kernel,) * 3, (stride,) * 3, (pad,) * 3
    layer = f'layer {{ name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param {{ pool: {method} {given_as} }} }}'
    model = caffeconv.convert(write_net(tmp_path, {"x": x.shape}, layer), extended=True)
    np.testing.assert_allclose(run_model(model, {"x": x})["y"], slow_pool(x, method, *window), rtol=1e-5, atol=1e-6)


def test_global(tmp_path: Path) -> None:
    layer = 'layer { name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param { pool: AVE global_pooling: true } }'
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    model = caffeconv.convert(write_net(tmp_path, {"x": x.shape}, layer), extended=True)
    np.testing.assert_allclose(
        run_model(model, {"x": x})["y"], x.mean(axis=(2, 3, 4), keepdims=True), rtol=1e-4, atol=1e-6
    )


def test_refused_with_the_remedy(tmp_path: Path) -> None:
    layer = 'layer { name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param { pool: MAX kernel_size: 2 } }'
    net = write_net(tmp_path, {"x": (2, 3, 4, 5, 6)}, layer)
    with pytest.raises(caffeconv.CaffeconvError) as caught:
        caffeconv.convert(net)
    assert "Reshape 2×3×4×5×6 to 2×12×5×6, pool, and Reshape back" in str(caught.value)
    assert "`extended=True`" in str(caught.value)


WINDOW = (1, 2, 3), (1, 2, 1), (0, 1, 1)
LISTS = "kernel_size: 1 kernel_size: 2 kernel_size: 3 stride: [1, 2, 1] pad: [0, 1, 1]"
SHAPES = "kernel_shape { dim: [1, 2, 3] } stride_shape { dim: [1, 2, 1] } pad_shape { dim: [0, 1, 1] }"


@pytest.mark.parametrize(("kind", "said"), [("Pooling", LISTS), ("NdPooling", SHAPES)])
def test_a_value_for_each_axis(tmp_path: Path, kind: str, said: str) -> None:
    """video-caffe's, in both forms; a pooling beside it with one value for all goes over all axes too."""
    x = np.random.default_rng(0).normal(size=(2, 2, 3, 5, 6)).astype(np.float32)
    text = f'layer {{ name: "a" type: "{kind}" bottom: "x" top: "a" pooling_param {{ {said} }} }}'
    text += 'layer { name: "b" type: "Pooling" bottom: "x" top: "b" pooling_param { kernel_size: 2 stride: 2 } }'
    net, dialect = write_net(tmp_path, {"x": x.shape}, text), None if kind == "Pooling" else "video-caffe"
    got = run_model(caffeconv.convert(net, dialect=dialect), {"x": x})
    np.testing.assert_array_equal(got["a"], slow_pool(x, "MAX", *WINDOW))
    np.testing.assert_array_equal(got["b"], slow_pool(x, "MAX", (2, 2, 2), (2, 2, 2), (0, 0, 0)))


def test_values_for_other_axes(tmp_path: Path) -> None:
    layer = 'layer {{ name: "a" type: "Pooling" bottom: "x" top: "y" pooling_param {{ {} }} }}'
    for said, message in (
        ("kernel_size: [1, 2, 2]", "specified 3 times; 2 spatial dims"),
        ("kernel_size: [2, 2] stride: [1, 2, 2]", "2, 3"),
    ):
        net = write_net(tmp_path, {"x": (1, 1, 4, 4)}, layer.format(said))
        with pytest.raises(caffeconv.CaffeconvError, match=message):
            caffeconv.convert(net)


def test_nd_convolution(tmp_path: Path) -> None:
    """video-caffe's fields make the layer that BVLC's own lists of numbers make."""
    said = {"Convolution": "kernel_size: [1, 2, 3] stride: [1, 2, 1] pad: [0, 1, 1]", "NdConvolution": SHAPES}
    blobs = []
    for kind, window in said.items():
        layer = f'layer {{ name: "a" type: "{kind}" bottom: "x" top: "y" convolution_param {{ num_output: 3 {window} '
        net = write_net(tmp_path, {"x": (1, 2, 3, 5, 6)}, layer + "weight_filler { value: 0.5 } } }")
        x = np.random.default_rng(0).normal(size=(1, 2, 3, 5, 6)).astype(np.float32)
        blobs.append(run_model(caffeconv.convert(net), {"x": x})["y"])
    assert blobs[0].shape == (1, 3, 3, 3, 6)
    np.testing.assert_array_equal(blobs[0], blobs[1])
