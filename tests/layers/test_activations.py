"""Elementwise layers at the edges of what Caffe takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.graphs import layer
from support.small_nets import Array, write_net

import caffeconv
from caffeconv.caffe_format.terms import Phase

X = np.array([[1, 2, 3, 4]], np.float32)


def passed(folder: Path, text: str, phase: Phase = "TEST") -> tuple[Array, Array]:
    """The top, and the bottom's diff where the top's is 1."""
    net = caffeconv.Net(write_net(folder, {"x": X.shape}, text, "force_backward: true\n"), phase=phase)
    y = net.forward(x=X)["y"]
    return y, net.backward(y=np.ones_like(X))["x"]


@pytest.mark.parametrize("ratio", [0, 1, 2, -1])
def test_dropout_leaves_all_as_it_is_in_test(tmp_path: Path, ratio: int) -> None:
    text = layer("y", "Dropout", "x", f"dropout_param {{ dropout_ratio: {ratio} }}")
    np.testing.assert_array_equal(passed(tmp_path, text), [X, np.ones_like(X)])


def test_dropout_of_nothing_and_of_all_in_train(tmp_path: Path) -> None:
    text = layer("y", "Dropout", "x", "dropout_param { dropout_ratio: 0 }")
    np.testing.assert_array_equal(passed(tmp_path, text, "TRAIN"), [X, np.ones_like(X)])
    text = layer("y", "Dropout", "x", "dropout_param { dropout_ratio: 1 }")
    assert np.isnan(passed(tmp_path, text, "TRAIN")).all()  # caffe: 0 · 1/0
    text = layer("y", "Dropout", "x", "dropout_param { dropout_ratio: 1 scale_train: false }")
    np.testing.assert_array_equal(passed(tmp_path, text, "TRAIN"), np.zeros((2, *X.shape)))
    text = layer("y", "Dropout", "x", "dropout_param { dropout_ratio: 1.5 }")
    with pytest.raises(caffeconv.CaffeconvError, match=r"dropout_ratio is 1\.5; a value from 0 to 1 was needed"):
        passed(tmp_path, text, "TRAIN")


def test_dropout_that_samples_in_test(tmp_path: Path) -> None:
    """Bayesian SegNet: the same mask forward and backward, another in each pass."""
    text = layer("y", "Dropout", "x", "dropout_param { dropout_ratio: 0.75 sample_weights_test: true }")
    net = caffeconv.Net(write_net(tmp_path, {"x": (1, 400)}, text, "force_backward: true\n"))
    x = np.ones((1, 400), np.float32)
    first, second = net.forward(x=x)["y"].copy(), net.forward(x=x)["y"].copy()
    assert set(np.unique(first)) == {0, 4}
    assert 50 < (first == 4).sum() < 150
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(net.backward(y=x)["x"], second)


def test_clip_with_min_above_max(tmp_path: Path) -> None:
    y, diff = passed(tmp_path, layer("y", "Clip", "x", "clip_param { min: 2 max: 1 }"))
    np.testing.assert_array_equal(y, np.full_like(X, 2))  # recorded from Caffe
    np.testing.assert_array_equal(diff, np.zeros_like(X))
