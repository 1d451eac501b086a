"""Crops, mirrors, subtracts the mean and scales (caffe: data_transformer.cpp)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffeconv.caffe_format.caffemodel import read_binaryproto
from caffeconv.caffe_format.terms import Phase
from caffeconv.data.datum import Values
from caffeconv.data.errors import SourceUnavailableError
from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import FloatArray, Shape, format_shape


@dataclass(frozen=True)
class Transform:
    """A layer's transform_param: item → (mirror(crop(item - mean))) · scale."""

    scale: float = 1.0
    mirror: bool = False
    """Whether each item is mirrored left to right with probability ½, in both phases."""
    crop_size: int = 0
    mean_file: Path | None = None
    mean_values: tuple[float, ...] = ()
    force_color: bool = False
    force_gray: bool = False
    phase: Phase = "TEST"
    foreign: tuple[str, ...] = ()
    """Fields of Caffe's forks that would change the values, and are not followed."""

    @property
    def is_random(self) -> bool:
        # caffe: DataTransformer::InitRand
        return self.mirror or (self.phase == "TRAIN" and self.crop_size > 0)

    def shape(self, item: Shape, where: str) -> Shape:
        """C×H×W of an item when transformed (caffe: InferBlobShape); CaffeconvError where the crop is larger."""
        crop = self.crop_size
        if not crop:
            return item
        if min(item[1:]) < crop:
            raise CaffeconvError(f"{where}: {item[1]}×{item[2]} pixels; crop_size {crop} needs at least {crop}×{crop}")
        return (item[0], crop, crop)

    def guess_shape(self, channels: int | None = None) -> Shape | None:
        """C×H×W where no item can be looked at: from the crop or the mean image, None where these do not say.

        Three channels are assumed where nothing tells their number.
        """
        mean = None
        if self.mean_file is not None and self.mean_file.exists():
            mean = read_mean(self.mean_file).shape
        size = (self.crop_size, self.crop_size) if self.crop_size else mean[1:] if mean is not None else None
        if size is None:
            return None
        if channels is None:
            known = [len(self.mean_values)] if len(self.mean_values) > 1 else [mean[0]] if mean is not None else [3]
            channels = 3 if self.force_color else 1 if self.force_gray else known[0]
        return (channels, *size)


@dataclass(frozen=True)
class Preparation:
    """What a data layer does to pictures: resizes them to `size` (height, width) where that is given, then transforms."""

    transform: Transform
    size: tuple[int, int] | None = None


def refuse_foreign(transform: Transform) -> None:
    """Raises CaffeconvError for a field of Caffe's forks that would change the values."""
    if transform.foreign:
        raise CaffeconvError(
            f"{transform.foreign[0]} belongs to a fork of Caffe and is not followed; "
            "take it out, or hand the data over yourself"
        )


def read_mean(path: Path) -> FloatArray:
    """A mean image, C×H×W float32, from a binaryproto; CaffeconvError where it is missing, damaged, or none."""
    if not path.exists():
        raise SourceUnavailableError(
            f"{path}: File not found; the mean image (transform_param {{ mean_file }}) was needed. "
            "compute_image_mean made it, or give mean_value"
        )
    blob = read_binaryproto(path)
    if len(blob.shape) > 4:
        raise CaffeconvError(
            f"{path}: the mean is {format_shape(blob.shape)}; 1 × channels × height × width was needed"
        )
    # caffe: Blob::LegacyShape — channels is axis 1, axes that are not there count as 1
    _, *image = (*blob.shape, 1, 1, 1, 1)[:4]
    size = image[0] * image[1] * image[2]
    return blob.array()[:size].reshape(image)


class Transformer:
    """A Transform at work, with its mean loaded."""

    def __init__(self, transform: Transform) -> None:
        refuse_foreign(transform)
        self.transform = transform
        self._mean = None if transform.mean_file is None else read_mean(transform.mean_file)

    def apply(self, item: Values, where: str, random: np.random.Generator | None = None) -> FloatArray:
        """An item (C×H×W) transformed, of the shape Transform.shape; CaffeconvError for one that does not fit.

        `random`: what to draw crops and mirrors from, needed where Transform.is_random.
        """
        out = np.empty(self.transform.shape(item.shape, where), np.float32)
        transform = self.transform
        mean = self._mean_of(item, where)
        # the order in which Caffe draws: mirror, then the crop's row, then its column
        mirrored = random is not None and transform.mirror and random.integers(2) == 1
        window = self._window(item.shape, random)
        target = out[:, :, ::-1] if mirrored else out
        values = item[window]
        if mean is None:
            target[...] = values
        else:
            np.subtract(values, mean[window] if mean.shape[1:] != (1, 1) else mean, out=target, dtype=np.float32)
        if transform.scale != 1:
            out *= np.float32(transform.scale)
        return out

    def _window(self, item: Shape, random: np.random.Generator | None) -> tuple[slice, slice, slice]:
        crop = self.transform.crop_size
        _, height, width = item
        if not crop:
            return slice(None), slice(None), slice(None)
        if random is not None and self.transform.phase == "TRAIN":
            top = int(random.integers(height - crop + 1))
            left = int(random.integers(width - crop + 1))
        else:
            top, left = (height - crop) // 2, (width - crop) // 2
        return slice(None), slice(top, top + crop), slice(left, left + crop)

    def _mean_of(self, item: Values, where: str) -> FloatArray | None:
        """C×H×W or C×1×1."""
        if self._mean is not None:
            if self._mean.shape != item.shape:
                raise CaffeconvError(
                    f"{where}: the item is {format_shape(item.shape)}, the mean in {self.transform.mean_file} "
                    f"{format_shape(self._mean.shape)}; the same size, before the crop, was needed. mean_value fits any size"
                )
            return self._mean
        number = len(self.transform.mean_values)
        if not number:
            return None
        if number not in (1, item.shape[0]):
            raise CaffeconvError(
                f"{where}: {number} mean_value; Specify either 1 mean_value or as many as channels: {item.shape[0]}"
            )
        return np.resize(np.array(self.transform.mean_values, np.float32), (item.shape[0], 1, 1))
