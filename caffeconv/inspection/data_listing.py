"""What a database, a file of HDF5 data or a blob in binary form holds, without a net that reads it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from caffeconv.caffe_format.caffemodel import read_binaryproto
from caffeconv.caffe_format.foreign_files import what_folder
from caffeconv.caffe_pb2 import Datum
from caffeconv.data.datum import read_datum
from caffeconv.data.records import open_records
from caffeconv.errors import CaffeconvError
from caffeconv.files.database_folders import database_in
from caffeconv.files.hdf5 import hdf5_faults, numbers_in, open_hdf5
from caffeconv.tensor.shape import FloatArray, Shape, format_shape

MOST_RECORDS = 1000
MOST_DECODED = 50
MOST_LABEL_ROWS = 1_000_000


@dataclass(frozen=True)
class DatabaseListing:
    """What the first records of a database hold."""

    path: Path
    backend: str
    """``LMDB`` or ``LEVELDB``."""
    looked_at: int
    records: int | None
    """How many there are in all; None where only reading it through would tell."""
    first_keys: tuple[str, ...]
    contents: Mapping[str, int]
    """``3×32×32 uint8`` → how many of those looked at; ``no Datum`` for what is something else."""
    labels: Mapping[int, int]
    """Label → how many of those looked at, in the order of labels."""


def list_database(path: Path, *, most: int = MOST_RECORDS) -> DatabaseListing:
    """The first `most` records of an LMDB or LevelDB folder. Raises CaffeconvError where it is none."""
    backend = database_in(path)
    if backend is None:
        what = what_folder(path)
        is_what = what if what != "a folder" else "a folder with no database in it"
        raise CaffeconvError(f"{path}: this is {is_what}; a net, weights or a database was needed")
    records = open_records(path, backend)
    keys: list[str] = []
    contents: Counter[str] = Counter()
    labels: Counter[int] = Counter()
    looked_at = 0
    for key, value in itertools.islice(records, most):
        looked_at += 1
        if len(keys) < 3:
            keys.append(key.decode("utf-8", "backslashreplace"))
        try:
            datum = Datum.FromString(value)
        except DecodeError:
            contents["no Datum"] += 1
            continue
        contents[_content(value, datum, records.where(key), looked_at)] += 1
        labels[datum.label] += 1
    total = looked_at if looked_at < most else records.count() if backend == "LMDB" else None
    return DatabaseListing(
        path, backend, looked_at, total, tuple(keys), dict(contents.most_common()), dict(sorted(labels.items()))
    )


def _content(value: bytes, datum: Datum, where: str, number: int) -> str:
    if datum.encoded and number > MOST_DECODED:
        return "encoded pictures, not decoded"
    try:
        values = read_datum(value, where).values
    except CaffeconvError:
        return "Datum that does not hold what it says"
    return f"{format_shape(values.shape)} {values.dtype}" + (", encoded" if datum.encoded else "")


@dataclass(frozen=True)
class DatasetListing:
    """One dataset of an HDF5 file."""

    name: str
    shape: Shape
    dtype: str
    labels: Mapping[int, int]
    """Value → number of rows, for a dataset of one integer for each row; empty for others."""


def list_hdf5_data(path: Path) -> tuple[DatasetListing, ...]:
    """The datasets at the top of an HDF5 file, as HDF5Data reads them; empty where there are none."""
    with open_hdf5(path) as file, hdf5_faults(path):
        sets = [(name, data) for name in file if (data := numbers_in(file, name, path, "fiubSOUV")) is not None]
        return tuple(DatasetListing(name, tuple(data.shape), str(data.dtype), _labels(data)) for name, data in sets)


def _labels(data: object) -> Mapping[int, int]:
    shape, dtype = tuple(getattr(data, "shape", ())), getattr(data, "dtype", np.dtype("O"))
    if not shape or shape[0] > MOST_LABEL_ROWS or any(size != 1 for size in shape[1:]) or dtype.kind not in "fiu":
        return {}
    values = np.asarray(data).ravel()
    if not np.isfinite(values).all() or (values != np.floor(values)).any():
        return {}
    numbers, counts = np.unique(values.astype(np.int64), return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


@dataclass(frozen=True)
class ArrayListing:
    """A blob in binary form: a mean, the matrix H of an InfogainLoss, or any other."""

    path: Path
    shape: Shape
    values: FloatArray
    """float32, of that shape."""

    @property
    def channel_means(self) -> tuple[float, ...]:
        """The mean of each channel of 1×C×H×W or C×H×W; empty for other shapes."""
        shape = self.shape[1:] if len(self.shape) == 4 and self.shape[0] == 1 else self.shape
        if len(shape) != 3 or self.matrix is not None:
            return ()
        return tuple(float(mean) for mean in self.values.reshape(shape).mean(axis=(1, 2), dtype=np.float64))

    @property
    def matrix(self) -> FloatArray | None:
        """L×L where the blob is 1×1×L×L: the form of an H; None for others."""
        square = len(self.shape) >= 2 and self.shape[-1] == self.shape[-2]
        return self.values.reshape(self.shape[-2:]) if square and set(self.shape[:-2]) <= {1} else None


def list_binaryproto(path: Path) -> ArrayListing:
    """The one blob of a binaryproto; CaffeconvError where it is none."""
    blob = read_binaryproto(path)
    return ArrayListing(path, blob.shape, blob.array().reshape(blob.shape))
