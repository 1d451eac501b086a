"""Changes of bytes that readers of lengths, tags, numbers and text stumble over."""

from __future__ import annotations

import random

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
_WORDS = (
    b"dim: 0",
    b"dim: -1",
    b"99999999999",
    b"layer {",
    b"}",
    b'"',
    b"\0",
    b"\xff" * 10,
    b"= 7",
    b"[",
    b"-nan",
    b"1e999",
)


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The content after one to eight changes."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        at = draw.randrange(len(changed) + 1)
        draw.choice(_CHANGES)(changed, at, draw)
    return bytes(changed)


def _flip(content: bytearray, at: int, draw: random.Random) -> None:
    if at < len(content):
        content[at] ^= 1 << draw.randrange(8)


def _set_number(content: bytearray, at: int, draw: random.Random) -> None:
    size = draw.choice((1, 2, 4, 8))
    number = draw.choice(_NUMBERS) & (1 << 8 * size) - 1
    content[at : at + size] = number.to_bytes(size, draw.choice(("little", "big")))


def _lengthen_number(content: bytearray, at: int, draw: random.Random) -> None:
    """Makes a longer form of what may be a number of protobuf's."""
    if at < len(content) and content[at] < 0x80:
        content[at : at + 1] = bytes([content[at] | 0x80, *[0x80] * draw.randrange(9), 0])


def _cut(content: bytearray, at: int, draw: random.Random) -> None:
    del content[at : at + draw.choice((1, 4, 64, len(content)))]


def _repeat(content: bytearray, at: int, draw: random.Random) -> None:
    content[at:at] = content[at : at + draw.randint(1, 200)] * draw.randint(1, 20)


def _put_word(content: bytearray, at: int, draw: random.Random) -> None:
    content[at:at] = draw.choice(_WORDS)


_CHANGES = (_flip, _flip, _set_number, _set_number, _lengthen_number, _cut, _repeat, _put_word)
