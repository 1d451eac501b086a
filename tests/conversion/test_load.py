"""Nets with their weights, read, built and bound."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from support.databases import refused
from support.graphs import dense, layer
from support.small_nets import write_net, write_weights

from caffeconv.conversion.load import load, load_cropped, source_metadata
from caffeconv.errors import InvalidNetError
from caffeconv.files.sha256 import hashing
from caffeconv.frontend.options import NetOptions
from caffeconv.frontend.reshape import input_shapes

FC = dense("fc", "x", 2)
CONV = layer("conv", "Convolution", "x", "convolution_param { num_output: 4 kernel_size: 3 }")


def weights(folder: Path, columns: int = 3) -> Path:
    return write_weights(folder / "w.caffemodel", "fc", [np.ones((2, columns), np.float32), np.zeros(2, np.float32)])


def test_a_net_and_its_files(tmp_path: Path) -> None:
    net, file = write_net(tmp_path, {"x": (1, 3)}, FC), weights(tmp_path)
    loaded = load(net, file)
    assert loaded.files == (net, file)
    assert loaded.graph.nodes[1].param("weight").array().tolist() == [[1, 1, 1], [1, 1, 1]]
    assert load(str(net)).files == (net,)
    assert load(net, options=NetOptions(shapes={"x": [7, 3]})).graph.shapes == {"x": (7, 3), "fc": (7, 2)}


def test_problems_of_the_net_and_of_the_weights_in_one_go(tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 3)}, FC + layer("cat", "Concat", "fc", "concat_param { axis: 7 }"))
    with pytest.raises(InvalidNetError) as refusal:
        load(net, weights(tmp_path, 4))
    assert [problem.layer for problem in refusal.value.diagnostics if problem.layer] == ["cat", "fc"]
    assert "axis 7 out of range for 2-D Blob" in str(refusal.value)
    assert "Source param shape is 2 4 (8); target param shape is 2 3 (6)" in str(refusal.value)


def test_a_batchnorm_without_statistics_is_told_once(tmp_path: Path) -> None:
    """caffe: a scale factor of 0 makes mean and variance 0, so that values grow by 1/√eps."""
    layers = "".join(layer(name, "BatchNorm", "x", "batch_norm_param { eps: 0.0001 }") for name in ("a", "b"))
    net, file = write_net(tmp_path, {"x": (1, 2)}, layers), tmp_path / "w.caffemodel"
    assert "scale factor" not in str(load(net).remarks)  # nobody gave weights, and that is what is told
    for factor, told in ((0, ["a (BatchNorm), line 2 (and 1 other layers)"]), (3, [])):
        blobs = [np.ones(2, np.float32), np.ones(2, np.float32), np.full(1, factor, np.float32)]
        parts = (write_weights(tmp_path / name, name, blobs).read_bytes() for name in "ab")
        file.write_bytes(b"".join(parts))
        remarks = [remark for remark in load(net, file).remarks if "scale factor" in remark.message]
        assert [remark.where for remark in remarks] == told
        assert not told or "values grow 100 times" in remarks[0].message


def test_what_losses_hold_probabilities_to_is_told_once(tmp_path: Path) -> None:
    losses = "".join(
        f'layer {{ name: "{name}" type: "{kind}" bottom: "x" bottom: "y" top: "{name}" }}'
        for name, kind in (("a", "SoftmaxWithLoss"), ("b", "MultinomialLogisticLoss"), ("c", "MultinomialLogisticLoss"))
    )
    remarks = load(write_net(tmp_path, {"x": (1, 2), "y": (1,)}, losses)).remarks
    assert [(remark.severity, remark.where, remark.message.partition(",")[0]) for remark in remarks[-2:]] == [
        ("note", "a (SoftmaxWithLoss), line 3", "a probability below 1.2e-38 counts as 1.2e-38"),
        ("note", "b (MultinomialLogisticLoss), line 3 (and 1 other layers)", "a probability below 1e-20 counts as 1e-20"),
    ]  # fmt: skip
    assert "above 87.3," in remarks[-2].message
    assert "above 46.1," in remarks[-1].message


def test_unknown_fields_may_be_dropped(tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 3)}, dense("fc", "x", 2, "novelty: 3"))
    with refused("novelty"):
        load(net)
    (dropped,) = load(net, options=NetOptions(ignore_unknown_fields=True)).dropped
    assert (dropped.field, dropped.layer) == ("novelty", "fc")


def test_a_crop_is_for_the_first_input_that_takes_images(tmp_path: Path) -> None:
    net = write_net(tmp_path, {"label": (1,), "x": (1, 3, 8, 8), "z": (1, 3, 8, 8)}, CONV)
    shapes = {"label": (1,), "x": (1, 3, 5, 6), "z": (1, 3, 8, 8)}
    assert input_shapes(load_cropped(net, None, NetOptions(), (5, 6)).graph) == shapes
    assert input_shapes(load_cropped(net, None, NetOptions(), None).graph)["x"] == (1, 3, 8, 8)
    with refused("^`crop=…`: the net has no input of 4 axes$"):
        load_cropped(write_net(tmp_path, {"x": (1, 3)}, FC), None, NetOptions(), (5, 6))


def test_shapes_count_after_layers_have_become_convolutions(tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 3, 8, 8)}, CONV + dense("fc", "conv", 2))
    loaded = load(net, options=NetOptions(fully_convolutional=True, shapes={"x": (1, 3, 10, 12)}))
    assert [node.type for node in loaded.graph.nodes] == ["Input", "Convolution", "Convolution"]
    assert loaded.graph.shapes["fc"] == (1, 2, 3, 5)
    assert [definition.type for definition in loaded.net.layers] == ["Input", "Convolution", "Convolution"]
    with refused("shape given for 'y', which is no input of the net; inputs: x"):
        load(net, options=NetOptions(fully_convolutional=True, shapes={"y": (1, 3, 10, 12)}))


def test_what_a_model_says_of_its_sources(tmp_path: Path) -> None:
    net, file = write_net(tmp_path, {"x": (1, 3)}, FC), weights(tmp_path)
    loaded = load(net, [file, file], NetOptions("TRAIN"))
    metadata = source_metadata(loaded)
    content = file.read_bytes()
    assert metadata["caffe.phase"] == "TRAIN"
    assert [metadata[f"caffe.{kind}.name"] for kind in ("prototxt", "weights", "weights2")] == [
        "net.prototxt", "w.caffemodel", "w.caffemodel",
    ]  # fmt: skip
    assert metadata["caffe.weights.bytes"] == str(len(content))
    assert metadata["caffe.weights2.sha256"] == hashlib.sha256(content).hexdigest()
    with hashing(loaded.files) as hashes:
        assert source_metadata(loaded, hashes) == metadata
