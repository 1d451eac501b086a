"""Classes of pictures, one item after another: as a table, CSV or JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from caffeconv.cli.show.console import make_console
from caffeconv.cli.show.records import number_or_null
from caffeconv.cli.show.tables import classes, guess_kind
from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import format_shape

if TYPE_CHECKING:
    from caffeconv.inference.output_batches import OutputBatch

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

    @property
    def header(self) -> Sequence[str]:
        more = [*(["label"] if self.labels else []), *(["own_class"] if self.own is not None else [])]
        return ["item", "output", "rank", "class", "score", *more]


@dataclass(frozen=True)
class ClassRule:
    """Which blobs are scores of classes: those that the net or their values show to be probabilities, and, where somebody
    wants to see classes, others with one value for each class of each item."""

    kind_of: Callable[[str], str]
    """What a blob is by the net; empty where it does not say."""
    labels: Sequence[str] = ()
    wants_classes: bool = False
    """Whether classes were asked for, so that scores which are no probabilities count too."""

    def gives_classes(self, name: str, values: NDArray[np.float32], items: int) -> bool:
        """Whether N×C, or N×C×1×1, holds scores; CaffeconvError where there are not as many labels as classes."""
        if values.ndim < 2 or len(values) != items or values[0].size != values.shape[1]:
            return False
        kind = self.kind_of(name) or guess_kind(values, items)
        if kind == "probabilities" and self.labels and len(self.labels) != values.shape[1]:
            raise CaffeconvError(
                f"`labels=…`: {len(self.labels)} names, and output '{name}' has {values.shape[1]} classes; "
                "a name for each was needed"
            )
        if kind or not self.wants_classes:
            return kind == "probabilities"
        number = int(values.shape[1])
        return number == len(self.labels) if self.labels else number > 1

    def kind(self, name: str, values: NDArray[np.float32], items: int) -> str:
        """What a blob is shown as: "classes", "detections", or empty for a summary; raises as `gives_classes`."""
        if self.gives_classes(name, values, items):
            return "classes"
        return "detections" if (self.kind_of(name) or guess_kind(values, items)) == "detections" else ""

    def is_classification(self, batch: OutputBatch) -> bool:
        """Whether every output is a score for each class of each item."""
        return all(self.gives_classes(name, values, batch.size) for name, values in batch.blobs.items())


def refuse_other_outputs(rule: ClassRule, batch: OutputBatch, asker: str) -> None:
    """Raises CaffeconvError for an output that has no classes; `asker`: what needs them."""
    for name, values in batch.blobs.items():
        if not rule.gives_classes(name, values, batch.size):
            raise CaffeconvError(
                f"{asker}: output '{name}' is {format_shape(values.shape)}, and not the probabilities of "
                "classes, nor are all outputs "
                "detections; such values can be written whole with -o (.npz, .h5, .csv, .json), without --format"
            )


def predictions(batches: Iterable[OutputBatch], what: Classified, tally: Tally) -> Iterator[Prediction]:
    """One for each item and output, counted as they pass."""
    for batch in batches:
        for prediction in _predictions(batch, what):
            tally.count(prediction)
            yield prediction


def _predictions(batch: OutputBatch, what: Classified) -> Iterator[Prediction]:
    for i, number in enumerate(map(int, batch.items)):
        for name, values in batch.blobs.items():
            row = values[i].ravel()
            best = np.argsort(-row, kind="stable")[: what.top_k]
            labels = tuple(what.labels[k] if k < len(what.labels) else "" for k in best) if what.labels else ()
            own = what.own[number] if what.own is not None else None
            yield Prediction(
                what.items(number), name, tuple(float(row[k]) for k in best), tuple(map(int, best)), labels, own
            )


def print_table(batches: Iterable[OutputBatch], what: Classified) -> Tally:
    """Prints a part of the table for each batch and output as it comes; the first has the headings."""
    console, tally, with_heading, width = make_console(), Tally(what.top_k), set(), 0
    for batch in batches:
        for prediction in _predictions(batch, what):
            tally.count(prediction)
        if not batch.size:
            continue
        items = [what.items(int(number)) for number in batch.items]
        most = min(MOST_NAME, console.width // 2)
        width = max(width, *(min(len(item), most) for item in items))
        for name, values in batch.blobs.items():
            table = classes(name, values, items, what.labels, what.top_k)
            table.show_header = name not in with_heading or len(batch.blobs) > 1
            table.columns[0].min_width = width
            table.columns[1].min_width = max(6, len(name))
            table.columns[2].min_width = len("class")
            with_heading.add(name)
            console.print(table)
    return tally
