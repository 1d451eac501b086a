"""Tags and numbers of protobuf's wire format, and what is said of bytes that are none."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffeconv.caffe_pb2 import Datum
from caffeconv.errors import CaffeconvError
from caffeconv.files.wire import BYTES, FIXED32, FIXED64, VARINT, Scan, encode_varint, tag

PATH = Path("net.caffemodel")


def fields(content: bytes) -> list[tuple[int, int, int, int, int]]:
    return list(Scan(content, PATH).fields(0, len(content)))


@given(st.integers(0, 2**64 - 1), st.binary(max_size=5), st.binary(max_size=5))
def test_numbers_round_trip_wherever_they_lie(value: int, before: bytes, after: bytes) -> None:
    content = before + encode_varint(value)
    scan = Scan(content + after, PATH)
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
    scan = Scan(b"conv\xc3\xa9\xff", PATH)
    assert scan.text(0, 6) == "convé"
    assert scan.text(4, 7) == "é\N{REPLACEMENT CHARACTER}"
