"""What is said about an H that might not be meant."""

from __future__ import annotations

import numpy as np
import pytest

from caffeconv.infogain.remarks import remarks


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[0.75, 0.25], [0.25, 0.75]], []),
        ([[2, 0], [0, 3]], []),
        ([[1, 0], [0, 1]], ["H is the identity: InfogainLoss then computes what SoftmaxWithLoss does"]),
        ([[0.7, 0.3], [0.5, 0.5]], ["H is not symmetric (row 0, column 1: 0.3; row 1, column 0: 0.5)"]),
        ([[0, 0], [0, 1]], ["row 0 of H has only zeros: items"]),
        ([[0, 0], [0, 0]], ["rows 0, 1 of H have only zeros: items"]),
        (
            [[0.5, 0.5, 0], [0.5, 0.5, 0], [0.5, 0.5, 0]],
            ["H is not symmetric", "column 2 of H has only zeros: no label"],
        ),
        ([[2, -1], [-1, 2]], ["rows 0, 1 of H have negative numbers: training"]),
        ([[2, 1], [1, 2]], ["the rows of H add up to 3, not to 1"]),
        ([[2, 1], [1, 0.5]], ["the rows of H add up to 1.5 … 3, not to 1"]),
        ([[1, 1e-4], [1e-4, 1]], []),
        ([[0, 2], [2, 0]], ["H has zeros on its diagonal and positive numbers beside it", "the rows of H add up to 2"]),
        (
            [[0, 0.5], [1, -0.5]],
            ["H is not symmetric", "row 1 of H has negative numbers", "the rows of H add up to 0.5"],
        ),
    ],
)
def test_remarks(rows: list[list[float]], expected: list[str]) -> None:
    found = remarks(np.array(rows, np.float32))
    assert len(found) == len(expected), found
    for remark, start in zip(found, expected, strict=True):
        assert remark.startswith(start)


def test_what_distances_would_do() -> None:
    found = remarks(np.array([[0, 1], [1, 0]], np.float32))
    assert "would teach the net to predict anything but the label" in found[0]
    assert "`from_distances='exp'`" in found[0]


def test_weights_are_no_mistake() -> None:
    """Neither the sums of weighted rows nor what weights do to symmetry is worth a word."""
    given = np.array([[0.75, 0.25], [0.25, 0.75]], np.float32)
    assert remarks(given * np.array([[3], [0.5]], np.float32), weighted=True, base=given) == ()


def test_a_mistake_hidden_by_unit_rows() -> None:
    given = np.array([[0, 1, 2], [1, 0, 1], [2, 1, 0]], np.float32)
    found = remarks(given / given.sum(axis=1, keepdims=True), base=given)
    assert [remark.split(",")[0] for remark in found] == ["H has zeros on its diagonal and positive numbers beside it"]
