"""Heaps whose free blocks form a circle are seen, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from caffeconv.errors import CaffeconvError
from caffeconv.files import hdf5_heaps
from caffeconv.files.hdf5 import open_hdf5
from caffeconv.files.hdf5_heaps import has_endless_heap


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "w.h5", "w", userblock_size=512) as file:
        for name in ("a", "b"):
            file[f"data/{name}/0"] = np.ones(3, np.float32)
        del file["data/b"]
    return tmp_path / "w.h5"


def with_circle(content: bytes, base: int = 512) -> bytes:
    """The first free block of the last heap names itself as the next one."""
    heap = content.rindex(b"HEAP\0\0\0\0")
    length, block, address = (int.from_bytes(content[heap + i : heap + i + 8], "little") for i in (8, 16, 24))
    assert block + 16 <= length
    place = base + address + block
    return content[:place] + block.to_bytes(8, "little") + content[place + 8 :]


def test_a_circle_is_refused(path: Path) -> None:
    assert not has_endless_heap(path)
    open_hdf5(path).close()
    path.write_bytes(with_circle(path.read_bytes()))
    assert has_endless_heap(path)
    with pytest.raises(CaffeconvError, match="free blocks of a heap lead back"):
        open_hdf5(path)


def test_both_ends_of_a_large_file_are_looked_through(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = with_circle(path.read_bytes())
    path.write_bytes(content)
    for heaps_seen, most in ((True, len(content) - content.rindex(b"HEAP")), (False, 16)):
        monkeypatch.setattr(hdf5_heaps, "_LOOKED_THROUGH", most)
        assert has_endless_heap(path) == heaps_seen


@pytest.mark.parametrize(
    "content", [b"", b"HEAP\0\0\0\0" * 9, b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\nHEAP\0\0\0\0" + b"\xff" * 24]
)
def test_what_is_no_heap(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    assert not has_endless_heap(path)
