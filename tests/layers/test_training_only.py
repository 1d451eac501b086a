"""Types that only training has are none of those that can be built."""

from __future__ import annotations

from caffeconv.layers import LAYERS
from caffeconv.layers.training_only import EVALUATIONS, LOSSES, is_training_only


def test_none_is_built() -> None:
    assert not (LOSSES | EVALUATIONS) & LAYERS.keys()
    assert not LOSSES & EVALUATIONS


def test_is_training_only() -> None:
    assert is_training_only("MultiBoxLoss")
    assert is_training_only("DetectionEvaluate")
    assert not is_training_only("DetectionOutput")
