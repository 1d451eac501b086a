"""WindowData: windows of pictures, part objects and part background, drawn at random (caffe: window_data_layer.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.images import Image, decode_image, read_image, resize
from caffeconv.data.lists import read_list
from caffeconv.data.source import DataSource, ItemBlock
from caffeconv.data.transform import Transform, read_mean
from caffeconv.errors import CaffeconvError
from caffeconv.files.net_folders import NetFolders
from caffeconv.files.plain_file import read_plain
from caffeconv.tensor.shape import FloatArray, format_shape

CropMode = Literal["warp", "square"]
_LAYOUT = "# image_index, path, channels, height, width, num_windows, then `label overlap x1 y1 x2 y2` for each window"


@dataclass(frozen=True)
class Sampling:
    """A WindowData layer's window_data_param: which windows are drawn, and what is cut out of the pictures."""

    source: Path
    root_folder: str
    folders: NetFolders
    batch_size: int
    crop_size: int
    context_pad: int
    """Pixels around the window in the crop."""
    crop_mode: CropMode
    fg_threshold: float
    bg_threshold: float
    fg_fraction: float
    scale: float
    cache_images: bool


@dataclass(frozen=True)
class Window:
    """A rectangle of a picture, the right and lower edge included, with its class (0: background)."""

    image: int
    label: int
    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(frozen=True)
class WindowFile:
    """The pictures of a window file, and their windows sorted into objects and background."""

    images: tuple[str, ...]
    channels: int
    objects: tuple[Window, ...]
    background: tuple[Window, ...]


def read_windows(path: Path, fg_threshold: float, bg_threshold: float) -> WindowFile:
    """Reads a window file; CaffeconvError names the line where it is not as it should be."""
    text = _Words(read_list(path), path)
    images: list[str] = []
    objects: list[Window] = []
    background: list[Window] = []
    channels = 0
    if not text.left:
        raise CaffeconvError(f"{path}: Window file is empty; {_LAYOUT} were needed")
    while text.left:
        if (mark := text.word()) != "#":
            raise text.fail(f"'{mark}' where '#' was needed")
        index = text.integer()
        images.append(text.word())
        channels, _, _ = text.integer(), text.integer(), text.integer()
        for _ in range(text.integer()):
            label, overlap, corners = text.integer(), text.number(), [text.integer() for _ in range(4)]
            if overlap >= fg_threshold:
                if label < 1:
                    raise text.fail(f"label {label} of a window with overlap {overlap:g}; a label above 0 was needed")
                objects.append(Window(index, label, *corners))
            elif overlap < bg_threshold:
                background.append(Window(index, 0, *corners))
    wrong = [window.image for window in (*objects, *background) if not 0 <= window.image < len(images)]
    if wrong:
        raise CaffeconvError(
            f"{path}: image index {wrong[0]}, with {len(images)} pictures in the file; they count from 0, in order"
        )
    return WindowFile(tuple(images), channels, tuple(objects), tuple(background))


class _Words:
    """The words of a file, one after another, with the line of the last one."""

    def __init__(self, text: str, path: Path) -> None:
        self._words = [(word, number) for number, line in enumerate(text.split("\n"), 1) for word in line.split()]
        self._path = path
        self._next = 0

    @property
    def left(self) -> int:
        """How many words are still to come."""
        return len(self._words) - self._next

    @property
    def line(self) -> int:
        return self._words[self._next - 1][1]

    def fail(self, what: str) -> CaffeconvError:
        return CaffeconvError(f"{self._path}, line {self.line}: {what} ({_LAYOUT})")

    def word(self) -> str:
        if not self.left:
            raise self.fail("the file ends here, in the middle of a picture's windows")
        self._next += 1
        return self._words[self._next - 1][0]

    def integer(self) -> int:
        word = self.word()
        try:
            return int(word)
        except ValueError:
            raise self.fail(f"'{word}' where a whole number was needed") from None

    def number(self) -> float:
        word = self.word()
        try:
            return float(word)
        except ValueError:
            raise self.fail(f"'{word}' where a number was needed") from None


@dataclass(frozen=True)
class Place:
    """Which part of a picture goes where in the crop."""

    x1: int
    y1: int
    x2: int
    y2: int
    """The part, clipped to the picture; right and lower edge included."""
    width: int
    height: int
    """Its size in the crop."""
    left: int
    top: int
    """Its offset in the crop."""


def place(
    window: Window, image: tuple[int, int], crop_size: int, context_pad: int, crop_mode: CropMode, *, mirrored: bool
) -> Place:
    """Where a window, with its surroundings, comes to lie in the crop. `picture` is height and width.

    Caffe works with floats here, as does this.
    """
    if context_pad == 0 and crop_mode != "square":
        return Place(window.x1, window.y1, window.x2, window.y2, crop_size, crop_size, 0, 0)
    real = np.float32
    # how much larger a region must be so that `context_pad` pixels of the crop lie around the window
    context = real(crop_size) / real(crop_size - 2 * context_pad)
    half_height, half_width = real(window.y2 - window.y1 + 1) / real(2), real(window.x2 - window.x1 + 1) / real(2)
    center_x, center_y = real(window.x1) + half_width, real(window.y1) + half_height
    if crop_mode == "square":
        half_height = half_width = max(half_height, half_width)
    x1, x2 = _round(center_x - half_width * context), _round(center_x + half_width * context)
    y1, y2 = _round(center_y - half_height * context), _round(center_y + half_height * context)
    scale_x, scale_y = real(crop_size) / real(x2 - x1 + 1), real(crop_size) / real(y2 - y1 + 1)
    beyond_x1, beyond_y1 = max(0, -x1), max(0, -y1)
    beyond_x2, beyond_y2 = max(0, x2 - image[1] + 1), max(0, y2 - image[0] + 1)
    x1, y1, x2, y2 = x1 + beyond_x1, y1 + beyond_y1, x2 - beyond_x2, y2 - beyond_y2
    top = _round(real(beyond_y1) * scale_y)
    left = _round(real(beyond_x2 if mirrored else beyond_x1) * scale_x)
    # rounding may have made it a pixel too large
    width = min(_round(real(x2 - x1 + 1) * scale_x), crop_size - left)
    height = min(_round(real(y2 - y1 + 1) * scale_y), crop_size - top)
    return Place(x1, y1, x2, y2, width, height, left, top)


def _round(value: np.float32) -> int:
    """As C's round(): halves go away from zero."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))


class WindowSource(DataSource):
    """Batches of windows: the background first, then objects, each drawn at random, in TEST as in TRAIN.

    Outside the picture the crop is 0; the mean is subtracted only inside. `transform_param { scale }` does not count,
    `window_data_param { scale }` does.
    """

    def __init__(
        self, tops: Sequence[str], sampling: Sampling, transform: Transform, random: np.random.Generator
    ) -> None:
        super().__init__(tops, sampling.batch_size, random)
        self._sampling = sampling
        self._transform = transform
        self._opened: tuple[WindowFile, FloatArray | None] | None = None
        self._cached: dict[str, bytes] = {}

    @property
    def at_start(self) -> bool:
        return False

    @property
    def is_random(self) -> bool:
        return True

    @property
    def name(self) -> str:
        return str(self._sampling.source)

    def count_items(self) -> int:
        windows, _ = self._open()
        return len(windows.objects) + len(windows.background)

    def _open(self) -> tuple[WindowFile, FloatArray | None]:
        if self._opened is None:
            sampling = self._sampling
            windows = read_windows(sampling.source, sampling.fg_threshold, sampling.bg_threshold)
            if windows.channels != 3:
                raise CaffeconvError(f"{sampling.source}: pictures of {windows.channels} channels; 3 were needed")
            self._opened = windows, self._mean(windows.channels)
        return self._opened

    def _mean(self, channels: int) -> FloatArray | None:
        """C×crop×crop, None where nothing is subtracted."""
        crop, values = self._sampling.crop_size, self._transform.mean_values
        if self._transform.mean_file is not None:
            mean = read_mean(self._transform.mean_file)
            # caffe: the row's offset is taken from the width as well
            offset = (mean.shape[2] - crop) // 2
            cut = mean[:, offset : offset + crop, offset : offset + crop] if offset >= 0 else mean[:0]
            if cut.shape != (channels, crop, crop):
                requirement = f"at least {channels}×{crop}×{crop} was needed"
                raise CaffeconvError(
                    f"{self._transform.mean_file}: the mean is {format_shape(mean.shape)}; {requirement}"
                )
            return cut
        if not values:
            return None
        if len(values) not in (1, channels):
            requirement = f"Specify either 1 mean_value or as many as channels: {channels}"
            raise CaffeconvError(f"{len(values)} mean_value; {requirement}")
        return np.broadcast_to(np.resize(np.array(values, np.float32), (channels, 1, 1)), (channels, crop, crop))

    def _take(self) -> ItemBlock:
        windows, _ = self._open()
        sampling, random = self._sampling, self.random_at(self.position)
        objects = int(np.float32(sampling.batch_size) * np.float32(sampling.fg_fraction))
        draws = [self._draw(windows.background, "background", random) for _ in range(sampling.batch_size - objects)]
        draws += [self._draw(windows.objects, "object", random) for _ in range(objects)]
        return ItemBlock(self.position, sampling.batch_size, self.name, lambda: self._make(draws))

    def _go_to(self, position: int) -> None:
        return  # every batch is drawn anew

    def _make(self, draws: Sequence[tuple[Window, bool]]) -> Sequence[FloatArray]:
        windows, mean = self._open()
        sampling = self._sampling
        crop = sampling.crop_size
        data = np.zeros((sampling.batch_size, 3, crop, crop), np.float32)
        for item, (window, mirrored) in zip(data, draws, strict=True):
            self._cut(windows.images[window.image], window, mean, item, mirrored=mirrored)
        return data, np.array([window.label for window, _ in draws], np.float32)

    def _draw(self, windows: Sequence[Window], kind: str, random: np.random.Generator) -> tuple[Window, bool]:
        """A window, and whether it is mirrored."""
        if not windows:
            sampling = self._sampling
            raise CaffeconvError(
                f"{sampling.source}: no {kind} windows (fg_threshold {sampling.fg_threshold:g}, bg_threshold "
                f"{sampling.bg_threshold:g}); at least one was needed for fg_fraction {sampling.fg_fraction:g}"
            )
        window = windows[int(random.integers(len(windows)))]
        return window, self._transform.mirror and random.integers(2) == 1

    def _cut(self, name: str, window: Window, mean: FloatArray | None, out: FloatArray, *, mirrored: bool) -> None:
        """Writes the crop of a window into `out`, C×crop×crop of zeros."""
        sampling = self._sampling
        image = self._image(name)
        at = place(
            window, (image.shape[0], image.shape[1]), sampling.crop_size, sampling.context_pad, sampling.crop_mode,
            mirrored=mirrored,
        )  # fmt: skip
        inside = 0 <= at.x1 <= at.x2 < image.shape[1] and 0 <= at.y1 <= at.y2 < image.shape[0]
        if not inside or at.width < 1 or at.height < 1:
            raise CaffeconvError(
                f"{sampling.source}: window x {window.x1} to {window.x2}, y {window.y1} to {window.y2} does not lie in "
                f"{name}, which is {image.shape[1]} wide and {image.shape[0]} high"
            )
        part = resize(image[at.y1 : at.y2 + 1, at.x1 : at.x2 + 1], at.height, at.width)
        values = (part[:, ::-1] if mirrored else part).transpose(2, 0, 1)
        rows, columns = slice(at.top, at.top + at.height), slice(at.left, at.left + at.width)
        target = out[:, rows, columns]
        np.subtract(values, 0 if mean is None else mean[:, rows, columns], out=target, dtype=np.float32)
        target *= np.float32(sampling.scale)

    def _image(self, name: str) -> Image:
        sampling = self._sampling
        where = f"{sampling.source} names {name}"
        if name in self._cached:
            return decode_image(self._cached[name], where, color=True)
        path = sampling.folders.find(sampling.root_folder + name)
        try:
            image = read_image(path, where, color=True)
        except SourceUnavailableError as error:
            raise CaffeconvError(str(error)) from None
        if sampling.cache_images:
            self._cached[name] = read_plain(path)
        return image
