"""Shapes and their arithmetic, in Caffe's axis order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from caffeconv.errors import LayerError

Shape = tuple[int, ...]


Shapes = Sequence[Shape]


Dims = tuple[int | None, ...]
"""A shape in which an axis that varies with the batch, or follows from values, is None."""


MOST_AXES = 32
"""Of a blob (caffe: kMaxBlobAxes)."""


BATCH = "batch"
"""The name of the first input's batch axis."""


FloatArray = NDArray[np.float32]


def count(shape: Sequence[int], start: int = 0, end: int | None = None) -> int:
    """The number of elements over the axes start…end (caffe: Blob::count)."""
    return math.prod(shape[start:end])


def shape_string(shape: Sequence[int]) -> str:
    """A shape as Caffe prints it: ``2 3 4 (24)`` (caffe: Blob::shape_string)."""
    return "".join(f"{dim} " for dim in shape) + f"({math.prod(shape)})"


def format_shape(shape: Sequence[int]) -> str:
    """A shape as people write it: ``2×3×4``; ``scalar`` for a blob without axes."""
    return "×".join(str(dim) for dim in shape) or "scalar"


def unique_name(name: str, taken: set[str], between: str = "_") -> str:
    """The name, or the first of name_2, name_3, … (`between` before the number) that is not taken, which it then is."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}{between}{number}"
        if number == _COUNTED:
            free = f"{name}{between}{_free_number(lambda i: f'{name}{between}{i}' in taken)}"
    taken.add(free)
    return free


_COUNTED = 100
"""Up to here numbers are tried one by one."""


def _free_number(is_taken: Callable[[int], bool]) -> int:
    """A number that is free, the one before it taken; the first one where none before those taken is free."""
    low, high = _COUNTED - 1, _COUNTED
    while is_taken(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_taken(middle) else (low, middle)
    return high


def canonical_axis(axis: int, rank: int, shape: Shape | None = None) -> int:
    """A non-negative axis; raises LayerError outside -rank…rank-1 (caffe: Blob::CanonicalAxisIndex)."""
    if not -rank <= axis < rank:
        if not rank:
            raise LayerError(f"axis {axis} out of range for 0-D Blob; a blob with axes was needed")
        of = f" of {'×'.join(map(str, shape))}" if shape else ""
        raise LayerError(f"axis {axis} out of range for {rank}-D Blob{of}; {-rank} to {rank - 1} was needed")
    return axis % rank
