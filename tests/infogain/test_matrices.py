"""H from distances, weights and smoothing: what each formula says, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from caffeconv import CaffeconvError
from caffeconv.infogain.matrices import (
    DECAYS,
    MAX_CLASSES,
    Decay,
    distances_between,
    from_distances,
    identity,
    smoothed,
    weighted,
    with_unit_rows,
)

Matrix = NDArray[np.float32]
TINY = 1e-37
"""Where float32 loses digits."""
POSITIONS = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6)
MATRICES = st.integers(1, 5).flatmap(lambda n: arrays(np.float32, (n, n), elements=st.floats(0, 100, width=32)))


@given(POSITIONS, st.sampled_from(DECAYS), st.floats(0.1, 1e3))
def test_similarities_of_graded_classes(positions: list[float], decay: Decay, sigma: float) -> None:
    distances = distances_between(positions)
    h = from_distances(distances, decay, sigma)
    assert h.dtype == np.float32
    np.testing.assert_array_equal(h, h.T)
    np.testing.assert_array_equal(np.diagonal(h), 1)
    assert h.min() >= 0
    order = np.argsort(distances, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(h, order, axis=1), axis=1) <= 0).all()


def test_formulas() -> None:
    d = np.array([[0, 1, 4], [1, 0, 3], [4, 3, 0]])
    np.testing.assert_allclose(from_distances(d, "exp", 2), np.exp(-d / 2), rtol=1e-6)
    np.testing.assert_allclose(from_distances(d), np.exp(-d), rtol=1e-6)
    np.testing.assert_allclose(from_distances(d, "linear", 2), np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]))
    np.testing.assert_allclose(from_distances(d, "linear"), 1 - d / 4)
    np.testing.assert_allclose(from_distances(d, "inverse", 2), 2 / (2 + d), rtol=1e-6)
    np.testing.assert_array_equal(from_distances(np.zeros((2, 2)), "linear"), 1)
    np.testing.assert_array_equal(from_distances(d, "exp", 1e-300), identity(3))


@given(MATRICES, st.floats(0, 0.99))
def test_smoothing_keeps_the_sum_of_each_row(h: Matrix, epsilon: float) -> None:
    smooth = smoothed(h, epsilon)
    np.testing.assert_allclose(smooth.sum(axis=1), h.sum(axis=1), rtol=1e-5, atol=1e-5)
    exact = (1 - epsilon) * h.astype(np.float64) + epsilon * h.mean(axis=1, keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(smooth, exact, rtol=1e-6, atol=TINY)


@given(st.integers(1, 9), st.floats(0, 0.99))
def test_label_smoothing(size: int, epsilon: float) -> None:
    np.testing.assert_allclose(
        smoothed(identity(size), epsilon), (1 - epsilon) * np.eye(size) + epsilon / size, rtol=1e-6, atol=TINY
    )


@given(MATRICES)
def test_unit_rows(h: Matrix) -> None:
    unit = with_unit_rows(h)
    full = h.any(axis=1)
    np.testing.assert_allclose(unit[full].sum(axis=1), 1, rtol=1e-5)
    assert not unit[~full].any()


@given(MATRICES, st.data())
def test_weights_multiply_rows(h: Matrix, data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0, 100), min_size=len(h), max_size=len(h)))
    np.testing.assert_allclose(weighted(h, weights), np.diag(weights) @ h, rtol=1e-6, atol=TINY)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: identity(0), "`size=0`: 1 to 16384 were needed"),
        (lambda: identity(MAX_CLASSES + 1), "`size=16385`: 1 to 16384 were needed"),
        (lambda: weighted(np.eye(2), [1]), "1 class weights for 2 classes; one for each class was needed"),
        (lambda: weighted(np.eye(2), [1, np.nan]), "class weights: nan for class 1 (from 0); finite numbers"),
        (lambda: weighted(np.eye(2), []), "class weights: 0; 1 to 16384 numbers, one a class, were needed"),
        (lambda: weighted(np.full((1, 1), 1e30), [1e30]), "e+60 in row 0, column 0 (from 0); finite numbers"),
        (lambda: distances_between([0, np.inf]), "positions: inf for class 1 (from 0)"),
        (lambda: from_distances([[0, -1], [1, 0]]), "distances: -1 in row 0, column 1 (from 0); no distance may be"),
        (lambda: from_distances([[0, 1], [1, 2]]), "distances: class 1 is 2 away from itself; 0 was needed."),
        (
            lambda: from_distances([[1, 0.5], [0.5, 1]]),
            "class 0 is 1 away from itself; 0 was needed. Similarities need",
        ),
        (lambda: from_distances([[0, 1]]), "distances: the matrix is 1×2; L×L was needed"),
        (lambda: from_distances([[0]], "exp", 0), "`sigma=0`: a number above 0 was needed"),
        (lambda: from_distances([[0]], "exp", np.nan), "`sigma=nan`: a finite number was needed"),
        (lambda: smoothed(np.eye(2), 1), "`epsilon=1`: 0 or more, and less than 1, was needed"),
        (lambda: smoothed(np.eye(2), -0.1), "`epsilon=-0.1`: 0 or more"),
        (lambda: smoothed(np.eye(2), np.nan), "`epsilon=nan`: a finite number"),
        (lambda: with_unit_rows([[1, 0], [1, -2]]), "row 1 of H adds up to -1; a sum above 0 was needed"),
        (lambda: with_unit_rows([[1, -1], [0, 1]]), "row 0 of H adds up to 0; a sum above 0 was needed"),
    ],
)
def test_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(CaffeconvError) as caught:
        call()
    assert message in str(caught.value)
