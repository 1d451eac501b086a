"""What `--fix` writes: the user's own text but for the edits."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.golden_cases import GOLDENS

import caffeconv
from caffeconv.cli import main

FC6 = GOLDENS / "errors" / "fc6_after_padded_1x1"
WEIGHTS = FC6 / "weights.caffemodel"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["inspect", "-q", *map(str, arguments)])


def commented(folder: Path, line_end: str = "\n") -> Path:
    net = folder / "net.prototxt"
    lines = [f"{line}  # line {i}" for i, line in enumerate((FC6 / "net.prototxt").read_text().splitlines())]
    net.write_text("\n".join(lines) + "\n", newline=line_end)
    return net


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_comments_and_line_ends_stay(tmp_path: Path, line_end: str) -> None:
    net, out = commented(tmp_path, line_end), tmp_path / "fixed.prototxt"
    call(net, WEIGHTS, "--fix", out)
    before, after = (path.read_bytes().splitlines(keepends=True) for path in (net, out))
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert [(a.split()[:2], b.split()[:2]) for a, b in changed] != []
    assert all(b.endswith(a[a.index(b"  #") :]) for a, b in changed)
    assert caffeconv.inspect(out, WEIGHTS).ok


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_the_difference_on_stdout(tmp_path: Path, line_end: str) -> None:
    net = commented(tmp_path, line_end)
    result = call(net, WEIGHTS, "--fix", "-")
    texts = (net.read_text(), caffeconv.inspect(net, WEIGHTS).fixed_text)
    before, after = (text.replace("\n", line_end).splitlines(keepends=True) for text in texts)
    expected = "".join(difflib.unified_diff(before, after, str(net), f"{net} (fixed)"))
    assert result.stdout_bytes.decode() == expected
    assert "\n+" in result.stdout
