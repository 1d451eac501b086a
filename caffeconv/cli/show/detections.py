"""Detections of pictures: boxes, one after another, as CSV or JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffeconv.cli.show.records import number_or_null
from caffeconv.cli.show.tables import guess_kind

if TYPE_CHECKING:
    from caffeconv.inference.data_passes import Model
    from caffeconv.inference.output_batches import OutputBatch

CORNERS = ("xmin", "ymin", "xmax", "ymax")
"""Fractions of the picture's width and height, as DetectionOutput gives them."""


@dataclass(frozen=True)
class Box:
    """One detected object."""

    number: int
    score: float
    corners: tuple[float, ...]
    label: str | None
    """The class's name; None where no names are known."""


@dataclass(frozen=True)
class Detections:
    """The boxes of one item, in the order of the net."""

    item: str
    output: str
    boxes: tuple[Box, ...]

    def rows(self) -> Iterator[Sequence[str]]:
        for box in self.boxes:
            label = [] if box.label is None else [box.label]
            corners = map(repr, box.corners)
            yield [self.item, self.output, str(box.number), repr(box.score), *corners, *label]

    def as_json(self) -> Mapping[str, object]:
        return {"item": self.item, "output": self.output, "detections": [_as_json(box) for box in self.boxes]}


@dataclass(frozen=True)
class Detected:
    """What is looked at: items by number, the classes' names, and the score from which a box counts."""

    items: Callable[[int], str]
    labels: Sequence[str]
    threshold: float

    @property
    def header(self) -> Sequence[str]:
        return ["item", "output", "class", "score", *CORNERS, *(["label"] if self.labels else [])]

    def records(self, batches: Iterable[OutputBatch]) -> Iterator[Detections]:
        """One for each item and output, also where nothing was found."""
        for batch in batches:
            for i, number in enumerate(map(int, batch.items)):
                for name, values in batch.blobs.items():
                    rows = (row[:7].tolist() for row in values.reshape(-1, values.shape[-1]) if row[0] == i)
                    boxes = tuple(
                        Box(int(label), score, tuple(corners), self._label(int(label)))
                        for _, label, score, *corners in rows
                        if label >= 0 and score >= self.threshold
                    )
                    yield Detections(self.items(number), name, boxes)

    def _label(self, number: int) -> str | None:
        if not self.labels:
            return None
        return self.labels[number] if number < len(self.labels) else ""


def is_detection(model: Model, batch: OutputBatch) -> bool:
    """Whether every output lists boxes, image by image."""
    return all(
        (model.kind(name) or guess_kind(values, batch.size)) == "detections" for name, values in batch.blobs.items()
    )


def _as_json(box: Box) -> dict[str, object]:
    label = {} if box.label is None else {"label": box.label}
    corners = zip(CORNERS, map(number_or_null, box.corners), strict=True)
    return {"class": box.number, **label, "score": number_or_null(box.score), **dict(corners)}
