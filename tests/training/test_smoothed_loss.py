"""Means of the last losses."""

from __future__ import annotations

import math

import pytest

from caffeconv.training.smoothed_loss import SmoothedLoss


def test_the_mean_of_the_last_three() -> None:
    mean = SmoothedLoss(3)
    values = [mean.add(loss, i) for i, loss in enumerate([3, 6, 9, 12, 0])]
    assert values == pytest.approx([3, 4.5, 6, 9, 7])


def test_no_number_is_no_error() -> None:
    assert math.isnan(SmoothedLoss(1).add(math.nan, 0))
