"""`convert --int8`, and `run` on what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from support.golden_cases import ROOT

from caffeconv.cli import main

DIGITS = ROOT / "fixtures" / "digits"


def invoke(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("form", [[], ["--preprocess"], ["--layout", "nhwc"]])
def test_digits(form: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges from the net's own data layer; the accuracy is told; the model works as another one does."""
    monkeypatch.chdir(ROOT)
    out = tmp_path / "digits.onnx"
    net, weights = DIGITS / "train_val.prototxt", DIGITS / "digits.caffemodel"
    stdout = invoke("convert", net, weights, "--deploy", "--int8", *form, "-o", out)
    assert "int8: 4 of 4 layers, ranges of 10 items" in stdout
    assert "the same class for 100.0% of the items, accuracy 1.0000 → 1.0000" in stdout
    assert out.stat().st_size < weights.stat().st_size / 2
    table = invoke("run", out, "--input", DIGITS / "7.png", "--top-k", "1")
    assert table.split()[-1] == "7"


def test_layers_that_stay_float32_are_named(tmp_path: Path) -> None:
    net, weights = DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel"
    stdout = invoke(
        "convert", net, weights, "--int8", "--int8-deviation", "0.000001", "--calibrate", DIGITS / "7.png", "-o",
        tmp_path / "x.onnx",
    )  # fmt: skip
    assert "int8: 0 of 4 layers" in stdout
    assert "float32: " in stdout
    assert "conv1 (" in stdout
