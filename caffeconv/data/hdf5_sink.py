"""HDF5Output: what a net hands over is written to a file (caffe: hdf5_output_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from caffeconv.errors import CaffeconvError
from caffeconv.files.hdf5 import is_hdf5
from caffeconv.files.net_folders import NetFolders
from caffeconv.tensor.shape import FloatArray, format_shape

if TYPE_CHECKING:
    import h5py


class DataSink(Protocol):
    """What takes the bottoms of a layer that makes no tops."""

    def write(self, bottoms: Sequence[FloatArray]) -> None:
        """Takes what one forward pass gave; CaffeconvError where it cannot be written."""
        ...


class HDF5Sink:
    """Datasets `data` and `label`, float32, num × channels × height × width each.

    The first pass makes the file anew. Caffe stops at the second ("Failed to make float dataset"); here its rows are
    added to those that are there.
    """

    def __init__(self, name: str, folders: NetFolders) -> None:
        """`name`: of the file, as the net has it."""
        self.path = Path(name)
        self._folders = folders
        self._begun = False

    def write(self, bottoms: Sequence[FloatArray]) -> None:
        import h5py

        if not self._begun:
            self.path = _to_write(str(self.path), self._folders)
        blobs = dict(zip(("data", "label"), (_four_axes(bottom) for bottom in bottoms), strict=True))
        try:
            with h5py.File(self.path, "r+" if self._begun else "w") as file:
                for name, blob in blobs.items():
                    self._add(file, name, blob)
        except OSError as error:
            raise CaffeconvError(f"{self.path}: Failed to open HDF5 file, or to write it: {error}") from None
        self._begun = True

    def _add(self, file: h5py.File, name: str, blob: FloatArray) -> None:
        if name not in file:
            file.create_dataset(name, data=blob, maxshape=(None, *blob.shape[1:]))
            return
        dataset = file[name]
        if dataset.shape[1:] != blob.shape[1:]:
            raise CaffeconvError(
                f"{self.path}: {name} is {format_shape(blob.shape)} in this pass; "
                f"rows of {format_shape(dataset.shape[1:])} were needed, as in the pass before"
            )
        dataset.resize(len(dataset) + len(blob), axis=0)
        dataset[-len(blob) :] = blob


def _to_write(name: str, folders: NetFolders) -> Path:
    path = folders.to_write(name)
    if path.exists() and not is_hdf5(path):
        raise CaffeconvError(f"{path}: this is there, and no HDF5 file: it is not replaced; remove it, or rename it")
    return path


def _four_axes(blob: FloatArray) -> FloatArray:
    # caffe: Blob::LegacyShape
    return blob.reshape(*blob.shape, *([1] * (4 - blob.ndim)))
