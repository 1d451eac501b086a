"""Where parameters get their values from, and what is said of files that do not fit."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from support.golden_cases import forward
from support.graphs import dense, graph_of, layer
from support.small_nets import Array, blob, write_net, write_weights

import caffeconv
from caffeconv.caffe_format.caffemodel import WeightsFile
from caffeconv.caffe_pb2 import FLOAT16, BlobProto, LayerParameter, NetParameter
from caffeconv.frontend.bind import BoundGraph, bind, copied_from
from caffeconv.frontend.open_files import read_weights
from caffeconv.tensor.shape import FloatArray

FC = dense("fc", "x", 2)
WEIGHT, BIAS = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([7, 8], np.float32)
SHARING = 'param { name: "w" } param { name: "b" }'


def bound(folder: Path, layers: str, *files: WeightsFile, seed: int = 0) -> BoundGraph:
    return bind(graph_of(folder, {"x": (1, 3)}, layers), files, seed=seed)


def weights(folder: Path, name: str, *blobs: FloatArray) -> WeightsFile:
    return read_weights(write_weights(folder / f"{name}.caffemodel", name, list(blobs)))


def values(net: BoundGraph, name: str) -> list[list[float]]:
    (node,) = (node for node in net.graph.nodes if node.name == name)
    return [param.array().ravel().tolist() for param in node.params]


def test_from_a_file(tmp_path: Path) -> None:
    net = bound(tmp_path, FC, weights(tmp_path, "fc", WEIGHT, BIAS))
    assert values(net, "fc") == [[0, 1, 2, 3, 4, 5], [7, 8]]
    assert net.diagnostics == ()
    param = net.graph.nodes[1].params[0]
    assert (param.source, param.is_filled) == (str(tmp_path / "fc.caffemodel"), False)


def test_later_files_replace_what_earlier_ones_gave(tmp_path: Path) -> None:
    first = weights(tmp_path, "fc", WEIGHT, BIAS)
    (tmp_path / "later").mkdir()
    second = weights(tmp_path / "later", "fc", -WEIGHT, -BIAS)
    assert values(bound(tmp_path, FC, first, second), "fc")[1] == [-7, -8]
    assert values(bound(tmp_path, FC, second, first), "fc")[1] == [7, 8]


def test_fillers_draw_the_same_whatever_other_layers_there_are(tmp_path: Path) -> None:
    gauss = dense("fc", "x", 2).replace("num_output: 2", 'num_output: 2 weight_filler { type: "gaussian" std: 1 }')
    alone = bound(tmp_path, gauss)
    assert alone.graph.nodes[1].params[0].source == "filler gaussian"
    assert alone.graph.nodes[1].params[0].is_filled
    assert values(bound(tmp_path, gauss.replace("fc", "other") + gauss), "fc") == values(alone, "fc")
    assert values(bound(tmp_path, gauss, seed=1), "fc")[0] != values(alone, "fc")[0]
    assert values(bound(tmp_path, gauss.replace("fc", "other")), "other")[0] != values(alone, "fc")[0]


def test_from_the_prototxt_itself(tmp_path: Path) -> None:
    blob = "blobs { shape { dim: 2 dim: 3 } data: [1, 2, 3, 4, 5, 6] }"
    net = bound(tmp_path, dense("fc", "x", 2, blob))
    assert values(net, "fc") == [[1, 2, 3, 4, 5, 6], [0, 0]]
    assert [param.source for param in net.graph.nodes[1].params] == ["the prototxt", "filler constant"]
    (problem,) = bound(tmp_path, dense("fc", "x", 2, blob.replace("dim: 3", "dim: 4"))).diagnostics
    assert problem.message.startswith("Cannot copy param 0 weights from layer 'fc'; shape mismatch.  ")


def test_shared_blobs_belong_to_the_first_layer_and_take_the_last_copy(tmp_path: Path) -> None:
    layers = dense("a", "x", 2, SHARING) + dense("b", "x", 2, SHARING)
    net = bound(tmp_path, layers, weights(tmp_path, "a", WEIGHT, BIAS), weights(tmp_path, "b", -WEIGHT, -BIAS))
    assert net.diagnostics == ()
    assert values(net, "a") == values(net, "b") == [[0, -1, -2, -3, -4, -5], [-7, -8]]
    assert [[param.owner for param in node.params] for node in net.graph.nodes[1:]] == [
        [None, None], [("a", "weight"), ("a", "bias")],
    ]  # fmt: skip
    assert all(param.shared for node in net.graph.nodes for param in node.params)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (dense("b", "x", 3, 'param { name: "w" }'), "Cannot share param 'w' owned by layer 'a' with layer 'b'; shape "
         "mismatch.  Owner layer param shape is 2 3 (6); sharing layer expects shape 3 3 (9)"),
        (dense("b", "x", 3, 'param { name: "w" share_mode: PERMISSIVE }'), "Cannot share param 'w' owned by layer 'a' with "
         "layer 'b'; count mismatch.  Owner layer param shape is 2 3 (6); sharing layer shape is 3 3 (9)"),
        (dense("b", "x", 2, 'param { name: "w" lr_mult: 2 }'), "Shared param 'w' has mismatched lr_mult: 2 here, 1 in 'a'."),
    ],
)  # fmt: skip
def test_blobs_that_cannot_be_shared(tmp_path: Path, other: str, message: str) -> None:
    net = bound(tmp_path, dense("a", "x", 2, 'param { name: "w" lr_mult: 1 }') + other)
    assert [(problem.severity, problem.message) for problem in net.diagnostics] == [("error", message)]


@pytest.mark.parametrize(
    ("blobs", "message", "hint"),
    [
        ([WEIGHT], "Incompatible number of blobs for layer fc: the file has 1, the net needs 2 (weight 2 3 (6), bias 2 (2))",
         "The file lacks a bias that the net has? Set `bias_term: false`."),
        ([WEIGHT, BIAS, BIAS], "Incompatible number of blobs for layer fc: the file has 3, the net needs 2 ",
         "The file has a bias that the net lacks? Set `bias_term: true`."),
        ([WEIGHT.T, BIAS], "Cannot copy param 0 weights from layer 'fc'; shape mismatch.  Source param shape is 3 2 (6); "
         "target param shape is 2 3 (6). To learn this layer's parameters from scratch rather than copying from a saved ", ""),
    ],
)  # fmt: skip
def test_files_that_do_not_fit(tmp_path: Path, blobs: list[FloatArray], message: str, hint: str) -> None:
    (problem,) = bound(tmp_path, FC, weights(tmp_path, "fc", *blobs)).diagnostics
    assert (problem.severity, problem.layer, problem.hint) == ("error", "fc", hint)
    assert re.match(re.escape(message), problem.message)


@pytest.mark.parametrize(("legacy", "fits"), [((1, 1, 2, 3), True), ((1, 2, 3, 1), False), ((2, 3, 1, 1), False)])
def test_old_shapes_are_padded_with_ones_in_front(tmp_path: Path, legacy: tuple[int, ...], fits: bool) -> None:
    num, channels, height, width = legacy
    old = BlobProto(num=num, channels=channels, height=height, width=width, data=WEIGHT.ravel().tolist())
    bias = BlobProto(num=1, channels=1, height=1, width=2, data=BIAS.tolist())
    file = NetParameter(layer=[LayerParameter(name="fc", blobs=[old, bias])])
    (tmp_path / "old.caffemodel").write_bytes(file.SerializeToString())
    net = bound(tmp_path, FC, read_weights(tmp_path / "old.caffemodel"))
    assert (values(net, "fc")[0] == WEIGHT.ravel().tolist(), net.diagnostics == ()) == (fits, fits)


def test_layers_that_only_one_side_has(tmp_path: Path) -> None:
    net = bound(tmp_path, FC + layer("r", "ReLU", "fc"), weights(tmp_path, "conv1", WEIGHT))
    assert [(note.severity, note.layer, note.message) for note in net.diagnostics] == [
        ("warning", "conv1", "layer 'conv1' of the file is not in the net; its 1 blobs are ignored"),
        ("warning", "fc", "no weights file has a layer 'fc'; its parameters stay at their fillers"),
    ]


def test_a_further_file_for_a_bound_graph(tmp_path: Path) -> None:
    graph = bound(tmp_path, dense("a", "x", 2, SHARING) + dense("b", "x", 2, SHARING)).graph
    copies, problems = copied_from(weights(tmp_path, "b", WEIGHT, BIAS), graph)
    assert {key: copy.array().tolist() for key, copy in copies.items()} == {
        ("a", "weight"): [0, 1, 2, 3, 4, 5], ("a", "bias"): [7, 8],
    }  # fmt: skip
    assert problems == ()
    copies, (problem,) = copied_from(weights(tmp_path, "a", WEIGHT), graph)
    assert (copies, problem.severity) == ({}, "error")


# -- weights files of forks ---------------------------------------------------------------------------------------------

F = np.float32
X: Array = np.array([-1, -2, -3, 4], F).reshape(1, 2, 2, 1)


def prelu(folder: Path, said: str, weights: Path) -> Array:
    layer = f'layer {{ name: "l" type: "PReLU" bottom: "x" top: "y" prelu_param {{ {said} }} }}'
    return forward(caffeconv.Net(write_net(folder, {"x": X.shape}, layer), weights), {"x": X})["y"]


@pytest.mark.parametrize("shape", [(2,), (1, 2, 1, 1), (1, 2)])
def test_slopes_of_channels_in_any_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    weights = write_weights(tmp_path / "w.caffemodel", "l", [np.array([0.5, 2], F).reshape(shape)])
    np.testing.assert_array_equal(prelu(tmp_path, "", weights).ravel(), [-0.5, -1, -6, 4])


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1)])
def test_shared_slope_in_any_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    weights = write_weights(tmp_path / "w.caffemodel", "l", [np.full(shape, 0.5, F)])
    np.testing.assert_array_equal(prelu(tmp_path, "channel_shared: true", weights).ravel(), [-0.5, -1, -1.5, 4])


def test_half_as_nvidia_stores_it(tmp_path: Path) -> None:
    raw = BlobProto(raw_data=np.array([0.5, 2], np.float16).tobytes(), raw_data_type=FLOAT16)
    raw.shape.dim.extend([1, 2, 1, 1])
    path = tmp_path / "w.caffemodel"
    path.write_bytes(NetParameter(layer=[LayerParameter(name="l", blobs=[raw])]).SerializeToString())
    np.testing.assert_array_equal(prelu(tmp_path, "", path).ravel(), [-0.5, -1, -6, 4])


def test_parameters_of_one_axis_in_any_shape(tmp_path: Path) -> None:
    """NVIDIA's files have 1×C×1×1 where Caffe has C."""
    layer = 'layer { name: "l" type: "Scale" bottom: "x" top: "y" }'
    scale = np.arange(1, X.shape[1] + 1, dtype=F)
    weights = write_weights(tmp_path / "w.caffemodel", "l", [scale.reshape(1, -1, 1, 1)])
    net = caffeconv.Net(write_net(tmp_path, {"x": X.shape}, layer), weights)
    np.testing.assert_array_equal(net.params["l"][0].data, scale)


@pytest.mark.parametrize("said", ["", "batch_norm_param { scale_bias: true }"])
def test_nvidias_first_order_of_five_blobs(tmp_path: Path, said: str) -> None:
    """Scale, bias, mean, variance, counter, whatever the net says of scale and bias."""
    channels = X.shape[1]
    scale, bias, mean, variance = (np.full((1, channels, 1, 1), value, F) for value in (2, 3, 0.5, 4))
    weights = write_weights(tmp_path / "w.caffemodel", "l", [scale, bias, mean, variance, np.ones(1, F)])
    layer = f'layer {{ name: "l" type: "BatchNorm" bottom: "x" top: "y" {said} }}'
    net = caffeconv.Net(write_net(tmp_path, {"x": X.shape}, layer), weights)
    np.testing.assert_allclose(net.forward(x=X)["y"], (X - 0.5) / 2 * 2 + 3, rtol=1e-5, atol=1e-5)


def test_other_parameters_fit_in_their_own_shape_only(tmp_path: Path) -> None:
    layer = """layer { name: "l" type: "InnerProduct" bottom: "x" top: "y"
        inner_product_param { num_output: 1 bias_term: false } }
"""
    weights = write_weights(tmp_path / "w.caffemodel", "l", [np.ones((4, 1), F)])
    with pytest.raises(caffeconv.CaffeconvError, match="shape mismatch"):
        caffeconv.Net(write_net(tmp_path, {"x": X.shape}, layer), weights)


@pytest.mark.parametrize("form", ["layer", "layers"])
def test_without_strict_dim_the_number_of_values_counts_alone(tmp_path: Path, form: str) -> None:
    kind = '"InnerProduct"' if form == "layer" else "INNER_PRODUCT"
    path = tmp_path / "net.prototxt"
    path.write_text(
        f'input: "x" input_dim: 1 input_dim: 3 input_dim: 1 input_dim: 1 {form} {{ name: "fc" type: {kind} bottom: "x" '
        'top: "fc" strict_dim: false inner_product_param { num_output: 2 } }'
    )
    stored = write_weights(tmp_path / "w.caffemodel", "fc", [WEIGHT.reshape(2, 3, 1, 1), BIAS])
    np.testing.assert_array_equal(caffeconv.Net(path, stored).params["fc"][0].data, WEIGHT)
    shorter = write_weights(tmp_path / "v.caffemodel", "fc", [WEIGHT[:1], BIAS])
    with pytest.raises(caffeconv.CaffeconvError, match="shape mismatch"):
        caffeconv.Net(path, shorter)


def test_a_later_file_tells_what_the_layer_has(tmp_path: Path) -> None:
    layer = 'layer { name: "l" type: "BN" bottom: "x" top: "y" }'
    two, four = [np.ones((1, 2, 1, 1), F)] * 2, [np.ones((1, 2, 1, 1), F)] * 4
    for name, blobs in (("two", two), ("four", four)):
        net = NetParameter(layer=[LayerParameter(name="l", blobs=[blob(values) for values in blobs])])
        (tmp_path / f"{name}.caffemodel").write_bytes(net.SerializeToString())
    other = write_weights(tmp_path / "other.caffemodel", "m", [np.ones(1, F)])
    report = caffeconv.inspect(write_net(tmp_path, {"x": X.shape}, layer), [tmp_path / "four.caffemodel", other])
    assert len(report.params["l"]) == 4
    report = caffeconv.inspect(write_net(tmp_path, {"x": X.shape}, layer), tmp_path / "two.caffemodel")
    assert len(report.params["l"]) == 2
