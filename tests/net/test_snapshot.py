"""Weights that a net has copies of."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from support.golden_cases import ROOT
from support.net_objects import net_objects

from caffeconv.conversion.load import load
from caffeconv.net.snapshot import with_copied_weights

DIGITS = ROOT / "fixtures" / "digits"


def test_the_file_may_change_afterwards(tmp_path: Path) -> None:
    weights = tmp_path / "net.caffemodel"
    shutil.copy(DIGITS / "digits.caffemodel", weights)
    loaded = load(DIGITS / "deploy.prototxt", weights)
    copied = with_copied_weights(loaded)
    before = [param.array().copy() for node in loaded.graph.nodes for param in node.params]
    weights.write_bytes(b"")
    after = [param.array() for node in copied.graph.nodes for param in node.params]
    assert len(after) == 8
    for values, expected in zip(after, before, strict=True):
        np.testing.assert_array_equal(values, expected)


def test_what_fillers_make_is_made_when_it_is_needed(tmp_path: Path) -> None:
    loaded = net_objects(tmp_path).loaded
    (param,) = (param for node in loaded.graph.nodes for param in node.params)
    (copied,) = (param for node in with_copied_weights(loaded).graph.nodes for param in node.params)
    assert copied.values is param.values
