"""One layer of a report."""

from __future__ import annotations

from support.golden_cases import ROOT

from caffeconv.inspection.report import inspect


def test_repr() -> None:
    layers = inspect(ROOT / "fixtures/digits/deploy.prototxt").layers
    assert repr(layers[2]) == "<layer conv1 (Convolution): scaled → conv1 1×8×24×24>"
    assert repr(layers[0]) == "<layer data (Input): → data 1×1×28×28>"
