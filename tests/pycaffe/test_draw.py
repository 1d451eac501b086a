"""Drawings of nets; Graphviz itself is not needed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from google.protobuf import text_format

import caffeconv
from caffeconv.caffe_pb2 import TEST, NetParameter
from caffeconv.pycaffe import draw

NET = """
name: "lenet"
layer { name: "data" type: "Data" top: "data" data_param { batch_size: 64 } include { phase: TRAIN } }
layer { name: "c" type: "Convolution" bottom: "data" top: "c" param { lr_mult: 2 }
        convolution_param { num_output: 20 kernel_size: 5 stride: 2 } }
layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { pool: AVE kernel_size: 3 } }
layer { name: "r" type: "ReLU" bottom: "p" top: "p" }
"""


@pytest.fixture
def net() -> NetParameter:
    return text_format.Parse(NET, NetParameter())


def test_labels(net: NetParameter) -> None:
    _, convolution, pooling, _ = net.layer
    assert draw.get_layer_label(convolution, "LR", True) == (
        r'"c\n(Convolution)\nkernel size: 5\nstride: 2\npad: 0\nlr mult: 2.0, 1.0"'
    )
    assert draw.get_layer_label(pooling, "TB") == '"p (Pooling AVE) kernel size: 3 stride: 1 pad: 0"'
    assert [draw.get_edge_label(layer) for layer in net.layer] == ["Batch 64", "20", "", ""]


def test_graphviz_s_text(net: NetParameter, tmp_path: Path) -> None:
    pytest.importorskip("pydot")
    draw.draw_net_to_file(net, tmp_path / "net.raw", phase=TEST)
    text = (tmp_path / "net.raw").read_text()
    assert '"c_Convolution" -> "c_blob"' in text.replace(" ->", " ->")
    assert '"p_blob" -> "r_ReLU"' in text
    assert "data_Data" not in text


def test_what_cannot_be_drawn(net: NetParameter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match="a suffix that says the format was needed"):
        draw.draw_net_to_file(net, tmp_path / "net")
    monkeypatch.setitem(sys.modules, "pydot", None)
    with pytest.raises(caffeconv.CaffeconvError, match="pydot is not installed; pip install pydot"):
        draw.draw_net(net, "LR")
