"""LMDB and LevelDB: the order of the keys, shared and concurrent use, and nothing written into either."""

from __future__ import annotations

import gc
import multiprocessing
import sys
from pathlib import Path

import lmdb
import pytest
from support.databases import contents, refused, write_lmdb
from support.lmdb_processes import read_all, replace_all

from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.records import Cycle, Records, open_records
from caffeconv.files.database_folders import Backend

KEYS = ["b", "a", "00000010", "9", "00000002", "B", "é"]


def write_leveldb(path: Path, records: dict[str, bytes]) -> Path:
    plyvel = pytest.importorskip("plyvel")
    with plyvel.DB(str(path), create_if_missing=True) as database:
        for key, value in records.items():
            database.put(key.encode(), value)
        database.compact_range()  # a table file, not only the log
        database.put(b"~last", b"in the log")
    return path


@pytest.fixture(params=["LMDB", "LEVELDB"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Records:
    records = {key: f"value of {key}".encode() for key in KEYS}
    backend: Backend = request.param
    if backend == "LMDB":
        return open_records(write_lmdb(tmp_path / "db", {**records, "~last": b"in the log"}), backend)
    return open_records(write_leveldb(tmp_path / "db", records), backend)


def test_order_of_the_keys(opened: Records) -> None:
    keys = [key for key, _ in opened]
    assert keys == sorted(key.encode() for key in [*KEYS, "~last"])
    assert dict(opened)[b"9"] == b"value of 9"
    assert opened.count() == len(KEYS) + 1


def test_cycle_begins_again(opened: Records) -> None:
    cycle = Cycle(opened)
    number = opened.count()
    taken = [(cycle.at_start, cycle.take()[0]) for _ in range(2 * number + 1)]
    assert [key for _, key in taken] == 2 * [key for key, _ in opened] + [taken[0][1]]
    assert [i for i, (first, _) in enumerate(taken) if first] == [0, number, 2 * number]


def test_two_cursors_are_apart(opened: Records) -> None:
    backend: Backend = "LMDB" if (opened.path / "data.mdb").exists() else "LEVELDB"
    one, other = Cycle(opened), Cycle(open_records(opened.path, backend))
    first = one.take()
    one.take()
    assert other.take() == first


def test_leveldb_is_left_as_it_is(tmp_path: Path) -> None:
    path = write_leveldb(tmp_path / "db", {"a": b"1"})
    before = contents(path)
    records = open_records(path, "LEVELDB")
    assert len(list(records)) == 2
    assert contents(path) == before


def test_leveldb_that_another_process_holds(tmp_path: Path) -> None:
    plyvel = pytest.importorskip("plyvel")
    path = write_leveldb(tmp_path / "db", {"a": b"1"})
    with plyvel.DB(str(path)):
        assert [key for key, _ in open_records(path, "LEVELDB")] == [b"a", b"~last"]


def test_leveldb_view_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_leveldb(tmp_path / "db", {"a": b"1"})
    (tmp_path / "views").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "views"))
    records = open_records(path, "LEVELDB")
    assert len(list((tmp_path / "views").iterdir())) == 1
    del records
    assert list((tmp_path / "views").iterdir()) == []


def test_cursors_left_behind_in_a_cycle(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    gc.freeze()  # what other tests have left makes each collection take a second
    request.addfinalizer(gc.unfreeze)
    for kind, path in {"LMDB": write_lmdb(tmp_path / "l", {"a": b"1", "b": b"2"}),
                       "LEVELDB": write_leveldb(tmp_path / "v", {"a": b"1"})}.items():  # fmt: skip
        for _ in range(20):
            cycle = Cycle(open_records(path, "LMDB" if kind == "LMDB" else "LEVELDB"))
            cycle.take()
            cycle.itself = cycle  # type: ignore[attr-defined]
            del cycle
            gc.collect()


def test_lmdb_makes_no_lock_file(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "db", {"a": b"1"})
    before = contents(path)
    assert [value for _, value in open_records(path, "LMDB")] == [b"1"]
    assert contents(path) == before


def test_lmdb_reads_beside_a_writer(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "db", {"a": b"1", "b": b"2"}, keep_lock=True)
    writer = multiprocessing.get_context("spawn").Process(target=replace_all, args=(str(path),))
    reading = iter(open_records(path, "LMDB"))
    assert next(reading) == (b"a", b"1")
    writer.start()
    writer.join(60)
    assert writer.exitcode == 0
    assert list(reading) == [(b"b", b"2")]  # as it stood when the reading began
    assert dict(open_records(path, "LMDB")) == {b"a": b"new", b"b": b"new"}


def test_two_processes_read_one_lmdb(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "db", {f"{i:03}": bytes([i]) for i in range(100)})
    mine = open_records(path, "LMDB")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        theirs = pool.apply_async(read_all, (str(path),))
        assert dict(mine) == theirs.get(60)


def test_lmdb_cut_off(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "db", {f"{i:03}": bytes(3000) for i in range(50)})
    data = path / "data.mdb"
    data.write_bytes(data.read_bytes()[:100_000])
    with refused(r"data.mdb: 100000 bytes, \d+ were needed: it is cut off"):
        open_records(path, "LMDB")


def test_lmdb_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "data.mdb").write_bytes(b"hello" * 4000)
    with refused("db: not readable as LMDB: .*Copy or make it again"):
        open_records(tmp_path / "db", "LMDB")


def test_lmdb_that_the_program_has_open(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "db", {"a": b"1"})
    with lmdb.open(str(path)), refused("already open in this process; .*Close it there first"):
        open_records(path, "LMDB")


def test_leveldb_with_a_damaged_table(tmp_path: Path) -> None:
    path = write_leveldb(tmp_path / "db", {f"{i:03}": bytes(100) for i in range(50)})
    table = next(path.glob("*.ldb"))
    content = bytearray(table.read_bytes())
    content[60] ^= 0xFF
    table.write_bytes(content)
    with refused("db: not readable as LevelDB: .*checksum"):
        list(open_records(path, "LEVELDB"))


def test_leveldb_without_its_tables(tmp_path: Path) -> None:
    path = write_leveldb(tmp_path / "db", {"a": b"1"})
    next(path.glob("*.ldb")).unlink()
    with refused("db: not readable as LevelDB: .*missing files"):
        open_records(path, "LEVELDB")


def test_wrong_backend(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "l", {"a": b"1"})
    with refused(r"no file CURRENT in this folder; .*It is an LMDB: write `backend: LMDB`"):
        open_records(path, "LEVELDB")
    path = write_leveldb(tmp_path / "v", {"a": b"1"})
    with refused(r"no data.mdb in this folder; .*It is a LevelDB: write `backend: LEVELDB`"):
        open_records(path, "LMDB")


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
def test_missing(backend: Backend, tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError, match=r"nowhere: No such file or directory; .* was needed"):
        open_records(tmp_path / "nowhere", backend)
    (tmp_path / "file").write_text("")
    with refused("file: this is a file; .* named by its folder"):
        open_records(tmp_path / "file", backend)


def test_plyvel_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_leveldb(tmp_path / "db", {"a": b"1"})
    monkeypatch.setitem(sys.modules, "plyvel", None)
    with pytest.raises(SourceUnavailableError, match=r"pip install caffeconv\[leveldb\]"):
        open_records(path, "LEVELDB")


def test_empty(tmp_path: Path) -> None:
    with refused("db: the database is empty; at least one record was needed"):
        Cycle(open_records(write_lmdb(tmp_path / "db", {}), "LMDB"))
