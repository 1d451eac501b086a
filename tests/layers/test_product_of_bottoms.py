"""InnerProduct whose weight, and perhaps bias, is a bottom; gradients are held by test_layer_gradients.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import run_model, write_net, write_weights

import caffeconv

RNG = np.random.default_rng(0)
X, W, B = (RNG.normal(size=shape).astype(np.float32) for shape in ((2, 3, 4), (5, 4, 1, 1), (5,)))
LAYER = 'layer {{ name: "p" type: "InnerProduct" {} top: "y" inner_product_param {{ {} }} }}'


@pytest.mark.parametrize("bottoms", [2, 3])
def test_weight_of_a_bottom(tmp_path: Path, bottoms: int) -> None:
    feeds = dict(zip("xwb"[:bottoms], (X, W, B), strict=False))
    said = " ".join(f'bottom: "{name}"' for name in feeds)
    net = write_net(tmp_path, {k: v.shape for k, v in feeds.items()}, LAYER.format(said, "axis: -1 num_output: 7"))
    weights = write_weights(tmp_path / "w.caffemodel", "p", [B]) if bottoms == 2 else None
    got = run_model(caffeconv.convert(net, weights), feeds)["y"]
    np.testing.assert_allclose(got, X @ W.reshape(5, 4).T + B, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shapes", "said", "message"),
    [
        (((2, 4), (5, 3)), "", r"bottom\[1\], the weight, is 5×3; 5×4 was needed"),
        (((2, 4), (5, 4), (4,)), "", "5 numbers were needed"),
        (((2, 4), (5, 4)), "transpose: true", "without it was needed"),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, shapes: tuple[tuple[int, ...], ...], said: str, message: str) -> None:
    inputs = dict(zip("xwb", shapes, strict=False))
    bottoms = " ".join(f'bottom: "{name}"' for name in inputs)
    with pytest.raises(caffeconv.CaffeconvError, match=message):
        caffeconv.convert(write_net(tmp_path, inputs, LAYER.format(bottoms, said)))
