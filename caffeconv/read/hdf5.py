"""Reads weights that Caffe saved as HDF5: /data/<layer>/<index> (caffe: Net::CopyTrainedLayersFromHDF5)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caffeconv.errors import CaffeconvError
from caffeconv.ir import FloatArray
from caffeconv.read.caffemodel import StoredLayer, WeightsFile

MAX_BLOBS = 1000


class HDF5Blob:
    """A parameter blob in an HDF5 file; its values are read when asked for."""

    legacy = False
    offset: int | None = None

    def __init__(self, path: Path, key: str, shape: tuple[int, ...]) -> None:
        self.path = path
        self.key = key
        self.shape = shape
        self.count = int(np.prod(shape, dtype=np.int64))

    def array(self) -> FloatArray:
        """The values, 1-D float32."""
        import h5py

        with h5py.File(self.path, "r") as file:
            values: FloatArray = np.asarray(file[self.key], np.float32).ravel()
            return values


def is_hdf5(path: Path) -> bool:
    """Whether a file starts with HDF5's signature."""
    try:
        with path.open("rb") as file:
            return file.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError:
        return False


def read_hdf5_weights(path: Path) -> WeightsFile:
    """Finds the blobs of an HDF5 weights file; raises CaffeconvError where it is damaged or holds something else."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            data = file.get("data")
            if not isinstance(data, h5py.Group):
                raise CaffeconvError(f"{path}: no group /data in it; weights that Caffe saved as HDF5 were needed")
            layers = tuple(_read_layer(path, name, data[name]) for name in data)
    except OSError as error:
        raise CaffeconvError(f"{path}: not readable as HDF5: {error}") from None
    return WeightsFile(path, layers)


def _read_layer(path: Path, name: str, group: object) -> StoredLayer:
    import h5py

    if not isinstance(group, h5py.Group):
        raise CaffeconvError(f"{path}: /data/{name} is no group of blobs")
    indices = [int(key) for key in group if key.isdigit()]
    if max(indices, default=0) > MAX_BLOBS:
        raise CaffeconvError(f"{path}: /data/{name}/{max(indices)}: no layer has so many parameters")
    blobs: list[HDF5Blob | None] = [None] * (max(indices, default=-1) + 1)
    for index in indices:
        blob = group[str(index)]
        if not isinstance(blob, h5py.Dataset) or blob.dtype.kind not in "fiu":
            raise CaffeconvError(f"{path}: /data/{name}/{index} holds no numbers")
        blobs[index] = HDF5Blob(path, f"/data/{name}/{index}", tuple(blob.shape))
    return StoredLayer(name, "", tuple(blobs), may_leave_out=True)
