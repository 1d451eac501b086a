"""Writes the rows of a checkpoint, and the names of their items: as .npy, .npz, .h5, or an LMDB of Datums as Caffe's
extract_features writes it."""

from __future__ import annotations

import math
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from caffeconv.caffe_pb2 import Datum
from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import whole_file, whole_file_in_parts, whole_folder
from caffeconv.inference.checkpoint import Checkpoint
from caffeconv.tensor.shape import FloatArray

_AT_ONCE = 1 << 24
"""Bytes that are copied at a time."""
_FLOAT_DATA_TAG = 6 << 3 | 5
_RECORDS_A_TRANSACTION = 1000
_LMDB_PAGE = 4096
NAMES_IN_FOLDER = "names.txt"


ItemName = Callable[[int], str]
"""What to call an item."""


def names_entry(blobs: Iterable[str]) -> str:
    """The name under which a file of several arrays holds the items' names: ``items``, where no blob is called so."""
    entry, taken = "items", set(blobs)
    while entry in taken:
        entry += "_"
    return entry


def names_file(out: Path) -> Path:
    """The file beside a .npy that holds the items' names, one a line."""
    return out.with_suffix(".names.txt")


def names_text(names: Iterable[str]) -> bytes:
    """A line for each name; bytes that are no characters stay, so that the lines name files."""
    return "".join(f"{_one_line(name)}\n" for name in names).encode(errors="surrogateescape")


def as_text(name: str) -> str:
    """A name as UTF-8 can hold it: bytes of a file's name that are no characters are spelled out."""
    return name.encode(errors="backslashreplace").decode()


def _one_line(name: str) -> str:
    return re.sub(r"[\r\n]", lambda match: {"\r": "\\r", "\n": "\\n"}[match[0]], name)


def write_npy(checkpoint: Checkpoint, item_name: ItemName | None) -> None:
    """Lets the only blob's rows become the output, and writes the file of the items' names where they have any."""
    (blob,) = checkpoint.journal.blobs
    if checkpoint.part(blob).exists():  # otherwise it is there already, and the process was killed right after
        checkpoint.part(blob).replace(os.path.realpath(checkpoint.out))
    if item_name is not None:
        with whole_file(names_file(checkpoint.out)) as file:
            file.write(names_text(map(item_name, range(checkpoint.journal.items))))


def _blocks(rows: FloatArray) -> Iterator[FloatArray]:
    step = max(1, _AT_ONCE // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def write_npz(checkpoint: Checkpoint, item_name: ItemName | None) -> None:
    """Every blob as an array of its name, and the items' names, where they have any, as `items`."""
    blobs = checkpoint.journal.blobs
    with whole_file(checkpoint.out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for blob in blobs:
            with checkpoint.part(blob).open("rb") as part, npz_member(archive, blob) as target:
                shutil.copyfileobj(part, target, _AT_ONCE)
        if item_name is not None:
            with npz_member(archive, names_entry(blobs)) as target:
                _write_names(target, checkpoint.journal.items, item_name)


def npz_member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """The file of an array in an .npz, open for writing."""
    # a fixed date, as numpy's: the same run gives the same bytes
    return archive.open(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), "w", force_zip64=True)


def _write_names(target: IO[bytes], items: int, item_name: ItemName) -> None:
    """An array of strings in the form of .npy, some of them at a time."""
    width = max((len(item_name(i)) for i in range(items)), default=1)
    names = np.dtype(f"<U{max(1, width)}")
    npy.write_array_header_1_0(target, {"descr": names.str, "fortran_order": False, "shape": (items,)})
    step = max(1, _AT_ONCE // names.itemsize)
    for start in range(0, items, step):
        target.write(np.array([item_name(i) for i in range(start, min(items, start + step))], names).tobytes())


def write_h5(checkpoint: Checkpoint, item_name: ItemName | None) -> None:
    """Every blob as a dataset of its name, and the items' names, where they have any, as `items`."""
    import h5py

    with whole_file_in_parts(checkpoint.out) as file, h5py.File(file, "w") as target:
        for blob in checkpoint.journal.blobs:
            rows = checkpoint.rows(blob)
            dataset = target.create_dataset(blob, rows.shape, np.float32)
            start = 0
            for block in _blocks(rows):
                dataset[start : start + len(block)] = block
                start += len(block)
        if item_name is not None:
            target[names_entry(checkpoint.journal.blobs)] = [
                as_text(item_name(i)) for i in range(checkpoint.journal.items)
            ]


# -- LMDB --------------------------------------------------------------------------------------------------------------


def write_lmdb(checkpoint: Checkpoint, item_name: ItemName | None) -> None:
    """A folder with an LMDB; of several blobs, a folder with one for each. Names of items stand in it, in `names.txt`.

    Keys are Caffe's, which are numbers alone.
    """
    with whole_folder(checkpoint.out) as folder:
        _fill_folder(checkpoint, folder)
        if item_name is not None:
            (folder / NAMES_IN_FOLDER).write_bytes(names_text(map(item_name, range(checkpoint.journal.items))))
        checkpoint.commit_folder(folder)


def _fill_folder(checkpoint: Checkpoint, folder: Path) -> None:
    blobs = checkpoint.journal.blobs
    if len(blobs) == 1:
        _write_lmdb(checkpoint.rows(blobs[0]), folder)
        return
    names: set[str] = {NAMES_IN_FOLDER}
    for blob in blobs:
        # a blob's name is anything; a folder's is not
        name = re.sub(r"[^\w.-]|^\.", "_", blob)
        while name in names:
            name += "_"
        names.add(name)
        (folder / name).mkdir()
        _write_lmdb(checkpoint.rows(blob), folder / name)


def _write_lmdb(rows: FloatArray, folder: Path) -> None:
    import lmdb

    record = len(_datum(np.zeros(rows.shape[1:], np.float32)))
    # a record of more than half a page lies in pages of its own
    size = _LMDB_PAGE * (math.ceil((record + 64) / _LMDB_PAGE) + 1) if record > _LMDB_PAGE // 4 else 2 * record + 64
    map_size = 2 * size * len(rows) + (1 << 20)
    try:
        with lmdb.open(str(folder), map_size=map_size, lock=False, sync=False) as environment:
            for start in range(0, len(rows), _RECORDS_A_TRANSACTION):
                with environment.begin(write=True) as transaction:
                    for i, row in enumerate(rows[start : start + _RECORDS_A_TRANSACTION], start):
                        # caffe: extract_features.cpp, format_int(image_index, 10)
                        transaction.put(b"%010d" % i, _datum(row), append=True)
            environment.sync(True)
    except lmdb.Error as error:
        raise CaffeconvError(f"{folder.name}: could not be written whole: {error}.") from None


def _datum(row: FloatArray) -> bytes:
    """A row as a serialized Datum of floats: channels × height × width are Caffe's legacy axes 1 to 3."""
    channels, height, width = (*row.shape, 1, 1, 1)[:3]
    head = Datum(channels=channels, height=height, width=width).SerializeToString()
    floats = np.empty(row.size, np.dtype([("tag", "u1"), ("value", "<f4")]))
    floats["tag"], floats["value"] = _FLOAT_DATA_TAG, row.ravel()
    return head + floats.tobytes()
