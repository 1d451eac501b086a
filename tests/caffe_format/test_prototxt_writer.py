"""Prototxt written from a message: what it looks like, and that reading it gives the same message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from support.golden_cases import GOLDENS

from caffeconv import CaffeconvError
from caffeconv.caffe_format.prototxt import parse_text, read_prototxt
from caffeconv.caffe_format.prototxt_writer import net_to_text
from caffeconv.caffe_pb2 import LayerParameter, NetParameter


def read_back(text: str) -> NetParameter:
    net = NetParameter()
    parse_text(text, net, "written")
    return net


EXAMPLE = """name: "x"
state {
  phase: TRAIN
}
layer {
  name: "pool"
  type: "Pooling"
  bottom: "a"
  bottom: "b"
  loss_weight: 0.1
  include {
    phase: TEST
  }
  propagate_down: true
  propagate_down: false
  pooling_param {
    pool: MAX
    pad: 0
  }
  input_param {
  }
}
"""


def test_looks_like_caffes() -> None:
    """Fields in the schema's order, two spaces a level; what is set is written, default or not."""
    assert net_to_text(read_back(EXAMPLE)) == EXAMPLE


@pytest.mark.parametrize("path", sorted(GOLDENS.glob("*/*/net.prototxt")), ids=lambda p: f"{p.parts[-3]}/{p.parts[-2]}")
def test_round_trip_of_goldens(path: Path) -> None:
    try:
        net = read_prototxt(path).net
    except CaffeconvError:
        pytest.skip("no readable prototxt")
    text = net_to_text(net, with_blobs=True)
    assert read_back(text) == net
    # Caffe reads it with protobuf's own reader
    assert text_format.Parse(text, NetParameter()) == net


def test_blobs_are_left_out() -> None:
    net = read_back(
        'layer { name: "n" blobs { data: 1 shape { dim: 1 } } } layers { blobs { num: 1 } layer { blobs { } } }'
    )
    assert "blobs" not in net_to_text(net)
    assert read_back(net_to_text(net, with_blobs=True)) == net


@given(st.floats(width=32))
def test_floats_read_back_the_same(value: float) -> None:
    net = NetParameter(layer=[LayerParameter(loss_weight=[value])])
    text = net_to_text(net)
    np.testing.assert_array_equal(read_back(text).layer[0].loss_weight, net.layer[0].loss_weight)
    (theirs,) = text_format.Parse(text, NetParameter()).layer[0].loss_weight
    np.testing.assert_array_equal(theirs, net.layer[0].loss_weight[0])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, "0.1"), (1, "1"), (-2.5, "-2.5"), (1e-5, "1e-05"), (1 / 3, "0.33333334"), (16777216, "16777216"),
     (3.4e38, "3.4e+38"), (float("inf"), "inf"), (float("-inf"), "-inf"), (float("nan"), "nan")],
)  # fmt: skip
def test_floats_are_short(value: float, text: str) -> None:
    assert f"loss_weight: {text}\n" in net_to_text(NetParameter(layer=[LayerParameter(loss_weight=[value])]))


@given(st.text(st.characters(blacklist_categories=["Cs"])), st.binary())
def test_strings_read_back_the_same(text: str, raw: bytes) -> None:
    net = NetParameter(name=text, layer=[LayerParameter(source_class=raw)])
    written = net_to_text(net)
    assert read_back(written) == net
    assert text_format.Parse(written, NetParameter()) == net
    assert all(line.isprintable() or not text.isprintable() for line in written.splitlines())


def test_double_data() -> None:
    net = read_back("layer { blobs { double_data: 0.1 double_data: 3 } }")
    assert "double_data: 0.1\n      double_data: 3\n" in net_to_text(net, with_blobs=True).replace("    d", "      d")
    assert read_back(net_to_text(net, with_blobs=True)) == net
