"""Accuracy: what a fork's field would change."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.small_nets import write_net

import caffeconv


def test_the_least_score_as_the_best_is_refused(tmp_path: Path) -> None:
    """happynear's field; `false` is what Caffe does."""
    text = (
        'layer { name: "a" type: "Accuracy" bottom: "x" bottom: "t" top: "y" accuracy_param { min_is_better: VALUE } }'
    )
    inputs = {"x": (2, 3), "t": (2,)}
    assert caffeconv.inspect(write_net(tmp_path, inputs, text.replace("VALUE", "false"))).ok
    with pytest.raises(caffeconv.CaffeconvError, match="min_is_better: true, happynear's, is not supported"):
        caffeconv.convert(write_net(tmp_path, inputs, text.replace("VALUE", "true")))
