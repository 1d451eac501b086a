"""The pages of an LMDB against its own library, and damaged ones."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.databases import refused, write_lmdb

from caffeconv.data.lmdb_pages import LmdbFile
from caffeconv.errors import CaffeconvError

VALUES = st.one_of(st.integers(0, 40), st.integers(0, 9000)).map(lambda size: bytes(i % 251 for i in range(size)))
FEW = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)


def read(path: Path, index: int = 0) -> list[tuple[bytes, bytes]]:
    file = LmdbFile(path / "data.mdb")
    snapshot = file.snapshot()
    assert snapshot is not None
    return list(file.pages(snapshot).starting_at(index))


@FEW
@given(st.dictionaries(st.text("abc0é", min_size=1, max_size=30), VALUES, max_size=60), st.integers(0, 70))
def test_records_are_those_that_the_library_gives(
    tmp_path_factory: pytest.TempPathFactory, records: dict[str, bytes], index: int
) -> None:
    path = write_lmdb(tmp_path_factory.mktemp("db") / "db", records)
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        want = [(bytes(key), bytes(value)) for key, value in transaction.cursor()]
    assert read(path) == want
    assert read(path, index) == want[index:]


def test_a_tree_of_several_levels_after_many_changes(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "db", {f"{i:06}": bytes(i % 50) for i in range(3000)})
    with lmdb.open(str(path), map_size=1 << 24) as environment:
        for first in range(0, 3000, 7):
            with environment.begin(write=True) as transaction:
                transaction.delete(b"%06d" % first)
                transaction.put(b"%06d-" % first, bytes(5000))
        with environment.begin() as transaction:
            want = [(bytes(key), bytes(value)) for key, value in transaction.cursor()]
    assert read(path) == want
    assert read(path, 2990) == want[2990:]
    file = LmdbFile(path / "data.mdb")
    snapshot = file.snapshot()
    assert snapshot is not None
    assert snapshot.depth > 1
    pages = file.pages(snapshot)
    for index in (5, 2000, 100, 2999, 3000):  # goes on from leaves that it knows
        assert next(pages.starting_at(index), None) == (want[index] if index < len(want) else None)


@settings(FEW, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8)), min_size=1, max_size=5))
def test_damage_raises_nothing_else(tmp_path: Path, damage: list[tuple[int, bytes]]) -> None:
    path = tmp_path / "db"
    if not path.exists():
        write_lmdb(path, {f"{i:03}": bytes(i * 11) for i in range(60)} | {"x": bytes(9000)})
        (path / "whole").write_bytes((path / "data.mdb").read_bytes())
    content = bytearray((path / "whole").read_bytes())
    for position, some in damage:
        at = position % len(content)
        content[at : at + len(some)] = some
    (path / "data.mdb").write_bytes(content)
    with suppress(CaffeconvError):
        assert len(read(path)) in (0, 61)  # what the transaction before the last one left


def test_a_database_cut_off_while_it_is_read(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "db", {f"{i:03}": bytes(3000) for i in range(50)})
    file = LmdbFile(path / "data.mdb")
    snapshot = file.snapshot()
    assert snapshot is not None
    reading = file.pages(snapshot).starting_at(0)
    assert next(reading) == (b"000", bytes(3000))
    os.truncate(path / "data.mdb", 8192)
    with refused(r"data.mdb: the file ends at byte \d+ now, and had \d+ when it was opened"):
        list(reading)


def test_an_earlier_transaction_is_gone_after_two_more(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "db", {"a": b"1"})
    file = LmdbFile(path / "data.mdb")
    first = file.snapshot()
    assert first is not None
    with lmdb.open(str(path), map_size=1 << 24) as environment:
        for value in (b"2", b"3"):
            with environment.begin(write=True) as transaction:
                transaction.put(b"a", value)
    newest = file.snapshot()
    assert newest is not None
    assert newest.transaction == first.transaction + 2
    assert file.snapshot(first.transaction) is None
    assert file.snapshot(newest.transaction - 1) is not None
