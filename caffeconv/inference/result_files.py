"""Where a run's results go: what each kind of file can hold, and who writes it; whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import refuse_filled_folder, whole_file
from caffeconv.inference.checkpoint import Checkpoint, NoSpaceError
from caffeconv.inference.feature_files import (
    ItemName,
    as_text,
    names_entry,
    names_file,
    names_text,
    npz_member,
    write_h5,
    write_lmdb,
    write_npy,
    write_npz,
)
from caffeconv.tensor.shape import FloatArray

RecordFormat = Literal["csv", "jsonl", "json"]
"""How classes and boxes are written, item by item."""
WholeWriter = Callable[[Mapping[str, FloatArray], Sequence[str]], bytes]
RowsWriter = Callable[[Checkpoint, ItemName | None], None]


@dataclass(frozen=True, kw_only=True)
class Format:
    """What files of one suffix can hold."""

    whole: WholeWriter | None = None
    """Writes whole blobs, and the items' names, in one go; None: they cannot be written so."""
    rows: RowsWriter | None = None
    """Writes the rows that a checkpoint has gathered, of any number; None: rows cannot be written."""
    one_blob: bool = False
    """Whether they hold only what is asked for by name, where others hold the outputs too."""
    one_array: bool = False
    is_folder: bool = False
    records: RecordFormat | None = None
    """How they hold classes and boxes; None: not at all."""


def format_of(path: Path) -> Format:
    """What a file of that name can hold; nothing for an unknown suffix."""
    return FORMATS.get(path.suffix.lower(), Format())


def companions(path: Path) -> list[Path]:
    """The files that are written beside one of that name: of the items' names, where it cannot hold them itself."""
    return [names_file(path)] if format_of(path).one_array else []


def check_output(path: Path, blobs: Sequence[str]) -> None:
    """Raises CaffeconvError for a name that whole blobs cannot be written to, before anything is computed."""
    suffixes = [suffix for suffix, form in FORMATS.items() if form.whole]
    if not format_of(path).whole:
        raise CaffeconvError(
            f"{path}: results are written as {', '.join(suffixes)}, .lmdb or .jsonl; the suffix chooses"
        )
    if format_of(path).one_array and len(blobs) != 1:
        raise CaffeconvError(f"{path}: .npy holds one array, and there are {len(blobs)} ({', '.join(blobs)}); use .npz")


def check_feature_file(out: Path, blobs: int) -> None:
    """Raises CaffeconvError for a name that rows cannot be written to, before anything is computed."""
    form = format_of(out)
    if form.rows is None:
        suffixes = ", ".join(suffix for suffix, form in FORMATS.items() if form.rows)
        raise CaffeconvError(f"{out}: features are written as {suffixes}; the suffix chooses")
    if form.one_array and blobs != 1:
        raise CaffeconvError(f"{out}: .npy holds one array, and there are {blobs}; name one (`blobs=…`), or use .npz")
    if form.is_folder:
        refuse_filled_folder(out)
    elif out.is_dir():
        raise CaffeconvError(f"{out}: this is a folder; the name of a file to write was needed")


def check_rows(out: Path, rows: Mapping[str, FloatArray]) -> None:
    """Raises CaffeconvError for rows (axis 0) that a file of this kind cannot hold."""
    for blob, values in rows.items():
        if format_of(out).is_folder and values.ndim > 4:
            raise CaffeconvError(
                f"{out}: blob '{blob}' has rows of {values.ndim - 1} axes; a Datum has channels, height and width: "
                "use .h5 or .npz"
            )


def csv_text(text: str) -> str:
    """A name as a cell of CSV: what a spreadsheet would take for a formula has an apostrophe before it."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_results(path: Path, results: Mapping[str, FloatArray], items: Sequence[str]) -> None:
    """Writes every blob; `items` names the rows."""
    write = format_of(path).whole
    assert write is not None, "check_output came first"
    content = write(results, items)
    with whole_file(path) as file:
        file.write(content)
    for companion in companions(path):
        with whole_file(companion) as file:
            file.write(names_text(items))


def make_feature_file(checkpoint: Checkpoint, item_name: ItemName | None = None) -> None:
    """Makes the output of a checkpoint, whole or not at all, and then removes that; `item_name` names the rows.

    Raises NoSpaceError where the disk is full; the checkpoint stays then.
    """
    write = format_of(checkpoint.out).rows
    assert write is not None, "check_feature_file came first"
    with _rows_stay(checkpoint):
        write(checkpoint, item_name)
    checkpoint.remove()


@contextmanager
def _rows_stay(checkpoint: Checkpoint) -> Iterator[None]:
    try:
        yield
    except CaffeconvError as error:
        raise NoSpaceError(
            f"{error} All {checkpoint.journal.items} items are in {checkpoint.folder}: run the same command again with "
            "`resume=True`"
        ) from None


def _npz(results: Mapping[str, FloatArray], items: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, NDArray[np.generic]] = {**results, names_entry(results): np.array(items, np.str_)}
    with zipfile.ZipFile(buffer, "w") as archive:  # numpy.savez takes no array called `file`
        for name, values in arrays.items():
            with npz_member(archive, name) as member:
                npy.write_array(member, values, allow_pickle=False)
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
        file[names_entry(results)] = [*map(as_text, items)]
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
    writer.writerow(map(csv_text, header))
    for i, item in enumerate(items):
        writer.writerow([csv_text(item), *(repr(float(value)) for rows in columns for value in rows[i])])
    return text.getvalue().encode(errors="backslashreplace")


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


FORMATS: Mapping[str, Format] = {
    ".npz": Format(whole=_npz, rows=write_npz),
    ".npy": Format(whole=_npy, rows=write_npy, one_blob=True, one_array=True),
    ".h5": Format(whole=_h5, rows=write_h5),
    ".lmdb": Format(rows=write_lmdb, one_blob=True, is_folder=True),
    ".csv": Format(whole=_csv, records="csv"),
    ".json": Format(whole=_json, records="json"),
    ".jsonl": Format(records="jsonl"),
}
"""Every kind of file that `run` writes, by its suffix."""
