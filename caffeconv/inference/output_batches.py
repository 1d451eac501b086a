"""What passes gave: batches of outputs, averaged over crops, or put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import FloatArray, format_shape

Item = TypeVar("Item")
Positions = Mapping[str, int]
"""Source → how many of its items are consumed, all epochs counted."""


@dataclass(frozen=True)
class OutputBatch:
    """What one pass over a model gave."""

    number: int
    """Which pass it was, from 0."""
    items: NDArray[np.int64]
    """The position of each item in the leading source; none where all items that were left are corrupt."""
    blobs: Mapping[str, FloatArray]
    """Values that belong to the model; copy what is to outlive the next pass."""
    counted: NDArray[np.bool_]
    """For each item, whether it counts (a last batch may go beyond the epoch)."""
    positions: Positions
    """Where the sources go on."""
    skipped: Sequence[str]
    """Corrupt items that were passed over on the way, as messages that name them; in each epoch the same ones."""

    @property
    def size(self) -> int:
        return len(self.items)

    @property
    def first_item(self) -> int:
        return int(self.items[0])


def passing(items: Iterable[Item], look: Callable[[Item], None]) -> Iterator[Item]:
    """The items as they come, each looked at before it is handed on."""
    for item in items:
        look(item)
        yield item


def averaged(batches: Iterable[OutputBatch], rows: int) -> Iterator[OutputBatch]:
    """Batches in which each item is the mean of so many rows, one after another (caffe: classifier.py predict).

    items: those of the batches count rows, those of what comes of it whole items.

    Raises CaffeconvError for an output that has no row for each item.
    """
    rest: dict[str, FloatArray] = {}
    items = np.zeros(0, np.int64)
    skipped: list[str] = []
    for batch in batches:
        for name, values in batch.blobs.items():
            if values.ndim == 0 or len(values) != batch.size:
                raise CaffeconvError(
                    f"`oversample=True`: output '{name}' is {values.shape} for {batch.size} crops; "
                    "a row for each crop was needed, as classifiers give. Leave `oversample=True` out"
                )
        rows_of = {name: np.concatenate([rest[name], v]) if rest else v for name, v in batch.blobs.items()} or rest
        items = np.concatenate([items, batch.items])
        whole = len(items) // rows
        rest = {name: values[whole * rows :].copy() for name, values in rows_of.items()}
        means = {name: _means(values, whole, rows) for name, values in rows_of.items() if whole}
        numbers, items = items[: whole * rows : rows] // rows, items[whole * rows :]
        skipped += batch.skipped
        if whole or (skipped and not batch.size):
            yield replace(batch, items=numbers, blobs=means, counted=np.ones(whole, np.bool_), skipped=skipped)
            skipped = []


def _means(values: FloatArray, items: int, rows: int) -> FloatArray:
    groups = values[: items * rows].reshape(items, rows, *values.shape[1:])
    return np.asarray(groups.mean(axis=1), np.float32)


def join(batches: Sequence[OutputBatch], kinds: Mapping[str, str]) -> dict[str, FloatArray]:
    """One array for each output: rows one after another; a value without a batch axis is averaged over the items.

    A Python layer may make another number of rows in each batch; these are rows then. CaffeconvError where the rows do
    not go together.
    """
    rows_of: dict[str, FloatArray] = {}
    total = sum(batch.size for batch in batches)
    for name, first in batches[0].blobs.items():
        arrays = [batch.blobs[name] for batch in batches]
        if kinds.get(name) == "detections":
            rows_of[name] = np.concatenate([_renumbered(b.blobs[name], b.first_item) for b in batches], axis=2)
        elif len(batches) == 1:
            rows_of[name] = first
        elif len({array.shape[1:] for array in arrays}) > 1:
            shapes = " and ".join(dict.fromkeys(format_shape(array.shape) for array in arrays))
            raise CaffeconvError(
                f"output '{name}' is {shapes} in different batches; one shape was needed to put them together. Leave the "
                "output out, or take all items in one batch (`batch_size=…`)"
            )
        elif first.ndim and (_has_rows(name, batches) or len({len(array) for array in arrays}) > 1):
            rows_of[name] = np.concatenate(arrays)
        else:
            weights = [np.float64(batch.size) / total for batch in batches]
            mean = sum(a.astype(np.float64) * w for a, w in zip(arrays, weights, strict=True))
            rows_of[name] = np.asarray(mean, np.float32)
    return rows_of


def _has_rows(name: str, batches: Sequence[OutputBatch]) -> bool:
    return all(len(batch.blobs[name]) == batch.size for batch in batches)


def _renumbered(detections: FloatArray, start: int) -> FloatArray:
    """Detections whose picture numbers count from the run's first picture, not from the batch's."""
    boxes: FloatArray = detections.copy()
    boxes[..., 0] += start
    return boxes
