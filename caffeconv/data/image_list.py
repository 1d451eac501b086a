"""ImageData: pictures that a file lists (caffe: image_data_layer.cpp)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffeconv.data.database import LOOKED_AT
from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.image_transform import ImageTransform
from caffeconv.data.images import Image, channels_first, read_image, resize
from caffeconv.data.lists import read_list
from caffeconv.data.source import DataSource, ItemBlock
from caffeconv.data.transform import Transform
from caffeconv.errors import CaffeconvError
from caffeconv.files.net_folders import NetFolders
from caffeconv.tensor.shape import FloatArray


@dataclass(frozen=True)
class Line:
    """One line of a list of pictures."""

    name: str
    label: int
    number: int
    fault: str = ""
    """What is wrong with the line itself; empty where it names a picture."""


@dataclass(frozen=True)
class ImageList:
    """An ImageData layer's image_data_param: which pictures, and how they are read."""

    source: Path
    root_folder: str
    folders: NetFolders
    color: bool
    size: tuple[int, int] | None
    """Height and width that every picture is resized to."""

    def lines(self) -> list[Line]:
        """As `all_lines`, but CaffeconvError for a line with a fault."""
        lines = self.all_lines()
        for line in lines:
            if line.fault:
                raise CaffeconvError(line.fault)
        return lines

    def all_lines(self) -> list[Line]:
        """The lines of the list; one that names no picture, or whose label is no number, has a `fault`.

        In a list without any label, it is the digits that a name begins with, or 0, as in Caffe. Raises CaffeconvError
        for a list without lines.
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
            requirement = "a picture's name, a space, and its label (a whole number) were needed"
            return Line(text, 0, number, f"{self.source}, line {number}: '{text}'; {requirement}")
        return Line(name, value, number)

    def read(self, line: Line) -> Image:
        """The picture of a line, H×W×C; CaffeconvError names the line."""
        if line.fault:
            raise CaffeconvError(line.fault)
        where = self.where(line)
        path = self.folders.find(self.root_folder + line.name)
        try:
            image = read_image(path, where, color=self.color)
        except SourceUnavailableError as error:
            hint = "Names are as seen from the current folder; root_folder is put before them"
            raise CaffeconvError(f"{error}. {hint}") from None
        return image if self.size is None else resize(image, *self.size)

    def first_size(self) -> tuple[int, int]:
        """Height and width of the first picture; where it is damaged, which whoever reads it will say, of one after it."""
        fault: CaffeconvError | None = None
        for line in self.all_lines()[:LOOKED_AT]:
            try:
                height, width, _ = self.read(line).shape
            except CaffeconvError as error:
                fault = fault or error
                continue
            return height, width
        assert fault is not None
        raise fault

    def where(self, line: Line) -> str:
        return f"{self.source}, line {line.number} ({line.name})"


def _atoi(text: str) -> int | None:
    """The whole number that a text begins with, as C's atoi reads it; None where there is none."""
    match = re.match(r"\s*[+-]?\d+", text, re.ASCII)
    return int(match[0]) if match else None


class ImageListSource(DataSource):
    """ImageData: the pictures of a list file, in its order or shuffled, over and over (caffe: image_data_layer.cpp)."""

    def __init__(
        self, tops: Sequence[str], images: ImageList, batch_size: int, transform: Transform,
        random: np.random.Generator, *, shuffle: bool = False, rand_skip: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(tops, batch_size, random)
        self._images = images
        self._transform = transform
        self._shuffle = shuffle
        self._skip = int(random.integers(rand_skip)) if rand_skip else 0
        self._opened: tuple[list[Line], ImageTransform] | None = None
        self._order: tuple[int, Sequence[int]] | None = None
        """An epoch, and the order of the lines in it."""

    @property
    def at_start(self) -> bool:
        return self._opened is None or (self.position + self._skip) % len(self._opened[0]) == 0

    @property
    def is_random(self) -> bool:
        return self._transform.is_random or self._shuffle or self._skip > 0

    @property
    def name(self) -> str:
        return str(self._images.source)

    def count_items(self) -> int:
        return len(self._open()[0])

    def _open(self) -> tuple[list[Line], ImageTransform]:
        if self._opened is None:
            # a faulty line is refused before the run, not an hour into it
            lines = self._images.all_lines() if self.skips_bad else self._images.lines()
            if self._skip >= len(lines):
                skipped = f"Not enough points to skip {self._skip}"
                raise CaffeconvError(f"{self._images.source}: {len(lines)} lines; {skipped}")
            self._opened = lines, self._transform.load()
        return self._opened

    def _take(self) -> ItemBlock:
        lines, transform = self._open()
        position, images = self.position, self._images
        epoch, index = divmod(position + self._skip, len(lines))
        line = lines[self._order_of(epoch)[index]]
        where = images.where(line)

        def make() -> Sequence[FloatArray]:
            item = channels_first(images.read(line))
            random = self.random_at(position) if self._transform.is_random else None
            return (transform.apply(item, where, random)[None], np.array([line.label], np.float32))[: len(self.tops)]

        return ItemBlock(position, 1, where, make)

    def _order_of(self, epoch: int) -> Sequence[int]:
        number = len(self._open()[0])
        if not self._shuffle:
            return range(number)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self.random_of_epoch(epoch).permutation(number).tolist()
        return self._order[1]

    def _go_to(self, position: int) -> None:
        self._open()
