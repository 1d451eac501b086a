"""Files in place of a net or its weights that are named for what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffeconv.caffe_format.caffemodel import read_caffemodel
from caffeconv.caffe_format.prototxt import read_prototxt
from caffeconv.errors import CaffeconvError

NET = 'name: "n" # a comment\nlayer { name: "ü" type: "ReLU" }\n'


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"<!DOCTYPE html>\n<html>", "a web page"),
        (b"\n  <HTML>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a download pointer of Git LFS"),
        (b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 file"),
        (b"\x1f\x8b\x08\0\0", "gzip data"),
        (b"PK\x03\x04\x14\0", "a zip or npz file"),
        (b"\x1c\0\0\0TFL3\0\0", "a TFLite model"),
        (b"7767517\n75 83\n", "a net of ncnn"),
        (b"[net]\nbatch=1\n", "a net of darknet"),
        (b'{"nodes": []}', "JSON"),
        (b'item {\n name: "cat"\n}', "a label map of SSD"),
    ],
)
def test_what_a_file_is(tmp_path: Path, head: bytes, what: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(head)
    with pytest.raises(CaffeconvError, match=f"this is {what}"):
        read_prototxt(path)
    if not head.startswith(b"\x89HDF"):
        with pytest.raises(CaffeconvError, match=f"this is {what}"):
            read_caffemodel(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_text_of_any_encoding(tmp_path: Path, encoding: str, line_end: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(NET.replace("\n", line_end).encode(encoding))
    source = read_prototxt(path)
    assert [layer.name for layer in source.net.layer] == ["ü"]
    assert source.lines == (2,)
