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


def python_proposal(parameters: str, module: str = "rpn.proposal_layer", tops: str = 'top: "rois"') -> str:
    bottoms = 'bottom: "scores" bottom: "offsets" bottom: "info"'
    code = PYTHON.replace("PARAMETERS", parameters).replace("rpn.proposal_layer", module)
    return f'layer {{ name: "p" type: "Python" {bottoms} {tops} {code} }}'


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ("ratio: 0.5 ratio: 1 ratio: 2", "at least one of each"),
        ("scale: 8 ratio: 1 anchor_scale: 3", "anchor_scale is synopsys-caffe's field"),
        ("stride_h: 16 stride_w: 16 nms_iou_th: 0.7", "Xilinx"),
        ("scale: 48 ratio: 0.5 ratio: 1 ratio: 2", "`dialect='happynear'`"),
        ("scale: 8 ratio: 1", "two for each of 1 anchors"),
        ("scale: 8 ratio: -1", "each must be > 0"),
        ("scale: 8 " * 500 + "ratio: 1 " * 500, "500 ratios times 500 scales; 65536 anchors at most"),
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


def test_anchors_of_python_parameters(tmp_path: Path) -> None:
    """Where nothing is offset and little overlaps, the boxes are the anchors, clipped to the picture, the best first."""
    inputs = {"scores": (1, 4, 1, 1), "offsets": (1, 8, 1, 1), "info": (1, 3)}
    path = write_net(tmp_path, inputs, python_proposal("{'feat_stride': 16, 'ratios': [.25, 4], 'scales': [2]}"))
    feeds = {name: np.zeros(shape, np.float32) for name, shape in inputs.items()}
    feeds["info"][:] = (40, 90, 1)
    feeds["scores"][0, 2:, 0, 0] = (0.2, 0.9)
    rois = forward(caffeconv.Net(path), feeds)["rois"]
    # 32×8 and 8×32 about 7.5, twice as large: half sizes 31.5 and 7.5
    np.testing.assert_array_equal(rois, [(0, 0, 0, 16, 39), (0, 0, 0, 40, 16)])


def test_frcnn_in_cpp_has_four_axes(tmp_path: Path) -> None:
    inputs = {"scores": (1, 18, 1, 1), "offsets": (1, 36, 1, 1), "info": (1, 3)}
    text = (
        proposal("").replace('"Proposal"', '"FrcnnProposal"').replace('top: "rois"', 'top: "rois" top: "probabilities"')
    )
    feeds = {name: np.zeros(shape, np.float32) for name, shape in inputs.items()}
    feeds["info"][:] = (1000, 1000, 1)
    feeds["scores"][0, 9 + 3] = 0.5
    blobs = forward(caffeconv.Net(write_net(tmp_path, inputs, text)), feeds)
    # default_config.json's fourth anchor, -56 -56 72 72, grown from its first corner by its width of 129
    np.testing.assert_array_equal(blobs["rois"][0].ravel(), (0, 0, 0, 73, 73))
    assert blobs["probabilities"][0].shape == (1, 1, 1)
    assert blobs["probabilities"][0].item() == 0.5


def test_ssh_thins_no_boxes_when_it_detects(tmp_path: Path) -> None:
    inputs = {"scores": (1, 4, 1, 2), "offsets": (1, 8, 1, 2), "info": (1, 3)}
    tops = 'top: "rois" top: "probabilities"'
    path = write_net(
        tmp_path, inputs,
        python_proposal("{'feat_stride': 8,'scales': [1,2], 'ratios':[1,]}", "SSH.layers.proposal_layer", tops),
    )  # fmt: skip
    feeds = {name: np.zeros(shape, np.float32) for name, shape in inputs.items()}
    feeds["info"][:] = (20, 30, 1)
    feeds["scores"][0, 2:, 0] = [(0.1, 0.4), (0.3, 0.2)]
    blobs = forward(caffeconv.Net(path), feeds)
    np.testing.assert_array_equal(blobs["probabilities"], np.array([[0.4], [0.3], [0.2], [0.1]], np.float32))
    np.testing.assert_array_equal(
        blobs["rois"][:, 1:], [(8, 0, 24, 16), (0, 0, 24, 19), (0, 0, 29, 19), (0, 0, 16, 16)]
    )


def test_mnc_has_no_scores(tmp_path: Path) -> None:
    inputs = {"scores": (1, 18, 2, 2), "offsets": (1, 36, 2, 2), "info": (1, 3)}
    parameters = "{'feat_stride': 16, 'gradient_scale': 1}"
    path = write_net(tmp_path, inputs, python_proposal(parameters, "pylayer.proposal_layer"))
    assert caffeconv.inspect(path).blobs["rois"] == (300, 5)
    two_tops = python_proposal(parameters, "pylayer.proposal_layer", 'top: "rois" top: "index"')
    with pytest.raises(caffeconv.CaffeconvError, match="Python Layer produces 1"):
        caffeconv.convert(write_net(tmp_path, inputs, two_tops))


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
    [("'scales': [8]", "'feat_stride': 16 was needed"), ("'feat_stride': 16, 'sizes': [1]", "does not have")],
)
def test_python_parameters_that_the_rule_lacks(tmp_path: Path, parameters: str, complaint: str) -> None:
    path = write_net(tmp_path, INPUTS, python_proposal(parameters))
    with pytest.raises(caffeconv.CaffeconvError) as error:
        caffeconv.convert(path)
    assert complaint in str(error.value)


def test_last_candidate_of_synopsys_is_never_too_small(tmp_path: Path) -> None:
    shapes = {"scores": (1, 2, 1, 2), "offsets": (1, 4, 1, 2), "info": (1, 3)}
    fields = "anchor_scale: 1 anchor_ratio: 1 anchor_base_size: 1 feat_stride: 40 rpn_min_size: 1000"
    net = caffeconv.Net(write_net(tmp_path, shapes, proposal(fields)))
    feeds = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    feeds["info"][:] = 100, 100, 1
    np.testing.assert_array_equal(forward(net, feeds)["rois"], [[0, 24.5, 0, 56.5, 16.5]])
