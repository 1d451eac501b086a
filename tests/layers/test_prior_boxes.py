"""Prior boxes of SSD's forks: whose rule a text follows, and what no rule takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.golden_cases import forward
from support.small_nets import Array, write_net

import caffeconv


@pytest.mark.parametrize(
    ("inputs", "layer", "complaint"),
    [
        (
            {"f": (1, 2, 2, 2), "d": (1, 3, 8, 8)},
            'type: "PriorBox" prior_box_param { min_size: 32 min_size: 64 min_size: 128 }',
            "`dialect='ssd'`",
        ),
        (
            {"f": (1, 2, 2, 2), "d": (1, 3, 8, 8)},
            'type: "PriorBox" prior_box_param { min_size: 32 max_size: 64 faceboxes: true }',
            "squares of min_size alone",
        ),
        (
            {"f": (1, 2, 2, 2), "d": (1, 3, 8, 8)},
            'type: "PriorBox" prior_box_param { box_width: 4 }',
            "1 box_width and 0 box_height",
        ),
        (
            {"f": (1, 2, 2, 2), "d": (1, 3, 8, 8)},
            'type: "PriorBox" prior_box_param { fixed_size: 32 fixed_size: 64 density: 2 }',
            "a density for each size",
        ),
        (
            {"f": (1, 2, 2, 2), "d": (1, 3, 8, 8)},
            'type: "PriorBox" prior_box_param { fixed_size: 32 density: 2 fixed_ratio: 1 fixed_ratio: 2 }',
            "one fixed_ratio alone",
        ),
        (
            {"f": (1, 2, 2, 2), "d": (1, 3, 8, 8)},
            'type: "PriorBox" prior_box_param { fixed_size: 32 density: 2 min_size: 8 }',
            "min_size or max_size beside fixed_size",
        ),
        (
            {"f": (1, 2, 2, 2), "d": (1, 3, 8, 8)},
            'type: "PriorBoxClustered" prior_box_param { min_size: 4 }',
            "a pair for each prior was needed",
        ),
        (
            {"f": (1, 2, 2, 2), "d": (1, 3, 8, 8)},
            'type: "PriorBoxClustered" prior_box_param { width: 4 height: 0 }',
            "each must be above 0",
        ),
        (
            {"f": (1, 2, 2, 2), "d": (1, 3, 8, 8)},
            'type: "PriorBox" prior_box_param { min_size: 4 min_size: nan }',
            "min_size is nan; a number below 2147483648 was needed",
        ),
        (
            {"f": (1, 2, 3000, 3000), "d": (1, 3, 8, 8)},
            'type: "PriorBox" prior_box_param { min_size: 4 aspect_ratio: 2 aspect_ratio: 3 flip: true }',
            "numbers; 33554432 at most are written into a model",
        ),
    ],
)
def test_refused(tmp_path: Path, inputs: dict[str, tuple[int, ...]], layer: str, complaint: str) -> None:
    bottoms = " ".join(f'bottom: "{name}"' for name in inputs)
    path = write_net(tmp_path, inputs, f'layer {{ name: "l" {bottoms} top: "y" {layer} }}')
    with pytest.raises(caffeconv.CaffeconvError) as error:
        caffeconv.convert(path)
    assert complaint in str(error.value)


def dense_boxes(folder: Path, fields: str) -> Array:
    """The edges in pixels of the boxes of one place in a picture of 64×64."""
    layer = f'layer {{ name: "l" type: "PriorBox" bottom: "f" bottom: "d" top: "y" prior_box_param {{ {fields} }} }}'
    inputs = {"f": (1, 2, 1, 1), "d": (1, 3, 64, 64)}
    net = caffeconv.Net(write_net(folder, inputs, layer))
    edges: Array = forward(net, {name: np.zeros(shape, np.float32) for name, shape in inputs.items()})["y"][0, 0]
    return edges.reshape(-1, 4) * 64


def test_dense_squares_fill_the_size_about_a_place(tmp_path: Path) -> None:
    wanted = [(8, 8, 40, 40), (24, 8, 56, 40), (8, 24, 40, 56), (24, 24, 56, 56), (0, 0, 64, 64)]
    fields = "fixed_size: 32 density: 2 fixed_size: 80 density: 1 variance: 0.1"
    np.testing.assert_array_equal(dense_boxes(tmp_path, fields), wanted)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ("fixed_ratio: 4", [(0, 24, 64, 40)]),
        ("aspect_ratio: 4 flip: false", [(16, 16, 48, 48), (0, 24, 64, 40)]),
        ("aspect_ratio: 4", [(16, 16, 48, 48), (0, 24, 64, 40), (24, 0, 40, 64)]),
    ],
)
def test_shapes_of_dense_boxes(tmp_path: Path, fields: str, wanted: list[tuple[int, ...]]) -> None:
    np.testing.assert_array_equal(dense_boxes(tmp_path, f"fixed_size: 32 density: 1 {fields}"), wanted)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ("min_size: 32 max_size: 50", [(32, 32), (40, 40), (64, 16)]),
        ("min_size: 32 max_size: 50 tf: true", [(32, 32), (64, 16), (40, 40)]),
        ("min_size: 32 max_size: 50 keras: true", [(40, 40), (32, 32), (64, 16)]),
        ("min_size: 32 max_size: 50 keras: true tf: true", [(40, 40), (32, 32), (64, 16)]),
        ("min_size: 60 tf: true", [(53.6, 53.6), (120, 30)]),
        ("min_size: 60", [(60, 60), (120, 30)]),
    ],
)
def test_orders_of_synopsys(tmp_path: Path, fields: str, wanted: list[tuple[float, float]]) -> None:
    edges = dense_boxes(tmp_path, f"{fields} aspect_ratio: 4 flip: false variance: 0.1")
    np.testing.assert_allclose(edges[:, 2:] - edges[:, :2], wanted, rtol=1e-5)
