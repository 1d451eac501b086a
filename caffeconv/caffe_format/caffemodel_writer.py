"""Writes caffemodels in today's form as a stream: no copy of the weights is made, and no size is too large.

protobuf's own writer needs the whole message in memory twice and stops at 2 GiB, so the few bytes around the numbers
are written by hand. Wire format: protobuf's encoding guide; field numbers: proto/caffe.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from caffeconv.caffe_pb2 import LayerParameter, NetParameter
from caffeconv.files.wire import BYTES, VARINT, encode_varint, tag
from caffeconv.tensor.shape import FloatArray, Shape, count, format_shape

_NET_LAYER, _LAYER_BLOBS, _BLOB_DATA, _BLOB_DIFF, _BLOB_SHAPE, _SHAPE_DIM = 100, 7, 5, 6, 7, 1
_LEGACY_DIMS = (1, 2, 3, 4)  # num, channels, height, width


@dataclass(frozen=True)
class WrittenBlob:
    """A BlobProto in pieces: what stands before the numbers, the numbers, what stands after them."""

    before: bytes
    size: int
    """How many bytes the numbers take."""
    blocks: Callable[[], Iterable[NDArray[np.float32]]]
    """Gives the numbers, one block after another."""
    after: bytes

    @classmethod
    def of(cls, shape: Shape, values: FloatArray, *, legacy: bool = False) -> WrittenBlob:
        """`data`, then `shape`, as Caffe writes it; or num, channels, height, width, then `data`, as it did until 2015.

        `values` are float32 in C order, in any shape with as many elements.
        """
        if values.size != count(shape):
            raise ValueError(f"{values.size} values for a blob of {format_shape(shape)}")
        return cls.streamed(shape, lambda: (values,), legacy=legacy)

    @classmethod
    def streamed(cls, shape: Shape, blocks: Callable[[], Iterable[FloatArray]], *, legacy: bool = False) -> WrittenBlob:
        """As `of`, from values that come one block after another when they are written."""
        size = 4 * count(shape)
        head = tag(_BLOB_DATA, BYTES) + encode_varint(size) if size else b""
        if not legacy:
            return cls(head, size, blocks, _shape(shape))
        dims = zip(_LEGACY_DIMS, shape, strict=True)
        return cls(b"".join(tag(number, VARINT) + encode_varint(dim) for number, dim in dims) + head, size, blocks, b"")

    def with_diff(self, diff: FloatArray | None) -> WrittenBlob:
        """The blob with a gradient behind its numbers, where there is one; it is copied."""
        if diff is None or not diff.size:
            return self
        numbers = np.ascontiguousarray(diff, "<f4").tobytes()
        return replace(self, after=tag(_BLOB_DIFF, BYTES) + encode_varint(len(numbers)) + numbers + self.after)

    def __len__(self) -> int:
        return len(self.before) + self.size + len(self.after)

    def write(self, file: BinaryIO) -> None:
        file.write(self.before)
        for block in self.blocks():
            file.write(np.ascontiguousarray(block, "<f4").reshape(-1).view(np.uint8).data)
        file.write(self.after)


def write_caffemodel(
    file: BinaryIO, net_name: str, layers: Iterable[tuple[str, str, Sequence[tuple[Shape, FloatArray]]]]
) -> None:
    """Writes a caffemodel that holds weights only.

    Args:
        file: where to; only `write` is called.
        net_name: the net's name, "" for none.
        layers: name, type and blobs (shape, values) of each layer; taken one at a time.
    """
    file.write(NetParameter(name=net_name or None).SerializeToString())
    for name, kind, blobs in layers:
        definition = LayerParameter(name=name, type=kind or None).SerializeToString()
        write_layer(file, definition, [WrittenBlob.of(shape, values) for shape, values in blobs])


def write_layer(file: BinaryIO, definition: bytes, blobs: Sequence[WrittenBlob]) -> None:
    """Writes one `layer` of a net: its definition (a LayerParameter without blobs, serialized), then its blobs."""
    heads = [tag(_LAYER_BLOBS, BYTES) + encode_varint(len(blob)) for blob in blobs]
    length = len(definition) + sum(len(head) + len(blob) for head, blob in zip(heads, blobs, strict=True))
    file.write(tag(_NET_LAYER, BYTES) + encode_varint(length) + definition)
    for head, blob in zip(heads, blobs, strict=True):
        file.write(head)
        blob.write(file)


def _shape(shape: Shape) -> bytes:
    dims = b"".join(map(encode_varint, shape))
    packed = tag(_SHAPE_DIM, BYTES) + encode_varint(len(dims)) + dims if dims else b""
    return tag(_BLOB_SHAPE, BYTES) + encode_varint(len(packed)) + packed
