"""Nms of OpenPose against its kernel's loops over memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, run_net, write_net

import caffeconv


def peaks(x: Array, parts: int, most: int, threshold: float) -> Array:
    """1 × parts × (most + 1) × 3; x: 1 × channels × height × width."""
    height, width = x.shape[2:]
    memory = x[0].reshape(-1)
    top = np.zeros((1, parts, most + 1, 3), np.float32)
    for part in range(parts):
        start, number = part * height * width, 0
        for row in range(1, height - 1):
            for column in range(1, width - 1):
                window = x[0, part, row - 1 : row + 2, column - 1 : column + 2].ravel()
                score = window[4]
                if score <= threshold or score <= np.delete(window, 4).max():
                    continue
                number += 1
                if number > most:
                    continue
                sums = np.zeros(3)
                for i in range(row - 3, row + 4):
                    for j in range(column - 3, column + 4):
                        if 0 < j < width and 0 < i < width and memory[start + i * width + j] > 0:
                            sums += np.array([j, i, 1]) * memory[start + i * width + j]
                top[0, part, number] = (sums[0] / sums[2], sums[1] / sums[2], score)
        top[0, part, 0, 0] = number
    return top


@pytest.mark.parametrize("shape", [(1, 3, 9, 9), (1, 3, 7, 8), (1, 3, 7, 14), (1, 2, 12, 8)])
@pytest.mark.parametrize("most", [2, 30])
def test_peaks(tmp_path: Path, shape: tuple[int, ...], most: int) -> None:
    x = np.random.default_rng(shape[2]).normal(0.2, 0.6, shape).astype(np.float32)
    fields = f"threshold: 0.3 max_peaks: {most} num_parts: 2"
    layer = f'layer {{ name: "n" type: "Nms" bottom: "x" top: "y" nms_param {{ {fields} }} }}'
    np.testing.assert_allclose(run_net(tmp_path, layer, {"x": x})["y"], peaks(x, 2, most, 0.3), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "fields", "complaint"),
    [
        ((1, 3, 9, 9), "num_parts: 2 top_k: 3", "top_k is no field of OpenPose's Nms"),
        ((1, 3, 9, 9), "num_parts: 4", "num_parts 4 channels"),
        ((1, 2, 7, 8), "num_parts: 2", "one more channel was needed"),
        ((1, 2, 7, 7), "num_parts: 2 max_peaks: 0", "both must be > 0"),
    ],
)
def test_refused(tmp_path: Path, shape: tuple[int, ...], fields: str, complaint: str) -> None:
    layer = f'layer {{ name: "n" type: "Nms" bottom: "x" top: "y" nms_param {{ {fields} }} }}'
    path = write_net(tmp_path, {"x": shape}, layer)
    with pytest.raises(caffeconv.CaffeconvError) as error:
        caffeconv.convert(path)
    assert complaint in str(error.value)
