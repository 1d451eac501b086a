"""The head that SSD's deploy nets have in the place of the loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffeconv.caffe_format.prototxt import parse_text
from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.files.net_folders import NetFolders
from caffeconv.ir.definition import LayerDef
from caffeconv.layers.detection_head import detection_head

LOSS = """
name: "mbox_loss" type: "MultiBoxLoss" bottom: "mbox_loc" bottom: "mbox_conf" bottom: "mbox_priorbox" bottom: "label" {}
multibox_loss_param {{ num_classes: 21 share_location: true background_label_id: 0 code_type: CENTER_SIZE {} }}
"""


def layer_def(text: str) -> LayerDef:
    proto = LayerParameter()
    parse_text(text, proto, "layer")
    bottoms, tops = tuple(proto.bottom), tuple(proto.top)
    return LayerDef(proto.name, proto.type, bottoms, tops, bottoms, tops, proto, "TEST", NetFolders(Path()))


def head(bottoms: str = "", options: str = "", others: tuple[str, ...] = ()) -> list[LayerParameter]:
    layer = layer_def(LOSS.format(bottoms, options))
    return list(detection_head(layer, [layer, *map(layer_def, others)]))


def test_the_layers_and_settings_of_ssds_deploy_net() -> None:
    """As ssd_pascal.py writes them."""
    reshape, softmax, flatten, output = head()
    assert [layer.type for layer in (reshape, softmax, flatten, output)] == [
        "Reshape", "Softmax", "Flatten", "DetectionOutput",
    ]  # fmt: skip
    assert [layer.top[0] for layer in (reshape, softmax, flatten, output)] == [
        "mbox_conf_reshape", "mbox_conf_softmax", "mbox_conf_flatten", "detection_out",
    ]  # fmt: skip
    assert list(reshape.reshape_param.shape.dim) == [0, -1, 21]
    assert softmax.softmax_param.axis == 2
    assert flatten.flatten_param.axis == 1
    assert list(output.bottom) == ["mbox_loc", "mbox_conf_flatten", "mbox_priorbox"]
    param = output.detection_output_param
    assert (param.num_classes, param.share_location, param.background_label_id) == (21, True, 0)
    assert param.code_type == 2
    assert param.nms_param.nms_threshold == pytest.approx(0.45)
    assert (param.nms_param.top_k, param.keep_top_k) == (400, 200)
    assert param.confidence_threshold == pytest.approx(0.01)


def test_logistic_confidences() -> None:
    sigmoid, output = head(options="conf_loss_type: LOGISTIC")
    assert (sigmoid.type, list(sigmoid.bottom)) == ("Sigmoid", ["mbox_conf"])
    assert list(output.bottom) == ["mbox_loc", "mbox_conf_sigmoid", "mbox_priorbox"]


def test_refinedets_two_stages() -> None:
    second = 'bottom: "arm_conf_flatten" bottom: "arm_loc"'
    output = head(second, "objectness_score: 0.02")[-1]
    assert list(output.bottom) == ["mbox_loc", "mbox_conf_flatten", "mbox_priorbox", "arm_conf_flatten", "arm_loc"]
    assert output.detection_output_param.objectness_score == pytest.approx(0.02)
    other = LOSS.format('bottom: "arm_conf_flatten" bottom: "mbox_loc"', "")
    assert not head(others=(other.replace('"mbox_loc" bottom: "mbox_conf"', '"odm_loc" bottom: "odm_conf"'),))


def test_none_where_the_net_has_its_own() -> None:
    own = 'name: "d" type: "DetectionOutput" bottom: "mbox_loc" bottom: "c" bottom: "p" top: "d"'
    assert not head(others=(own,))


def test_no_other_layer_has_a_head() -> None:
    layer = layer_def('name: "l" type: "SmoothL1LossOHEM" bottom: "a" bottom: "b" bottom: "c" bottom: "d" top: "l"')
    assert not detection_head(layer, [layer])
