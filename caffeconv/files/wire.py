"""Protobuf's wire format: a cursor that believes nothing, and the encoding of tags and numbers."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from caffeconv.errors import CaffeconvError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Scan:
    """A cursor over the fields of nested messages in one buffer."""

    def __init__(self, buffer: mmap.mmap | bytes, path: Path, needed: str = "caffemodel") -> None:
        self.buffer = buffer
        self.path = path
        self.needed = needed
        self.values = np.frombuffer(buffer, np.uint8)

    def fail(self, offset: int, what: str) -> CaffeconvError:
        return CaffeconvError(
            f"{self.path}: {what} at byte {offset} of {len(self.buffer)}; a complete {self.needed} was needed. "
            "The file is truncated, damaged or something else: copy or download it again."
        )

    def varint(self, position: int, end: int) -> tuple[int, int]:
        result = shift = 0
        for at in range(position, min(end, position + 10)):
            byte = self.buffer[at]
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result, at + 1
            shift += 7
        raise self.fail(position, "a number without end")

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
        """Yields (field, wire type, start of tag, start of value, end of value); a varint's value is its span."""
        position = start
        while position < end:
            tag_start = position
            tag, position = self.varint(position, end)
            number, wire = tag >> 3, tag & 7
            if number == 0:
                raise self.fail(tag_start, "field number 0")
            value_start = position
            if wire == VARINT:
                _, position = self.varint(position, end)
            elif wire == BYTES:
                length, value_start = self.varint(position, end)
                position = value_start + length
            elif wire in (FIXED64, FIXED32):
                position += 8 if wire == FIXED64 else 4
            else:
                raise self.fail(tag_start, f"wire type {wire}, which no field of a caffemodel has,")
            if position > end:
                raise self.fail(
                    tag_start, f"a field of {position - value_start} bytes where {end - value_start} are left"
                )
            if wire in (FIXED32, FIXED64) and position - tag_start in (5, 9):
                position = self._run_end(tag_start, position - tag_start, end)
            yield number, wire, tag_start, value_start, position

    def _run_end(self, tag_start: int, step: int, end: int) -> int:
        """The end of a run of equal one-byte tags with a fixed-size value each: an unpacked repeated field."""
        tags = self.values[tag_start : tag_start + (end - tag_start) // step * step : step]
        different = np.flatnonzero(tags[:64] != tags[0])
        if not different.size and tags.size > 64:
            different = np.flatnonzero(tags != tags[0])
        return tag_start + step * int(different[0] if different.size else tags.size)

    def text(self, start: int, end: int) -> str:
        return bytes(self.buffer[start:end]).decode("utf-8", "replace")


def encode_varint(value: int) -> bytes:
    """A number from 0 on as protobuf's varint."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def tag(number: int, wire: int) -> bytes:
    """The tag of field `number` with a wire type, encoded."""
    return encode_varint(number << 3 | wire)
