"""Files that are opened for reading only, and only where they are plain files: no pipe, device, socket or folder.

Nothing here maps a file: one that is cut off while it is read ends in an error, where a touched page would kill the
process.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Protocol
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from caffeconv.errors import CaffeconvError

MAX_WHOLE = 1 << 30
"""Bytes of a list, table or picture that are read at once, at most."""
_WINDOW = 1 << 14
_HAS_PREAD = hasattr(os, "preadv")  # not on Windows
_AT_ONCE = 1 << 30
_LONGEST = 10
"""Bytes of a number in protobuf's wire format, at most."""


class NotPlainFileError(CaffeconvError):
    """What a path leads to is a pipe, a device, a socket, or a name that no file can have."""


class ByteSource(Protocol):
    """Bytes with a known length that parts are read of."""

    def __len__(self) -> int: ...
    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`, which both lie within the length."""
        ...

    def window(self, position: int) -> tuple[bytes, int]:
        """Some bytes, at least ten from `position` on or all that there are, and where they begin."""
        ...

    def array(self, start: int, end: int) -> NDArray[np.uint8]:
        """As `read`, as an array of its own."""
        ...


class MemoryBytes:
    """Bytes that lie in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __len__(self) -> int:
        return len(self._content)

    def read(self, start: int, end: int) -> bytes:
        return self._content[start:end]

    def window(self, position: int) -> tuple[bytes, int]:
        return self._content, 0

    def array(self, start: int, end: int) -> NDArray[np.uint8]:
        return np.frombuffer(self._content[start:end], np.uint8)


class PlainFile:
    """A plain file, open for reading, with the length that it had when it was opened.

    Reading raises CaffeconvError where the file has become shorter since.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor, self._length = _open_plain(path)
        finalize(self, os.close, self._descriptor)
        self._window: tuple[bytes, int] = b"", 0

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, end: int) -> bytes:
        if _HAS_PREAD and end - start < _AT_ONCE:
            content = os.pread(self._descriptor, end - start, start)
            if len(content) == end - start:
                return content
        return self.array(start, end).tobytes()

    def window(self, position: int) -> tuple[bytes, int]:
        content, start = self._window
        if not start <= position <= start + len(content) - _LONGEST:
            content, start = self.read(position, min(position + _WINDOW, self._length)), position
            self._window = content, start
        return content, start

    def array(self, start: int, end: int) -> NDArray[np.uint8]:
        values = np.empty(end - start, np.uint8)
        rest, position = values.data, start
        while rest:
            count = _read_at(self._descriptor, rest, position)
            if not count:
                raise CaffeconvError(
                    f"{self.path}: the file ends at byte {position} now, and had {self._length} when it was opened; a file "
                    "that stays as it is was needed. Run again"
                )
            rest, position = rest[count:], position + count
        return values


def read_plain(path: Path) -> bytes:
    """The content of a plain file, of the length that it has when it is opened.

    Raises OSError where it is not there or cannot be read, NotPlainFileError where it is something else, CaffeconvError
    where it is longer than MAX_WHOLE.
    """
    file = PlainFile(path)
    if len(file) > MAX_WHOLE:
        raise CaffeconvError(f"{path}: {len(file)} bytes; {MAX_WHOLE} at most are read of a file like this")
    return file.read(0, len(file))


def require_plain(path: Path) -> None:
    """Raises as `read_plain`, for a reader that opens the file itself by its path."""
    os.close(_open_plain(path)[0])


def refuse_special(path: Path) -> None:
    """Raises NotPlainFileError where `path` leads to what is there, but neither a file nor a folder."""
    _refuse_unwritable_name(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            name = str(path)
            raise NotPlainFileError(f"{name[:40]}…: a name of {len(name)} characters, longer than a file has") from None
        return  # whoever opens it says why that fails
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise _not_plain(path, mode)


def _open_plain(path: Path) -> tuple[int, int]:
    """A descriptor for reading, and the file's length."""
    _refuse_unwritable_name(path)
    # a pipe without a writer would be waited for
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    refuse_special(path)
    descriptor = os.open(path, flags)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return descriptor, status.st_size
    os.close(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, "Is a directory", str(path))
    raise _not_plain(path, status.st_mode)


def _refuse_unwritable_name(path: Path) -> None:
    if "\0" in str(path):
        raise NotPlainFileError(f"{path}: a name with a NUL in it, which no file has")


def _not_plain(path: Path, mode: int) -> NotPlainFileError:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
    return NotPlainFileError(f"{path}: this is {kinds.get(stat.S_IFMT(mode), 'no file')}; a plain file was needed")


def _read_at(descriptor: int, into: memoryview, position: int) -> int:
    if _HAS_PREAD:
        return os.preadv(descriptor, [into[:_AT_ONCE]], position)
    os.lseek(descriptor, position, os.SEEK_SET)
    content = os.read(descriptor, min(len(into), _AT_ONCE))
    into[: len(content)] = content
    return len(content)
