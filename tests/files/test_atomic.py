"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from caffeconv import CaffeconvError
from caffeconv.files.atomic import refuse_input_as_output, whole_file, whole_folder


def test_new_file_has_the_usual_rights(tmp_path: Path) -> None:
    with whole_file(tmp_path / "new") as file:
        file.write(b"12345")
        file.seek(1)
        assert file.read(2) == b"23"
        assert not (tmp_path / "new").exists()
    (tmp_path / "plain").touch()
    assert (tmp_path / "new").read_bytes() == b"12345"
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "plain"]


def test_old_file_is_replaced_and_keeps_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"before")
    path.chmod(0o640)
    with whole_file(path) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def write_half(path: Path, problem: BaseException) -> None:
    with whole_file(path) as file:
        file.write(b"half")
        raise problem


@pytest.mark.parametrize("problem", [RuntimeError("stop"), KeyboardInterrupt(), OSError(errno.EIO, "elsewhere", "/x")])
def test_nothing_is_left_of_a_failure(tmp_path: Path, problem: BaseException) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"before")
    with pytest.raises(type(problem)):
        write_half(path, problem)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk(tmp_path: Path) -> None:
    with pytest.raises(CaffeconvError, match=r"new: could not be written whole: No space left.*Nothing was kept"):
        write_half(tmp_path / "new", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert list(tmp_path.iterdir()) == []


def test_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"before")
    link.symlink_to(real)
    with whole_file(link) as file:
        file.write(b"after")
    assert link.is_symlink()
    assert real.read_bytes() == b"after"


def test_device_is_written_to() -> None:
    with whole_file(os.devnull) as file:
        file.write(b"x")
    assert not Path(os.devnull).is_file()


def test_long_name(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 120)
    with whole_file(path) as file:
        file.write(b"x")
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", "this is a folder"),
        ("no/file", "there is no folder"),
        ("x" * 300, "cannot be written: File name too long"),
    ],
)
def test_impossible_place(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(CaffeconvError, match=message), whole_file(tmp_path / name):
        pass


def test_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"before")
    # a superuser may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(CaffeconvError, match="kept: this file may not be overwritten"), whole_file(path):
        pass


def test_folder_without_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CaffeconvError, match="new: cannot be written: Permission denied"), whole_file(tmp_path / "new"):
        pass


def test_input_is_not_overwritten(tmp_path: Path) -> None:
    one, link, hard = tmp_path / "one", tmp_path / "link", tmp_path / "hard"
    one.write_bytes(b"")
    link.symlink_to(one)
    hard.hardlink_to(one)
    for output in (one, link, hard, tmp_path / "." / "one"):
        with pytest.raises(CaffeconvError, match="this is the input, and is not overwritten"):
            refuse_input_as_output(output, [tmp_path / "other", one])
    refuse_input_as_output(tmp_path / "two", [one, tmp_path / "other"])


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [True, False])
def test_new_folder(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "new"
    if there:
        path.mkdir()
    with whole_folder(path) as folder:
        (folder / "inside").write_text("x")
        assert not (path / "inside").exists()
    assert (path / "inside").read_text() == "x"
    assert list(tmp_path.iterdir()) == [path]


def fill_half(path: Path) -> None:
    with whole_folder(path) as folder:
        (folder / "inside").write_text("x")
        raise KeyboardInterrupt


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill_half(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "file: this is there already, and is not replaced"),
        ("full", "full: this is there already, and is not replaced"),
        ("nowhere/new", "there is no folder .*/nowhere; make it first, or choose another place"),
    ],
)
def test_folders_that_cannot_be(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "inside").write_text("x")
    with pytest.raises(CaffeconvError, match=message):
        fill_half(tmp_path / name)
    assert (tmp_path / "full" / "inside").read_text() == "x"


def test_leftovers_of_a_kill_are_removed_and_a_writer_s_part_is_not(tmp_path: Path) -> None:
    script = "import os, sys; from caffeconv.files.atomic import whole_file\nwith whole_file(sys.argv[1]): os._exit(9)"
    target = tmp_path / "out.onnx"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script, str(target)], check=False)
    (tmp_path / ".out.onnx.of-the-user.part").touch()
    (tmp_path / ".other.0123456789ab.part").touch()
    with whole_file(target) as first:
        (own,) = tmp_path.glob(".out.onnx.????????????.part")
        with whole_file(target) as second:
            assert own.exists()
            second.write(b"second")
        first.write(b"first")
    assert target.read_bytes() == b"first"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".other.0123456789ab.part", ".out.onnx.of-the-user.part", "out.onnx",
    ]  # fmt: skip
    (tmp_path / ".folder.0123456789ab.part").mkdir()
    with whole_folder(tmp_path / "folder"):
        pass
    assert not (tmp_path / ".folder.0123456789ab.part").exists()
