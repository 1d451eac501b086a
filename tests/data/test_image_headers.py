"""Sizes in the heads of pictures, and PNGs whose chunks are not there."""

from __future__ import annotations

import struct

import pytest
from support.databases import file_content, pixels, refused

from caffeconv.data.image_headers import MAX_PIXELS, is_known, refuse_claims
from caffeconv.data.images import decode_image

PICTURE = pixels(20, 30, 3)
SUFFIXES = [".png", ".jpg", ".bmp", ".ppm", ".tiff", ".webp"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_is_known_and_its_size_is_found(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = file_content(PICTURE, suffix)
    assert is_known(content)
    refuse_claims(content, "a")
    assert decode_image(content, "a", color=True).shape == (20, 30, 3)
    monkeypatch.setattr("caffeconv.data.image_headers.MAX_PIXELS", 599)
    with refused("^a: a picture of 30×20 pixels; 599 in all at most are read$"):
        decode_image(content, "a", color=True)


def test_a_chunk_that_is_not_there_is_not_allocated() -> None:
    content = bytearray(file_content(PICTURE))
    content[33:37] = struct.pack(">I", 0x7FFFFFF0)  # IDAT
    with refused("^a: a PNG with a chunk of 2147483632 bytes that are not there"):
        decode_image(bytes(content), "a", color=None)


def test_a_huge_picture_is_not_allocated() -> None:
    content = bytearray(file_content(PICTURE, ".bmp"))
    content[18:26] = struct.pack("<ii", 1 << 20, -(1 << 20))
    with refused(rf"^a: a picture of 1048576×1048576 pixels; {MAX_PIXELS} in all"):
        decode_image(bytes(content), "a", color=True)


@pytest.mark.parametrize("content", [b"", b"P", b"II*\0", b"BM", b"GIF8", b"RIFF1234WEBP", b"\xff\xd8", b"text" * 10])
def test_what_ends_too_early_is_no_picture(content: bytes) -> None:
    refuse_claims(content, "a")
    with refused("^a: (not a readable picture|the picture is cut off)"):
        decode_image(content, "a", color=True)
