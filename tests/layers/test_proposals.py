"""Proposal: whose rule a text follows, and what no rule takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.golden_cases import forward
from support.small_nets import write_net

import caffeconv

INPUTS = {"scores": (1, 6, 2, 2), "offsets": (1, 12, 2, 2), "info": (1, 3)}
PYTHON = 'python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "PARAMETERS" }'


def proposal(fields: str) -> str:
    bottoms = 'bottom: "scores" bottom: "offsets" bottom: "info"'
    return f'layer {{ name: "p" type: "Proposal" {bottoms} top: "rois" proposal_param {{ {fields} }} }}'


def python_proposal(parameters: str) -> str:
    bottoms = 'bottom: "scores" bottom: "offsets" bottom: "info"'
    return f'layer {{ name: "p" type: "Python" {bottoms} top: "rois" {PYTHON.replace("PARAMETERS", parameters)} }}'


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ("ratio: 0.5 ratio: 1 ratio: 2", "at least one of each"),
        ("scale: 8 ratio: 1 anchor_scale: 3", "anchor_scale is synopsys-caffe's field"),
        ("stride_h: 16 stride_w: 16 nms_iou_th: 0.7", "Xilinx"),
        ("scale: 48 ratio: 0.5 ratio: 1 ratio: 2", "`dialect='happynear'`"),
        ("scale: 8 ratio: 1", "two for each of 1 anchors"),
        ("scale: 8 ratio: -1", "each must be > 0"),
    ],
)
def test_refused(tmp_path: Path, fields: str, complaint: str) -> None:
    path = write_net(tmp_path, INPUTS, proposal(fields))
    with pytest.raises(caffeconv.CaffeconvError) as error:
        caffeconv.convert(path)
    assert complaint in str(error.value)


def test_batches_are_happynears_alone(tmp_path: Path) -> None:
    inputs = {"scores": (2, 6, 2, 2), "offsets": (2, 12, 2, 2), "info": (2, 4)}
    path = write_net(tmp_path, inputs, proposal("scale: 48 ratio: 0.5 ratio: 1 ratio: 2 base_size: 16"))
    with pytest.raises(caffeconv.CaffeconvError, match="Only single item batches"):
        caffeconv.Net(path, dialect="pvanet")
    net = caffeconv.Net(path, dialect="happynear")
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in inputs.items()}
    feeds["info"][:] = (32, 32, 1, 1)
    rois = forward(net, feeds)["rois"]
    assert set(rois[:, 0]) == {0, 1}


def test_known_python_layer_runs_without_its_module(tmp_path: Path) -> None:
    inputs = {"scores": (1, 12, 2, 2), "offsets": (1, 24, 2, 2), "info": (1, 3)}
    path = write_net(tmp_path, inputs, python_proposal("{'feat_stride': 16, 'scales': !!python/tuple [2, 4]}"))
    assert caffeconv.inspect(path).blobs["rois"] == (300, 5)


def test_module_that_is_there_runs_where_allowed(tmp_path: Path) -> None:
    (tmp_path / "rpn").mkdir()
    (tmp_path / "rpn" / "__init__.py").write_text("")
    (tmp_path / "rpn" / "proposal_layer.py").write_text(
        "import caffe\n"
        "class ProposalLayer(caffe.Layer):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(1, 5)\n"
        "    def forward(self, bottom, top): top[0].data[...] = 7\n"
    )
    inputs = {"scores": (1, 18, 2, 2), "offsets": (1, 36, 2, 2), "info": (1, 3)}
    path = write_net(tmp_path, inputs, python_proposal("'feat_stride': 16"))
    feeds = {name: np.zeros(shape, np.float32) for name, shape in inputs.items()}
    own = forward(caffeconv.Net(path, allow_python=True), feeds)["rois"]
    np.testing.assert_array_equal(own, np.full((1, 5), 7, np.float32))


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [("'scales': [8]", "'feat_stride': 16 was needed"), ("'feat_stride': 16, 'ratios': [1]", "does not have")],
)
def test_python_parameters_that_the_rule_lacks(tmp_path: Path, parameters: str, complaint: str) -> None:
    path = write_net(tmp_path, INPUTS, python_proposal(parameters))
    with pytest.raises(caffeconv.CaffeconvError) as error:
        caffeconv.convert(path)
    assert complaint in str(error.value)
