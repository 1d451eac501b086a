"""What a net finds, drawn on the pictures: boxes of objects, and maps of labels."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffeconv.cli.show.console import STAND_IN
from caffeconv.cli.show.detections import Box, Detected
from caffeconv.cli.show.tables import guess_kind
from caffeconv.data.images import Image, read_image
from caffeconv.data.input_items import ImageSource
from caffeconv.errors import CaffeconvError
from caffeconv.inference.output_batches import OutputBatch
from caffeconv.tensor.shape import FloatArray

Labels = NDArray[np.int64]
"""H×W: a class for each place."""
MOST_CLASSES = 256
"""Channels of scores that are still taken for classes."""
OVERLAY = 0.55
"""How much of a label map's colour lies over the picture."""


class Drawer:
    """Writes pictures with what is found in them into a folder, batch by batch.

    For boxes ``NAME.detections.png``; for scores N×C×H×W, or classes N×1×H×W, ``NAME.labels.png`` (a colour for each class,
    those of PASCAL VOC) and ``NAME.overlay.png``. Where several outputs can be drawn, the output's name stands in between.
    Nothing is drawn of scores of whole pictures.
    """

    def __init__(self, folder: Path, pictures: ImageSource, boxes: Detected, kind_of: Callable[[str], str]) -> None:
        """kind_of: what an output means; empty where the net does not say.

        Raises CaffeconvError where the folder cannot be made.
        """
        self._folder, self._pictures, self._boxes, self._kind_of = folder, pictures, boxes, kind_of
        self._inputs = {os.path.realpath(path) for path in pictures.files}
        self._names: set[str] = set()
        self.written = 0
        """Pictures so far."""
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise CaffeconvError(
                f"{folder}: no folder can be made here: {error.strerror}; choose another place"
            ) from None

    def draw(self, batch: OutputBatch) -> None:
        """Draws the items of a batch."""
        boxes = {name: values for name, values in batch.blobs.items() if self._holds_boxes(name, values, batch.size)}
        maps = {
            name: values for name, values in batch.blobs.items()
            if name not in boxes and is_label_map(values, batch.size)
        }  # fmt: skip
        if not boxes and not maps:
            return
        records = iter(self._boxes.records([replace(batch, blobs=boxes)]))
        for i, number in enumerate(map(int, batch.items)):
            path = self._pictures.files[number]
            picture, stem = read_image(path, color=True), self._stem(path)
            for record in (next(records) for _ in boxes):
                drawn = with_boxes(picture, record.boxes, self._window)
                self._write(f"{self._start(stem, record.output, len(boxes))}.detections.png", drawn)
            for name, values in maps.items():
                self._draw_labels(self._start(stem, name, len(maps)), picture, label_map(values[i]))

    def _holds_boxes(self, name: str, values: FloatArray, items: int) -> bool:
        return (self._kind_of(name) or guess_kind(values, items)) == "detections"

    def _start(self, stem: str, output: str, outputs: int) -> str:
        return stem if outputs == 1 else f"{stem}.{re.sub(r'[^a-zA-Z0-9_.-]', '_', output)}"

    def _draw_labels(self, start: str, picture: Image, labels: Labels) -> None:
        import cv2

        height, width = picture.shape[:2]
        top, left, bottom, right = in_pixels((0, 0, 1, 1), self._window, (height, width))
        colours = palette(int(labels.max(initial=0)) + 1)[labels]
        self._write(f"{start}.labels.png", colours)
        size = (max(1, right - left), max(1, bottom - top))
        fitted = cv2.resize(colours, size, interpolation=cv2.INTER_NEAREST)
        overlay, place = picture.copy(), (slice(top, bottom), slice(left, right))
        mixed = OVERLAY * fitted + (1 - OVERLAY) * picture[place]
        # class 0 is the background of most such nets, and black hides the picture
        overlay[place] = np.where((fitted == 0).all(axis=-1, keepdims=True), picture[place], mixed.round())
        self._write(f"{start}.overlay.png", overlay)

    @property
    def _window(self) -> tuple[float, float, float, float]:
        """Top, left, bottom and right of what the net sees, as fractions of the picture."""
        transform = self._pictures.transform
        if transform.resize is None or transform.crop is None:
            return 0, 0, 1, 1
        margins = [(1 - crop / size) / 2 for crop, size in zip(transform.crop, transform.resize, strict=True)]
        return margins[0], margins[1], 1 - margins[0], 1 - margins[1]

    def _stem(self, path: Path) -> str:
        """A file's name, and a number where another picture has it already."""
        stem, number = path.stem, 1
        while stem in self._names:
            number += 1
            stem = f"{path.stem}.{number}"
        self._names.add(stem)
        return stem

    def _write(self, name: str, image: NDArray[np.uint8]) -> None:
        import cv2

        from caffeconv.files.atomic import whole_file

        path = self._folder / name
        if os.path.realpath(path) in self._inputs:
            raise CaffeconvError(f"{path}: this is one of the pictures, and is not overwritten; choose another folder")
        with whole_file(path) as file:
            file.write(cv2.imencode(".png", image)[1].tobytes())
        self.written += 1


def is_label_map(values: FloatArray, items: int) -> bool:
    """Whether a blob has a score for each class at each place, N×C×H×W, or the class itself, N×1×H×W."""
    if values.ndim != 4 or len(values) != items or min(values.shape[2:]) < 2 or values.shape[1] > MOST_CLASSES:
        return False
    are_classes = (values == np.floor(values)) & (values >= 0) & (values < MOST_CLASSES)
    return values.shape[1] > 1 or bool(are_classes.all())


def label_map(scores: FloatArray) -> Labels:
    """H×W of C×H×W: the class with the greatest score; of 1×H×W the values themselves."""
    labels = scores[0] if len(scores) == 1 else scores.argmax(axis=0)
    return np.asarray(labels, np.int64)


def palette(classes: int) -> NDArray[np.uint8]:
    """Blue, green and red of each class: PASCAL VOC's, which spread the bits of the class over the three channels."""
    numbers = np.arange(classes)
    colours = np.zeros((classes, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, 2 - channel] |= ((numbers >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def in_pixels(
    corners: Sequence[float], window: Sequence[float], size: tuple[int, int]
) -> tuple[int, int, int, int]:  # fmt: skip
    """Top, left, bottom and right, given as fractions of the window, in pixels of the picture; within it."""
    top, left, bottom, right = window
    height, width = size
    rows = [top + y * (bottom - top) for y in (corners[0], corners[2])]
    columns = [left + x * (right - left) for x in (corners[1], corners[3])]
    y1, y2 = (round(min(max(y, 0.0), 1.0) * height) for y in rows)
    x1, x2 = (round(min(max(x, 0.0), 1.0) * width) for x in columns)
    return y1, x1, y2, x2


def with_boxes(picture: Image, boxes: Sequence[Box], window: Sequence[float]) -> Image:
    """The picture (H×W×3) with a frame for each box, its class and its score; boxes with values that are no numbers are
    left out."""
    import cv2

    drawn: Image = picture.copy()
    height, width = drawn.shape[:2]
    scale = max(0.4, min(height, width) / 700)
    thick = max(1, round(2 * scale))
    for box in boxes:
        if not np.isfinite((*box.corners, box.score)).all():
            continue
        xmin, ymin, xmax, ymax = box.corners
        top, left, bottom, right = in_pixels((ymin, xmin, ymax, xmax), window, (height, width))
        colour = tuple(int(part) for part in palette(MOST_CLASSES)[(box.number or 15) % MOST_CLASSES])
        cv2.rectangle(drawn, (left, top), (right, bottom), colour, thick + 1)
        # OpenCV's own font has ASCII alone
        text = f"{box.label or box.number} {box.score:.2f}".encode("ascii", STAND_IN).decode()
        (across, up), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
        bottom_of_text = max(top, up + 2 * below)
        x = max(0, min(left, width - across))
        cv2.rectangle(drawn, (x, bottom_of_text - up - 2 * below), (x + across, bottom_of_text), colour, cv2.FILLED)
        ink = (0, 0, 0) if 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > 140 else (255, 255, 255)
        place = (x, bottom_of_text - below)
        cv2.putText(drawn, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thick, cv2.LINE_AA)
    return drawn
