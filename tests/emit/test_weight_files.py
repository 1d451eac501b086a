"""The files: what stands in them, that others read them, and that they are there whole or not at all."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.numpy import load_file
from support.golden_cases import GOLDENS, ROOT, Array
from support.program import environment, program
from support.small_nets import write_net, write_weights

import caffeconv
from caffeconv.cli import main
from caffeconv.conversion.load import load
from caffeconv.emit.weights import block_stream, weight_files
from caffeconv.emit.weights.weight_arrays import weight_arrays_of
from caffeconv.emit.weights.weight_files import write_weight_arrays

DIGITS = ROOT / "fixtures" / "digits" / "deploy.prototxt", ROOT / "fixtures" / "digits" / "digits.caffemodel"
MOBILENET = GOLDENS / "nets" / "mobilenet"
SUFFIXES = ("npz", "safetensors", "h5")


def convert(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


def arrays(path: Path) -> dict[str, Array]:
    """Key → array, read by the format's own library."""
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".npz":
        with np.load(path) as archive:
            return {key: archive[key] for key in archive.files if key != "__metadata__"}
    with h5py.File(path) as file:
        names = {group: [name.decode() for name in file[group].attrs["weight_names"]] for group in layer_names(file)}
        return {f"{group}/{name}": file[group][name][...] for group, found in names.items() for name in found}


def layer_names(file: h5py.File) -> list[str]:
    return [name.decode() for name in file.attrs["layer_names"]]


def metadata(path: Path) -> dict[str, object]:
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            text = file.metadata()["caffeconv"]
    elif path.suffix == ".npz":
        text = str(np.load(path)["__metadata__"])
    else:
        with h5py.File(path) as h5:
            text = h5["__metadata__"].asstr()[()]
    found: dict[str, object] = json.loads(text)
    return found


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_array_with_where_it_comes_from(suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"digits.{suffix}"
    result = convert(*DIGITS, "-o", out)
    assert result.exit_code == 0, result.stderr
    megabytes = out.stat().st_size / 1e6
    assert result.stdout == f"{out}: 8 arrays, {megabytes:.2f} MB; channels last (NHWC)\n"
    got, params = arrays(out), caffeconv.Net(*DIGITS, phase="TEST").params
    assert {key: values.dtype for key, values in got.items()} == dict.fromkeys(got, np.dtype("<f4"))
    assert list(got) == [
        f"{layer}/{name}" for layer in ("conv1", "conv2", "ip1", "ip2") for name in ("kernel", "bias")
    ] or (suffix == "safetensors")
    np.testing.assert_array_equal(got["conv2/kernel"], params["conv2"][0].data.transpose(2, 3, 1, 0))
    rows = params["ip1"][0].data.reshape(64, 16, 4, 4).transpose(2, 3, 1, 0).reshape(256, 64)
    np.testing.assert_array_equal(got["ip1/kernel"], rows)
    np.testing.assert_array_equal(got["ip1/bias"], params["ip1"][1].data)
    said = metadata(out)
    assert said["format"] == "caffeconv kernels 1"
    assert said["layout"] == "nhwc"
    assert isinstance(said["arrays"], dict)
    assert said["arrays"]["ip1/kernel"] == {
        "caffe": [{"layer": "ip1", "blob": 0, "name": "weight", "shape": [64, 256], "from": "digits.caffemodel"}],
        "transposition": "64×(16·4·4) → (4·4·16)×64", "shape": [256, 64],
    }  # fmt: skip
    assert isinstance(said["blobs"], dict)
    assert said["blobs"]["pool2"] == {"shape": [1, 4, 4, 16], "axes": [0, 2, 3, 1]}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_in_caffes_order_nothing_is_touched(suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"mobilenet.{suffix}"
    net, weights = MOBILENET / "net.prototxt", MOBILENET / "weights.caffemodel"
    result = convert(net, weights, "-o", out, "--layout", "nchw")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith("; as Caffe has them\n")
    want = {
        f"{node.name.replace('/', '_') if suffix == 'h5' else node.name}/{param.name}": param.array()
        for node in load(net, weights).graph.nodes for param in node.params
    }  # fmt: skip
    got = arrays(out)
    assert got.keys() == want.keys()
    for key, values in want.items():
        np.testing.assert_array_equal(got[key], values)


def test_names_for_keras(tmp_path: Path) -> None:
    """Keras takes no `/` in names; two layers never get one name."""
    layers = (
        "".join(
            f'layer {{ name: "{name}" type: "Scale" bottom: "data" top: "{name}" }}\n'
            for name in ("a/b", "a_b", "..", "__metadata__", "r", "r_output")
        )
        + 'layer { name: "cont" type: "Input" top: "cont" input_param { shape { dim: 2 dim: 3 } } } '
    )
    layers += 'layer { name: "q" type: "RNN" bottom: "data" bottom: "cont" top: "q" recurrent_param { num_output: 2 } }'
    layers += 'layer { name: "q_output" type: "Scale" bottom: "q" top: "q_output" }'
    net = write_net(tmp_path, {"data": (2, 3, 4)}, layers)
    for suffix in SUFFIXES:
        assert convert(net, "-o", tmp_path / f"w.{suffix}", "-q").exit_code == 0
    with h5py.File(tmp_path / "w.h5") as file:
        assert layer_names(file) == [
            "a_b", "a_b_2", "layer..", "__metadata___2", "r", "r_output", "q", "q_output_2", "q_output"
        ]  # fmt: skip
    assert {"a/b/gamma", "a_b/gamma", "../gamma", "q_output/gamma", "q_output_2/kernel"} <= load_file(
        tmp_path / "w.safetensors"
    ).keys()


def test_batch_normalisation_is_one_layer(tmp_path: Path) -> None:
    out = tmp_path / "w.npz"
    net, weights = MOBILENET / "net.prototxt", MOBILENET / "weights.caffemodel"
    assert convert(net, weights, "-o", out).exit_code == 0
    got, params = arrays(out), caffeconv.Net(net, weights, phase="TEST").params
    mean, _, factor = (blob.data for blob in params["bn_conv1"])
    np.testing.assert_allclose(got["bn_conv1/moving_mean"], mean / factor[0], rtol=1e-6)
    np.testing.assert_array_equal(got["bn_conv1/gamma"], params["scale_conv1"][0].data)
    np.testing.assert_array_equal(got["bn_conv1/beta"], params["scale_conv1"][1].data)
    assert not any(key.startswith("scale_conv1") for key in got)
    said = metadata(out)
    assert isinstance(said["layers"], dict)
    assert isinstance(said["arrays"], dict)
    assert said["layers"]["scale_conv1"] == {"type": "Scale", "merged_into": "bn_conv1"}
    assert said["layers"]["bn_conv1"]["epsilon"] == pytest.approx(1e-5)
    sources = said["arrays"]["bn_conv1/moving_mean"]["caffe"]
    assert [source["name"] for source in sources] == ["mean", "scale_factor"]
    assert said["arrays"]["bn_conv1/moving_mean"]["transposition"] == "mean ÷ scale_factor"


def test_a_scale_that_is_not_the_only_reader_stays_a_layer(tmp_path: Path) -> None:
    layers = 'layer { name: "n" type: "BatchNorm" bottom: "data" top: "n" }'
    layers += 'layer { name: "s" type: "Scale" bottom: "n" top: "s" }'
    net = write_net(tmp_path, {"data": (1, 3, 4, 4)}, layers + 'layer { name: "r" type: "ReLU" bottom: "n" top: "r" }')
    assert convert(net, "-o", tmp_path / "w.npz", "-q").exit_code == 0
    got = arrays(tmp_path / "w.npz")
    assert {"s/gamma", "n/gamma", "n/beta", "n/moving_mean", "n/moving_variance"} == got.keys()
    np.testing.assert_array_equal(got["n/gamma"], np.ones(3))


def test_an_unknown_layer_type_is_left_as_it_is(tmp_path: Path) -> None:
    from typing import ClassVar

    from caffeconv.layers import LAYERS
    from caffeconv.layers.activations import ReLU
    from caffeconv.tensor.shape import Shape, Shapes

    class Gain(ReLU):
        is_pointwise: ClassVar[bool] = False

        def weight_shapes(self, bottoms: Shapes) -> dict[str, Shape]:
            return {"gain": bottoms[0][1:]}

    caffeconv.register_layer(Gain)
    try:
        net = write_net(
            tmp_path, {"data": (1, 3, 4, 5)},
            'layer { name: "f" type: "Flatten" bottom: "data" top: "f" } layer { name: "g" type: "Gain" bottom: "f" top: "g" }',
        )  # fmt: skip
        result = convert(net, "-o", tmp_path / "w.safetensors", "-v")
        assert result.exit_code == 0
        assert "g: no rule is known for this layer type; its parameters are as in Caffe" in result.stderr
        assert (
            "g: do this in Caffe's order: bring the bottoms into it (1×60), and the tops (1×60) out of it"
            in result.stderr
        )
        quiet = convert(net, "-o", tmp_path / "w.safetensors")
        assert "1 layer with something to know; -v says it, and so does the file's metadata" in quiet.stderr
    finally:
        LAYERS.pop("Gain")


def test_many_layers_with_long_names(tmp_path: Path) -> None:
    """Keras splits lists of names that no attribute of HDF5 could hold."""
    names = [f"{'long' * 60}{i}" for i in range(400)]
    layers = "".join(f'layer {{ name: "{name}" type: "Scale" bottom: "data" top: "{name}" }}\n' for name in names)
    out = tmp_path / "w.h5"
    assert convert(write_net(tmp_path, {"data": (1, 3)}, layers), "-o", out, "-q").exit_code == 0
    from keras.src.legacy.saving.legacy_h5_format import load_attributes_from_hdf5_group

    with h5py.File(out) as file:
        assert "layer_names" not in file.attrs
        assert load_attributes_from_hdf5_group(file, "layer_names") == names


# -- streaming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_blocks_make_the_same_file(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = load(GOLDENS / "nets" / "alexnet" / "net.prototxt", GOLDENS / "nets" / "alexnet" / "weights.caffemodel")
    content = weight_arrays_of(net.graph, "nhwc")
    write_weight_arrays(tmp_path / f"whole.{suffix}", content)
    monkeypatch.setattr(block_stream, "BLOCK", 1000)
    monkeypatch.setattr(block_stream, "TILE", 16)
    write_weight_arrays(tmp_path / f"blocks.{suffix}", content)
    whole, cut = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("whole", "blocks"))
    assert whole == cut or suffix == "h5"  # HDF5 notes the time
    one, other = arrays(tmp_path / f"whole.{suffix}"), arrays(tmp_path / f"blocks.{suffix}")
    for key, values in one.items():
        np.testing.assert_array_equal(values, other[key])


def test_every_block_is_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_stream, "BLOCK", 256)
    view = np.arange(7 * 3 * 40 * 5, dtype=np.float32).reshape(7, 3, 40, 5).transpose(2, 3, 1, 0)
    found = list(block_stream.blocks(view))
    assert max(block.nbytes for block in found) <= 256
    np.testing.assert_array_equal(np.concatenate([block.ravel() for block in found]), view.ravel())
    streamed = np.concatenate([block.ravel() for block in block_stream.stream([view, view[:1]])])
    np.testing.assert_array_equal(streamed, np.concatenate([view.ravel(), view[:1].ravel()]))


def test_the_npz_is_plain(tmp_path: Path) -> None:
    assert convert(*DIGITS, "-o", tmp_path / "w.npz").exit_code == 0
    with zipfile.ZipFile(tmp_path / "w.npz") as archive:
        assert archive.testzip() is None
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_write_that_fails_leaves_what_was_there(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / f"w.{suffix}"
    out.write_bytes(b"old")

    def full(parts: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weight_files, "stream", full)
    result = convert(*DIGITS, "-o", out)
    assert result.exit_code == 1
    assert "could not be written whole: No space left on device. Nothing was kept." in result.stderr
    assert out.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [out]


def read_until_it_ends(reader: io.FileIO, process: subprocess.Popen[str]) -> bytes:
    """What comes through a pipe that is read without waiting, until the process that writes to it has ended."""
    found = b""
    while True:
        ended = process.poll() is not None
        block = reader.read(1 << 20)
        if not block and ended:
            return found
        found += block or b""
        time.sleep(0 if block else 0.01)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_pipe_takes_it_too(suffix: str, tmp_path: Path) -> None:
    pipe = tmp_path / f"p.{suffix}"
    os.mkfifo(pipe)
    command = [*program(), "convert", *map(str, DIGITS), "-o", str(pipe)]
    # not waiting for a writer, which may come to nothing
    reader = io.FileIO(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
    with reader, subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        (tmp_path / f"read.{suffix}").write_bytes(read_until_it_ends(reader, process))
        out, _ = process.communicate()
    assert process.returncode == 0
    assert "8 arrays" in out
    assert len(arrays(tmp_path / f"read.{suffix}")) == 8


def test_hdf5_needs_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "p.h5"
    os.mkfifo(pipe)
    command = [*program(), "convert", *map(str, DIGITS), "-o", str(pipe)]
    reader = io.FileIO(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
    with reader, subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        assert read_until_it_ends(reader, process) == b""
        _, err = process.communicate()
    assert process.returncode == 1
    assert (
        "p.h5: this is no plain file; one was needed, for this format is not written from the start to the end" in err
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_nothing(suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"w.{suffix}"
    limited = f"ulimit -f 20; exec {shlex.join(program())} convert {DIGITS[0]} {DIGITS[1]} -o {out}"
    run = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False, env=environment())
    assert run.returncode == 1
    assert f"{out}: could not be written whole" in run.stderr
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"), [("--opset", "18"), ("--batch", "2"), ("--output", "ip1"), ("--no-fold", None)]
)
def test_options_for_onnx_are_refused(option: str, value: str | None, tmp_path: Path) -> None:
    result = convert(*DIGITS, "-o", tmp_path / "w.npz", option, *([value] if value else []))
    assert result.exit_code == 2
    assert f"{option} is for ONNX models, and w.npz holds weights alone" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_net_without_parameters(tmp_path: Path) -> None:
    net = write_net(tmp_path, {"data": (1, 3)}, 'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }')
    result = convert(net, "-o", tmp_path / "w.npz")
    assert result.exit_code == 1
    assert "the net has no layer with parameters; there are no weights to write" in result.stderr


@pytest.mark.parametrize("name", ["w.h5", "w.caffemodel.h5"])
def test_hdf5_says_no_time(name: str, tmp_path: Path) -> None:
    """So that the same weights give the same bytes."""
    before = int(time.time())
    assert convert(*DIGITS, "-o", tmp_path / name).exit_code == 0
    content = (tmp_path / name).read_bytes()
    assert not any(second.to_bytes(4, "little") in content for second in range(before, int(time.time()) + 1))


def test_a_suffix_that_is_none(tmp_path: Path) -> None:
    result = convert(*DIGITS, "-o", tmp_path / "w.bin")
    assert result.exit_code == 1
    assert (
        "w.bin: a name that ends in .onnx was needed for a model; in .safetensors, .npz or .h5 for weights alone"
        in result.stderr
    )


def test_a_name_that_keras_takes_for_something_else(tmp_path: Path) -> None:
    result = convert(*DIGITS, "-o", tmp_path / "w.weights.h5")
    assert result.exit_code == 1
    assert "Keras 3 takes what ends in .weights.h5 for another format; end the name in .h5 alone" in result.stderr


def test_without_weights_it_says_so(tmp_path: Path) -> None:
    result = convert(DIGITS[0], "-o", tmp_path / "w.npz")
    assert "no weights were given: all 8 parameters of 4 layers are at their fillers" in result.stderr


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.caffemodel", "conv1", [np.zeros((8, 3, 5, 5), np.float32)])
    result = convert(DIGITS[0], weights, "-o", tmp_path / "w.h5")
    assert result.exit_code == 1
    assert "Incompatible number of blobs for layer conv1" in result.stderr
    assert not (tmp_path / "w.h5").exists()


def test_the_input_is_not_overwritten(tmp_path: Path) -> None:
    weights = tmp_path / "w.h5"
    weights.write_bytes(DIGITS[1].read_bytes())
    assert "this is the input, and is not overwritten" in convert(DIGITS[0], weights, "-o", weights).stderr
