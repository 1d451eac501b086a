"""The options that go with `convert --int8`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from support.golden_cases import ROOT

from caffeconv.cli import main

DIGITS = ROOT / "fixtures" / "digits"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--calibrate", "x.npy"], "--int8 was needed too"),
        (["--int8-reduce-range"], "--int8 was needed too"),
        (["--int8", "--fp16"], "--int8 with --fp16"),
        (["--int8", "--verify"], "--int8 with --verify"),
        (["--int8", "--weights", "link"], "linked weights stay as they are"),
        (["--int8"], "were needed: --calibrate"),
        (["--int8", "--calibrate", "nowhere.png"], "nowhere.png"),
    ],
)
def test_what_does_not_go_together(options: list[str], words: str, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    net = [str(DIGITS / name) for name in ("deploy.prototxt", "digits.caffemodel")]
    result = CliRunner().invoke(main, ["convert", *net, "-o", str(out), *options])
    assert result.exit_code in (1, 2)
    assert words in " ".join(result.stderr.split())
    assert not out.exists()
