"""Records of a database in the order of their keys: LMDB and LevelDB (caffe: db_lmdb.cpp, db_leveldb.cpp).

Nothing is ever written into the user's database. The pages of an LMDB are read here; its library takes part in its locks
where there is a lock file already, so that another process may go on writing, and makes none. LevelDB has no way of
reading only: opening one replays its log and rewrites its manifest. So a view is opened instead, a folder of our own with
links to the tables, which LevelDB never changes once they are written, and copies of the small files that it does change.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary, finalize

from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.lmdb_pages import LmdbFile, LmdbPages, Record, Snapshot
from caffeconv.errors import CaffeconvError
from caffeconv.files.database_folders import DATABASE_FILES, Backend, database_in
from caffeconv.files.plain_file import read_plain, require_plain

if TYPE_CHECKING:
    import lmdb
    import plyvel

# LMDB's rule: a process opens a file once. Whoever reads a database that is open already shares what is there.
_OPEN: WeakValueDictionary[tuple[int, int], lmdb.Environment] = WeakValueDictionary()
_OPENING = Lock()


class Records(ABC):
    """The records of one database. Iterating gives them in the order of their keys, byte by byte, as Caffe does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Record]:
        return self.starting_at(0)

    @abstractmethod
    def starting_at(self, index: int) -> Iterator[Record]:
        """The records from one on; those before it are stepped over."""

    @abstractmethod
    def count(self) -> int:
        """How many there are; a LevelDB has to be read through for that."""

    def where(self, key: bytes) -> str:
        """What to call a record in a message."""
        return f"{self.path}, record '{key.decode('utf-8', 'backslashreplace')}'"


def open_records(path: Path, backend: Backend) -> Records:
    """Opens a database for reading.

    Raises SourceUnavailableError where it is not there or its reader is not installed, CaffeconvError where it is
    damaged or something else.
    """
    if not path.exists():
        raise SourceUnavailableError(
            f"{path}: No such file or directory; {_KINDS[backend]} was needed. "
            f"Caffe looks from the current folder, which is {Path.cwd()}"
        )
    if not path.is_dir():
        raise CaffeconvError(f"{path}: this is a file; {_KINDS[backend]} was needed, named by its folder")
    return LmdbRecords(path) if backend == "LMDB" else LevelDbRecords(path)


_KINDS = {"LMDB": "an LMDB (a folder with data.mdb)", "LEVELDB": "a LevelDB (a folder with a file CURRENT)"}


class LmdbRecords(Records):
    """An LMDB, read as it stood when the iteration began."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if not (path / DATABASE_FILES["LMDB"]).exists():
            hint = " It is a LevelDB: write `backend: LEVELDB`." if database_in(path) else ""
            raise CaffeconvError(f"{path}: no data.mdb in this folder; {_KINDS['LMDB']} was needed.{hint}")
        try:
            self._file = LmdbFile(path / DATABASE_FILES["LMDB"])
        except OSError as error:
            raise _unreadable(path, "LMDB", error) from None
        self._environment = _shared_environment(path)
        self._pages: tuple[int, LmdbPages] | None = None
        """A transaction, and the pages as it left them."""

    def starting_at(self, index: int) -> Iterator[Record]:
        with self._snapshot() as snapshot:
            if self._pages is None or self._pages[0] != snapshot.transaction:
                self._pages = snapshot.transaction, self._file.pages(snapshot)
            yield from self._pages[1].starting_at(index)

    def count(self) -> int:
        with self._snapshot() as snapshot:
            return snapshot.entries

    @contextmanager
    def _snapshot(self) -> Iterator[Snapshot]:
        """The database as it stands; where it has locks, nobody writes over it while the block runs."""
        if self._environment is None:
            snapshot = self._file.snapshot()
            assert snapshot is not None
            yield snapshot
            return
        while True:
            with self._begin(self._environment) as transaction:
                snapshot = self._file.snapshot(transaction.id())
                if snapshot is not None:  # else others have written twice since then
                    yield snapshot
                    return

    def _begin(self, environment: lmdb.Environment) -> lmdb.Transaction:
        import lmdb

        try:
            try:
                return environment.begin()
            except lmdb.MapResizedError:
                environment.set_mapsize(0)  # as large as the writer has made it
                return environment.begin()
        except lmdb.Error as error:
            raise _unreadable(self.path, "LMDB", error) from None


def _shared_environment(path: Path) -> lmdb.Environment | None:
    """LMDB's own view of a database that has a lock file; None where there is none to take part in."""
    import lmdb

    lock = path / "lock.mdb"
    if not os.access(lock, os.W_OK):
        return None
    require_plain(lock)
    with _OPENING:
        status = (path / DATABASE_FILES["LMDB"]).stat()
        environment = _OPEN.get((status.st_dev, status.st_ino))
        if environment is None:
            try:
                environment = lmdb.open(str(path), readonly=True, create=False, max_readers=126)
            except lmdb.Error as error:
                if "already open" in str(error):
                    raise _unreadable(path, "LMDB", error) from None
                # a lock file of another version, or on a disk without locks, is no reason not to read
                return None
            _OPEN[status.st_dev, status.st_ino] = environment
        return environment


@dataclass(frozen=True)
class _Mark:
    """A record that was gone to: whoever goes on to a later one need not step over all those before it."""

    index: int
    key: bytes

    def before(self, index: int) -> _Mark:
        """This mark where it helps, else the first record."""
        return self if self.index <= index else _Mark(0, b"")


class LevelDbRecords(Records):
    """A LevelDB, as it stood when it was opened; every block's checksum is held against its content."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._mark = _Mark(0, b"")
        self._count: int | None = None
        try:
            import plyvel
        except ImportError:
            raise SourceUnavailableError(
                f"{path}: reading LevelDB needs the package plyvel; `pip install caffeconv[leveldb]`"
            ) from None
        if not (path / DATABASE_FILES["LEVELDB"]).exists():
            hint = " It is an LMDB: write `backend: LMDB` (LEVELDB is the default)." if database_in(path) else ""
            raise CaffeconvError(f"{path}: no file CURRENT in this folder; {_KINDS['LEVELDB']} was needed.{hint}")
        view = Path(tempfile.mkdtemp(prefix="caffeconv-"))
        try:
            _fill_view(path, view)
            self._database = plyvel.DB(str(view), create_if_missing=False)
        except (plyvel.Error, OSError) as error:
            shutil.rmtree(view, ignore_errors=True)
            raise _unreadable(path, "LevelDB", error) from None
        except CaffeconvError:
            shutil.rmtree(view, ignore_errors=True)
            raise
        # LevelDB crashes where a cursor outlives its database, and the garbage collector knows no order
        self._cursors: set[plyvel.RawIterator] = set()
        finalize(self, _discard, self._database, self._cursors, view)

    def starting_at(self, index: int) -> Iterator[Record]:
        import plyvel

        # a plain iterator ends at a damaged block as if it were the last; this one says so
        cursor = self._database.raw_iterator(verify_checksums=True, fill_cache=False)
        self._cursors.add(cursor)
        try:
            near = self._mark.before(index)
            cursor.seek(near.key)
            for _ in range(index - near.index):
                if cursor.valid():
                    cursor.next()
            if cursor.valid():
                self._mark = _Mark(index, cursor.key())
            while cursor.valid():
                yield cursor.key(), cursor.value()
                cursor.next()
        except plyvel.Error as error:
            raise _unreadable(self.path, "LevelDB", error) from None
        finally:
            cursor.close()
            self._cursors.discard(cursor)

    def count(self) -> int:
        if self._count is None:
            self._count = sum(1 for _ in self)
        return self._count


def _discard(database: plyvel.DB, cursors: set[plyvel.RawIterator], view: Path) -> None:
    for cursor in cursors:
        cursor.close()
    database.close()
    shutil.rmtree(view, ignore_errors=True)


def _fill_view(path: Path, view: Path) -> None:
    for file in path.iterdir():
        if _is_of_leveldb(file):
            require_plain(file)
        if file.name == "CURRENT" and not re.fullmatch(rb"MANIFEST-\d+\n", read_plain(file)):
            raise CaffeconvError(f"{file}: the name of a MANIFEST in this folder was needed; copy the database again")
        if file.suffix in (".ldb", ".sst"):
            _link(file.resolve(), view / file.name)
        elif _is_of_leveldb(file):
            shutil.copyfile(file, view / file.name)


def _is_of_leveldb(file: Path) -> bool:
    return file.suffix in (".ldb", ".sst", ".log") or file.name == "CURRENT" or file.name.startswith("MANIFEST-")


def _link(file: Path, place: Path) -> None:
    try:
        place.symlink_to(file)
    except OSError:  # Windows gives links only to some
        shutil.copyfile(file, place)


def _unreadable(path: Path, kind: str, error: Exception) -> CaffeconvError:
    reason = error.args[0] if error.args else error
    text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(error)
    hint = "Close it there first" if "already open" in text else "Copy or make it again"
    return CaffeconvError(f"{path}: not readable as {kind}: {text.rstrip('.')}; a whole database was needed. {hint}")


class Cycle:
    """A cursor over records that starts again at the first after the last (caffe: DataLayer::Next)."""

    def __init__(self, records: Records, index: int = 0) -> None:
        """`index`: the record to begin with."""
        self._records = records
        self._iterator = records.starting_at(index)
        self._upcoming = self._first()
        self.at_start = index == 0
        """Whether the next record is the first."""

    def take(self) -> Record:
        """The next record."""
        record = self._upcoming
        following = next(self._iterator, None)
        self.at_start = following is None
        if following is None:
            self._iterator = iter(self._records)
            following = self._first()
        self._upcoming = following
        return record

    def _first(self) -> Record:
        record = next(self._iterator, None)
        if record is None:
            raise CaffeconvError(f"{self._records.path}: the database is empty; at least one record was needed")
        return record
