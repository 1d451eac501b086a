"""No output of a run may be a file that the run reads, under any name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.golden_cases import ROOT

from caffeconv.cli import main

DIGITS = ROOT / "fixtures" / "digits"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("deploy.prototxt", "digits.caffemodel", "7.png", "labels.txt", "train_val.prototxt", "pictures.txt"):
        shutil.copy(DIGITS / name, tmp_path)
    for digit in range(10):
        shutil.copy(DIGITS / f"{digit}.png", tmp_path)
    for name in ("train_val.prototxt", "pictures.txt"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace("fixtures/digits/", ""))
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 28, 28), np.float32))
    np.save(tmp_path / "mean.npy", np.zeros(1, np.float32))
    return tmp_path


DEPLOY = ("deploy.prototxt", "digits.caffemodel")
RUNS = {
    "input": ("x.npy", (*DEPLOY, "--input", "x.npy", "-o", "x.npy")),
    "input_in_rows": ("x.npy", (*DEPLOY, "--input", "x.npy", "--blobs", "ip1", "-o", "x.npy")),
    "mean": ("mean.npy", (*DEPLOY, "--input", "7.png", "--mean", "mean.npy", "-o", "mean.npy")),
    "data_layers_own_list": (
        "pictures.txt",
        ("train_val.prototxt", "digits.caffemodel", "--per-batch", "pictures.txt"),
    ),
}


def run(folder: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(main, ["run", *arguments])
    return result.exit_code, result.stderr


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("link", [None, os.symlink, os.link], ids=["same", "symlink", "hard_link"])
def test_refused(name: str, link: object, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, arguments = RUNS[name]
    before = (folder / file).read_bytes()
    output = file
    if callable(link):
        output = f"other{Path(file).suffix}"
        link(folder / file, folder / output)
        arguments = (*arguments[:-1], output)
    code, errors = run(folder, arguments, monkeypatch)
    assert code == 1, errors
    assert f"{output}: this is the input, and is not overwritten; choose another output file" in errors
    assert (folder / file).read_bytes() == before


def test_labels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.link(folder / "labels.txt", folder / "out.csv")
    code, errors = run(folder, (*DEPLOY, "--input", "7.png", "--labels", "labels.txt", "-o", "out.csv"), monkeypatch)
    assert (code, "out.csv: this is the input" in errors) == (1, True)


def test_another_file_is_written_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "out.npy").write_bytes(b"old")
    assert run(folder, (*DEPLOY, "--input", "x.npy", "-o", "out.npy"), monkeypatch)[0] == 0
    assert np.load(folder / "out.npy").shape == (1, 10)


def test_the_names_beside_an_array(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "x.names.txt").write_text("7.png\n")
    code, errors = run(folder, (*DEPLOY, "--input", "x.names.txt", "-o", "x.npy"), monkeypatch)
    assert (code, "x.names.txt: this is the input" in errors) == (1, True)
    assert (folder / "x.names.txt").read_text() == "7.png\n"


def test_a_profile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.link(folder / "x.npy", folder / "out.json")
    code, errors = run(folder, (*DEPLOY, "--input", "x.npy", "--profile", "-o", "out.json"), monkeypatch)
    assert (code, "out.json: this is the input" in errors) == (1, True)
