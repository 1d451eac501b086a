"""MultiStageMeanfield's lattice beside the Gaussian that it stands for, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, run_model, write_net, write_weights

import caffeconv

PARAM = "theta_alpha: 8 theta_beta: 0.5 theta_gamma: 1.5 num_iterations: 1"


def layer(param: str = PARAM) -> str:
    return (
        'layer { name: "l" type: "MultiStageMeanfield" bottom: "u" bottom: "q" bottom: "x" top: "y" '
        f"multi_stage_meanfield_param {{ {param} }} }}"
    )


def inputs(items: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    shapes = {"u": (items, 2, 9, 11), "q": (items, 2, 9, 11), "x": (items, 3, 9, 11)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_the_spatial_filter_is_about_a_gaussian(tmp_path: Path) -> None:
    feeds = inputs(2)
    net = write_net(tmp_path, {name: values.shape for name, values in feeds.items()}, layer())
    zeros, ones = np.zeros((1, 1, 2, 2), np.float32), np.eye(2, dtype=np.float32)[None, None]
    weights = write_weights(tmp_path / "w.caffemodel", "l", [ones, zeros, -ones])
    filtered = run_model(caffeconv.convert(net, weights, batch="keep"), feeds)["y"] - feeds["u"]
    shares = np.exp(feeds["q"]) / np.exp(feeds["q"]).sum(axis=1, keepdims=True)
    places = np.indices((9, 11)).reshape(2, -1).T
    kernel = np.exp(-((places[:, None] - places[None]) ** 2).sum(axis=2) / (2 * 1.5**2))
    want = shares.reshape(2, 2, -1) @ (kernel / kernel.sum(axis=0))
    np.testing.assert_allclose(filtered.reshape(2, 2, -1), want, atol=0.08)
    np.testing.assert_allclose(filtered.sum(axis=1), 1, atol=1e-5)  # a mean of what sums to 1


@pytest.mark.parametrize(
    ("param", "message"),
    [
        (PARAM + " forced_spatial_filter_weight: 1", "forced_spatial_filter_weight is set"),
        (PARAM.replace("num_iterations: 1", "num_iterations: 0"), "num_iterations is 0; at least 1"),
        (PARAM.replace("theta_beta: 0.5", "theta_beta: 0"), "numbers above 0 were needed"),
    ],
)
def test_refused(param: str, message: str, tmp_path: Path) -> None:
    shapes = {name: values.shape for name, values in inputs(1).items()}
    with pytest.raises(caffeconv.CaffeconvError) as caught:
        caffeconv.convert(write_net(tmp_path, shapes, layer(param)))
    assert message in str(caught.value)
