"""Reads a ``.binaryproto`` file: one BlobProto, such as an InfogainLoss layer's H or the mean of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from caffeconv.caffe_pb2 import BlobProto
from caffeconv.errors import CaffeconvError
from caffeconv.ir import FloatArray, Shape, count, shape_string
from caffeconv.read.prototxt import read_bytes

# NVIDIA Caffe's Type enum in BlobProto.raw_data_type
_RAW_DTYPES = {0: "<f8", 1: "<f4", 2: "<f2"}


def read_binaryproto(path: Path, what: str) -> FloatArray:
    """The blob's values, float32, in the shape that the file gives (caffe: Blob::FromProto).

    `what` says in error messages what the file was needed for. Raises CaffeconvError where it is missing, damaged or
    something else.
    """
    content = read_bytes(path, what)
    try:
        proto = BlobProto.FromString(content)
    except DecodeError as error:
        raise CaffeconvError(f"{path}: no BlobProto ({error}); {what} was needed") from None
    if proto.raw_data and int(proto.raw_data_type) not in _RAW_DTYPES:
        raise CaffeconvError(f"{path}: raw data of type {proto.raw_data_type}; double, float or half was needed")
    shape, values = _shape(proto), _values(proto)
    if any(dim < 0 for dim in shape) or count(shape) != values.size:
        raise CaffeconvError(
            f"{path}: {values.size} values where its shape {shape_string(shape)} needs {count(shape)} "
            f"(count_ == proto.data_size()); {what} was needed. The file is damaged, or something else"
        )
    return values.reshape(shape)


def _shape(proto: BlobProto) -> Shape:
    # caffe: Blob::FromProto — the four old fields win over `shape` where both are given
    if any(proto.HasField(name) for name in ("num", "channels", "height", "width")):
        return proto.num, proto.channels, proto.height, proto.width
    return tuple(proto.shape.dim)


def _values(proto: BlobProto) -> FloatArray:
    if proto.raw_data:
        dtype = np.dtype(_RAW_DTYPES[int(proto.raw_data_type)])
        whole = len(proto.raw_data) // dtype.itemsize
        return np.frombuffer(proto.raw_data, dtype, whole).astype(np.float32)
    return np.array(proto.double_data or proto.data, np.float32)  # caffe: Blob::FromProto prefers double_data
