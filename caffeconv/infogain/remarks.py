"""What about an H might not be meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from caffeconv.files import arguments
from caffeconv.infogain.matrices import checked
from caffeconv.tensor.shape import FloatArray


def remarks(matrix: FloatArray, *, weighted: bool = False, base: FloatArray | None = None) -> tuple[str, ...]:
    """What might not be meant about H, rows counted from 0, as labels are. None of it is an error.

    weighted: rows are class weights on purpose, so that they need not add up to 1.
    base: what H was made of, where that is a matrix of the user's; whether it is symmetric or holds distances is
        looked up there, because weights and unit rows change the one and hide the other.
    """
    h = checked(matrix)
    arguments.truth("weighted", weighted)
    return tuple(_remarks(h, weighted=weighted, base=h if base is None else checked(base, "base")))


def _remarks(matrix: FloatArray, *, weighted: bool, base: FloatArray) -> Iterator[str]:
    if np.array_equal(matrix, np.eye(len(matrix), dtype=np.float32)):
        yield "H is the identity: InfogainLoss then computes what SoftmaxWithLoss does"
        return
    if looks_like_distances(base):
        yield (
            "H has zeros on its diagonal and positive numbers beside it, as distances do. The loss asks for "
            "probability where H is large, so these would teach the net to predict anything but the label; H must be "
            "greatest where the prediction is right. Turn distances into similarities: `from_distances='exp'`"
        )
    if not np.array_equal(base, base.T):
        row, column = np.argwhere(base != base.T)[0]
        yield (
            f"H is not symmetric (row {row}, column {column}: {base[row, column]:g}; row {column}, column {row}: "
            f"{base[column, row]:g}): its rows are the true labels, its columns the predicted classes; "
            "make sure that it is not transposed"
        )
    yield from _lines(matrix, weighted=weighted)


def _lines(matrix: FloatArray, *, weighted: bool) -> Iterator[str]:
    """About rows and columns."""
    empty = np.asarray(~matrix.any(axis=1))
    if empty.any():
        yield (
            f"{_name('row', empty)} only zeros: items with such a label add nothing to the loss, "
            "but are counted where it is divided by their number"
        )
    unused = np.asarray(~matrix.any(axis=0))
    if unused.any() and not np.array_equal(unused, empty):
        yield f"{_name('column', unused)} only zeros: no label asks for such a prediction, so none will be made"
    negative = np.asarray((matrix < 0).any(axis=1))
    if negative.any():
        yield f"{_name('row', negative)} negative numbers: training can drive the loss below all bounds"
    sums = matrix.sum(axis=1, dtype=np.float64)
    row_sums = sums[~empty]
    if row_sums.size and not weighted and not _is_diagonal(matrix) and np.abs(row_sums - 1).max() > 1e-3:
        yield (
            f"the rows of H add up to {_range(row_sums)}, not to 1: the sum of a row is the weight of its label in the "
            "loss. Where no weights are meant: `normalize='rows'`"
        )


def looks_like_distances(matrix: FloatArray) -> bool:
    """Whether the diagonal is zero and nothing beside it negative, some of it positive."""
    return bool(not np.diagonal(matrix).any() and matrix.min() >= 0 and matrix.max() > 0)


def _is_diagonal(matrix: FloatArray) -> bool:
    """Whether H is nothing but a weight for each class."""
    return bool(np.count_nonzero(matrix) == np.count_nonzero(np.diagonal(matrix)))


def _range(values: NDArray[np.float64]) -> str:
    least, most = f"{values.min():.4g}", f"{values.max():.4g}"
    return least if least == most else f"{least} … {most}"


def _name(kind: str, which: NDArray[np.bool_]) -> str:
    numbers = np.flatnonzero(which).tolist()
    return f"{kind} {numbers[0]} of H has" if len(numbers) == 1 else f"{kind}s {short(numbers)} of H have"


def short(values: Sequence[float]) -> str:
    """``0, 1, 2, 3, 4, 5, 6, 7, …``"""
    text = ", ".join(f"{value:g}" for value in values[:8])
    return text + (", …" if len(values) > 8 else "")
