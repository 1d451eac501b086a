"""The matrix H of an InfogainLoss layer, made from what people know of their classes.

H is L×L for L classes: row = the true label, column = the predicted class. The loss of one item with label n is
-Σₖ H[n, k]·log(pₖ) (caffe: infogain_loss_layer.cpp), so H[n, k] says how far predicting k is right where n is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caffeconv.errors import CaffeconvError, shortened
from caffeconv.files import arguments
from caffeconv.tensor.shape import FloatArray, format_shape

Decay = Literal["exp", "linear", "inverse"]
DECAYS: tuple[Decay, ...] = ("exp", "linear", "inverse")
MAX_CLASSES = 1 << 14
"""H of so many classes takes 1 GiB."""

Matrix = NDArray[np.float64]


def checked(array: ArrayLike, where: str = "H") -> FloatArray:
    """The array as L×L float32; axes of size 1 before these are left out. `where` names it in the CaffeconvError."""
    try:
        values = np.asarray(array)
    except ValueError:
        raise CaffeconvError(f"{where}: its rows have different lengths; L×L numbers were needed") from None
    if values.dtype.kind not in "fiub":
        raise CaffeconvError(f"{where}: values of type {values.dtype}; real numbers were needed")
    shape = values.shape
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or values.shape[0] != values.shape[1] or not values.size:
        raise CaffeconvError(
            f"{where}: the matrix is {format_shape(shape)}; L×L was needed, a row and a column for each of L classes"
        )
    # a number too large for float32 becomes infinite, which the next check reports
    with np.errstate(over="ignore"):
        matrix = values.astype(np.float32)
    bad = np.argwhere(~np.isfinite(matrix))
    if bad.size:
        row, column = bad[0]
        raise CaffeconvError(
            f"{where}: {values[row, column]} in row {row}, column {column} (from 0); "
            "finite numbers that fit a float32 were needed"
        )
    return matrix


def identity(size: int) -> FloatArray:
    """The H with which InfogainLoss is SoftmaxWithLoss."""
    if not 1 <= arguments.whole_number("size", size) <= MAX_CLASSES:
        raise CaffeconvError(f"`size={size}`: 1 to {MAX_CLASSES} were needed")
    return np.eye(size, dtype=np.float32)


def weighted(matrix: ArrayLike, weights: Sequence[float] | NDArray[np.float64]) -> FloatArray:
    """diag(weights)·H: each row times the weight of its class. CaffeconvError where there are not L finite weights."""
    h, w = checked(matrix), _vector(weights, "class weights")
    if len(w) != len(h):
        raise CaffeconvError(f"{len(w)} class weights for {len(h)} classes; one for each class was needed")
    return checked(w[:, None] * h.astype(np.float64))


def distances_between(positions: Sequence[float] | NDArray[np.float64]) -> Matrix:
    """|xₙ - xₖ| for graded classes, x being where each class lies: 0, 1, 2, … for grades."""
    x = _vector(positions, "positions")
    return np.abs(x[:, None] - x[None, :])


def from_distances(distances: ArrayLike, decay: Decay = "exp", sigma: float | None = None) -> FloatArray:
    """H for graded mistakes: 1 on the diagonal, and the less the farther two classes lie apart.

    Args:
        distances: D, L×L, in any unit; 0 on the diagonal, no number below 0.
        decay: "exp": exp(-D/σ); "linear": max(0, 1 - D/σ); "inverse": 1/(1 + D/σ).
        sigma: σ, above 0, in D's unit. None: 1, and with "linear" the greatest distance, so that the farthest get 0.

    Raises:
        CaffeconvError: D holds no distances, or sigma is not above 0.
    """
    d = checked(distances, "distances").astype(np.float64)
    negative, nonzero = np.argwhere(d < 0), np.flatnonzero(np.diagonal(d))
    if negative.size:
        row, column = negative[0]
        raise CaffeconvError(
            f"distances: {d[row, column]:g} in row {row}, column {column} (from 0); no distance may be below 0"
        )
    if nonzero.size:
        row = nonzero[0]
        hint = " Similarities need no `from_distances=…`." if d[row, row] >= d[row].max() else ""
        raise CaffeconvError(f"distances: class {row} is {d[row, row]:g} away from itself; 0 was needed.{hint}")
    arguments.one_of("decay", decay, get_args(Decay))
    if sigma is None:
        sigma = (float(d.max()) or 1.0) if decay == "linear" else 1.0
    if arguments.number("sigma", sigma) <= 0:
        raise CaffeconvError(f"`sigma={sigma:g}`: a number above 0 was needed, in the unit of the distances")
    with np.errstate(over="ignore"):
        scaled = d / sigma
    if decay == "exp":
        return np.exp(-scaled).astype(np.float32)
    if decay == "linear":
        return np.maximum(0, 1 - scaled).astype(np.float32)
    return np.asarray(1 / (1 + scaled), np.float32)


def smoothed(matrix: ArrayLike, epsilon: float) -> FloatArray:
    """(1-ε)·H + ε·r/L, r being H's row sums: each row keeps its sum, of which ε is spread over all classes.

    Of the identity this makes (1-ε)·I + ε/L, with which the loss is that of label smoothing (Szegedy et al. 2016,
    "Rethinking the Inception Architecture for Computer Vision", section 7). CaffeconvError unless 0 ≤ ε < 1.
    """
    if not 0 <= arguments.number("epsilon", epsilon) < 1:
        raise CaffeconvError(f"`epsilon={epsilon:g}`: 0 or more, and less than 1, was needed")
    h = checked(matrix).astype(np.float64)
    return np.asarray((1 - epsilon) * h + epsilon * h.mean(axis=1, keepdims=True), np.float32)


def with_unit_rows(matrix: ArrayLike) -> FloatArray:
    """Each row divided by its sum; rows of zeros stay. CaffeconvError where a sum is no number to divide by."""
    h = checked(matrix).astype(np.float64)
    sums = h.sum(axis=1)
    impossible = np.flatnonzero((sums <= 0) & h.any(axis=1))
    if impossible.size:
        row = impossible[0]
        raise CaffeconvError(f"row {row} of H adds up to {sums[row]:g}; a sum above 0 was needed to divide the row by")
    return checked(h / np.where(sums > 0, sums, 1)[:, None])


def as_numbers(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """An array of float64; CaffeconvError, with `what` it is for, for anything but numbers."""
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise CaffeconvError(f"{what}: {shortened(repr(values))}; numbers were needed") from None


def _vector(values: Sequence[float] | NDArray[np.float64], what: str) -> NDArray[np.float64]:
    vector = as_numbers(values, what)
    if vector.ndim != 1 or not 1 <= len(vector) <= MAX_CLASSES:
        raise CaffeconvError(
            f"{what}: {format_shape(vector.shape)}; 1 to {MAX_CLASSES} numbers, one a class, were needed"
        )
    bad = np.flatnonzero(~np.isfinite(vector))
    if bad.size:
        raise CaffeconvError(f"{what}: {vector[bad[0]]} for class {bad[0]} (from 0); finite numbers were needed")
    return vector
