"""Every folder of the archive of faults ends well: what once crashed, hung, ate memory or reached where it must not."""

from __future__ import annotations

import functools
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import pytest
from click.testing import CliRunner
from support.fault_archive import ARCHIVE, DIGITS, ELSEWHERE, NET, commands, folder_names, unpacked
from support.program import environment, script

from caffeconv.caffe_pb2 import Datum
from caffeconv.cli import main

SECONDS = 10
MIB = 1 << 10
"""In the unit of the kernel's maximum resident set."""
WRITER = """
import lmdb
number = 10_000
with lmdb.open("db", map_size=1 << 30, sync=False) as environment:
    print("writes", flush=True)
    while True:
        with environment.begin(write=True) as transaction:
            record = transaction.get(b"00000000")
            for key in range(number, number + 500):
                transaction.put(b"%08d" % key, record)
            for key in range(number - 5000, number, 7):
                transaction.delete(b"%08d" % key)
        number += 500
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(ARCHIVE, tmp_path_factory.mktemp("faults"))


def ends_well(command: str, folder: Path) -> None:
    """Runs a command in this process, and holds its end against what a good one is."""
    before = contents(folder)
    start, size = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = CliRunner().invoke(main, command.split())
    assert time.process_time() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size < 1024 * MIB
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (0, 1), result.output
    assert result.exit_code == 0 or "error: " in result.output
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", result.output)
    after = contents(folder)
    assert before.items() <= after.items(), "a file that was there is another one now"
    assert result.exit_code == 0 or command.startswith("inspect") or after == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock.mdb"}


@pytest.mark.parametrize("name", folder_names(ARCHIVE))
def test_what_once_ended_badly(name: str, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folders / name
    monkeypatch.chdir(folder)
    lines = commands(folder)
    assert bool(lines) != (name in ELSEWHERE), "a fault without a command"
    for line in lines:
        ends_well(line, folder)


def test_a_closed_stdout(folders: Path) -> None:
    command = " ".join([sys.executable, "-m", "caffeconv", "inspect", NET, ">&-"])
    ended = subprocess.run(
        command, shell=True, cwd=folders, env=environment(), stderr=subprocess.PIPE, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_database_that_another_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file grows, and pages of it are used again, while it is read."""
    monkeypatch.chdir(tmp_path)
    data = 'data_param { source: "db" backend: LMDB batch_size: 500 }'
    Path("n.prototxt").write_text(f'layer {{ name: "d" type: "Data" top: "data" top: "label" {data} }}')
    record = Datum(channels=1, height=4, width=4, data=bytes(16)).SerializeToString()
    with lmdb.open("db", map_size=1 << 30) as database, database.begin(write=True) as transaction:
        for number in range(10_000):
            transaction.put(b"%08d" % number, record)
    with subprocess.Popen(script(tmp_path, WRITER), env=environment(), cwd=tmp_path, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writes\n"
        try:
            result = CliRunner().invoke(main, ["run", "n.prototxt"])
        finally:
            writer.kill()
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("size", [0, 4096])
@pytest.mark.parametrize("suffix", ["onnx", "h5", "npz", "caffemodel"])
def test_a_source_that_is_cut_off_meanwhile(
    suffix: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the output is begun."""
    shutil.copyfile(DIGITS / "digits.caffemodel", tmp_path / "w.caffemodel")
    cut_off = functools.partial(os.truncate, tmp_path / "w.caffemodel", size)
    monkeypatch.setattr("caffeconv.files.atomic.remove_leftovers", lambda target: cut_off())
    words = [
        "convert",
        str(DIGITS / "deploy.prototxt"),
        str(tmp_path / "w.caffemodel"),
        "-o",
        str(tmp_path / f"o.{suffix}"),
    ]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert re.search(r"w.caffemodel: (the file ends at byte|became shorter)", result.output)
    assert [path.name for path in tmp_path.iterdir()] == ["w.caffemodel"]
