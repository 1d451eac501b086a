"""Distances to rows, means from a file, and what the layers refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, blob, run_model, write_net, write_weights

import caffeconv

ROWS: Array = np.random.default_rng(1).normal(0, 1, (3, 5)).astype(np.float32)
CENTRES: Array = np.random.default_rng(2).normal(0, 1, (4, 5)).astype(np.float32)


def run(folder: Path, layer: str, weights: Path | None = None, **inputs: Array) -> Array:
    bottoms = "".join(f' bottom: "{name}"' for name in inputs)
    shapes = {name: values.shape for name, values in inputs.items()}
    path = write_net(folder, shapes, f'layer {{ name: "l" top: "y" {layer}{bottoms} }}\n')
    return run_model(caffeconv.convert(path, weights, batch="keep"), inputs)["y"]


@pytest.mark.parametrize("kind", ["L1", "L2"])
def test_the_second_bottom_is_the_weight(tmp_path: Path, kind: str) -> None:
    said = f'type: "InnerDistance" inner_distance_param {{ num_output: 9 distance_type: "{kind}" }}'
    apart = ROWS[:, None] - CENTRES
    want = np.abs(apart).sum(2) if kind == "L1" else (apart**2).sum(2)
    np.testing.assert_allclose(run(tmp_path, said, x=ROWS, w=CENTRES), want, rtol=1e-5)


def test_normalized_centres_have_no_bias(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.caffemodel", "l", [CENTRES])
    said = 'type: "InnerDistance" inner_distance_param { num_output: 4 normalize: true }'
    unit = CENTRES / np.sqrt((CENTRES**2).sum(1, keepdims=True) + 1e-6)
    want = ((ROWS[:, None] - unit) ** 2).sum(2)
    np.testing.assert_allclose(run(tmp_path, said, weights, x=ROWS), want, rtol=1e-5)


def test_mean_of_a_file(tmp_path: Path) -> None:
    mean = np.random.default_rng(3).normal(0, 1, (1, 3, 2, 2)).astype(np.float32)
    (tmp_path / "mean.binaryproto").write_bytes(blob(mean).SerializeToString())
    x = np.random.default_rng(4).normal(0, 1, (2, 6, 2, 2)).astype(np.float32)
    said = 'mean_param { operation: SUBTRACT file: "mean.binaryproto" mean_scale: 2 output_scale: 3 }'
    want = 3 * (x - 2 * np.tile(mean, (1, 2, 1, 1)))
    np.testing.assert_allclose(run(tmp_path, f'type: "Mean" {said}', x=x), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape", "complaint"),
    [
        ('type: "InnerDistance" inner_distance_param { num_output: 4 distance_type: "L3" }', (2, 3), "L1 or L2"),
        ('type: "InnerDistance"', (2, 3), "num_output is 0"),
        ('type: "Mean" mean_param { operation: ADD value: 1 value: 2 }', (1, 3, 2, 2), "not divisible by mean size"),
        ('type: "Mean" mean_param { operation: ADD file: "none" }', (1, 3, 2, 2), "File not found"),
        ('type: "Mean" mean_param { operation: ADD }', (1, 3, 2, 2), "no value and no file"),
    ],
)
def test_refusals(tmp_path: Path, layer: str, shape: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match=complaint):
        run(tmp_path, layer, x=np.zeros(shape, np.float32))
