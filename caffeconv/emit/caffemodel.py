"""Writes caffemodels in today's form as a stream: no copy of the weights is made, and no size is too large.

protobuf's own writer needs the whole message in memory twice and stops at 2 GiB, so the few bytes around the numbers
are written by hand. Wire format: protobuf's encoding guide; field numbers: proto/caffe.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import BinaryIO

import numpy as np

from caffeconv.caffe_pb2 import LayerParameter, NetParameter
from caffeconv.ir import FloatArray, Shape, by_x, count
from caffeconv.read.caffemodel import encode_varint

_BYTES = 2
_NET_LAYER, _LAYER_BLOBS, _BLOB_DATA, _BLOB_SHAPE, _SHAPE_DIM = 100, 7, 5, 7, 1

ShapedBlob = tuple[Shape, FloatArray]
"""A parameter blob: its shape, and its values in C order (of any shape with as many elements)."""


def write_caffemodel(file: BinaryIO, net_name: str, layers: Iterable[tuple[str, str, Sequence[ShapedBlob]]]) -> None:
    """Writes a caffemodel that holds weights only.

    Args:
        file: where to; only `write` is called.
        net_name: the net's name, "" for none.
        layers: (name, type, blobs) of each layer; taken one at a time.
    """
    file.write(NetParameter(name=net_name or None).SerializeToString())
    for name, kind, blobs in layers:
        write_layer(file, LayerParameter(name=name, type=kind or None).SerializeToString(), blobs)


def write_layer(file: BinaryIO, definition: bytes, blobs: Sequence[ShapedBlob]) -> None:
    """Writes one `layer` of a net: its definition (a LayerParameter without blobs, serialized), then its blobs."""
    heads, sizes = [], []
    for shape, values in blobs:
        if values.size != count(shape):
            raise ValueError(f"{values.size} values for a blob of {by_x(shape)}")
        heads.append(_tag(_BLOB_DATA) + encode_varint(4 * values.size) if values.size else b"")
        sizes.append(len(heads[-1]) + 4 * values.size + len(_shape(shape)))
    blob_tags = [_tag(_LAYER_BLOBS) + encode_varint(size) for size in sizes]
    length = len(definition) + sum(map(len, blob_tags)) + sum(sizes)
    file.write(_tag(_NET_LAYER) + encode_varint(length) + definition)
    for (shape, values), tag, head in zip(blobs, blob_tags, heads, strict=True):
        file.write(tag + head)
        if values.size:
            file.write(np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8).data)
        file.write(_shape(shape))


def blob_bytes(shape: Shape, values: FloatArray) -> bytes:
    """One BlobProto as Caffe writes it: `data`, then `shape`."""
    data = np.ascontiguousarray(values, "<f4").tobytes()
    return (_tag(_BLOB_DATA) + encode_varint(len(data)) + data if data else b"") + _shape(shape)


def _shape(shape: Shape) -> bytes:
    dims = b"".join(map(encode_varint, shape))
    packed = _tag(_SHAPE_DIM) + encode_varint(len(dims)) + dims if dims else b""
    return _tag(_BLOB_SHAPE) + encode_varint(len(packed)) + packed


def _tag(number: int) -> bytes:
    return encode_varint(number << 3 | _BYTES)
