"""A loaded net as an ONNX model: which axes are open, which blobs are outputs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto
from support.databases import refused
from support.graphs import Inputs, dense, layer
from support.small_nets import write_net, write_weights

from caffeconv.conversion.load import Loaded, load
from caffeconv.conversion.to_onnx import choose_outputs, to_onnx
from caffeconv.emit.lazy_model import LazyModel
from caffeconv.errors import Diagnostic

X: Inputs = {"x": (2, 3, 8, 8)}
CONV = layer("conv", "Convolution", "x", "convolution_param { num_output: 4 kernel_size: 3 }")


def loaded(folder: Path, layers: str, inputs: Inputs | None = None) -> Loaded:
    return load(write_net(folder, inputs or X, layers))


def dims(model: ModelProto) -> dict[str, list[int | str]]:
    values = (*model.graph.input, *model.graph.output)
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }


def operators(model: LazyModel) -> list[str]:
    return [node.op_type for node in model.model.graph.node]


@pytest.mark.parametrize(("batch", "size"), [("dynamic", "batch"), ("keep", 2), (5, 5)])
def test_batches(tmp_path: Path, batch: str | int, size: str | int) -> None:
    model = to_onnx(loaded(tmp_path, CONV), ("conv",), batch=batch).materialize()  # type: ignore[arg-type]
    assert dims(model) == {"x": [size, 3, 8, 8], "conv": [size, 4, 6, 6]}


def test_height_and_width_are_open_where_layers_allow_it(tmp_path: Path) -> None:
    notes: list[Diagnostic] = []
    model = to_onnx(loaded(tmp_path, CONV), ("conv",), any_size=True, notes=notes).materialize()
    assert dims(model)["x"] == ["batch", 3, "height", "width"]
    assert notes == []
    model = to_onnx(loaded(tmp_path, CONV + dense("fc", "conv", 2)), ("fc",), any_size=True, notes=notes).materialize()
    assert dims(model) == {"x": ["batch", 3, 8, 8], "fc": ["batch", 2]}
    assert [note.message for note in notes] == [
        "height and width are fixed: the shapes do not go together at other sizes"
    ]


def test_a_net_whose_batch_is_fixed(tmp_path: Path) -> None:
    notes: list[Diagnostic] = []
    flat = layer("flat", "Reshape", "x", "reshape_param { shape { dim: 384 } }")
    model = to_onnx(loaded(tmp_path, flat), ("flat",), notes=notes).materialize()
    assert dims(model) == {"x": [2, 3, 8, 8], "flat": [384]}
    assert [note.message for note in notes] == ["the batch size is fixed"]


def test_opsets(tmp_path: Path) -> None:
    net = loaded(tmp_path, CONV)
    newest = onnx.defs.onnx_opset_version()
    assert to_onnx(net, ("conv",), opset=newest).model.opset_import[0].version == newest
    for opset in (1, newest + 1):
        with refused(rf"^`opset={opset}`: \d+ to {newest} can be written$"):
            to_onnx(net, ("conv",), opset=opset)


def test_layers_are_folded_unless_weights_are_to_stay_where_they_lie(tmp_path: Path) -> None:
    layers = CONV + layer("norm", "BatchNorm", "conv", top="conv") + layer("scale", "Scale", "conv", top="conv")
    net = write_net(tmp_path, X, layers)
    conv = [np.ones((4, 3, 3, 3), np.float32), np.ones(4, np.float32)]
    with_file = load(net, write_weights(tmp_path / "w.caffemodel", "conv", conv))
    notes: list[Diagnostic] = []
    assert operators(to_onnx(with_file, ("conv",), notes=notes)) == ["Conv"]
    assert operators(to_onnx(load(net), ("conv",), link=True, notes=notes)) == ["Conv"]  # no file holds its weights
    assert notes == []
    plain = operators(to_onnx(with_file, ("conv",), fold=False))
    assert operators(to_onnx(with_file, ("conv",), link=True, notes=notes))[0] == plain[0] == "Conv"
    # the Scale goes into the BatchNorm, whose values lie in no file
    reason = "not folded into the weights before them, because these stay as they are: norm"
    assert notes[-1].message == reason


def test_choosing_outputs(tmp_path: Path) -> None:
    graph = loaded(tmp_path, CONV + layer("r", "ReLU", "conv", top="conv") + dense("fc", "conv", 2)).graph
    assert choose_outputs(graph, None) == ("fc",)
    assert choose_outputs(graph, "all") == ("conv", "fc")
    assert choose_outputs(graph, ["fc", "conv", "fc"]) == ("fc", "conv")
    for names, message in (
        (["fc", "covn"], "the net has no blob 'covn'. Did you mean conv?"),
        (["zzz"], "the net has no blob 'zzz'. Blobs: x, conv, fc"),
        (["x"], "'x' is an input of the net; a blob that a layer makes was needed"),
    ):
        with refused(f"^{re.escape(message)}"):
            choose_outputs(graph, names)
