"""Layers that only training has, by their type or by the class of their Python code."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.files.net_folders import NetFolders
from caffeconv.ir.definition import LayerDef
from caffeconv.layers import LAYERS, PYTHON_LAYERS
from caffeconv.layers.training_only import (
    DATA,
    EVALUATIONS,
    LOSSES,
    PASSING,
    data_tops,
    is_training_only,
    known_type,
    passed_on,
    prediction_layer,
)


def layer_def(kind: str, bottoms: tuple[str, ...] = ("x",), tops: tuple[str, ...] = ("y",)) -> LayerDef:
    proto = LayerParameter(type="Python" if "." in kind else kind)
    if "." in kind:
        proto.python_param.module, proto.python_param.layer = kind.rsplit(".", 1)
    return LayerDef("l", proto.type, bottoms, tops, bottoms, tops, proto, "TEST", NetFolders(Path()))


def test_no_known_type_is_a_training_only_one() -> None:
    """But for ENet's dropout, which a deploy net has not, and a net as it stands has."""
    names = LOSSES | EVALUATIONS | PASSING.keys() | DATA.keys()
    assert names & (LAYERS.keys() | PYTHON_LAYERS.keys()) == {"spatial_dropout.SpatialDropoutLayer"}


def test_is_training_only() -> None:
    assert is_training_only(layer_def("MultiBoxLoss"))
    assert is_training_only(layer_def("DetectionEvaluate"))
    assert is_training_only(layer_def("rpn.anchor_target_layer.AnchorTargetLayer"))
    assert not is_training_only(layer_def("DetectionOutput"))
    assert not is_training_only(layer_def("my.module.Layer"))
    assert is_training_only(layer_def("SigmoidCrossEntropyBalanceLoss"))
    assert not is_training_only(layer_def("SoftmaxWithLoss"))
    assert not is_training_only(layer_def("Lossless"))


def test_known_python_code() -> None:
    assert known_type(layer_def("rpn.proposal_layer.ProposalLayer")) is not None
    assert known_type(layer_def("my.module.Layer")) is None


@pytest.mark.parametrize(
    ("kind", "passed"),
    [
        ("ProposalTarget", {"rois": "proposals"}),
        ("rpn.proposal_target_layer.ProposalTargetLayer", {"rois": "proposals"}),
        ("HardMining", {"rois": "proposals", "labels": "gt"}),
        ("MultiBoxLoss", {}),
    ],
)
def test_what_is_passed_on(kind: str, passed: dict[str, str]) -> None:
    assert passed_on(layer_def(kind, ("proposals", "gt"), ("rois", "labels", "targets"))) == passed


def test_data_of_a_picture_is_no_label() -> None:
    layer = layer_def("roi_data_layer.layer.RoIDataLayer", (), ("data", "im_info", "gt_boxes"))
    assert data_tops(layer) == {"data": None, "im_info": (1, 3)}
    assert data_tops(layer_def("VideoData", (), ("data", "label"))) == {"data": None}


def test_what_a_loss_predicts() -> None:
    softmax = prediction_layer(layer_def("SoftmaxWithLossOHEM", ("score", "label")))
    assert softmax is not None
    assert (softmax.type, list(softmax.bottom)) == ("Softmax", ["score"])
    assert prediction_layer(layer_def("CenterLoss")) is None
