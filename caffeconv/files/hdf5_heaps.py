"""Heaps of names in HDF5 files, looked at before HDF5's own library reads them.

The library follows the list of free blocks in a heap for as long as one names a next one, and keeps a record of each: where
the list leads back into itself, memory runs out (HDF5 file format specification, III.D: local heaps; H5HLcache.c).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_SIGNATURE, _HEAP = b"\x89HDF\r\n\x1a\n", b"HEAP\0\0\0\0"
_LOOKED_THROUGH = 1 << 24
"""Bytes at the beginning of a file, and as many at its end, in which heaps are looked for: all of a small file."""
_END = 1
"""What the last free block names as the next one."""


def has_endless_heap(path: Path) -> bool:
    """Whether the free blocks of a heap form a circle. False where the file is no HDF5 at all."""
    with path.open("rb") as file:
        base = _start(file)
        if base is None:
            return False
        size = _size_of_lengths(file, base)
        return any(_is_circular(file, place, base, size) for place in _heaps(file))


def _start(file: BinaryIO) -> int | None:
    """Where the file's own part begins: at 0, 512, 1024, …"""
    length, place = file.seek(0, 2), 0
    while place < length:
        if _read(file, place, len(_SIGNATURE)) == _SIGNATURE:
            return place
        place = max(512, 2 * place)
    return None


def _size_of_lengths(file: BinaryIO, base: int) -> int:
    head = _read(file, base + len(_SIGNATURE), 7)
    place = 6 if head[:1] < b"\2" else 2
    return head[place] if len(head) > place else 8


def _heaps(file: BinaryIO) -> Iterator[int]:
    """Where heaps may lie; what only looks like one has no list that could be followed."""
    length = file.seek(0, 2)
    for start in dict.fromkeys((0, max(0, length - _LOOKED_THROUGH))):
        content = _read(file, start, _LOOKED_THROUGH)
        place = content.find(_HEAP)
        while place >= 0:
            yield start + place
            place = content.find(_HEAP, place + 1)


def _is_circular(file: BinaryIO, heap: int, base: int, size: int) -> bool:
    """The heap says how long its segment is, which block of that is the first free one, and where the segment lies."""
    head = _read(file, heap + len(_HEAP), 3 * size)
    length, block, address = (int.from_bytes(head[i * size : (i + 1) * size], "little") for i in range(3))
    met = set[int]()
    while block != _END and block + 2 * size <= length:
        if block in met:
            return True
        met.add(block)
        block = int.from_bytes(_read(file, base + address + block, size), "little")
    return False


def _read(file: BinaryIO, place: int, size: int) -> bytes:
    """What lies there; fewer bytes beyond the end of the file."""
    if place >= 1 << 63:
        return b""
    file.seek(place)
    return file.read(size)
