"""Files that are read whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.databases import refused

from caffeconv.caffe_format import small_files
from caffeconv.caffe_format.small_files import read_bytes


def test_the_whole_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 300)
    assert read_bytes(tmp_path / "a", "a text") == bytes(range(256)) * 300


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("net.prototxtt", "no such file; a text was needed. Did you mean .*net.prototxt\\?"),
        ("net", "no such file; a text was needed. Did you mean .*net.prototxt\\?"),
        ("folder", "this is a folder.*; a text was needed"),
        ("pipe", "this is a pipe; a plain file was needed"),
        ("net.prototxt", "4 bytes are too many for a text"),
    ],
)
def test_what_is_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    monkeypatch.setattr(small_files, "MAX_BYTES", 3)
    (tmp_path / "net.prototxt").write_text("text")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with refused(said):
        read_bytes(tmp_path / name, "a text")
