"""Nothing important happens in silence: what a command does otherwise than one might think, it says on stderr."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.golden_cases import ROOT
from support.small_nets import write_net

from caffeconv.cli import main

DIGITS = ROOT / "fixtures" / "digits"
NET, WEIGHTS, LABELS = DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel", DIGITS / "labels.txt"
AT_FILLERS = "no weights were given: all 8 parameters of 4 layers are at their fillers, so the results mean nothing"
FC = 'layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc8" inner_product_param { num_output: 3 } }'


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.mark.parametrize("name", ["zero.onnx", "zero.npz"])
def test_weights_that_were_not_given(tmp_path: Path, name: str) -> None:
    result = call("convert", NET, "-o", tmp_path / name)
    assert result.exit_code == 0
    assert AT_FILLERS in result.stderr
    assert not call("convert", NET, "-o", tmp_path / name, "-q").stderr


def test_a_run_without_weights() -> None:
    assert AT_FILLERS in call("run", NET, "--input", DIGITS / "7.png").stderr
    assert AT_FILLERS not in call("run", NET, WEIGHTS, "--input", DIGITS / "7.png").stderr


def test_a_net_for_training(tmp_path: Path) -> None:
    net, out = DIGITS / "train_val.prototxt", tmp_path / "t.onnx"
    text = (
        "a net for training: the model takes label and gives accuracy, loss\n  To keep its predictions alone: --deploy."
    )
    assert text in call("convert", net, WEIGHTS, "-o", out).stderr
    for more in (["--deploy", "--shape", "data=1,1,28,28"], ["--output", "loss"]):
        result = call("convert", net, WEIGHTS, "-o", out, *more)
        assert result.exit_code == 0
        assert "for training" not in result.stderr


@pytest.mark.parametrize("text", ["", "# nothing\n", 'name: "net"\r'])
@pytest.mark.parametrize("command", ["inspect", "convert", "run"])
def test_a_net_without_layers(tmp_path: Path, text: str, command: str) -> None:
    net = tmp_path / "empty.prototxt"
    net.write_bytes(text.encode())
    more = ["-o", str(tmp_path / "x.onnx")] if command == "convert" else []
    result = call(command, net, *more)
    assert result.exit_code == 1
    assert "the net has no layers; a net definition with `layer { … }` blocks was needed" in result.stderr


def test_quiet_prints_results() -> None:
    result = call("run", NET, WEIGHTS, "--input", DIGITS / "7.png", "--top-k", "1", "-q")
    assert result.stdout.split()[-2:] == ["1.0000", "7"]
    assert not result.stderr


@pytest.mark.parametrize(
    "inputs",
    [
        ["--input", "7.png", "--input", "3.png"], ["--input", "7.png", "3.png"], ["--input", "data=7.png", "3.png"],
        ["7.png", "3.png"],
    ],
)  # fmt: skip
def test_several_sources_for_one_input(monkeypatch: pytest.MonkeyPatch, inputs: list[str]) -> None:
    """A pattern without quotes reaches us as names; none of them is dropped, or taken for weights."""
    monkeypatch.chdir(DIGITS)
    result = call("run", NET, WEIGHTS, *inputs, "--top-k", "1")
    assert result.exit_code == 0, result.stderr
    assert [line.split()[::2] for line in result.stdout.splitlines()[1:]] == [["7.png", "7"], ["3.png", "3"]]


def test_several_arrays_for_one_input(tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 2)}, FC)
    np.save(tmp_path / "a.npy", np.ones((2, 2), np.float32))
    np.save(tmp_path / "b.npy", np.zeros((3, 2), np.float32))
    a, b = tmp_path / "a.npy", tmp_path / "b.npy"
    assert call("run", net, "--input", a, b, "-o", tmp_path / "r.npy").exit_code == 0
    assert np.load(tmp_path / "r.npy").shape == (5, 3)
    result = call("run", net, "--input", a, "--input", DIGITS / "7.png")
    assert result.exit_code == 1
    assert "input 'x' takes pictures or arrays, not both in one run" in result.stderr


def test_scores_get_labels(tmp_path: Path) -> None:
    net, x, labels = write_net(tmp_path, {"x": (1, 2)}, FC), tmp_path / "x.npy", tmp_path / "labels.txt"
    np.save(x, np.ones((1, 2), np.float32))
    labels.write_text("a\nb\nc\n")
    result = call("run", net, "--input", x, "--labels", labels, "--top-k", "2")
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["item", "fc8", "class", "label"], ["x.npy[0]", "0.0000", "0", "a"], ["0.0000", "1", "b"],
    ]  # fmt: skip
    assert call("run", net, "--input", x).stdout.split()[:2] == ["fc8", "shape"]
    result = call("run", net, "--input", x, "--labels", LABELS)
    assert result.exit_code == 1
    assert "for scores of classes or for boxes; 10 names, and 'fc8' is 1×3; leave them out" in result.stderr


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    net, x = write_net(tmp_path, {"x": (1, 2)}, FC), tmp_path / "x.npy"
    np.save(x, np.array([[np.nan, 1]], np.float32))
    for more in ([], ["-o", f"{tmp_path}/r.npz"], ["-o", f"{tmp_path}/r.h5", "--blobs", "fc8"]):
        assert "blob 'fc8': 3 of 3 values are NaN or infinite; " in call("run", net, "--input", x, *more).stderr


@pytest.mark.parametrize("name", ["o.onnx", "o.npz", "o.h5", "o.safetensors", "o.caffemodel", "o.caffemodel.h5"])
def test_weights_that_are_no_numbers(tmp_path: Path, name: str) -> None:
    """Also those that float32 has no number for, of which numpy warns in words of its own."""
    net, weights = write_net(tmp_path, {"x": (1, 2)}, FC), tmp_path / "w.caffemodel.h5"
    with h5py.File(weights, "w") as file:
        file["data/fc/0"], file["data/fc/1"] = np.array([[np.nan, 1], [1e300, 0], [0, 1]]), np.full(3, np.inf)
    result = call("convert", net, weights, "-o", tmp_path / name)
    told = " ".join(result.stderr.split())
    assert re.search(r"fc/\w+ and 1 other tensors: 5 values are NaN or infinite, and so is what comes of them", told)
    assert "Warning" not in result.stderr


@pytest.mark.parametrize(
    ("name", "framework"), [("x.tflite", "TensorFlow Lite"), ("x.PB", "TensorFlow"), ("x.pth", "PyTorch")]
)
def test_models_of_other_frameworks(tmp_path: Path, name: str, framework: str) -> None:
    result = call("convert", NET, WEIGHTS, "-o", tmp_path / name)
    assert result.exit_code == 1
    assert f"{name}: {framework} reads our ONNX models by a converter of its own" in result.stderr
    assert "docs/other_frameworks.md" in result.stderr


@pytest.mark.parametrize(
    ("word", "hint"), [("conver", "did you mean convert?"), ("foo", "commands: convert, inspect, ")]
)
def test_unknown_commands(word: str, hint: str) -> None:
    result = call(word, NET)
    assert result.exit_code == 2
    assert f"no such command: {word}; {hint}" in result.stderr


@pytest.mark.parametrize("scale", ["1/255", "0.00392156862745098"])
def test_scale_and_mean_as_people_write_them(scale: str) -> None:
    results = [
        call("run", NET, WEIGHTS, "--input", DIGITS / "7.png", "--scale", value, "--mean", mean, "-q").stdout
        for value, mean in (("0.00392156862745098", "3"), (scale, " 3 "))
    ]
    assert results[0] == results[1]
    for wrong in ("1/0", "x", "1/2/3", "nan"):
        result = call("run", NET, WEIGHTS, "--input", DIGITS / "7.png", "--scale", wrong)
        assert result.exit_code == 2
        assert f"--scale {wrong}: a number was needed, such as 0.017 or 1/255" in result.stderr
