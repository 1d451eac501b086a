"""Runs a session over sources, a batch at a time, and gathers its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from caffeconv.data.input_items import Source
from caffeconv.data.prefetch import default_threads, in_order
from caffeconv.errors import CaffeconvError
from caffeconv.runtime.session import Session
from caffeconv.tensor.shape import FloatArray, format_shape

DEFAULT_BATCH = 16
_AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """What one pass gave: outputs by blob for items start…start+size-1."""

    start: int
    size: int
    outputs: Mapping[str, FloatArray]


def batch_size_of(session: Session, asked: int | None) -> int:
    """Items per pass: the model's batch size where it is fixed, else what is asked for."""
    fixed = {shape[0] for shape in session.inputs.values() if shape and isinstance(shape[0], int)}
    if not fixed:
        return asked or DEFAULT_BATCH
    size = max(fixed)
    if asked not in (None, size):
        raise CaffeconvError(f"--batch-size {asked}: the model's batch size is fixed at {size}")
    return size


def run_batches(
    session: Session, sources: Mapping[str, Source], batch_size: int | None = None, *, start: int = 0,
    stop: int | None = None,
) -> Iterator[Batch]:  # fmt: skip
    """Yields the outputs of every batch from item `start` on, up to `stop`; the last one may be smaller.

    Two batches are read ahead, in threads, while the session computes.

    Where the model's batch size is fixed, a last batch that is too small is filled up with its last item, and the rows
    that come of that are dropped.
    """
    total = count_items(session, sources)
    fixed = any(shape and isinstance(shape[0], int) for shape in session.inputs.values())
    step = batch_size_of(session, batch_size)
    end = total if stop is None else min(stop, total)
    for first, size, feeds in _read_ahead(sources, range(start, end, step), total):
        if fixed and size < step:
            feeds = {name: _filled_up(array, step) for name, array in feeds.items()}
        outputs = session.run(feeds)
        if fixed and size < step:
            outputs = {name: _trimmed(array, step, size, session.kind(name)) for name, array in outputs.items()}
        yield Batch(first, size, outputs)


def count_items(session: Session, sources: Mapping[str, Source]) -> int:
    """Items of a run; CaffeconvError where an input has no source, or the sources do not go together."""
    missing = [name for name in session.inputs if name not in sources]
    if missing:
        raise CaffeconvError(
            f"input '{missing[0]}' has no source; give --input {missing[0]}=FILE (.npy, .npz, .binaryproto or a picture)"
        )
    lengths = {name: len(source) for name, source in sources.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise CaffeconvError(f"the inputs have different numbers of items ({listed}); as many for each were needed")
    total = next(iter(lengths.values()), 1)
    if total == 0:
        raise CaffeconvError(f"input '{next(iter(lengths))}' holds no item")
    return total


def _read_ahead(
    sources: Mapping[str, Source], starts: range, total: int
) -> Iterator[tuple[int, int, dict[str, FloatArray]]]:
    def read(start: int) -> tuple[int, int, dict[str, FloatArray]]:
        size = min(starts.step, total - start)
        return start, size, {name: source.read(start, start + size) for name, source in sources.items()}

    with ThreadPoolExecutor(default_threads(), "caffeconv reads") as pool:
        yield from in_order((partial(read, start) for start in starts), pool, _AHEAD)


def averaged(batches: Iterable[Batch], rows: int) -> Iterator[Batch]:
    """Batches in which each item is the mean of so many rows, one after another (caffe: classifier.py predict).

    Raises CaffeconvError for an output that has no row for each item.
    """
    left: dict[str, FloatArray] = {}
    start = 0
    for batch in batches:
        for name, values in batch.outputs.items():
            if values.ndim == 0 or len(values) != batch.size:
                raise CaffeconvError(
                    f"--oversample: output '{name}' is {values.shape} for {batch.size} crops; "
                    "a row for each crop was needed, as classifiers give. Leave --oversample out"
                )
        joined = {name: np.concatenate([left[name], v]) if left else v for name, v in batch.outputs.items()}
        whole = len(next(iter(joined.values()))) // rows
        left = {name: values[whole * rows :] for name, values in joined.items()}
        if whole:
            yield Batch(start, whole, {name: _means(values, whole, rows) for name, values in joined.items()})
        start += whole


def _means(values: FloatArray, items: int, rows: int) -> FloatArray:
    grouped = values[: items * rows].reshape(items, rows, *values.shape[1:])
    return np.asarray(grouped.mean(axis=1), np.float32)


def _filled_up(array: FloatArray, size: int) -> FloatArray:
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def _trimmed(array: FloatArray, step: int, size: int, kind: str) -> FloatArray:
    if kind == "detections":
        rows = array.reshape(-1, 7)
        kept: FloatArray = rows[rows[:, 0] < size].reshape(1, 1, -1, 7)
        return kept
    return array[:size] if array.ndim and array.shape[0] == step else array


def join(batches: list[Batch], kinds: Mapping[str, str]) -> dict[str, FloatArray]:
    """One array for each output: rows one after another; a value without a batch axis is averaged over the items.

    A Python layer may make another number of rows in each batch; these are rows then. CaffeconvError where the rows do
    not go together.
    """
    joined: dict[str, FloatArray] = {}
    total = sum(batch.size for batch in batches)
    for name, first in batches[0].outputs.items():
        arrays = [batch.outputs[name] for batch in batches]
        if kinds.get(name) == "detections":
            joined[name] = np.concatenate([_renumbered(b.outputs[name], b.start) for b in batches], axis=2)
        elif len(batches) == 1:
            joined[name] = first
        elif len({array.shape[1:] for array in arrays}) > 1:
            shapes = " and ".join(dict.fromkeys(format_shape(array.shape) for array in arrays))
            raise CaffeconvError(
                f"output '{name}' is {shapes} in different batches; one shape was needed to put them together. Leave the "
                "output out, or take all items in one batch (--batch-size)"
            )
        elif first.ndim and (_has_rows(name, batches) or len({len(array) for array in arrays}) > 1):
            joined[name] = np.concatenate(arrays)
        else:
            weights = [np.float64(batch.size) / total for batch in batches]
            mean = sum(a.astype(np.float64) * w for a, w in zip(arrays, weights, strict=True))
            joined[name] = np.asarray(mean, np.float32)
    return joined


def _has_rows(name: str, batches: list[Batch]) -> bool:
    return all(len(batch.outputs[name]) == batch.size for batch in batches)


def _renumbered(detections: FloatArray, start: int) -> FloatArray:
    """Detections whose picture numbers count from the run's first picture, not from the batch's."""
    moved: FloatArray = detections.copy()
    moved[..., 0] += start
    return moved
