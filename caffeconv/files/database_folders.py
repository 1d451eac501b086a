"""Which files make a folder a database."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Backend = Literal["LMDB", "LEVELDB"]
DATABASE_FILES: Mapping[Backend, str] = {"LMDB": "data.mdb", "LEVELDB": "CURRENT"}
"""Kind of database → the file that its folder has to have."""


def database_in(folder: Path) -> Backend | None:
    """Which kind of database a folder holds, by the files in it; None where it holds none."""
    return next((backend for backend, name in DATABASE_FILES.items() if (folder / name).exists()), None)
