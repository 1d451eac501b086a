"""`caffe.io`: arrays to and from protobuf, preprocessing, and pictures as arrays (caffe: python/caffe/io.py).

Pictures are decoded by OpenCV and come out as skimage gave them: H×W×K, red first, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

import caffeconv.caffe_pb2 as _caffe_pb2
from caffeconv.caffe_pb2 import BlobProto, BlobProtoVector, Datum
from caffeconv.data.images import read_image
from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import PathLike
from caffeconv.pycaffe import resizing
from caffeconv.pycaffe.errors import PycaffeRuntimeError, PycaffeValueError
from caffeconv.tensor.shape import FloatArray, Shape, count, format_shape

caffe_pb2 = _caffe_pb2
"""Scripts write `caffe.io.caffe_pb2`."""
Doubles = NDArray[np.float64]
_GREY = (0.2125, 0.7154, 0.0721)
"""skimage.color.rgb2gray: how much red, green and blue count."""


# -- arrays and protobuf -----------------------------------------------------------------------------------------------


def blobproto_to_array(blob: BlobProto, return_diff: bool = False) -> Doubles:
    """A blob's values (or its diff), float64, in its shape; four axes where it has the old num, channels, height, width.

    Raises ValueError where it does not hold as many numbers as its shape has places.
    """
    values = np.array((blob.diff or blob.double_diff) if return_diff else (blob.data or blob.double_data))
    old = any(blob.HasField(name) for name in ("num", "channels", "height", "width"))
    shape = (blob.num, blob.channels, blob.height, blob.width) if old else tuple(blob.shape.dim)
    if values.size != count(shape) or min(shape, default=0) < 0:
        raise PycaffeValueError(f"cannot reshape array of size {values.size} into shape {format_shape(shape)}")
    return np.asarray(values, np.float64).reshape(shape)


def array_to_blobproto(arr: ArrayLike, diff: ArrayLike | None = None) -> BlobProto:
    """A blob with an array's shape and values, and those of `diff`, which has as many."""
    array = np.asarray(arr)
    blob = BlobProto()
    blob.shape.dim.extend(array.shape)
    blob.data.extend(array.astype(float).flat)
    if diff is not None:
        blob.diff.extend(np.asarray(diff).astype(float).flat)
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[ArrayLike]) -> bytes:
    """Arrays as a serialized BlobProtoVector."""
    return BlobProtoVector(blobs=[array_to_blobproto(array) for array in arraylist]).SerializeToString()


arraylist_to_blobprotovecor_str = arraylist_to_blobprotovector_str
"""pycaffe's own spelling."""


def blobprotovector_str_to_arraylist(str: bytes) -> list[Doubles]:  # noqa: A002 - pycaffe's name for it
    """The arrays of a serialized BlobProtoVector."""
    return [blobproto_to_array(blob) for blob in BlobProtoVector.FromString(str).blobs]


def array_to_datum(arr: ArrayLike, label: int | None = None) -> Datum:
    """A Datum of a C×H×W array: uint8 as bytes, anything else as floats. Raises ValueError for other numbers of axes."""
    array = np.asarray(arr)
    if array.ndim != 3:
        raise PycaffeValueError(
            f"Incorrect array shape. It is {format_shape(array.shape)}; channels × height × width was needed"
        )
    datum = Datum(channels=array.shape[0], height=array.shape[1], width=array.shape[2])
    if array.dtype == np.uint8:
        datum.data = array.tobytes()
    else:
        datum.float_data.extend(array.astype(float).flat)
    if label is not None:
        datum.label = int(label)
    return datum


def datum_to_array(datum: Datum) -> NDArray[np.uint8] | Doubles:
    """C×H×W: uint8 from a Datum's bytes, else float64 from its floats.

    Raises ValueError where it does not hold as many as its shape has places; an encoded picture (JPEG, PNG) is not
    decoded.
    """
    shape = (datum.channels, datum.height, datum.width)
    values: NDArray[np.uint8] | Doubles
    values = np.frombuffer(datum.data, np.uint8).copy() if datum.data else np.array(datum.float_data, np.float64)
    if values.size != count(shape) or min(shape) < 0:
        hint = "; it is an encoded picture, which cv2.imdecode reads" if datum.encoded else ""
        raise PycaffeValueError(f"cannot reshape array of size {values.size} into shape {format_shape(shape)}{hint}")
    return values.reshape(shape)


# -- preprocessing -----------------------------------------------------------------------------------------------------


class Transformer:
    """Makes inputs for a net: resize, transpose, channel swap, raw scale, mean, input scale, in this order.

    Args:
        inputs: input → its shape: ``{"data": net.blobs["data"].data.shape}``.

    What is not set is left out. Arrays that are handed in are not changed.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs: dict[str, Shape] = {name: tuple(shape) for name, shape in inputs.items()}
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, FloatArray] = {}
        self.input_scale: dict[str, float] = {}

    def _check_input(self, name: str) -> None:
        if name not in self.inputs:
            raise CaffeconvError(f"{name} is not one of the net inputs: {self.inputs}")

    def preprocess(self, in_: str, data: ArrayLike) -> FloatArray:
        """A picture (H×W×K, any size) as the input wants it: float32, K×H×W where `set_transpose` says so."""
        self._check_input(in_)
        values = np.asarray(data).astype(np.float32)
        size = self.inputs[in_][2:]
        if values.shape[:2] != size:
            values = resize_image(values, size)
        if (order := self.transpose.get(in_)) is not None:
            values = values.transpose(order)
        if (channels := self.channel_swap.get(in_)) is not None:
            values = values[list(channels), :, :]
        if (raw_scale := self.raw_scale.get(in_)) is not None:
            values = (values * raw_scale).astype(np.float32)
        if (mean := self.mean.get(in_)) is not None:
            values = (values - mean).astype(np.float32)
        if (input_scale := self.input_scale.get(in_)) is not None:
            values = (values * input_scale).astype(np.float32)
        return values

    def deprocess(self, in_: str, data: ArrayLike) -> FloatArray:
        """The way back from `preprocess`, but for the size: axes of size 1 are dropped first, as in Caffe."""
        self._check_input(in_)
        order = self.transpose.get(in_)
        array = np.asarray(data, np.float32)
        values = array.squeeze()
        if order is not None and values.ndim < len(order) <= array.ndim:  # a grey picture: Caffe fails
            values = array.reshape(array.shape[-len(order) :])
        if (input_scale := self.input_scale.get(in_)) is not None:
            values = (values / input_scale).astype(np.float32)
        if (mean := self.mean.get(in_)) is not None:
            values = (values + mean).astype(np.float32)
        if (raw_scale := self.raw_scale.get(in_)) is not None:
            values = (values / raw_scale).astype(np.float32)
        if (channels := self.channel_swap.get(in_)) is not None:
            values = values[np.argsort(channels), :, :]
        result = values if order is None else values.transpose([int(axis) for axis in np.argsort(order)])
        return np.array(result, np.float32)

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """The order of the picture's axes in the input: (2, 0, 1) makes K×H×W of H×W×K."""
        self._check_input(in_)
        if len(order) != len(self.inputs[in_]) - 1:
            raise CaffeconvError(
                "Transpose order needs to have the same number of dimensions as the input. "
                f"It has {len(order)}, the input without its batch {len(self.inputs[in_]) - 1}"
            )
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """The order of the channels, which are the first axis by then: (2, 1, 0) makes BGR of RGB."""
        self._check_input(in_)
        if len(order) != self.inputs[in_][1]:
            raise CaffeconvError(
                "Channel swap needs to have the same number of dimensions as the input channels. "
                f"It has {len(order)}, the input {self.inputs[in_][1]} channels"
            )
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """What the picture is multiplied by before the mean is subtracted: 255 where the net learnt from 0…255."""
        self._check_input(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: FloatArray) -> None:
        """The mean to subtract: one value for each channel, or a picture K×H×W (H×W for one channel).

        Raises ValueError where it does not fit.
        """
        self._check_input(in_)
        needed = self.inputs[in_][1:]
        if mean.ndim == 1:
            if mean.shape[0] != needed[0]:
                raise PycaffeValueError(
                    f"Mean channels incompatible with input. It has {mean.shape[0]}, the input {needed[0]}"
                )
            self.mean[in_] = mean[:, np.newaxis, np.newaxis]
            return
        shape = (1, *mean.shape) if mean.ndim == 2 else mean.shape
        if len(shape) != 3:
            raise PycaffeValueError(
                f"Mean shape invalid. It is {format_shape(mean.shape)}; channels, or channels × height × width, were needed"
            )
        if shape != needed:
            raise PycaffeValueError(
                f"Mean shape incompatible with input shape. It is {format_shape(shape)}, the input {format_shape(needed)}; "
                "mean.mean(1).mean(1) gives a value for each channel, which fits any size"
            )
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """What the input is multiplied by at last, after the mean is subtracted."""
        self._check_input(in_)
        self.input_scale[in_] = scale


# -- pictures ----------------------------------------------------------------------------------------------------------


def load_image(filename: PathLike, color: bool = True) -> FloatArray:
    """A picture file, float32, 0 to 1: H×W×3, red first; without `color` H×W×1, grey by skimage's weights.

    What is grey becomes three equal channels, an alpha channel is dropped. Raises CaffeconvError for what is damaged,
    no picture, or deeper than 8 bits, RuntimeError where there is no such file.
    """
    path = Path(filename)
    if not path.is_file():
        raise PycaffeRuntimeError(f"{path}: no such file; a picture was needed")
    image = read_image(path, color=None).astype(np.float64) / 255
    channels = image.shape[2]
    if channels == 1:
        return np.tile(image, (1, 1, 3 if color else 1)).astype(np.float32)
    rgb = image[:, :, 2::-1]
    return (rgb if color else (rgb @ np.array(_GREY))[:, :, np.newaxis]).astype(np.float32)


def resize_image(im: ArrayLike, new_dims: Sequence[int], interp_order: int = 1) -> FloatArray:
    """H×W×K, float32, resized to `new_dims`, (height, width).

    With 1 or 3 channels as skimage up to 0.14 did it (pixels beyond the edge count as the picture's least value, which
    darkens the edges of what is enlarged); with any other number as scipy.ndimage.zoom. interp_order: 1, linear; 0,
    nearest. Raises ValueError for another.
    """
    image = np.asarray(im)
    if image.ndim != 3 or not image.size:
        raise PycaffeValueError(
            f"resize_image: the picture is {format_shape(image.shape)}; height × width × channels was needed"
        )
    if interp_order not in (0, 1):
        raise PycaffeValueError(f"resize_image: interp_order {interp_order}; 0 (nearest) or 1 (linear) was needed")
    order: resizing.Order = 0 if interp_order == 0 else 1
    height, width = (int(size) for size in new_dims)
    if min(height, width) < 1:
        raise PycaffeValueError(f"resize_image: new_dims are {format_shape((height, width))}; at least 1×1 was needed")
    if image.shape[-1] not in (1, 3):
        return resizing.zoom(image.astype(np.float64), height, width, order).astype(np.float32)
    least, most = image.min(), image.max()
    if not most > least:
        return np.full((height, width, image.shape[-1]), least, np.float32)
    standard = (image - least) / (most - least)
    resized = resizing.resize(standard.astype(np.float64), height, width, order) * (most - least) + least
    return cast("FloatArray", resized.astype(np.float32))


def oversample(images: Sequence[FloatArray], crop_dims: Sequence[int]) -> FloatArray:
    """Ten crops of each picture (H×W×K), one after another: the corners, the centre, and these mirrored.

    10·N×height×width×K, float32; `crop_dims` is (height, width). Raises ValueError where the pictures are of several
    sizes, or smaller than that.
    """
    shapes = {np.shape(image) for image in images}
    if len(shapes) != 1 or len(next(iter(shapes))) != 3:
        sizes = ", ".join(format_shape(shape) for shape in sorted(shapes)) or "none"
        raise PycaffeValueError(
            f"oversample: pictures of one size, height × width × channels, were needed; there is {sizes}"
        )
    height, width = (int(size) for size in crop_dims)
    full_height, full_width, _ = next(iter(shapes))
    if not (0 < height <= full_height and 0 < width <= full_width):
        raise PycaffeValueError(f"oversample: crops of {height}×{width} from pictures of {full_height}×{full_width}")
    bottom, right = full_height - height, full_width - width
    corners = [(top, left) for top in (0, bottom) for left in (0, right)]
    # caffe: centre ± half the crop, cut off to whole pixels
    origins = [*corners, (int(full_height / 2 - height / 2), int(full_width / 2 - width / 2))]
    crops = []
    for image in images:
        views = [np.asarray(image)[top : top + height, left : left + width] for top, left in origins]
        crops += [*views, *(crop[:, ::-1] for crop in views)]
    return np.array(crops, np.float32)
