"""Reads ahead: takes a source's items in order, makes them in several threads, and gathers batches beside the computing.

What decodes, resizes and transforms lets go of Python's lock, so threads are enough.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from caffeconv.data.source import BatchBuilder, DataSource, ItemBlock
from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import FloatArray

_T = TypeVar("_T")
_Values = Sequence[FloatArray] | CaffeconvError
_MOST_THREADS = 16
_BATCHES_AHEAD = 2


def default_threads() -> int:
    """As many threads as this process may use cores, within reason."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_THREADS)


def in_order(jobs: Iterable[Callable[[], _T]], pool: ThreadPoolExecutor, ahead: int) -> Iterator[_T]:
    """What the jobs give, in their order; up to `ahead` of them run, or wait, beyond the one that is given out."""
    waiting: deque[Future[_T]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@dataclass(frozen=True)
class InputBatch:
    """A batch as a net is fed with it."""

    blobs: Sequence[FloatArray]
    """A value for each top; filled anew once the next batch is asked for."""
    positions: NDArray[np.int64]
    """The position of each item in its source; none where all items that were left are corrupt."""
    next_position: int
    """Where the source goes on after this batch."""
    skipped: Sequence[str]
    """What was passed over on the way to this batch, as messages that name it."""

    def once_more(self) -> InputBatch:
        """The next batch of a source that one batch goes through whole."""
        count = len(self.positions)
        return replace(self, positions=self.positions + count, next_position=self.next_position + count)


class Prefetcher:
    """Batches of one source, in its order; the same ones whatever the number of threads.

    `pool` makes the items; a thread of the prefetcher's own takes them and gathers batches, at most two ahead. Without a
    pool everything happens when a batch is asked for. `batches`: so many are asked for at most, so that nothing beyond
    them is read. Close it (or use ``with``) when done.
    """

    def __init__(
        self, source: DataSource, pool: ThreadPoolExecutor | None, ahead: int, batches: int | None = None
    ) -> None:
        self.source = source
        self.waited = 0.0
        """Seconds for which batches were waited for."""
        self._pool = pool
        self._ahead = ahead
        self._left: float = math.inf if batches is None else (batches - 1) * source.batch_size
        """Items that the thread is still to take."""
        self._used: Queue[Sequence[FloatArray]] = Queue()
        self._batch: InputBatch | None = None
        self._ready: Queue[InputBatch | BaseException] = Queue(_BATCHES_AHEAD)
        self._stop = Event()
        self._constant = False
        self._block_size = 1
        self._like: Sequence[FloatArray] | None = None
        """Where an item of a wrong size is passed over: the first item, whose size is the right one."""
        self._thread: Thread | None = None

    def next_batch(self) -> InputBatch:
        """The next batch; CaffeconvError where an item is damaged and not to be passed over."""
        if self._constant and self._batch is not None:
            self._batch = self._batch.once_more()
            return self._batch
        start = time.perf_counter()
        if self._batch is not None:
            self._used.put(self._batch.blobs)
        if self._batch is None:
            # made here: a source that one batch goes through whole needs no more, and no thread
            whole = self.source.at_start
            self._batch = self._next_here()
            self._constant = whole and self.source.at_start and not self.source.is_random and not self._batch.skipped
            if self._pool is not None and not self._constant and not self.source.exhausted:
                self._begin(self._pool)
        else:
            self._batch = self._next_here() if self._thread is None else self._from_thread()
        self.waited += time.perf_counter() - start
        return self._batch

    def _next_here(self) -> InputBatch:
        blocks = (_make(self.source.take()) for _ in iter(lambda: self.source.exhausted, True))
        batch = next(self._gather(blocks), None)
        if batch is None:
            raise self._no_item_left()
        return batch

    def _no_item_left(self) -> CaffeconvError:
        return CaffeconvError(f"{self.source.name}: no item is left")

    def _begin(self, pool: ThreadPoolExecutor) -> None:
        self._thread = Thread(target=self._work, args=(pool,), name=f"reads {self.source.name}", daemon=True)
        self._thread.start()

    def _from_thread(self) -> InputBatch:
        item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def _work(self, pool: ThreadPoolExecutor) -> None:
        ahead = max(1, self._ahead // self._block_size)
        try:
            for batch in self._gather(self._values_in_order(pool, ahead)):
                if not self._hand_over(batch):
                    return
            self._hand_over(self._no_item_left())
        except BaseException as error:  # raised again in the thread that asks for a batch
            self._hand_over(error)

    def _hand_over(self, what: InputBatch | BaseException) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put(what, timeout=0.1)
            except Full:
                continue
            return True
        return False

    def _gather(self, blocks: Iterator[tuple[ItemBlock, _Values]]) -> Iterator[InputBatch]:
        size, next_position = self.source.batch_size, self.source.position
        skipped: list[str] = []
        batch = BatchBuilder(size, self._buffers(), self._like)
        for block, values in blocks:
            self._block_size, next_position = block.count, block.position + block.count
            if isinstance(values, CaffeconvError):
                self._skip(block, values, skipped)
                continue
            try:
                batch.put(block, values)
            except CaffeconvError as error:
                self._skip(block, error, skipped)
                continue
            if self._like is None and self.source.skips_bad and size > 1:
                self._like = values
            if batch.full:
                yield InputBatch(batch.blobs, batch.positions, next_position, tuple(skipped))
                skipped = []
                batch = BatchBuilder(size, self._buffers(), self._like)
        batch.shorten()
        if self.source.exhausted and (skipped or len(batch.positions)):
            yield InputBatch(batch.blobs, batch.positions, next_position, tuple(skipped))

    def _values_in_order(self, pool: ThreadPoolExecutor, ahead: int) -> Iterator[tuple[ItemBlock, _Values]]:
        while self._may_take():  # again where what was taken last is passed over
            yield from in_order(self._jobs(), pool, ahead)

    def _jobs(self) -> Iterator[Callable[[], tuple[ItemBlock, _Values]]]:
        while self._may_take():
            block = self.source.take()
            self._left -= block.count
            yield lambda block=block: _make(block)  # type: ignore[misc]

    def _may_take(self) -> bool:
        return self._left > 0 and not self._stop.is_set() and not self.source.exhausted

    def _skip(self, block: ItemBlock, error: CaffeconvError, skipped: list[str]) -> None:
        if not self.source.skips_bad:
            raise error
        if self._thread is not None:
            self._left += block.count
        skipped.append(str(error))
        if len(skipped) >= self.source.count_items():
            raise self.source.none_usable(skipped[0])

    def _buffers(self) -> Sequence[FloatArray]:
        try:
            return self._used.get_nowait()
        except Empty:
            return ()

    def close(self) -> None:
        """Ends the thread; what it has read ahead is dropped."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _make(block: ItemBlock) -> tuple[ItemBlock, _Values]:
    try:
        return block, block.make()
    except CaffeconvError as error:
        return block, error
