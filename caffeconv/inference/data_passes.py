"""Runs a model over what its sources hold, batch after batch, while threads make the next batches."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from caffeconv.data.prefetch import InputBatch, Prefetcher, default_threads
from caffeconv.data.source import DataSource
from caffeconv.errors import CaffeconvError
from caffeconv.inference.output_batches import OutputBatch, Positions
from caffeconv.ir.definition import LayerDef, error_context
from caffeconv.tensor.shape import FloatArray

if TYPE_CHECKING:
    from caffeconv.net.net import Net


class Model(Protocol):
    """What is run: a `Net`, a `Session`, or what stands before one."""

    @property
    def inputs(self) -> Collection[str]:
        """What the caller has to feed."""
        ...

    @property
    def outputs(self) -> Collection[str]: ...

    def kind(self, output: str) -> str:
        """What an output means: probabilities, detections, loss, …; empty where nothing says it."""
        ...

    def run(self, feeds: Mapping[str, FloatArray], outputs: Sequence[str]) -> Mapping[str, FloatArray]:
        """Input → values, float32, in; output → values out, which may be the model's own until the next run."""
        ...


@dataclass(frozen=True)
class Dataset:
    """A model, and the sources that fill its inputs."""

    model: Model
    sources: Mapping[str, DataSource]
    """By the data layer, or by the input, that they fill."""
    layers: Mapping[str, LayerDef] = field(default_factory=dict)
    """The data layers among these, which errors name."""


def own_data(net: Net) -> Dataset:
    """A net with what its data layers read."""
    return Dataset(net, net.sources, {layer: net.definition_of(layer) for layer in net.sources})


@dataclass
class Throughput:
    """How fast it went, and what it waited for."""

    items: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    """Seconds for which the model stood still because a batch was not ready."""

    def __str__(self) -> str:
        seconds = max(self.seconds, 1e-9)
        return f"{self.items / seconds:.1f} items/s, {self.waited / seconds:.0%} of the time waiting for data"


class DatasetRunner:
    """A model over its data: iterating gives an `OutputBatch` for each batch, in order, the same for any number of threads.

    Args:
        dataset: its sources' cursors are set to `begin`, and moved.
        blobs: what each pass is to give.
        passes: how many; None: as many as one epoch of the source that takes most needs (`leading`).
        begin: where to begin instead of at the first items; `first`: how many passes are done.
        most: so many passes at most, wherever the epoch ends; nothing beyond them is read.
        threads: that decode and transform; 0: none, everything one after another; None: one for each core.
        skip_bad: pass over items that are corrupt, as if they were not in the source. Otherwise the first one raises
            CaffeconvError.
    """

    def __init__(
        self, dataset: Dataset, blobs: Sequence[str], *, passes: int | None = None, begin: Positions | None = None,
        first: int = 0, most: int | None = None, threads: int | None = None, skip_bad: bool = False,
    ) -> None:  # fmt: skip
        self.model = dataset.model
        self.blobs = list(blobs)
        self.throughput = Throughput()
        self.sources = dataset.sources
        self.items: dict[str, int] = {}
        """Source → items in one epoch of it."""
        self._layers = dataset.layers
        self._passes = passes
        self._begin: Positions = begin or {}
        self._first = first
        self._most = most
        self._threads = default_threads() if threads is None else threads
        for name, source in self.sources.items():
            source.skips_bad = skip_bad
            with self._context(name):
                source.seek(self._begin.get(name, 0))
                self.items[name] = source.count_items()
        self.leading: str | None = max(self.sources, key=self._epoch_of, default=None)
        """The source that takes most passes."""
        self.end: int | None = self.items[self.leading] if passes is None and self.leading is not None else None
        """The position from which on the leading source's items do not count; None: all do."""

    def _context(self, name: str) -> AbstractContextManager[None]:
        return error_context(self._layers[name]) if name in self._layers else nullcontext()

    def _epoch_of(self, name: str) -> int:
        return math.ceil(self.items[name] / self.sources[name].batch_size)

    @property
    def total(self) -> int:
        """How many passes there are, those before `first` included; where items are passed over, at most."""
        if self._passes is not None:
            return self._passes
        return self._epoch_of(self.leading) if self.leading is not None else 1

    @property
    def total_items(self) -> int:
        """How many items of the leading source all passes take."""
        return self.total * (self.sources[self.leading].batch_size if self.leading is not None else 1)

    def __iter__(self) -> Iterator[OutputBatch]:
        threads = self._threads
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(threads, "caffeconv decodes")) if threads else None
            prefetchers = {
                name: stack.enter_context(Prefetcher(source, pool, 4 * threads, self._most))
                for name, source in self.sources.items()
            }
            start, positions = time.perf_counter(), dict(self._begin)
            number = self._first
            while self._goes_on(number, positions) and (self._most is None or number < self._first + self._most):
                batches = {name: self._next(name, prefetcher) for name, prefetcher in prefetchers.items()}
                output = self._run(number, batches)
                positions = dict(output.positions)
                self._measure(start, output, prefetchers)
                yield output
                number += 1

    def _goes_on(self, number: int, positions: Positions) -> bool:
        if self._passes is not None or self.leading is None:
            return number < self.total
        return positions.get(self.leading, 0) < self.items[self.leading]

    def _next(self, name: str, prefetcher: Prefetcher) -> InputBatch:
        with self._context(name):
            return prefetcher.next_batch()

    def _run(self, number: int, batches: Mapping[str, InputBatch]) -> OutputBatch:
        items = batches[self.leading].positions if self.leading is not None else np.zeros(1, np.int64)
        blobs = self.model.run(self._feeds(batches), self.blobs) if len(items) else {}
        positions = {name: batch.next_position for name, batch in batches.items()}
        skipped = [text for batch in batches.values() for text in batch.skipped]
        return OutputBatch(number, items, blobs, self._counted(items), positions, skipped)

    def _feeds(self, batches: Mapping[str, InputBatch]) -> dict[str, FloatArray]:
        return {
            top: values
            for name, batch in batches.items()
            for top, values in zip(self.sources[name].tops, batch.blobs, strict=True)
        }

    def _counted(self, items: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.ones(len(items), np.bool_) if self.end is None else items < self.end

    def _measure(self, start: float, output: OutputBatch, prefetchers: Mapping[str, Prefetcher]) -> None:
        self.throughput.items += len(output.items)
        self.throughput.seconds = time.perf_counter() - start
        self.throughput.waited = sum(prefetcher.waited for prefetcher in prefetchers.values())


def no_data_error(net: Net) -> CaffeconvError:
    """What to say of a net whose inputs nobody fills."""
    return CaffeconvError(
        f"nothing fills {', '.join(net.inputs)}: the net has no data layer for it; "
        "give `input=BLOB=SOURCE`, or `input_db=PATH` (LMDB or LevelDB)"
    )
