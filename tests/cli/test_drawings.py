"""`run --draw`: what a net finds, on the pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.golden_cases import ROOT
from support.small_nets import write_net

from caffeconv.cli import main
from caffeconv.cli.show.detections import Box
from caffeconv.cli.show.drawings import in_pixels, is_label_map, label_map, palette, with_boxes

SCORES = """
layer { name: "dark" type: "Power" bottom: "data" top: "dark" power_param { scale: -1 shift: 100 } }
layer { name: "score" type: "Concat" bottom: "dark" bottom: "data" top: "score" }
"""
BOXES = """
layer { name: "loc" type: "DummyData" top: "loc" dummy_data_param { shape { dim: 1 dim: 4 } } }
layer { name: "conf" type: "DummyData" top: "conf" dummy_data_param { shape { dim: 1 dim: 2 } data_filler { value: 1 } } }
layer { name: "map" type: "Pooling" bottom: "data" top: "map" pooling_param { pool: AVE global_pooling: true } }
layer { name: "prior" type: "PriorBox" bottom: "map" bottom: "data" top: "prior" prior_box_param { min_size: 10 } }
layer { name: "found" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "prior" top: "found"
  detection_output_param { num_classes: 2 nms_param { nms_threshold: 0.5 } } }
"""


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Black at the left, grey at the right; one of twice the size, under the same name in another folder."""
    monkeypatch.chdir(tmp_path)
    Path("more").mkdir()
    for size, path in ((20, "a.png"), (40, "more/a.png")):
        image = np.zeros((size, size), np.uint8)
        image[:, size // 2 :] = 200
        cv2.imwrite(path, image)


def draw(layers: str, *arguments: str) -> Result:
    net = write_net(Path(), {"data": (1, 1, 20, 20)}, layers)
    return CliRunner().invoke(main, ["run", str(net), "--draw", "out", *arguments])


def read(path: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    image = cv2.imread(path)
    assert image is not None, sorted(Path("out").iterdir())
    return np.asarray(image, np.uint8)


@pytest.mark.usefixtures("pictures")
def test_label_maps() -> None:
    result = draw(SCORES, "--input", "a.png", "more/a.png")
    assert result.exit_code == 0, result.stderr
    assert "caffeconv: out: 4 pictures\n" in result.stderr
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "a.2.labels.png", "a.2.overlay.png", "a.labels.png", "a.overlay.png",
    ]  # fmt: skip
    labels, overlay = read("out/a.labels.png"), read("out/a.2.overlay.png")
    assert (labels[5, 5].tolist(), labels[5, 15].tolist()) == ([0, 0, 0], [0, 0, 128])  # class 1 is dark red
    assert overlay.shape == (40, 40, 3)
    assert (overlay[5, 5].tolist(), overlay[5, 35].tolist()) == ([0, 0, 0], [90, 90, 160])


@pytest.mark.usefixtures("pictures")
def test_label_maps_lie_where_the_crop_was_cut() -> None:
    assert draw(SCORES, "--input", "more/a.png", "--resize", "40").exit_code == 0
    overlay, picture = read("out/a.overlay.png"), read("more/a.png")
    changed = np.argwhere((overlay != picture).any(axis=-1))
    assert (changed.min(axis=0).tolist(), changed.max(axis=0).tolist()) == ([10, 20], [29, 29])


@pytest.mark.usefixtures("pictures")
def test_boxes() -> None:
    result = draw(BOXES, "--input", "more/a.png", "--threshold", "0.1")
    assert result.exit_code == 0, result.stderr
    drawn, colour = read("out/a.detections.png"), palette(2)[1]
    # min_size 10 in the middle of 20 pixels: a quarter to three quarters
    for row, column in ((30, 10), (30, 29), (20, 10), (20, 30)):
        assert (drawn[row, column] == colour).all()
    assert (drawn[35, 5] == 0).all()


@pytest.mark.usefixtures("pictures")
def test_scores_of_pictures_are_not_drawn() -> None:
    result = draw('layer { name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param { global_pooling: true } }',
                  "--input", "a.png", "-q")  # fmt: skip
    assert (result.exit_code, list(Path("out").iterdir())) == (0, [])
    assert "caffeconv: out: nothing to draw: no boxes, no maps of labels" in result.stderr


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--input", "x.npy"), 1, "--draw out: the input is an array; pictures were needed, to draw on"),
        (("--input", "a.png", "--resume", "-o", "f.npz"), 2, "--draw with f.npz: rows are kept"),
        (("--input", "a.png", "--blobs", "score", "-o", "f.npz"), 2, "--draw with f.npz: rows are kept"),
        (("--input", "a.png", "--oversample"), 2, "--draw with --oversample: crops are averaged"),
        (
            ("--input", "out/a.labels.png", "a.png"),
            1,
            "a.labels.png: this is one of the pictures, and is not overwritten",
        ),
    ],
)
def test_what_is_refused(arguments: tuple[str, ...], code: int, message: str) -> None:
    np.save("x.npy", np.zeros((1, 1, 20, 20), np.float32))
    Path("out").mkdir()
    before = Path("a.png").read_bytes()
    Path("out/a.labels.png").write_bytes(before)
    result = draw(SCORES, *arguments)
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
    assert Path("out/a.labels.png").read_bytes() == before


def test_over_data_layers() -> None:
    digits = ROOT / "fixtures/digits"
    result = CliRunner().invoke(main, ["run", str(digits / "train_val.prototxt"), "--draw", "out"])
    assert (result.exit_code, "--draw is for the pictures of --input" in result.stderr) == (2, True)
    assert not Path("out").exists()


def test_colours_are_those_of_pascal_voc() -> None:
    assert palette(22)[[0, 1, 2, 3, 15, 20, 21], ::-1].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [192, 128, 128], [0, 64, 128], [128, 64, 128],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "expected"), [((2, 3, 4, 4), True), ((2, 1, 4, 4), True), ((2, 3), False), ((2, 3, 1, 1), False),
                            ((3, 3, 4, 4), False), ((2, 300, 4, 4), False)],
)  # fmt: skip
def test_what_is_a_label_map(shape: tuple[int, ...], expected: bool) -> None:
    assert is_label_map(np.ones(shape, np.float32), 2) == expected


def test_heights_are_no_labels() -> None:
    assert not is_label_map(np.full((1, 1, 4, 4), 0.5, np.float32), 1)
    assert label_map(np.full((1, 2, 2), 7, np.float32)).tolist() == [[7, 7], [7, 7]]


def test_boxes_beyond_the_picture() -> None:
    picture = np.zeros((30, 40, 3), np.uint8)
    assert in_pixels((-1, 0.25, 2, 0.5), (0, 0, 1, 1), (30, 40)) == (0, 10, 30, 20)
    assert with_boxes(picture, [Box(1, 0.9, (-5, -5, 9, 9), "é")], (0, 0, 1, 1)).any()
    assert not with_boxes(picture, [Box(1, 0.9, (0, 0, float("nan"), 1), None)], (0, 0, 1, 1)).any()
