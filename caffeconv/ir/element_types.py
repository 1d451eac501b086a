"""ONNX's numbers for the types of a tensor's values (onnx.proto: TensorProto.DataType), for `Cast`."""

from __future__ import annotations

FLOAT, INT64, BOOL, DOUBLE = 1, 7, 9, 11
