"""HDF5Data: rows of datasets in files that a file lists (caffe: hdf5_data_layer.cpp, hdf5.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.lists import find_listed, read_list
from caffeconv.data.sources import DataSource
from caffeconv.errors import CaffeconvError
from caffeconv.ir import FloatArray, Shape, by_x

if TYPE_CHECKING:
    import h5py

_T = TypeVar("_T")


@dataclass(frozen=True)
class HDF5Files:
    """An HDF5Data layer's list of files; every top is a dataset of that name in each of them."""

    source: Path
    directory: Path
    """Where files are looked for that are not there as seen from the current folder."""
    tops: tuple[str, ...]

    def paths(self) -> list[Path]:
        """The files that the list names, which may not exist; CaffeconvError where it names none."""
        # caffe: names are what stands between spaces and line ends
        paths = [find_listed(name, self.directory) for name in read_list(self.source).split()]
        if not paths:
            raise CaffeconvError(f"{self.source}: Must have at least 1 HDF5 filename listed in {self.source}")
        return paths

    def open(self, path: Path) -> tuple[h5py.File, list[h5py.Dataset]]:
        """A file and its dataset for each top, rows along axis 0; CaffeconvError names what is missing or unfit."""
        import h5py

        where = f"{path} (of {self.source})"
        if not path.exists():
            raise SourceUnavailableError(f"{where}: Failed opening HDF5 file: No such file or directory")
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise CaffeconvError(f"{where}: Failed opening HDF5 file: {error}; a whole HDF5 file was needed") from None
        sets = [self._dataset(file, top, where) for top in self.tops]
        rows = {top: dataset.shape[0] for top, dataset in zip(self.tops, sets, strict=True)}
        if len(set(rows.values())) > 1 or not min(rows.values()):
            listed = ", ".join(f"{top}: {number}" for top, number in rows.items())
            raise CaffeconvError(f"{where}: rows {listed}; the same number, at least 1, was needed in each dataset")
        return file, sets

    def _dataset(self, file: h5py.File, top: str, where: str) -> h5py.Dataset:
        import h5py

        dataset = file.get(top)
        if not isinstance(dataset, h5py.Dataset):
            raise CaffeconvError(
                f"{where}: Failed to find HDF5 dataset {top}; "
                f"each top's name is a dataset's. It has {', '.join(file) or 'none'}"
            )
        if dataset.dtype.kind not in "fiu":
            raise CaffeconvError(f"{where}: dataset {top} holds {dataset.dtype}; floats or integers were needed")
        if not dataset.shape:
            raise CaffeconvError(f"{where}: dataset {top} has no axes; Input must have at least 1 axis.")
        return dataset

    def row_shapes(self) -> list[Shape]:
        """The shape of one row of each top, from the list's first file."""
        file, sets = self.open(self.paths()[0])
        with file:
            return [dataset.shape[1:] for dataset in sets]


class HDF5Source(DataSource):
    """HDF5Data: rows of the datasets of several files, one after another, over and over (caffe: hdf5_data_layer.cpp).

    Only the rows of a batch are in memory.
    """

    def __init__(
        self, files: HDF5Files, batch_size: int, random: np.random.Generator, *, shuffle: bool = False
    ) -> None:
        super().__init__(files.tops)
        self._files = files
        self._batch_size = batch_size
        self._random = random
        self._shuffle = shuffle
        self._paths: Sequence[Path] = ()
        self._file = 0
        self._opened: tuple[h5py.File, list[h5py.Dataset]] | None = None
        self._order: Sequence[int] = ()
        """The open file's rows, in the order in which they come."""
        self._row = 0
        """How many of these are behind us."""
        self._row_shapes: list[Shape] = []

    @property
    def at_start(self) -> bool:
        return self._file == 0 and self._row == 0

    @property
    def is_random(self) -> bool:
        return self._shuffle

    def count_items(self) -> int:
        total = 0
        for path in self._files.paths():
            file, sets = self._files.open(path)
            with file:
                total += int(sets[0].shape[0])
        return total

    def _read(self) -> Sequence[FloatArray]:
        if not self._paths:
            self._paths = self._shuffled(self._files.paths())
        if not self._row_shapes:
            self._row_shapes = [dataset.shape[1:] for dataset in self._sets()]
        blobs = [np.empty((self._batch_size, *shape), np.float32) for shape in self._row_shapes]
        filled = 0
        while filled < self._batch_size:
            sets = self._sets()
            rows = self._order[self._row : self._row + self._batch_size - filled]
            for blob, dataset in zip(blobs, sets, strict=True):
                self._copy(dataset, rows, blob[filled : filled + len(rows)])
            filled += len(rows)
            self._advance(len(rows))
        return blobs

    def _sets(self) -> list[h5py.Dataset]:
        """The datasets of the file whose turn it is."""
        if self._opened is None:
            self._opened = self._files.open(self._paths[self._file])
            self._order = self._shuffled(range(int(self._opened[1][0].shape[0])))
        return self._opened[1]

    def _advance(self, rows: int) -> None:
        # caffe: HDF5DataLayer::Next
        self._row += rows
        if self._row < len(self._order):
            return
        self._row = 0
        if len(self._paths) == 1:
            self._order = self._shuffled(self._order)
            return
        self._file = (self._file + 1) % len(self._paths)
        if self._file == 0:
            self._paths = self._shuffled(self._paths)
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None

    def _shuffled(self, items: Sequence[_T]) -> Sequence[_T]:
        return [items[i] for i in self._random.permutation(len(items))] if self._shuffle else items

    def _copy(self, dataset: h5py.Dataset, rows: Sequence[int], out: FloatArray) -> None:
        where = f"{self._paths[self._file]} (of {self._files.source})"
        if math.prod(dataset.shape[1:]) != math.prod(out.shape[1:]):
            raise CaffeconvError(
                f"{where}: dataset {dataset.name.lstrip('/')} has rows of {by_x(dataset.shape[1:])}; "
                f"{by_x(out.shape[1:])} was needed, as in the file before"
            )
        try:
            values = np.stack([dataset[row] for row in rows]) if self._shuffle else dataset[rows[0] : rows[-1] + 1]
        except OSError as error:
            raise CaffeconvError(f"{where}: cannot be read: {error}") from None
        out[...] = values.reshape(out.shape)
