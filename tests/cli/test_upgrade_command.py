"""caffeconv upgrade: what it writes, says, and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.golden_cases import GOLDENS

from caffeconv.cli import main

OLD = GOLDENS / "layers" / "v0_alex_padding" / "net.prototxt"


def upgrade(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["upgrade", *map(str, arguments)])


def test_prototxt(tmp_path: Path) -> None:
    out = tmp_path / "new.prototxt"
    result = upgrade(OLD, "-o", out)
    assert result.exit_code == 0
    assert result.stdout == f"{out}: {out.stat().st_size} bytes\n"
    assert "(V0) became" in result.stderr
    assert out.read_text().startswith('layer {\n  name: "input"\n  type: "Input"\n')


def test_caffemodel(tmp_path: Path) -> None:
    out = tmp_path / "new.caffemodel"
    result = upgrade(GOLDENS / "layers" / "weights_v1_binary" / "weights.caffemodel", "-o", out)
    assert result.exit_code == 0
    assert "5 of 5 blobs had num, channels, height, width instead of a shape" in result.stderr


def test_quiet(tmp_path: Path) -> None:
    result = upgrade(OLD, "-o", tmp_path / "new.prototxt", "-q")
    assert (result.exit_code, result.output) == (0, "")


def test_unknown_fields(tmp_path: Path) -> None:
    old = tmp_path / "old.prototxt"
    old.write_text('layer { name: "n" new_field: 1 }')
    assert upgrade(old, "-o", tmp_path / "new.prototxt").exit_code == 1
    result = upgrade(old, "-o", tmp_path / "new.prototxt", "--ignore-unknown-fields")
    assert result.exit_code == 0
    assert "caffeconv: dropped: line 1: layer 'n'" in result.stderr


@pytest.mark.parametrize("out", ["same", "new.caffemodel"])
def test_refused(tmp_path: Path, out: str) -> None:
    old = tmp_path / "same"
    old.write_text('name: "n"')
    result = upgrade(old, "-o", tmp_path / out)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"caffeconv: error: {tmp_path / out}: ")
    assert result.stdout == ""
    assert old.read_text() == 'name: "n"'
    assert list(tmp_path.iterdir()) == [old]


def test_no_output_named() -> None:
    assert upgrade(OLD).exit_code == 2


def test_deploy(tmp_path: Path) -> None:
    out = tmp_path / "deploy.prototxt"
    result = upgrade("fixtures/digits/train_val.prototxt", "-o", out, "--deploy")
    assert result.exit_code == 0, result.stderr
    assert "deploy net of phase TEST; inputs: data 1×1×28×28" in result.stderr


@pytest.mark.parametrize("option", [("--phase", "train"), ("--shape", "data=1,3,8,8"), ("--infogain", "logits")])
def test_a_form_without_deploy(tmp_path: Path, option: tuple[str, str]) -> None:
    result = upgrade(OLD, "-o", tmp_path / "new.prototxt", *option)
    assert result.exit_code == 2
    assert "they were given without --deploy" in result.stderr
    assert list(tmp_path.iterdir()) == []
