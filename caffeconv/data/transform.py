"""A data layer's transform_param, and what it makes of items (caffe: data_transformer.cpp)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffeconv.caffe_format.caffemodel import read_binaryproto
from caffeconv.caffe_format.terms import Phase
from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.image_transform import ImageTransform, Size, cropped_shape
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
    crop_sides: Size | None = None
    """Height and width of the crop where these differ (DeepLab, PSPNet, SSD, Cysu's caffe); `crop_size` without."""

    @property
    def is_random(self) -> bool:
        # caffe: DataTransformer::InitRand
        return self.mirror or (self.phase == "TRAIN" and self.crop is not None)

    @property
    def crop(self) -> Size | None:
        """Height and width of the crop."""
        return (self.crop_size, self.crop_size) if self.crop_size else self.crop_sides

    def shape(self, item: Shape, where: str) -> Shape:
        """C×H×W of an item when transformed (caffe: InferBlobShape); CaffeconvError where the crop is larger."""
        return cropped_shape(item, self.crop, where)

    def load(self) -> ImageTransform:
        """What it does to items, with its mean loaded; raises as `refuse_foreign` and `read_mean` do."""
        refuse_foreign(self)
        mean = np.array(self.mean_values, np.float32) if self.mean_values else None
        if self.mean_file is not None:
            mean = read_mean(self.mean_file)
        return ImageTransform(
            crop=self.crop, mean=mean, scale=self.scale, mirror=self.mirror, random_crop=self.phase == "TRAIN",
            mean_name=f"the mean in {self.mean_file}",
        )  # fmt: skip

    def guess_shape(self, channels: int | None = None) -> Shape | None:
        """C×H×W where no item can be looked at: from the crop or the mean image, None where these do not say.

        Three channels are assumed where nothing tells their number.
        """
        mean = None
        if self.mean_file is not None and self.mean_file.exists():
            mean = read_mean(self.mean_file).shape
        size = self.crop or (mean[1:] if mean is not None else None)
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
