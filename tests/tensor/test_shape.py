"""Arithmetic on shapes."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffeconv.errors import LayerError
from caffeconv.tensor.shape import canonical_axis, count, format_shape, shape_string, unique_name

SHAPES = st.lists(st.integers(0, 5), max_size=5).map(tuple)


@given(SHAPES, st.data())
def test_count_is_the_size_of_an_array(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape)))
    assert count(shape) == np.empty(shape).size
    assert count(shape, 0, axis) * count(shape, axis) == count(shape)


@given(st.integers(1, 6), st.data())
def test_axes_from_either_end(rank: int, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-rank, rank - 1))
    assert canonical_axis(axis, rank) == range(rank)[axis]


@pytest.mark.parametrize(
    ("axis", "shape", "message"),
    [
        (2, (3, 4), "axis 2 out of range for 2-D Blob of 3×4; -2 to 1 was needed"),
        (-3, (3, 4), "axis -3 out of range for 2-D Blob of 3×4; -2 to 1 was needed"),
        (0, (), "axis 0 out of range for 0-D Blob; a blob with axes was needed"),
    ],
)
def test_axes_out_of_range(axis: int, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(LayerError, match=f"^{re.escape(message)}$"):
        canonical_axis(axis, len(shape), shape)
    with pytest.raises(LayerError, match=f"^{re.escape(message.replace(' of 3×4', ''))}$"):
        canonical_axis(axis, len(shape))


def test_text() -> None:
    assert (shape_string((2, 3, 4)), shape_string(())) == ("2 3 4 (24)", "(1)")
    assert (format_shape((2, 3, 4)), format_shape((7,)), format_shape(())) == ("2×3×4", "7", "scalar")


def test_names_are_free_and_then_taken() -> None:
    taken = {"conv", "conv_2"}
    assert [unique_name("conv", taken), unique_name("conv", taken), unique_name("fc", taken)] == [
        "conv_3",
        "conv_4",
        "fc",
    ]
    assert unique_name("conv", taken, "/") == "conv/2"
    assert taken == {"conv", "conv_2", "conv_3", "conv_4", "fc", "conv/2"}
