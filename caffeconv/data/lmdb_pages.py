"""Reads the pages of an LMDB by their numbers, and believes none of them (lmdb.h, mdb.c of LMDB 0.9: 64-bit, little endian).

LMDB's own library maps the file and follows what it finds there: one damaged byte, or a file that is cut off meanwhile,
ends the process. Here every page is read whole, and everything in it is compared with its size before it is used.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from caffeconv.errors import CaffeconvError
from caffeconv.files.plain_file import PlainFile

Record = tuple[bytes, bytes]
"""A key and its value."""
_HEADER = struct.Struct("<QHHHH")  # page number, unused, flags, lower, upper
_NODE = struct.Struct("<HHHH")  # size or page number in two halves, flags or its third part, size of the key
_META = struct.Struct("<IIQQ48s48sQQ")  # magic, version, address, map size, free and main tree, last page, transaction
_TREE = struct.Struct("<IHHQQQQQ")  # page size, flags, depth, branch, leaf and overflow pages, entries, root
_MAGIC = 0xBEEFC0DE
_BRANCH, _LEAF, _META_PAGE, _KINDS = 0x01, 0x02, 0x08, 0x6F
_BIG_VALUE = 0x01
_NO_PAGE = (1 << 64) - 1
_DEEPEST = 32
_AHEAD = 1 << 16
PAGE_SIZES = tuple(1 << i for i in range(9, 17))


@dataclass(frozen=True)
class Snapshot:
    """An LMDB as one transaction left it."""

    transaction: int
    page_size: int
    pages: int
    """How many there are in the file, used or not."""
    entries: int
    depth: int
    root: int


class LmdbFile:
    """A data.mdb, open for reading."""

    def __init__(self, path: Path) -> None:
        """Raises CaffeconvError where it is no LMDB, or cut off; OSError where it cannot be opened."""
        self.path = path
        self._file = PlainFile(path)
        self._page_size = self._first_page_size()
        newest = self.snapshot()
        assert newest is not None
        needed = newest.pages * newest.page_size
        if len(self._file) < needed:
            raise CaffeconvError(f"{path}: {len(self._file)} bytes, {needed} were needed: it is cut off. Copy it again")

    def snapshot(self, transaction: int | None = None) -> Snapshot | None:
        """What a transaction left, the newest if None; None where later ones have taken its place."""
        found = [self._read_meta(page) for page in (0, 1)]
        matching = [one for one in found if transaction in (None, one.transaction)]
        return max(matching, key=lambda one: one.transaction, default=None)

    def pages(self, snapshot: Snapshot) -> LmdbPages:
        # a writer lets the file grow
        return LmdbPages(PlainFile(self.path), snapshot)

    def _first_page_size(self) -> int:
        magic, size = b"", 0
        if len(self._file) >= 2 * PAGE_SIZES[0]:
            magic, size = self._file.read(16, 20), int.from_bytes(self._file.read(40, 44), "little")
        if magic != struct.pack("<I", _MAGIC) or size not in PAGE_SIZES or len(self._file) < 2 * size:
            raise self._unreadable("no LMDB, or one of a 32-bit machine")
        return size

    def _read_meta(self, number: int) -> Snapshot:
        start = number * self._page_size
        _, _, flags, _, _ = _HEADER.unpack(self._file.read(start, start + _HEADER.size))
        start += _HEADER.size
        magic, version, _, _, free, main, last, transaction = _META.unpack(self._file.read(start, start + _META.size))
        page_size = _TREE.unpack(free)[0]
        _, tree_flags, depth, _, _, _, entries, root = _TREE.unpack(main)
        if not flags & _META_PAGE or magic != _MAGIC or version != 1 or page_size != self._page_size:
            raise self._unreadable(f"page {number} does not describe one")
        if tree_flags or depth > _DEEPEST or (root == _NO_PAGE) != (depth == 0) or entries > len(self._file):
            raise self._unreadable(
                f"page {number} describes a tree that Caffe does not write: flags {tree_flags}, depth {depth}, "
                f"{entries} records"
            )
        return Snapshot(transaction, page_size, last + 1, entries, depth, root)

    def _unreadable(self, what: str) -> CaffeconvError:
        return unreadable(self.path, what)


class LmdbPages:
    """The records of a snapshot in the order of their keys."""

    def __init__(self, file: PlainFile, snapshot: Snapshot) -> None:
        self._file = file
        self._snapshot = snapshot
        self._firsts: list[int] = []
        """The number of the first record of each leaf that was met so far."""
        self._ahead: tuple[bytes, int] = b"", 0
        """Bytes of the file that were read last, and where they begin."""

    def starting_at(self, index: int) -> Iterator[Record]:
        """The records from one on. Raises CaffeconvError where a page is damaged."""
        known = max(0, bisect_right(self._firsts, index) - 1)
        first = self._firsts[known] if self._firsts else 0
        for leaf, number in enumerate(islice(self._leaves(), known, None), known):
            content, pointers = self._page(number, _LEAF)
            if leaf == len(self._firsts):
                self._firsts.append(first)
            yield from self._records(number, content, pointers[max(0, index - first) :])
            first += len(pointers)
            if first > self._snapshot.entries:
                raise self._damaged(number, f"more than the {self._snapshot.entries} records that there are")
        if first != self._snapshot.entries:
            raise self._damaged(self._snapshot.root, f"{first} records; {self._snapshot.entries} were needed")

    def _leaves(self) -> Iterator[int]:
        """The numbers of the leaf pages in order."""
        return iter(()) if not self._snapshot.depth else self._below(self._snapshot.root, 1)

    def _below(self, number: int, level: int) -> Iterator[int]:
        if level == self._snapshot.depth:
            yield number
            return
        content, pointers = self._page(number, _BRANCH)
        if len(pointers) < 2:
            raise self._damaged(number, "a branch without branches")
        for pointer in pointers:
            low, middle, high, _ = _NODE.unpack_from(content, pointer)
            yield from self._below(low | middle << 16 | high << 32, level + 1)

    def _page(self, number: int, kind: int) -> tuple[bytes, tuple[int, ...]]:
        """A page of that kind, and where its nodes begin, all of which have their heads within it."""
        size = self._snapshot.page_size
        if not 2 <= number < self._snapshot.pages:
            raise self._damaged(number, f"no such page; there are {self._snapshot.pages}")
        content = self._read_ahead(number * size, size)
        own, _, flags, lower, upper = _HEADER.unpack_from(content)
        if own != number or flags & _KINDS != kind or lower % 2 or not _HEADER.size < lower <= upper <= size:
            raise self._damaged(number, f"number {own}, flags {flags}, {lower} to {upper} unused")
        pointers = struct.unpack_from(f"<{(lower - _HEADER.size) // 2}H", content, _HEADER.size)
        if min(pointers) < upper or max(pointers) > size - _NODE.size:
            raise self._damaged(number, "a record that begins outside the page")
        return content, pointers

    def _read_ahead(self, start: int, size: int) -> bytes:
        """Bytes of the file; leaves mostly follow each other."""
        content, first = self._ahead
        if not first <= start <= first + len(content) - size:
            content, first = self._file.read(start, min(start + _AHEAD, self._snapshot.pages * size)), start
            self._ahead = content, first
        return content[start - first : start - first + size]

    def _records(self, number: int, content: bytes, pointers: tuple[int, ...]) -> Iterator[Record]:
        for pointer in pointers:
            low, high, flags, key_size = _NODE.unpack_from(content, pointer)
            start, length = pointer + _NODE.size + key_size, low | high << 16
            if flags:
                value = self._big_value(number, content, start, length, flags)
            elif start + length <= len(content):
                value = content[start : start + length]
            else:
                raise self._damaged(number, "a record that ends outside the page")
            yield content[pointer + _NODE.size : start], value

    def _big_value(self, number: int, content: bytes, start: int, length: int, flags: int) -> bytes:
        """A value that lies in pages of its own, whose number stands at `start`."""
        if flags != _BIG_VALUE or start + 8 > len(content):
            raise self._damaged(
                number, f"a record with flags {flags}, which Caffe does not write, or that ends outside"
            )
        size = self._snapshot.page_size
        page = int.from_bytes(content[start : start + 8], "little")
        value = page * size + _HEADER.size
        if not 2 <= page < self._snapshot.pages or value + length > self._snapshot.pages * size:
            raise self._damaged(number, f"a value of {length} bytes from page {page} on, of {self._snapshot.pages}")
        return self._file.read(value, value + length)

    def _damaged(self, number: int, what: str) -> CaffeconvError:
        return unreadable(self._file.path, f"page {number} is damaged: {what}")


def unreadable(path: Path, what: str) -> CaffeconvError:
    """The message about an LMDB that is none, or none any more."""
    return CaffeconvError(
        f"{path.parent}: not readable as LMDB: {what}; a whole database was needed. Copy or make it again"
    )
