"""Caffemodels written by hand: the same bytes as protobuf's, and what our reader gets back."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from caffeconv.caffe_format.caffemodel import read_caffemodel
from caffeconv.caffe_format.caffemodel_writer import WrittenBlob, write_caffemodel, write_layer
from caffeconv.caffe_pb2 import BlobProto, BlobShape, LayerParameter, NetParameter
from caffeconv.tensor.shape import FloatArray, Shape

FLOATS = arrays(np.float32, array_shapes(min_dims=0, min_side=0, max_dims=5, max_side=4), elements=st.floats(width=32))
NAMES = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)
LAYERS = st.lists(st.tuples(NAMES, NAMES, st.lists(FLOATS, max_size=3)), max_size=4)

Arrays = list[tuple[str, str, list[NDArray[np.float32]]]]


def shaped(layers: Arrays) -> list[tuple[str, str, list[tuple[Shape, FloatArray]]]]:
    return [(name, kind, [(blob.shape, blob) for blob in blobs]) for name, kind, blobs in layers]


def written(net_name: str, layers: Arrays) -> bytes:
    file = io.BytesIO()
    write_caffemodel(file, net_name, shaped(layers))
    return file.getvalue()


def by_protobuf(net_name: str, layers: Arrays) -> NetParameter:
    net = NetParameter(name=net_name or None)
    for name, kind, blobs in layers:
        layer = net.layer.add(name=name, type=kind or None)
        layer.blobs.extend(BlobProto(shape=BlobShape(dim=blob.shape), data=blob.ravel()) for blob in blobs)
    return net


@given(NAMES, LAYERS)
def test_same_bytes_as_protobuf(net_name: str, layers: Arrays) -> None:
    assert written(net_name, layers) == by_protobuf(net_name, layers).SerializeToString()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES, LAYERS.filter(len))
def test_reader_gets_it_back(tmp_path: Path, net_name: str, layers: Arrays) -> None:
    path = tmp_path / "x.caffemodel"
    # a field that is no layer, so that the file is not taken for text where nothing else is in it
    path.write_bytes(written(net_name, layers) + b"\x38\x00")
    file = read_caffemodel(path)
    assert file.net().name == net_name
    assert [(layer.name, layer.type) for layer in file.layers] == [(name, kind) for name, kind, _ in layers]
    for layer, (_, _, blobs) in zip(file.layers, layers, strict=True):
        for stored, blob in zip(layer.blobs, blobs, strict=True):
            assert stored is not None
            assert (stored.shape, stored.legacy) == (blob.shape, False)
            np.testing.assert_array_equal(stored.array(), blob.ravel())


@given(arrays(np.float32, array_shapes(min_dims=4, max_dims=4, max_side=7), elements=st.just(0.5)))
def test_legacy_form(blob: NDArray[np.float32]) -> None:
    file = io.BytesIO()
    definition = LayerParameter(name="n")
    write_layer(file, definition.SerializeToString(), [WrittenBlob.of(blob.shape, blob, legacy=True)])
    num, channels, height, width = blob.shape
    definition.blobs.add(num=num, channels=channels, height=height, width=width, data=blob.ravel())
    assert file.getvalue() == NetParameter(layer=[definition]).SerializeToString()


def test_values_of_another_layout() -> None:
    """A transposed view and big-endian numbers are written in C order, little-endian."""
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = written("", [("n", "", [np.ascontiguousarray(values.T)])])
    assert written("", [("n", "", [values.T])]) == expected
    assert written("", [("n", "", [values.T.astype(">f4")])]) == expected


def test_wrong_number_of_values() -> None:
    with pytest.raises(ValueError, match="6 values for a blob of 2×4"):
        WrittenBlob.of((2, 4), np.zeros(6, np.float32))


class Counter(io.RawIOBase):
    """Counts what is written, and remembers nothing."""

    size = 0
    largest = 0

    def write(self, data: object) -> int:
        assert isinstance(data, (bytes, memoryview))
        self.size += len(data)
        self.largest = max(self.largest, len(data))
        return len(data)


def test_more_than_two_gigabytes() -> None:
    """protobuf's own writer stops at 2 GiB. The zeros are never touched, so they take no memory."""
    file = Counter()
    values = np.zeros(1 << 28, np.float32)
    blob = WrittenBlob.of((1 << 28,), values)
    write_layer(file, b"", [blob, blob, blob])  # type: ignore[arg-type]
    assert file.size == 7 + 3 * (6 + 6 + (1 << 30) + 9)  # tags and lengths of layer, blob, data; shape
    assert file.largest == 1 << 30
