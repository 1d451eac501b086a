"""Class weights from counts: each formula, against itself written out, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffeconv import CaffeconvError
from caffeconv.infogain.balance import BALANCES, Balance, ClassCounts, class_weights, count_remarks

COUNTS = st.lists(st.integers(1, 10**9), min_size=1, max_size=8)


@given(COUNTS)
def test_median_frequency_of_counts(counts: list[int]) -> None:
    np.testing.assert_allclose(
        class_weights(counts, "median-frequency"), np.median(counts) / np.array(counts), rtol=1e-12
    )


def test_median_frequency_of_pictures() -> None:
    """A class is held against the pictures that it is in: one that fills half of the few with it is not rare."""
    counts = ClassCounts(np.array([900.0, 50, 50]), np.array([1000.0, 100, 1000]))
    np.testing.assert_allclose(class_weights(counts), 0.5 / np.array([0.9, 0.5, 0.05]))


@given(COUNTS)
def test_inverse_frequency(counts: list[int]) -> None:
    """Every class adds as much to the whole loss, and the mean weight of a label is 1."""
    shares = class_weights(counts, "inverse-frequency") * counts
    np.testing.assert_allclose(shares, sum(counts) / len(counts), rtol=1e-12)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=8), st.floats(0, 0.9999))
def test_effective_number(counts: list[int], beta: float) -> None:
    weights = class_weights(counts, "effective-number", beta=beta)
    effective = np.array([sum(beta**i for i in range(n)) for n in counts])  # 1 + β + … + βⁿ⁻¹
    np.testing.assert_allclose(weights, len(counts) / effective / (1 / effective).sum(), rtol=1e-8)
    np.testing.assert_allclose(weights.sum(), len(counts))


@given(COUNTS)
def test_limits_of_effective_numbers(counts: list[int]) -> None:
    np.testing.assert_allclose(class_weights(counts, "effective-number", beta=0), 1)
    near = class_weights(counts, "effective-number", beta=1 - 1e-14)
    inverse = class_weights(counts, "inverse-frequency")
    np.testing.assert_allclose(near, inverse * len(counts) / inverse.sum(), rtol=1e-3)


@given(COUNTS, st.sampled_from(BALANCES), st.integers(0, 8))
def test_a_class_that_never_occurs(counts: list[int], balance: Balance, place: int) -> None:
    """It weighs nothing, and changes no other weight."""
    place = min(place, len(counts))
    weights = class_weights([*counts[:place], 0, *counts[place:]], balance)
    assert weights[place] == 0
    np.testing.assert_array_equal(np.delete(weights, place), class_weights(counts, balance))


@pytest.mark.parametrize(
    ("counts", "beta", "message"),
    [
        ([], 0.9, "class counts: 0 numbers; one for each class was needed"),
        ([[1, 2]], 0.9, "class counts: 1×2 numbers"),
        ([0, 0], 0.9, "class counts: no class occurs; at least one label was needed"),
        ([1, -2], 0.9, "class counts: -2 for class 1 (from 0); a number of at least 0 was needed"),
        ([1, float("nan")], 0.9, "class counts: nan for class 1"),
        ([1, float("inf")], 0.9, "class counts: inf for class 1"),
        ([0.9, 0.1], 0.9, "class counts: 0.1; an effective number needs numbers of labels, not shares"),
        ([1, 2], 1, "`beta=1`: 0 or more, and less than 1, was needed"),
        ([1, 2], -0.5, "`beta=-0.5`"),
        ([1, 2], float("nan"), "`beta=nan`: a finite number"),
    ],
)
def test_refused(counts: list[float], beta: float, message: str) -> None:
    with pytest.raises(CaffeconvError) as caught:
        class_weights(counts, "effective-number", beta=beta)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([5, 3], []),
        ([5, 0, 3], ["class 1 never occurs, so its weight is 0"]),
        ([5, 3, 0, 0], ["classes 2, 3 never occur, so their weight is 0"]),
        (
            [5, 3, *[0] * 253, 9],
            ["classes 2, 3, 4, 5, 6, 7, 8, 9, … never", "label 255 stands apart from the others: if"],
        ),
        ([7], ["the only label is 0: if the pictures themselves are maps of labels, add `label_maps=True`"]),
        ([7, 0], ["class 1 never occurs", "the only label is 0"]),
        ([0, 7], ["class 0 never occurs"]),
    ],
)
def test_remarks(counts: list[int], expected: list[str]) -> None:
    given = ClassCounts.of(counts)
    found = count_remarks(given, class_weights(given))
    assert len(found) == len(expected)
    for remark, start in zip(found, expected, strict=True):
        assert remark.startswith(start)


def test_effective_numbers_that_tell_nothing_apart() -> None:
    given = ClassCounts.of([100_000, 10**9])
    (remark,) = count_remarks(given, class_weights(given, "effective-number", beta=0.999))
    assert "100000 labels are as good as 1e+09. Choose a greater `beta=…`" in remark
    assert count_remarks(given, class_weights(given, "effective-number", beta=1 - 1e-8)) == ()
