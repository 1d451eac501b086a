"""Enlarges and shrinks arrays with the numbers of the libraries that pycaffe called in 2017, and without them.

`resize`: skimage.transform.resize up to 0.14 (its warp, mode "constant", no anti-aliasing). `zoom`: scipy.ndimage.zoom.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Order = Literal[0, 1]
"""0: the nearest pixel; 1: linear."""
Doubles = NDArray[np.float64]


def resize(image: Doubles, height: int, width: int, order: Order = 1) -> Doubles:
    """H×W×K in another size. Pixels are areas, whose centres are half a pixel in; beyond the edges everything is 0."""
    rows = _centres(image.shape[0], height)
    columns = _centres(image.shape[1], width)
    return _sampled(_sampled(image, rows, 0, order), columns, 1, order)


def zoom(image: Doubles, height: int, width: int, order: Order = 1) -> Doubles:
    """H×W×K in another size. Pixels are points; the first and the last stay the first and the last."""
    rows, columns = _corner_to_corner(image.shape[0], height), _corner_to_corner(image.shape[1], width)
    return _sampled(_sampled(image, rows, 0, order), columns, 1, order)


def _centres(old: int, new: int) -> Doubles:
    return np.asarray((np.arange(new) + 0.5) * (old / new) - 0.5, np.float64)


def _corner_to_corner(old: int, new: int) -> Doubles:
    positions = np.arange(new) * ((old - 1) / (new - 1)) if new > 1 else np.zeros(1)
    return np.asarray(np.minimum(positions, old - 1), np.float64)  # rounding must not lead past the last pixel


def _sampled(image: Doubles, positions: Doubles, axis: int, order: Order) -> Doubles:
    """Values between the pixels along an axis, 0 beyond its ends."""
    padded = np.pad(image, [(1, 1) if i == axis else (0, 0) for i in range(image.ndim)])
    if order == 0:
        nearest = np.sign(positions) * np.floor(np.abs(positions) + 0.5)  # C's round: halves go away from zero
        return np.asarray(padded.take(np.clip(nearest.astype(int) + 1, 0, padded.shape[axis] - 1), axis), np.float64)
    low = np.floor(positions)
    fraction = (positions - low).reshape([-1 if i == axis else 1 for i in range(image.ndim)])
    first = np.clip(low.astype(int) + 1, 0, padded.shape[axis] - 1)
    second = np.clip(first + 1, 0, padded.shape[axis] - 1)
    return np.asarray((1 - fraction) * padded.take(first, axis) + fraction * padded.take(second, axis), np.float64)
