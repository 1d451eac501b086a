"""Weights without a net, or with one that has layers nobody knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.small_nets import write_net

import caffeconv
from caffeconv.caffe_format.caffemodel import read_caffemodel
from caffeconv.caffe_pb2 import BlobProto, BlobShape, LayerParameter, NetParameter
from caffeconv.cli import main
from caffeconv.conversion.stored_weights import is_weights_alone, stored_arrays

RANDOM = np.random.default_rng(0)
BLOBS = {
    "conv/3x3": [RANDOM.normal(size=(2, 3, 3, 3)), RANDOM.normal(size=2)],
    "weird": [RANDOM.normal(size=5)],
    "relu": [],
}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    net = NetParameter()
    for name, blobs in BLOBS.items():
        protos = [BlobProto(shape=BlobShape(dim=blob.shape), data=blob.ravel().tolist()) for blob in blobs]
        net.layer.append(LayerParameter(name=name, type="Convolution" if "conv" in name else "CMVN", blobs=protos))
    path = tmp_path / "w.caffemodel"
    path.write_bytes(net.SerializeToString())
    return path


def convert(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


def test_alone(weights: Path, tmp_path: Path) -> None:
    assert is_weights_alone(weights, ())
    assert convert(weights, "-o", tmp_path / "w.npz").exit_code == 0
    with np.load(tmp_path / "w.npz") as arrays:
        assert {key for key in arrays.files if not key.startswith("__")} == {"conv/3x3/0", "conv/3x3/1", "weird/0"}
        np.testing.assert_array_equal(arrays["conv/3x3/0"], BLOBS["conv/3x3"][0].astype(np.float32))
    result = convert(weights, "-o", tmp_path / "n.npz", "--layout", "nhwc")
    assert result.exit_code == 1
    assert "holds weights alone, and without its net nobody knows which axes are channels" in result.stderr
    assert not (tmp_path / "n.npz").exists()


@pytest.mark.parametrize("name", ["w.caffemodel", "w.safetensors"])
def test_every_file_has_all_blobs(name: str, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / name
    out.parent.mkdir()
    assert convert(weights, "-o", out).exit_code == 0
    if name.endswith(".caffemodel"):
        layers = {layer.name: layer.blobs for layer in read_caffemodel(out).layers}
        assert [blob.shape for blob in layers["conv/3x3"] if blob is not None] == [(2, 3, 3, 3), (2,)]


def test_a_net_with_an_unknown_layer_gives_its_weights(weights: Path, tmp_path: Path) -> None:
    text = """
    layer { name: "conv/3x3" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 2 kernel_size: 3 } }
    layer { name: "weird" type: "CMVN" bottom: "c" top: "y" cmvn_param { foo: 1 } }
    """
    net = write_net(tmp_path, {"x": (1, 3, 5, 5)}, text)
    result = convert(net, weights, "-o", tmp_path / "w.npz", "--layout", "nchw")
    assert result.exit_code == 0, result.stderr
    assert "layers of unknown types" in result.stderr
    with np.load(tmp_path / "w.npz") as arrays:
        assert {key for key in arrays.files if not key.startswith("__")} == {
            "conv/3x3/weight",
            "conv/3x3/bias",
            "weird/0",
        }
    assert "Unknown layer type: CMVN" in convert(net, weights, "-o", tmp_path / "x.npz").stderr


def test_a_known_net_is_converted_as_ever(weights: Path, tmp_path: Path) -> None:
    text = 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }'
    assert stored_arrays(write_net(tmp_path, {"x": (1, 2)}, text), weights) is None


def test_no_blob_at_all(tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    path.write_bytes(NetParameter(layer=[LayerParameter(name="l", type="ReLU")]).SerializeToString())
    with pytest.raises(caffeconv.CaffeconvError, match="no layer of the weights has a blob"):
        stored_arrays(path)


def test_damaged(tmp_path: Path) -> None:
    blob = BlobProto(shape=BlobShape(dim=[3]), data=[1.0, 2.0])
    path = tmp_path / "w.caffemodel"
    path.write_bytes(NetParameter(layer=[LayerParameter(name="l", blobs=[blob])]).SerializeToString())
    with pytest.raises(caffeconv.CaffeconvError, match="layer 'l', blob 0: 2 numbers for the shape"):
        stored_arrays(path)
