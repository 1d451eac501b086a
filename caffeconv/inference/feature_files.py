"""Writes the rows of a checkpoint: as .npy, .npz, .h5, or an LMDB of Datums as Caffe's extract_features writes it."""

from __future__ import annotations

import math
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from caffeconv.caffe_pb2 import Datum
from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import whole_file, whole_folder
from caffeconv.inference.checkpoint import Checkpoint
from caffeconv.tensor.shape import FloatArray

_AT_ONCE = 1 << 24
"""Bytes that are copied at a time."""
_FLOAT_DATA_TAG = 6 << 3 | 5
_RECORDS_A_TRANSACTION = 1000
_LMDB_PAGE = 4096


ItemName = Callable[[int], str]
"""What to call an item."""


def write_npy(checkpoint: Checkpoint, item_name: ItemName | None) -> None:
    """Lets the only blob's rows become the output."""
    (blob,) = checkpoint.journal.blobs
    if checkpoint.part(blob).exists():  # otherwise it is there already, and the process was killed right after
        checkpoint.part(blob).replace(os.path.realpath(checkpoint.out))


def _blocks(rows: FloatArray) -> Iterator[FloatArray]:
    step = max(1, _AT_ONCE // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def write_npz(checkpoint: Checkpoint, item_name: ItemName | None) -> None:
    """Every blob as an array of its name."""
    with whole_file(checkpoint.out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for blob in checkpoint.journal.blobs:
            # a fixed date, as numpy's: the same run gives the same bytes
            member = zipfile.ZipInfo(f"{blob}.npy", (1980, 1, 1, 0, 0, 0))
            with checkpoint.part(blob).open("rb") as part, archive.open(member, "w", force_zip64=True) as target:
                shutil.copyfileobj(part, target, _AT_ONCE)


def write_h5(checkpoint: Checkpoint, item_name: ItemName | None) -> None:
    """Every blob as a dataset of its name, and the items' names, where they have any, as `items`."""
    import h5py

    with whole_file(checkpoint.out) as file, h5py.File(file, "w") as target:
        for blob in checkpoint.journal.blobs:
            rows = checkpoint.rows(blob)
            dataset = target.create_dataset(blob, rows.shape, np.float32)
            start = 0
            for block in _blocks(rows):
                dataset[start : start + len(block)] = block
                start += len(block)
        if item_name is not None:
            target["items"] = [item_name(i) for i in range(checkpoint.journal.items)]


# -- LMDB --------------------------------------------------------------------------------------------------------------


def write_lmdb(checkpoint: Checkpoint, item_name: ItemName | None) -> None:
    """A folder with an LMDB; of several blobs, a folder with one for each."""
    with whole_folder(checkpoint.out) as folder:
        _fill_folder(checkpoint, folder)
        checkpoint.commit_folder(folder)


def _fill_folder(checkpoint: Checkpoint, folder: Path) -> None:
    blobs = checkpoint.journal.blobs
    if len(blobs) == 1:
        _write_lmdb(checkpoint.rows(blobs[0]), folder)
        return
    names: set[str] = set()
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
