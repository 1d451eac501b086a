"""What inspect says of a net, of its values, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.golden_cases import GOLDENS
from support.small_nets import write_net, write_weights

import caffeconv
from caffeconv.cli import main

ALEXNET = GOLDENS / "nets" / "alexnet"
FC6 = GOLDENS / "errors" / "fc6_after_padded_1x1"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def test_a_net_without_parameters_has_none(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text('input: "x" input_shape { dim: 2 } layer { name: "l" type: "Silence" bottom: "x" }')
    assert "2 layers, 0 parameters (0 B), 0 multiply-adds, 8 B activations" in call(net).stdout


def test_json_of_edits_beyond_fields(tmp_path: Path) -> None:
    pool = 'layer { name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param { kernel_size: 2 } }'
    report = json.loads(call(write_net(tmp_path, {"x": (1, 2, 3, 4, 6)}, pool), "--json").stdout)
    edit = report["cures"][0]["edits"][0]
    assert (edit["layer"], edit["field"]) == ("p", "layers")
    assert edit["to"].count("layer {") == 3
    assert "dim: 0 dim: 6 dim: 4 dim: 6" in edit["to"]


def infinite(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    x[1, 2] = np.inf


def missing(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    x[0, :2] = np.nan


def zero(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    x[:] = 0


@pytest.mark.parametrize(
    ("spoil", "ok", "want"),
    [
        (infinite, False, "param 0 (weight) holds 0 NaN and 1 infinite values of 12, the first at [1, 2]"),
        (missing, False, "param 0 (weight) holds 2 NaN and 0 infinite values of 12, the first at [0, 0]"),
        (zero, True, "param 0 (weight) is all zero"),
    ],
)
def test_values(
    spoil: Callable[[np.ndarray[tuple[int, ...], np.dtype[np.float32]]], None], ok: bool, want: str, tmp_path: Path
) -> None:
    net = write_net(
        tmp_path, {"x": (1, 4)},
        'layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 3 } }',
    )  # fmt: skip
    weight = np.ones((3, 4), np.float32)
    spoil(weight)
    weights = write_weights(tmp_path / "w.caffemodel", "fc", [weight, np.zeros(3, np.float32)])
    assert caffeconv.inspect(net, weights).ok
    report = caffeconv.inspect(net, weights, values=True)
    assert report.ok == ok
    assert [d.message for d in report.diagnostics] == [want]
    assert want in call(net, weights, "--values").stderr


def test_fix_writes_the_net_that_fits(tmp_path: Path) -> None:
    out = tmp_path / "fixed.prototxt"
    result = call(FC6 / "net.prototxt", FC6 / "weights.caffemodel", "--fix", out)
    assert result.exit_code == 1
    assert "reduce { pad: 1 → 0, num_output: 4 → 16 }" in result.stderr
    again = call(out, FC6 / "weights.caffemodel")
    verdict = "The weights fit, but 1 layer stays at its fillers: reduce"
    assert (again.exit_code, again.stdout.splitlines()[-1]) == (0, verdict)
    assert call(out, FC6 / "weights.caffemodel", "--fix", tmp_path / "none.prototxt").exit_code == 0
    assert not (tmp_path / "none.prototxt").exists()


def test_json_is_as_documented() -> None:
    document = (GOLDENS.parent.parent / "docs" / "inspect.md").read_text()
    result = call(FC6 / "net.prototxt", FC6 / "weights.caffemodel", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["version"], report["ok"]) == (1, 1, False)
    cure = report["cures"][0]
    for names in (report, report["layers"][3], report["diagnostics"][0], cure, cure["edits"][0]):
        assert [name for name in names if f"`{name}`" not in document] == []
    assert report["cures"][0]["edits"][0] == {"layer": "reduce", "field": "pad", "from": "1", "to": "0"}
    assert report["layers"][3]["receptive_field"] == {"size": [1, 1], "stride": [1.0, 1.0]}
