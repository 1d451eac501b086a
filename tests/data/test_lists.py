"""Files that list files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.databases import refused

from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.lists import read_list


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
