"""Files that list files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.databases import refused

from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.lists import find_listed, read_list


def test_names_of_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"gr\xc3\xbcn.png 1\nr\xf6t.png 2\n")
    assert read_list(tmp_path / "list.txt").encode("utf-8", "surrogateescape") == b"gr\xc3\xbcn.png 1\nr\xf6t.png 2\n"


def test_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = (
        "Failed to open source file: list.txt; a list of files was needed. "
        f"Caffe looks from the current folder, which is {tmp_path}"
    )
    with pytest.raises(SourceUnavailableError, match=f"^{re.escape(message)}$"):
        read_list(Path("list.txt"))
    with refused("cannot be read: Is a directory; a list of files was needed$"):
        read_list(tmp_path)


def test_the_current_folder_goes_before_the_list_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, beside = tmp_path / "here", tmp_path / "beside"
    for folder in (here, beside):
        folder.mkdir()
    monkeypatch.chdir(here)
    assert find_listed("a.png", beside) == Path("a.png")
    (beside / "a.png").touch()
    assert find_listed("a.png", beside) == beside / "a.png"
    (here / "a.png").touch()
    assert find_listed("a.png", beside) == Path("a.png")
    assert find_listed(str(here / "a.png"), beside) == here / "a.png"
