"""BatchNorm and Scale as one; and why a layer that could be folded into the one before it was not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.small_nets import run_model, write_net, write_weights

import caffeconv
from caffeconv.cli import main
from caffeconv.conversion.load import load
from caffeconv.conversion.to_onnx import choose_outputs, to_onnx
from caffeconv.errors import Diagnostic

PRODUCT = 'layer { name: "m" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 } }'
SCALE = 'layer { name: "s" type: "Scale" bottom: "y" top: "z" }'
SHARED = PRODUCT.replace("inner_product_param", 'param { name: "w" } inner_product_param')


def reasons(net: Path, outputs: list[str] | None = None) -> list[str]:
    loaded = load(net)
    notes: list[Diagnostic] = []
    to_onnx(loaded, choose_outputs(loaded.graph, outputs), notes=notes)
    return [f"{note.layer}: {note.message}" for note in notes if "not folded" in note.message]


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (PRODUCT + SCALE + 'layer { name: "r" type: "ReLU" bottom: "y" top: "w" }', "2 layers read what m makes"),
        ('layer { name: "m" type: "ReLU" bottom: "x" top: "y" }' + SCALE, "m (ReLU) has no weights that could take it up"),
        (
            SHARED + SHARED.replace('"m"', '"n"').replace('"y"', '"v"') + SCALE,
            "m shares its parameters with another layer",
        ),
    ],
    ids=["two_readers", "no_weights", "shared"],
)  # fmt: skip
def test_the_reason(layers: str, reason: str, tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 3)}, layers)
    assert reasons(net) == [f"s: not folded into the layer before it: {reason}"]


def test_an_output_in_between(tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 3)}, PRODUCT + SCALE)
    assert reasons(net, ["y", "z"]) == ["s: not folded into the layer before it: what m makes is an output"]
    assert reasons(net) == []


def test_only_v_tells(tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 3)}, 'layer { name: "m" type: "ReLU" bottom: "x" top: "y" }' + SCALE)
    told = {
        flags: "not folded"
        in CliRunner().invoke(main, ["convert", str(net), "-o", str(tmp_path / "m.onnx"), *flags]).stderr
        for flags in ((), ("-v",))
    }
    assert told == {(): False, ("-v",): True}


@pytest.mark.parametrize("own_scale", [False, True], ids=["caffe", "nvidia"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_scale_behind_a_batch_norm(own_scale: bool, bias: bool, tmp_path: Path) -> None:
    """Before a convolution, as in DenseNet: nothing there takes both up, so one operator does what both do."""
    norm = "scale_bias: true scale_filler { type: 'gaussian' std: 1 } bias_filler { type: 'gaussian' std: 1 }"
    layers = (
        'layer { name: "r" type: "ReLU" bottom: "x" top: "r" }'
        f'layer {{ name: "n" type: "BatchNorm" bottom: "r" top: "n" batch_norm_param {{ {norm if own_scale else ""} }} }}'
        f'layer {{ name: "s" type: "Scale" bottom: "n" top: "n" scale_param {{ bias_term: {str(bias).lower()} '
        "filler { type: 'gaussian' std: 1 } bias_filler { type: 'gaussian' std: 1 } } }"
    )
    net = write_net(tmp_path, {"x": (2, 3, 4, 5)}, layers)
    random = np.random.default_rng(0)
    statistics = [random.normal(size=3), random.uniform(0.5, 2, 3), np.ones(1)]
    arrays = [values.astype(np.float32) for values in statistics]
    weights = None if own_scale else write_weights(tmp_path / "w.caffemodel", "n", arrays)
    folded, whole = (caffeconv.convert(net, weights, fold=fold) for fold in (True, False))
    assert [node.op_type for node in folded.graph.node] == ["Relu", "BatchNormalization"]
    feeds = {"x": random.normal(size=(2, 3, 4, 5)).astype(np.float32)}
    np.testing.assert_allclose(run_model(folded, feeds)["n"], run_model(whole, feeds)["n"], 1e-5, 1e-5)
