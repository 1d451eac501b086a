"""Runs a net over the data of its data layers, pass after pass, while threads make the next batches."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caffeconv.data.prefetch import InputBatch, Prefetcher, default_threads
from caffeconv.data.source import DataSource
from caffeconv.errors import CaffeconvError
from caffeconv.ir.definition import error_context
from caffeconv.net.net import Net
from caffeconv.tensor.shape import FloatArray

Positions = Mapping[str, int]
"""Data layer → how many items of its source are behind, all rounds counted."""


@dataclass(frozen=True)
class OutputBatch:
    """What one pass over the net gave."""

    number: int
    """Which pass it was, from 0."""
    first_item: int
    """The position of the leading layer's first item."""
    blobs: Mapping[str, FloatArray]
    """Values that belong to the net; copy what is to outlive the next pass."""
    in_round: NDArray[np.bool_]
    """For each item of the leading layer's batch, whether it counts (a last batch may go beyond the round)."""
    positions: Positions
    """Where the data layers go on."""
    skipped: Sequence[str]
    """Damaged items that were passed over on the way, as messages that name them; in each round the same ones."""


@dataclass
class Throughput:
    """How fast it went, and what it waited for."""

    items: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    """Seconds for which the net stood still because a batch was not ready."""

    def __str__(self) -> str:
        seconds = max(self.seconds, 1e-9)
        return f"{self.items / seconds:.1f} items/s, {self.waited / seconds:.0%} of the time waiting for data"


class DatasetRunner:
    """A net over its data: iterating gives a `OutputBatch` for each batch, in order, the same ones for any number of threads.

    Args:
        net: its data layers' cursors are set to `begin`, and moved.
        blobs: what each pass is to give.
        passes: how many; None: as many as one round of the source that takes most needs (`leading`).
        begin: where to begin instead of at the first items; `first`: how many passes are behind.
        most: so many passes at most, wherever the round ends; nothing beyond them is read.
        threads: that decode and transform; 0: none, everything one after another; None: one for each core.
        skip_bad: pass over items that are damaged, as if they were not in the source. Otherwise the first one raises
            CaffeconvError.
    """

    def __init__(
        self, net: Net, blobs: Sequence[str], *, passes: int | None = None, begin: Positions | None = None,
        first: int = 0, most: int | None = None, threads: int | None = None, skip_bad: bool = False,
    ) -> None:  # fmt: skip
        self.net = net
        self.blobs = list(blobs)
        self.pace = Throughput()
        self.sources: Mapping[str, DataSource] = net.sources
        self.items: dict[str, int] = {}
        """Data layer → items in one round of its source."""
        self._passes = passes
        self._begin: Positions = begin or {}
        self._first = first
        self._most = most
        self._threads = default_threads() if threads is None else threads
        for layer, source in self.sources.items():
            source.skips_bad = skip_bad
            with error_context(net.definition_of(layer)):
                source.seek(self._begin.get(layer, 0))
                self.items[layer] = source.count_items()
        self.leading: str | None = max(self.sources, key=self._round_of, default=None)
        """The data layer whose source takes most passes."""
        self.end: int | None = self.items[self.leading] if passes is None and self.leading is not None else None
        """The position from which on the leading layer's items do not count; None: all do."""

    def _round_of(self, layer: str) -> int:
        return math.ceil(self.items[layer] / self.sources[layer].batch_size)

    @property
    def total(self) -> int:
        """How many passes there are, those before `first` included; where items are passed over, at most."""
        if self._passes is not None:
            return self._passes
        return self._round_of(self.leading) if self.leading is not None else 1

    @property
    def total_items(self) -> int:
        """How many items of the leading layer all passes take."""
        return self.total * (self.sources[self.leading].batch_size if self.leading is not None else 1)

    def __iter__(self) -> Iterator[OutputBatch]:
        threads = self._threads
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(threads, "caffeconv decodes")) if threads else None
            feeders = {
                layer: stack.enter_context(Prefetcher(source, pool, 4 * threads, self._most))
                for layer, source in self.sources.items()
            }
            begun, positions = time.perf_counter(), dict(self._begin)
            number = self._first
            while self._goes_on(number, positions) and (self._most is None or number < self._first + self._most):
                fed = {layer: self._next(layer, feeder) for layer, feeder in feeders.items()}
                blobs = self.net.run_pass(self._feeds(fed), self.blobs)
                positions = {layer: batch.next_position for layer, batch in fed.items()}
                skipped = [text for batch in fed.values() for text in batch.skipped]
                self._keep_pace(begun, fed, feeders)
                yield OutputBatch(number, self._first_item(fed), blobs, self._in_round(fed), positions, skipped)
                number += 1

    def _goes_on(self, number: int, positions: Positions) -> bool:
        if self._passes is not None or self.leading is None:
            return number < self.total
        return positions.get(self.leading, 0) < self.items[self.leading]

    def _next(self, layer: str, feeder: Prefetcher) -> InputBatch:
        with error_context(self.net.definition_of(layer)):
            return feeder.next_batch()

    def _feeds(self, fed: Mapping[str, InputBatch]) -> dict[str, FloatArray]:
        return {
            top: values
            for layer, batch in fed.items()
            for top, values in zip(self.sources[layer].tops, batch.blobs, strict=True)
        }

    def _in_round(self, fed: Mapping[str, InputBatch]) -> NDArray[np.bool_]:
        if self.leading is None:
            return np.ones(1, np.bool_)
        positions = fed[self.leading].positions
        return np.ones(len(positions), np.bool_) if self.end is None else positions < self.end

    def _first_item(self, fed: Mapping[str, InputBatch]) -> int:
        return int(fed[self.leading].positions[0]) if self.leading is not None else 0

    def _keep_pace(self, begun: float, fed: Mapping[str, InputBatch], feeders: Mapping[str, Prefetcher]) -> None:
        self.pace.items += 1 if self.leading is None else len(fed[self.leading].positions)
        self.pace.seconds = time.perf_counter() - begun
        self.pace.waited = sum(feeder.waited for feeder in feeders.values())


def no_data_error(net: Net) -> CaffeconvError:
    """What to say of a net whose inputs nobody fills."""
    return CaffeconvError(
        f"nothing fills {', '.join(net.inputs)}: the net has no data layer for it; "
        "give --input BLOB=SOURCE, or --input-db PATH (LMDB or LevelDB)"
    )
