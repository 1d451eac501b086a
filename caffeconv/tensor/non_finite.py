"""How many values are NaN or infinite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from caffeconv.tensor.shape import FloatArray

_PIECE = 1 << 18
"""Values that are looked at in one go, so that they lie in the cache."""


def count_non_finite(values: FloatArray) -> int:
    """How many of the values, in any shape, are NaN or infinite."""
    flat = values.reshape(-1)
    pieces = (flat[start : start + _PIECE] for start in range(0, flat.size, _PIECE))
    return flat.size - sum(int(np.count_nonzero(np.isfinite(piece))) for piece in pieces)


def counted(blocks: Iterable[FloatArray], name: str, numbers: Counter[str]) -> Iterator[FloatArray]:
    """The blocks, unchanged; adds to `numbers[name]` how many of their values are NaN or infinite, where some are."""
    for block in blocks:
        number = count_non_finite(block)
        if number:
            numbers[name] += number
        yield block
