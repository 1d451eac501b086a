"""Activations between bounds against their formulas, beyond the settings of the recorded cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, run_model, write_net

import caffeconv

X: Array = np.linspace(-8, 8, 33, dtype=np.float32).reshape(1, 33)


def run(folder: Path, layer: str) -> Array:
    path = write_net(folder, {"x": X.shape}, f'layer {{ name: "l" bottom: "x" top: "y" {layer} }}\n')
    return run_model(caffeconv.convert(path, batch="keep"), {"x": X})["y"]


@pytest.mark.parametrize(
    ("layer", "want"),
    [
        ('type: "HardSigmoid"', np.clip(0.2 * X + 0.5, 0, 1)),
        ('type: "HardSwish"', X * np.clip(X + 3, 0, 6) / 6),
        ('type: "Truncation" truncation_param { lower_bound: -2 upper_bound: 1 }', np.clip(X, -2, 1)),
        ('type: "Sparsify" sparsify_param { thre: 1.5 }', np.sign(X) * np.maximum(np.abs(X) - 1.5, 0)),
        ('type: "Sparsify"', X),
        ('type: "ReLU" relu_param { relu6: true maximum: 4 }', np.clip(X, 0, 4)),
        ('type: "ReLU" relu_param { negative_slope: 0.5 minimum: -1 }', np.maximum(np.where(X > 0, X, 0.5 * X), -1)),
        ('type: "ReLU" relu_param { maximum: -3 }', np.maximum(X, 0)),
    ],
)
def test_formulas(tmp_path: Path, layer: str, want: Array) -> None:
    np.testing.assert_allclose(run(tmp_path, layer), want, rtol=1e-5, atol=1e-6)


def test_a_threshold_is_not_negative(tmp_path: Path) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match="thre is -1"):
        run(tmp_path, 'type: "Sparsify" sparsify_param { thre: -1 }')


def test_the_norm_that_sparsify_adds_to_the_diff(tmp_path: Path) -> None:
    text = 'layer { name: "l" type: "Sparsify" bottom: "x" top: "y" sparsify_param { thre: 1.6 coef: 0.25 } }\n'
    net = caffeconv.Net(write_net(tmp_path, {"x": X.shape}, text, "force_backward: true\n"))
    y = net.forward(x=X)["y"]
    diff = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
    np.testing.assert_allclose(net.backward(y=diff)["x"], (diff + 0.25 * np.sign(y)) * (y != 0), rtol=1e-6)


def test_gradient_of_cosine_leaves_the_tops_diff_out(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
    text = 'layer { name: "l" type: "Cosine" bottom: "x" top: "y" }'
    net = caffeconv.Net(write_net(tmp_path, {"x": x.shape}, text, "force_backward: true\n"))
    net.forward(x=x)
    np.testing.assert_allclose(net.backward(y=np.full_like(x, 7))["x"], -np.sin(x), rtol=1e-5)
