"""Runs over data that workers elsewhere share: each makes some passes, and they come back in order, as from one net."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from caffeconv.data.input_items import Source
from caffeconv.errors import CaffeconvError
from caffeconv.inference.data_passes import DatasetRunner, OutputBatch, Positions
from caffeconv.inference.input_batches import Batch, batch_size_of, count_items, run_batches
from caffeconv.net.net import Net
from caffeconv.runtime.session import Session
from caffeconv.tensor.shape import Shape, count

Job = TypeVar("Job")
Result_co = TypeVar("Result_co", covariant=True)

_ITEMS_A_SHARD = 256
_BYTES_A_SHARD = 32 << 20
"""What the results of a shard may take: workers, and whoever gathers their results, hold a few of them."""
_SHARDS_A_WORKER = 4
"""At least so many shards for each worker where there is enough to do, lest the last ones work alone."""


class Workers(Protocol[Job, Result_co]):
    """What does jobs, several at a time; `caffeconv.inference.ray_workers.RayWorkers` is one."""

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def in_order(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Result_co], None, None]:
        """Each job and what came of it, in the jobs' order. What is begun when it is closed is dropped."""
        ...


def passes_a_shard(batch_size: int, bytes_a_pass: int, passes: int, workers: int) -> int:
    """How many passes to make at a time: enough to be worth a message, few enough to be held in memory."""
    worthwhile = math.ceil(_ITEMS_A_SHARD / batch_size)
    held = _BYTES_A_SHARD // max(1, bytes_a_pass)
    fair = math.ceil(passes / (workers * _SHARDS_A_WORKER))
    return max(1, min(worthwhile, held, fair))


# -- nets over their data layers -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shard:
    """Some passes of a net over its data."""

    first: int
    """Which pass it begins with."""
    passes: int
    """So many at most; the round may end before."""
    begin: Positions
    """Where the data layers begin."""

    def __str__(self) -> str:
        return f"batches {self.first}–{self.first + self.passes - 1}"


@dataclass(frozen=True)
class Passes:
    """What came of a shard."""

    made: Sequence[OutputBatch]
    waited: float
    """Seconds for which the net waited for data."""
    error: str = ""
    """What was wrong with the item after those; empty where nothing was."""


@dataclass(frozen=True)
class RunnerBuild:
    """Makes, where a worker is, what makes shards."""

    open_net: Callable[[int], Net]
    """Opens the net, with its data, for so many threads."""
    blobs: Sequence[str]
    items: Mapping[str, int]
    """Data layer → items in one round of its source, as the driver counts them."""
    passes: int | None
    decoders: int | None
    skip_bad: bool

    def __call__(self, threads: int) -> Callable[[Shard], Passes]:
        net = self.open_net(threads)
        return partial(self._make, net, threads if self.decoders is None else self.decoders)

    def _make(self, net: Net, decoders: int, shard: Shard) -> Passes:
        sweep = DatasetRunner(
            net, self.blobs, passes=self.passes, begin=shard.begin, first=shard.first, most=shard.passes, threads=decoders,
            skip_bad=self.skip_bad,
        )  # fmt: skip
        for layer, items in sweep.items.items():
            if items != self.items[layer]:
                raise CaffeconvError(
                    f"{sweep.sources[layer].name}: {items} items where the worker is, {self.items[layer]} where the run was "
                    "started; the same were needed on every machine"
                )
        made: list[OutputBatch] = []
        try:
            for one in sweep:
                blobs = {name: np.array(values) for name, values in one.blobs.items()}
                made.append(replace(one, blobs=blobs, in_round=one.in_round.copy()))
        except CaffeconvError as error:
            return Passes(made, sweep.pace.waited, str(error))
        return Passes(made, sweep.pace.waited)


class ShardedRunner(DatasetRunner):
    """A `DatasetRunner` whose passes workers make: iterating gives the same ones, in the same order.

    `net` is only asked what it is. Shards are planned as if no item were damaged. Where one was passed over, all that
    comes after begins later than planned, and is made again.
    """

    def __init__(
        self, net: Net, blobs: Sequence[str], workers: Workers[Shard, Passes], *, passes: int | None = None,
        begin: Positions | None = None, first: int = 0, skip_bad: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(net, blobs, passes=passes, begin=begin, first=first, threads=0, skip_bad=skip_bad)
        self._workers = workers

    def __iter__(self) -> Iterator[OutputBatch]:
        begun = time.perf_counter()
        number, positions = self._first, {layer: self._begin.get(layer, 0) for layer in self.sources}
        while self._goes_on(number, positions):
            with closing(self._workers.in_order(self._shards(number, positions))) as results:
                for shard, passes in results:
                    if shard.begin != positions:
                        break
                    self.pace.waited += passes.waited / self._workers.count
                    for one in passes.made:
                        number, positions = one.number + 1, dict(one.positions)
                        self.pace.items += len(one.in_round)
                        self.pace.seconds = time.perf_counter() - begun
                        yield one
                    if passes.error:
                        raise CaffeconvError(passes.error)

    def _shards(self, number: int, begin: Positions) -> Iterator[Shard]:
        """As long as the round, or the passes asked for, last."""
        while self._goes_on(number, begin):
            yield Shard(number, self._passes_a_shard, begin)
            number += self._passes_a_shard
            behind = self._passes_a_shard
            begin = {layer: place + behind * self.sources[layer].batch_size for layer, place in begin.items()}

    @property
    def _passes_a_shard(self) -> int:
        assert self.leading is not None, "refuse_order came first"
        size = sum(4 * count(self.net.shape_of(blob)) for blob in self.blobs)
        left = self.total - self._first
        return passes_a_shard(self.sources[self.leading].batch_size, size, left, self._workers.count)


def refuse_order(net: Net) -> None:
    """Raises CaffeconvError for a net whose passes cannot be shared out."""
    if not net.sources:
        raise CaffeconvError("--engine ray: the net reads no data that could be shared out; leave --engine ray out")
    for layer, why in net.bound_to_order().items():
        raise CaffeconvError(
            f"{net.definition_of(layer).where}: it {why}, so batches have to go through one net in their order; "
            "leave --engine ray out"
        )


# -- sessions over pictures and arrays -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ItemRange:
    """Items start…stop-1 of the inputs."""

    start: int
    stop: int

    def __str__(self) -> str:
        return f"items {self.start}–{self.stop - 1}"


@dataclass(frozen=True)
class Batches:
    """What came of some items."""

    made: Sequence[Batch]
    error: str = ""
    """What was wrong with the batch after those; empty where nothing was."""


@dataclass(frozen=True)
class BatchesBuild:
    """Makes, where a worker is, what runs items through a session."""

    open_session: Callable[[int], Session]
    """Opens the session for so many threads."""
    sources: Mapping[str, Source]
    batch_size: int | None

    def __call__(self, threads: int) -> Callable[[ItemRange], Batches]:
        return partial(self._make, self.open_session(threads))

    def _make(self, session: Session, items: ItemRange) -> Batches:
        made: list[Batch] = []
        try:
            for batch in run_batches(session, self.sources, self.batch_size, start=items.start, stop=items.stop):
                made.append(batch)
        except CaffeconvError as error:
            return Batches(made, str(error))
        return Batches(made)


def run_batches_sharded(
    workers: Workers[ItemRange, Batches], session: Session, sources: Mapping[str, Source], batch_size: int | None,
    start: int = 0,
) -> Iterator[Batch]:  # fmt: skip
    """What `run_batches` yields, made by workers; `session` is only asked what it is."""
    total, step = count_items(session, sources), batch_size_of(session, batch_size)
    size = sum(4 * step * count(_known(dims[1:])) for dims in session.outputs.values())
    each = step * passes_a_shard(step, size, math.ceil((total - start) / step), workers.count)
    jobs = (ItemRange(first, min(first + each, total)) for first in range(start, total, each))
    with closing(workers.in_order(jobs)) as results:
        for _, batches in results:
            yield from batches.made
            if batches.error:
                raise CaffeconvError(batches.error)


def _known(dims: Sequence[int | str]) -> Shape:
    return tuple(size for size in dims if isinstance(size, int))
