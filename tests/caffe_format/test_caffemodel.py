"""The wire-format scanner: against protobuf's own reader, and against damaged files."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from support.golden_cases import GOLDENS

from caffeconv import CaffeconvError, caffe_pb2
from caffeconv.caffe_format.caffemodel import StoredBlob, read_caffemodel

MODELS = sorted(GOLDENS.glob("*/*/*.caffemodel"))
BROKEN = {"weights_truncated", "weights_not_a_model"}


@pytest.mark.parametrize("path", [p for p in MODELS if p.parent.name not in BROKEN], ids=lambda p: p.parent.name)
def test_same_values_as_protobuf(path: Path) -> None:
    net = caffe_pb2.NetParameter.FromString(path.read_bytes())
    theirs = [(layer.name, layer.blobs) for layer in net.layer]
    theirs += [(v1.layer.name, v1.layer.blobs) if v1.HasField("layer") else (v1.name, v1.blobs) for v1 in net.layers]
    ours = read_caffemodel(path).layers
    assert [layer.name for layer in ours] == [name for name, _ in theirs]
    for mine, (_, blobs) in zip(ours, theirs, strict=True):
        for blob, proto in zip(mine.blobs, blobs, strict=True):
            assert blob is not None
            # the numbers of C3D 1.0's file: its data stand where the schema has diff
            values = proto.diff if path.parent.name == "convolution3d_c3d_file" else proto.double_data or proto.data
            np.testing.assert_array_equal(blob.array(), np.array(values, np.float32))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays(np.float32, array_shapes(max_dims=5), elements=st.floats(width=32, allow_nan=False)),
    st.booleans(),
    st.text(max_size=9),
)
def test_packed_and_unpacked(tmp_path: Path, values: np.ndarray, packed: bool, name: str) -> None:
    blob = caffe_pb2.BlobProto(shape=caffe_pb2.BlobShape(dim=values.shape))
    body = blob.SerializeToString()
    if packed:
        body = caffe_pb2.BlobProto(data=values.ravel()).SerializeToString() + body
    else:
        body += b"".join(b"\x2d" + struct.pack("<f", value) for value in values.ravel())
    layer = caffe_pb2.LayerParameter(name=name, type="InnerProduct").SerializeToString() + _field(7, body)
    path = tmp_path / "m.caffemodel"
    path.write_bytes(b"\x0a\x01n" + _field(100, layer))
    (stored,) = read_caffemodel(path).layers
    (found,) = stored.blobs
    assert isinstance(found, StoredBlob)
    assert (stored.name, found.shape, found.legacy, found.count) == (name, values.shape, False, values.size)
    np.testing.assert_array_equal(found.array(), values.ravel())
    assert (found.offset is not None) == (packed and values.size > 0)
    if found.offset is not None:
        assert path.read_bytes()[found.offset :][: values.nbytes] == values.tobytes()


def _field(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def test_half_precision(tmp_path: Path) -> None:
    values = np.array([1.5, -2, 65504, 1e-7], np.float16)
    body = b"\x50\x02" + _field(12, values.tobytes()) + _field(7, b"\x0a\x01\x04")
    path = tmp_path / "m.caffemodel"
    path.write_bytes(b"\x0a\x01n" + _field(100, _field(1, b"ip") + _field(7, body)))
    (blob,) = read_caffemodel(path).layers[0].blobs
    assert blob is not None
    assert blob.shape == (4,)
    np.testing.assert_array_equal(blob.array(), values.astype(np.float32))


def test_a_file_cut_off_after_it_was_opened_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.caffemodel"
    path.write_bytes(LENET)
    blob = next(blob for layer in read_caffemodel(path).layers for blob in layer.blobs)
    assert isinstance(blob, StoredBlob)
    os.truncate(path, 100)
    with pytest.raises(CaffeconvError, match=f"the file ends at byte 100 now, and had {len(LENET)}"):
        blob.array()


def test_net_inside_has_no_blobs() -> None:
    path = GOLDENS / "nets" / "lenet" / "weights.caffemodel"
    net = read_caffemodel(path).net()
    assert [layer.name for layer in net.layer if layer.type == "Convolution"]
    assert not any(layer.blobs for layer in net.layer)


LENET = (GOLDENS / "nets" / "lenet" / "weights.caffemodel").read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.integers(1, len(LENET) - 1))
def test_truncated(tmp_path: Path, length: int) -> None:
    path = tmp_path / "t.caffemodel"
    path.write_bytes(LENET[:length])
    try:
        layers = read_caffemodel(path).layers
    except CaffeconvError as error:
        assert "t.caffemodel" in str(error)  # noqa: PT017 - most inputs raise nothing
    else:  # cut between two layers: what is there is whole
        assert len(layers) < len(read_caffemodel(GOLDENS / "nets" / "lenet" / "weights.caffemodel").layers)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.integers(0, len(LENET) - 1), st.integers(0, 255))
def test_one_wrong_byte(tmp_path: Path, place: int, value: int) -> None:
    path = tmp_path / "w.caffemodel"
    path.write_bytes(LENET[:place] + bytes([value]) + LENET[place + 1 :])
    try:
        for layer in read_caffemodel(path).layers:
            for blob in layer.blobs:
                assert blob is not None
                assert blob.array().size == blob.count
    except CaffeconvError as error:
        assert "w.caffemodel" in str(error)  # noqa: PT017 - most inputs raise nothing


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 20, "this is an HDF5 file"),
        (b"PK\x03\x04" + b"\0" * 20, "this is a zip or npz file"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "download pointer"),
        (b'layer { name: "x" }\n', "this is text; weights (caffemodel, binary) were needed"),
        (b"\x0a\x01n\x12", "a number without end at byte 4 of 4"),
        (b"\x0a\x01n\x00\x00", "field number 0"),
        (b"\x0a\x01n\x0f\x00", "wire type 7"),
        (b"\x0a\x01n\xa2\x06\x7f\x00", "a field of 127 bytes where 1 are left"),
        (b"\x0a\x01n", "no layer in it"),
        (b"\x0a\x01n" + _field(100, _field(7, _field(5, b"123"))), "blob data that is no list of numbers"),
        (b"\x0a\x01n" + _field(100, _field(7, b"\x50\x03" + _field(12, b"1234"))), "raw data of type 3"),
        (b"\x0a\x01n" + _field(100, _field(7, _field(7, b"\x0a\x0a" + b"\xff\xff\xff\xff\x0f" * 2))), "a blob of"),
    ],
)
def test_hostile_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(content)
    with pytest.raises(CaffeconvError) as caught:
        read_caffemodel(path)
    assert message in str(caught.value)
    assert "x.caffemodel" in str(caught.value)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CaffeconvError, match="no such file; a weights file"):
        read_caffemodel(tmp_path / "a.caffemodel")
    with pytest.raises(CaffeconvError, match="this is a folder"):
        read_caffemodel(tmp_path)
