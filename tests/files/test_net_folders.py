"""Where what a net names is looked for, and which of it is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from caffeconv.errors import CaffeconvError
from caffeconv.files.net_folders import NetFolders


def test_the_current_folder_goes_before_the_net_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, beside = tmp_path / "here", tmp_path / "beside"
    for folder in (here, beside):
        folder.mkdir()
    monkeypatch.chdir(here)
    folders = NetFolders(beside)
    assert folders.find("a.png") == Path("a.png")
    (beside / "a.png").touch()
    assert folders.find("a.png") == beside / "a.png"
    (here / "a.png").touch()
    assert folders.find("a.png") == Path("a.png")
    assert folders.find(str(here / "a.png")) == here / "a.png"


def test_nothing_outside_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.chdir(root)
    (root / "link").symlink_to("/etc/passwd")
    (root / "circle").symlink_to("circle")
    for name in ("/etc/passwd", "../a", "link", "circle"):
        with pytest.raises(CaffeconvError, match=f"^{name}: it lies outside `root='{root}'`, and is not read$"):
            NetFolders(root, root=root).find(name)
    outside, database = tmp_path / "data.mdb", root / "database"
    outside.touch()
    database.mkdir()
    (database / "data.mdb").symlink_to(outside)
    with pytest.raises(CaffeconvError, match="database: it lies outside"):
        NetFolders(root, root=root).find("database")
    (root / "pictures").mkdir()
    (root / "pictures" / "elsewhere").symlink_to(outside)  # refused when it is read, not before
    assert NetFolders(root, root=root).find("pictures") == Path("pictures")
    (root / "a").touch()
    assert NetFolders(root, root=root).find("a") == Path("a")
    assert NetFolders(root, root=root).find("missing") == Path("missing")


def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, problem in (("pipe", "a pipe"), ("/dev/zero", "a device"), ("a\0b", "NUL"), ("A" * 5000, "5000")):
        with pytest.raises(CaffeconvError, match=problem):
            NetFolders(tmp_path).find(name)
