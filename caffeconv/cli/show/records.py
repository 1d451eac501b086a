"""The results of each item, as rows of CSV, JSON lines or one JSON list; line by line, to stdout or to a file."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from caffeconv.inference.result_files import RecordFormat, csv_text


class Record(Protocol):
    """The result of one output for one item."""

    def rows(self) -> Iterator[Sequence[str]]:
        """Its rows of CSV."""
        ...

    def as_json(self) -> Mapping[str, object]:
        """The same as an object of JSON."""
        ...


def lines_of(records: Iterable[Record], header: Sequence[str], record_format: RecordFormat) -> Iterator[str]:
    """The text, each piece as soon as its record is there."""
    if record_format == "csv":
        yield _csv_line(header)
        for record in records:
            yield from map(_csv_line, record.rows())
        return
    if record_format == "jsonl":
        yield from (_json(record) + "\n" for record in records)
        return
    separator = "[\n"
    for record in records:
        yield separator + _json(record)
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def write_lines(lines: Iterable[str], out: Path) -> None:
    """Writes a file whole, or not at all."""
    from caffeconv.files.atomic import whole_file

    with whole_file(out) as file:
        file.writelines(line.encode(errors="backslashreplace") for line in lines)


def number_or_null(value: float) -> float | None:
    """The value as JSON can hold it, which knows no NaN and no infinity."""
    return value if math.isfinite(value) else None


def _csv_line(row: Sequence[str]) -> str:
    text = io.StringIO(newline="")
    # before Python 3.13 it puts quotes around those line ends only that it writes itself
    csv.writer(text).writerow(map(csv_text, row))
    return text.getvalue().removesuffix("\r\n") + "\n"


def _json(record: Record) -> str:
    return json.dumps(record.as_json(), ensure_ascii=False, allow_nan=False)
