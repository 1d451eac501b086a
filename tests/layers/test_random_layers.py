"""Layers that draw factors in TRAIN: bounds of what they draw, the same draw in both passes, and TEST's fixed factor."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, run_model, write_net

import caffeconv

F = np.float32
INSANITY = 'layer { name: "l" type: "Insanity" bottom: "x" top: "y" insanity_param { lb: 2 ub: 4 } }\n'
SCALES = (
    'layer { name: "l" type: "ScaleFilter" bottom: "x" top: "y" scale_filter_param { min_scale: 0.5 max_scale: 2 } }\n'
)


def drawn(folder: Path, layer: str, x: Array) -> tuple[Array, Array]:
    """The layer's top and its bottom's diff, for a diff of ones, in TRAIN."""
    path = write_net(folder, {"x": x.shape}, layer, "force_backward: true\n")
    net = caffeconv.Net(path, phase="TRAIN")
    net.blobs["x"].data[...] = x
    y = net.forward()["y"]
    net.backward(y=np.ones_like(x))
    return y, net.blobs["x"].diff.copy()


def test_insanity_divides_negative_values_by_what_it_draws(tmp_path: Path) -> None:
    x = np.tile(np.array([3, -1], F), (50, 4))
    y, diff = drawn(tmp_path, INSANITY, x)
    np.testing.assert_array_equal(y[x > 0], 3)
    assert (-1 / y[x < 0]).min() >= 2
    assert (-1 / y[x < 0]).max() <= 4
    assert np.ptp(y[x < 0]) > 0.1
    np.testing.assert_allclose(diff, y / x, rtol=1e-6)


def test_insanity_has_one_slope_in_test(tmp_path: Path) -> None:
    x = np.array([[3, -1]], F)
    got = run_model(caffeconv.convert(write_net(tmp_path, {"x": x.shape}, INSANITY)), {"x": x})["y"]
    np.testing.assert_allclose(got, [[3, -(math.log(4) - math.log(2)) / 2]], rtol=1e-6)


def test_scale_filter_draws_a_number_for_each_plane(tmp_path: Path) -> None:
    x = np.ones((4, 8, 2, 2), F)
    y, diff = drawn(tmp_path, SCALES, x)
    assert y.min() >= 0.5
    assert y.max() <= 2
    assert np.ptp(y[:, :, 0, 0]) > 0.1
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :, :1, :1], y.shape))
    np.testing.assert_allclose(diff, y, rtol=1e-6)


def test_a_model_of_train_draws_as_well(tmp_path: Path) -> None:
    x = np.ones((2, 8, 2, 2), F)
    model = caffeconv.convert(write_net(tmp_path, {"x": x.shape}, SCALES), phase="TRAIN", batch="keep")
    assert np.ptp(run_model(model, {"x": x})["y"]) > 0.1


@pytest.mark.parametrize(
    ("shape", "layer", "complaint"),
    [
        ((2,), INSANITY, "must be >=2"),
        ((1, 2), INSANITY.replace("ub: 4", "ub: 1"), "upper bound must > lower bound"),
        ((1, 2), INSANITY.replace("lb: 2", "lb: 0"), "must not be 0"),
        ((1, 2), INSANITY.replace("lb: 2", "lb: -4"), "sizes that differ"),
        ((1, 2), SCALES, "N×C×H×W was needed"),
    ],
)
def test_refusals(tmp_path: Path, shape: tuple[int, ...], layer: str, complaint: str) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match=complaint):
        caffeconv.convert(write_net(tmp_path, {"x": shape}, layer))
