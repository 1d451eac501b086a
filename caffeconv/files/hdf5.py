"""HDF5 files of strangers: opened where nothing in them leads out of the file, and whatever fails is one message."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from caffeconv.errors import CaffeconvError
from caffeconv.files.hdf5_heaps import has_endless_heap
from caffeconv.files.plain_file import PlainFile, require_plain

if TYPE_CHECKING:
    import h5py

_NEEDED = "a whole HDF5 file was needed"
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_DENSEST = 1100
"""A byte of a compressed dataset stands for so many at most, as deflate packs zeros."""
_SMALL = 1 << 26
"""A dataset of up to so many bytes may lie in the file as it likes."""


def is_hdf5(path: Path) -> bool:
    """Whether a file has HDF5's signature: at its start, or behind a block of 512 bytes, as MATLAB writes it."""
    try:
        file = PlainFile(path)
    except (OSError, CaffeconvError):
        return False
    return any(len(file) > start + 8 and file.read(start, start + 8) == _SIGNATURE for start in (0, 512))


@contextmanager
def hdf5_faults(where: object) -> Iterator[None]:
    """Turns whatever h5py raises in the block into a CaffeconvError that begins with `where`.

    h5py has no exception of its own: a damaged file raises what it makes HDF5 or numpy stumble over.
    """
    try:
        yield
    except CaffeconvError:
        raise
    except Exception as error:
        if "unable to lock" in str(error):
            raise CaffeconvError(f"{where}: another process has it open for writing; wait for that to end") from None
        raise CaffeconvError(
            f"{where}: not readable as HDF5: {_first_line(error)}; {_NEEDED}. Copy it again, or write it again"
        ) from None


def open_hdf5(path: Path, where: object = "") -> h5py.File:
    """A file, open for reading, of which every link leads to something in itself.

    `where` names it in messages, else its path. Raises CaffeconvError where it is no plain file, damaged, or has a link
    into another file.
    """
    import h5py

    where = where or path
    with hdf5_faults(where):
        require_plain(path)
        if has_endless_heap(path):
            raise CaffeconvError(
                f"{where}: the free blocks of a heap lead back to themselves; {_NEEDED}. Copy it again"
            )
        file = h5py.File(path, "r")
        try:
            link = file.id.links.visit(_leads_out, info=True)
        except BaseException:
            file.close()
            raise
        if link is None:
            return file
        file.close()
        name = link.decode("utf-8", "replace")
        raise CaffeconvError(
            f"{where}: /{name} is a link into another file, which is not followed; store it in this one"
        )


def numbers_in(group: h5py.Group, name: str | bytes, where: object, kinds: str = "fiu") -> h5py.Dataset | None:
    """The dataset of that name, where it is one, holds numbers (of numpy's `kinds`), and holds them itself; else None.

    Raises CaffeconvError where its values lie in another file, or it claims more of them than the file can hold.
    """
    import h5py

    with hdf5_faults(where):
        item = group.get(name)
        if not isinstance(item, h5py.Dataset):
            return None
        own = f"{where}, dataset {item.name}"
        properties = item.id.get_create_plist()
        if properties.get_layout() == h5py.h5d.VIRTUAL or properties.get_external_count():
            raise CaffeconvError(f"{own}: its values lie in another file, which is not read; store them in this one")
        if item.shape is None or item.dtype.kind not in kinds:
            return None
        _refuse_claim(item, own)
        return item


def _refuse_claim(dataset: h5py.Dataset, where: str) -> None:
    """Raises CaffeconvError where a chunk, or all the values written, are more than the bytes stored can stand for."""
    limit = max(_SMALL, _DENSEST * Path(dataset.file.filename).stat().st_size)
    largest = math.prod(dataset.chunks or (1,)) * dataset.dtype.itemsize
    if dataset.chunks is None and dataset.id.get_storage_size():
        largest = dataset.size * dataset.dtype.itemsize
    if largest > limit:
        raise CaffeconvError(f"{where}: {largest} bytes of values, which a file of this size cannot hold; {_NEEDED}")


def _leads_out(name: bytes, info: h5py.h5l.LinkInfo) -> bytes | None:
    import h5py

    return None if info.type in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT) else name


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [repr(error)])[0].strip("'\"")
