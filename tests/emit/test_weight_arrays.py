"""Exported weights in an independent engine: nets rebuilt in Keras, channels last, give Caffe's recorded numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.golden_cases import ROOT, Array, Case, cases, difference, forward, part
from support.graphs import layer
from support.keras_nets import held, metadata, rebuilt, run
from support.small_nets import write_net

import caffeconv
from caffeconv.caffe_pb2 import NetParameter
from caffeconv.conversion.load import Loaded, load
from caffeconv.emit.weights.weight_arrays import weight_arrays_of
from caffeconv.emit.weights.weight_files import write_weight_arrays
from caffeconv.frontend.options import NetOptions

KINDS = (
    "bias_", "bn_", "conv_", "convolution_", "deconv_", "depthwise_", "embed", "ip_", "lstm", "net_", "normalize_",
    "prelu", "rnn", "scale_", "v0_", "v1_", "weights_",
)  # fmt: skip
OTHERWISE = {"net_shared_permissive", *(f"bn_{name}" for name in (
    "2d_train", "deconvnet_learn", "deconvnet_three_tops", "segnet_learn", "test_batch_stats", "train", "train_gradient"
))}  # fmt: skip
"""Cases that Keras's layers do not know: the same numbers in another shape, and statistics of the batch in use."""
LAYERS = [
    case for case in cases("layers", "fork")
    if case.folder.name.startswith(KINDS) and case.weights and not case.steps and case.folder.name not in OTHERWISE
]  # fmt: skip
NETS = cases("nets")
ZOO = Path(os.environ.get("CAFFECONV_ZOO", ROOT.parent / "shared" / "zoo"))
PUBLISHED = cases(root=ZOO) if ZOO.is_dir() else []
"""Real models, where they are at hand."""
WHOLE = {
    **dict.fromkeys((
        "alexnet", "cifar_full", "cifar_full_bn", "cifar_quick", "densenet", "fcn", "fully_convolutional", "inception",
        "lenet", "mobilenet", "resnet_basic", "resnet_bottleneck", "squeezenet", "vgg",
    ), "prob"),
    "autoencoder": "decode1", "captioner": "probs", "unet": "out",
}  # fmt: skip
"""Nets that are rebuilt to their last blob."""


def loaded(case: Case, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    monkeypatch.chdir(case.folder)
    record = next(case.records())
    shapes = {name: values.shape for name, values in part(record, "in/").items()} if case.reshaped else None
    state = NetOptions(
        case.state["phase"], case.state["level"], case.state["stages"], shapes or {}, dialect=case.state["dialect"]
    )
    return load(case.net, case.weights, state)


def compared(case: Case, net: Loaded, weights: Path) -> dict[str, str | None]:
    """Blob → how Keras's differs from Caffe's."""
    blobs = metadata(weights)["blobs"]
    record = next(case.records())
    feeds = {name: held(values, blobs[name]) for name, values in part(record, "in/").items()}
    got = run(rebuilt(net.graph.nodes, weights, feeds), feeds)
    want = {name: held(values, blobs[name]) for name, values in part(record, "blob/").items() if name in got}
    return {name: difference(case, name, got[name], values) for name, values in want.items()}


@pytest.mark.parametrize("case", [*LAYERS, *NETS, *PUBLISHED], ids=lambda case: case.name)
def test_keras_gives_caffes_numbers(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = loaded(case, monkeypatch)
    weights = tmp_path / "weights.h5"
    write_weight_arrays(weights, weight_arrays_of(net.graph, "nhwc", keras_names=True))
    differences = compared(case, net, weights)
    assert {name: text for name, text in differences.items() if text} == {}
    assert differences
    assert WHOLE.get(case.folder.name, next(iter(differences))) in differences


def test_a_first_dense_layer_in_caffes_order_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What everybody does first: fc6's matrix transposed, but its rows not put in the order of rows, columns, channels."""
    (case,) = (case for case in NETS if case.folder.name == "alexnet")
    net = loaded(case, monkeypatch)
    weights = tmp_path / "weights.h5"
    write_weight_arrays(weights, weight_arrays_of(net.graph, "nhwc", keras_names=True))
    fc6 = next(node for node in net.graph.nodes if node.name == "fc6")
    with h5py.File(weights, "r+") as file:
        rows = file["fc6/kernel"][...]
        file["fc6/kernel"][...] = fc6.param("weight").array().T
        assert not np.array_equal(rows, file["fc6/kernel"][...])
    differences = compared(case, net, weights)
    assert {name for name, text in differences.items() if text} == {"fc6", "fc8", "prob"}


# -- nets of which Caffe's numbers are not recorded: held against Net ----------------------------------------------------


def matches_net(folder: Path, net: Path, weights: Path, feeds: Mapping[str, Array], blobs: set[str]) -> None:
    """Rebuilt in Keras with the exported weights, the net gives these blobs as `caffeconv.Net` does."""
    graph = load(net, weights).graph
    out = folder / "exported.h5"
    write_weight_arrays(out, weight_arrays_of(graph, "nhwc", keras_names=True))
    described = metadata(out)["blobs"]
    held_feeds = {name: held(values, described[name]) for name, values in feeds.items()}
    got = run(rebuilt(graph.nodes, out, held_feeds), held_feeds)
    caffes = caffeconv.Net(net, weights, phase="TEST")
    forward(caffes, dict(feeds))
    assert blobs <= got.keys()
    for name in blobs:
        want = held(caffes.blobs[name].data, described[name])
        np.testing.assert_allclose(got[name], want, rtol=2e-4, atol=2e-5, err_msg=name)


def random_weights(folder: Path, net: Path) -> Path:
    """A caffemodel with numbers drawn for every parameter, variances positive."""
    chance = np.random.default_rng(7)
    made = NetParameter()
    for node in load(net).graph.nodes:
        layer = made.layer.add(name=node.name)
        for param in node.params:
            values = chance.uniform(0.5, 1.5, param.shape) if param.name in ("variance", "scale_factor") else (
                chance.normal(0, 0.5, param.shape)
            )  # fmt: skip
            blob = layer.blobs.add(data=values.ravel().tolist())
            blob.shape.dim.extend(param.shape)
    path = folder / "random.caffemodel"
    path.write_bytes(made.SerializeToString())
    return path


def test_digits(tmp_path: Path) -> None:
    digits = ROOT / "fixtures" / "digits"
    picture = np.random.default_rng(3).uniform(0, 255, (1, 1, 28, 28)).astype(np.float32)
    net = tmp_path / "deploy.prototxt"
    text = (digits / "deploy.prototxt").read_text()
    net.write_text(text)
    matches_net(tmp_path, net, digits / "digits.caffemodel", {"data": picture}, {"conv1", "pool2", "ip1", "prob"})


CONV = 'layer {{ name: "{0}" type: "Convolution" bottom: "data" top: "{0}" convolution_param {{ {1} }} }}\n'
FC = 'layer {{ name: "{0}" type: "InnerProduct" bottom: "{1}" top: "{0}" inner_product_param {{ num_output: 4 {2} }} }}\n'
BRANCHES = CONV.format("a", "num_output: 5 kernel_size: 3 stride: 2") + CONV.format("b", "num_output: 3 kernel_size: 5")
FLAT = 'layer {{ name: "{1}" type: "{0}" bottom: "{2}" top: "{1}" {3} }}\n'
NESTED = {
    "flatten": (BRANCHES + FLAT.format("Flatten", "f", "a", "") + FC.format("fc", "f", ""), {"f", "fc"}),
    "reshape": (
        BRANCHES + FLAT.format("Reshape", "f", "a", "reshape_param { shape { dim: 0 dim: -1 } }")
        + FLAT.format("Dropout", "f", "f", "") + FLAT.format("ReLU", "f", "f", "") + FC.format("fc", "f", "transpose: true"),
        {"f", "fc"},
    ),
    "concat of flattened": (
        BRANCHES + FLAT.format("Flatten", "fa", "a", "") + FLAT.format("Flatten", "fb", "b", "")
        + 'layer { name: "j" type: "Concat" bottom: "fa" bottom: "fb" bottom: "fa" top: "j" }' + FC.format("fc", "j", ""),
        {"j", "fc"},
    ),
    "concat with a vector, sliced again": (
        BRANCHES + FLAT.format("Flatten", "fa", "a", "") + FC.format("v", "b", "")
        + 'layer { name: "j" type: "Concat" bottom: "v" bottom: "fa" top: "j" }'
        + 'layer { name: "s" type: "Slice" bottom: "j" top: "s0" top: "s1" top: "s2" '
        "slice_param { slice_point: 1 slice_point: 4 } }" + FC.format("fc", "s2", "") + FC.format("fv", "s1", ""),
        {"s0", "s1", "s2", "fc", "fv"},
    ),
    "normalised after it was flattened": (
        BRANCHES + FLAT.format("Flatten", "f", "a", "") + FLAT.format("BatchNorm", "n", "f", "")
        + FLAT.format("Scale", "n", "n", "scale_param { bias_term: true }") + FLAT.format("PReLU", "p", "n", "")
        + FLAT.format("Bias", "q", "p", "") + FLAT.format("Scale", "r", "q", "") + FC.format("fc", "r", ""),
        {"n", "p", "q", "r", "fc"},
    ),
    "made an image again": (
        BRANCHES + FLAT.format("Flatten", "f", "a", "")
        + FLAT.format("Reshape", "i", "f", "reshape_param { shape { dim: 0 dim: 5 dim: 4 dim: 5 } }")
        + 'layer { name: "c" type: "Convolution" bottom: "i" top: "c" convolution_param { num_output: 2 kernel_size: 2 } }',
        {"i", "c"},
    ),
    "an image made of a vector": (
        FC.format("fc", "data", "")
        + FLAT.format("Reshape", "i", "fc", "reshape_param { shape { dim: 0 dim: 2 dim: 1 dim: 2 } }")
        + 'layer { name: "up" type: "Deconvolution" bottom: "i" top: "up" convolution_param '
        "{ num_output: 3 kernel_size: 4 stride: 2 pad: 1 } }",
        {"fc", "i", "up"},
    ),
    "channels mixed with rows": (
        BRANCHES + FLAT.format("Reshape", "i", "a", "reshape_param { shape { dim: 0 dim: 10 dim: 2 dim: 5 } }")
        + FC.format("fc", "i", ""),
        {"i", "fc"},
    ),
    "the batch regrouped as time and streams": (
        BRANCHES + FLAT.format("Flatten", "f", "a", "")
        + FLAT.format("Reshape", "t", "f", "reshape_param { shape { dim: 2 dim: 1 dim: -1 } }")
        + 'layer { name: "lstm" type: "LSTM" bottom: "t" bottom: "cont" top: "lstm" recurrent_param { num_output: 3 } }'
        + FC.format("fc", "lstm", "axis: 2"),
        {"t", "lstm", "fc"},
    ),
    "images in time": (
        BRANCHES + FLAT.format("Reshape", "t", "a", "reshape_param { shape { dim: 2 dim: 1 dim: 5 dim: 4 dim: 5 } }")
        + 'layer { name: "rnn" type: "RNN" bottom: "t" bottom: "cont" top: "rnn" recurrent_param { num_output: 3 } }'
        + FC.format("fc", "t", "axis: 2"),
        {"t", "rnn", "fc"},
    ),
    "filters of each channel, two a channel": (
        CONV.format("d", "num_output: 6 group: 3 kernel_size: 3 stride: 2 pad: 1") + FC.format("fc", "d", ""), {"d", "fc"}
    ),
    "averages that reach beyond": (
        BRANCHES + FLAT.format("Pooling", "p", "data", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"), {"p"}
    ),
}  # fmt: skip


def test_filters_of_each_place(tmp_path: Path) -> None:
    fields = "num_output: 4 kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0"
    layer = f'layer {{ name: "x" type: "Local" bottom: "data" top: "x" local_param {{ {fields} }} }}'
    net = write_net(tmp_path, {"data": (2, 3, 6, 8)}, layer)
    feeds = {"data": np.random.default_rng(2).normal(0, 1, (2, 3, 6, 8)).astype(np.float32)}
    matches_net(tmp_path, net, random_weights(tmp_path, net), feeds, {"x"})


def test_windows_in_time(tmp_path: Path) -> None:
    fields = "num_output: 4 kernel_size: 3 kernel_depth: 2 stride: 2 temporal_stride: 1 pad: 1 temporal_pad: 1"
    layer = f'layer {{ name: "x" type: "Convolution3D" bottom: "data" top: "x" convolution3d_param {{ {fields} }} }}'
    net = write_net(tmp_path, {"data": (2, 3, 4, 6, 7)}, layer + FC.format("fc", "x", ""))
    feeds = {"data": np.random.default_rng(2).normal(0, 1, (2, 3, 4, 6, 7)).astype(np.float32)}
    matches_net(tmp_path, net, random_weights(tmp_path, net), feeds, {"x", "fc"})


@pytest.mark.parametrize("name", NESTED)
def test_flattened_images_are_followed(name: str, tmp_path: Path) -> None:
    layers, blobs = NESTED[name]
    chance = np.random.default_rng(11)
    feeds = {"data": chance.normal(0, 1, (2, 3, 10, 12)).astype(np.float32)}
    if "cont" in layers:
        feeds["cont"] = np.array([[0], [1]], np.float32)
    net = write_net(tmp_path, {blob: values.shape for blob, values in feeds.items()}, layers)
    matches_net(tmp_path, net, random_weights(tmp_path, net), feeds, blobs)


def test_a_thousand_ways_to_the_first_layer_with_channels(tmp_path: Path) -> None:
    """Each step doubles them, and is deeper than Python's functions call each other."""
    steps = "".join(layer(f"a{i}", "ReLU", f"e{i - 1}" if i else "x") + layer(f"b{i}", "ReLU", f"e{i - 1}" if i else "x")
                    + layer(f"e{i}", "Eltwise", f"a{i} b{i}") for i in range(600))  # fmt: skip
    dense = layer("ip", "InnerProduct", "e599", "inner_product_param { num_output: 2 }")
    graph = load(write_net(tmp_path, {"x": (1, 3, 2, 2)}, steps + dense)).graph
    assert "ip" in weight_arrays_of(graph, "nhwc").layers
