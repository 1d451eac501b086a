"""What a layer's definition holds of its message, so that few have to read that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from google.protobuf import text_format

from caffeconv.caffe_format.prototxt import read_prototxt
from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.frontend.netdef import define_net
from caffeconv.frontend.options import NetOptions
from caffeconv.ir.definition import LayerDef, ParamSpec

FC = """
layer {
  name: "fc" type: "InnerProduct" bottom: "x" top: "y" loss_weight: 2 propagate_down: false
  param { name: "w" lr_mult: 0 share_mode: PERMISSIVE } param { decay_mult: 0.5 }
  blobs { num: 1 channels: 1 height: 2 width: 3 data: 1 data: 2 data: 3 data: 4 data: 5 data: 6 }
  blobs { shape { dim: 2 } double_data: 7 double_data: 8 }
}
"""


def definition(folder: Path) -> LayerDef:
    path = folder / "net.prototxt"
    path.write_text('layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }' + FC)
    return define_net(read_prototxt(path), NetOptions()).layers[1]


def test_what_the_prototxt_says_of_parameters_and_tops(tmp_path: Path) -> None:
    layer = definition(tmp_path)
    assert layer.param_specs == (ParamSpec("w", "PERMISSIVE", 0.0, None), ParamSpec("", "STRICT", None, 0.5))
    assert layer.loss_weights == (2.0,)
    assert layer.propagate_down == (False,)


def test_blobs_in_the_prototxt(tmp_path: Path) -> None:
    weight, bias = definition(tmp_path).inline_blobs
    assert [(blob.shape, blob.legacy, blob.count, blob.offset) for blob in (weight, bias)] == [
        ((1, 1, 2, 3), True, 6, None), ((2,), False, 2, None),
    ]  # fmt: skip
    np.testing.assert_array_equal(weight.array(), [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(np.concatenate(list(bias.blocks())), [7, 8])
    assert bias.array().dtype == np.float32


def test_another_message_in_a_layer_s_place(tmp_path: Path) -> None:
    layer = definition(tmp_path)
    proto = LayerParameter()
    text_format.Parse('name: "other" type: "Convolution" bottom: "a" top: "b" param { lr_mult: 3 }', proto)
    changed = layer.with_proto(proto)
    assert (changed.name, changed.type, changed.bottoms, changed.tops) == ("fc", "Convolution", ("x",), ("y",))
    assert (changed.param_specs, changed.loss_weights) == ((ParamSpec(lr_mult=3.0),), ())
    assert (changed.propagate_down, changed.inline_blobs, changed.line) == ((), (), layer.line)


def test_definitions_of_one_message_are_equal(tmp_path: Path) -> None:
    layer = definition(tmp_path)
    assert layer.with_proto(layer.proto) == layer
    assert replace(layer, name="fc2") != layer
