"""Transposed views → their values in order, a block at a time: memory stays flat whatever the size."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from caffeconv.tensor.shape import FloatArray

BLOCK = 32 << 20
"""The bytes of a block at most."""
TILE = 1 << 15
"""The values of a tile, which lies in a core's cache as it is read and as it is written."""
MOST_WORKERS = 2


def stream(parts: Iterable[FloatArray]) -> Iterator[FloatArray]:
    """The values of the parts, each in C order, one after the other, in contiguous little-endian float32 blocks.

    Blocks are put in order by threads of their own while earlier ones are written.
    """
    workers = min(MOST_WORKERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        futures: deque[Future[FloatArray]] = deque()
        for part in parts:
            for block in blocks(part):
                futures.append(pool.submit(in_order, block))
                if len(futures) > workers:
                    yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()


def blocks(view: FloatArray) -> Iterator[FloatArray]:
    """The view cut into views of at most BLOCK bytes, whose values follow one another in C order."""
    if view.nbytes <= BLOCK or view.ndim == 0:
        yield view
        return
    row = view.nbytes // len(view)
    if row > BLOCK:
        for item in view:
            yield from blocks(item)
        return
    rows = BLOCK // row
    for start in range(0, len(view), rows):
        yield view[start : start + rows]


def in_order(view: FloatArray) -> FloatArray:
    """The view's values, contiguous in C order, little-endian float32."""
    if view.flags.c_contiguous and view.dtype == np.dtype("<f4"):
        return view
    block = np.empty(view.shape, "<f4")
    _copy_by_tiles(block, view)
    return block


def _copy_by_tiles(target: FloatArray, source: FloatArray) -> None:
    """target[...] = source, halved until each piece fits the cache: numpy would walk through all of one and jump in the
    other.
    """
    if target.size <= TILE:
        target[...] = source
        return
    axis = int(np.argmax(target.shape))
    half = target.shape[axis] // 2
    before = (slice(None),) * axis
    for side in (slice(None, half), slice(half, None)):
        part = (*before, side)
        _copy_by_tiles(target[part], source[part])
