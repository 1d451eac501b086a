"""Data: items of an LMDB or LevelDB (caffe: data_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from caffeconv.data.datum import Item, read_datum
from caffeconv.data.records import Backend, Cycle, Records, open_records
from caffeconv.data.sources import Batch, DataSource
from caffeconv.data.transform import Transform, Transformer
from caffeconv.errors import CaffeconvError
from caffeconv.ir import FloatArray, Shape


class DatabaseSource(DataSource):
    """Data: the Datums of an LMDB or LevelDB, in the order of their keys, over and over (caffe: data_layer.cpp)."""

    def __init__(
        self, tops: Sequence[str], path: Path, backend: Backend, batch_size: int, transform: Transform,
        random: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(tops)
        self.path = path
        self._backend: Backend = backend
        self._batch_size = batch_size
        self._transform = transform
        self._random = random
        self._opened: tuple[Records, Cycle, Transformer] | None = None

    @property
    def at_start(self) -> bool:
        return self._opened is None or self._opened[1].at_start

    @property
    def is_random(self) -> bool:
        return self._transform.is_random

    def count_items(self) -> int:
        return self._open()[0].count()

    def _open(self) -> tuple[Records, Cycle, Transformer]:
        if self._opened is None:
            records = open_records(self.path, self._backend)
            self._opened = records, Cycle(records), Transformer(self._transform, self._random)
        return self._opened

    def _read(self) -> Sequence[FloatArray]:
        records, cycle, transformer = self._open()
        batch = Batch(self._batch_size, transformer)
        for i in range(self._batch_size):
            key, content = cycle.take()
            where = records.where(key)
            item = _read_datum(content, where, self._transform)
            batch.put(i, item.values, item.label, where)
        return batch.blobs(self.tops)


def first_shape(path: Path, backend: Backend, transform: Transform) -> Shape:
    """C×H×W of a database's first item after the transformation; raises as `open_records` and `read_datum` do."""
    records = open_records(path, backend)
    key, content = next(iter(records), (b"", None))
    if content is None:
        raise CaffeconvError(f"{path}: the database is empty; at least one record was needed")
    where = records.where(key)
    return transform.shape(_read_datum(content, where, transform).values.shape, where)


def _read_datum(content: bytes, where: str, transform: Transform) -> Item:
    return read_datum(content, where, force_color=transform.force_color, force_gray=transform.force_gray)
