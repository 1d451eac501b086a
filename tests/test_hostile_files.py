"""Every file that once ended badly ends well: with a result, or with an error of exit code 1, and nothing half written."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from caffeconv.cli import main
from caffeconv.data.datum import read_datum
from caffeconv.errors import CaffeconvError

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = ROOT / "fixtures" / "hostile"
DIGITS = ROOT / "fixtures" / "digits"
SECONDS = 10
COMMANDS: dict[str, tuple[str, ...]] = {
    "hdf5_weights/endless_heap.h5": (f"convert {DIGITS}/deploy.prototxt FILE -o o.onnx",),
    "prototxt/*.prototxt": ("inspect FILE", "upgrade FILE --deploy -o up.prototxt"),
}
"""Fixtures → what is run over each of them; those of the archive of faults have a test of their own."""
CASES = [
    (path, command)
    for pattern, commands in COMMANDS.items()
    for path in sorted(HOSTILE.glob(pattern))
    for command in commands
]


def run(command: str, folder: Path) -> None:
    """Runs a command in a folder, and holds its end against what a good one is."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    start = time.process_time()
    result = CliRunner().invoke(main, command.split())
    assert time.process_time() - start < SECONDS
    assert result.exit_code in (0, 1), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", result.output)
    assert result.exit_code == 0 or "error: " in result.output
    if result.exit_code == 1 and "inspect" not in command:
        assert {path for path in folder.rglob("*") if path.is_file()} == set(before)
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())


@pytest.mark.parametrize(("path", "command"), CASES, ids=[f"{c.split()[0]}-{p.name}" for p, c in CASES])
def test_a_hostile_file_ends_well(path: Path, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    for file in [path, *path.parent.glob("*.txt")]:
        shutil.copyfile(file, folder / file.name)
    os.mkfifo(folder / "pipe")
    monkeypatch.chdir(folder)
    run(command.replace("FILE", path.name), folder)


@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_lmdb_ends_well(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(HOSTILE / "lmdb" / str(number), tmp_path / "db")
    data = 'data_param { source: "db" backend: LMDB batch_size: 1 }'
    (tmp_path / "net.prototxt").write_text(f'layer {{ name: "d" type: "Data" top: "data" top: "label" {data} }}')
    monkeypatch.chdir(tmp_path)
    for command in (
        "run net.prototxt",
        "inspect net.prototxt",
        "make-h --balance median-frequency --count-labels db -o H",
    ):
        run(command, tmp_path)


@pytest.mark.parametrize("path", sorted((HOSTILE / "pictures").glob("*.datum")), ids=lambda path: path.name)
def test_a_hostile_datum_is_refused(path: Path) -> None:
    with pytest.raises(CaffeconvError, match="a PNG with a chunk of"):
        read_datum(path.read_bytes(), "a record")


@pytest.mark.parametrize("place", ["null", "full", "loop", "folder", "nowhere", "labels.txt/o", "none/o", "x" * 300])
@pytest.mark.parametrize(
    "command",
    [
        f"{net} {more} {option} OUT.{suffix}"
        for net, more, option, suffixes in (
            (f"convert {DIGITS}/deploy.prototxt {DIGITS}/digits.caffemodel", "", "-o", "npz h5 caffemodel.h5 caffemodel onnx"),
            (f"convert {DIGITS}/deploy.prototxt {DIGITS}/digits.caffemodel", "--weights external", "-o", "onnx"),
            (f"run {DIGITS}/deploy.prototxt {DIGITS}/digits.caffemodel", f"--input {DIGITS}/0.png", "-o", "npy npz h5 csv"),
            ("make-h", "--identity 3", "-o", "h5 binaryproto"),
            (f"inspect {DIGITS}/deploy.prototxt", "", "--html", "html"),
            (f"upgrade {DIGITS}/deploy.prototxt", "", "-o", "prototxt"),
        )
        for suffix in suffixes.split()
    ],
)  # fmt: skip
def test_an_output_anywhere_ends_well(
    command: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suffix = command.partition("OUT.")[2]
    out = Path(f"{place}.{suffix}")
    Path("labels.txt").touch()
    targets = {"null": "/dev/null", "full": "/dev/full", "loop": out.name, "nowhere": f"none/x.{suffix}"}
    if place in targets:
        out.symlink_to(targets[place])
    elif place == "folder":
        out.mkdir()
    before = sorted(tmp_path.rglob("*"))
    run(command.replace("OUT.", f"{place}."), tmp_path)
    assert place in ("null", "full") or sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", ["pipe", "/dev/zero", "/dev/full", "loop", ".", "nothing", "empty"])
@pytest.mark.parametrize(
    "command",
    [
        "inspect FILE", "convert FILE -o o.onnx", "run FILE", "upgrade FILE -o up.prototxt", "train FILE", "make-h FILE -o H",
        f"convert {DIGITS}/deploy.prototxt FILE -o o.onnx", f"train {DIGITS}/solver.prototxt --snapshot FILE",
        "inspect solver.prototxt", "train solver.prototxt", f"train {DIGITS}/solver.prototxt --weights FILE",
    ],
)  # fmt: skip
def test_only_plain_files_are_read(command: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    Path("empty").touch()
    solver = f'net: "{place}" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 snapshot_after_train: false'
    Path("solver.prototxt").write_text(solver)
    run(command.replace("FILE", place), tmp_path)
