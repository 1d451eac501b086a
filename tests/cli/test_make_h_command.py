"""caffeconv make-h: the file, the layer that uses it on stdout, warnings on stderr."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import ArrayLike, NDArray
from support.databases import raw, write_hdf5, write_list, write_lmdb, write_pictures

from caffeconv.caffe_format.prototxt import parse_text
from caffeconv.caffe_pb2 import NetParameter
from caffeconv.cli import main
from caffeconv.infogain.balance import class_weights
from caffeconv.infogain.matrices import distances_between, from_distances, smoothed, weighted, with_unit_rows
from caffeconv.infogain.reading import read_blob, read_matrix


def make_h(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["make-h", *map(str, arguments)])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "H.binaryproto"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree.txt"
    path.write_text("animal\n  cat\n  dog\nvehicle\n  car\n")
    return path


SIMILAR = np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]])
DISTANCES = [[0, 1, 4], [1, 0, 3], [4, 3, 0]]


def made(out: Path, *arguments: str | Path) -> NDArray[np.float32]:
    """H, and only it: no complaint."""
    result = make_h(*arguments, "-o", out)
    assert (result.exit_code, result.stderr) == (0, "")
    return np.asarray(read_blob(out)[0, 0])


def table(path: Path, rows: ArrayLike) -> Path:
    np.savetxt(path, np.atleast_2d(rows), delimiter=",")
    return path


# -- where H comes from ------------------------------------------------------------------------------------------------


def test_identity(out: Path) -> None:
    result = make_h("--identity", "3", "-o", out)
    assert result.exit_code == 0
    np.testing.assert_array_equal(read_blob(out), np.eye(3)[None, None])
    assert (
        result.stderr == "caffeconv: warning: H is the identity: InfogainLoss then computes what SoftmaxWithLoss does\n"
    )


@pytest.mark.parametrize("name", ["H.binaryproto", "H.h5", "H_lmdb"])
def test_stdout_is_the_layers(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    result = make_h("--class-weights", "0.5,2", "-o", out)
    assert result.stderr == ""
    net = NetParameter()
    parse_text(result.stdout, net, "stdout")
    loss = net.layer[-1]
    assert loss.type == "InfogainLoss"
    sources = {
        "H.binaryproto": loss.infogain_loss_param.source,
        "H.h5": f"{net.layer[0].hdf5_data_param.source}".removesuffix(".txt"),
        "H_lmdb": net.layer[0].data_param.source,
    }
    assert sources[name] == str(out)
    assert out.exists()


def test_source(out: Path, tmp_path: Path) -> None:
    result = make_h(table(tmp_path / "H.csv", [[1, 2], [0, 0]]), "-o", out, "--legacy")
    assert out.read_bytes()[:8] == bytes.fromhex("0801100118022002")
    np.testing.assert_array_equal(read_blob(out)[0, 0], [[1, 2], [0, 0]])
    for warning in ("H is not symmetric", "row 1 of H has only zeros", "the rows of H add up to 3"):
        assert f"warning: {warning}" in result.stderr


def test_distances(out: Path, tmp_path: Path) -> None:
    source = table(tmp_path / "d.csv", DISTANCES)
    result = make_h(source, "-o", out)
    assert result.exit_code == 0
    assert "zeros on its diagonal and positive numbers beside it, as distances do" in result.stderr
    np.testing.assert_array_equal(
        made(out, source, "--from-distances", "inverse", "--sigma", "2", "--normalize", "rows"),
        with_unit_rows(from_distances(DISTANCES, "inverse", 2)),
    )


def test_positions(out: Path, tmp_path: Path) -> None:
    expected = with_unit_rows(from_distances(distances_between([0, 1, 2.5]), "exp", 2))
    for given in ("0,1,2.5", str(table(tmp_path / "x.csv", [0, 1, 2.5]))):
        np.testing.assert_array_equal(made(out, "--positions", given, "--sigma", "2", "--normalize", "rows"), expected)
    linear = made(out, "--positions", "0,1,3", "--from-distances", "linear", "--normalize", "rows")
    np.testing.assert_array_equal(linear, with_unit_rows(from_distances(distances_between([0, 1, 3]), "linear")))


def test_hierarchy(out: Path, tmp_path: Path, tree: Path) -> None:
    np.testing.assert_array_equal(made(out, "--hierarchy", tree, "--normalize", "rows"), with_unit_rows(SIMILAR))
    (tmp_path / "labels.txt").write_text("car\ncat\ndog\n\n")
    by_name = made(out, "--hierarchy", tree, "--labels", tmp_path / "labels.txt", "--normalize", "rows")
    np.testing.assert_array_equal(by_name, with_unit_rows(np.roll(SIMILAR, (1, 1), (0, 1))))


def test_smoothing(out: Path) -> None:
    np.testing.assert_array_equal(made(out, "--identity", "4", "--smooth", "0.1"), smoothed(np.eye(4), 0.1))


# -- weights -----------------------------------------------------------------------------------------------------------


def test_class_weights(out: Path, tmp_path: Path) -> None:
    for given in ("0.25,1,3", str(table(tmp_path / "w.csv", [0.25, 1, 3]))):
        np.testing.assert_array_equal(made(out, "--class-weights", given), np.diag([0.25, 1, 3]))


def test_counts(out: Path, tmp_path: Path) -> None:
    counts = [900, 90, 10]
    given = table(tmp_path / "counts.csv", counts)
    np.testing.assert_allclose(made(out, "--counts", given), np.diag(class_weights(counts)), rtol=1e-6)
    inverse = made(out, "--counts", "900,90,10", "--balance", "inverse-frequency")
    np.testing.assert_allclose(inverse, np.diag(class_weights(counts, "inverse-frequency")), rtol=1e-6)
    effective = made(out, "--counts", given, "--balance", "effective-number", "--beta", "0.99")
    np.testing.assert_allclose(effective, np.diag(class_weights(counts, "effective-number", beta=0.99)), rtol=1e-6)


def test_weights_upon_similarities(out: Path, tree: Path) -> None:
    """Everything together, in the order that is promised: smoothing, unit rows, weights."""
    h = made(out, "--hierarchy", tree, "--smooth", "0.2", "--normalize", "rows", "--counts", "8,4,2")
    np.testing.assert_array_equal(h, weighted(with_unit_rows(smoothed(SIMILAR, 0.2)), [0.5, 1, 2]))


def test_counted_labels(out: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path, {"a.png": np.array([[0, 0, 0, 1]], np.uint8), "b.png": np.array([[2, 255]], np.uint8)})
    result = make_h("--count-labels", tmp_path, "--classes", "3", "--ignore-label", "255", "-o", out, "-v")
    assert result.exit_code == 0
    assert f"{tmp_path}: 5 labels in 2 items, 1 ignored\n" in result.stderr
    assert "class 0: 3 labels, weight 1\n" in result.stderr
    np.testing.assert_allclose(np.diagonal(read_blob(out)[0, 0]), [1, 3, 0.75])


def test_counted_labels_of_every_kind(out: Path, tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", {f"{i}": raw(np.full((1, 1, 1), 1 - i, np.uint8), i) for i in (0, 1)})
    write_hdf5(tmp_path / "a.h5", label=[0, 1], other=[1, 1])
    write_list(tmp_path / "list.txt", ["a.png 0", "b.png 1"])
    for name in ("db", "a.h5", "list.txt"):
        assert make_h("--count-labels", tmp_path / name, "-o", out).exit_code == 0
        np.testing.assert_array_equal(read_blob(out)[0, 0], np.eye(2))
    maps = make_h("--count-labels", tmp_path / "db", "--label-maps", "-o", out, "-v")
    assert "class 1: 1 labels" in maps.stderr
    named = make_h("--count-labels", tmp_path / "a.h5", "--dataset", "other", "-o", out)
    assert "warning: class 0 never occurs, so its weight is 0" in named.stderr


def test_the_matrix_says_how_many_classes_there_are(out: Path, tmp_path: Path, tree: Path) -> None:
    write_list(tmp_path / "list.txt", ["a.png 0", "b.png 3"])
    result = make_h("--count-labels", tmp_path / "list.txt", "--hierarchy", tree, "-o", out)
    assert result.exit_code == 1
    assert "list.txt, line 2 (b.png): label 3; 0 to 2 were needed" in result.stderr
    assert not out.exists()


# -- showing it --------------------------------------------------------------------------------------------------------


def test_show(tmp_path: Path, tree: Path) -> None:
    """Without -o nothing is written, and on no terminal nothing is coloured."""
    result = make_h("--hierarchy", tree, "--show", "-q")
    lines = ["           0    1  2", "0 cat    1  0.5  0", "1 dog  0.5    1  0", "2 car    0    0  1"]
    assert [line.rstrip() for line in result.stdout.splitlines()] == [lines[0][2:], *lines[1:]]
    assert result.stderr == ""
    assert sorted(tmp_path.iterdir()) == [tree]


def test_show_and_write(out: Path) -> None:
    result = make_h("--identity", "2", "--show", "-o", out, "-q")
    assert result.stdout.startswith("   0  1 \n0  1  0 \n1  0  1 \nlayer {\n")


def test_show_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    small, large = (make_h("--identity", str(size), "--show", "-q").stdout for size in (3, 100))
    assert "\x1b[" in small
    assert re.sub(r"\x1b\[[0-9;]*m", "", small).splitlines()[0] == "   0  1  2 "
    assert "▀" in large
    assert "100×100, 3×3 entries in each cell" in re.sub(r"\x1b\[[0-9;]*m|\n", "", large)


def test_long_lines_are_not_broken() -> None:
    assert len(make_h("--identity", "300", "--show", "-q").stdout.splitlines()) == 301


def test_plot(tmp_path: Path, tree: Path) -> None:
    result = make_h("--hierarchy", tree, "--plot", tmp_path / "H.png")
    assert (result.exit_code, result.stdout) == (0, "")
    picture = cv2.imread(str(tmp_path / "H.png"))
    assert picture is not None
    assert picture.shape[0] > 192


def test_quiet_and_verbose(out: Path) -> None:
    assert make_h("--identity", "2", "-o", out, "-q").stderr == ""
    assert "H.binaryproto: 2×2" in make_h("--identity", "2", "-o", out, "-v").stderr


# -- wrong use ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "nothing to make H of; one of SOURCE, --identity, --hierarchy, --positions, --class-weights, --counts"),
        (("x.csv", "--identity", "2"), 2, "SOURCE and --identity given; one of SOURCE, --identity, --hierarchy"),
        (("--counts", "1,2", "--class-weights", "1,2"), 2, "--class-weights and --counts given; one of"),
        (("--identity", "0"), 2, "0: 1 to 16384 was needed"),
        (
            ("--identity", "2", "--from-distances", "exp"),
            2,
            "--from-distances without distances; SOURCE or --positions",
        ),
        (("--identity", "2", "--sigma", "1"), 2, "--sigma is for --from-distances, which was not given"),
        (("--identity", "2", "--balance", "median-frequency"), 2, "--balance is for --counts or --count-labels, of"),
        (("--counts", "1,2", "--beta", "0.9"), 2, "--beta is for --balance effective-number, which was not given"),
        (("--counts", "1,2", "--classes", "2"), 2, "--classes is for --count-labels, which was not given"),
        (("--counts", "1,2", "--ignore-label", "0"), 2, "--ignore-label is for --count-labels, which was not given"),
        (("--counts", "1,2", "--label-maps"), 2, "--label-maps is for --count-labels, which was not given"),
        (("--counts", "1,2", "--dataset", "x"), 2, "--dataset is for --count-labels, which was not given"),
        (
            ("--counts", "1;2"),
            2,
            "--counts 1;2: neither numbers separated by commas, e.g. 900,90,10, nor a file that is",
        ),
        (("--class-weights", "nowhere.csv"), 2, "--class-weights nowhere.csv: neither numbers"),
        (("--identity", "2", "--plot", "H.jpg"), 2, "--plot H.jpg: a name that ends in .png was needed"),
        (("--counts", "1,-1"), 1, "class counts: -1 for class 1 (from 0); a number of at least 0 was needed"),
        (("--identity", "3", "--counts", "1,2"), 1, "2 class weights for 3 classes; one for each class was needed"),
        (("--positions", "0,1", "--sigma", "0"), 1, "--sigma 0: a number above 0 was needed"),
        (("--identity", "2", "--smooth", "1"), 1, "--smooth 1: 0 or more, and less than 1, was needed"),
        (("--identity", "2", "--labels", "labels.txt"), 1, "labels.txt: 3 class names for 2 classes; one for each"),
        (("--hierarchy", "labels.txt", "--labels", "nowhere.txt"), 1, "nowhere.txt: no such file"),
        (("--count-labels", "nowhere"), 1, "nowhere: no such file"),
        (("nowhere.csv",), 1, "nowhere.csv: no such file"),
    ],
)
def test_wrong_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("labels.txt").write_text("a\nb\nc\n")
    result = make_h(*arguments, "-o", "H.binaryproto")
    assert result.exit_code == code
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["labels.txt"]


def test_nothing_to_do_with_it() -> None:
    result = make_h("--identity", "2")
    assert result.exit_code == 2
    assert "nothing to do with H; -o FILE, --show or --plot PNG was needed" in result.stderr


@pytest.mark.parametrize("name", ["H.npy", "there_lmdb"])
def test_a_place_that_cannot_be_is_refused_before_counting(tmp_path: Path, name: str) -> None:
    (tmp_path / "there_lmdb").mkdir()
    (tmp_path / "there_lmdb" / "data.mdb").touch()
    (tmp_path / "list.txt").write_text("a.png x")
    result = make_h("--count-labels", tmp_path / "list.txt", "-o", tmp_path / name)
    assert result.exit_code == 1
    assert f"{tmp_path / name}: " in result.stderr


def test_input_is_not_overwritten(out: Path, tmp_path: Path) -> None:
    make_h("--identity", "2", "-o", out)
    before = out.read_bytes()
    listed = tmp_path / "H.h5.txt"
    listed.write_text("a.png 0")
    for arguments in ((out, "-o", out, "--legacy"), ("--count-labels", listed, "-o", tmp_path / "H.h5")):
        result = make_h(*arguments)
        assert result.exit_code == 1
        assert "this is the input, and is not overwritten" in result.stderr
    assert out.read_bytes() == before
    assert listed.read_text() == "a.png 0"


def test_what_is_written_can_be_read_again(tmp_path: Path) -> None:
    make_h("--positions", "0,1,3", "-o", tmp_path / "H.h5")
    make_h(tmp_path / "H.h5", "-o", tmp_path / "H.binaryproto")
    np.testing.assert_array_equal(read_matrix(tmp_path / "H.h5"), read_matrix(tmp_path / "H.binaryproto"))


def test_names_do_not_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(b"a\0b\n\x1b[2Jc\n")
    shown = make_h("--identity", "2", "--labels", tmp_path / "names.txt", "--show", "-q").stdout
    assert "a\\u0000b" in shown
    assert "\\u001b[2Jc" in shown
