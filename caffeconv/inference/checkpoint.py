"""Rows of features on their way into a file: what is there survives whatever stops the run.

Beside the file OUT grows a folder ``OUT.partial``: a .npy for each blob, to which rows are added, and `journal.json`,
which says how many of them count and where the run goes on. The journal is replaced as a whole after the rows that it
counts are in the system's hands, so a killed process loses only what nobody was told of. What lies beyond is cut off when
the run goes on. Once OUT is whole the journal is called `finished.json`, until the folder is gone.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import OUT_OF_SPACE, refuse_stream
from caffeconv.files.foreign_json import MALFORMED
from caffeconv.files.plain_file import NotPlainFileError, read_plain
from caffeconv.tensor.shape import FloatArray, Shape, format_shape

_VERSION = 1
_FINISHED = "finished.json"
_OURS = re.compile(r"\d+\.npy|states-\d+\.npz|journal\.(json|new)")
"""Rows, states and journals."""
_HEADER = 256
"""Bytes before a part's rows: room for any shape, so that the number of rows can change in place."""
_MOST_AXES = 12


@dataclass(frozen=True)
class Journal:
    """How far a run has come."""

    run: Mapping[str, str]
    """What the run is made of: net, weights, source, options; another run cannot go on where this one stopped."""
    blobs: Sequence[str]
    passes: int = 0
    items: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)
    row_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    positions: Mapping[str, int] = field(default_factory=dict)
    """Data layer → items of its source that are consumed."""
    skipped: Sequence[str] = ()
    states: str = ""
    """The file with what recurrent layers keep for the next pass; empty where there are none."""
    done: bool = False
    """Whether all rows are there, and only the file itself is to be made."""
    made: str = ""
    """The folder (device and inode) that is about to become the output, whole."""
    version: int = _VERSION


class NoSpaceError(CaffeconvError):
    """The disk is full, or a limit reached. What was written before is kept."""


class Checkpoint:
    """The rows of a run so far. Use `create` or `resume`; close it when done."""

    def __init__(self, out: Path, journal: Journal) -> None:
        self.out = out
        self.folder = partial_folder(out)
        self.journal = journal
        self._files: dict[str, BinaryIO] = {}
        self._lock = _lock(self.folder)

    @classmethod
    def create(cls, out: Path, run: Mapping[str, str], blobs: Sequence[str]) -> Checkpoint:
        """A new run; CaffeconvError where an interrupted one is there already, and has rows."""
        folder = partial_folder(out)
        if not out.is_dir():  # whoever writes folders says which ones
            refuse_stream(out, "the rows lie beside it until it is whole")
        if folder.exists() and (folder / "journal.json").exists():
            journal = _read_journal(folder)
            if journal.items:
                raise CaffeconvError(
                    f"{folder}: an interrupted run left {journal.items} items here. `resume=True` continues it; "
                    "to start over, remove the folder"
                )
        with _space(out, folder, 0):
            folder.mkdir(exist_ok=True)
            checkpoint = cls(out, Journal(dict(run), list(blobs)))
            checkpoint._clear()
            (folder / _FINISHED).unlink(missing_ok=True)  # of an earlier run, of whose rows nothing is left now
            checkpoint._write_journal()
        return checkpoint

    @classmethod
    def resume(cls, out: Path, run: Mapping[str, str], blobs: Sequence[str]) -> Checkpoint | None:
        """The interrupted run whose output was to be `out`; None where there is none.

        Raises CaffeconvError where that one was of another net, weights, source or other options, or is damaged.
        """
        folder = partial_folder(out)
        if not (folder / "journal.json").exists():
            return None
        journal = _read_journal(folder)
        different = [
            f"{what}: {journal.run.get(what, 'nothing')} then, {run.get(what, 'nothing')} now"
            for what in dict.fromkeys([*journal.run, *run])
            if journal.run.get(what) != run.get(what)
        ]
        if list(journal.blobs) != list(blobs):
            different.append(f"`blobs=…`: {', '.join(journal.blobs)} then, {', '.join(blobs)} now")
        if different:
            raise CaffeconvError(
                f"{folder}: this run cannot be continued, as it is another one.\n  " + "\n  ".join(different) + "\n"
                "Give it what it had then, or remove the folder and start over"
            )
        checkpoint = cls(out, journal)
        checkpoint._cut_to_journal()
        return checkpoint

    # -- adding rows -----------------------------------------------------------------------------------------------

    def append(self, blobs: Mapping[str, FloatArray]) -> None:
        """Adds rows (axis 0) to every blob; they count from the next `commit` on.

        Raises CaffeconvError where rows are of another size than before, NoSpaceError where the disk is full.
        """
        shapes, rows = dict(self.journal.row_shapes), dict(self.journal.rows)
        for name, values in blobs.items():
            first_shape = shapes.setdefault(name, values.shape[1:])
            if tuple(first_shape) != values.shape[1:]:
                raise CaffeconvError(
                    f"{self.out}: blob '{name}' has rows of {format_shape(values.shape[1:])} now and had "
                    f"{format_shape(first_shape)} before; "
                    "one size was needed for all rows of a file"
                )
            with _space(self.out, self.folder, self.journal.items):
                _write_all(self._file(name), np.ascontiguousarray(values, np.float32))
            rows[name] = rows.get(name, 0) + len(values)
        self.journal = replace(self.journal, rows=rows, row_shapes=shapes)

    def commit(self, journal: Journal, states: Mapping[str, FloatArray]) -> None:
        """Lets what was added count. `states`: what recurrent layers keep."""
        with _space(self.out, self.folder, self.journal.items):
            old, name = self.journal.states, f"states-{journal.passes}.npz" if states else ""
            if states:
                (self.folder / name).write_bytes(_archive(states))
            self.journal = replace(journal, states=name)
            self._write_journal()
            if old and old != name:
                (self.folder / old).unlink(missing_ok=True)

    def states(self) -> dict[str, FloatArray]:
        """What recurrent layers kept when the journal was written."""
        if not self.journal.states:
            return {}
        with np.load(self.folder / self.journal.states, allow_pickle=False) as archive:
            return dict(archive)

    def _write_journal(self) -> None:
        beside = self.folder / "journal.new"
        beside.write_text(json.dumps(asdict(self.journal), indent=1))
        beside.replace(self.folder / "journal.json")

    def _file(self, blob: str) -> BinaryIO:
        if blob not in self._files:
            file = self.part(blob).open("r+b" if self.part(blob).exists() else "x+b", buffering=0)
            if file.seek(0, os.SEEK_END) < _HEADER:
                file.seek(0)
                file.write(bytes(_HEADER))
            self._files[blob] = file
        return self._files[blob]

    def part(self, blob: str) -> Path:
        """The file with a blob's rows. Names of blobs are anything, so files are numbered."""
        return self.folder / f"{list(self.journal.blobs).index(blob)}.npy"

    def _cut_to_journal(self) -> None:
        for blob in self.journal.rows:
            size, part = self._size(blob), self.part(blob)
            if not part.exists() and self.journal.done:
                continue
            if not part.exists() or part.stat().st_size < size:
                raise CaffeconvError(
                    f"{part}: {size} bytes of '{blob}' were written here and are gone; remove {self.folder} and start over"
                )
            os.truncate(part, size)
        for blob in self.journal.blobs:
            if blob not in self.journal.rows:
                self.part(blob).unlink(missing_ok=True)

    def _size(self, blob: str) -> int:
        return _HEADER + 4 * self.journal.rows[blob] * int(np.prod(self.journal.row_shapes[blob], dtype=np.int64))

    # -- taking them out -------------------------------------------------------------------------------------------

    def finish_parts(self) -> None:
        """Makes every part a whole .npy, safe on the disk."""
        for blob in self.journal.blobs:
            file = self._file(blob)
            with _space(self.out, self.folder, self.journal.items):
                file.seek(0)
                file.write(_npy_header(self.shape(blob)))
                os.fsync(file.fileno())

    def shape(self, blob: str) -> Shape:
        """The shape of all rows of a blob."""
        return (self.journal.rows.get(blob, 0), *self.journal.row_shapes.get(blob, ()))

    def rows(self, blob: str) -> FloatArray:
        """All rows of a blob, as a view into its file."""
        shape = self.shape(blob)
        if not int(np.prod(shape, dtype=np.int64)):
            return np.zeros(shape, np.float32)
        return np.memmap(self.part(blob), np.float32, "r", _HEADER, shape)

    def close_files(self) -> None:
        """Closes the files; the folder stays."""
        for file in self._files.values():
            with suppress(OSError):
                file.close()
        self._files.clear()
        if self._lock is not None:
            self._lock.close()

    def commit_folder(self, folder: Path) -> None:
        """Notes a folder that will take the output's name next, so that it is known again by `was_finished`."""
        with _space(self.out, self.folder, self.journal.items):
            self.journal = replace(self.journal, made=_identity(folder))
            self._write_journal()

    def close(self) -> None:
        """Closes the files; a folder in which nothing counts goes."""
        if self.journal.items:
            self.close_files()
            return
        (self.folder / "journal.json").unlink(missing_ok=True)
        self.close_files()
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove(self) -> None:
        """Removes the folder: its rows are in the file. Whenever that is cut short, `was_finished` does the rest."""
        with suppress(OSError):
            (self.folder / "journal.json").replace(self.folder / _FINISHED)
        self._clear()
        self.close_files()
        with suppress(OSError):  # all at once, so that no folder without a journal is left
            gone = self.folder.with_name(f".{self.folder.name[:50]}.{os.urandom(6).hex()}.part")
            self.folder.replace(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _clear(self) -> None:
        """Removes what runs write here, and nothing that somebody else has put here."""
        for file in self.folder.iterdir():
            if _OURS.fullmatch(file.name):
                file.unlink()


def was_finished(out: Path, run: Mapping[str, str], blobs: Sequence[str]) -> bool:
    """Whether `out` is what this very run wrote, whole, before it was killed while it tidied up; tidies up then.

    Raises CaffeconvError where another process is at work there.
    """
    folder = partial_folder(out)
    finished = (folder / _FINISHED).exists()
    if not finished and not (folder / "journal.json").exists():
        return False
    journal = _read_journal(folder, _FINISHED if finished else "journal.json")
    if not finished and (not journal.made or not out.exists() or journal.made != _identity(out)):
        return False
    Checkpoint(out, journal).remove()
    return out.exists() and journal.run == run and list(journal.blobs) == list(blobs)


def _identity(path: Path) -> str:
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}"


def partial_folder(out: Path) -> Path:
    """Where the rows of a run lie until its output is whole."""
    return out.with_name(f"{out.name}.partial")


def _read_journal(folder: Path, name: str = "journal.json") -> Journal:
    try:
        fields = json.loads(read_plain(folder / name))
        journal = Journal(**fields) if _is_sound(fields) else Journal({}, (), version=0)
    except (OSError, NotPlainFileError, *MALFORMED):
        journal = Journal({}, (), version=0)
    if journal.version != _VERSION:
        raise CaffeconvError(
            f"{folder / name}: not readable, or of another version of caffeconv; remove the folder and start over"
        )
    for file in folder.iterdir():
        if _OURS.fullmatch(file.name) and (file.is_symlink() or not file.is_file()):
            raise CaffeconvError(f"{file}: a file of the run was needed, and no link; remove the folder and start over")
    return journal


def _is_sound(fields: object) -> bool:
    """Whether what a journal says has the types that runs write, so that it names no other file and no wrong size."""
    if not isinstance(fields, dict):
        return False
    numbers = _map_of(_is_number)
    kinds: dict[str, Callable[[object], bool]] = {
        "run": _map_of(_is_text), "blobs": _list_of(_is_text), "passes": _is_number, "items": _is_number,
        "rows": numbers, "row_shapes": _map_of(_list_of(_is_number)), "positions": numbers, "skipped": _list_of(_is_text),
        "states": lambda value: value == "" or (isinstance(value, str) and _OURS.fullmatch(value) is not None),
        "done": lambda value: isinstance(value, bool), "made": _is_text, "version": _is_number,
    }  # fmt: skip
    return (
        all(name in kinds and kinds[name](value) for name, value in fields.items())
        and fields.get("rows", {}).keys() <= fields.get("row_shapes", {}).keys()
        and {*fields.get("row_shapes", {})} <= {*fields.get("blobs", ())}
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 53


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _list_of(is_item: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(is_item, value))


def _map_of(is_value: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(map(is_value, value.values()))


def _npy_header(shape: Shape) -> bytes:
    if len(shape) > _MOST_AXES:
        raise CaffeconvError(f"a blob of {len(shape)} axes; at most {_MOST_AXES} can be written")
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape!r}, }}"
    start = np.lib.format.magic(1, 0) + (_HEADER - 10).to_bytes(2, "little")
    return start + header.ljust(_HEADER - len(start) - 1).encode() + b"\n"


def _archive(arrays: Mapping[str, FloatArray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _write_all(file: BinaryIO, values: FloatArray) -> None:
    file.seek(0, os.SEEK_END)
    rest = values.reshape(-1).view(np.uint8).data
    while rest:
        rest = rest[file.write(rest) :]


@contextmanager
def _space(out: Path, folder: Path, items: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in OUT_OF_SPACE:
            raise NoSpaceError(
                f"{out}: {error.strerror}, after {items} items. They are kept in {folder}: make room, and run the same "
                "command again with `resume=True`"
            ) from None
        raise CaffeconvError(f"{folder}: cannot be written: {error.strerror}; choose another place") from None


def _lock(folder: Path) -> BinaryIO | None:
    """Keeps a second process out of a run; None where the system has no such locks."""
    try:
        import fcntl
    except ImportError:
        return None
    file = (folder / "lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise CaffeconvError(
            f"{folder}: another process is at work on this; wait for it, or choose another output"
        ) from None
    return file
