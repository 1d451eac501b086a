"""Writes a file or folder whole or not at all: beside its place first, then renamed to it."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from caffeconv.errors import CaffeconvError

if sys.platform != "win32":
    import fcntl

PathLike = str | os.PathLike[str]
"""A path as callers give it."""
_SHOWN = 50
"""Characters of a file's name that its part's name has."""
_PART = re.compile(r"\.[0-9a-f]{12}\.part")
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole_file(path: PathLike) -> Iterator[BinaryIO]:
    """A new binary file, open for writing and reading, that takes the name `path` when the block ends well.

    Where the block raises, what stood at `path` before stays as it was. A device or pipe (``/dev/stdout``) is written
    to as it is. Raises CaffeconvError where nothing can be written there, or where the space runs out.
    """
    target, user_path = _target(path), Path(path)
    with _as_caffeconv_error(user_path):
        _refuse_place(target, user_path)
        if target.exists() and not target.is_file():
            with target.open("wb") as device:
                yield device
            return
        with _part(target) as part:
            yield part.file
            part.replace(target)


@contextmanager
def whole_file_in_parts(path: PathLike) -> Iterator[BinaryIO]:
    """As `whole_file`, for a format whose writer goes back and forth in the file; a device or pipe is refused."""
    refuse_stream(path, "this format is not written from the start to the end")
    with whole_file(path) as file:
        yield file


def refuse_stream(path: PathLike, why: str) -> None:
    """Raises CaffeconvError where no plain file can come to lie at `path`: for a pipe or a device, because of `why`."""
    target, user_path = _target(path), Path(path)
    with _as_caffeconv_error(user_path):
        _refuse_place(target, user_path)
        if target.exists() and not target.is_file():
            raise CaffeconvError(f"{user_path}: this is no plain file; one was needed, for {why}")


@contextmanager
def whole_files(path: PathLike) -> Iterator[Pair]:
    """As `whole_file`, with a second file in the same folder that takes a name only if the block gives it one.

    That file comes first, so that `path` never names one that is not there yet: give it a name that says what it holds,
    and whatever is interrupted, the old `path` goes on naming the old file.
    """
    target, user_path = _target(path), Path(path)
    refuse_stream(path, "a second file is to lie beside it")
    with _as_caffeconv_error(user_path), _part(target) as main, _part(target) as side:
        pair = Pair(main.file, side.file)
        yield pair
        side_path = target.with_name(pair.side_name) if pair.side_name else None
        is_new = side_path is not None and not side_path.exists()
        if side_path is not None:
            side.replace(side_path)
        try:
            main.replace(target)
        except BaseException:
            if side_path is not None and is_new:
                side_path.unlink()
            raise


class Pair:
    """The two files of `whole_files`, open for writing and reading."""

    def __init__(self, main: BinaryIO, side: BinaryIO) -> None:
        self.main = main
        self.side = side
        self.side_name: str | None = None

    def name_side(self, name: str) -> None:
        """Keeps the second file, under that name."""
        self.side_name = name


class _Part:
    """A file that is being written, under a temporary name."""

    def __init__(self, target: Path) -> None:
        remove_leftovers(target)
        while True:
            # a name of its own instead of tempfile's, whose files only their owner can read
            self.path = target.with_name(_part_name(target))
            self.file: BinaryIO = self.path.open("x+b")
            with suppress(OSError):
                _lock(self.file.fileno())
            if self.path.exists():  # else somebody took it for a leftover in between
                return
            self.file.close()

    def replace(self, target: Path) -> None:
        """Closes it, and puts it in the place of `target`, with the rights that this had."""
        self.file.close()
        if target.exists():
            self.path.chmod(target.stat().st_mode & 0o777)
        self.path.replace(target)


@contextmanager
def _part(target: Path) -> Iterator[_Part]:
    """A part of `target`; gone when the block ends, unless it has taken its name."""
    part = _Part(target)
    try:
        yield part
    finally:
        with suppress(OSError):
            part.file.close()
        with suppress(OSError):
            part.path.unlink()


@contextmanager
def whole_folder(path: PathLike) -> Iterator[Path]:
    """A new folder to fill that takes the name `path` when the block ends well, and is gone when it raises.

    What is there already is never replaced, unless it is an empty folder: raises CaffeconvError.
    """
    target, user_path = _target(path), Path(path)
    with _as_caffeconv_error(user_path):
        refuse_filled_folder(user_path)
        _refuse_folderless(target, user_path)
        remove_leftovers(target)
        part = target.with_name(_part_name(target))
        part.mkdir()
        descriptor = os.open(part, os.O_RDONLY) if sys.platform != "win32" else None
        try:
            with suppress(OSError):
                _lock(-1 if descriptor is None else descriptor)
            yield part
            part.replace(target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        finally:
            if descriptor is not None:
                os.close(descriptor)


def remove_leftovers(target: Path) -> None:
    """Removes what processes that were killed while they wrote `target` have left behind.

    Whoever writes holds a lock, so what is not locked is nobody's any more. Without such locks (Windows) all stays.
    """
    if sys.platform == "win32" or not target.parent.is_dir():
        return
    for part in target.parent.glob(f".{glob.escape(target.name[:_SHOWN])}.*.part"):
        if not _PART.fullmatch(part.name.removeprefix(f".{target.name[:_SHOWN]}")) or part.is_symlink():
            continue
        with suppress(OSError):
            descriptor = os.open(part, os.O_RDONLY | os.O_NONBLOCK)
            try:
                if _lock(descriptor):
                    shutil.rmtree(part) if part.is_dir() else part.unlink()
            finally:
                os.close(descriptor)


def _part_name(target: Path) -> str:
    return f".{target.name[:_SHOWN]}.{os.urandom(6).hex()}.part"


def _lock(descriptor: int) -> bool:
    """Whether this process now holds the file's lock, not another one; raises OSError on a disk without locks."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def refuse_filled_folder(path: PathLike) -> None:
    """Raises CaffeconvError where something is at `path`, and be it a folder with something in it."""
    target = _target(path)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise CaffeconvError(f"{path}: this is there already, and is not replaced; choose another name, or remove it")


def refuse_input_as_output(output: PathLike, inputs: Iterable[PathLike]) -> None:
    """Raises CaffeconvError where `output` is one of the files that are read."""
    real, status = os.path.realpath(output), _status(output)
    for source in inputs:
        if os.path.realpath(source) == real or (status is not None and _status(source) == status):
            raise CaffeconvError(f"{output}: this is the input, and is not overwritten; choose another output file")


def _status(path: PathLike) -> tuple[int, int] | None:
    """By which a file is known again under any name; None where there is none."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _target(path: PathLike) -> Path:
    """The file that is written to, links followed: a link stays a link, and what it points to is replaced.

    Raises CaffeconvError for a name that no file can have.
    """
    if "\0" in os.fspath(path):
        raise CaffeconvError(f"{path}: a name with a NUL in it, which no file has")
    return Path(os.path.realpath(path))


def _refuse_place(target: Path, user_path: Path) -> None:
    if target.is_dir():
        raise CaffeconvError(f"{user_path}: this is a folder; the name of a file to write was needed")
    _refuse_folderless(target, user_path)
    if target.exists() and not os.access(target, os.W_OK):
        raise CaffeconvError(f"{user_path}: this file may not be overwritten (it is read-only); choose another name")


def _refuse_folderless(target: Path, user_path: Path) -> None:
    if target.is_symlink():  # what is left of a link when all that can be followed are
        raise CaffeconvError(f"{user_path}: a circle of links, which leads to no file; choose another name")
    if not target.parent.is_dir():
        folder = target.parent if user_path.is_symlink() else user_path.parent
        raise CaffeconvError(f"{user_path}: there is no folder {folder}; make it first, or choose another place")


@contextmanager
def _as_caffeconv_error(user_path: Path) -> Iterator[None]:
    """Turns the failures of this file itself into CaffeconvError; what the block does with other files passes."""
    try:
        yield
    except OSError as error:
        if error.errno in OUT_OF_SPACE:
            raise CaffeconvError(
                f"{user_path}: could not be written whole: {error.strerror}. Nothing was kept."
            ) from None
        if error.filename is not None and Path(error.filename).name.endswith((".part", user_path.name)):
            raise CaffeconvError(f"{user_path}: cannot be written: {error.strerror}; choose another place") from None
        raise
