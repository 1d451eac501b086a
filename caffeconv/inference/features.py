"""Features of data of any size (caffe: tools/extract_features.cpp): rows to a file, whole or to be gone on with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from caffeconv.inference.checkpoint import Checkpoint, Journal, NoSpaceError
from caffeconv.inference.data_passes import DatasetRunner, OutputBatch
from caffeconv.inference.feature_files import check_rows, make_feature_file
from caffeconv.tensor.shape import FloatArray

_NOTE_EVERY = 0.5
"""Seconds between two times that rows are made to count."""


@dataclass(frozen=True)
class RowBlock:
    """The rows that one pass gave."""

    items: int
    rows: Mapping[str, FloatArray]
    """Blob → rows along axis 0."""
    positions: Mapping[str, int] = field(default_factory=dict)
    skipped: Sequence[str] = ()
    states: Mapping[str, FloatArray] = field(default_factory=dict)


def chunks_of(sweep: DatasetRunner) -> Iterator[RowBlock]:
    """The rows of each pass of a net over its data; those of a last batch that belong to the next round left out."""
    kinds = sweep.net.kinds()
    for one in sweep:
        rows = {blob: _rows(values, one, kinds.get(blob, "")) for blob, values in one.blobs.items()}
        yield RowBlock(int(one.in_round.sum()), rows, one.positions, one.skipped, sweep.net.states)


def _rows(values: FloatArray, one: OutputBatch, kind: str) -> FloatArray:
    if kind == "detections":
        return _detections(values, one)
    if values.ndim == 0:  # caffe: Blob::num — axes that a blob lacks count as 1
        return values.reshape(1)
    return values[one.in_round] if len(values) == len(one.in_round) and not one.in_round.all() else values


def _detections(values: FloatArray, one: OutputBatch) -> FloatArray:
    """N×7, whose picture numbers count from the run's first item."""
    found = values.reshape(-1, 7)
    rows: FloatArray = found[found[:, 0] < one.in_round.sum()].copy()
    rows[:, 0] += np.float32(one.first_item)
    return rows


def write_features(
    parts: Checkpoint, chunks: Iterable[RowBlock], advance: Callable[[int], None], items: Sequence[str] = ()
) -> None:  # fmt: skip
    """Adds chunks to a run's rows until they end, then makes its file.

    `advance` is told of items once nothing can take them away again. Whatever stops the run, an interruption or a full
    disk too, what was added until then counts where it is gone on with. `items` names the rows in a file that holds names.
    """
    journal = parts.journal
    states: Mapping[str, FloatArray] = parts.states()
    noted, told = time.monotonic(), journal.items
    if not journal.done:
        try:
            for chunk in chunks:
                check_rows(parts.out, chunk.rows)
                parts.append(chunk.rows)
                journal, states = _with(parts, chunk), chunk.states
                parts.journal = journal
                if time.monotonic() - noted >= _NOTE_EVERY:
                    parts.note(journal, states)
                    advance(journal.items - told)
                    noted, told = time.monotonic(), journal.items
        except BaseException:
            with suppress(NoSpaceError):
                parts.note(journal, states)
            raise
        parts.note(journal, states)
        parts.finish_parts()
        parts.note(replace(parts.journal, done=True), {})
        advance(journal.items - told)
    make_feature_file(parts, items)


def _with(parts: Checkpoint, chunk: RowBlock) -> Journal:
    journal = parts.journal
    return replace(
        journal, passes=journal.passes + 1, items=journal.items + chunk.items, positions=dict(chunk.positions),
        skipped=tuple(dict.fromkeys([*journal.skipped, *chunk.skipped])),  # a later round meets the same items again
    )  # fmt: skip


def stamp(files: Iterable[Path]) -> str:
    """Sizes and times of files: by these a source is known again."""
    statuses = [file.stat() for file in files]
    size, last = sum(status.st_size for status in statuses), max((status.st_mtime_ns for status in statuses), default=0)
    return f"{size} bytes, changed at {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(last // 10**9))} UTC"
