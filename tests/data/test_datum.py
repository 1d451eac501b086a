"""Datums and pictures: what is in them, and what is said about damaged ones."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from support.databases import encoded, file_content, pixels, raw, refused

from caffeconv.caffe_pb2 import Datum
from caffeconv.data.datum import read_datum
from caffeconv.data.images import decode_image


def test_raw() -> None:
    values = pixels(2, 3, 4)
    item = read_datum(raw(values, 7), "db")
    assert item.label == 7
    np.testing.assert_array_equal(item.values, values)


def test_float_data_counts_without_bytes() -> None:
    datum = Datum(channels=1, height=2, width=2, float_data=[0.5, -1, 2, 3.25])
    np.testing.assert_array_equal(read_datum(datum.SerializeToString(), "db").values, [[[0.5, -1], [2, 3.25]]])
    datum.data = bytes([1, 2, 3, 4])
    np.testing.assert_array_equal(read_datum(datum.SerializeToString(), "db").values, [[[1, 2], [3, 4]]])


def test_encoded_keeps_the_channels_that_it_has() -> None:
    for picture in (pixels(5, 6), pixels(5, 6, 3), pixels(5, 6, 4)):
        item = read_datum(encoded(picture, 3), "db")
        np.testing.assert_array_equal(item.values, picture.reshape(5, 6, -1).transpose(2, 0, 1))
        assert item.label == 3


def test_forced_colour_and_grey() -> None:
    grey, color = pixels(5, 6), pixels(5, 6, 3)
    np.testing.assert_array_equal(read_datum(encoded(grey), "db", force_color=True).values, [grey] * 3)
    want = cv2.imdecode(np.frombuffer(file_content(color), np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(read_datum(encoded(color), "db", force_gray=True).values[0], want)
    with refused("db: cannot set both force_color and force_gray"):
        read_datum(encoded(color), "db", force_color=True, force_gray=True)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_cut_off_picture(suffix: str, share: float) -> None:
    content = file_content(pixels(64, 64, 3), suffix)
    with refused(r"^db, record 'k': (the picture is cut off|not a readable picture)"):
        decode_image(content[: int(share * len(content))], "db, record 'k'", color=None)


def test_jpeg_whose_thumbnail_is_whole() -> None:
    content = file_content(pixels(64, 64, 3), ".jpg")
    thumbnail = file_content(pixels(8, 8, 3), ".jpg")
    segment = b"Exif\0\0" + thumbnail
    header = b"\xff\xd8\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment
    whole = header + content[2:]
    np.testing.assert_array_equal(decode_image(whole, "db", color=None), decode_image(content, "db", color=None))
    with refused("cut off"):
        decode_image(whole[:-500], "db", color=None)


def test_jpeg_with_something_after_its_end() -> None:
    content = file_content(pixels(16, 16, 3), ".jpg")
    np.testing.assert_array_equal(
        decode_image(content + b"\xff\xdajunk", "db", color=None), decode_image(content, "db", color=None)
    )


def test_no_picture() -> None:
    with refused("db: not a readable picture .9 bytes.; JPEG, PNG"):
        decode_image(b"some text", "db", color=True)
    deep = cv2.imencode(".png", np.zeros((4, 4), np.uint16))[1].tobytes()
    with refused("uint16; Image data type must be unsigned byte"):
        decode_image(deep, "db", color=None)


@pytest.mark.parametrize(
    ("datum", "said"),
    [
        (Datum(), "a Datum of 0×0×0; channels, height and width of at least 1"),
        (Datum(channels=3, height=2, width=2, data=bytes(11)), "11 bytes of data; 12 were needed .*3×2×2"),
        (Datum(channels=3, height=2, width=2, data=bytes(13)), "13 bytes of data; 12 were needed"),
        (Datum(channels=1, height=2, width=2, float_data=[1]), "1 numbers in float_data; 4 were needed"),
        (Datum(channels=3, height=-2, width=2, data=bytes(12)), "a Datum of 3×-2×2"),
        (Datum(channels=3, height=4, width=4, data=file_content(pixels(4, 4, 3))), "`encoded: true`"),
        (Datum(encoded=True), "not a readable picture"),
    ],
)
def test_damaged(datum: Datum, said: str) -> None:
    with refused(f"^db, record 'k': .*{said}"):
        read_datum(datum.SerializeToString(), "db, record 'k'")


def test_no_datum() -> None:
    with refused("^db, record 'k': 3 bytes that are no Datum"):
        read_datum(b"\xff\xff\xff", "db, record 'k'")
