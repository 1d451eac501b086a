"""Time per Caffe layer: every node that ran is attributed to its layer, whatever onnxruntime made of its name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.golden_cases import ROOT
from support.small_nets import write_net

from caffeconv.cli import main
from caffeconv.runtime.profiler import NodeRun, Profile, _node_runs

DIGITS = ROOT / "fixtures" / "digits"
NET, WEIGHTS = str(DIGITS / "deploy.prototxt"), str(DIGITS / "digits.caffemodel")
LAYERS = ["scale", "conv1", "pool1", "conv2", "pool2", "ip1", "relu1", "ip2", "prob"]
ZOO = Path(os.environ.get("CAFFECONV_ZOO", ROOT.parent / "shared" / "zoo"))


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["run", *map(str, arguments)])


def test_a_row_for_each_layer(tmp_path: Path) -> None:
    out = tmp_path / "p.json"
    result = call(NET, WEIGHTS, "--profile", "--iterations", "3", "--batch-size", "4", "-o", out)
    assert result.exit_code == 0, result.stderr
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["layer", "type", "ms", "share", "mult-adds", "GFLOP/s"]
    assert [row.split()[0] for row in rows[: len(LAYERS)]] == LAYERS
    assert rows[1].split()[4] == "460,800"  # 8·24·24 places of 5×5 weights, 4 items
    assert rows[len(LAYERS)].startswith("3 passes: ")
    profile = json.loads(out.read_text())
    assert profile["passes"] == 3
    assert profile["unattributed_ms"] == 0
    assert [layer["layer"] for layer in profile["layers"]] == LAYERS
    timed = {layer["layer"]: layer for layer in profile["layers"] if layer["ms"] is not None}
    assert {"conv1", "conv2", "ip1"} <= set(timed)
    np.testing.assert_allclose(sum(layer["share"] for layer in timed.values()), 1)


def test_a_trace(tmp_path: Path) -> None:
    out = tmp_path / "p.trace.json"
    assert call(NET, WEIGHTS, "--profile", "--iterations", "2", "-q", "-o", out).exit_code == 0
    events = json.loads(out.read_text())["traceEvents"]
    assert {event["name"] for event in events} <= set(LAYERS)
    assert all(event["ph"] == "X" and event["dur"] >= 0 for event in events)
    convolutions = [event for event in events if event["name"] == "conv1" and event["args"]["operator"] == "Conv"]
    assert len(convolutions) == 2  # passes of the warm-up are not in it


def test_an_onnx_model(tmp_path: Path) -> None:
    model, picture = tmp_path / "m.onnx", DIGITS / "3.png"
    assert CliRunner().invoke(main, ["convert", NET, WEIGHTS, "-o", str(model)]).exit_code == 0
    result = call(model, "--profile", "--iterations", "1", "--input", picture)
    assert result.exit_code == 0, result.stderr
    assert [row.split()[0] for row in result.stdout.splitlines()[1:10]] == LAYERS


def test_a_scan_counts_once(tmp_path: Path) -> None:
    """What runs inside a loop is not added to the loop."""
    lstm = (
        'layer { name: "l" type: "LSTM" bottom: "x" bottom: "c" top: "y" recurrent_param { num_output: 4 } }\n'
        'layer { name: "r" type: "ReLU" bottom: "y" top: "z" }'
    )
    net = write_net(tmp_path, {"x": (40, 2, 8), "c": (40, 2)}, lstm)
    out = tmp_path / "p.json"
    result = call(net, "--profile", "--iterations", "5", "-o", out)
    assert result.exit_code == 0, result.stderr
    profile = json.loads(out.read_text())
    assert sum(layer["ms"] or 0 for layer in profile["layers"]) <= profile["pass_ms"]


def test_nodes_inside_nodes_are_left_out() -> None:
    def event(name: str, start: int, duration: int) -> dict[str, object]:
        arguments = {"op_name": "X", "provider": "CPUExecutionProvider"}
        return {"name": f"{name}_kernel_time", "ts": start, "dur": duration, "tid": 1, "args": arguments}

    events = [event("l/step/mul", 12, 3), event("l/scan", 10, 20), event("r", 30, 5)]
    runs = tuple(_node_runs(events, {}, ["l", "r"]))
    assert [run.node for run in runs] == ["l/scan", "r"]
    assert Profile(2, 1.0, runs).layer_ms == {"l": 0.01, "r": 0.0025}


def test_what_belongs_to_no_layer_is_counted() -> None:
    runs = (NodeRun("a", "Conv", "", "a", 0, 3000, 1), NodeRun("x", "Memcpy", "", None, 3000, 1000, 1))
    profile = Profile(1, 4.5, runs)
    assert (profile.unattributed_ms, profile.unattributed) == (1.0, ("Memcpy",))


@pytest.mark.skipif(not ZOO.is_dir(), reason=f"no models in {ZOO}")
@pytest.mark.parametrize("name", ["lenet", "nsfw_resnet50_thin", "res10_face_ssd", "slim_320", "mtcnn_det3"])
def test_nothing_is_left_over_in_real_nets(tmp_path: Path, name: str) -> None:
    out = tmp_path / "p.json"
    arguments: list[str | Path] = ["--profile", "--iterations", "2", "-q", "-o", out]
    result = call(ZOO / name / "deploy.prototxt", ZOO / name / "weights.caffemodel", *arguments)
    assert result.exit_code == 0, result.stderr
    assert json.loads(out.read_text())["unattributed"] == []


def test_refusals(tmp_path: Path) -> None:
    result = call(NET, WEIGHTS, "--profile", "-o", tmp_path / "p.csv")
    assert result.exit_code == 1
    assert "a profile is written as .json, or as .trace.json" in result.stderr
    result = call(NET, WEIGHTS, "--iterations", "3")
    assert result.exit_code == 2
    assert "it is for nets with data layers" in result.stderr
    assert list(tmp_path.iterdir()) == []
