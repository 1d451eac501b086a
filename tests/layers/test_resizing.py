"""Resizing against the forks' rules written as loops, and what the layers refuse."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.small_nets import Array, run_model, write_net

import caffeconv

F = np.float32


def run(folder: Path, layer: str, x: Array) -> Array:
    path = write_net(folder, {"x": x.shape}, f'layer {{ name: "l" bottom: "x" top: "y" {layer} }}\n')
    return run_model(caffeconv.convert(path, batch="keep"), {"x": x})["y"]


def normal(*shape: int) -> Array:
    return np.random.default_rng(7).normal(0, 1, shape).astype(F)


def place(mode: str, index: int, size: int, places: int) -> float:
    if mode == "align_corners" and places > 1:
        return float(F(index) * (F(size - 1) / F(places - 1)))
    step = F(size) / F(places)
    if mode == "pytorch_half_pixel" and places == 1:
        return -0.5
    return float((F(index) + F(0.5)) * step - F(0.5)) if "half_pixel" in mode else float(F(index) * step)


@pytest.mark.parametrize("mode", ["", "align_corners", "half_pixel_centers", "pytorch_half_pixel"])
@pytest.mark.parametrize(("height", "width"), [(5, 7), (2, 1), (3, 4), (9, 3)])
def test_bilinear(tmp_path: Path, mode: str, height: int, width: int) -> None:
    x = normal(2, 3, 4, 2)
    said = f"output_height: {height} output_width: {width}" + (f" {mode}: true" if mode else "")
    got = run(tmp_path, f'type: "ResizeBilinear" resize_bilinear_param {{ {said} }}', x)
    want = x.astype(F)
    for axis, places in ((2, width), (1, height)):
        size, rows = want.shape[axis], []
        for index in range(places):
            at = place(mode, index, size, places)
            low, high = max(math.floor(at), 0), min(math.ceil(at), size - 1)
            below, above = want.take(low, axis), want.take(high, axis)
            rows.append(below + (above - below) * F(at - math.floor(at)))
        want = np.stack(rows, axis)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_bilinear_resizes_depth_as_well(tmp_path: Path) -> None:
    said = 'output_height: 2 output_width: 3 output_depth: 7 align_corners: true data_format: "NCHWD"'
    x = normal(1, 2, 2, 3, 4)
    got = run(tmp_path, f'type: "ResizeBilinear" resize_bilinear_param {{ {said} }}', x)
    assert got.shape == (1, 2, 2, 3, 7)
    np.testing.assert_allclose(got[..., ::2], x, rtol=1e-6)


@pytest.mark.parametrize(
    ("mode", "sources"),
    [("", [0, 0, 1, 1, 2]), ("align_corners", [0, 1, 1, 2, 2]), ("half_pixel_centers", [0, 0, 1, 2, 2]),
     ("half_pixel_onnx", [0, 0, 1, 1, 2])],
)  # fmt: skip
def test_nearest(tmp_path: Path, mode: str, sources: list[int]) -> None:
    x = normal(1, 2, 3, 3)
    said = 'scale_height: 1.7 output_width: 3 data_format: "NCHW"' + (f" {mode}: true" if mode else "")
    got = run(tmp_path, f'type: "ResizeNearestNeighbor" resize_nearest_neighbor_param {{ {said} }}', x)
    np.testing.assert_array_equal(got, x[:, :, sources])


def test_face_parsing_fades_behind_the_last_place(tmp_path: Path) -> None:
    x = normal(1, 2, 2, 3)
    said = "is_pyramid_test: true out_height_scale: 2 out_width_scale: 1.5 type: BILINEAR"
    got = run(tmp_path, f'type: "Resize" resize_param {{ {said} }}', x)
    padded = np.pad(x, [(0, 0), (0, 0), (0, 1), (0, 1)])
    want = np.zeros((1, 2, 4, 4), F)
    for h, w in np.ndindex(4, 4):
        y, z, a, b = h // 2, int(w * 0.75), h / 2 % 1, w * 0.75 % 1
        cell = padded[0, :, y : y + 2, z : z + 2]
        want[0, :, h, w] = np.einsum("cij,i,j->c", cell, [1 - a, a], [1 - b, b])
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_face_parsing_picks_places(tmp_path: Path) -> None:
    x = normal(1, 2, 3, 3)
    got = run(tmp_path, 'type: "Resize" resize_param { resize_ratio: 1.7 }', x)
    sources = [0, 0, 1, 1, 2]
    np.testing.assert_array_equal(got, x[:, :, sources][..., sources])


@pytest.mark.parametrize(("kind", "interpolation"), [("BILINEAR", cv2.INTER_LINEAR), ("NEAREST", cv2.INTER_NEAREST)])
def test_deephi_resizes_as_opencv(tmp_path: Path, kind: str, interpolation: int) -> None:
    x = normal(1, 1, 4, 6)
    got = run(
        tmp_path, f'type: "DeephiResize" deephi_resize_param {{ new_height: 7 new_width: 3 resize_type: {kind} }}', x
    )
    want = cv2.resize(x[0, 0], (3, 7), interpolation=interpolation)
    np.testing.assert_allclose(got[0, 0], want, rtol=1e-5, atol=1e-6)


def test_downsample_leaves_out_nan(tmp_path: Path) -> None:
    x = normal(1, 1, 5, 5)
    x[0, 0, 0, 1] = np.nan
    x[0, 0, 3:, 3:] = np.nan
    got = run(tmp_path, 'type: "Downsample" downsample_param { top_height: 3 top_width: 3 }', x)
    assert np.isnan(got[0, 0, 2, 2])
    weights = np.array([[1.0, 0.0], [0.5, 0.25]])
    want = (weights * np.nan_to_num(x[0, 0, :2, :2])).sum() / weights.sum()
    assert got[0, 0, 0, 0] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    ("layer", "complaint"),
    [
        ('type: "ResizeBilinear" resize_bilinear_param { output_height: 0 }', "of which a place is left"),
        (
            'type: "ResizeBilinear" resize_bilinear_param { align_corners: true half_pixel_centers: true }',
            "at most one",
        ),
        ('type: "ResizeBilinear" resize_bilinear_param { input_scale: 0.5 }', "input_scale of a quantised net"),
        ('type: "ResizeBilinear" resize_bilinear_param { data_format: "CHWN" }', "NHWC, NCHW, NCHWD"),
        ('type: "UpsampleDarknet" upsample_darknet_param { stride: 0 }', "stride is 0"),
        ('type: "Resize" resize_param { resize_ratio: 0 }', "resize_ratio is 0"),
        ('type: "Resize" resize_param { resize_factor: 2 }', "another fork's Resize"),
        ('type: "Resize" resize_param { height: 9 width: 9 }', "place 8 of 3"),
        ('type: "DeephiResize" deephi_resize_param { new_height: 9 }', "should be set at the same time"),
        ('type: "Downsample"', "at least 2 were needed"),
    ],
)
def test_refusals(tmp_path: Path, layer: str, complaint: str) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match=complaint):
        run(tmp_path, layer, normal(1, 2, 3, 4))
