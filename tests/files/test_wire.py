"""Tags and numbers of protobuf's wire format, and what is said of bytes that are none."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from caffeconv.caffe_pb2 import BlobProto, Datum
from caffeconv.errors import CaffeconvError
from caffeconv.files.plain_file import MemoryBytes
from caffeconv.files.wire import BYTES, FIXED32, FIXED64, VARINT, FixedRun, Scan, encode_varint, read_run, tag

PATH = Path("net.caffemodel")


def fields(content: bytes) -> list[tuple[int, int, int, int, int]]:
    return list(Scan(MemoryBytes(content), PATH).fields(0, len(content)))


@given(st.integers(0, 2**64 - 1), st.binary(max_size=5), st.binary(max_size=5))
def test_numbers_round_trip_wherever_they_lie(value: int, before: bytes, after: bytes) -> None:
    content = before + encode_varint(value)
    scan = Scan(MemoryBytes(content + after), PATH)
    assert scan.varint(len(before), len(content + after)) == (value, len(content))


@given(st.integers(0, 2**31 - 1))
def test_tags_and_numbers_are_as_protobuf_writes_them(label: int) -> None:
    assert tag(5, VARINT) + encode_varint(label) == Datum(label=label).SerializeToString()


def test_fields_of_every_wire_type() -> None:
    content = (
        tag(1, VARINT) + encode_varint(300) + tag(2, BYTES) + b"\3abc" + tag(3, FIXED64) + bytes(8)
        + tag(1000, FIXED32) + bytes(4)
    )  # fmt: skip
    assert fields(content) == [
        (1, VARINT, 0, 1, 3), (2, BYTES, 3, 5, 8), (3, FIXED64, 8, 9, 17), (1000, FIXED32, 17, 19, 23),
    ]  # fmt: skip


@pytest.mark.parametrize("number", [2, 64, 65, 300])
def test_unpacked_floats_are_one_run(number: int) -> None:
    values = np.arange(number, dtype=np.float32)
    content = Datum(float_data=values).SerializeToString() + tag(5, VARINT) + b"\1"
    end = 5 * number
    assert fields(content) == [(6, FIXED32, 0, 1, end), (5, VARINT, end, end + 1, end + 2)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x08\x01\x00", "field number 0 at byte 2 of 3"),
        (b"\x85\x80\x80\x80\x10\0\0\0\0", "field number 536870912 at byte 0 of 9"),
        (b"\xad\x80\x80\x80\x80\0\0\0\0\0", "a number without end at byte 0 of 10"),
        (b"\x08\x01\x0b", "wire type 3, which no field of a caffemodel has, at byte 2 of 3"),
        (b"\x12\x05abc", "a field of 5 bytes where 3 are left at byte 0 of 5"),
        (b"\x0d\0\0", "a field of 4 bytes where 2 are left at byte 0 of 3"),
        (b"\x08\xff", "a number without end at byte 1 of 2"),
        (b"\x08" + b"\xff" * 11, "a number without end at byte 1 of 12"),
    ],
)
def test_damage_is_named_with_its_place(content: bytes, problem: str) -> None:
    message = f"net.caffemodel: {problem}; a complete caffemodel was needed. The file is truncated"
    with pytest.raises(CaffeconvError, match="^" + re.escape(message)):
        fields(content)


def test_text_that_is_no_utf8_is_still_text() -> None:
    scan = Scan(MemoryBytes(b"conv\xc3\xa9\xff"), PATH)
    assert scan.text(0, 6) == "convé"
    assert scan.text(4, 7) == "é\N{REPLACEMENT CHARACTER}"


@st.composite
def overlong(draw: st.DrawFn, value: int) -> bytes:
    """A number with up to as many bytes as a number may have."""
    encoded = bytearray(encode_varint(value))
    longest = draw(st.sampled_from([1, 5, 6, 10]))
    for _ in range(longest - len(encoded)):
        encoded[-1] |= 0x80
        encoded.append(0)
    return bytes(encoded)


@st.composite
def numbers(draw: st.DrawFn) -> bytes:
    """Fields 5 (float) and 8 (double), packed or not, tags and lengths overlong at times, cut off at times."""
    content = b""
    for number, size in draw(st.lists(st.sampled_from([(5, 4), (8, 8)]), max_size=4)):
        values = draw(st.binary(min_size=size * 3, max_size=size * 3))
        if draw(st.booleans()):
            content += draw(overlong(number << 3 | BYTES)) + draw(overlong(len(values))) + values
        else:
            head = draw(overlong(number << 3 | (FIXED32 if size == 4 else FIXED64)))
            content += b"".join(head + values[i : i + size] for i in range(0, len(values), size))
    return content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 3)) == 0 else content


def stored_numbers(content: bytes) -> dict[int, bytes]:
    """The bytes of fields 5 and 8, one number after another."""
    scan = Scan(MemoryBytes(content), PATH)
    stored = {5: b"", 8: b""}
    for number, wire, start, value, end in scan.fields(0, len(content)):
        run = (
            scan.packed_run(4 if number == 5 else 8, value, end)
            if wire == BYTES
            else scan.fixed_run(wire, start, value, end)
        )
        assert 0 <= value <= run.offset <= run.end <= end <= len(content)
        stored[number] += read_run(scan.source, run).tobytes()
    return stored


@given(numbers())
def test_numbers_lie_where_protobuf_finds_them(content: bytes) -> None:
    try:
        want = BlobProto.FromString(content)
    except DecodeError:
        with pytest.raises(CaffeconvError):
            stored_numbers(content)
        return
    stored = stored_numbers(content)
    assert stored[5] == np.array(want.data, np.float32).tobytes()
    assert stored[8] == np.array(want.double_data).tobytes()


def test_an_overlong_tag_stands_for_one_number() -> None:
    content = b"\xad\x80\x80\x80\x00" + bytes(4)
    scan = Scan(MemoryBytes(content), PATH)
    ((number, wire, start, value, end),) = scan.fields(0, len(content))
    assert (number, scan.fixed_run(wire, start, value, end)) == (5, FixedRun(5, 1, 4, 9))
