"""Data: items of an LMDB or LevelDB (caffe: data_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from caffeconv.data.datum import Item, read_datum
from caffeconv.data.image_transform import ImageTransform
from caffeconv.data.records import Cycle, Records, open_records
from caffeconv.data.source import DataSource, ItemBlock
from caffeconv.data.transform import Transform
from caffeconv.errors import CaffeconvError
from caffeconv.files.database_folders import Backend
from caffeconv.tensor.shape import FloatArray, Shape

LOOKED_AT = 16


class DatabaseSource(DataSource):
    """Data: the Datums of an LMDB or LevelDB, in the order of their keys, over and over (caffe: data_layer.cpp)."""

    def __init__(
        self, tops: Sequence[str], path: Path, backend: Backend, batch_size: int, transform: Transform,
        random: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(tops, batch_size, random)
        self.path = path
        self.transform = transform
        self._backend: Backend = backend
        self._opened: tuple[Records, Cycle, ImageTransform] | None = None

    @property
    def at_start(self) -> bool:
        return self._opened is None or self._opened[1].at_start

    @property
    def is_random(self) -> bool:
        return self.transform.is_random

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def files(self) -> Sequence[Path]:
        return [file for file in sorted(self.path.iterdir()) if file.suffix in (".mdb", ".ldb", ".sst", ".log")
                and file.name != "lock.mdb"]  # fmt: skip

    def count_items(self) -> int:
        return self._open()[0].count()

    def at(self, path: Path, backend: Backend) -> DatabaseSource:
        """The same for another database."""
        return DatabaseSource(self.tops, path, backend, self.batch_size, self.transform, self.random_at(0))

    def _open(self) -> tuple[Records, Cycle, ImageTransform]:
        if self._opened is None:
            records = open_records(self.path, self._backend)
            self._opened = records, Cycle(records), self.transform.load()
        return self._opened

    def _take(self) -> ItemBlock:
        records, cycle, transform = self._open()
        key, content = cycle.take()
        where, position = records.where(key), self.position

        def make() -> Sequence[FloatArray]:
            item = _read_datum(content, where, self.transform)
            values = transform.apply(item.values, where, self.random_at(position) if self.is_random else None)
            return (values[None], np.array([item.label], np.float32))[: len(self.tops)]

        return ItemBlock(position, 1, where, make)

    def _go_to(self, position: int) -> None:
        records, _, transform = self._open()
        self._opened = records, Cycle(records, position % records.count() if position else 0), transform


def first_shape(path: Path, backend: Backend, transform: Transform) -> Shape:
    """C×H×W of a database's first item after the transformation; raises as `open_records` and `read_datum` do.

    Where that item is damaged, which whoever reads it will say, one of the next tells.
    """
    records = open_records(path, backend)
    fault: CaffeconvError | None = None
    for key, content in islice(records, LOOKED_AT):
        where = records.where(key)
        try:
            return transform.shape(_read_datum(content, where, transform).values.shape, where)
        except CaffeconvError as error:
            fault = fault or error
    raise fault or CaffeconvError(f"{path}: the database is empty; at least one record was needed")


def _read_datum(content: bytes, where: str, transform: Transform) -> Item:
    return read_datum(content, where, force_color=transform.force_color, force_gray=transform.force_gray)
