"""Reads weights that Caffe saved as HDF5: /data/<layer>/<index> (caffe: Net::CopyTrainedLayersFromHDF5)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from caffeconv.caffe_format.caffemodel import StoredLayer, WeightsFile
from caffeconv.errors import CaffeconvError
from caffeconv.files.hdf5 import hdf5_faults, numbers_in, open_hdf5
from caffeconv.tensor.param_values import BLOCK
from caffeconv.tensor.shape import FloatArray, Shape

if TYPE_CHECKING:
    import h5py

MAX_BLOBS = 1000


@dataclass(frozen=True)
class HDF5Blob:
    """A parameter blob in an HDF5 file; its values are read when asked for."""

    path: Path
    layer: bytes
    """The name of its group, as the file has it."""
    index: int
    shape: Shape
    offset: int | None
    """Byte offset of contiguous little-endian float32 values in the file; None where they are stored otherwise."""
    legacy: bool = False

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    def array(self) -> FloatArray:
        """The values, 1-D float32."""
        with self._dataset() as dataset:
            return np.asarray(dataset[()], np.float32).ravel()

    def blocks(self) -> Iterator[FloatArray]:
        """The values in blocks of at most BLOCK, 1-D float32."""
        with self._dataset() as dataset:
            for part in _parts(self.shape):
                yield np.asarray(dataset[part], np.float32).ravel()

    @contextmanager
    def _dataset(self) -> Iterator[h5py.Dataset]:
        with open_hdf5(self.path) as file, hdf5_faults(self.path):
            dataset = numbers_in(file["data"], self.layer + b"/%d" % self.index, self.path)
            if dataset is None or dataset.shape != self.shape:
                raise CaffeconvError(f"{self.path}: the file was changed while it was read. Run again")
            yield dataset


def _parts(shape: Shape) -> Iterator[tuple[int | slice, ...]]:
    """Selections that cover an array in C order, each of at most BLOCK values."""
    axis = next((i for i in range(len(shape)) if math.prod(shape[i + 1 :]) <= BLOCK), None)
    if axis is None:
        yield ()
        return
    rows = max(1, BLOCK // max(1, math.prod(shape[axis + 1 :])))
    for outer in np.ndindex(*shape[:axis]):
        for start in range(0, shape[axis], rows):
            yield (*outer, slice(start, start + rows))


def read_hdf5_weights(path: Path) -> WeightsFile:
    """Finds the blobs of an HDF5 weights file; raises CaffeconvError where it is damaged or holds something else."""
    import h5py

    with open_hdf5(path) as file, hdf5_faults(path):
        data = file.get("data")
        if not isinstance(data, h5py.Group):
            what = (
                "this is a model of Keras"
                if "keras_version" in file.attrs or "model_weights" in file
                else "no group /data in it"
            )
            raise CaffeconvError(f"{path}: {what}; weights that Caffe saved as HDF5 were needed")
        return WeightsFile(path, tuple(_read_layer(path, name, data) for name in data.id))


def _read_layer(path: Path, key: bytes, data: h5py.Group) -> StoredLayer:
    import h5py

    name = key.decode("utf-8", "replace")
    group = data[key]
    if not isinstance(group, h5py.Group):
        raise CaffeconvError(f"{path}: /data/{name} is no group of blobs")
    names = [blob for blob in group.id if re.fullmatch(rb"0|[1-9][0-9]*", blob)]
    longest = max(names, key=len, default=b"")
    if len(longest) > 4 or any(int(blob) > MAX_BLOBS for blob in names):
        raise CaffeconvError(f"{path}: /data/{name}/{longest[:10].decode()}: no layer has so many parameters")
    indices = [int(blob) for blob in names]
    blobs: list[HDF5Blob | None] = [None] * (max(indices, default=-1) + 1)
    for index in indices:
        blob = numbers_in(group, str(index), path)
        if blob is None:
            raise CaffeconvError(f"{path}: /data/{name}/{index} holds no numbers")
        blobs[index] = HDF5Blob(path, key, index, tuple(blob.shape), _offset(path, blob))
    return StoredLayer(name, "", tuple(blobs), may_leave_out=True)


def _offset(path: Path, dataset: h5py.Dataset) -> int | None:
    """Where in this very file the values lie as one run of float32; None where they lie otherwise."""
    import h5py

    size = 4 * dataset.size
    properties = dataset.id.get_create_plist()
    if dataset.dtype.str != "<f4" or properties.get_layout() != h5py.h5d.CONTIGUOUS:
        return None
    # what was never written takes no room
    if not size or dataset.id.get_storage_size() != size:
        return None
    offset: int = dataset.id.get_offset()
    return offset if offset + size <= path.stat().st_size else None
