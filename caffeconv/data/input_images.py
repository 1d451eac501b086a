"""Pictures as Caffe's nets want them: BGR, resized, cropped, mean subtracted, scaled (caffe: data_transformer.cpp).

Pictures are decoded and resized by OpenCV, as Caffe did.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffeconv.data.images import Image, channels_first, read_picture, resize
from caffeconv.data.lists import find_listed, read_list
from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import FloatArray, format_shape

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"))
LISTS = frozenset((".txt", ".lst", ".list"))
"""Files that list pictures, one a line."""


@dataclass(frozen=True)
class Transform:
    """picture → C×H×W float32: (crop(resize(picture)) - mean) · scale."""

    channels: int
    size: tuple[int, int]
    """Height and width that the net takes."""
    resize: tuple[int, int] | None = None
    """Height and width before the centre crop to `size`; None: `size`, or that of a mean that is a picture itself."""
    mean: FloatArray | None = None
    """C values, or C×H×W, in the order of the net's channels."""
    scale: float = 1.0
    rgb: bool = False
    """Whether the net's channels are red, green, blue; Caffe's are blue, green, red."""

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise CaffeconvError(f"the net takes {self.channels} channels; a picture has 1 or 3. Give an array (.npy)")
        if self.mean is not None and self.mean.shape[0] not in (1, self.channels):
            raise CaffeconvError(f"the mean has {self.mean.shape[0]} channels, the net takes {self.channels}")
        height, width = self.before_crop
        if height < self.size[0] or width < self.size[1]:
            raise CaffeconvError(
                f"a picture of {height}×{width} cannot be cropped to the net's {format_shape(self.size)}"
            )

    @property
    def before_crop(self) -> tuple[int, int]:
        """Height and width that a picture is resized to."""
        if self.resize is not None:
            return self.resize
        if self.mean is not None and self.mean.ndim == 3 and self.mean.shape[1:] != (1, 1):
            return (self.mean.shape[1], self.mean.shape[2])
        return self.size

    def apply(self, picture: Image) -> FloatArray:
        """C×H×W of one decoded picture (H×W×C, C 3: BGR, or 1: grey)."""
        return self._cropped(self._planes(picture), *self._centre)

    def ten_crops(self, picture: Image) -> FloatArray:
        """10×C×H×W of one decoded picture: corners, centre, and these mirrored (caffe: io.py oversample)."""
        planes, (top, left) = self._planes(picture), self._centre
        down, right = self.before_crop[0] - self.size[0], self.before_crop[1] - self.size[1]
        places = ((0, 0), (0, right), (down, 0), (down, right), (top, left))
        crops = [self._cropped(planes, *place) for place in places]
        return np.stack([*crops, *(crop[:, :, ::-1] for crop in crops)])

    @property
    def _centre(self) -> tuple[int, int]:
        height, width = self.before_crop
        return (height - self.size[0]) // 2, (width - self.size[1]) // 2

    def _planes(self, picture: Image) -> FloatArray:
        """C×H×W before the crop."""
        height, width = self.before_crop
        resized = picture if picture.shape[:2] == (height, width) else resize(picture, height, width)
        planes: FloatArray = channels_first(resized).astype(np.float32)
        return planes[::-1] if self.rgb else planes

    def _cropped(self, planes: FloatArray, top: int, left: int) -> FloatArray:
        crop = (slice(None), slice(top, top + self.size[0]), slice(left, left + self.size[1]))
        values = planes[crop]
        if self.mean is not None:
            values = values - self._mean_for(crop)
        return np.ascontiguousarray(values * np.float32(self.scale), np.float32)

    def _mean_for(self, crop: tuple[slice, ...]) -> FloatArray:
        assert self.mean is not None
        if self.mean.ndim == 1:
            return self.mean[:, None, None]
        if self.mean.shape[1:] == (1, 1):
            return self.mean
        if self.mean.shape[1:] != self.before_crop:
            raise CaffeconvError(
                f"the mean is {format_shape(self.mean.shape)}, the picture {format_shape(self.before_crop)} before the crop; "
                "leave --resize out, or give a mean value per channel (--mean 104,117,123)"
            )
        return self.mean[crop]

    def decode(self, path: Path) -> Image:
        """H×W×C of one picture file; CaffeconvError where it cannot be read."""
        return read_picture(path, color=self.channels == 3)

    @property
    def black(self) -> Image:
        """A picture that stands where there is none."""
        return np.zeros((*self.before_crop, self.channels), np.uint8)


@dataclass(frozen=True)
class Pictures:
    """Picture files in order, and the class that a list gives for each."""

    paths: tuple[Path, ...]
    classes: tuple[int, ...] | None = None


def find_pictures(source: Path, faults: list[str] | None = None) -> Pictures:
    """The pictures that a file name, a folder, a glob or a list file stands for; CaffeconvError where there are none.

    faults: takes what is wrong with lines of a list, which are left out then; None: the first one raises CaffeconvError.
    """
    if source.suffix.lower() in LISTS and source.is_file():
        return _listed(source, faults)
    return Pictures(tuple(_found(source)))


def _listed(source: Path, faults: list[str] | None) -> Pictures:
    """Lines ``picture`` or ``picture class``, as ImageData reads them; names from the current folder, or from beside it."""
    lines = [(i, text.rstrip("\r")) for i, text in enumerate(read_list(source).split("\n"), 1) if text.strip()]
    if not lines:
        raise CaffeconvError(f"{source}: File is empty; lines `picture` or `picture class` were needed")
    found = [(number, text, re.fullmatch(r"(.*\S)\s+(\d+)\s*", text)) for number, text in lines]
    with_classes = any(match for _, _, match in found)
    pictures: list[tuple[Path, int]] = []
    for number, text, match in found:
        try:
            if with_classes and match is None:
                raise CaffeconvError(
                    f"{source}, line {number}: '{text}'; other lines end in a class number: "
                    "a picture's name, a space, and its class were needed in each line, or names alone"
                )
            name, own = (match[1], int(match[2])) if match else (text.strip(), 0)
            pictures.append((_picture_of(source, number, name), own))
        except CaffeconvError as fault:
            if faults is None:
                raise
            faults.append(str(fault))
    if not pictures and faults:
        raise CaffeconvError(f"{source}: not one line of it can be used; the first: {faults[0]}")
    return Pictures(tuple(path for path, _ in pictures), tuple(own for _, own in pictures) if with_classes else None)


def _picture_of(source: Path, number: int, name: str) -> Path:
    path = find_listed(name, source.parent)
    if not path.is_file():
        raise CaffeconvError(
            f"{source}, line {number}: there is no picture {name}; names are looked for from the current folder, "
            "then beside the list"
        )
    return path


def _found(source: Path) -> list[Path]:
    if source.is_dir():
        found: Iterable[Path] = (path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
        pictures = sorted(path for path in found if path.is_file())
        if not pictures:
            raise CaffeconvError(f"{source}: no picture in this folder ({', '.join(sorted(SUFFIXES))})")
        return pictures
    if source.exists():
        return [source]
    if any(mark in source.name for mark in "*?["):
        pictures = sorted(path for path in source.parent.glob(source.name) if path.is_file())
        if not pictures:
            raise CaffeconvError(f"{source}: no file matches this pattern")
        return pictures
    raise CaffeconvError(
        f"{source}: no such file; a picture, a folder or pattern of pictures, a list of them "
        f"({', '.join(sorted(LISTS))}), or an array (.npy, .npz) was needed"
    )
