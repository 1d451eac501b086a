"""Reads matrices and lists of numbers from the files in which people keep them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from caffeconv.caffe_format.caffemodel import read_binaryproto
from caffeconv.caffe_format.prototxt import read_bytes
from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import PathLike
from caffeconv.files.hdf5 import hdf5_faults, numbers_in, open_hdf5
from caffeconv.infogain.matrices import checked
from caffeconv.tensor.shape import FloatArray, format_shape

if TYPE_CHECKING:
    import h5py

Array = NDArray[np.generic]

KINDS = "an array (.npy, .npz, .h5, .mat), a table (.csv, .tsv, .txt) or a .binaryproto"
TABLES = (".csv", ".txt", ".tsv")
HDF5 = (".h5", ".hdf5")
_SEPARATOR = re.compile(r"\s*[,;]\s*|\s+")


def read_blob(path: PathLike) -> FloatArray:
    """The array of a binaryproto (an H, a mean image), float32, in the file's own shape; old files have four axes.

    Raises CaffeconvError where the file is damaged or something else.
    """
    blob = read_binaryproto(Path(path))
    return blob.array().reshape(blob.shape)


def read_matrix(path: PathLike) -> FloatArray:
    """H from a file, L×L float32; CaffeconvError says what is wrong with it, and in which line.

    .npy; .npz, .h5 or .mat with one array, or one called H; .csv, .tsv or .txt with one row a line, numbers apart by
    commas, semicolons or spaces, and comments after #; .binaryproto.
    """
    return checked(_read(Path(path), "a matrix"), str(path))


def read_numbers(path: PathLike, what: str) -> NDArray[np.float64]:
    """One number for each class, from any file that `read_matrix` takes: in a row, in a column, or one a line.

    `what` names them in the message of a CaffeconvError.
    """
    array = _read(Path(path), what)
    if array.dtype.kind not in "fiub" or array.size < 1 or max(array.shape, default=1) != array.size:
        raise CaffeconvError(
            f"{path}: {format_shape(array.shape)} {array.dtype}; {what}, one for each class, were needed"
        )
    return array.astype(np.float64).reshape(-1)


def _read(path: Path, what: str) -> Array:
    kind = path.suffix.lower()
    if kind in TABLES:
        return _read_table(path, what)
    if kind in (".npy", ".npz"):
        from caffeconv.data.input_items import read_array

        return read_array(path, "H")
    if kind == ".binaryproto":
        return read_blob(path)
    if kind not in (*HDF5, ".mat"):
        read_bytes(path, what)
        raise CaffeconvError(f"{path}: a file that ends in {kind or 'nothing'}; {KINDS} was needed")
    if not path.is_file():
        read_bytes(path, what)  # says why not
    return _read_mat(path) if kind == ".mat" else read_hdf5_array(path)


def _read_table(path: Path, what: str) -> Array:
    text = read_bytes(path, what).decode("utf-8-sig", "replace")
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


# -- HDF5 and MATLAB ---------------------------------------------------------------------------------------------------


def read_hdf5_array(path: Path, name: str = "H") -> Array:
    """The dataset `name` of an HDF5 file, or its only one."""
    with open_hdf5(path) as file, hdf5_faults(path):
        return np.asarray(find_dataset(file, path, name)[()])


def find_dataset(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """The dataset `name` of an open file, or its only one of numbers; CaffeconvError lists what there is."""
    import h5py

    datasets: dict[str, h5py.Dataset] = {}

    def keep(key: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and numbers_in(file, key, path, "fiub") is not None:
            datasets[key] = item

    file.visititems(keep)
    if name in datasets:
        return datasets[name]
    if len(datasets) == 1:
        return next(iter(datasets.values()))
    names = ", ".join(list(datasets)[:10]) or "none"
    raise CaffeconvError(f"{path}: no dataset of numbers called '{name}'; it has {names}")


def _read_mat(path: Path) -> Array:
    import h5py

    if h5py.is_hdf5(path):
        # MATLAB 7.3: columns are stored one after another, so HDF5 sees every array transposed
        return np.asarray(read_hdf5_array(path).T)
    try:
        from scipy.io import loadmat
    except ImportError:
        raise CaffeconvError(
            f"{path}: a MATLAB file from before version 7.3, which only scipy reads; `pip install scipy`, or save it "
            "with save(…, '-v7.3')"
        ) from None
    try:
        variables = loadmat(path)
    except Exception as error:  # scipy's reader raises whatever a damaged file makes it stumble over
        raise CaffeconvError(f"{path}: not readable as a MATLAB file: {error!r}") from None
    arrays = {
        key: value
        for key, value in variables.items()
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and not key.startswith("__")
    }
    if "H" not in arrays and len(arrays) != 1:
        raise CaffeconvError(f"{path}: no array of numbers called 'H'; it has {', '.join(arrays) or 'none'}")
    array: Array = arrays["H"] if "H" in arrays else next(iter(arrays.values()))
    return array
