"""What a model's metadata says of the files beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import ModelProto

from caffeconv.files.onnx_records import FILES_KEY, FileRecord, record_text, recorded_files

RECORDS = (FileRecord("weights.bin", 12, "ab"), FileRecord("größe/x.caffemodel", 0, ""))


def write_model(path: Path, *metadata: tuple[str, str]) -> Path:
    model = ModelProto(ir_version=8, producer_name="test")
    for key, value in metadata:
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def test_records_round_trip(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx", ("a", "[1]"), (FILES_KEY, record_text(RECORDS)), ("z", ""))
    assert recorded_files(path) == RECORDS


def test_records_are_readable_text() -> None:
    assert record_text(RECORDS[1:]) == '[{"location": "größe/x.caffemodel", "bytes": 0, "sha256": ""}]'


def test_a_model_that_says_nothing(tmp_path: Path) -> None:
    assert recorded_files(write_model(tmp_path / "model.onnx", ("caffe.phase", "TEST"))) == ()


@pytest.mark.parametrize("text", ["", "{", "5", "[5]", '["x"]', '[{"location": "x"}]', "[" * 100_000])
def test_records_that_are_none(tmp_path: Path, text: str) -> None:
    assert recorded_files(write_model(tmp_path / "model.onnx", (FILES_KEY, text))) == ()


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"layer { }", b"\x72\x7f"])
def test_files_that_are_no_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    assert recorded_files(tmp_path / "model.onnx") == ()


def test_no_file(tmp_path: Path) -> None:
    assert recorded_files(tmp_path / "model.onnx") == ()
