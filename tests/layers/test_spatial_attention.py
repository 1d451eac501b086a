"""PointwiseSpatialAttention beside its rule, written out place by place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import run_model, write_net

import caffeconv


@pytest.mark.parametrize("mask_size", [None, (3, 3), (3, 5), (7, 9)])
@pytest.mark.parametrize("kind", ["COLLECT", "DISTRIBUTE"])
@pytest.mark.parametrize("softmax", [False, True])
def test_rule(mask_size: tuple[int, int] | None, kind: str, softmax: bool, tmp_path: Path) -> None:
    height, width = 3, 4
    high, wide = mask_size or (2 * height - 1, 2 * width - 1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 2, height, width)).astype(np.float32)
    mask = rng.normal(size=(2, high * wide, height, width)).astype(np.float32)
    param = f"psa_type: {kind} is_softmax: {str(softmax).lower()}"
    if mask_size:
        param += f" attention_mask_height: {high} attention_mask_width: {wide}"
    layer = (
        'layer { name: "l" type: "PointwiseSpatialAttention" bottom: "x" bottom: "m" top: "y" '
        f"pointwise_spatial_attention_param {{ {param} }} }}"
    )
    shapes = {"x": (1, 2, height, width), "m": (1, high * wide, height, width)}
    y = run_model(caffeconv.convert(write_net(tmp_path, shapes, layer)), {"x": x, "m": mask})["y"]
    weights = np.zeros((2, height, width, height, width))  # source, then place of the top
    for h, w, i, j in np.ndindex(height, width, high, wide):
        q = h + i - (high - 1) // 2, w + j - (wide - 1) // 2
        if 0 <= q[0] < height and 0 <= q[1] < width:
            source, top = (q, (h, w)) if kind == "COLLECT" else ((h, w), q)
            weights[:, source[0], source[1], top[0], top[1]] = mask[:, i * wide + j, h, w]
    if softmax:
        weights = np.exp(weights) / np.exp(weights).sum(axis=(1, 2), keepdims=True)
    want = np.einsum("ncab,nabhw->nchw", x, weights) / (high * wide)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("", "the mask is 1×9×3×4; 1×35×3×4 was needed"),
        ("attention_mask_height: 3", "both or none were needed"),
        ("attention_mask_height: 2 attention_mask_width: 3", "odd numbers above 1 were needed"),
        ("normalization_factor: 0", "normalization_factor is 0"),
    ],
)
def test_refused(param: str, message: str, tmp_path: Path) -> None:
    layer = (
        'layer { name: "l" type: "PointwiseSpatialAttention" bottom: "x" bottom: "m" top: "y" '
        f"pointwise_spatial_attention_param {{ {param} }} }}"
    )
    with pytest.raises(caffeconv.CaffeconvError) as caught:
        caffeconv.convert(write_net(tmp_path, {"x": (1, 2, 3, 4), "m": (1, 9, 3, 4)}, layer))
    assert message in str(caught.value)
