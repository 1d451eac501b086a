"""What `convert --verify-report` keeps of a verification, and what the model says of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from click.testing import CliRunner, Result
from support.golden_cases import ROOT

import caffeconv
from caffeconv.cli import main

DIGITS = ROOT / "fixtures" / "digits"
NET, WEIGHTS = DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel"


def convert(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["convert", str(NET), str(WEIGHTS), *map(str, arguments)])


def test_a_verification_is_kept(tmp_path: Path) -> None:
    out, report, page = tmp_path / "m.onnx", tmp_path / "r.json", tmp_path / "r.html"
    convert("-o", out, "--verify-report", report, "--verify-with", "self", "--layout", "nhwc")
    kept = json.loads(report.read_text())
    assert (kept["ok"], kept["engine"]["name"], kept["probe_seed"], kept["model"]) == (True, "self", 20140619, str(out))
    assert kept["sources"] == [str(NET), str(WEIGHTS)]
    assert kept["versions"] == {
        "caffeconv": caffeconv.__version__, "numpy": np.__version__, "onnxruntime": onnxruntime.__version__
    }  # fmt: skip
    assert [blob["blob"] for blob in kept["blobs"]][::8] == ["scaled", "prob"]
    assert all(blob["verdict"] == "ok" and blob["deviation"] <= 1e-4 for blob in kept["blobs"])
    (said,) = (entry.value for entry in onnx.load(out).metadata_props if entry.key == "caffeconv.verified")
    assert json.loads(said) == {"engine": "self", "versions": kept["versions"], "probe_seed": 20140619}
    convert("-o", out, "--verify-report", page, "--verify-with", "self")
    assert "<h1>All blobs agree</h1>" in page.read_text()
    assert "<td>conv2 (Convolution)</td>" in page.read_text()


def test_a_report_is_no_input_and_no_output(tmp_path: Path) -> None:
    out = tmp_path / "m.json"
    for path in (out, tmp_path / "r.txt"):
        result = convert("-o", out, "--verify-report", path)
        assert (result.exit_code, out.exists()) == (1 if path == out else 2, False)
