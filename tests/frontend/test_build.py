"""Graphs with shapes, and all problems of a net in one go."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.graphs import Inputs, dense, graph_of, layer, net_of

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.errors import InvalidNetError, LayerError
from caffeconv.files.net_folders import NetFolders
from caffeconv.frontend.build import build, build_partial_graph, layer_class
from caffeconv.ir.definition import LayerDef
from caffeconv.layers import LAYERS
from caffeconv.layers.layer_types import KNOWN_ELSEWHERE, OTHER_NAMES
from caffeconv.tensor.param import Param

X: Inputs = {"x": (2, 3, 4, 5)}


def test_inputs_outputs_shapes_and_parameters(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, X, dense("z", "x", 7) + layer("a", "ReLU", "z") + layer("b", "Softmax", "z"))
    assert (graph.inputs, graph.outputs) == (("x",), ("a", "b"))  # what no layer reads, by name
    assert graph.shapes == {"x": (2, 3, 4, 5), "z": (2, 7), "a": (2, 7), "b": (2, 7)}
    assert graph.nodes[1].params == (Param("weight", (7, 60)), Param("bias", (7,)))


def test_the_caller_s_shapes_replace_the_net_s(tmp_path: Path) -> None:
    net = net_of(tmp_path, X, dense("z", "x", 7))
    graph = build(net, {"x": [1, 6]})
    assert (graph.shapes["x"], graph.nodes[1].params[0].shape) == ((1, 6), (7, 6))
    message = "shape given for 'xx', which is no input of the net; inputs: x\n  Did you mean 'x'?"
    with pytest.raises(InvalidNetError, match=f"^{re.escape(message)}$"):
        build(net, {"xx": [1, 6]})


def test_every_problem_in_one_go(tmp_path: Path) -> None:
    layers = (
        layer("a", "ReLUU", "x") + layer("after", "ReLU", "a") + layer("b", "Concat", "x", "concat_param { axis: 7 }")
        + layer("c", "ReLU", "x y") + layer("d", "ReLU", "x")
    )  # fmt: skip
    net = net_of(tmp_path, {"x": (2, 3), "y": (2, 3)}, layers)
    draft = build_partial_graph(net)
    assert [node.name for node in draft.nodes] == ["x", "y", "d"]
    assert [definition.name for definition in draft.unbuilt] == ["a", "after", "b", "c"]
    assert [problem.layer for problem in draft.problems] == ["a", "b", "c"]  # none of what only follows
    with pytest.raises(InvalidNetError) as refusal:
        build(net)
    assert refusal.value.diagnostics == tuple(draft.summary)
    assert "Unknown layer type: ReLUU; did you mean ReLU?\n  What can be done: cut the net before it" in str(
        refusal.value
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (layer("a", "", "x"), 'the layer has no type; add `type: "…"`'),
        (layer("a", "ReLU", "x x"), "2 bottoms; ReLU Layer takes 1 bottom blob(s) as input."),
        (layer("a", "ReLU", "x", 'top: "b"'), "2 tops; ReLU Layer produces 1 top blob(s) as output."),
        (layer("a", "AbsVal", "x", top="x"), "top 'x' is its own bottom; AbsVal Layer does not allow in-place computation."),
        (layer("a", "InnerProduct", "x", "inner_product_param { num_output: 5 axis: 3 }", top="x"),
         "InnerProduct does not work in place: Caffe multiplies the bottom as it lies"),
        (layer("a", "Tile", "x", "tile_param { tiles: 2 }", top="x"), "Tile does not work in place: its top would be"),
        (layer("a", "ReLU", "x", "param { }"), "1 param given, and the layer has 0 parameters; Too many params specified"),
        (layer("a", "ReLU", "x", "loss_weight: 1 loss_weight: 2"), "2 loss_weight for 1 tops; loss_weight must be unspecified"),
        (layer("a", "ReLU", "x", "propagate_down: true propagate_down: true"), "propagate_down param must be specified either"),
        (dense("a", "x", 1 << 27), "its parameter weight would be 134217728×60: blob size exceeds INT_MAX"),
    ],
)  # fmt: skip
def test_what_caffe_refuses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidNetError, match=re.escape(message)):
        graph_of(tmp_path, X, text)


def test_sizes(tmp_path: Path) -> None:
    net = net_of(tmp_path, X, layer("a", "ReLU", "x"))
    for shape, message in (((1 << 16, 1 << 15), "x' would be 65536×32768: blob size exceeds INT_MAX"),
                           ((0, 1 << 31), "blob size exceeds INT_MAX"),
                           ((1,) * 33, "would have 33 axes; 32 at most are possible"),
                           ((2, -1), "x' would be 2×-1; sizes of at least 0")):  # fmt: skip
        with pytest.raises(InvalidNetError, match=message):
            build(net, {"x": shape})
    assert build(net, {"x": (1 << 16, 1 << 15)}, data_size=2).shapes["a"] == (1 << 16, 1 << 15)


def test_axes_whose_size_follows_from_values(tmp_path: Path) -> None:
    net = net_of(tmp_path, {"x": (4, 3), "keep": (4,)}, layer("f", "Filter", "x keep"))
    assert build(net).shapes["f"] == (4, 3)
    assert build(net, data_size=37).shapes["f"] == (37, 3)


def test_tops_that_losses_make_by_themselves(tmp_path: Path) -> None:
    fc = dense("fc", "x", 4)
    loss = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" }'
    graph = graph_of(tmp_path, {**X, "label": (2,)}, fc + loss)
    assert graph.nodes[-1].tops == ("loss",)
    assert graph.outputs == ("loss",)
    graph = graph_of(tmp_path, {**X, "label": (2,)}, fc + layer("other", "ReLU", "fc", top="loss") + loss)
    assert graph.nodes[-1].tops == ("loss/automatic_0",)


@pytest.mark.parametrize(
    ("kind", "meant"),
    [
        ("Maxpool", "Pooling"),
        ("Conv", "Convolution"),
        ("Batch_Normalization", "BatchNorm"),
        ("SOFTMAX", "Softmax"),
        ("HSigmoid", "HardSigmoid"),
    ],
)
def test_names_of_other_frameworks(kind: str, meant: str) -> None:
    proto = LayerParameter(name="l", type=kind)
    with pytest.raises(LayerError, match=rf"Unknown layer type: {kind}; did you mean {meant}\?"):
        layer_class(LayerDef("l", kind, ("x",), ("y",), ("x",), ("y",), proto, "TEST", NetFolders(Path())), {})


def test_types_of_forks_lead_to_these() -> None:
    proto = LayerParameter(name="l", type="DenseCRF")
    with pytest.raises(LayerError, match=r"Unknown layer type: DenseCRF; it is probably that of DeepLab 1 \(bitbucket"):
        layer_class(LayerDef("l", "DenseCRF", ("x",), ("y",), ("x",), ("y",), proto, "TEST", NetFolders(Path())), {})
    assert not set(KNOWN_ELSEWHERE) & set(LAYERS)


def test_other_names_lead_to_types_that_there_are() -> None:
    assert set(OTHER_NAMES.values()) <= set(LAYERS)
