"""`run --input -`: a picture or an array from stdin."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.golden_cases import ROOT

from caffeconv.cli import main

DIGITS = ROOT / "fixtures" / "digits"
PICTURE = (DIGITS / "7.png").read_bytes()


def run(content: bytes, *arguments: str) -> Result:
    net = [str(DIGITS / "deploy.prototxt"), str(DIGITS / "digits.caffemodel")]
    return CliRunner().invoke(main, ["run", *net, *arguments, "--top-k", "1", "--format", "jsonl"], input=content)


def array(*, packed: bool) -> bytes:
    file = io.BytesIO()
    values = np.zeros((2, 1, 28, 28), np.float32)
    np.savez(file, data=values) if packed else np.save(file, values)
    return file.getvalue()


@pytest.mark.parametrize("source", ["-", "data=-"])
@pytest.mark.parametrize(
    ("content", "items"),
    [
        (PICTURE, ["stdin"]),
        (array(packed=False), ["stdin.npy[0]", "stdin.npy[1]"]),
        (array(packed=True), ["stdin.npz[0]", "stdin.npz[1]"]),
    ],
    ids=["picture", "npy", "npz"],
)
def test_what_stdin_holds(content: bytes, items: list[str], source: str) -> None:
    result = run(content, "--input", source)
    assert result.exit_code == 0, result.stderr
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["item"] for record in records] == items
    if content == PICTURE:
        assert records[0]["classes"][0]["class"] == 7


@pytest.mark.parametrize(
    ("content", "arguments", "code", "message"),
    [
        (b"", ["--input", "-"], 1, "error: stdin: empty; a picture or an array (.npy, .npz) was needed"),
        (b"junk", ["--input", "-"], 1, "error: stdin: not a readable picture"),
        (array(packed=False)[:200], ["--input", "-"], 1, "error: stdin: 72 bytes of values; 6272 were needed"),
        (PICTURE, ["--input", "-", "--input", "data=-"], 2, "stdin holds one picture or array, for one input"),
    ],
)
def test_what_is_no_picture(content: bytes, arguments: list[str], code: int, message: str) -> None:
    result = run(content, *arguments)
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr


def test_it_can_be_kept_under_its_name(tmp_path: Path) -> None:
    net = [str(DIGITS / "deploy.prototxt"), str(DIGITS / "digits.caffemodel"), "--blobs", "ip1"]
    out = tmp_path / "features.npz"
    result = CliRunner().invoke(main, ["run", *net, "--input", "-", "-o", str(out)], input=PICTURE)
    assert result.exit_code == 0, result.stderr
    with np.load(out) as archive:
        assert archive["items"].tolist() == ["stdin"]
