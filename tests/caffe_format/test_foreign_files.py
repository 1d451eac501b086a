"""Files in place of a net or its weights that are named for what they are."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest
from support.golden_cases import GOLDENS

from caffeconv.caffe_format.caffemodel import read_caffemodel
from caffeconv.caffe_format.foreign_files import HEAD, foreign_file
from caffeconv.caffe_format.hdf5 import read_hdf5_weights
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
        (b"PK\x03\x04" + bytes(26) + b"archive/data.pkl", "a PyTorch model"),
        (b"PK\x03\x04" + bytes(26) + b"weight.npy", "an archive of NumPy arrays"),
        (b"name.txt" + bytes(249) + b"ustar\0", "a tar archive"),
        (b"\x08\x09\x12\x07pytorch\x3a\x05", "an ONNX model"),
        (b"\x08\x05\x12\x13net_iter.caffemodel\x1a\x02", "a solver's state"),
        (b"\x0a\x14\x0a\x05input\x12\x0bPlaceholder", "a frozen graph of TensorFlow"),
        (b"\x08\x01\x12\x09\x0a\x07\x22\x00\x12\x05serve", "a SavedModel of TensorFlow"),
        (b'node {\n  name: "x"\n  op: "Const"', "a graph of TensorFlow as text"),
        (b"\x0a\x03net\x12\x18\x0a\x04data\x0a\x01w\x12\x03out\x1a\x00\x22\x04Conv", "a net of Caffe2"),
        (b"\0\0\0\0\x02\0\0\0\x05\0\0\0", "a weights file of darknet"),
        (b"GIF89a", "a picture"),
        (b"RIFF\x1a\0\0\0WEBPVP8 ", "a picture"),
        (b"II*\0\x08\0\0\0", "a picture"),
        (b"\x80\x04\x95\x0a\0", "a Python pickle"),
        (b"PK\x03\x04" + bytes(26) + b"net/code/__torch__.py", "a PyTorch model"),
        (b"PK\x03\x04" + bytes(26) + b"metadata.json", "a model of Keras"),
        (b"\x04\0\0\0\x01\0\0\0\x03\0\0\0", "a file of Torch 7"),
        (b"\x08\x04\x12\x20\x0a\x1e\x0a\x05image", "a Core ML model"),
        (b"\x0a\x04init\x12\x1c\x12\x01w\x1a\x00\x22\x0fGivenTensorFill", "a weights file of Caffe2"),
        (b'name: "net"\nop {\n type: "Conv"\n}', "a net of Caffe2 as text"),
        (b"\0\0\0\0\x4d\x1c\x8a\xbd\x11\x02\x3c\x3e", "a weights file of ncnn"),
        (b"# yolo\n[net]\nbatch=1\n", "a net of darknet"),
        (b"\0\0\x06\x08\x01\x1a\x02\x08\x01", "the index of a checkpoint of TensorFlow"),
        (b'model_checkpoint_path: "model.ckpt-1"\n', "the list of TensorFlow's checkpoints"),
        (b'\x40\0\0\0\0\0\0\0{"w":{"dtype":"F32"', "a safetensors file"),
        (b'<?xml version="1.0"?>\n<net name="x">', "XML"),
        (b"MATLAB 5.0 MAT-file", "a file of MATLAB"),
        (b"\x1c\0\0\0TFL3\0\0", "a TFLite model"),
        (b"7767517\n75 83\n", "a net of ncnn"),
        (b"[net]\nbatch=1\n", "a net of darknet"),
        (b'{"nodes": []}', "JSON"),
        (b"#!/usr/bin/env python\nimport caffe\n", "Python code"),
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_text_of_any_encoding(tmp_path: Path, encoding: str, line_end: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(NET.replace("\n", line_end).encode(encoding))
    source = read_prototxt(path)
    assert [layer.name for layer in source.net.layer] == ["ü"]
    assert source.lines == (2,)


@pytest.mark.parametrize(
    "kind", ["nets/lenet/weights.caffemodel", "nets/alexnet/weights.caffemodel", "nets/lenet/net.prototxt"]
)
def test_caffes_own_files_are_none(kind: str) -> None:
    assert foreign_file((GOLDENS / kind).read_bytes()[:HEAD]) == ("", "")


@pytest.mark.parametrize(("content", "is_model"), [(b"\x0a\x03net\0", True), (b"\xff\0\x11", False)])
def test_only_what_begins_like_a_caffemodel_is_taken_for_one(tmp_path: Path, content: bytes, *, is_model: bool) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(content)
    with pytest.raises(CaffeconvError) as caught:
        read_prototxt(path)
    assert ("It looks like a caffemodel" in str(caught.value)) == is_model


def test_words_are_no_net(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("cat\ndog\n")
    with pytest.raises(CaffeconvError, match=r"labels.txt: this is plain text; a net definition \(prototxt\), made of"):
        read_prototxt(path)


@pytest.mark.parametrize("name", ["net", "nte.prototxt", "net.protxt"])
def test_what_was_perhaps_meant(tmp_path: Path, name: str) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "other.txt").write_text("")
    with pytest.raises(CaffeconvError, match=r"no such file; .* Did you mean .*/net.prototxt\?$"):
        read_prototxt(tmp_path / name)


def test_nothing_near(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("")
    with pytest.raises(CaffeconvError, match=r"was needed$"):
        read_prototxt(tmp_path / "nope.txt")


@pytest.mark.parametrize(
    ("marker", "what"),
    [
        ("data.mdb", "an LMDB"),
        ("CURRENT", "a LevelDB"),
        ("saved_model.pb", "a SavedModel of TensorFlow"),
        ("Manifest.json", "a package of Core ML"),
        ("x", "a folder"),
    ],
)
def test_what_a_folder_is(tmp_path: Path, marker: str, what: str) -> None:
    (tmp_path / marker).write_bytes(b"")
    for read in (read_prototxt, read_caffemodel):
        with pytest.raises(CaffeconvError, match=f"this is {what}; "):
            read(tmp_path)


def test_a_model_of_keras(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["keras_version"] = "2.4"
    with pytest.raises(
        CaffeconvError, match=r"m.h5: this is a model of Keras; weights that Caffe saved as HDF5 were needed"
    ):
        read_hdf5_weights(tmp_path / "m.h5")


def test_a_mean_is_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(b"\x08\x01\x10\x03\x18\x01\x20\x01")
    with pytest.raises(
        CaffeconvError, match=r"no layer in it; it is a single blob \(binaryproto\), a mean or an H; weights"
    ):
        read_caffemodel(path)
