"""Pictures through the command line: the classes and boxes that Caffe recorded, from a picture file."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from support.golden_cases import ROOT

from caffeconv.cli import main

ZOO = Path(os.environ.get("CAFFECONV_ZOO", ROOT.parent / "shared" / "zoo"))
DIGITS = ROOT / "fixtures" / "digits"
needs_zoo = pytest.mark.skipif(not ZOO.is_dir(), reason=f"no models in {ZOO}")


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, ["run", *map(str, arguments)])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def picture_of(model: str, path: Path, mean: tuple[float, ...], scale: float = 1) -> Path:
    """The recorded input as a picture file: mean and scale undone."""
    with np.load(ZOO / model / "blobs.npz") as archive:
        name = next(name for name in archive.files if name.startswith("in/"))
        planes = archive[name][0] / scale + np.array(mean, np.float32)[:, None, None]
    pixels = np.clip(np.round(planes.transpose(1, 2, 0)), 0, 255).astype(np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


@needs_zoo
def test_class_of_a_picture(tmp_path: Path) -> None:
    net = ZOO / "nsfw_resnet50_thin"
    picture = picture_of(net.name, tmp_path / "astronaut.png", (104, 117, 123))
    output = run(
        net / "deploy.prototxt", net / "weights.caffemodel", "--input", f"data={picture}", "--mean", "104,117,123"
    )
    assert "astronaut.png  0.983" in output.splitlines()[1]


@needs_zoo
def test_box_of_a_face(tmp_path: Path) -> None:
    net = ZOO / "res10_face_ssd"
    picture = picture_of(net.name, tmp_path / "face.png", (104, 177, 123))
    output = run(net / "deploy.prototxt", net / "weights.caffemodel", "--input", picture, "--mean", "104,177,123")
    rows = [line.split() for line in output.splitlines()[1:]]
    assert len(rows) == 1
    score, *box = (float(value) for value in rows[0][-5:])
    assert score > 0.999
    np.testing.assert_allclose(np.array(box) * 512, [179, 58, 272, 177], atol=2)


@needs_zoo
def test_a_digit_of_lenet(tmp_path: Path) -> None:
    net = ZOO / "lenet"
    with np.load(net / "blobs.npz") as archive:
        digits, probabilities = archive["in/data"], archive["blob/prob"]
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.round(digits[i, 0] / 0.00390625).astype(np.uint8))
    output = run(
        net / "deploy.prototxt",
        net / "weights.caffemodel",
        "--input",
        tmp_path,
        "--scale",
        "0.00390625",
        "--top-k",
        "1",
    )
    classes = [int(line.split()[-1]) for line in output.splitlines()[1:]]
    assert classes == probabilities[:4].argmax(axis=1).tolist()


def test_a_folder_goes_through_in_batches(tmp_path: Path) -> None:
    net, weights = DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel"
    one = run(net, weights, "--input", DIGITS, "--batch-size", "3", "--top-k", "1")
    other = run(net, weights, "--input", f"data={DIGITS}/*.png", "--batch-size", "16", "--top-k", "1")
    assert one == other
    assert [line.split()[2] for line in one.splitlines()[1:]] == [str(digit) for digit in range(10)]


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    arguments = [
        "convert",
        str(DIGITS / "deploy.prototxt"),
        str(DIGITS / "digits.caffemodel"),
        "-o",
        str(model),
        "--batch",
        "4",
    ]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    output = run(model, "--input", DIGITS, "--top-k", "1")
    assert [line.split()[2] for line in output.splitlines()[1:]] == [str(digit) for digit in range(10)]


@pytest.mark.parametrize("suffix", ["npz", "npy", "h5", "csv", "json"])
def test_features_are_written(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    blobs = [] if suffix == "npy" else ["--blobs", "ip1"]
    run(DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel", "--input", DIGITS, "-o", out, *blobs)
    found: dict[str, np.ndarray] = {}
    if suffix == "npz":
        found = dict(np.load(out))
    elif suffix == "npy":
        found = {"prob": np.load(out)}
    elif suffix == "h5":
        import h5py

        with h5py.File(out) as file:
            found = {name: file[name][()] for name in ("prob", "ip1")}
            assert [item.decode() for item in file["items"]][3].endswith("3.png")
    elif suffix == "csv":
        header, *rows = [line.split(",") for line in out.read_text().splitlines()]
        assert header[:3] == ["item", "prob[0]", "prob[1]"]
        values = np.array([[float(value) for value in row[1:]] for row in rows])
        found = {"prob": values[:, :10], "ip1": values[:, 10:]}
    else:
        import json

        content = json.loads(out.read_text())
        found = {name: np.array(blob["data"]).reshape(blob["shape"]) for name, blob in content["blobs"].items()}
    assert found["prob"].argmax(axis=1).tolist() == list(range(10))
    assert suffix == "npy" or found["ip1"].shape == (10, 64)


def test_mean_as_a_file(tmp_path: Path) -> None:
    from caffeconv.caffe_pb2 import BlobProto

    np.save(tmp_path / "mean.npy", np.full((1, 28, 28), 5, np.float32))
    (tmp_path / "mean.binaryproto").write_bytes(
        BlobProto(num=1, channels=1, height=28, width=28, data=[5.0] * 784).SerializeToString()
    )
    outputs = [
        run(DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel", "--input", DIGITS / "3.png", "--mean", mean)
        for mean in ("5", tmp_path / "mean.npy", tmp_path / "mean.binaryproto")
    ]
    assert outputs[0] == outputs[1] == outputs[2]
