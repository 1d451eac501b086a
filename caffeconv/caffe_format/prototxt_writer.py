"""Writes a net definition as prototxt: protobuf's text format, one field a line, as Caffe's own tools print it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from caffeconv.caffe_pb2 import NetParameter

_ESCAPES = {code: f"\\{code:03o}" for code in (*range(32), 127)} | str.maketrans(
    {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
)
_BYTE_ESCAPES = _ESCAPES | {code: f"\\{code:03o}" for code in range(128, 256)}


def net_to_text(net: NetParameter, *, with_blobs: bool = False) -> str:
    """The prototxt of a net: reading it gives the same message, but for the blobs where these are left out.

    Only fields that are set are written; one that is set to its default is, because Caffe asks of some whether they are
    there. Floats have the fewest digits that read back as the same float32.
    """
    return "".join(f"{line}\n" for line in _lines(net, "", with_blobs))


def field_value(field: FieldDescriptor, value: object) -> str:
    """A field's value on one line, as prototxt has it; several in brackets, messages in braces."""
    if isinstance(value, Message):
        return "{ " + " ".join(line.strip() for line in _lines(value, "", with_blobs=False)) + " }"
    if isinstance(value, (str, bytes, int, float)):
        return _scalar(field, value)
    return "[" + ", ".join(field_value(field, one) for one in cast("Iterable[object]", value)) + "]"


def message_text(name: str, message: Message) -> str:
    """A field that is a message, as prototxt has it: ``name { … }``, a field a line."""
    return "\n".join((f"{name} {{", *_lines(message, "  ", with_blobs=False), "}"))


def _lines(message: Message, indent: str, with_blobs: bool) -> Iterator[str]:
    for field, value in message.ListFields():
        if field.name == "blobs" and not with_blobs:
            continue
        values = [value] if isinstance(value, (Message, str, bytes, int, float)) else value
        for one in values:
            if isinstance(one, Message):
                yield f"{indent}{field.name} {{"
                yield from _lines(one, indent + "  ", with_blobs)
                yield f"{indent}}}"
            else:
                yield f"{indent}{field.name}: {_scalar(field, one)}"


def _scalar(field: FieldDescriptor, value: str | bytes | float) -> str:
    if isinstance(value, bytes):
        return f'"{value.decode("latin-1").translate(_BYTE_ESCAPES)}"'
    if isinstance(value, str):
        return f'"{value.translate(_ESCAPES)}"'
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return _shortest(float(str(np.float32(value))))
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return _shortest(value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return "true" if value else "false"
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[int(value)].name)
    return str(value)


def _shortest(number: float) -> str:
    return repr(number).removesuffix(".0")
