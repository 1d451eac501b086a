"""`convert --layout, --fp16, --preprocess, --verify`, and `run` on what they write."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from support.golden_cases import ROOT
from support.program import environment, program
from support.small_nets import write_net

from caffeconv.cli import main
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.passes import fold_affine

DIGITS = ROOT / "fixtures" / "digits"
NET, WEIGHTS = DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel"
COLOUR = (
    'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 4 kernel_size: 3 '
    'weight_filler { type: "gaussian" std: 0.01 } } } layer { name: "ip" type: "InnerProduct" bottom: "c" top: "ip" '
    'inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.01 } } }'
    'layer { name: "p" type: "Softmax" bottom: "ip" top: "p" }'
)


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def convert(*arguments: str | Path) -> Result:
    result = invoke("convert", *arguments)
    assert result.exit_code == 0, result.stderr
    return result


def run(*arguments: str | Path) -> str:
    result = invoke("run", *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def colour_net(folder: Path) -> Path:
    return write_net(folder, {"x": (1, 3, 12, 10)}, COLOUR)


def colour_picture(folder: Path) -> Path:
    """A picture of which no channel is like another, larger than the net's input."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3)).astype(np.uint8) // np.array([1, 2, 4], np.uint8)
    cv2.imwrite(str(folder / "p.png"), pixels)
    return folder / "p.png"


@pytest.mark.parametrize("form", [["--layout", "nhwc"], ["--fp16"], ["--fp16", "--keep-io", "--layout", "nhwc"]])
def test_run_feeds_every_form_rightly(tmp_path: Path, form: list[str]) -> None:
    out = tmp_path / "digits.onnx"
    convert(NET, WEIGHTS, "-o", out, *form)
    picture = DIGITS / "3.png"
    assert run(out, "--input", picture, "--top-k", "1").split()[-1] == "3"
    convert(colour_net(tmp_path), "-o", out, *form)
    picture = colour_picture(tmp_path)
    values = [
        np.load(shutil.move(_written(tmp_path, net, picture), tmp_path / f"{i}.npy"))
        for i, net in enumerate((tmp_path / "net.prototxt", out))
    ]
    np.testing.assert_allclose(values[1], values[0], atol=2e-3 if "--fp16" in form else 1e-6)


def _written(folder: Path, net: Path, picture: Path, *more: str) -> Path:
    run(net, "--input", picture, "-o", folder / "out.npy", *more)
    return folder / "out.npy"


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_run_leaves_to_the_model_what_it_does_itself(tmp_path: Path, order: str, layout: str) -> None:
    net, picture, out = colour_net(tmp_path), colour_picture(tmp_path), tmp_path / "m.onnx"
    options = ("--mean", "104,117,123", "--scale", "0.02")
    convert(net, "-o", out, *options, "--pictures", order, "--input-layout", layout)
    want = np.load(_written(tmp_path, net, picture, *options))
    got = np.load(_written(tmp_path, out, picture))
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.abs(np.load(_written(tmp_path, net, picture)) - want).max() > 1e-3
    result = invoke("run", out, "--input", picture, "--mean", "1")
    assert result.exit_code == 1
    assert (
        f"it takes {order.upper()} pictures of 12×10, uint8 (less the mean 104, 117, 123, times 0.02" in result.stderr
    )


def test_arrays_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    convert(colour_net(tmp_path), "-o", tmp_path / "m.onnx", "--scale", "0.02")
    np.save(tmp_path / "x.npy", np.full((1, 12, 10, 3), 0.5, "f4"))
    result = invoke("run", tmp_path / "m.onnx", "--input", tmp_path / "x.npy")
    assert result.exit_code == 1
    assert "takes pictures, whole numbers from 0 to 255, and holds 0.5" in result.stderr


def test_crop_and_resize(tmp_path: Path) -> None:
    fully = COLOUR.split('layer { name: "ip"')[0]
    net = write_net(tmp_path, {"x": (1, 3, 12, 10)}, fully)
    convert(net, "-o", tmp_path / "m.onnx", "--preprocess", "--mean", "0", "--crop", "8x9", "--resize", "20")
    (given,) = onnx.load(tmp_path / "m.onnx").graph.input
    assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["batch", 20, 20, 3]


def test_the_deviation_of_half_precision_is_told(tmp_path: Path) -> None:
    output = convert(NET, WEIGHTS, "-o", tmp_path / "m.onnx", "--fp16").stdout
    assert output.startswith("prob: at most ")
    assert 0 < float(output.split()[3]) < 1e-3


def test_verified(tmp_path: Path) -> None:
    result = convert(NET, WEIGHTS, "-o", tmp_path / "m.onnx", "--verify-with", "self", "--layout", "nhwc")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["blob", "layer", "shape", "deviation", "of", "relative"]
    assert [line.split()[0] for line in lines[1:4]] == ["scaled", "conv1", "pool1"]
    assert lines[-2].startswith("9 blobs compared, all agree; tolerated: 1e-05 + 0.0001 of")
    assert "compared with caffeconv's own graph" in result.stderr
    assert "not independent of how caffeconv reads the net" in result.stderr


def test_nothing_is_written_where_verification_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = ROOT / "fixtures" / "goldens" / "nets" / "cifar_full_bn"
    out = tmp_path / "m.onnx"
    out.write_bytes(b"what was there")
    right = fold_affine._fold

    def forgets_the_shift(graph: Graph, before: Node | None, node: Node, readers: Counter[str]) -> Node | str:
        done = right(graph, before, node, readers)
        return replace(done, params=before.params) if isinstance(done, Node) and before is not None else done

    monkeypatch.setattr(fold_affine, "_fold", forgets_the_shift)
    result = invoke("convert", case / "net.prototxt", case / "weights.caffemodel", "-o", out, "--verify-report",
                    tmp_path / "r.json", "--verify-with", "self")  # fmt: skip
    assert result.exit_code == 1
    assert json.loads((tmp_path / "r.json").read_text())["ok"] is False
    assert "the first that differs, is off by" in result.stderr
    assert f"{out} is not written" in result.stderr
    assert out.read_bytes() == b"what was there"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--keep-io"], 2, "--keep-io without --fp16"),
        (["--input-layout", "nchw"], 2, "--preprocess, --mean, --scale or --rgb was needed too"),
        (["--preprocess"], 1, "no data layer reads pictures in phase TEST"),
        (["--mean", "1,2,3"], 1, "the mean is 3 values, the input 'data' has 1 channels"),
        (["--mean", "none.npy"], 1, "none.npy: no such file"),
        (["--scale", "1", "--resize", "20"], 1, "pictures of 20×20 cannot be cropped to the net's 28×28"),
        (["--layout", "nwhc"], 2, "'nwhc' is not one of 'nchw', 'nhwc'"),
    ],
)
def test_wrong_options(tmp_path: Path, options: list[str], code: int, message: str) -> None:
    out = tmp_path / "m.onnx"
    result = invoke("convert", NET, WEIGHTS, "-o", out, *options)
    assert (result.exit_code, out.exists()) == (code, False)
    assert message in " ".join(result.stderr.split())


def test_the_real_command(tmp_path: Path) -> None:
    command = [*program(), "convert", str(NET), str(WEIGHTS), "-o", "m.onnx", "--fp16"]
    command += ["--layout", "nhwc", "--mean", "3", "--scale", "0.5", "--verify-with", "self", "-q"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment())
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    model = onnx.load(tmp_path / "m.onnx")
    assert {entry.key for entry in model.metadata_props} >= {"caffe.layout", "caffe.preprocess", "caffeconv.precision"}
