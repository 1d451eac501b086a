"""Makes the file of a run out of its rows: .npy, .npz, .h5, or an LMDB of Datums as Caffe's extract_features writes it."""

from __future__ import annotations

import math
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from caffeconv.caffe_pb2 import Datum
from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import refuse_filled_folder, whole_file, whole_folder
from caffeconv.inference.checkpoint import Checkpoint, NoSpaceError
from caffeconv.tensor.shape import FloatArray

SUFFIXES = (".npz", ".npy", ".h5", ".lmdb")
_AT_ONCE = 1 << 24
"""Bytes that are copied at a time."""
_FLOAT_DATA_TAG = 6 << 3 | 5
_RECORDS_A_TRANSACTION = 1000
_LMDB_PAGE = 4096


def check_feature_file(out: Path, blobs: int) -> None:
    """Raises CaffeconvError for what cannot be written at `out`, before anything is computed."""
    suffix = out.suffix.lower()
    if suffix not in SUFFIXES:
        raise CaffeconvError(f"{out}: features are written as {', '.join(SUFFIXES)}; the suffix chooses")
    if suffix == ".npy" and blobs != 1:
        raise CaffeconvError(f"{out}: .npy holds one array, and there are {blobs}; name one (--blobs), or use .npz")
    if suffix == ".lmdb":
        refuse_filled_folder(out)
    elif out.is_dir():
        raise CaffeconvError(f"{out}: this is a folder; the name of a file to write was needed")


def check_rows(out: Path, rows: Mapping[str, FloatArray]) -> None:
    """Raises CaffeconvError for rows (axis 0) that a file of this kind cannot hold."""
    for blob, values in rows.items():
        if out.suffix.lower() == ".lmdb" and values.ndim > 4:
            raise CaffeconvError(
                f"{out}: blob '{blob}' has rows of {values.ndim - 1} axes; a Datum has channels, height and width: "
                "use .h5 or .npz"
            )


def make_feature_file(parts: Checkpoint, items: Sequence[str] = ()) -> None:
    """Makes the output of `parts`, whole or not at all, and then removes them; in .h5 `items` names the rows.

    Raises NoSpaceError where the disk is full; the parts stay then.
    """
    out = parts.out
    with _kept(parts):
        if out.suffix.lower() == ".npy":
            _move(parts)
        elif out.suffix.lower() == ".lmdb":
            with whole_folder(out) as folder:
                _write_lmdbs(parts, folder)
                parts.note_made(folder)
        else:
            with whole_file(out) as file:
                if out.suffix.lower() == ".npz":
                    _write_npz(parts, file)
                else:
                    _write_h5(parts, items, file)
    parts.remove()


def _move(parts: Checkpoint) -> None:
    (blob,) = parts.journal.blobs
    if parts.part(blob).exists():  # otherwise it is there already, and the process was killed right after
        parts.part(blob).replace(os.path.realpath(parts.out))


@contextmanager
def _kept(parts: Checkpoint) -> Iterator[None]:
    try:
        yield
    except CaffeconvError as error:
        raise NoSpaceError(
            f"{error} All {parts.journal.items} items are in {parts.folder}: run the same command again with --resume"
        ) from None


def _blocks(rows: FloatArray) -> Iterator[FloatArray]:
    step = max(1, _AT_ONCE // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _write_npz(parts: Checkpoint, file: BinaryIO) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for blob in parts.journal.blobs:
            # a fixed date, as numpy's: the same run gives the same bytes
            member = zipfile.ZipInfo(f"{blob}.npy", (1980, 1, 1, 0, 0, 0))
            with parts.part(blob).open("rb") as part, archive.open(member, "w", force_zip64=True) as target:
                shutil.copyfileobj(part, target, _AT_ONCE)


def _write_h5(parts: Checkpoint, items: Sequence[str], file: BinaryIO) -> None:
    import h5py

    with h5py.File(file, "w") as target:
        for blob in parts.journal.blobs:
            rows = parts.rows(blob)
            dataset = target.create_dataset(blob, rows.shape, np.float32)
            start = 0
            for block in _blocks(rows):
                dataset[start : start + len(block)] = block
                start += len(block)
        if items:
            target["items"] = list(items)


# -- LMDB --------------------------------------------------------------------------------------------------------------


def _write_lmdbs(parts: Checkpoint, folder: Path) -> None:
    blobs = parts.journal.blobs
    if len(blobs) == 1:
        _write_lmdb(parts.rows(blobs[0]), folder)
        return
    taken: set[str] = set()
    for blob in blobs:
        # a blob's name is anything; a folder's is not
        name = re.sub(r"[^\w.-]|^\.", "_", blob)
        while name in taken:
            name += "_"
        taken.add(name)
        (folder / name).mkdir()
        _write_lmdb(parts.rows(blob), folder / name)


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
