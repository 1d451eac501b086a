"""Unknown types, faulty layers and unknown fields stop only what depends on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.small_nets import run_model, write_net

import caffeconv
from caffeconv.cli import main

BEFORE = 'layer { name: "r" type: "ReLU" bottom: "x" top: "r" }\n'
BEHIND = (
    'layer { name: "q" type: "Quantum" bottom: "r" top: "q" quantum_param { spin: 0.5 } }\n'
    'layer { name: "q2" type: "Quantum" bottom: "q" top: "q2" }\n'
    'layer { name: "e" type: "relu7" bottom: "q2" top: "e" }\n'
)
X = {"x": (2, 3)}


def test_the_outputs_need_no_unknown_type(tmp_path: Path) -> None:
    model = caffeconv.convert(write_net(tmp_path, X, BEFORE + BEHIND), outputs=["r"])
    x = np.array([[-1, 0, 1], [2, -2, 3]], np.float32)
    np.testing.assert_array_equal(run_model(model, {"x": x})["r"], np.maximum(x, 0))
    assert [node.name for node in model.graph.node] == ["r"]


@pytest.mark.parametrize(
    "behind",
    [
        'layer { name: "p" type: "Pooling" bottom: "r" top: "p" }',
        'layer { name: "s" type: "Sigmoid" bottom: "r" top: "s" sigmoid_param { steepness: 2 } }',
        'layer { name: "s" type: "Sigmoid" bottom: "nothing" top: "s" }',
    ],
)
def test_the_outputs_need_no_faulty_layer(behind: str, tmp_path: Path) -> None:
    net = write_net(tmp_path, X, BEFORE + behind)
    with pytest.raises(caffeconv.CaffeconvError):
        caffeconv.convert(net)
    assert [node.name for node in caffeconv.convert(net, outputs=["r"]).graph.node] == ["r"]


def test_fields_of_needed_layers_count(tmp_path: Path) -> None:
    net = write_net(
        tmp_path, X, 'layer { name: "r" type: "ReLU" bottom: "x" top: "r" relu_param { slope: 2 } }\n' + BEHIND
    )
    with pytest.raises(caffeconv.CaffeconvError, match="ReLUParameter has no field named `slope`"):
        caffeconv.convert(net, outputs=["r"])


def test_the_command(tmp_path: Path) -> None:
    net = write_net(tmp_path, X, BEFORE + BEHIND)
    result = CliRunner().invoke(main, ["convert", str(net), "-o", str(tmp_path / "m.onnx"), "--output", "r"])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(main, ["convert", str(net), "-o", str(tmp_path / "m.onnx")])
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0].endswith("q (Quantum), line 3: Unknown layer type: Quantum (2 layers)")
    assert lines[1] == "e (relu7), line 5: Unknown layer type: relu7; did you mean ReLU?"
    assert "--output" in lines[2]
    assert "caffeconv.register_layer" in lines[2]
    assert "--allow-python" in lines[2]
    assert result.stderr.count("What can be done") == 1
    assert "quantum_param" not in result.stderr
