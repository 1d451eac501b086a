"""Features of data of any size (caffe: tools/extract_features.cpp): rows to a file, whole or to be gone on with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from caffeconv.inference.checkpoint import Checkpoint, Journal, NoSpaceError
from caffeconv.inference.data_passes import DatasetRunner
from caffeconv.inference.feature_files import ItemName
from caffeconv.inference.output_batches import OutputBatch
from caffeconv.inference.result_files import check_rows, make_feature_file
from caffeconv.tensor.shape import FloatArray

_COMMIT_EVERY = 0.5
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


def row_blocks(
    runner: DatasetRunner, states: Callable[[], Mapping[str, FloatArray]] = dict
) -> Iterator[RowBlock]:  # fmt: skip
    """The rows of each pass; those of a last batch that belong to the next epoch left out.

    states: what recurrent layers keep after the pass.
    """
    for batch in runner:
        rows = {blob: _rows(values, batch, runner.model.kind(blob)) for blob, values in batch.blobs.items()}
        yield RowBlock(int(batch.counted.sum()), rows, batch.positions, batch.skipped, states())


def _rows(values: FloatArray, batch: OutputBatch, kind: str) -> FloatArray:
    if kind == "detections":
        return _detections(values, batch)
    if values.ndim == 0:  # caffe: Blob::num — axes that a blob lacks count as 1
        return values.reshape(1)
    return values[batch.counted] if len(values) == batch.size and not batch.counted.all() else values


def _detections(values: FloatArray, batch: OutputBatch) -> FloatArray:
    """N×7, or N×15 with polygons, whose image numbers count from the run's first item."""
    boxes = values.reshape(-1, values.shape[-1])
    rows: FloatArray = boxes[boxes[:, 0] < batch.counted.sum()].copy()
    rows[:, 0] += np.float32(batch.first_item)
    return rows


def write_features(
    checkpoint: Checkpoint, blocks: Iterable[RowBlock], advance: Callable[[int], None],
    item_name: ItemName | None = None,
) -> None:  # fmt: skip
    """Adds blocks to a run's rows until they end, then makes its file.

    `advance` is told of items once nothing can take them away again. Whatever stops the run, an interruption or a full
    disk too, what was added until then counts where it is resumed. `item_name` names the rows in a file that holds names.
    """
    journal = checkpoint.journal
    states: Mapping[str, FloatArray] = checkpoint.states()
    last_commit, committed_items = time.monotonic(), journal.items
    if not journal.done:
        try:
            for block in blocks:
                check_rows(checkpoint.out, block.rows)
                checkpoint.append(block.rows)
                journal, states = _with(checkpoint, block), block.states
                checkpoint.journal = journal
                if time.monotonic() - last_commit >= _COMMIT_EVERY:
                    checkpoint.commit(journal, states)
                    advance(journal.items - committed_items)
                    last_commit, committed_items = time.monotonic(), journal.items
        except BaseException:
            with suppress(NoSpaceError):
                checkpoint.commit(journal, states)
            raise
        checkpoint.commit(journal, states)
        checkpoint.finish_parts()
        checkpoint.commit(replace(checkpoint.journal, done=True), {})
        advance(journal.items - committed_items)
    make_feature_file(checkpoint, item_name)


def _with(checkpoint: Checkpoint, block: RowBlock) -> Journal:
    journal = checkpoint.journal
    return replace(
        journal, passes=journal.passes + 1, items=journal.items + block.items, positions=dict(block.positions),
        skipped=tuple(dict.fromkeys([*journal.skipped, *block.skipped])),  # a later epoch meets the same items again
    )  # fmt: skip
