"""Classes of pictures as a table, CSV or JSON lines, printed while they are computed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import click
import numpy as np
from numpy.typing import NDArray

from caffeconv.cli.results import classes, guess_kind
from caffeconv.cli.table import make_console
from caffeconv.errors import CaffeconvError
from caffeconv.ir import by_x

if TYPE_CHECKING:
    from caffeconv.runtime.batches import Batch
    from caffeconv.runtime.session import Session

Format = Literal["table", "csv", "jsonl"]
MOST_NAME = 100
"""Characters of an item's name for which a table of many parts keeps its columns in line."""


@dataclass(frozen=True)
class Prediction:
    """The best classes of one item, best first."""

    item: str
    output: str
    scores: tuple[float, ...]
    numbers: tuple[int, ...]
    labels: tuple[str, ...]
    """Class names; empty where none are known."""
    own: int | None
    """The class that the item's list gives for it."""


@dataclass
class Tally:
    """How often the class that a list gives came out first, or among the best, of the first output."""

    top_k: int
    items: int = 0
    first: int = 0
    among: int = 0
    output: str = field(default="")

    def count(self, prediction: Prediction) -> None:
        self.output = self.output or prediction.output
        if prediction.own is None or prediction.output != self.output:
            return
        self.items += 1
        self.first += prediction.numbers[:1] == (prediction.own,)
        self.among += prediction.own in prediction.numbers

    def __str__(self) -> str:
        return (
            f"{self.output}: {self.first} of {self.items} items come out first as their list says "
            f"({self.first / self.items:.2%}), {self.among} among the best {self.top_k} ({self.among / self.items:.2%})"
        )


@dataclass(frozen=True)
class Classified:
    """What is classified: items by number, their own classes where a list gives these, and the classes' names."""

    items: Callable[[int], str]
    own: Sequence[int] | None
    labels: Sequence[str]
    top_k: int


def is_classification(session: Session, batch: Batch) -> bool:
    """Whether every output is a score for each class of each item."""
    return all(_gives_classes(session, name, values, batch.size) for name, values in batch.outputs.items())


def _gives_classes(session: Session, name: str, values: NDArray[np.float32], items: int) -> bool:
    kind = session.kind(name) or guess_kind(values, items)
    return kind == "probabilities" and values.ndim >= 2 and len(values) == items and values[0].size == values.shape[1]


def refuse_other_outputs(session: Session, batch: Batch, form: Format) -> None:
    """Raises CaffeconvError for an output that has no classes, which only a table can sum up."""
    for name, values in batch.outputs.items():
        if not _gives_classes(session, name, values, batch.size):
            raise CaffeconvError(
                f"--format {form}: output '{name}' is {by_x(values.shape)}, and not the probabilities of classes; "
                "write such values with -o (.npz, .h5, .csv, .json), or leave --format out"
            )


def print_predictions(batches: Iterable[Batch], what: Classified, form: Format) -> Tally:
    """Prints every batch as it comes; nothing is kept but counts."""
    if form == "table":
        return _print_table(batches, what)
    write = _write_csv if form == "csv" else _write_jsonl
    tally = Tally(what.top_k)
    write(_counted(batches, what, tally), what)
    return tally


def _counted(batches: Iterable[Batch], what: Classified, tally: Tally) -> Iterator[Prediction]:
    for batch in batches:
        for prediction in _predictions(batch, what):
            tally.count(prediction)
            yield prediction


def _predictions(batch: Batch, what: Classified) -> Iterator[Prediction]:
    for i in range(batch.size):
        number = batch.start + i
        for name, values in batch.outputs.items():
            row = values[i].ravel()
            best = np.argsort(-row, kind="stable")[: what.top_k]
            labels = tuple(what.labels[k] if k < len(what.labels) else "" for k in best) if what.labels else ()
            own = what.own[number] if what.own is not None else None
            yield Prediction(
                what.items(number), name, tuple(float(row[k]) for k in best), tuple(map(int, best)), labels, own
            )


def _write_csv(predictions: Iterable[Prediction], what: Classified) -> None:
    header = ["item", "output", "rank", "class", "score"]
    header += [*(["label"] if what.labels else []), *(["own_class"] if what.own is not None else [])]
    click.echo(_csv_line(header), nl=False)
    for one in predictions:
        for rank, (number, score) in enumerate(zip(one.numbers, one.scores, strict=True)):
            row = [one.item, one.output, str(rank + 1), str(number), repr(score)]
            row += [*(one.labels[rank : rank + 1]), *([str(one.own)] if one.own is not None else [])]
            click.echo(_csv_line(row), nl=False)


def _csv_line(row: Sequence[str]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()


def _write_jsonl(predictions: Iterable[Prediction], what: Classified) -> None:
    for one in predictions:
        labels = one.labels or (None,) * len(one.numbers)
        best = [
            {"class": number, "score": score, **({} if label is None else {"label": label})}
            for number, score, label in zip(one.numbers, one.scores, labels, strict=True)
        ]
        own = {} if one.own is None else {"own_class": one.own}
        click.echo(json.dumps({"item": one.item, "output": one.output, **own, "classes": best}, ensure_ascii=False))


def _print_table(batches: Iterable[Batch], what: Classified) -> Tally:
    """A part of the table for each batch and output; the first has the headings."""
    console, tally, shown, width = make_console(), Tally(what.top_k), set(), 0
    for batch in batches:
        for prediction in _predictions(batch, what):
            tally.count(prediction)
        items = [what.items(batch.start + i) for i in range(batch.size)]
        width = max(width, *(min(len(item), MOST_NAME) for item in items))
        for name, values in batch.outputs.items():
            table = classes(name, values, items, what.labels, what.top_k)
            table.show_header = name not in shown or len(batch.outputs) > 1
            table.columns[0].min_width = width
            table.columns[1].min_width = max(6, len(name))
            table.columns[2].min_width = len("class")
            shown.add(name)
            console.print(table)
    return tally
