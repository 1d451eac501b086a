"""Images that a user hands over: which files they are, and how they are made to fit an input."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffeconv.caffe_format.foreign_files import what_folder
from caffeconv.data.image_transform import ImageTransform, Size
from caffeconv.data.lists import read_list
from caffeconv.errors import CaffeconvError
from caffeconv.files.net_folders import NetFolders
from caffeconv.tensor.shape import FloatArray, format_shape

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"))
NO_ITEMS = {
    ".prototxt": "this is a net, which stands before `input=…`",
    ".caffemodel": "these are weights, which stand after the net and before `input=…`",
    ".onnx": "this is a model, which stands before `input=…`",
    ".h5": "this is HDF5, which HDF5Data layers read",
    ".mdb": "this is a file of an LMDB, whose folder belongs to `input_db=…`",
}
"""Files that hold neither pictures nor an array, and where they belong."""
LISTS = frozenset((".txt", ".lst", ".list"))
"""Files that list pictures, one a line."""


def image_transform(
    channels: int, size: Size, *, resize: Size | None = None, mean: FloatArray | None = None, scale: float = 1.0,
    rgb: bool = False,
) -> ImageTransform:  # fmt: skip
    """What makes C×H×W of images of any size, for an input of so many channels and of that height and width.

    They are resized to `resize`, to a mean image's size, or to the input's own, and cropped in the middle. mean: one
    value, C, or C×H×W. Raises CaffeconvError where these do not go together.
    """
    if channels not in (1, 3):
        raise CaffeconvError(f"the net takes {channels} channels; a picture has 1 or 3. Give an array (.npy)")
    if mean is not None and mean.shape[0] not in (1, channels):
        raise CaffeconvError(f"the mean has {mean.shape[0]} channels, the net takes {channels}")
    if mean is not None and mean.shape[1:] == (1, 1):
        mean = mean[:, 0, 0]
    is_image = mean is not None and mean.ndim == 3
    before_crop = resize or ((mean.shape[1], mean.shape[2]) if mean is not None and is_image else size)
    if before_crop[0] < size[0] or before_crop[1] < size[1]:
        raise CaffeconvError(
            f"a picture of {format_shape(before_crop)} cannot be cropped to the net's {format_shape(size)}"
        )
    if mean is not None and is_image:
        if mean.shape[1:] != before_crop:
            raise CaffeconvError(
                f"the mean is {format_shape(mean.shape)}, the picture {format_shape(before_crop)} before the crop; "
                "leave `resize=…` out, or give a mean value per channel (`mean=104,117,123`)"
            )
        mean = np.broadcast_to(mean, (channels, *before_crop))
    return ImageTransform(before_crop, size, mean, scale, order="rgb" if rgb else "bgr")


@dataclass(frozen=True)
class ImageFiles:
    """Image files in order, and the class that a list gives for each."""

    paths: tuple[Path, ...]
    classes: tuple[int, ...] | None = None

    def followed_by(self, others: ImageFiles) -> ImageFiles:
        """These files, then others; without classes where either has none."""
        classes = None if self.classes is None or others.classes is None else self.classes + others.classes
        return ImageFiles(self.paths + others.paths, classes)


def find_images(source: Path, faults: list[str] | None = None) -> ImageFiles:
    """The pictures that a file name, a folder, a glob or a list file stands for; CaffeconvError where there are none.

    faults: takes what is wrong with lines of a list, which are left out then; None: the first one raises CaffeconvError.
    """
    if source.suffix.lower() in LISTS and source.is_file():
        return _files_of_list(source, faults)
    return ImageFiles(tuple(_files_at(source)))


def _files_of_list(source: Path, faults: list[str] | None) -> ImageFiles:
    """Lines ``picture`` or ``picture class``, as ImageData reads them; names from the current folder, or from beside it."""
    lines = [(i, text.rstrip("\r")) for i, text in enumerate(read_list(source).split("\n"), 1) if text.strip()]
    if not lines:
        raise CaffeconvError(f"{source}: File is empty; lines `picture` or `picture class` were needed")
    entries = [(number, text, re.fullmatch(r"(.*\S)\s+(\d+)\s*", text)) for number, text in lines]
    with_classes = any(match for _, _, match in entries)
    images: list[tuple[Path, int]] = []
    for number, text, match in entries:
        try:
            if with_classes and match is None:
                raise CaffeconvError(
                    f"{source}, line {number}: '{text}'; other lines end in a class number: "
                    "a picture's name, a space, and its class were needed in each line, or names alone"
                )
            name, own = (match[1], int(match[2])) if match else (text.strip(), 0)
            images.append((_image_of(source, number, name), own))
        except CaffeconvError as fault:
            if faults is None:
                raise
            faults.append(str(fault))
    if not images and faults:
        raise CaffeconvError(f"{source}: not one line of it can be used; the first: {faults[0]}")
    return ImageFiles(tuple(path for path, _ in images), tuple(own for _, own in images) if with_classes else None)


def _image_of(source: Path, number: int, name: str) -> Path:
    path = NetFolders(source.parent).find(name)
    if not path.is_file():
        raise CaffeconvError(
            f"{source}, line {number}: there is no picture {name}; names are looked for from the current folder, "
            "then beside the list"
        )
    return path


def _files_at(source: Path) -> list[Path]:
    if source.suffix.lower() in NO_ITEMS and source.exists():
        raise CaffeconvError(f"{source}: {NO_ITEMS[source.suffix.lower()]}; a picture, a list or an array was needed")
    if source.is_dir():
        files: Iterable[Path] = (path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
        images = sorted(path for path in files if path.is_file())
        if not images and what_folder(source) != "a folder":
            raise CaffeconvError(f"{source}: this is {what_folder(source)}; a database belongs to `input_db={source}`")
        if not images:
            raise CaffeconvError(f"{source}: no picture in this folder ({', '.join(sorted(SUFFIXES))})")
        return images
    if source.exists():
        return [source]
    if any(mark in source.name for mark in "*?["):
        images = sorted(path for path in source.parent.glob(source.name) if path.is_file())
        if not images:
            raise CaffeconvError(f"{source}: no file matches this pattern")
        return images
    raise CaffeconvError(
        f"{source}: no such file; a picture, a folder or pattern of pictures, a list of them "
        f"({', '.join(sorted(LISTS))}), or an array (.npy, .npz) was needed"
    )
