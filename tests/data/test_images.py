"""Pictures as OpenCV decodes and resizes them, and what is said of files that hold none."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.databases import file_content, pixels, refused

from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.images import channels_first, decode_image, read_image, resize


def test_colour_grey_or_as_it_is() -> None:
    colour, grey = pixels(4, 5, 3), pixels(4, 5)
    content = file_content(colour)
    np.testing.assert_array_equal(decode_image(content, "x", color=True), colour)
    np.testing.assert_array_equal(decode_image(content, "x", color=None), colour)
    assert decode_image(content, "x", color=False).shape == (4, 5, 1)
    same_channels = file_content(np.stack([grey] * 3, axis=2))
    np.testing.assert_array_equal(decode_image(same_channels, "x", color=False)[:, :, 0], grey)
    assert decode_image(file_content(grey), "x", color=None).shape == (4, 5, 1)
    np.testing.assert_array_equal(decode_image(file_content(grey), "x", color=True), np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_first(channels: int) -> None:
    image = pixels(4, 5, channels)
    planes = channels_first(image)
    np.testing.assert_array_equal(planes, image.transpose(2, 0, 1))
    assert planes.flags.c_contiguous


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_cut_off(suffix: str) -> None:
    content = file_content(pixels(40, 50, 3), suffix)
    half = content[: len(content) // 2]
    with refused(f"^db: the picture is cut off after {len(half)} bytes; a whole one was needed$"):
        decode_image(half, "db", color=None)
    assert decode_image(content, "db", color=None).shape == (40, 50, 3)


def test_a_thumbnail_s_end_is_not_the_picture_s() -> None:
    content, thumbnail = file_content(pixels(40, 50, 3), ".jpg"), file_content(pixels(4, 5, 3), ".jpg")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = content[:2] + segment + content[2:]
    assert decode_image(whole, "db", color=None).shape == (40, 50, 3)
    with refused("cut off"):
        decode_image(whole[:-100], "db", color=None)


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8 no segment"])
def test_no_picture(content: bytes) -> None:
    with refused(
        rf"^db: not a readable picture \({len(content)} bytes\); JPEG, PNG, BMP, PPM, TIFF or WebP was needed$"
    ):
        decode_image(content, "db", color=None)


def test_deeper_than_8_bits() -> None:
    content = bytes(cv2.imencode(".png", pixels(4, 5).astype(np.uint16) * 256)[1])
    with refused("^db: a picture of uint16; Image data type must be unsigned byte$"):
        decode_image(content, "db", color=None)


def test_files(tmp_path: Path) -> None:
    image = pixels(4, 5, 3)
    (tmp_path / "a.png").write_bytes(file_content(image))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", color=True), image)
    missing = tmp_path / "b.png"
    for where in ("", "list, line 3"):
        message = f"{where or missing}: Could not open or find file {missing}; a picture was needed"
        with pytest.raises(SourceUnavailableError, match=f"^{re.escape(message)}$"):
            read_image(missing, where, color=True)
    with refused("cannot be read: Is a directory; a picture was needed"):
        read_image(tmp_path, color=True)


def test_resizing_is_bilinear_and_keeps_the_axes() -> None:
    image = np.array([[0, 100]], np.uint8).reshape(1, 2, 1)
    assert resize(image, 1, 4)[:, :, 0].tolist() == [[0, 25, 75, 100]]
    assert resize(pixels(4, 5, 3), 7, 2).shape == (7, 2, 3)
