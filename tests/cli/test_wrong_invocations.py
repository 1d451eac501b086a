"""Wrong invocations and what is said of them: where, what is, what was needed, what to try."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.golden_cases import ROOT

from caffeconv.cli import main

DIGITS = ROOT / "fixtures" / "digits"
WRONG = [
    ("-v", 2, "no such option: -v"),
    ("--versoin", 2, "no such option: --versoin; did you mean --version?"),
    ("convrt net.prototxt", 2, "no such command: convrt; did you mean convert?"),
    (
        "net.prototxt w.caffemodel",
        2,
        "net.prototxt stands where a command was needed, such as `caffeconv inspect net.prototxt`",
    ),
    ("predict net.prototxt", 2, "no such command: predict; did you mean run?"),
    ("summary net.prototxt", 2, "no such command: summary; did you mean inspect?"),
    ("test -model net.prototxt -weights w.caffemodel", 2, "no such command: test; did you mean run?"),
    ("help", 2, "no such command: help; did you mean --help?"),
    ("frobnicate", 2, "no such command: frobnicate; commands: convert, inspect, run, train, make-h, upgrade"),
    ("run net.prototxt w.caffemodel --lables x", 2, "no such option: --lables; did you mean --labels or"),
    ("run net.prototxt w.caffemodel --top-k 0", 2, "invalid value for '--top-k': 0: at least 1 was needed"),
    ("make-h --identity 0 -o H.binaryproto", 2, "invalid value for '--identity': 0: 1 to 16384 was needed"),
    (
        "run net.prototxt w.caffemodel --input 7.png --threshold 2",
        1,
        "--threshold is for boxes, and these are scores of",
    ),
    (
        "inspect net.prototxt w.caffemodel --layer zzz",
        1,
        "the net has no layer 'zzz' that could be built. Layers: data, scale,",
    ),
    ("time net.prototxt", 2, "no such command: time; did you mean run --profile?"),
    ("convert", 2, "missing argument 'NET': the prototxt of a net, or a file that carries one"),
    (
        "convert net.prototxt",
        2,
        "missing option '-o' / '--out': what to write, by its name: a model, OUT.onnx; the weights alone for other",
    ),
    (
        "convert net.prototxt w.caffemodel out.onnx",
        2,
        "missing option '-o' / '--out': what to write, by its name: a model, OUT.onnx; the weights alone for other",
    ),
    (
        "convert net.prototxt w.caffemodel --output out.onnx",
        2,
        "missing option '-o' / '--out': what to write, by its name: a model, OUT.onnx; the weights alone for other",
    ),
    (
        "convert w.caffemodel net.prototxt -o x.onnx",
        1,
        "w.caffemodel: this caffemodel holds weights, but no net around them; give the prototxt first, then the weights",
    ),
    (
        "convert net.prototxt net.prototxt -o x.onnx",
        1,
        "net.prototxt: this is text; weights (caffemodel, binary) were needed. Give the prototxt first, then the weights.",
    ),
    ("convert net.prototxt w.caffemodel -o", 2, "option '-o' requires an argument"),
    (
        "convert net.prototxt w.caffemodel -o x",
        1,
        "x: a name that ends in .onnx was needed for a model; in .safetensors, .npz or .h5 for weights alone; in",
    ),
    (
        "convert net.prototxt w.caffemodel -o x.tflite",
        1,
        "x.tflite: TensorFlow Lite reads our ONNX models by a converter of its own: write a name that ends in .onnx, and",
    ),
    (
        "convert net.prototxt w.caffemodel -o no/such/x.onnx",
        1,
        "no/such/x.onnx: there is no folder no/such; make it first, or choose another place",
    ),
    (
        "convert net.prototxt w.caffemodel -o net.prototxt",
        1,
        "net.prototxt: this is the input, and is not overwritten; choose another output file",
    ),
    ("convert net.prototxt w.caffemodel -o x.onnx --opset 3", 1, "--opset 3: 13 to "),
    ("convert net.prototxt w.caffemodel -o x.onnx --batch 0", 1, "--batch 0: at least 1 was needed"),
    ("convert net.prototxt w.caffemodel -o x.onnx --batch -1", 2, "--batch -1: dynamic, keep or a number was needed"),
    (
        "convert net.prototxt w.caffemodel -o x.onnx --shape 1,1,28,28",
        2,
        "--shape 1,1,28,28: BLOB=SIZE,SIZE,… was needed, e.g. --shape data=1,3,224,224",
    ),
    (
        "convert net.prototxt w.caffemodel -o x.onnx --output nope",
        1,
        "the net has no blob 'nope'. Blobs: data, scaled, conv1, pool1, conv2, pool2, ip1, ip2, prob",
    ),
    (
        "convert net.prototxt w.caffemodel -o x.onnx --phase validate",
        2,
        "invalid value for '--phase': 'validate' is not one of 'test', 'train'",
    ),
    ("convert net.prototxt w.caffemodel -o x.onnx --input 7.png", 2, "no such option: --input; it belongs to run"),
    (
        "convert net.prototxt w.caffemodel -o x.onnx --labels labels.txt",
        2,
        "no such option: --labels; it belongs to run, make-h",
    ),
    (
        "convert net.prototxt w.caffemodel -o x.onnx --mean 1,2,3",
        1,
        "--mean: the mean is 3 values, the input 'data' has 1 channels; one value, one for each channel, or 1×H×W was",
    ),
    (
        "convert net.prototxt w.caffemodel -o x.npz --fp16",
        2,
        "--fp16 is for ONNX models, and x.npz holds weights alone",
    ),
    (
        "convert net.prototxt w.caffemodel -o x.onnx --keep-io",
        2,
        "--keep-io without --fp16: inputs and outputs are float32 as it is",
    ),
    (
        "convert solver.prototxt w.caffemodel -o x.onnx",
        1,
        "solver.prototxt: this is a solver's file, not a net; it trains fixtures/digits/train_val.prototxt: give that",
    ),
    (
        "convert labels.txt w.caffemodel -o x.onnx",
        1,
        "labels.txt: this is plain text; a net definition (prototxt), made of `name: value` and `layer { … }`, was needed",
    ),
    (
        "convert net.prototxt 7.png -o x.onnx",
        1,
        "7.png: this is a picture; a caffemodel was needed: pictures are what a net is run on, --input",
    ),
    (
        "convert net.protxt w.caffemodel -o x.onnx",
        1,
        "net.protxt: no such file; a net definition (prototxt) was needed. Did you mean net.prototxt?",
    ),
    (
        "convert net w.caffemodel -o x.onnx",
        1,
        "net: no such file; a net definition (prototxt) was needed. Did you mean net.prototxt?",
    ),
    ("convert . w.caffemodel -o x.onnx", 1, ".: this is a folder; a net definition (prototxt) was needed"),
    ("convert net.prototxt . -o x.onnx", 1, ".: this is a folder; a weights file (caffemodel) was needed"),
    ('convert net.prototxt w.caffemodel -o ""', 2, "an argument is empty; is a variable of your shell not set?"),
    (
        "convert https://example.com/net.prototxt w.caffemodel -o x.onnx",
        2,
        "https://example.com/net.prototxt: files are read from this machine alone; download it first",
    ),
    (
        "inspect net.prototxt w.caffemodel --layer conv9",
        1,
        "the net has no layer 'conv9' that could be built. Did you mean conv2 or conv1?",
    ),
    ("inspect net.prototxt w.caffemodel --batch 0", 1, "--batch 0: a whole number, at least 1, was needed"),
    (
        "inspect net.prototxt w.caffemodel -o out.json",
        2,
        "no such option: -o; it belongs to convert, run, make-h, upgrade",
    ),
    ("inspect net.prototxt w.caffemodel --fix", 2, "option '--fix' requires an argument"),
    (
        "inspect 7.png",
        1,
        "7.png: this is a picture; a net definition (prototxt) was needed: pictures are what a net is run on, --input",
    ),
    ("inspect .", 1, ".: this is a folder with no database in it; a net, weights or a database was needed"),
    (
        "inspect net.prototxt w.caffemodel --values --json --html no/x.html",
        1,
        "no/x.html: there is no folder no; make it first, or choose another place",
    ),
    (
        "run net.prototxt",
        1,
        "input 'data' has no source; give --input data=FILE (.npy, .npz, .binaryproto or a picture)",
    ),
    (
        "run w.caffemodel net.prototxt --input 7.png",
        1,
        "w.caffemodel: this caffemodel holds weights, but no net around them; give the prototxt first, then the weights",
    ),
    (
        "run net.prototxt w.caffemodel --input nope.png",
        1,
        "nope.png: no such file; a picture, a folder or pattern of pictures, a list of them (.list, .lst, .txt), or an",
    ),
    (
        "run net.prototxt w.caffemodel --input dat=7.png",
        1,
        "--input dat=7.png: the net has no input 'dat'; did you mean 'data'? inputs: data",
    ),
    (
        "run net.prototxt w.caffemodel --input data=",
        1,
        "--input data=: nothing after the `=`; a picture, a list or an array was needed",
    ),
    (
        "run net.prototxt w.caffemodel --input labels.txt",
        1,
        "labels.txt, line 1: there is no picture zero; names are looked for from the current folder, then beside the list",
    ),
    (
        "run net.prototxt w.caffemodel --input net.prototxt",
        1,
        "net.prototxt: this is a net, which stands before --input; a picture, a list or an array was needed",
    ),
    (
        "run net.prototxt w.caffemodel --input H.npy",
        1,
        "input 'data': the array is 3×3; N×1×28×28 was needed. A net, unlike an ONNX model, can be given another size:",
    ),
    (
        "run net.prototxt w.caffemodel --input w.caffemodel",
        1,
        "w.caffemodel: these are weights, which stand after the net and before --input; a picture, a list or an array",
    ),
    ("run net.prototxt w.caffemodel --image 7.png", 2, "no such option: --image; write --input PICTURE"),
    ("run net.prototxt w.caffemodel -i 7.png", 2, "no such option: -i; write --input SOURCE"),
    (
        "run net.prototxt w.caffemodel --gpu 0 --input 7.png",
        2,
        "no such option: --gpu; write --provider cuda, or cuda:N for the N-th GPU",
    ),
    (
        "run net.prototxt w.caffemodel --provider gpu --input 7.png",
        2,
        "--provider gpu: auto, cpu, openvino, cuda or cuda:N (the N-th GPU, from 0) was needed",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png --top-k five",
        2,
        "invalid value for '--top-k': 'five': a whole number was needed",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png --labels nope.txt",
        1,
        "nope.txt: no such file; a list of class names, one a line, or a labelmap, was needed",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png --labels 7.png",
        1,
        "7.png: this is a picture; class names, one a line, or a labelmap were needed",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png --labels net.prototxt",
        1,
        "net.prototxt: this is a net; class names, one a line, or a labelmap were needed",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png --mean abc",
        1,
        "abc: no such file; for --mean a .binaryproto or .npy, or numbers such as 104,117,123, were needed",
    ),
    ("run net.prototxt w.caffemodel --input 7.png --mean 1,2,3", 1, "the mean has 3 channels, the net takes 1"),
    (
        "run net.prototxt w.caffemodel --input 7.png --mean 7.png",
        1,
        "7.png: this is a picture; a blob (binaryproto) was needed: pictures are what a net is run on, --input",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png --scale 1/0",
        2,
        "--scale 1/0: a number was needed, such as 0.017 or 1/255",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png --resize big",
        2,
        "--resize big: a size was needed, e.g. 256 or 256x340 (height×width)",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png -o out.xyz",
        1,
        "out.xyz: results are written as .npz, .npy, .h5, .csv, .json, .lmdb or .jsonl; the suffix chooses",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png --format json",
        2,
        "invalid value for '--format': 'json' is not one of 'table', 'csv', 'jsonl'",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png --format csv -o x.npz",
        2,
        "--format csv with -o x.npz: classes and boxes are written to .csv, .jsonl or .json, and the suffix says how;",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png --iterations 3",
        2,
        "--iterations with --input: it is for a net's data layers; leave one of them out",
    ),
    ("run net.prototxt w.caffemodel --input 7.png --resume", 2, "--resume continues an output file; name it: -o FILE"),
    (
        "run net.prototxt w.caffemodel --input 7.png --blobs conv9",
        1,
        "the net has no blob 'conv9'. Did you mean conv2 or conv1?",
    ),
    (
        "run net.prototxt w.caffemodel --input-db .",
        1,
        ".: no data.mdb in this folder; an LMDB (a folder with data.mdb) was needed.",
    ),
    (
        "run net.prototxt w.caffemodel --per-batch x.csv",
        2,
        "--per-batch: it is for nets with data layers (or with --input-db); this net has none",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png --threshold abc",
        2,
        "invalid value for '--threshold': 'abc': a number was needed",
    ),
    ("run nope.onnx --input 7.png", 1, "nope.onnx: no such file; an ONNX model was needed"),
    (
        "run 7.png net.prototxt w.caffemodel",
        1,
        "7.png: this is a picture; a net definition (prototxt) was needed: pictures are what a net is run on, --input",
    ),
    (
        "run solver.prototxt",
        1,
        "solver.prototxt: this is a solver's file, not a net; it trains fixtures/digits/train_val.prototxt: give that",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png --draw 7.png",
        2,
        "invalid value for '--draw': Directory '7.png' is a file",
    ),
    ("train", 2, "missing argument 'SOLVER': the solver's file (prototxt)"),
    ("train net.prototxt", 1, "net.prototxt: this is a net; the solver's file that names it as its `net` was needed"),
    (
        "train nope.prototxt",
        1,
        "nope.prototxt: no such file; a solver's file (prototxt) was needed. Did you mean net.prototxt?",
    ),
    ("train solver.prototxt --log x.txt", 1, "x.txt: a log's name ends in .csv or .jsonl"),
    (
        "train --solver solver.prototxt",
        2,
        "no such option: --solver; the solver's file is the first argument, without an option",
    ),
    ("train solver.prototxt net.prototxt", 2, "unexpected extra argument (net.prototxt)"),
    (
        "train w.caffemodel",
        1,
        "w.caffemodel: binary data; a solver's file in text form (prototxt) was needed. It looks like a caffemodel.",
    ),
    (
        "make-h",
        2,
        "nothing to make H of; one of SOURCE, --identity, --hierarchy, --positions, --class-weights, --counts,",
    ),
    ("make-h H.npy", 2, "nothing to do with H; -o FILE, --show or --plot PNG was needed"),
    (
        "make-h H.npy -o H.txt",
        1,
        "H.txt: H is written as a binaryproto, as HDF5 or as LMDB; a name that ends in .binaryproto, .h5 or lmdb was",
    ),
    ("make-h nope.npy -o H.binaryproto", 1, "nope.npy: no such file; an array (.npy, .npz) was needed"),
    (
        "make-h --counts a,b -o H.binaryproto",
        2,
        "--counts a,b: neither numbers separated by commas, e.g. 900,90,10, nor a file that is there",
    ),
    ("make-h --counts 0,0 -o H.binaryproto", 1, "class counts: no class occurs; at least one label was needed"),
    (
        "make-h H.npy -o H.npy",
        1,
        "H.npy: H is written as a binaryproto, as HDF5 or as LMDB; a name that ends in .binaryproto, .h5 or lmdb was",
    ),
    (
        "make-h --counts 1,2,3 --beta 2 -o H.binaryproto",
        2,
        "--beta is for --balance effective-number, which was not given",
    ),
    ("upgrade net.prototxt", 2, "missing option '-o' / '--out': the file to write: NEW.prototxt or NEW.caffemodel"),
    (
        "upgrade net.prototxt -o x.caffemodel",
        1,
        "x.caffemodel: net.prototxt is a prototxt, and becomes one; a name that ends in .prototxt was needed. Upgrade",
    ),
    (
        "upgrade w.caffemodel -o x.onnx",
        1,
        "x.onnx: w.caffemodel is a caffemodel, and becomes one; a name that ends in .caffemodel was needed, or in",
    ),
    (
        "upgrade net.prototxt -o net.prototxt",
        1,
        "net.prototxt: this is the input, and is not overwritten; choose another output file",
    ),
    (
        "upgrade w.caffemodel -o y.prototxt",
        1,
        "w.caffemodel: its layers have no bottoms and tops: it holds weights, but no net to write",
    ),
    ("upgrade net.prototxt w.caffemodel -o x.prototxt", 2, "unexpected extra argument (w.caffemodel)"),
    (
        "upgrade net.prototxt -o x.prototxt --phase train",
        2,
        "--phase, --level, --stage, --shape, --extended and --infogain choose a form of the net, and an upgrade keeps",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png --input x.npy",
        1,
        "--input 7.png and --input x.npy: input 'data' takes pictures or arrays, not both in one run",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png --skip-bad -o x.npz",
        2,
        "--skip-bad with --input is for classes and for boxes (--format csv or jsonl); other values are kept whole",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png --shape data",
        2,
        "--shape data: BLOB=SIZE,SIZE,… was needed, e.g. --shape data=1,3,224,224",
    ),
    ("run net.prototxt w.caffemodel --input '*.jpg'", 1, "*.jpg: no file matches this pattern"),
    (
        "run net.prototxt w.caffemodel --input 7.png --profile -o x.csv",
        1,
        "x.csv: a profile is written as .json, or as .trace.json for chrome://tracing and Perfetto; the suffix chooses",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png -o no/such.csv",
        1,
        "no/such.csv: there is no folder no; make it first, or choose another place",
    ),
    (
        "run net.prototxt w.caffemodel --input 7.png -o x.npy --blobs all",
        1,
        "x.npy: .npy holds one array, and there are 8; name one (--blobs), or use .npz",
    ),
    (
        "convert net.prototxt -o x.onnx --weights w.caffemodel",
        2,
        "invalid value for '--weights': 'w.caffemodel' is a file: weights are the arguments after the net, without an option",
    ),
    (
        "convert net.prototxt w.caffemodel -o x.onnx --weights file",
        2,
        "invalid value for '--weights': 'file' is not one of 'embed', 'external', 'link'",
    ),
    (
        "convert net.prototxt w.caffemodel -o x.onnx --preprocess --crop 28",
        1,
        "net.prototxt: --preprocess: no data layer reads pictures in phase TEST, so nothing says how they are prepared;",
    ),
]
"""Command line, exit code, and the beginning of the error's first line."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Small files of several kinds; what the commands leave of them is looked at in the end."""
    path = tmp_path_factory.mktemp("wrong")
    files = {"deploy.prototxt": "net.prototxt", "digits.caffemodel": "w.caffemodel"}
    for name in (
        "deploy.prototxt",
        "digits.caffemodel",
        "7.png",
        "labels.txt",
        "solver.prototxt",
        "train_val.prototxt",
    ):
        shutil.copy(DIGITS / name, path / files.get(name, name))
    np.save(path / "x.npy", np.zeros((1, 1, 28, 28), np.float32))
    np.save(path / "H.npy", np.eye(3, dtype=np.float32))
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    yield path
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


@pytest.mark.parametrize(("command", "code", "message"), WRONG, ids=[command for command, _, _ in WRONG])
def test_what_is_said(
    command: str, code: int, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(main, shlex.split(command))
    assert isinstance(result.exception, SystemExit), result.exception
    errors = [line for line in result.stderr.splitlines() if line.startswith("caffeconv: error: ")]
    assert result.exit_code == code
    assert errors, result.stderr
    assert errors[0].removeprefix("caffeconv: error: ").startswith(message)
    assert "Traceback" not in result.output


def test_there_are_many_kinds() -> None:
    assert len(WRONG) > 60
    assert {command.split()[0] for command, _, _ in WRONG} >= {
        "convert",
        "inspect",
        "run",
        "train",
        "make-h",
        "upgrade",
    }
