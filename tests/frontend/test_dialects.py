"""A dialect that the caller chooses reaches every layer; one that does not exist is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.golden_cases import ROOT
from support.small_nets import write_net

import caffeconv
from caffeconv.cli import main
from caffeconv.frontend.dialects import DIALECTS, checked_dialect
from caffeconv.frontend.open_files import read_definition
from caffeconv.frontend.options import NetOptions

RELU = 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }'


def test_known_names_stay() -> None:
    assert [checked_dialect(name) for name in (None, *DIALECTS)] == [None, *DIALECTS]


@pytest.mark.parametrize("dialect", [None, "hed"])
def test_layers_know_it(dialect: str | None, tmp_path: Path) -> None:
    net = read_definition(write_net(tmp_path, {"x": (1, 2)}, RELU), NetOptions(dialect=dialect))
    assert {layer.dialect for layer in net.layers} == {dialect}


def test_unknown(tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 2)}, RELU)
    with pytest.raises(
        caffeconv.CaffeconvError,
        match=r"`dialect='nobody'`: no such dialect; one of akrit2013, bottom-up",
    ):
        caffeconv.convert(net, dialect="nobody")


@pytest.mark.parametrize("command", ["convert", "inspect", "upgrade"])
def test_every_command_takes_it(command: str, tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 2)}, RELU)
    out = {
        "convert": ["-o", str(tmp_path / "m.onnx")],
        "inspect": [],
        "upgrade": ["--deploy", "-o", str(tmp_path / "n.prototxt")],
    }
    result = CliRunner().invoke(main, [command, str(net), *out[command], "--dialect", "bvlc"])
    assert result.exit_code == 0, result.stderr
    assert "invalid value for '--dialect'" in CliRunner().invoke(main, [command, str(net), "--dialect", "x"]).stderr


def test_the_page_lists_all() -> None:
    page = (ROOT / "docs" / "forks.md").read_text()
    for name, text in DIALECTS.items():
        fork, _, layers = text.partition(": ")
        assert f"| `{name}` | {fork} | {layers} |" in page


FACES = """
layer { name: "prior" type: "PriorBox" bottom: "x" bottom: "picture" top: "p"
  prior_box_param { min_size: 32 min_size: 64 min_size: 128 variance: 0.1 } }
layer { name: "loc" type: "Convolution" bottom: "x" top: "l" convolution_param { num_output: NUMBER kernel_size: 1 } }
"""


@pytest.mark.parametrize(("number", "boxes"), [(84, 21), (12, 3)])
def test_what_the_other_layers_of_the_net_show(number: int, boxes: int, tmp_path: Path) -> None:
    """Four numbers for each box of a place, 21 with FaceBoxes' rule."""
    shapes = {"x": (1, 2, 3, 4), "picture": (1, 3, 96, 128)}
    report = caffeconv.inspect(write_net(tmp_path, shapes, FACES.replace("NUMBER", str(number))))
    assert report.blobs["p"] == (1, 2, 3 * 4 * boxes * 4)
    with pytest.raises(caffeconv.CaffeconvError, match="`dialect='faceboxes'` or `dialect='ssd'`"):
        caffeconv.convert(write_net(tmp_path, shapes, FACES.replace("NUMBER", "5")))


def test_a_choice_that_shapes_do_not_need(tmp_path: Path) -> None:
    """inspect goes on; what computes asks."""
    path = write_net(tmp_path, {"x": (1, 2, 3, 4)}, 'layer { name: "n" type: "L2Norm" bottom: "x" top: "y" }')
    report = caffeconv.inspect(path)
    assert report.ok
    assert report.blobs["y"] == (1, 2, 3, 4)
    assert [d.severity for d in report.diagnostics] == ["warning"]
    with pytest.raises(caffeconv.CaffeconvError, match="`dialect='ultinous'`"):
        caffeconv.convert(path)
    with pytest.raises(caffeconv.CaffeconvError, match="`dialect='ultinous'`"):
        caffeconv.Net(path)


def test_regions_that_only_hold_a_place(tmp_path: Path) -> None:
    text = 'layer { name: "pool" type: "ROIPooling" bottom: "x" bottom: "rois" top: "y" roi_pooling_param { '
    path = write_net(tmp_path, {"x": (1, 2, 3, 4), "rois": (1, 4)}, text + "pooled_h: 2 pooled_w: 2 } }")
    assert caffeconv.inspect(path).blobs["y"] == (1, 2, 2, 2)
    with pytest.raises(caffeconv.CaffeconvError, match=r"holds the place of R×5.*`shapes=\{'rois': \(1, 5\)\}`"):
        caffeconv.convert(path)
    assert caffeconv.convert(path, shapes={"rois": (1, 5)}).graph.output[0].name == "y"


EMBEDDED_CLASSES = """input: "x" input_shape { dim: [3, 4] }
    layer { name: "f" type: "InnerProduct" bottom: "x" top: "f" inner_product_param { num_output: 5 } }
    layer { name: "m" type: "ArgMax" bottom: "x" top: "m" argmax_param { axis: 1 } }
    layer { name: "e" type: "Embed" bottom: "m" top: "e" embed_param { num_output: 2 input_dim: 4 bias_term: false
        weight_filler { type: "uniform" } } }
    layer { name: "c" type: "Concat" bottom: "f" bottom: "e" top: "c" }
"""


def test_embedded_classes_beside_features(tmp_path: Path) -> None:
    """bottom-up-attention: a row takes the place of ArgMax's axis; else BVLC's rule, which another dialect keeps."""
    (path := tmp_path / "net.prototxt").write_text(EMBEDDED_CLASSES)
    net = caffeconv.Net(path)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    net.forward(x=x)
    np.testing.assert_array_equal(net.blobs["c"].data[:, 5:], net.params["e"][0].data[x.argmax(1)])
    with pytest.raises(caffeconv.CaffeconvError, match="must have the same"):
        caffeconv.Net(path, dialect="bvlc")
