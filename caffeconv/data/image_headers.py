"""What the head of a picture claims, before a decoder allocates it."""

from __future__ import annotations

import re
import struct

from caffeconv.errors import CaffeconvError

MAX_PIXELS = 1 << 27
"""Of one picture: three bytes each in colour, and again as many for what is made of it."""
_PNM = re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*(\d{1,9})\s+(?:#[^\n]*\n\s*)*(\d{1,9})")
_PAM = re.compile(rb"P7\n(?:[^\n]*\n)*?WIDTH (\d{1,9})\n(?:[^\n]*\n)*?HEIGHT (\d{1,9})\n")
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257


def refuse_claims(content: bytes, where: str) -> None:
    """Raises CaffeconvError for a picture of more pixels than are read, or a PNG whose chunks reach beyond its end."""
    if content.startswith(b"\x89PNG"):
        _walk_png(content, where)
    width, height = _size(content)
    if width * height > MAX_PIXELS:
        raise CaffeconvError(f"{where}: a picture of {width}×{height} pixels; {MAX_PIXELS} in all at most are read")


def is_known(content: bytes) -> bool:
    """Whether it begins as a JPEG, PNG, BMP, PBM to PAM, TIFF, WebP or GIF does: no other decoder is tried."""
    return (
        content.startswith((b"\xff\xd8", b"\x89PNG", b"BM", b"II*\0", b"MM\0*", b"GIF8"))
        or (content[:1] + content[2:3].strip() == b"P" and content[1:2] in b"1234567")
        or (content[:4], content[8:12]) == (b"RIFF", b"WEBP")
    )  # fmt: skip


def _walk_png(content: bytes, where: str) -> None:
    position = 8
    while position < len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        position += 12 + length
        if position > len(content):
            # OpenCV allocates what a chunk claims
            raise CaffeconvError(
                f"{where}: a PNG with a chunk of {length} bytes that are not there; a whole one was needed"
            )
        if content[position - 12 - length + 4 : position - 8 - length] == b"IEND":
            return


def _size(content: bytes) -> tuple[int, int]:
    """Width and height; 0 where the head does not say."""
    try:
        if content.startswith(b"\x89PNG"):
            return _pair(">II", content, 16)
        if content.startswith(b"\xff\xd8"):
            return _jpeg_size(content)
        if content.startswith(b"BM"):
            width, height = _pair("<ii", content, 18)
            return abs(width), abs(height)
        if content.startswith(b"GIF8"):
            return _pair("<HH", content, 6)
        if content.startswith(b"RIFF"):
            return _webp_size(content)
        if content.startswith((b"II*\0", b"MM\0*")):
            return _tiff_size(content)
    except struct.error:  # it ends before that
        return 0, 0
    match = _PNM.match(content) or _PAM.match(content[:4096])
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _pair(form: str, content: bytes, offset: int) -> tuple[int, int]:
    first, second = struct.unpack_from(form, content, offset)
    return int(first), int(second)


def _jpeg_size(content: bytes) -> tuple[int, int]:
    position = 2
    while position + 9 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker in _JPEG_SIZES:
            height, width = _pair(">HH", content, position + 5)
            return width, height
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD9:  # fill bytes and markers without content
            position += 1 if marker == 0xFF else 2
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return 0, 0


def _webp_size(content: bytes) -> tuple[int, int]:
    kind = content[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(content[24:27], "little"), 1 + int.from_bytes(content[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(content[26:28], "little") & 0x3FFF, int.from_bytes(content[28:30], "little") & 0x3FFF


def _tiff_size(content: bytes) -> tuple[int, int]:
    order = "<" if content[:1] == b"I" else ">"
    (offset,) = struct.unpack_from(f"{order}I", content, 4)
    (number,) = struct.unpack_from(f"{order}H", content, offset)
    sizes = {_TIFF_WIDTH: 0, _TIFF_HEIGHT: 0}
    for i in range(number):
        tag, kind = _pair(f"{order}HH", content, offset + 2 + 12 * i)
        if tag in sizes:  # 16 bits, or 32
            form = "H" if kind == 3 else "I"
            (sizes[tag],) = struct.unpack_from(order + form, content, offset + 2 + 12 * i + 8)
    return sizes[_TIFF_WIDTH], sizes[_TIFF_HEIGHT]
