"""Decodes and resizes pictures as Caffe does, with OpenCV (caffe: io.cpp)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffeconv.caffe_format.foreign_files import HEAD, foreign_file
from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.image_headers import is_known, refuse_claims
from caffeconv.errors import CaffeconvError
from caffeconv.files.plain_file import read_plain

Image = NDArray[np.uint8]
"""H×W×C; C is 1 (grey), 3 (blue, green, red) or 4 (with alpha)."""
_KINDS = "JPEG, PNG, BMP, PPM, TIFF or WebP"


def decode_image(content: bytes, where: str, *, color: bool | None) -> Image:
    """The picture that a file's content holds: in colour, in grey, or (None) in the channels that it has itself.

    Raises CaffeconvError, which begins with `where`, for what is cut off, damaged, no picture, or deeper than 8 bits.
    """
    import cv2

    if _is_cut_off(content):
        raise CaffeconvError(f"{where}: the picture is cut off after {len(content)} bytes; a whole one was needed")
    refuse_claims(content, where)
    flag = cv2.IMREAD_UNCHANGED if color is None else cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flag) if is_known(content) else None
    except (cv2.error, MemoryError):
        image = None
    if image is None:
        what = foreign_file(content[:HEAD])[0]
        is_what = f"this is {what}, " if what not in ("", "a picture") else ""
        raise CaffeconvError(f"{where}: {is_what}not a readable picture ({len(content)} bytes); {_KINDS} was needed")
    if image.dtype != np.uint8:
        raise CaffeconvError(f"{where}: a picture of {image.dtype}; Image data type must be unsigned byte")
    return np.asarray(image, np.uint8).reshape(*image.shape[:2], -1)


def channels_first(image: Image) -> NDArray[np.uint8]:
    """C×H×W, contiguous: numpy computes on it twice as fast as on a transposed view of the picture."""
    import cv2

    height, width, channels = image.shape
    planes = np.empty((channels, height, width), np.uint8)
    cv2.split(image, list(planes))
    return planes


def _is_cut_off(content: bytes) -> bool:
    """Whether the end of a JPEG or PNG is missing; some versions of OpenCV fill the rest with grey and say nothing."""
    if content.startswith(b"\xff\xd8"):
        scan = _jpeg_scan(content)
        return scan is not None and content.find(b"\xff\xd9", scan) < 0
    return content.startswith(b"\x89PNG") and content.rfind(b"IEND") < 0


def _jpeg_scan(content: bytes) -> int | None:
    """Where a JPEG's first scan begins, thumbnails left aside; the end of the file where none does; None: no JPEG."""
    position = 2
    while position + 4 <= len(content):
        if content[position] != 0xFF:
            return None
        marker = content[position + 1]
        if marker == 0xDA:
            return position
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD9:  # fill bytes and markers without content
            position += 1 if marker == 0xFF else 2
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return len(content)


def read_image(path: Path, where: str = "", *, color: bool | None) -> Image:
    """As `decode_image`, from a file; SourceUnavailableError where there is none. `where` names it, else its path."""
    where = where or str(path)
    try:
        content = read_plain(path)
    except FileNotFoundError:
        raise SourceUnavailableError(f"{where}: Could not open or find file {path}; a picture was needed") from None
    except OSError as error:
        raise CaffeconvError(f"{where}: {path} cannot be read: {error.strerror}; a picture was needed") from None
    return decode_image(content, where, color=color)


def resize(image: Image, height: int, width: int) -> Image:
    """The picture in another size, bilinear as OpenCV does it."""
    import cv2

    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8).reshape(height, width, -1)
