"""A net with a layer that nobody knows is looked at as far as shapes are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import write_net, write_weights

import caffeconv

IN_PLACE = """
layer { name: "norm" type: "Quux" bottom: "x" top: "x" }
layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 5 } }
"""
ELSEWHERE = IN_PLACE.replace('top: "x" }', 'top: "q" }').replace('bottom: "x" top: "fc"', 'bottom: "q" top: "fc"')


def test_in_place_it_keeps_the_shape(tmp_path: Path) -> None:
    report = caffeconv.inspect(write_net(tmp_path, {"x": (2, 3, 4)}, IN_PLACE))
    assert report.blobs["fc"] == (2, 5)
    assert [d.message for d in report.diagnostics if d.severity == "error"] == ["Unknown layer type: Quux"]


def test_the_caller_says_the_shape(tmp_path: Path) -> None:
    path = write_net(tmp_path, {"x": (2, 3, 4)}, ELSEWHERE)
    assert "fc" not in caffeconv.inspect(path).blobs
    report = caffeconv.inspect(path, shapes={"q": (2, 7)})
    assert (report.blobs["q"], report.params["fc"]) == ((2, 7), [(5, 7), (5,)])
    assert [d.message for d in report.diagnostics if d.severity == "error"] == ["Unknown layer type: Quux"]


def test_the_weights_behind_it_are_explained(tmp_path: Path) -> None:
    """What is wrong with fc is found although nobody knows the layer before it."""
    weights = write_weights(tmp_path / "w.caffemodel", "fc", [np.ones((6, 12), np.float32), np.ones(6, np.float32)])
    report = caffeconv.inspect(write_net(tmp_path, {"x": (2, 3, 4)}, IN_PLACE), weights)
    assert any("file: weight 6×12" in str(d) and "net:  weight 5×12" in str(d) for d in report.diagnostics)
    assert [edit.after for cure in report.cures for edit in cure.edits] == [{"num_output": 6}]


def test_its_own_weights_are_no_problem(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.caffemodel", "norm", [np.ones(3, np.float32)])
    report = caffeconv.inspect(write_net(tmp_path, {"x": (2, 3, 4)}, IN_PLACE), weights)
    assert report.params["norm"] == [(3,)]
    assert [d.message for d in report.diagnostics if d.severity == "error"] == ["Unknown layer type: Quux"]


@pytest.mark.parametrize("text", [IN_PLACE, ELSEWHERE])
def test_nothing_computes_it(text: str, tmp_path: Path) -> None:
    path = write_net(tmp_path, {"x": (2, 3, 4)}, text)
    for action in (caffeconv.convert, caffeconv.Net):
        with pytest.raises(caffeconv.CaffeconvError, match="Unknown layer type: Quux"):
            action(path, shapes={"q": (2, 7)} if text is ELSEWHERE else None)
    relu = 'layer { name: "relu" type: "ReLU" bottom: "x" top: "r" }'
    path = write_net(tmp_path, {"x": (2, 3, 4)}, relu + text)
    assert caffeconv.convert(path, outputs=["r"]).graph.output[0].name == "r"
