"""MergeCrop against slices; its gradient is held by test_layer_gradients.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import run_model, write_net

import caffeconv

RNG = np.random.default_rng(0)
A, B = (RNG.normal(size=shape).astype(np.float32) for shape in ((2, 3, 4, 5), (2, 3, 7, 9)))
MIDDLE = B[:, :, 1:5, 2:7]
LAYER = 'layer {{ name: "m" type: "MergeCrop" bottom: "a" bottom: "b" top: "y" mergecrop_param {{ {} }} }}'


@pytest.mark.parametrize(
    ("said", "want"),
    [
        ("", np.concatenate([A, MIDDLE], axis=1)),
        ("operation: ADD", A + MIDDLE),
        ("forward: false", np.concatenate([0 * A, MIDDLE], axis=1)),
        ("operation: ADD forward: [true, false]", A),
    ],
)
def test_the_middle(tmp_path: Path, said: str, want: np.ndarray) -> None:
    net = write_net(tmp_path, {"a": A.shape, "b": B.shape}, LAYER.format(said))
    np.testing.assert_array_equal(run_model(caffeconv.convert(net), {"a": A, "b": B})["y"], want)


@pytest.mark.parametrize(
    ("shape", "message"), [((2, 3, 3, 9), "no size of the first"), ((2, 2, 7, 9), "as many channels")]
)
def test_refusals(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match=message):
        caffeconv.convert(write_net(tmp_path, {"a": A.shape, "b": shape}, LAYER.format("")))
