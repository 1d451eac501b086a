"""The matrix H of an InfogainLoss layer: made, read, checked, and written as the binaryproto that `source` names.

H is L×L for L classes: row = the true label, column = the predicted class. The loss of one item with label n is
-Σₖ H[n, k]·log(pₖ) (caffe: infogain_loss_layer.cpp).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caffeconv.emit.atomic import whole_file
from caffeconv.emit.caffemodel import WrittenBlob
from caffeconv.errors import CaffeconvError
from caffeconv.ir import FloatArray, by_x
from caffeconv.read.caffemodel import read_binaryproto
from caffeconv.read.prototxt import read_bytes

_SEPARATOR = re.compile(r"\s*[,;]\s*|\s+")
_KINDS = "an array (.npy, .npz), a table (.csv, .txt) or a .binaryproto"


def make_h(array: ArrayLike, path: str | os.PathLike[str], *, legacy: bool = False) -> None:
    """Writes H as binaryproto, byte for byte as Caffe's `caffe.io.array_to_blobproto(H.reshape(1, 1, L, L))` does.

    Args:
        array: H, L×L or 1×1×L×L, row = true label, column = predicted class; written as float32.
        path: the file to write; it appears whole or not at all.
        legacy: write num, channels, height, width instead of a shape, for a Caffe from before 2015.

    Raises:
        CaffeconvError: the array is no square matrix of finite numbers, or the file cannot be written.
    """
    try:
        given = np.asarray(array)
    except ValueError:
        raise CaffeconvError("H: its rows have different lengths; L×L numbers were needed") from None
    matrix = _checked(given, "H")
    blob = WrittenBlob.of((1, 1, *matrix.shape), matrix, legacy=legacy)
    with whole_file(path) as file:
        blob.write(file)


def read_blob(path: str | os.PathLike[str]) -> FloatArray:
    """The array of a binaryproto (an H, a mean image), float32, in the file's own shape; old files have four axes.

    Raises CaffeconvError where the file is damaged or something else.
    """
    blob = read_binaryproto(Path(path))
    return blob.array().reshape(blob.shape)


def read_matrix(path: str | os.PathLike[str]) -> FloatArray:
    """H from a file, L×L float32; CaffeconvError says what is wrong with it, and in which line.

    .npy; .npz with one array, or one called H; .csv or .txt with one row a line, numbers apart by commas, semicolons or
    spaces, and comments after #; .binaryproto.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind in (".csv", ".txt", ".tsv"):
        return _checked(_read_table(path), str(path))
    if kind in (".npy", ".npz"):
        from caffeconv.runtime.sources import read_array

        return _checked(read_array(path, "H"), str(path))
    if kind == ".binaryproto":
        return _checked(read_blob(path), str(path))
    read_bytes(path, "a matrix")
    raise CaffeconvError(f"{path}: a file that ends in {kind or 'nothing'}; {_KINDS} was needed")


def identity(size: int) -> FloatArray:
    """The H with which InfogainLoss is SoftmaxWithLoss."""
    return np.eye(size, dtype=np.float32)


def from_frequencies(counts: Sequence[float]) -> FloatArray:
    """H for unbalanced classes: on the diagonal N / (L·count), so that all classes weigh the same in the whole loss.

    `counts` are the numbers of training items, or shares, one for each of L classes, N their sum. A balanced set gives
    the identity.
    """
    if len(counts) < 1 or not all(math.isfinite(n) and n > 0 for n in counts):
        raise CaffeconvError(f"class frequencies {_short(counts)}: a number above 0 for each class was needed")
    numbers = np.asarray(counts, np.float64)
    return np.diag(numbers.sum() / (len(numbers) * numbers)).astype(np.float32)


def from_distances(positions: Sequence[float], spread: float) -> FloatArray:
    """H for graded classes, where a near miss costs less: exp(-|xₙ - xₖ| / spread), each row divided by its sum.

    `positions` x says where each class lies (0, 1, 2, … for grades); `spread` is in the same unit, above 0.
    """
    if len(positions) < 1 or not all(map(math.isfinite, positions)) or not (math.isfinite(spread) and spread > 0):
        raise CaffeconvError(
            f"positions {_short(positions)} with spread {spread:g}: finite numbers, and a spread above 0, were needed"
        )
    x = np.asarray(positions, np.float64)
    nearness = np.exp(-np.abs(x[:, None] - x[None, :]) / spread)
    matrix: FloatArray = (nearness / nearness.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


def remarks(matrix: FloatArray) -> tuple[str, ...]:
    """What about this H might not be meant; rows counted from 0, as labels are. None of it is an error."""
    found = []
    if np.array_equal(matrix, np.eye(len(matrix), dtype=np.float32)):
        found.append("H is the identity: InfogainLoss then computes what SoftmaxWithLoss does")
    if not np.array_equal(matrix, matrix.T):
        found.append(
            "H is not symmetric: its rows are the true labels, its columns the predicted classes; "
            "make sure that it is not transposed"
        )
    empty = np.flatnonzero(~matrix.any(axis=1))
    if empty.size:
        found.append(
            f"{_rows(empty)} only zeros: items with such a label add nothing to the loss, "
            "but are counted where it is divided by their number"
        )
    negative = np.flatnonzero((matrix < 0).any(axis=1))
    if negative.size:
        found.append(f"{_rows(negative)} negative numbers: training can drive the loss below all bounds")
    return tuple(found)


def _rows(rows: NDArray[np.intp]) -> str:
    return f"row {rows[0]} of H has" if rows.size == 1 else f"rows {_short(rows.tolist())} of H have"


def _short(values: Sequence[float]) -> str:
    listed = ", ".join(f"{value:g}" for value in values[:8])
    return listed + (", …" if len(values) > 8 else "")


def _checked(array: NDArray[np.generic], where: str) -> FloatArray:
    """The array as L×L float32."""
    if array.dtype.kind not in "fiub":
        raise CaffeconvError(f"{where}: values of type {array.dtype}; real numbers were needed")
    if array.ndim == 4 and array.shape[:2] == (1, 1):
        array = array[0, 0]
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not array.size:
        raise CaffeconvError(
            f"{where}: the matrix is {by_x(array.shape)}; L×L was needed, a row and a column for each of L classes"
        )
    # a number too large for float32 becomes infinite, which the next check reports
    with np.errstate(over="ignore"):
        matrix = array.astype(np.float32)
    bad = np.argwhere(~np.isfinite(matrix))
    if bad.size:
        row, column = bad[0]
        raise CaffeconvError(
            f"{where}: {array[row, column]} in row {row}, column {column} (from 0); "
            "finite numbers that fit a float32 were needed"
        )
    return matrix


def _read_table(path: Path) -> NDArray[np.generic]:
    text = read_bytes(path, "a matrix").decode("utf-8-sig", "replace")
    rows: list[list[float]] = []
    for line, content in enumerate(text.splitlines(), 1):
        content = content.partition("#")[0].strip()
        if not content:
            continue
        row = [_number(item, path, line) for item in _SEPARATOR.split(content)]
        if rows and len(row) != len(rows[0]):
            raise CaffeconvError(
                f"{path}, line {line}: {len(row)} numbers; {len(rows[0])}, as in the lines above, were needed"
            )
        rows.append(row)
    return np.array(rows, np.float64)


def _number(item: str, path: Path, line: int) -> float:
    try:
        return float(item)
    except ValueError:
        raise CaffeconvError(f"{path}, line {line}: '{item}' is not a number") from None
