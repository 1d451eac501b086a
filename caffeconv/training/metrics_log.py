"""Losses, rates and test outputs of a training as a table in a file, a row an iteration."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TextIO

from caffeconv.errors import CaffeconvError
from caffeconv.training.events import Event, Iteration, NetTest, Output

Row = Mapping[str, float]
SUFFIXES = (".csv", ".jsonl")


class RowWriter(Protocol):
    """Takes rows, each written whole."""

    def write(self, row: Row) -> None: ...


class Rows:
    """Turns events into rows: those iterations that Caffe's log has, with the tests that come before them.

    A row holds `iteration`, `seconds` (since the row before), `lr` and `loss` (smoothed), the training net's outputs as
    ``train/NAME`` and those of test net k as ``testK/NAME``; what an iteration has not got is left out.
    """

    def __init__(self, write: Sequence[RowWriter]) -> None:
        self._writers = write
        self._row: dict[str, float] = {}

    def report(self, event: Event) -> None:
        """Takes an event."""
        if isinstance(event, NetTest):
            self._begin(event.iteration)
            self._row |= _named(f"test{event.net}", event.outputs)
            if event.loss is not None:
                self._row[f"test{event.net}/test_loss"] = event.loss
        elif isinstance(event, Iteration) and event.is_shown:
            self._begin(event.number)
            self._row |= {"seconds": event.seconds, "lr": event.rate, "loss": event.smoothed_loss}
            self._row |= _named("train", event.outputs)
            self.flush()

    def _begin(self, iteration: int) -> None:
        if self._row and self._row["iteration"] != iteration:
            self.flush()
        self._row["iteration"] = iteration

    def flush(self) -> None:
        """Writes what there is of the last row."""
        if self._row:
            for writer in self._writers:
                writer.write(dict(self._row))
        self._row = {}


def _named(prefix: str, outputs: Sequence[Output]) -> dict[str, float]:
    """The values by name; those of an output with several are numbered."""
    counts = Counter(output.name for output in outputs)
    seen: Counter[str] = Counter()
    named = {}
    for output in outputs:
        number = f"[{seen[output.name]}]" if counts[output.name] > 1 else ""
        seen[output.name] += 1
        named[f"{prefix}/{output.name}{number}"] = output.value
    return named


class _JsonLines:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: Row) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()


class _Csv:
    def __init__(self, file: TextIO, columns: Sequence[str], *, begins: bool) -> None:
        self._file = file
        self._columns = columns
        self._writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        if begins:
            self._writer.writeheader()
            file.flush()

    def write(self, row: Row) -> None:
        self._writer.writerow(dict(row))
        self._file.flush()


def columns_of(outputs: Sequence[Mapping[str, int]]) -> list[str]:
    """The columns of a CSV. outputs: of the training net, then of each test net: name → its number of values."""
    columns = ["iteration", "seconds", "lr", "loss"]
    for i, counts in enumerate(outputs):
        prefix = "train" if i == 0 else f"test{i - 1}"
        for name in sorted(counts):
            columns += (
                [f"{prefix}/{name}"] if counts[name] == 1 else [f"{prefix}/{name}[{k}]" for k in range(counts[name])]
            )
        columns += [f"{prefix}/test_loss"] if i else []
    return columns


def check_suffix(path: Path) -> None:
    """Raises CaffeconvError for a name that ends in none of SUFFIXES."""
    if path.suffix not in SUFFIXES:
        raise CaffeconvError(f"{path}: a log's name ends in {' or '.join(SUFFIXES)}")


@contextmanager
def open_log(path: Path, columns: Sequence[str], *, goes_on: bool) -> Iterator[RowWriter]:
    """A log whose rows are in the file as soon as they are written.

    goes_on: whether rows are added to those that are there. Raises CaffeconvError where it cannot be written.
    """
    check_suffix(path)
    begins = not (goes_on and path.exists() and path.stat().st_size)
    try:
        file = path.open("w" if begins else "a", encoding="utf-8", newline="")
    except OSError as error:
        raise CaffeconvError(f"{path}: cannot be written: {error.strerror}") from None
    with file:
        yield _JsonLines(file) if path.suffix == ".jsonl" else _Csv(file, columns, begins=begins)
