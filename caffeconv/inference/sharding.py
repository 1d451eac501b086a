"""Runs over data that workers elsewhere share: each makes some passes, and they come back in order, as from one net."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from caffeconv.errors import CaffeconvError
from caffeconv.inference.data_passes import Dataset, DatasetRunner
from caffeconv.inference.output_batches import OutputBatch, Positions
from caffeconv.runtime.session import Session
from caffeconv.tensor.shape import count

if TYPE_CHECKING:
    from caffeconv.net.net import Net

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
    affordable = _BYTES_A_SHARD // max(1, bytes_a_pass)
    fair = math.ceil(passes / (workers * _SHARDS_A_WORKER))
    return max(1, min(worthwhile, affordable, fair))


@dataclass(frozen=True)
class Shard:
    """Some passes of a model over its data."""

    first: int
    """Which pass it begins with."""
    passes: int
    """So many at most; the epoch may end before."""
    begin: Positions
    """Where the sources begin."""

    def __str__(self) -> str:
        return f"batches {self.first}–{self.first + self.passes - 1}"


@dataclass(frozen=True)
class ShardResult:
    """What came of a shard."""

    batches: Sequence[OutputBatch]
    waited: float
    """Seconds for which the model waited for data."""
    error: str = ""
    """What was wrong with the item after those; empty where nothing was."""


@dataclass(frozen=True)
class RunnerBuild:
    """Makes, where a worker is, what makes shards."""

    open_dataset: Callable[[int], Dataset]
    """Opens the model, with its data, for so many threads."""
    blobs: Sequence[str]
    items: Mapping[str, int]
    """Source → items in one epoch of it, as the driver counts them."""
    passes: int | None
    decoders: int | None
    skip_bad: bool

    def __call__(self, threads: int) -> Callable[[Shard], ShardResult]:
        dataset = self.open_dataset(threads)
        return partial(self._make, dataset, threads if self.decoders is None else self.decoders)

    def _make(self, dataset: Dataset, decoders: int, shard: Shard) -> ShardResult:
        runner = DatasetRunner(
            dataset, self.blobs, passes=self.passes, begin=shard.begin, first=shard.first, most=shard.passes,
            threads=decoders, skip_bad=self.skip_bad,
        )  # fmt: skip
        for name, items in runner.items.items():
            if items != self.items[name]:
                raise CaffeconvError(
                    f"{runner.sources[name].name}: {items} items where the worker is, {self.items[name]} where the run was "
                    "started; the same were needed on every machine"
                )
        batches: list[OutputBatch] = []
        try:
            for batch in runner:
                blobs = {name: np.array(values) for name, values in batch.blobs.items()}
                batches.append(replace(batch, blobs=blobs, items=batch.items.copy(), counted=batch.counted.copy()))
        except CaffeconvError as error:
            return ShardResult(batches, runner.throughput.waited, str(error))
        return ShardResult(batches, runner.throughput.waited)


class ShardedRunner(DatasetRunner):
    """A `DatasetRunner` whose passes workers make: iterating gives the same ones, in the same order.

    The model is only asked what it is. Shards are planned as if no item were corrupt. Where one was passed over, all that
    comes after begins later than planned, and is made again. bytes_a_pass: about what the blobs of one pass take.
    """

    def __init__(
        self, dataset: Dataset, blobs: Sequence[str], workers: Workers[Shard, ShardResult], bytes_a_pass: int, *,
        passes: int | None = None, begin: Positions | None = None, first: int = 0, skip_bad: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(dataset, blobs, passes=passes, begin=begin, first=first, threads=0, skip_bad=skip_bad)
        self._workers = workers
        self._bytes_a_pass = bytes_a_pass

    def __iter__(self) -> Iterator[OutputBatch]:
        start = time.perf_counter()
        number, positions = self._first, {name: self._begin.get(name, 0) for name in self.sources}
        while self._goes_on(number, positions):
            with closing(self._workers.in_order(self._shards(number, positions))) as results:
                for shard, result in results:
                    if shard.begin != positions:
                        break
                    self.throughput.waited += result.waited / self._workers.count
                    for batch in result.batches:
                        number, positions = batch.number + 1, dict(batch.positions)
                        self.throughput.items += batch.size
                        self.throughput.seconds = time.perf_counter() - start
                        yield batch
                    if result.error:
                        raise CaffeconvError(result.error)

    def _shards(self, number: int, begin: Positions) -> Iterator[Shard]:
        """As long as the epoch, or the passes asked for, last."""
        while self._goes_on(number, begin):
            yield Shard(number, self._passes_a_shard, begin)
            number += self._passes_a_shard
            begin = {name: self._after(name, position) for name, position in begin.items()}

    def _after(self, name: str, position: int) -> int:
        """Where a source stands after a shard."""
        source = self.sources[name]
        position += self._passes_a_shard * source.batch_size
        return min(position, self.items[name]) if source.ends else position

    @property
    def _passes_a_shard(self) -> int:
        assert self.leading is not None, "refuse_order came first"
        left = self.total - self._first
        return passes_a_shard(self.sources[self.leading].batch_size, self._bytes_a_pass, left, self._workers.count)


def bytes_of_net(net: Net, blobs: Sequence[str]) -> int:
    """What the blobs of one pass take."""
    return sum(4 * count(net.shape_of(blob)) for blob in blobs)


def bytes_of_session(session: Session, batch_size: int, outputs: Sequence[str]) -> int:
    """What the outputs of one pass take, open sizes left aside."""
    shapes = (tuple(size for size in session.outputs[name][1:] if isinstance(size, int)) for name in outputs)
    return sum(4 * batch_size * count(shape) for shape in shapes)


def refuse_order(net: Net) -> None:
    """Raises CaffeconvError for a net whose passes cannot be shared out."""
    if not net.sources:
        raise CaffeconvError("`engine='ray'`: the net reads no data that could be shared out; leave `engine='ray'` out")
    for layer, why in net.bound_to_order().items():
        raise CaffeconvError(
            f"{net.definition_of(layer).where}: it {why}, so batches have to go through one net in their order; "
            "leave `engine='ray'` out"
        )
