"""Reads matrices and lists of numbers from the files in which people keep them."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from caffeconv.caffe_format.caffemodel import read_binaryproto
from caffeconv.caffe_format.foreign_files import HEAD, foreign_file
from caffeconv.caffe_format.small_files import read_bytes
from caffeconv.errors import CaffeconvError
from caffeconv.files import arguments
from caffeconv.files.atomic import PathLike
from caffeconv.files.claims import refuse_bomb
from caffeconv.files.hdf5 import hdf5_faults, is_hdf5, numbers_in, open_hdf5
from caffeconv.files.limited_child import run_limited
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

    .npy; .npz, .h5 or .mat with one array, or one called H; .csv, .tsv or .txt with one row a line, numbers separated by
    commas, semicolons or spaces, and comments after #; .binaryproto.
    """
    return checked(_read(arguments.path("path", path), "a matrix"), str(path))


def read_numbers(path: PathLike, what: str) -> NDArray[np.float64]:
    """One number for each class, from any file that `read_matrix` takes: in a row, in a column, or one a line.

    `what` names them in the message of a CaffeconvError.
    """
    array = _read(arguments.path("path", path), arguments.name("what", what))
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
        from caffeconv.data.array_files import read_array

        return read_array(path, "H")
    if kind == ".binaryproto":
        return read_blob(path)
    if kind not in (*HDF5, ".mat"):
        known = foreign_file(read_bytes(path, what)[:HEAD])[0]
        description = f"this is {known}" if known else f"a file that ends in {kind or 'nothing'}"
        raise CaffeconvError(f"{path}: {description}; {KINDS} was needed")
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
        dataset = find_dataset(file, path, name)
        refuse_bomb(dataset.size * dataset.dtype.itemsize, dataset.id.get_storage_size(), path)
        return np.asarray(dataset[()])


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
    if is_hdf5(path):
        # MATLAB 7.3: columns are stored one after another, so HDF5 sees every array transposed
        return np.asarray(read_hdf5_array(path).T)
    content = run_limited(Path(__file__).with_name("mat_child.py"), str(path), path)
    array: Array = np.load(io.BytesIO(content), allow_pickle=False)
    return array
