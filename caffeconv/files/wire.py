"""Protobuf's wire format: a cursor that believes nothing, and the encoding of tags and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffeconv.errors import CaffeconvError
from caffeconv.files.plain_file import ByteSource

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


_SIZES = {FIXED32: 4, FIXED64: 8}
_LAST_TAG = (1 << 32) - 1
_SHORT = 5
"""Bytes of a tag or length, at most: protobuf refuses longer ones."""
_MASK = (1 << 64) - 1
_TAGS_TOGETHER = 1 << 18


@dataclass(frozen=True)
class FixedRun:
    """Numbers of one size: where the first begins, how many there are, and the bytes from one to the next.

    All of them lie within the source that `Scan.fixed_run` and `Scan.packed_run` were asked about.
    """

    offset: int
    count: int
    size: int
    step: int

    @property
    def end(self) -> int:
        """Behind the last number."""
        return self.offset + (self.count - 1) * self.step + self.size if self.count else self.offset

    def part(self, start: int, stop: int) -> FixedRun:
        """The numbers from `start` to before `stop`, of those that there are."""
        first, last = min(start, self.count), min(stop, self.count)
        return FixedRun(self.offset + first * self.step, last - first, self.size, self.step)


class Scan:
    """A cursor over the fields of nested messages in one source of bytes."""

    def __init__(self, source: ByteSource, path: Path, needed: str = "caffemodel") -> None:
        self.source = source
        self.path = path
        self.needed = needed

    def fail(self, offset: int, what: str) -> CaffeconvError:
        return CaffeconvError(
            f"{self.path}: {what} at byte {offset} of {len(self.source)}; a complete {self.needed} was needed. "
            "The file is truncated, damaged or something else: copy or download it again."
        )

    def varint(self, position: int, end: int, longest: int = 10) -> tuple[int, int]:
        """A number below 2⁶⁴ of `longest` bytes at most, and where it ends, which is `end` at most."""
        content, start = self.source.window(position) if position < end else (b"", 0)
        result = shift = 0
        for at in range(position, min(end, position + longest)):
            byte = content[at - start]
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result & _MASK, at + 1
            shift += 7
        raise self.fail(position, "a number without end")

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
        """Yields (field, wire type, start of tag, start of value, end of value), all of them within `start` and `end`.

        A varint's value is its span. A run of numbers of a fixed size, each with the same tag of one byte, comes as one
        field: its value ends behind the last. `fixed_run` and `packed_run` say where the numbers of a value lie.
        """
        position = start
        while position < end:
            tag_start = position
            tag, value_start = self.varint(position, end, _SHORT)
            number, wire = tag >> 3, tag & 7
            if number == 0 or tag > _LAST_TAG:
                raise self.fail(tag_start, f"field number {number}")
            if wire == VARINT:
                _, position = self.varint(value_start, end)
            elif wire == BYTES:
                length, value_start = self.varint(value_start, end, _SHORT)
                position = value_start + length
            elif wire in _SIZES:
                position = value_start + _SIZES[wire]
            else:
                raise self.fail(tag_start, f"wire type {wire}, which no field of a caffemodel has,")
            if position > end:
                raise self.fail(
                    tag_start, f"a field of {position - value_start} bytes where {end - value_start} are left"
                )
            if wire in _SIZES and value_start - tag_start == 1:
                position = self._run_end(tag_start, position - tag_start, end)
            yield number, wire, tag_start, value_start, position

    def _run_end(self, tag_start: int, step: int, end: int) -> int:
        """The end of a run of equal one-byte tags with a fixed-size value each: an unpacked repeated field."""
        total = (end - tag_start) // step
        first, position, together = self.source.read(tag_start, tag_start + 1), 1, 1 << 6
        while position < total:
            stop = min(total, position + together)
            tags = self.source.array(tag_start + position * step, tag_start + (stop - 1) * step + 1)[::step]
            different = np.flatnonzero(tags != first[0])
            if different.size:
                return tag_start + (position + int(different[0])) * step
            position, together = stop, _TAGS_TOGETHER
        return tag_start + total * step

    def fixed_run(self, wire: int, tag: int, start: int, end: int) -> FixedRun:
        """Where the numbers of a field lie that `fields` gave as FIXED32 or FIXED64."""
        size = _SIZES[wire]
        step = start - tag + size
        count, rest = divmod(end - tag, step)
        if rest or count < 1:
            raise self.fail(tag, f"{end - tag} bytes of numbers that take {step} each")
        return self._within(FixedRun(start, count, size, step), end)

    def packed_run(self, size: int, start: int, end: int) -> FixedRun:
        """Where the numbers of `size` bytes each lie that fill a value of BYTES."""
        if (end - start) % size:
            raise self.fail(start, "blob data that is no list of numbers")
        return self._within(FixedRun(start, (end - start) // size, size, size), end)

    def _within(self, run: FixedRun, end: int) -> FixedRun:
        if not 0 <= run.offset <= run.end <= end <= len(self.source):
            raise self.fail(run.offset, f"{run.count} numbers of {run.size} bytes that reach beyond their field")
        return run

    def text(self, start: int, end: int) -> str:
        return self.source.read(start, end).decode("utf-8", "replace")


def read_run(source: ByteSource, run: FixedRun) -> NDArray[np.uint8]:
    """The bytes of a run's numbers, one number after another."""
    if not run.count:
        return np.empty(0, np.uint8)
    content = source.array(run.offset, run.end)
    if run.step == run.size:
        return content
    padded = np.concatenate([content, np.empty(run.step - run.size, np.uint8)])
    return np.ascontiguousarray(padded.reshape(run.count, run.step)[:, : run.size]).reshape(-1)


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
