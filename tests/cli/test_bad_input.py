"""Wrong input on every command: one clear message on stderr, exit code 1, no traceback, nothing half written."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.golden_cases import GOLDENS
from support.program import environment, program

from caffeconv.cli import main

LENET = GOLDENS / "nets" / "lenet"
DIGIT = str(GOLDENS.parent / "digits" / "7.png")
NET, WEIGHTS = str(LENET / "net.prototxt"), str(LENET / "weights.caffemodel")
OTHER = str(GOLDENS / "nets" / "alexnet" / "weights.caffemodel")


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert result.stdout == "" or "error" not in result.stdout
    for part in parts:
        assert part in result.stderr


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, str]:
    """Files that are wrong in some way, by what they are."""
    content = Path(WEIGHTS).read_bytes()
    made = {
        "truncated": content[: len(content) // 2],
        "binary.prototxt": b"\x00\x01\x02\xff" * 50,
        "text.png": b"no picture",
        "empty.caffemodel": b"",
    }
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
    np.save(tmp_path / "wrong.npy", np.zeros((2, 7), np.float32))
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    return {name: str(tmp_path / name) for name in (*made, "wrong.npy", "words.npy", "absent", "out.onnx")}


COMMANDS: dict[str, Sequence[str]] = {"convert": ("-o", "{out.onnx}"), "inspect": (), "run": ()}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("{absent}",), ("absent", "no such file")),
        ((NET, "{absent}"), ("absent", "no such file")),
        ((WEIGHTS, NET), ("net.prototxt", "this is text", "Give the prototxt first")),
        (("{binary.prototxt}", WEIGHTS), ("binary.prototxt", "binary data", "prototxt")),
        ((NET, "{truncated}"), ("truncated", "a complete caffemodel was needed")),
        ((NET, "{empty.caffemodel}"), ("the file is empty",)),
        ((NET, OTHER), ("conv1 (Convolution)", "Cannot copy param 0 weights from layer 'conv1'; shape mismatch.")),
        ((NET, WEIGHTS, "--shape", "dat=1,1,28,28"), ("'dat'", "no input", "Did you mean 'data'?")),
    ],
    ids=["missing net", "missing weights", "swapped", "binary net", "truncated", "empty", "weights of another net", "shape"],
)  # fmt: skip
def test_files(
    command: str, arguments: Sequence[str], parts: Sequence[str], broken: dict[str, str], tmp_path: Path
) -> None:
    filled = [broken[a[1:-1]] if a.startswith("{") else a for a in (*arguments, *COMMANDS[command])]
    before = sorted(tmp_path.iterdir())
    assert_refused(call(command, *filled), *parts)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--input", "dat={wrong.npy}"), ("no input 'dat'", "did you mean 'data'?")),
        (("--input", "{wrong.npy}"), ("input 'data'", "the array is 2×7", "was needed")),
        (("--input", "{words.npy}"), ("words.npy", "numbers were needed")),
        (("--input", "{text.png}"), ("text.png", "not a readable picture")),
        (("--input", "{absent}"), ("absent", "no such file")),
        (("--input", "{absent}*.png"), ("no file matches",)),
        ((), ("input 'data' has no source", "--input data=")),
        (("--input", "{wrong.npy}", "-o", "{absent}.xyz"), ("results are written as", ".npz")),
        (("--input", "{wrong.npy}", "--blobs", "conv9"), ("no blob 'conv9'", "Did you mean conv")),
        (("--input", "{text.png}", "--mean", "{absent}"), ("absent",)),
        (("--input", "{text.png}", "--mean", "1,2"), ("the mean has 2 channels",)),
        (("--input", "{text.png}", "--labels", "{absent}"), ("absent", "class names")),
        (("--input", "{text.png}", "--resize", "20"), ("cannot be cropped",)),
    ],
)
def test_run(arguments: Sequence[str], parts: Sequence[str], broken: dict[str, str]) -> None:
    filled = []
    for argument in arguments:
        for name, path in broken.items():
            argument = argument.replace("{" + name + "}", path)
        filled.append(argument)
    assert_refused(call("run", NET, WEIGHTS, *filled), *parts)


@pytest.mark.parametrize(
    "arguments", [("--shape", "data"), ("--shape", "data=1,x"), ("--batch", "some"), ("--phase", "both")]
)
def test_usage(arguments: Sequence[str], tmp_path: Path) -> None:
    result = call("convert", NET, WEIGHTS, "-o", tmp_path / "m.onnx", *arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert not (tmp_path / "m.onnx").exists()


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    assert_refused(call("convert", NET, WEIGHTS, "-o", tmp_path / "no" / "m.onnx"), "m.onnx")
    assert_refused(call("convert", NET, WEIGHTS, "-o", tmp_path / "m.xyz"), ".onnx")
    (tmp_path / "m.onnx").mkdir()
    assert_refused(call("convert", NET, WEIGHTS, "-o", tmp_path / "m.onnx"), "m.onnx")


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    net = tmp_path / "net.onnx"
    net.write_bytes(Path(NET).read_bytes())
    assert_refused(call("convert", net, WEIGHTS, "-o", net), "this is the input")
    assert net.read_bytes() == Path(NET).read_bytes()


def test_the_old_output_stays_when_the_net_is_wrong(tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    out.write_bytes(b"old")
    assert_refused(call("convert", NET, OTHER, "-o", out), "shape mismatch")
    assert out.read_bytes() == b"old"


def test_unknown_fields(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(Path(NET).read_text().replace("kernel_size", "kernel_sise"))
    result = call("convert", net, WEIGHTS, "-o", tmp_path / "m.onnx")
    assert_refused(result, "has no field named `kernel_sise`; did you mean `kernel_size`?", "--ignore-unknown-fields")
    assert result.stderr.count("kernel_sise") == 2, "once for each message"
    assert result.stderr.count("did you mean `kernel_size`?; the first of 2 places") == 2


def test_the_real_command() -> None:
    run = subprocess.run(
        [*program(), "inspect", "absent.prototxt"], capture_output=True, text=True, check=False, env=environment()
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "caffeconv: error: absent.prototxt: no such file; a net definition (prototxt) was needed\n"


def test_a_caffemodel_without_a_net(tmp_path: Path) -> None:
    digits = GOLDENS.parent / "digits" / "digits.caffemodel"
    assert_refused(
        call("convert", digits, "-o", tmp_path / "x.onnx"),
        "holds weights, but no net around them; give the prototxt first",
    )


def test_cuda_that_is_not_there() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    result = call("run", NET, WEIGHTS, "--input", "{absent}", "--provider", "cuda")
    assert_refused(result, "caffeconv: error: --provider cuda: this onnxruntime", "pip install 'caffeconv[gpu]'")


def test_a_label_out_of_range(tmp_path: Path) -> None:
    folder = GOLDENS / "errors" / "softmaxloss_label_out_of_range"
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    inputs = [f"--input=label={folder / 'blobs.npz'}", f"--input=x={tmp_path / 'x.npy'}"]
    result = call("run", folder / "net.prototxt", *inputs)
    assert_refused(result, "label 3 in blob 'label'", "is out of range; 0 to 2 was needed")


def test_a_net_too_large_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    text = (
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: %d } } }'
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: %d } }'
    )
    net.write_text(text % (1_000_000, 1_000_000))
    assert_refused(call("convert", net, "-o", tmp_path / "m.onnx"), "ip (InnerProduct)", "blob size exceeds INT_MAX")
    net.write_text(text % (100_000, 10_000))
    result = call("convert", net, "-o", tmp_path / "m.onnx")
    assert_refused(result, "the model takes 4.0 GB; one ONNX file holds at most 2.1 GB")


def test_an_onnx_model_has_its_form_of_infogain_loss(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    assert call("convert", NET, WEIGHTS, "-o", model).exit_code == 0
    assert_refused(call("run", model, "--infogain", "probabilities"), "leave --infogain out", "convert the net again")


def test_half_precision_is_for_cuda(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    assert call("convert", NET, WEIGHTS, "-o", model).exit_code == 0
    for net in ((NET, WEIGHTS), (str(model),)):
        refused = call("run", *net, "--input", DIGIT, "--fp16", "--provider", "cpu")
        assert_refused(refused, "--fp16 is for CUDA", "caffeconv convert --fp16")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device there")
@pytest.mark.parametrize("more", [(), ("--format", "csv")])
def test_stdout_is_full(more: tuple[str, ...]) -> None:
    command = [*program(), "run", NET, WEIGHTS, "--input", DIGIT, *more]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment())
    assert done.returncode == 1
    assert "caffeconv: error: stdout: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
