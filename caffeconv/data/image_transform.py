"""What an image goes through on its way into a net: resized, cropped, mean subtracted, scaled (caffe: data_transformer.cpp)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from caffeconv.data.datum import Values
from caffeconv.data.images import Image, channels_first
from caffeconv.data.images import resize as resize_image
from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import FloatArray, Shape, format_shape

Size = tuple[int, int]
"""Height and width."""
CROPS = 10


@dataclass(frozen=True)
class ImageTransform:
    """Image → C×H×W float32: (mirror(crop(resize(image) - mean))) · scale, in the order of the net's channels.

    Serves a data layer's transform_param and the images that a user hands over; what of it is missing is left out.
    """

    resize: Size | None = None
    crop: Size | None = None
    """What is cut out of the middle, or with `random_crop` anywhere."""
    mean: FloatArray | None = None
    """One value, C values, or C×H×W of an image before the crop; in the order of the net's channels."""
    scale: float = 1.0
    mirror: bool = False
    """Whether each image is mirrored left to right with probability ½."""
    order: Literal["bgr", "rgb"] = "bgr"
    """The net's channels. Images come as OpenCV decodes them: blue, green, red."""
    random_crop: bool = False
    mean_name: str = "the mean"
    """Where the mean comes from, in messages."""

    def planes(self, image: Image) -> Values:
        """C×H×W of a decoded image (H×W×C), before the crop."""
        if self.resize is not None and image.shape[:2] != self.resize:
            image = resize_image(image, *self.resize)
        planes = channels_first(image)
        return planes[::-1] if self.order == "rgb" else planes

    def apply(self, planes: Values, where: str, random: np.random.Generator | None = None) -> FloatArray:
        """C×H×W of an image's planes (C×H×W); CaffeconvError, which begins with `where`, for one that does not fit.

        `random`: what to draw crops and mirrors from, where there are any.
        """
        shape = cropped_shape(planes.shape, self.crop, where)
        mean = self._mean_for(planes.shape, where)
        # the order in which Caffe draws: mirror, then the crop's row, then its column
        mirrored = random is not None and self.mirror and random.integers(2) == 1
        return self._cut(planes, mean, self._corner(planes.shape, shape, random), shape, mirrored=mirrored)

    def ten_crops(self, image: Image, where: str) -> FloatArray:
        """10×C×H×W of a decoded image: corners, centre, and these mirrored (caffe: io.py oversample)."""
        planes = self.planes(image)
        shape = cropped_shape(planes.shape, self.crop, where)
        mean = self._mean_for(planes.shape, where)
        down, right = planes.shape[1] - shape[1], planes.shape[2] - shape[2]
        corners = ((0, 0), (0, right), (down, 0), (down, right), self._corner(planes.shape, shape, None))
        crops = [self._cut(planes, mean, corner, shape) for corner in corners]
        return np.stack([*crops, *(crop[:, :, ::-1] for crop in crops)])

    def _cut(
        self, planes: Values, mean: FloatArray | None, corner: Size, shape: Shape, *, mirrored: bool = False
    ) -> FloatArray:
        (top, left), (_, height, width) = corner, shape
        window = slice(None), slice(top, top + height), slice(left, left + width)
        out = np.empty(shape, np.float32)
        target = out[:, :, ::-1] if mirrored else out
        if mean is None:
            target[...] = planes[window]
        else:
            mean = mean[window] if mean.shape[1:] != (1, 1) else mean
            np.subtract(planes[window], mean, out=target, dtype=np.float32)
        if self.scale != 1:
            out *= np.float32(self.scale)
        return out

    def _corner(self, item: Shape, shape: Shape, random: np.random.Generator | None) -> Size:
        down, right = item[1] - shape[1], item[2] - shape[2]
        if random is not None and self.random_crop and self.crop is not None:
            return int(random.integers(down + 1)), int(random.integers(right + 1))
        return down // 2, right // 2

    def _mean_for(self, item: Shape, where: str) -> FloatArray | None:
        """C×H×W or C×1×1."""
        if self.mean is None:
            return None
        if self.mean.ndim == 1:
            if len(self.mean) not in (1, item[0]):
                raise CaffeconvError(
                    f"{where}: {len(self.mean)} mean_value; Specify either 1 mean_value or as many as channels: {item[0]}"
                )
            return np.resize(self.mean, (item[0], 1, 1))
        if self.mean.shape != item:
            raise CaffeconvError(
                f"{where}: the item is {format_shape(item)}, {self.mean_name} "
                f"{format_shape(self.mean.shape)}; the same size, before the crop, was needed. mean_value fits any size"
            )
        return self.mean


def cropped_shape(item: Shape, crop: Size | None, where: str) -> Shape:
    """C×H×W of an item (C×H×W) after the crop (caffe: InferBlobShape); CaffeconvError where the crop is larger."""
    if crop is None:
        return item
    if item[1] < crop[0] or item[2] < crop[1]:
        raise CaffeconvError(
            f"{where}: {item[1]}×{item[2]} pixels; crop_size {crop[0]} needs at least {crop[0]}×{crop[1]}"
        )
    return (item[0], *crop)
