"""Reads Datum messages: one item of a database and its label (caffe: caffe.proto, io.cpp)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from caffeconv.caffe_pb2 import Datum
from caffeconv.data.images import channels_first, decode_image
from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import format_shape

Values = NDArray[np.uint8] | NDArray[np.float32]
"""C×H×W, uint8 or float32."""


@dataclass(frozen=True)
class Item:
    """What one record holds."""

    values: Values
    label: int


def read_datum(content: bytes, where: str, *, force_color: bool = False, force_gray: bool = False) -> Item:
    """The item in a serialized Datum; an encoded picture comes in the channels that it has unless these are forced.

    Raises CaffeconvError, which begins with `where`, for what is no Datum or does not hold what it says.
    """
    try:
        datum = Datum.FromString(content)
    except DecodeError:
        raise CaffeconvError(f"{where}: {len(content)} bytes that are no Datum; a whole Datum was needed") from None
    if datum.encoded:
        if force_color and force_gray:
            raise CaffeconvError(f"{where}: cannot set both force_color and force_gray")
        color = True if force_color else False if force_gray else None
        image = decode_image(datum.data, where, color=color)
        return Item(channels_first(image), datum.label)
    shape = datum.channels, datum.height, datum.width
    if min(shape) < 1:
        raise CaffeconvError(
            f"{where}: a Datum of {format_shape(shape)}; channels, height and width of at least 1 were needed"
        )
    # caffe: DataTransformer::Transform — float_data counts only where there are no bytes
    values: Values = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float32)
    if values.size != math.prod(shape):
        what = "bytes of data" if datum.data else "numbers in float_data"
        raise CaffeconvError(
            f"{where}: {values.size} {what}; {math.prod(shape)} were needed (channels × height × width = {format_shape(shape)})"
            + (". A picture file needs `encoded: true`" if datum.data[:3] in (b"\xff\xd8\xff", b"\x89PN") else "")
        )
    return Item(values.reshape(shape), datum.label)
