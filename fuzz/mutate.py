"""Changes of bytes that readers of lengths, tags, numbers and text stumble over."""

from __future__ import annotations

import random
import re

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


def mutated_text(content: bytes, draw: random.Random) -> bytes:
    """The content of a prototxt after one to five changes of its numbers, names, fields and layers."""
    text = content.decode("utf-8", "replace")
    for _ in range(draw.randint(1, 5)):
        text = draw.choice(_TEXT_CHANGES)(text, draw)
    return text.encode()


def _other_number(text: str, draw: random.Random) -> str:
    return _put(text, draw, r"-?\b\d[\d.]*(?:e[-+]?\d+)?", draw.choice(_TEXT_NUMBERS))


def _other_word(text: str, draw: random.Random) -> str:
    """One name, type, or word of an enumeration in the place of another."""
    words = re.findall(r'"[^"\n]*"|\b[A-Z_]{3,}\b', text)
    return _put(text, draw, r'"[^"\n]*"|\b[A-Z_]{3,}\b', draw.choice(words)) if words else text


def _other_field(text: str, draw: random.Random) -> str:
    fields = re.findall(r"\b[a-z_]+\b(?=\s*[:{])", text)
    return _put(text, draw, r"\b[a-z_]+\b(?=\s*[:{])", draw.choice(fields)) if fields else text


def _without_field(text: str, draw: random.Random) -> str:
    return _put(text, draw, r"\b[a-z_]+\s*:\s*\S+", "")


def _field_again(text: str, draw: random.Random) -> str:
    spans = [match.span() for match in re.finditer(r"\b[a-z_]+\s*:\s*\S+", text)]
    if not spans:
        return text
    start, end = draw.choice(spans)
    return text[:end] + f" {text[start:end]}" * draw.choice((1, 1, 2, 40)) + text[end:]


def _layer_again(text: str, draw: random.Random) -> str:
    layers = re.split(r"(?m)^(?=layer)", text)
    layers.insert(draw.randrange(len(layers) + 1), draw.choice(layers))
    return "".join(layers)


def _put(text: str, draw: random.Random, pattern: str, new: str) -> str:
    """The text with one place of the pattern, drawn among all, as `new`."""
    spans = [match.span() for match in re.finditer(pattern, text)]
    if not spans:
        return text
    start, end = draw.choice(spans)
    return text[:start] + new + text[end:]


_TEXT_NUMBERS = (
    "0", "1", "2", "3", "5", "7", "-1", "-2", "0.5", "1e-9", "1e30", "1e999", "nan", "inf", "31", "64", "1000", "65536",
    "16777217", "2147483647", "2147483648", "4294967295", "-2147483648", "9223372036854775807", "99999999999999999999",
)  # fmt: skip
_TEXT_CHANGES = (
    _other_number, _other_number, _other_number, _other_word, _other_word, _other_field, _without_field, _field_again,
    _layer_again,
)  # fmt: skip


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
