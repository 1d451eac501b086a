"""Small databases, lists and pictures, for the tests of data layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import h5py
import lmdb
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from caffeconv import CaffeconvError
from caffeconv.caffe_pb2 import BlobProto, Datum

Pixels = NDArray[np.uint8]


def refused(said: str) -> pytest.RaisesExc[CaffeconvError]:
    """Expects a CaffeconvError whose message matches a pattern."""
    return pytest.raises(CaffeconvError, match=said)


def pixels(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def raw(values: Pixels, label: int = 0) -> bytes:
    """A Datum of C×H×W bytes."""
    channels, height, width = values.shape
    return Datum(channels=channels, height=height, width=width, data=values.tobytes(), label=label).SerializeToString()


def encoded(picture: Pixels, label: int = 0, suffix: str = ".png") -> bytes:
    """A Datum of a picture file; `picture` is H×W or H×W×C."""
    return Datum(data=file_content(picture, suffix), encoded=True, label=label).SerializeToString()


def file_content(picture: Pixels, suffix: str = ".png") -> bytes:
    return bytes(cv2.imencode(suffix, picture)[1].tobytes())


def write_lmdb(path: Path, records: Mapping[str, bytes], *, keep_lock: bool = False) -> Path:
    with lmdb.open(str(path), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key.encode(), value)
    if not keep_lock:
        (path / "lock.mdb").unlink()
    return path


def write_mean(path: Path, mean: NDArray[np.float32]) -> Path:
    """A binaryproto of a mean image, C×H×W, as compute_image_mean writes it."""
    channels, height, width = mean.shape
    blob = BlobProto(num=1, channels=channels, height=height, width=width, data=mean.ravel().tolist())
    path.write_bytes(blob.SerializeToString())
    return path


def write_pictures(folder: Path, pictures: Mapping[str, Pixels]) -> None:
    for name, picture in pictures.items():
        (folder / name).write_bytes(file_content(picture, Path(name).suffix))


def write_list(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


def write_hdf5(path: Path, **sets: ArrayLike) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in sets.items():
            file[name] = values
    return path


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its bytes and its time, to see that nothing was written."""
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(folder.iterdir())}
