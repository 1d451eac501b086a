"""Pictures in, classes out: sources, ten crops, formats; what is wrong is named."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from support.golden_cases import ROOT
from support.program import environment, script
from support.small_nets import write_net

import caffeconv
from caffeconv.cli import main
from caffeconv.data.images import read_image, resize
from caffeconv.data.input_images import ImageFiles, find_images, image_transform
from caffeconv.data.input_items import ImageSource
from caffeconv.data.prefetch import Prefetcher

DIGITS = ROOT / "fixtures" / "digits"
NET, WEIGHTS, LABELS = DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel", DIGITS / "labels.txt"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["run", str(NET), str(WEIGHTS), *map(str, arguments)])


def rows(*arguments: str | Path) -> list[dict[str, str]]:
    result = call("--format", "csv", *arguments)
    assert result.exit_code == 0, result.stderr
    return list(csv.DictReader(io.StringIO(result.stdout)))


# -- ten crops ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 9), st.integers(0, 9), st.booleans())
def test_ten_crops_in_the_order_of_pycaffe(down: int, right: int, with_mean: bool) -> None:
    """Corners row by row, the centre, then the five mirrored (caffe: io.py oversample)."""
    height, width = 4, 5
    picture = np.random.default_rng(0).integers(0, 256, (height + down, width + right, 3), np.uint8)
    mean = np.array([1, 2, 3], np.float32) if with_mean else None
    crops = image_transform(3, (height, width), resize=picture.shape[:2], mean=mean, scale=0.5).ten_crops(picture, "")
    starts = [(0, 0), (0, right), (down, 0), (down, right)]
    # caffe: the centre is im_shape / 2 - crop_dims / 2, cut off to whole numbers
    starts.append((int((height + down) / 2 - height / 2), int((width + right) / 2 - width / 2)))
    values = picture.astype(np.float32) - (mean if mean is not None else 0)
    expected = [values[y : y + height, x : x + width] * 0.5 for y, x in starts]
    expected += [crop[:, ::-1] for crop in expected]
    np.testing.assert_array_equal(crops, np.stack(expected).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("step", [1, 3, 10, 16])
def test_crops_go_through_batches_of_any_size(step: int) -> None:
    paths = tuple(DIGITS / f"{digit}.png" for digit in (3, 1, 4))
    transform = image_transform(1, (28, 28), resize=(32, 30))
    source = ImageSource("data", DIGITS, ImageFiles(paths), transform, step, color=False).ten_crops()
    with Prefetcher(source, None, 0) as prefetcher:
        parts = [prefetcher.next_batch().blobs[0].copy() for _ in range(0, source.count_items(), step)]
    whole = [transform.ten_crops(read_image(path, color=False), "") for path in paths]
    np.testing.assert_array_equal(np.concatenate(parts), np.concatenate(whole))
    assert [source.item_name(i) for i in (0, 9, 10, 29)] == [str(paths[i]) for i in (0, 0, 1, 2)]


def test_oversample_is_the_mean_over_ten_forwards() -> None:
    net = caffeconv.Net(NET, WEIGHTS)
    transform = image_transform(1, (28, 28), resize=(34, 36))
    expected = [
        net.forward(data=transform.ten_crops(read_image(DIGITS / f"{digit}.png", color=False), ""))["prob"].mean(axis=0)
        for digit in range(3)
    ]
    pictures = [argument for digit in range(3) for argument in ("--input", DIGITS / f"{digit}.png")][:2]
    found = rows("--oversample", "--resize", "34x36", "--top-k", "10", *pictures)
    scores = {int(row["class"]): float(row["score"]) for row in found}
    np.testing.assert_allclose([scores[k] for k in range(10)], expected[0], rtol=1e-5)
    all_of_them = rows("--oversample", "--resize", "34x36", "--top-k", "1", "--batch-size", "7", "--input", DIGITS)
    assert [int(row["class"]) for row in all_of_them[:3]] == [int(np.argmax(mean)) for mean in expected]


def test_without_oversample_it_is_the_centre() -> None:
    picture = resize(read_image(DIGITS / "5.png", color=False), 33, 31)
    net = caffeconv.Net(NET, WEIGHTS)
    centre = picture[2:30, 1:29].transpose(2, 0, 1)[None].astype(np.float32)
    expected = net.forward(data=centre)["prob"][0].max()
    (row,) = rows("--resize", "33x31", "--top-k", "1", "--input", DIGITS / "5.png")
    np.testing.assert_allclose(float(row["score"]), expected, rtol=1e-5)


def test_oversample_needs_pictures_and_classes(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 28, 28), np.float32))
    result = call("--oversample", "--input", tmp_path / "x.npy")
    assert (result.exit_code, "crops are taken of pictures" in result.stderr) == (1, True)
    assert "and its mirror image" in call("--oversample", "--input", DIGITS / "1.png").stderr


# -- sources -----------------------------------------------------------------------------------------------------------


def test_a_list_gives_pictures_and_classes(tmp_path: Path) -> None:
    for digit in (7, 2):
        shutil.copy(DIGITS / f"{digit}.png", tmp_path / f"a {digit}.png")
    listed = tmp_path / "list.txt"
    listed.write_text("a 7.png 7\r\na 2.png 3\r\n\r\n")
    found = rows("--input", listed, "--labels", LABELS, "--top-k", "2")
    assert [(Path(row["item"]).name, row["rank"], row["class"], row["label"], row["own_class"]) for row in found[::2]] == [
        ("a 7.png", "1", "7", "seven", "7"), ("a 2.png", "1", "2", "two", "3"),
    ]  # fmt: skip
    result = call("--input", listed, "--top-k", "2")
    assert "prob: 1 of 2 items come out first as their list says (50.00%)" in result.stderr

    listed.write_text("a 7.png\na 2.png\n")
    assert find_images(listed).classes is None
    assert "own_class" not in rows("--input", listed)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "File is empty"),
        ("7.png 7\n2.png\n", "line 2: '2.png'; other lines end in a class number"),
        ("7.png 7\nabsent.png 1\n", "list.txt, line 2: there is no picture absent.png"),
        ("labels.txt 7\n", "labels.txt: not a readable picture"),
    ],
)
def test_a_bad_list_is_named(tmp_path: Path, content: str, message: str) -> None:
    shutil.copy(DIGITS / "7.png", tmp_path)
    shutil.copy(LABELS, tmp_path)
    (tmp_path / "list.txt").write_text(content)
    result = call("--input", tmp_path / "list.txt")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_bad_picture_is_named_and_the_rest_is_there(tmp_path: Path) -> None:
    for i in range(4):
        shutil.copy(DIGITS / "7.png", tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes((DIGITS / "7.png").read_bytes()[:60])
    result = call("--input", tmp_path, "--batch-size", "1", "--format", "jsonl")
    assert result.exit_code == 1
    assert f"{tmp_path / '2.png'}: the picture is cut off after 60 bytes" in result.stderr
    assert [json.loads(line)["item"] for line in result.stdout.splitlines()] == [
        str(tmp_path / f"{i}.png") for i in (0, 1)
    ]


@pytest.fixture
def some_damaged(tmp_path: Path) -> Path:
    """Three digits, a picture that is cut off, and one that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for digit in (1, 2, 3):
        shutil.copy(DIGITS / f"{digit}.png", folder)
    (folder / "15.png").write_bytes((DIGITS / "4.png").read_bytes()[:60])
    (folder / "16.jpg").write_text("none")
    return folder


@pytest.mark.parametrize("more", [(), ("--batch-size", "1"), ("--oversample", "--resize", "28")])
def test_damaged_pictures_are_passed_over(some_damaged: Path, more: tuple[str, ...]) -> None:
    arguments = ("--top-k", "1", "--format", "jsonl", *more)
    result = call("--input", some_damaged, "--skip-bad", *arguments)
    assert result.exit_code == 0, result.stderr
    quiet = call("--input", some_damaged, "--skip-bad", "-q", *more)
    assert quiet.exit_code == 0
    assert len(quiet.stdout.splitlines()) > len(quiet.stderr.splitlines())
    alone = [call("--input", some_damaged / f"{digit}.png", *arguments).stdout for digit in (1, 2, 3)]
    found, wanted = ([json.loads(line) for line in text.splitlines()] for text in (result.stdout, "".join(alone)))
    assert [(line["item"], line["classes"][0]["class"]) for line in found] == [
        (line["item"], line["classes"][0]["class"]) for line in wanted
    ]
    assert "2 damaged items were passed over:" in result.stderr
    assert f"  {some_damaged / '15.png'}: the picture is cut off after 60 bytes" in result.stderr
    assert f"  {some_damaged / '16.jpg'}: not a readable picture" in result.stderr


def test_damaged_pictures_of_a_list_in_a_table(some_damaged: Path) -> None:
    listed = some_damaged / "list.txt"
    listed.write_text("1.png 1\nabsent.png 2\n15.png 3\njunk\n3.png 4\n")
    result = call("--input", listed, "--skip-bad", "--top-k", "1")
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == [
        str(some_damaged / name) for name in ("1.png", "3.png")
    ]
    assert "prob: 1 of 2 items come out first" in result.stderr
    assert "3 damaged items were passed over" in result.stderr
    assert "list.txt, line 2: there is no picture absent.png" in result.stderr
    assert "list.txt, line 4: 'junk'" in result.stderr
    listed.write_text("absent.png 1\n")
    assert "not one line of it can be used; the first: " in call("--input", listed, "--skip-bad").stderr


def test_passing_over_has_its_limits(some_damaged: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.csv"
    result = call("--input", some_damaged / "16.jpg", "--skip-bad", "--top-k", "1", "-o", out)
    assert (result.exit_code, "not one picture of --input can be used" in result.stderr) == (1, True)
    for more in (("-o", tmp_path / "x.npz"), ("-o", tmp_path / "x.npy", "--blobs", "ip1"), ("--engine", "ray")):
        result = call("--input", some_damaged, "--skip-bad", *more)
        assert (result.exit_code, "--skip-bad with --input is for" in result.stderr) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


# -- formats -----------------------------------------------------------------------------------------------------------


def test_formats_say_the_same() -> None:
    arguments = ["--input", f"{DIGITS}/*.png", "--labels", str(LABELS), "--top-k", "3", "--batch-size", "4"]
    table = call(*arguments)
    lines = [json.loads(line) for line in call(*arguments, "--format", "jsonl", "-q").stdout.splitlines()]
    from_csv = rows(*arguments)
    assert [line["item"] for line in lines] == [str(DIGITS / f"{digit}.png") for digit in range(10)]
    flat = [(line["item"], best["class"], best["label"], best["score"]) for line in lines for best in line["classes"]]
    assert flat == [(row["item"], int(row["class"]), row["label"], float(row["score"])) for row in from_csv]
    assert [row["rank"] for row in from_csv] == ["1", "2", "3"] * 10
    shown = [line.split() for line in table.stdout.splitlines()]
    assert shown[0] == ["item", "prob", "class", "label"]
    assert [(int(line[-2]), line[-1]) for line in shown[1:]] == [(number, label) for _, number, label, _ in flat]
    assert (
        len({line.index(f"{score:.4f}") for line, (*_, score) in zip(table.stdout.splitlines()[1:], flat, strict=True)})
        == 1
    )


def test_scores_that_are_no_numbers(tmp_path: Path) -> None:
    """JSON has no NaN, and readers of it other than Python's refuse one."""
    net = caffeconv.Net(NET, WEIGHTS)
    net.params["ip2"][1].data[3] = np.nan
    net.save(tmp_path / "nan.caffemodel")
    command = ["run", str(NET), str(tmp_path / "nan.caffemodel"), "--input", str(DIGITS / "7.png")]
    result = CliRunner().invoke(main, [*command, "--top-k", "1", "--format", "jsonl"])
    assert result.stdout.endswith('"classes": [{"class": 0, "score": null}]}\n')
    assert CliRunner().invoke(main, [*command, "--format", "csv"]).stdout.splitlines()[1].endswith(",nan")


def test_names_with_commas_and_quotes(tmp_path: Path) -> None:
    name = tmp_path / 'a, "b".png'
    shutil.copy(DIGITS / "7.png", name)
    assert rows("--input", tmp_path, "--top-k", "1")[0]["item"] == str(name)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_formats_are_for_classes(tmp_path: Path, form: str) -> None:
    result = call("--input", DIGITS / "7.png", "--blobs", "ip1", "--format", form)
    assert result.exit_code == 1
    assert f"--format {form}: output 'ip1' is 1×64, and not the probabilities of classes" in result.stderr
    for refused in ("x.npz", "x.jsonl" if form == "csv" else "x.csv"):
        result = call("--input", DIGITS / "7.png", "--format", form, "-o", tmp_path / refused)
        assert result.exit_code == 2
        assert "the suffix says how" in result.stderr
    result = call("--input", DIGITS / "7.png", "--resume", "-o", tmp_path / "x.jsonl")
    assert (result.exit_code, "--resume continues files of whole blobs" in result.stderr) == (2, True)
    result = call("--input", DIGITS / "7.png", "--blobs", "ip1", "-o", tmp_path / "x.jsonl")
    assert (result.exit_code, "x.jsonl: output 'ip1' is 1×64" in result.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_holds_what_would_be_printed(tmp_path: Path) -> None:
    arguments: list[str | Path] = ["--input", DIGITS, "--labels", LABELS, "--batch-size", "4"]
    printed = {form: call(*arguments, "--format", form).stdout for form in ("csv", "jsonl")}
    for name, more in (
        ("a.csv", []),
        ("b.csv", ["--format", "csv"]),
        ("a.jsonl", []),
        ("b.jsonl", ["--format", "jsonl"]),
    ):
        result = call(*arguments, *more, "-o", tmp_path / name)
        assert (result.exit_code, result.stdout) == (0, "")
        assert f"{name}: classes of 10 items" in result.stderr
        assert (tmp_path / name).read_text() == printed[Path(name).suffix[1:]]
    assert call(*arguments, "-o", tmp_path / "a.json").exit_code == 0
    assert json.loads((tmp_path / "a.json").read_text()) == [json.loads(line) for line in printed["jsonl"].splitlines()]


def test_whole_blobs_where_nobody_asks_for_classes(tmp_path: Path) -> None:
    for name, *more in (("a.csv",), ("b.csv", "--labels", str(LABELS), "--blobs", "ip1")):
        assert call("--input", DIGITS / "7.png", "-o", tmp_path / name, *more).exit_code == 0
        assert (tmp_path / name).read_text().startswith("item,prob[0],prob[1]")


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.json"])
def test_a_bad_picture_leaves_no_file(tmp_path: Path, name: str) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(3):
        shutil.copy(DIGITS / "7.png", pictures / f"{i}.png")
    (pictures / "2.png").write_bytes((DIGITS / "7.png").read_bytes()[:60])
    (tmp_path / name).write_text("of another day")
    result = call("--input", pictures, "--batch-size", "1", "--top-k", "1", "-o", tmp_path / name)
    assert (result.exit_code, "2.png: the picture is cut off" in result.stderr) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", name]
    assert (tmp_path / name).read_text() == "of another day"


def detector(folder: Path) -> Path:
    """Two boxes in every picture, of classes 1 and 2; nothing where it is black."""
    layers = (
        'layer { name: "map" type: "Pooling" bottom: "data" top: "map" pooling_param { pool: AVE global_pooling: true } }\n'
        'layer { name: "prior" type: "PriorBox" bottom: "map" bottom: "data" top: "prior" '
        "prior_box_param { min_size: 14 max_size: 20 } }\n"
        'layer { name: "loc" type: "InnerProduct" bottom: "map" top: "loc" inner_product_param { num_output: 8 } }\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "map" top: "ip" inner_product_param { num_output: 6 } }\n'
        'layer { name: "rows" type: "Reshape" bottom: "ip" top: "rows" reshape_param { shape { dim: 0 dim: 2 dim: 3 } } }\n'
        'layer { name: "scores" type: "Softmax" bottom: "rows" top: "scores" softmax_param { axis: 2 } }\n'
        'layer { name: "conf" type: "Flatten" bottom: "scores" top: "conf" }\n'
        'layer { name: "found" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "prior" top: "found" '
        "detection_output_param { num_classes: 3 keep_top_k: 9 nms_param { nms_threshold: 0.99 } } }\n"
    )
    net = write_net(folder, {"data": (1, 1, 28, 28)}, layers)
    opened = caffeconv.Net(net)
    opened.params["ip"][0].data[:, 0] = [0, 0.1, 0, 0, 0, 0.2]
    opened.save(folder / "net.caffemodel")
    return net


def test_boxes(tmp_path: Path) -> None:
    net = detector(tmp_path)
    for i, grey in enumerate((200, 0, 100)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((28, 28), grey, np.uint8))
    listed = tmp_path / "labels.txt"
    listed.write_text("nothing\ncat\n")
    arguments = ["run", net, tmp_path / "net.caffemodel", "--input", tmp_path, "--labels", listed, "--batch-size", "2"]

    def run(*more: str | Path) -> Result:
        return CliRunner().invoke(main, [*map(str, arguments), *map(str, more)])

    pictures = np.stack([np.full((1, 28, 28), grey, np.float32) for grey in (200, 0, 100)])
    opened = caffeconv.Net(net, tmp_path / "net.caffemodel")
    wanted = [
        (str(tmp_path / f"{i}.png"), row[1:])
        for i, picture in enumerate(pictures)
        for row in opened.forward(data=picture[None])["found"].reshape(-1, 7).tolist()
        if row[2] >= 0.5 and row[1] >= 0
    ]
    assert [(item, box[0]) for item, box in wanted] == [
        (str(tmp_path / f"{i}.png"), label) for i in (0, 2) for label in (1, 2)
    ]

    printed = run("--format", "csv").stdout
    found = list(csv.DictReader(io.StringIO(printed)))
    assert [row["item"] for row in found] == [item for item, _ in wanted]
    values = np.array(
        [[float(row[key]) for key in ("class", "score", "xmin", "ymin", "xmax", "ymax")] for row in found]
    )
    np.testing.assert_allclose(values, np.array([box for _, box in wanted]), rtol=1e-6)
    assert [row["label"] for row in found] == ["cat", "", "cat", ""]
    assert run("-o", tmp_path / "boxes.csv").exit_code == 0
    assert (tmp_path / "boxes.csv").read_text() == printed

    lines = [json.loads(line) for line in run("--format", "jsonl").stdout.splitlines()]
    assert [(Path(line["item"]).name, line["output"], len(line["detections"])) for line in lines] == [
        ("0.png", "found", 2), ("1.png", "found", 0), ("2.png", "found", 2),
    ]  # fmt: skip
    flat = [
        {"item": line["item"], "output": "found", **{key: str(value) for key, value in box.items()}}
        for line in lines
        for box in line["detections"]
    ]
    assert flat == found
    assert run("-o", tmp_path / "boxes.json").exit_code == 0
    assert json.loads((tmp_path / "boxes.json").read_text()) == lines
    everything = run("--format", "jsonl", "--threshold", "0.01").stdout.splitlines()
    assert len(json.loads(everything[1])["detections"]) == 4  # each class as likely as the others, of each of two boxes


def test_a_model_of_any_size_takes_pictures(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    arguments = ["convert", str(NET), str(WEIGHTS), "--fully-convolutional", "-o", str(model)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    refused = CliRunner().invoke(main, ["run", str(model), "--input", str(DIGITS / "7.png")])
    assert (refused.exit_code, "--resize 480x640" in refused.stderr) == (1, True)
    large = tmp_path / "large.png"
    cv2.imwrite(str(large), np.zeros((90, 80), np.uint8))
    result = CliRunner().invoke(main, ["run", str(model), "--input", str(large), "--resize", "40x36"])
    assert "1×10×4×3" in result.stdout


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_folder(tmp_path: Path) -> None:
    """Holding the inputs of 2,000 more items would take 98 MB, their scores 40 MB."""
    layers = (
        'layer { name: "p" type: "Pooling" bottom: "x" top: "p" pooling_param { pool: AVE global_pooling: true } }\n'
        'layer { name: "fc" type: "InnerProduct" bottom: "p" top: "fc" inner_product_param { num_output: 5000 } }\n'
        'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }\n'
    )
    net = write_net(tmp_path, {"x": (1, 3, 64, 64)}, layers)
    listed = tmp_path / "list.txt"
    code = (
        "import re, sys; from caffeconv.cli import main\n"
        "try: main(sys.argv[1:])\n"
        # not getrusage, which counts the parent's memory too
        "finally: print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr)"
    )
    peaks = []
    for items in (100, 2100):
        listed.write_text(f"{DIGITS / '7.png'}\n" * items)
        command = [*script(tmp_path, code), "run", str(net), "--format", "jsonl", "--input", str(listed)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
        assert len(done.stdout.splitlines()) == items
        peaks.append(int(done.stderr.split()[-1]))
    assert peaks[1] < peaks[0] + 20_000  # kB
