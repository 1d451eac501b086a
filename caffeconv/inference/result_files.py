"""Where a run's results go: .npz, .npy, .h5, .csv, .json; each written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import whole_file
from caffeconv.tensor.shape import FloatArray

SUFFIXES = (".npz", ".npy", ".h5", ".csv", ".json")


def check_output(path: Path, blobs: Sequence[str]) -> None:
    """Raises CaffeconvError for a suffix that cannot be written, before anything is computed."""
    if path.suffix.lower() not in SUFFIXES:
        raise CaffeconvError(
            f"{path}: results are written as {', '.join(SUFFIXES)}, .lmdb or .jsonl; the suffix chooses"
        )
    if path.suffix.lower() == ".npy" and len(blobs) != 1:
        raise CaffeconvError(f"{path}: .npy holds one array, and there are {len(blobs)} ({', '.join(blobs)}); use .npz")


def write_results(path: Path, results: Mapping[str, FloatArray], items: Sequence[str]) -> None:
    """Writes every blob; `items` names the rows."""
    writers = {".npz": _npz, ".npy": _npy, ".h5": _h5, ".csv": _csv, ".json": _json}
    content = writers[path.suffix.lower()](results, items)
    with whole_file(path) as file:
        file.write(content)


def _npz(results: Mapping[str, FloatArray], items: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **results)
    return buffer.getvalue()


def _npy(results: Mapping[str, FloatArray], items: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, next(iter(results.values())), allow_pickle=False)
    return buffer.getvalue()


def _h5(results: Mapping[str, FloatArray], items: Sequence[str]) -> bytes:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values in results.items():
            file[name] = values
        file["items"] = list(items)
    return buffer.getvalue()


def _csv(results: Mapping[str, FloatArray], items: Sequence[str]) -> bytes:
    """A row for each item: its name, then every blob's values; blobs without a row for each item are refused."""
    header, columns = ["item"], []
    for name, values in results.items():
        if values.ndim == 0 or len(values) != len(items):
            raise CaffeconvError(
                f"blob '{name}' is {values.shape} for {len(items)} items; .csv needs a row for each: use .npz or .json"
            )
        rows = values.reshape(len(items), -1)
        header += [name] if rows.shape[1] == 1 else [f"{name}[{i}]" for i in range(rows.shape[1])]
        columns.append(rows)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    for i, item in enumerate(items):
        writer.writerow([item, *(repr(float(value)) for rows in columns for value in rows[i])])
    return text.getvalue().encode()


def _json(results: Mapping[str, FloatArray], items: Sequence[str]) -> bytes:
    blobs = {name: {"shape": list(values.shape), "data": _numbers(values)} for name, values in results.items()}
    return json.dumps({"items": list(items), "blobs": blobs}, allow_nan=False).encode() + b"\n"


def _numbers(values: FloatArray) -> object:
    """Nested lists; null for what JSON has no number for, NaN and infinity."""
    if np.isfinite(values).all():
        return values.tolist()
    numbers = values.astype(object)
    numbers[~np.isfinite(values)] = None
    return numbers.tolist()
