"""Layers whose top is their own bottom: what Caffe leaves in the blob and in its diff, and what it makes of it by accident."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from support.graphs import layer
from support.small_nets import Array, write_net

import caffeconv

X = np.array([[1, 2], [3, 4]], np.float32).reshape(1, 1, 2, 2)
LOSS = layer("loss", "Reduction", "a", "reduction_param { operation: SUMSQ } loss_weight: 1")


def passed(folder: Path, text: str, **more: Array) -> tuple[Array, Array]:
    """Values and diff of blob a, a copy of x, which the layers in place change; z, w: further inputs."""
    shapes = {"x": X.shape, **{name: array.shape for name, array in more.items()}}
    net = caffeconv.Net(write_net(folder, shapes, layer("a", "Power", "x") + text + LOSS, "force_backward: true\n"))
    net.forward(None, None, None, x=X, **more)
    net.backward(diffs=["a"])
    return net.blobs["a"].data, net.blobs["a"].diff


@pytest.mark.parametrize(
    "text",
    [
        layer("l", "Concat", "a", top="a"),
        layer("l", "Slice", "a", top="a"),
        layer("l", "Tile", "a", "tile_param { tiles: 1 }", top="a"),
    ],
)
def test_what_changes_nothing(tmp_path: Path, text: str) -> None:
    data, diff = passed(tmp_path, text)
    np.testing.assert_array_equal(data, X)
    np.testing.assert_array_equal(diff, 2 * X)


@pytest.mark.parametrize(
    ("text", "more"),
    [
        (layer("l", "Crop", "a z", "crop_param { axis: 2 }", top="a"), {"z": X}),
        (layer("l", "Im2col", "a", "convolution_param { kernel_size: 1 }", top="a"), {}),
    ],
)
def test_layers_that_clear_their_bottom_s_diff_first(tmp_path: Path, text: str, more: dict[str, Array]) -> None:
    data, diff = passed(tmp_path, text, **more)
    np.testing.assert_array_equal(data, X)
    np.testing.assert_array_equal(diff, 0 * X)


def test_a_slope_that_meets_itself(tmp_path: Path) -> None:
    # recorded from Caffe: scale 0.5 leaves 0.25
    _, diff = passed(tmp_path, layer("l", "Power", "a", "power_param { scale: 0.5 }", top="a"))
    np.testing.assert_array_equal(diff, np.full_like(X, 0.25))
    data, diff = passed(tmp_path, layer("l", "Power", "a", "power_param { power: 2 shift: 1 }", top="a"))
    np.testing.assert_allclose(diff, (2 * (data + 1)) ** 2)
    data, diff = passed(tmp_path, layer("l", "Log", "a", "log_param { shift: 2 }", top="a"))
    np.testing.assert_allclose(diff, (1 / (data + 2)) ** 2, rtol=1e-6)
    np.testing.assert_allclose(data, np.log(X + 2), rtol=1e-6)


def test_mvn(tmp_path: Path) -> None:
    data, diff = passed(tmp_path, layer("l", "MVN", "a", top="a"))
    y = (X - 2.5) / np.sqrt(1.25)
    np.testing.assert_allclose(data, y, rtol=1e-5)  # recorded from Caffe: -1.341641 …
    # caffe: (Σ d·y) · y and its sum, times -2/4, for the d that is 2·y
    slant = y * (2 * y * y).sum()
    np.testing.assert_allclose(diff, -2 / 4 * (slant + slant.sum()) / np.sqrt(1.25), rtol=1e-4, atol=1e-5)
    _, diff = passed(tmp_path, layer("l", "MVN", "a", "mvn_param { normalize_variance: false }", top="a"))
    np.testing.assert_allclose(diff, 2 * (X - 2.5), atol=1e-6)


def test_lrn_within_channel(tmp_path: Path) -> None:
    rule = "lrn_param { local_size: 1 norm_region: WITHIN_CHANNEL alpha: 2 beta: 1 }"
    data, diff = passed(tmp_path, layer("l", "LRN", "a", rule, top="a"))
    scale = 1 + 2 * X**2
    np.testing.assert_allclose(data, X / scale, rtol=1e-6)
    # caffe: the sums are those of before, the bottom that they are multiplied with is what was written over it
    y, d = X / scale, 2 * X / scale
    np.testing.assert_allclose(diff, d / scale - 2 * 2 * y * d * y / scale / scale, rtol=1e-5)
    with pytest.raises(caffeconv.CaffeconvError, match=r"LRN does not work in place: Caffe multiplies its power"):
        passed(tmp_path, layer("l", "LRN", "a", top="a"))


Z, W = X[..., ::-1].copy(), X + 10


def test_eltwise(tmp_path: Path) -> None:
    sums = layer("l", "Eltwise", "a z w", "eltwise_param { coeff: 3 coeff: 1 coeff: 2 }", top="a")
    data, diff = passed(tmp_path, sums, z=Z, w=W)
    np.testing.assert_array_equal(data, Z + 2 * W)  # recorded from Caffe: its own bottom is 0 by then
    np.testing.assert_array_equal(diff, 3 * 2 * data)
    report = caffeconv.inspect(tmp_path / "net.prototxt")
    assert any("'a' is left out of it" in str(d) for d in report.diagnostics if d.severity == "warning")
    data, diff = passed(tmp_path, layer("l", "Eltwise", "a z", "eltwise_param { operation: PROD }", top="a"), z=Z)
    np.testing.assert_array_equal(data, X * Z)
    np.testing.assert_array_equal(diff, Z * Z)
    data, diff = passed(tmp_path, layer("l", "Eltwise", "a z", "eltwise_param { operation: MAX }", top="a"), z=Z)
    np.testing.assert_array_equal(data, np.maximum(X, Z))
    np.testing.assert_array_equal(diff, np.where(X > Z, 2 * data, 0))


def test_the_other_bottoms_of_eltwise(tmp_path: Path) -> None:
    for operation, other in (("MAX", 0 * X), ("PROD", X * Z * Z * Z)):
        text = layer("l", "Eltwise", "a z", f"eltwise_param {{ operation: {operation} }}", top="a")
        net = caffeconv.Net(
            write_net(
                tmp_path, {"x": X.shape, "z": X.shape}, layer("a", "Power", "x") + text + LOSS, "force_backward: true\n"
            )
        )
        net.forward(x=X, z=Z)
        np.testing.assert_array_equal(net.backward()["z"], other)


def test_convolution(tmp_path: Path) -> None:
    ones = 'weight_filler { type: "constant" value: 1 }'
    data, _ = passed(
        tmp_path,
        layer("l", "Convolution", "a", f"convolution_param {{ num_output: 1 kernel_size: 3 pad: 1 {ones} }}", top="a"),
    )
    np.testing.assert_array_equal(data, np.full_like(X, 10))
    for rule, fault in (
        ("num_output: 1 kernel_size: 1", "with a 1×1 window Caffe multiplies the bottom as it lies"),
        ("num_output: 2 kernel_size: 3 pad: 1", "its top would be 1×2×2×2 and its bottom is 1×1×2×2"),
    ):
        with pytest.raises(caffeconv.CaffeconvError, match=re.escape(fault)):
            passed(tmp_path, layer("l", "Convolution", "a", f"convolution_param {{ {rule} }}", top="a"))
