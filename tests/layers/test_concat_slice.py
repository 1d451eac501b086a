"""Intel's Concat that brings each bottom into a row of places and channels, as Permute and Flatten did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import write_net

import caffeconv

SHAPES = {"a": (2, 3, 2, 2), "b": (2, 4, 1, 3)}
FUSED = (
    'layer { name: "c" type: "Concat" bottom: "a" bottom: "b" top: "y" concat_param { axis: 1 per_fla_fuse: true } }'
)
WRITTEN_OUT = (
    "".join(
        f'layer {{ name: "{blob}p" type: "Permute" bottom: "{blob}" top: "{blob}p" '
        f"permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }} "
        f'layer {{ name: "{blob}f" type: "Flatten" bottom: "{blob}p" top: "{blob}f" }} '
        for blob in SHAPES
    )
    + 'layer { name: "c" type: "Concat" bottom: "af" bottom: "bf" top: "y" }'
)


def test_it_is_permute_and_flatten_first(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    feeds = {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    diff = random.normal(size=(2, 24)).astype(np.float32)
    results = []
    for text in (FUSED, WRITTEN_OUT):
        net = caffeconv.Net(write_net(tmp_path, SHAPES, text, "force_backward: true\n"))
        top = net.forward(a=feeds["a"], b=feeds["b"])["y"]
        results.append((top, *(net.backward(y=diff)[name] for name in SHAPES)))
    for fused, written_out in zip(*results, strict=True):
        np.testing.assert_array_equal(fused, written_out)


def test_maps_are_needed(tmp_path: Path) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match="per_fla_fuse with axis 1 over 2×3, 2×4; axis 1 and N×C×H×W"):
        caffeconv.convert(write_net(tmp_path, {"a": (2, 3), "b": (2, 4)}, FUSED))
