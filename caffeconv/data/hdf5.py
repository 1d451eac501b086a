"""HDF5Data: rows of datasets in files that a file lists (caffe: hdf5_data_layer.cpp, hdf5.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.lists import read_list
from caffeconv.data.source import DataSource, ItemBlock
from caffeconv.errors import CaffeconvError
from caffeconv.files.hdf5 import hdf5_faults, numbers_in, open_hdf5
from caffeconv.files.net_folders import NetFolders
from caffeconv.tensor.shape import FloatArray, Shape, format_shape

if TYPE_CHECKING:
    import h5py


_HDF5_HEAD = "\udc89HDF"
"""The first bytes of an HDF5 file, read as a list."""


@dataclass(frozen=True)
class HDF5Files:
    """An HDF5Data layer's list of files; every top is a dataset of that name in each of them."""

    source: Path
    folders: NetFolders
    tops: tuple[str, ...]

    def paths(self) -> list[Path]:
        """The files that the list names, which may not exist; CaffeconvError where it names none."""
        text = read_list(self.source)
        if text.startswith(_HDF5_HEAD):
            raise CaffeconvError(
                f"{self.source}: this is an HDF5 file itself; `source` is a text file that lists HDF5 files, one a line. "
                "Write its name into one, and give that as `source`"
            )
        # caffe: names are what stands between spaces and line ends
        paths = [self.folders.find(name) for name in text.split()]
        if not paths:
            raise CaffeconvError(f"{self.source}: Must have at least 1 HDF5 filename listed in {self.source}")
        return paths

    def open(self, path: Path) -> tuple[h5py.File, list[h5py.Dataset]]:
        """A file and its dataset for each top, rows along axis 0; CaffeconvError names what is missing or unfit."""
        where = f"{path} (of {self.source})"
        if not path.exists():
            raise SourceUnavailableError(f"{where}: Failed opening HDF5 file: No such file or directory")
        file = open_hdf5(path, f"{where}: Failed opening HDF5 file")
        with hdf5_faults(where):
            sets = [_dataset(file, top, where) for top in self.tops]
            rows = {top: int(dataset.shape[0]) for top, dataset in zip(self.tops, sets, strict=True)}
        if len(set(rows.values())) > 1 or not min(rows.values()):
            counts = ", ".join(f"{top}: {number}" for top, number in rows.items())
            raise CaffeconvError(
                f"{where}: rows {counts}; the same number, at least 1, was needed in each dataset{_last_axis_words(sets)}"
            )
        return file, sets

    def row_shapes(self) -> list[Shape]:
        """The shape of one row of each top, from the list's first file."""
        file, sets = self.open(self.paths()[0])
        with file:
            return [dataset.shape[1:] for dataset in sets]


def _last_axis_words(sets: Sequence[h5py.Dataset]) -> str:
    """That the items lie on the last axis, as in files that MATLAB wrote, which turns the axes round; else empty."""
    lengths = {int(dataset.shape[-1]) for dataset in sets}
    if len(lengths) > 1 or not min(lengths) or len(sets) < 2:
        return ""
    shapes = " and ".join(format_shape(dataset.shape) for dataset in sets)
    return (
        f". The last axes of {shapes} agree: the {min(lengths)} items seem to lie there, as in files that MATLAB wrote, whose "
        "axes come in reverse order. Caffe wants items on the first axis: write the file again with the axes reversed"
    )


def _dataset(file: h5py.File, top: str, where: str) -> h5py.Dataset:
    import h5py

    if not isinstance(item := file.get(top), h5py.Dataset):
        raise CaffeconvError(
            f"{where}: Failed to find HDF5 dataset {top}; "
            f"each top's name is a dataset's. It has {', '.join(file) or 'none'}"
        )
    dataset = numbers_in(file, top, where)
    if dataset is None:
        raise CaffeconvError(f"{where}: dataset {top} holds {item.dtype}; floats or integers were needed")
    if not dataset.shape:
        raise CaffeconvError(f"{where}: dataset {top} has no axes; Input must have at least 1 axis.")
    return dataset


class HDF5Source(DataSource):
    """HDF5Data: rows of the datasets of several files, one after another, over and over (caffe: hdf5_data_layer.cpp).

    Only the rows of a batch are in memory.
    """

    def __init__(
        self, files: HDF5Files, batch_size: int, random: np.random.Generator, *, shuffle: bool = False
    ) -> None:
        super().__init__(files.tops, batch_size, random)
        self._files = files
        self._shuffle = shuffle
        self._paths: Sequence[Path] = ()
        self._round = 0
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

    @property
    def name(self) -> str:
        return str(self._files.source)

    @property
    def files(self) -> Sequence[Path]:
        return [self._files.source, *self._files.paths()]

    def count_items(self) -> int:
        return sum(self._rows(path) for path in self._files.paths())

    def _rows(self, path: Path) -> int:
        file, sets = self._files.open(path)
        with file:
            return int(sets[0].shape[0])

    def _take(self) -> ItemBlock:
        if not self._row_shapes:
            self._begin_epoch(self._round)
            self._row_shapes = [dataset.shape[1:] for dataset in self._sets()]
        blobs = [np.empty((self.batch_size, *shape), np.float32) for shape in self._row_shapes]
        count = 0
        while count < self.batch_size:
            sets = self._sets()
            rows = self._order[self._row : self._row + self.batch_size - count]
            for blob, dataset in zip(blobs, sets, strict=True):
                self._copy(dataset, rows, blob[count : count + len(rows)])
            count += len(rows)
            self._advance(len(rows))
        return ItemBlock(self.position, self.batch_size, self.name, lambda: blobs)

    def _sets(self) -> list[h5py.Dataset]:
        """The datasets of the file whose turn it is."""
        if self._opened is None:
            self._opened = self._files.open(self._paths[self._file])
            number = int(self._opened[1][0].shape[0])
            self._order = range(number)
            if self._shuffle:
                self._order = self.random_of_epoch(self._round, self._file).permutation(number).tolist()
        return self._opened[1]

    def _advance(self, rows: int) -> None:
        # caffe: HDF5DataLayer::Next
        self._row += rows
        if self._row < len(self._order):
            return
        if self._file + 1 < len(self._paths):
            self._turn_to(self._file + 1)
        elif self._shuffle or len(self._paths) > 1:
            self._begin_epoch(self._round + 1)
        else:
            self._round, self._row = self._round + 1, 0

    def _begin_epoch(self, number: int) -> None:
        self._round = number
        self._paths = self._files.paths()
        if self._shuffle:
            self._paths = [self._paths[i] for i in self.random_of_epoch(number).permutation(len(self._paths))]
        self._turn_to(0)

    def _turn_to(self, file: int) -> None:
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None
        self._file, self._row = file, 0

    def _go_to(self, position: int) -> None:
        epoch, rest = divmod(position, self.count_items()) if position else (0, 0)
        if not self._row_shapes:
            self._row_shapes = self._files.row_shapes()
        self._begin_epoch(epoch)
        while rest and rest >= (rows := self._rows(self._paths[self._file])):
            rest -= rows
            self._turn_to(self._file + 1)
        self._row = rest

    def _copy(self, dataset: h5py.Dataset, rows: Sequence[int], out: FloatArray) -> None:
        where = f"{self._paths[self._file]} (of {self._files.source})"
        if math.prod(dataset.shape[1:]) != math.prod(out.shape[1:]):
            raise CaffeconvError(
                f"{where}: dataset {dataset.name.lstrip('/')} has rows of {format_shape(dataset.shape[1:])}; "
                f"{format_shape(out.shape[1:])} was needed, as in the file before"
            )
        with hdf5_faults(where):
            values = np.stack([dataset[row] for row in rows]) if self._shuffle else dataset[rows[0] : rows[-1] + 1]
        out[...] = values.reshape(out.shape)
