"""Which files make a folder a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffeconv.files.database_folders import database_in


@pytest.mark.parametrize(("name", "backend"), [("data.mdb", "LMDB"), ("CURRENT", "LEVELDB"), ("lock.mdb", None)])
def test_a_folder_is_what_its_files_say(name: str, backend: str | None, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert database_in(tmp_path) == backend
    assert database_in(tmp_path / name) is None
