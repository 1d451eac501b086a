"""Classes of pictures, one item after another: as a table, CSV or JSON."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from caffeconv.cli.show.console import make_console
from caffeconv.cli.show.records import number_or_null
from caffeconv.cli.show.tables import classes, guess_kind
from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import format_shape

if TYPE_CHECKING:
    from caffeconv.inference.input_batches import Batch
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

    def rows(self) -> Iterator[Sequence[str]]:
        own = [] if self.own is None else [str(self.own)]
        for rank, (number, score) in enumerate(zip(self.numbers, self.scores, strict=True)):
            label = self.labels[rank : rank + 1]
            yield [self.item, self.output, str(rank + 1), str(number), repr(score), *label, *own]

    def as_json(self) -> Mapping[str, object]:
        labels = self.labels or (None,) * len(self.numbers)
        best = [
            {"class": number, "score": number_or_null(score), **({} if label is None else {"label": label})}
            for number, score, label in zip(self.numbers, self.scores, labels, strict=True)
        ]
        own = {} if self.own is None else {"own_class": self.own}
        return {"item": self.item, "output": self.output, **own, "classes": best}


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
    passed_over: Collection[int] = ()
    """Items that are left out."""

    @property
    def header(self) -> Sequence[str]:
        more = [*(["label"] if self.labels else []), *(["own_class"] if self.own is not None else [])]
        return ["item", "output", "rank", "class", "score", *more]


def is_classification(session: Session, batch: Batch) -> bool:
    """Whether every output is a score for each class of each item."""
    return all(_gives_classes(session, name, values, batch.size) for name, values in batch.outputs.items())


def _gives_classes(session: Session, name: str, values: NDArray[np.float32], items: int) -> bool:
    kind = session.kind(name) or guess_kind(values, items)
    return kind == "probabilities" and values.ndim >= 2 and len(values) == items and values[0].size == values.shape[1]


def refuse_other_outputs(session: Session, batch: Batch, option: str) -> None:
    """Raises CaffeconvError for an output that has no classes; `option`: what needs them."""
    for name, values in batch.outputs.items():
        if not _gives_classes(session, name, values, batch.size):
            raise CaffeconvError(
                f"{option}: output '{name}' is {format_shape(values.shape)}, and not the probabilities of "
                "classes, nor are all outputs "
                "detections; such values can be written whole with -o (.npz, .h5, .csv, .json), without --format"
            )


def predictions(batches: Iterable[Batch], what: Classified, tally: Tally) -> Iterator[Prediction]:
    """One for each item and output, counted as they pass."""
    for batch in batches:
        for prediction in _predictions(batch, what):
            tally.count(prediction)
            yield prediction


def _predictions(batch: Batch, what: Classified) -> Iterator[Prediction]:
    for i in range(batch.size):
        number = batch.start + i
        if number in what.passed_over:
            continue
        for name, values in batch.outputs.items():
            row = values[i].ravel()
            best = np.argsort(-row, kind="stable")[: what.top_k]
            labels = tuple(what.labels[k] if k < len(what.labels) else "" for k in best) if what.labels else ()
            own = what.own[number] if what.own is not None else None
            yield Prediction(
                what.items(number), name, tuple(float(row[k]) for k in best), tuple(map(int, best)), labels, own
            )


def print_table(batches: Iterable[Batch], what: Classified) -> Tally:
    """Prints a part of the table for each batch and output as it comes; the first has the headings."""
    console, tally, printed_names, width = make_console(), Tally(what.top_k), set(), 0
    for batch in batches:
        for prediction in _predictions(batch, what):
            tally.count(prediction)
        rows = [i for i in range(batch.size) if batch.start + i not in what.passed_over]
        if not rows:
            continue
        items = [what.items(batch.start + i) for i in rows]
        width = max(width, *(min(len(item), MOST_NAME) for item in items))
        for name, values in batch.outputs.items():
            table = classes(name, values[rows], items, what.labels, what.top_k)
            table.show_header = name not in printed_names or len(batch.outputs) > 1
            table.columns[0].min_width = width
            table.columns[1].min_width = max(6, len(name))
            table.columns[2].min_width = len("class")
            printed_names.add(name)
            console.print(table)
    return tally
