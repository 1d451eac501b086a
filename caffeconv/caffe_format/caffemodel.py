"""Reads a caffemodel by walking the wire format: weights stay in the file until they are asked for.

Only the headers of fields are looked at; no float is parsed or copied before it is needed. Nothing is trusted: every
length is compared with the bytes that are there. Wire format: protobuf's encoding guide; field numbers: proto/caffe.proto.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

import caffeconv.caffe_pb2 as caffe_pb2
from caffeconv.caffe_format.file_faults import file_faults
from caffeconv.caffe_format.foreign_files import HEAD, refuse_foreign
from caffeconv.errors import CaffeconvError
from caffeconv.files.plain_file import ByteSource, MemoryBytes, PlainFile
from caffeconv.files.wire import BYTES, FIXED32, FIXED64, VARINT, FixedRun, Scan, encode_varint, read_run
from caffeconv.tensor.param_values import BLOCK, Blob
from caffeconv.tensor.shape import FloatArray, Shape, format_shape

_NET_LAYER, _NET_LAYERS_V1 = 100, 2
_BLOB = re.compile(rb"\x08.{1,3}\x10", re.DOTALL)
"""How a BlobProto of the old form begins: num, then channels."""
# LayerParameter: a message of its own for each kind of layer from 100 on, BVLC's last is clip_param
_FIRST_PARAM, _LAST_BVLC_PARAM = 100, 148
_V1_PARAM_NAMES = (1001, 1002)
_LEGACY_DIMS = {1: 0, 2: 1, 3: 2, 4: 3}  # num, channels, height, width
_DATA, _SHAPE, _DOUBLE_DATA, _RAW_TYPE, _RAW_DATA = 5, 7, 8, 10, 12
_DIFF, _DOUBLE_DIFF = 6, 9
# C3D 1.0's BlobProto: num, channels, length, height, width, and data where BVLC has diff
_C3D_DIMS, _C3D_DATA = range(1, 6), 6
# NVIDIA Caffe's Type enum in BlobProto.raw_data_type
_RAW_DTYPES = {0: "<f8", 1: "<f4", 2: "<f2"}


@dataclass(frozen=True)
class _LayerFields:
    """Where a layer message of one dialect keeps its name, type and blobs."""

    name: int
    type: int
    blobs: int


_V2, _V1, _V0 = _LayerFields(1, 2, 7), _LayerFields(4, 5, 6), _LayerFields(1, 2, 50)
_V1_INNER = 1


@dataclass(frozen=True)
class StoredBlob:
    """A parameter blob as a weights file holds it."""

    shape: Shape
    legacy: bool
    """Whether the file gives num/channels/height/width instead of a shape."""
    source: ByteSource
    dtype: str
    runs: tuple[FixedRun, ...]
    """Where the numbers lie, all of that dtype."""
    is_raw: bool = False
    """Whether the values are raw bytes of a type that the blob names, as NVIDIA Caffe writes them."""
    diff: StoredBlob | None = None
    """The gradient that a snapshot with `snapshot_diff: true` keeps beside the values."""

    @property
    def count(self) -> int:
        return sum(run.count for run in self.runs)

    @property
    def offset(self) -> int | None:
        """Byte offset of contiguous little-endian float32 values in the file; None where they are stored otherwise."""
        contiguous = len(self.runs) == 1 and self.dtype == "<f4" and self.runs[0].step == 4
        return self.runs[0].offset if contiguous else None

    def array(self) -> FloatArray:
        """The values, 1-D float32, read from the file."""
        parts = [self._read(run) for run in self.runs]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.float32), *parts])

    def blocks(self) -> Iterator[FloatArray]:
        """The values in blocks of at most BLOCK, 1-D float32."""
        for run in self.runs:
            for start in range(0, run.count, BLOCK):
                yield self._read(run.part(start, start + BLOCK))

    def _read(self, run: FixedRun) -> FloatArray:
        return read_run(self.source, run).view(self.dtype).astype(np.float32, copy=False)


@dataclass(frozen=True)
class StoredLayer:
    """A layer of a weights file: its name, its type where the file gives one, and its blobs."""

    name: str
    type: str
    blobs: tuple[Blob | None, ...]
    """None for one that the file leaves out (Caffe's HDF5 files hold a shared parameter once)."""
    may_leave_out: bool = False


@dataclass(frozen=True)
class WeightsFile:
    """The layers of one weights file, in the file's order."""

    path: Path
    layers: tuple[StoredLayer, ...]
    net_bytes: bytes = b""

    def net(self) -> caffe_pb2.NetParameter:
        """The net definition that the file carries, without blobs; CaffeconvError where it does not parse.

        Forks gave the same numbers to different fields. Where a layer does not parse, its fields that are not BVLC's
        are left out.
        """
        return _parse_net(Scan(MemoryBytes(self.net_bytes), self.path))


def read_caffemodel(path: Path) -> WeightsFile:
    """Opens a caffemodel and finds its blobs; raises CaffeconvError where it is damaged or something else."""
    source = _open(path, "a weights file (caffemodel)")
    _refuse_other_formats(source, path)
    scan = Scan(source, path)
    layers, net_parts = [], []
    for number, wire, tag, start, end in scan.fields(0, len(source)):
        if wire == BYTES and number == _NET_LAYER:
            layers.append(_read_layer(scan, start, end, _V2))
        elif wire == BYTES and number == _NET_LAYERS_V1:
            layers.append(_read_v1_layer(scan, start, end))
        net_parts.append(_without_blobs(scan, number, wire, tag, start, end))
    if not layers:
        blob = "; it is a single blob (binaryproto), a mean or an H" if _BLOB.match(_head(source)) else ""
        raise CaffeconvError(f"{path}: no layer in it{blob}; weights (caffemodel) were needed")
    return WeightsFile(path, tuple(layers), b"".join(net_parts))


def read_binaryproto(path: Path) -> StoredBlob:
    """Opens a file that holds one blob (a mean image, the H of InfogainLoss); CaffeconvError where it is none."""
    source = _open(path, "a blob (binaryproto)")
    refuse_foreign(path, _head(source), "a blob (binaryproto)")
    if _is_text(_head(source).decode("utf-8", "replace")):
        raise CaffeconvError(f"{path}: this is text; a blob in binary form (binaryproto) was needed")
    blob = _read_blob(Scan(source, path, "binaryproto"), 0, len(source), "")
    if blob.count != math.prod(blob.shape) or not blob.count:
        shape = (
            f"{format_shape(blob.shape)} = {math.prod(blob.shape)} were needed" if blob.count else "a blob was needed"
        )
        raise CaffeconvError(f"{path}: {blob.count} numbers in it; {shape}. Is it a binaryproto, and whole?")
    return blob


def _open(path: Path, needed: str) -> PlainFile:
    with file_faults(path, needed):
        source = PlainFile(path)
    if not len(source):
        raise CaffeconvError(f"{path}: the file is empty; {needed} was needed")
    return source


def _head(source: ByteSource) -> bytes:
    return source.read(0, min(HEAD, len(source)))


def _refuse_other_formats(source: ByteSource, path: Path) -> None:
    head = _head(source)
    refuse_foreign(path, head, "a caffemodel")
    text = head.decode("utf-8", "replace")
    if _is_text(text):
        raise CaffeconvError(
            f"{path}: this is text; weights (caffemodel, binary) were needed. Give the prototxt first, then the weights."
        )


def _is_text(head: str) -> bool:
    return all(char.isprintable() or char in "\r\n\t" for char in head)


def _read_v1_layer(scan: Scan, start: int, end: int) -> StoredLayer:
    for number, wire, _, inner_start, inner_end in scan.fields(start, end):
        if number == _V1_INNER and wire == BYTES:
            return _read_layer(scan, inner_start, inner_end, _V0)
    return _read_layer(scan, start, end, _V1)


def _read_layer(scan: Scan, start: int, end: int, fields: _LayerFields) -> StoredLayer:
    name = kind = ""
    spans = []
    for number, wire, _, value_start, value_end in scan.fields(start, end):
        if number == fields.name and wire == BYTES:
            name = scan.text(value_start, value_end)
        elif number == fields.type and wire == BYTES:
            kind = scan.text(value_start, value_end)
        elif number == fields.blobs and wire == BYTES:
            spans.append((value_start, value_end))
    return StoredLayer(name, kind, tuple(_read_blob(scan, *span, name) for span in spans))


def _is_of_c3d(scan: Scan, start: int, end: int) -> bool:
    """Whether a blob is C3D 1.0's: field 5 is a size there, and field 6 holds the data."""
    kinds = {(number, wire) for number, wire, *_ in scan.fields(start, end)}
    has_other_data = any(number in (_DATA, _SHAPE, _DOUBLE_DATA, _RAW_DATA) for number, _ in kinds)
    return (_C3D_DIMS[-1], VARINT) in kinds or ((_C3D_DATA, BYTES) in kinds and not has_other_data)


def _read_c3d_blob(scan: Scan, start: int, end: int) -> StoredBlob:
    sizes = dict.fromkeys(_C3D_DIMS, 0)
    runs = []
    for number, wire, tag, value_start, value_end in scan.fields(start, end):
        if number in sizes and wire == VARINT:
            sizes[number] = scan.varint(value_start, value_end)[0]
        elif number == _C3D_DATA:
            runs.append(_run(scan, _DATA, wire, tag, value_start, value_end))
    return StoredBlob(tuple(sizes.values()), True, scan.source, "<f4", tuple(runs))


def _read_blob(scan: Scan, start: int, end: int, layer: str) -> StoredBlob:
    if _is_of_c3d(scan, start, end):
        return _read_c3d_blob(scan, start, end)
    legacy = [0, 0, 0, 0]  # what Caffe's schema gives for one that is not set
    shape: Shape | None = None
    has_legacy, raw_type = False, 1
    runs: dict[int, list[FixedRun]] = {_DATA: [], _DOUBLE_DATA: [], _RAW_DATA: [], _DIFF: [], _DOUBLE_DIFF: []}
    for number, wire, tag, value_start, value_end in scan.fields(start, end):
        if number in _LEGACY_DIMS and wire == VARINT:
            legacy[_LEGACY_DIMS[number]] = scan.varint(value_start, value_end)[0]
            has_legacy = True
        elif number == _SHAPE and wire == BYTES:
            shape = _read_shape(scan, value_start, value_end)
        elif number == _RAW_TYPE and wire == VARINT:
            raw_type = scan.varint(value_start, value_end)[0]
        elif number == _RAW_DATA and wire == BYTES:
            runs[_RAW_DATA].append(scan.packed_run(1, value_start, value_end))
        elif number in (_DATA, _DOUBLE_DATA):
            runs[number].append(_run(scan, number, wire, tag, value_start, value_end))
        elif number in (_DIFF, _DOUBLE_DIFF):
            kind = _DATA if number == _DIFF else _DOUBLE_DATA
            runs[number].append(_run(scan, kind, wire, tag, value_start, value_end))
    # caffe: Blob::FromProto — the four old fields win over `shape` where both are given
    own_shape = tuple(legacy) if has_legacy else shape or ()
    if any(run.count for run in runs[_RAW_DATA]):
        raw_dtype, raw_runs = _raw_runs(scan, runs[_RAW_DATA], raw_type, layer)
        return StoredBlob(own_shape, has_legacy, scan.source, raw_dtype, raw_runs, is_raw=True)
    # caffe: Blob::FromProto prefers double_data, and double_diff
    dtype, number = ("<f8", _DOUBLE_DATA) if runs[_DOUBLE_DATA] else ("<f4", _DATA)
    diff_dtype, diff_number = ("<f8", _DOUBLE_DIFF) if runs[_DOUBLE_DIFF] else ("<f4", _DIFF)
    diff = StoredBlob(own_shape, has_legacy, scan.source, diff_dtype, tuple(runs[diff_number]))
    return StoredBlob(
        own_shape, has_legacy, scan.source, dtype, tuple(runs[number]), diff=diff if runs[diff_number] else None
    )  # fmt: skip


def _read_shape(scan: Scan, start: int, end: int) -> Shape:
    dims: list[int] = []
    for number, wire, _, position, value_end in scan.fields(start, end):
        if number != 1:
            continue
        while position < value_end:
            dim, position = scan.varint(position, value_end)
            dims.append(dim)
        if wire not in (VARINT, BYTES) or len(dims) > 32:
            raise scan.fail(start, "a shape that is none")
    if dims and math.prod(dims) > 1 << 40:
        raise scan.fail(start, f"a blob of {format_shape(dims)} values")
    return tuple(dims)


def _run(scan: Scan, number: int, wire: int, tag: int, start: int, end: int) -> FixedRun:
    size, fixed = (4, FIXED32) if number == _DATA else (8, FIXED64)
    if wire == fixed:
        return scan.fixed_run(wire, tag, start, end)
    if wire != BYTES:
        raise scan.fail(start, "blob data that is no list of numbers")
    return scan.packed_run(size, start, end)


def _raw_runs(scan: Scan, runs: list[FixedRun], raw_type: int, layer: str) -> tuple[str, tuple[FixedRun, ...]]:
    """The numbers' dtype, and where they lie."""
    dtype = _RAW_DTYPES.get(raw_type)
    if dtype is None:
        raise CaffeconvError(
            f"{scan.path}: layer '{layer}' stores raw data of type {raw_type}; double, float or half was needed"
        )
    return dtype, tuple(scan.packed_run(int(dtype[-1]), run.offset, run.end) for run in runs if run.count)


def _without_blobs(scan: Scan, number: int, wire: int, tag: int, start: int, end: int) -> bytes:
    """The bytes of one field of the net, its layers without their blobs."""
    if wire != BYTES or number not in (_NET_LAYER, _NET_LAYERS_V1):
        return scan.source.read(tag, end)
    body = bytearray()
    drop = _V2.blobs if number == _NET_LAYER else _V1.blobs
    for inner, inner_wire, inner_tag, inner_start, inner_end in scan.fields(start, end):
        if inner == drop and inner_wire == BYTES:
            continue
        if number == _NET_LAYERS_V1 and inner == _V1_INNER and inner_wire == BYTES:
            inner_bytes = b"".join(
                scan.source.read(f_tag, f_end)
                for f, _, f_tag, _, f_end in scan.fields(inner_start, inner_end)
                if f != _V0.blobs
            )
            body += _length_delimited(_V1_INNER, inner_bytes)
        else:
            body += scan.source.read(inner_tag, inner_end)
    return _length_delimited(number, bytes(body))


def _length_delimited(number: int, body: bytes) -> bytes:
    return encode_varint(number << 3 | BYTES) + encode_varint(len(body)) + body


# -- the net definition inside -----------------------------------------------------------------------------------------


def _parse_net(scan: Scan) -> caffe_pb2.NetParameter:
    net = caffe_pb2.NetParameter()
    other_bytes = bytearray()
    for number, wire, tag, start, end in scan.fields(0, len(scan.source)):
        if wire == BYTES and number == _NET_LAYER:
            net.layer.append(_parse_layer(scan, start, end, caffe_pb2.LayerParameter))
        elif wire == BYTES and number == _NET_LAYERS_V1:
            net.layers.append(_parse_layer(scan, start, end, caffe_pb2.V1LayerParameter))
        else:
            other_bytes += scan.source.read(tag, end)
    try:
        net.MergeFromString(bytes(other_bytes))
    except DecodeError as error:
        raise CaffeconvError(f"{scan.path}: the net definition inside does not parse: {error}") from None
    _decode_text(net)
    return net


_LayerMessage = TypeVar("_LayerMessage", caffe_pb2.LayerParameter, caffe_pb2.V1LayerParameter)


def _parse_layer(scan: Scan, start: int, end: int, kind: type[_LayerMessage]) -> _LayerMessage:
    try:
        return kind.FromString(scan.source.read(start, end))
    except DecodeError:
        bvlc_bytes = b"".join(
            scan.source.read(field_tag, field_end)
            for number, _, field_tag, _, field_end in scan.fields(start, end)
            if _is_bvlc(number) and (number < _FIRST_PARAM or _parses(scan.source.read(field_tag, field_end), kind))
        )
    try:
        return kind.FromString(bvlc_bytes)
    except DecodeError as error:
        name = _read_layer(scan, start, end, _V2 if kind is caffe_pb2.LayerParameter else _V1).name
        raise CaffeconvError(f"{scan.path}: the definition of layer '{name}' inside does not parse: {error}") from None


def _is_bvlc(number: int) -> bool:
    return number <= _LAST_BVLC_PARAM or number in _V1_PARAM_NAMES


def _parses(field: bytes, kind: type[_LayerMessage]) -> bool:
    try:
        kind.FromString(field)
    except DecodeError:
        return False
    return True


def _decode_text(message: Message) -> None:
    """Makes text of names that are not UTF-8, which protobuf hands out as bytes."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in [value] if isinstance(value, Message) else value:
                _decode_text(child)
        elif field.type == FieldDescriptor.TYPE_STRING:
            if isinstance(value, bytes):
                setattr(message, field.name, value.decode("utf-8", "replace"))
            elif not isinstance(value, str):
                value[:] = [part.decode("utf-8", "replace") if isinstance(part, bytes) else part for part in value]
