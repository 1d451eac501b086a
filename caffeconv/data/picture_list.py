"""ImageData: pictures that a file lists (caffe: image_data_layer.cpp)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.lists import find_listed, read_list
from caffeconv.data.pictures import Picture, read_picture, resize
from caffeconv.data.sources import Batch, DataSource
from caffeconv.data.transform import Transform, Transformer
from caffeconv.errors import CaffeconvError
from caffeconv.ir import FloatArray


@dataclass(frozen=True)
class Line:
    """One line of a list of pictures."""

    name: str
    label: int
    number: int


@dataclass(frozen=True)
class PictureList:
    """An ImageData layer's image_data_param: which pictures, and how they are read."""

    source: Path
    root_folder: str
    directory: Path
    """Where pictures are looked for that are not there as seen from the current folder."""
    color: bool
    size: tuple[int, int] | None
    """Height and width that every picture is resized to."""

    def lines(self) -> list[Line]:
        """The lines of the list; CaffeconvError for one that names no picture, or whose label is no number.

        In a list without any label, it is the digits that a name begins with, or 0, as in Caffe.
        """
        numbered = [(i, text) for i, text in enumerate(read_list(self.source).split("\n"), 1)]
        if numbered and not numbered[-1][1]:
            numbered.pop()
        if not numbered:
            raise CaffeconvError(f"{self.source}: File is empty; lines `picture label` were needed")
        labelled = any(" " in text for _, text in numbered)
        return [self._line(text, number, labelled=labelled) for number, text in numbered]

    def _line(self, text: str, number: int, *, labelled: bool) -> Line:
        # caffe: what follows the last space is the label, so that names may hold spaces
        name, _, label = text.rpartition(" ")
        if not labelled and text:
            return Line(text, _atoi(text) or 0, number)
        value = _atoi(label)
        if not name.strip() or value is None:
            raise CaffeconvError(
                f"{self.source}, line {number}: '{text}'; "
                "a picture's name, a space, and its label (a whole number) were needed"
            )
        return Line(name, value, number)

    def read(self, line: Line) -> Picture:
        """The picture of a line, H×W×C; CaffeconvError names the line."""
        where = self.where(line)
        path = find_listed(self.root_folder + line.name, self.directory)
        try:
            picture = read_picture(path, where, color=self.color)
        except SourceUnavailableError as error:
            hint = "Names are as seen from the current folder; root_folder is put before them"
            raise CaffeconvError(f"{error}. {hint}") from None
        return picture if self.size is None else resize(picture, *self.size)

    def where(self, line: Line) -> str:
        return f"{self.source}, line {line.number} ({line.name})"


def _atoi(text: str) -> int | None:
    """The whole number that a text begins with, as C's atoi reads it; None where there is none."""
    found = re.match(r"\s*[+-]?\d+", text, re.ASCII)
    return int(found[0]) if found else None


class PictureListSource(DataSource):
    """ImageData: the pictures of a list file, in its order or shuffled, over and over (caffe: image_data_layer.cpp)."""

    def __init__(
        self, tops: Sequence[str], pictures: PictureList, batch_size: int, transform: Transform,
        random: np.random.Generator, *, shuffle: bool = False, rand_skip: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(tops)
        self._pictures = pictures
        self._batch_size = batch_size
        self._transform = transform
        self._random = random
        self._shuffle = shuffle
        self._rand_skip = rand_skip
        self._next = 0
        self._opened: tuple[list[Line], Transformer] | None = None

    @property
    def at_start(self) -> bool:
        return self._next == 0

    @property
    def is_random(self) -> bool:
        return self._transform.is_random or self._shuffle or self._rand_skip > 0

    def count_items(self) -> int:
        return len(self._open()[0])

    def _open(self) -> tuple[list[Line], Transformer]:
        if self._opened is None:
            lines = self._pictures.lines()
            if self._shuffle:
                lines = self._shuffled(lines)
            if self._rand_skip:
                self._next = int(self._random.integers(self._rand_skip))
            if self._next >= len(lines):
                skipped = f"Not enough points to skip {self._next}"
                raise CaffeconvError(f"{self._pictures.source}: {len(lines)} lines; {skipped}")
            self._opened = lines, Transformer(self._transform, self._random)
        return self._opened

    def _read(self) -> Sequence[FloatArray]:
        lines, transformer = self._open()
        batch = Batch(self._batch_size, transformer)
        for i in range(self._batch_size):
            line = lines[self._next]
            batch.put(i, self._pictures.read(line).transpose(2, 0, 1), line.label, self._pictures.where(line))
            self._next = (self._next + 1) % len(lines)
            if self._next == 0 and self._shuffle:
                lines = self._shuffled(lines)
        self._opened = lines, transformer
        return batch.blobs(self.tops)

    def _shuffled(self, lines: Sequence[Line]) -> list[Line]:
        return [lines[i] for i in self._random.permutation(len(lines))]
