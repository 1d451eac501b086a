"""`caffeconv run` over databases and lists, as its users meet it: scores, features, resuming, and damaged sources."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.databases import encoded, pixels, raw, write_hdf5, write_list, write_lmdb, write_mean, write_pictures
from support.golden_cases import ROOT, Array
from support.program import environment, heed_ctrl_c, program, script

import caffeconv
from caffeconv.cli import main
from caffeconv.inference.checkpoint import Checkpoint

DIGITS = ROOT / "fixtures" / "digits"
NET, WEIGHTS = DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel"
IP = (
    'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 5 '
    'weight_filler { type: "gaussian" std: 0.01 } } }\n'
)
LOSS = IP + (
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 2 }\n'
    'layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" }\n'
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["run", *map(str, arguments)])


def refusal(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)
    return result.stderr


def data_layer(source: str = "db", batch: int = 4, more: str = "") -> str:
    return (
        f'layer {{ name: "source" type: "Data" top: "data" top: "label" {more} '
        f'data_param {{ source: "{source}" backend: LMDB batch_size: {batch} }} }}\n'
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten digits of noise in the LMDB db, and a net over them."""
    monkeypatch.chdir(tmp_path)
    write_lmdb(tmp_path / "db", {f"{i:03}": raw(pixels(1, 28, 28, seed=i), i % 5) for i in range(10)})
    (tmp_path / "net.prototxt").write_text(data_layer() + LOSS)
    return tmp_path


# -- caffe test --------------------------------------------------------------------------------------------------------


def test_scores(here: Path) -> None:
    result = run("net.prototxt", "--iterations", 5, "--per-batch", "batches.csv", "-v")
    assert result.exit_code == 0, result.stderr
    net = caffeconv.Net("net.prototxt")
    forwards = [{name: float(values) for name, values in net.forward().items()} for _ in range(5)]
    loss, accuracy = (np.mean([forward[name] for forward in forwards]) for name in ("loss", "accuracy"))
    assert result.stdout.splitlines() == [
        f"Loss: {2 * loss:.6g}", f"accuracy = {accuracy:.6g}", f"loss = {loss:.6g} (* 2 = {2 * loss:.6g} loss)"
    ]  # fmt: skip
    assert "items/s, " in result.stderr
    assert "% of the time waiting for data" in result.stderr
    header, *rows = csv.reader(Path("batches.csv").read_text().splitlines())
    assert header == ["batch", "accuracy", "loss", "loss"]
    assert [int(row[0]) for row in rows] == list(range(5))
    np.testing.assert_allclose([float(row[2]) for row in rows], [forward["loss"] for forward in forwards], rtol=1e-6)


def test_a_whole_round_and_what_is_said_of_it(here: Path) -> None:
    result = run("net.prototxt")
    assert "db: 10 items, 3 batches of 4" in result.stderr
    assert "the last batch was filled up with the first 2 items again, as Caffe does: they count twice" in result.stderr
    assert result.stdout == run("net.prototxt", "--iterations", 3, "-q").stdout


def test_batches_on_stdout(here: Path) -> None:
    result = run("net.prototxt", "--per-batch", "-", "-q")
    assert [line.split(",")[0] for line in result.stdout.splitlines()] == ["batch", "0", "1", "2"]
    assert "accuracy = " in result.stderr


def test_pictures_of_a_list() -> None:
    result = run(DIGITS / "train_val.prototxt", WEIGHTS, "-q")
    assert result.stdout.splitlines()[1] == "accuracy = 1"


def test_a_net_without_data(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(
        'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 2 } data_filler { value: 3 } } }'
        'layer { name: "e" type: "EuclideanLoss" bottom: "d" bottom: "d" top: "e" }'
    )
    assert run(net).stdout.splitlines() == ["Loss: 0", "e = 0 (* 1 = 0 loss)"]


def test_a_train_phase_is_drawn_from_a_seed(here: Path) -> None:
    (here / "net.prototxt").write_text(data_layer(more="transform_param { mirror: true crop_size: 20 }") + LOSS)
    first = run("net.prototxt", "--phase", "train", "-q", "--decoders", 0).stdout
    assert first == run("net.prototxt", "--phase", "train", "-q", "--decoders", 4).stdout
    assert first != run("net.prototxt", "--phase", "test", "-q").stdout


def test_found_beside_the_prototxt(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    result = run(here / "net.prototxt")
    assert result.exit_code == 0
    assert (
        f"db is not there as seen from the current folder; {here / 'db'}, beside the prototxt, is taken"
        in result.stderr
    )


# -- extract_features --------------------------------------------------------------------------------------------------


def read(out: Path, blob: str) -> Array:
    if out.suffix == ".npy":
        return np.asarray(np.load(out))
    if out.suffix == ".npz":
        return np.asarray(np.load(out)[blob])
    with h5py.File(out) as file:
        return np.asarray(file[blob])


def features() -> Array:
    """What ip1 is for the ten digits of db."""
    net = caffeconv.Net(NET, WEIGHTS)
    values = np.stack([pixels(1, 28, 28, seed=i) for i in range(10)]).astype(np.float32)
    return net.forward(blobs=["ip1"], data=values)["ip1"]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
@pytest.mark.parametrize("batch", [1, 4])
def test_features_of_a_database(here: Path, suffix: str, batch: int) -> None:
    out = here / f"f{suffix}"
    result = run(NET, WEIGHTS, "--input-db", "db", "--batch-size", batch, "--blobs", "ip1", "-o", out)
    assert result.exit_code == 0, result.stderr
    assert f"f{suffix}: ip1 10×64, of 10 items" in result.stderr
    np.testing.assert_allclose(read(out, "ip1"), features(), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("here")
def test_features_are_data_for_another_net() -> None:
    """What is written as an LMDB is read by a Data layer, as Caffe's own files are."""
    assert run(NET, WEIGHTS, "--input-db", "db", "--blobs", "ip1", "-o", "f.lmdb").exit_code == 0
    Path("next.prototxt").write_text(data_layer("f.lmdb", 10))
    batch = caffeconv.Net("next.prototxt").forward(blobs=["data"])["data"]
    assert batch.shape == (10, 64, 1, 1)
    np.testing.assert_allclose(batch[:, :, 0, 0], features(), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("here")
def test_features_of_a_training_net_take_its_data_layer(tmp_path: Path) -> None:
    assert run("net.prototxt", "--blobs", "ip", "--blobs", "label", "-o", "f.npz").exit_code == 0
    found = np.load("f.npz")
    assert found["ip"].shape == (10, 5)
    np.testing.assert_array_equal(found["label"], np.arange(10) % 5)
    write_lmdb(tmp_path / "other", {"a": raw(pixels(1, 28, 28), 3), "b": raw(pixels(1, 28, 28, seed=1), 4)})
    assert run("net.prototxt", "--blobs", "label", "--input-db", "other", "-o", "g.npy").exit_code == 0
    np.testing.assert_array_equal(np.load("g.npy"), [3, 4])
    # caffe: extract_features runs whole batches
    assert run("net.prototxt", "--blobs", "label", "--iterations", 3, "-o", "h.npy").exit_code == 0
    assert np.load("h.npy").tolist() == [*(np.arange(10) % 5), 0, 1]


def test_leveldb(here: Path) -> None:
    plyvel = pytest.importorskip("plyvel")
    with plyvel.DB("level", create_if_missing=True) as database:
        for i in range(10):
            database.put(b"%03d" % i, raw(pixels(1, 28, 28, seed=i)))
    assert run(NET, WEIGHTS, "--input-db", "level", "--blobs", "ip1", "-o", "f.npy").exit_code == 0
    np.testing.assert_allclose(np.load("f.npy"), features(), rtol=1e-5, atol=1e-6)


def test_a_mean_a_scale_and_a_crop(here: Path) -> None:
    pictures = [pixels(32, 32, seed=i) for i in range(3)]
    write_lmdb(here / "big", {str(i): encoded(picture) for i, picture in enumerate(pictures)})
    options = ("--mean", "10", "--scale", "0.5")
    assert run(NET, WEIGHTS, "--input-db", "data=big", *options, "--blobs", "scaled", "-o", "f.npy").exit_code == 0
    want = [(picture[None, 2:30, 2:30] - np.float32(10)) * np.float32(0.5) / 256 for picture in pictures]
    np.testing.assert_allclose(np.load("f.npy"), want, rtol=1e-6, atol=1e-7)
    write_mean(here / "mean.binaryproto", np.full((1, 32, 32), 10, np.float32))
    options = ("--mean", "mean.binaryproto", "--scale", "0.5")
    assert run(NET, WEIGHTS, "--input-db", "big", *options, "--blobs", "scaled", "-o", "g.npy").exit_code == 0
    np.testing.assert_array_equal(np.load("f.npy"), np.load("g.npy"))


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".npy"])
def test_features_of_pictures_row_by_row(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"f{suffix}"
    result = run(NET, WEIGHTS, "--input", DIGITS, "--blobs", "ip1", "--batch-size", 3, "-o", out, "--resume")
    assert result.exit_code == 0, result.stderr
    net = caffeconv.Net(NET, WEIGHTS)
    import cv2

    pictures = [cv2.imread(str(DIGITS / f"{i}.png"), 0) for i in range(10)]
    data = np.stack([cv2.resize(picture, (28, 28)) for picture in pictures if picture is not None])[:, None]
    want = net.forward(blobs=["ip1"], data=data.astype(np.float32))["ip1"]
    np.testing.assert_allclose(read(out, "ip1"), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("more", [(), ("--resume",), ("--decoders", "0")])
def test_features_of_an_array_name_its_items(tmp_path: Path, more: tuple[str, ...]) -> None:
    """That names of items end where the items do: the file was never finished."""
    np.save(tmp_path / "x.npy", np.stack([pixels(1, 28, 28, seed=i) for i in range(10)]))
    out = tmp_path / "f.h5"
    arguments = ("--input", tmp_path / "x.npy", "--blobs", "ip1", "--batch-size", 4, "-o", out, *more)
    assert run(NET, WEIGHTS, *arguments).exit_code == 0
    with h5py.File(out) as file:
        assert [name.decode() for name in file["items"]] == [f"x.npy[{i}]" for i in range(10)]
    np.testing.assert_allclose(read(out, "ip1"), features(), rtol=1e-5, atol=1e-5)


def test_features_of_pictures_go_on_where_they_stopped(tmp_path: Path) -> None:
    """Behind a picture that is cut off, and is there again the next time."""
    for digit in range(10):
        (tmp_path / f"{digit}.png").write_bytes((DIGITS / f"{digit}.png").read_bytes())
    command = (NET, WEIGHTS, "--input", tmp_path, "--blobs", "ip1", "--batch-size", 2, "-o")
    assert run(*command, tmp_path / "whole.h5").exit_code == 0
    whole, status = (tmp_path / "7.png").read_bytes(), (tmp_path / "7.png").stat()
    (tmp_path / "7.png").write_bytes(whole[:60] + bytes(len(whole) - 60))
    os.utime(tmp_path / "7.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "7.png: " in refusal(*command, tmp_path / "f.h5")
    (tmp_path / "7.png").write_bytes(whole)
    os.utime(tmp_path / "7.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "mean, scale: None, 1 then, 3, 1 now" in refusal(*command, tmp_path / "f.h5", "--resume", "--mean", "3")
    result = run(*command, tmp_path / "f.h5", "--resume")
    assert "going on after 6 items" in result.stderr
    assert (tmp_path / "f.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


# -- going on after an interruption ------------------------------------------------------------------------------------


def process(*arguments: object) -> subprocess.Popen[bytes]:
    command = [*program(), "run", *map(str, arguments)]
    return subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, preexec_fn=heed_ctrl_c)  # noqa: PLW1509


def wait_for_rows(folder: Path, child: subprocess.Popen[bytes]) -> int:
    """Until the journal of a run counts rows: how many."""
    while child.poll() is None:
        try:
            items = int(json.loads((folder / "journal.json").read_text())["items"])
        except (OSError, ValueError):
            items = 0
        if items:
            return items
        time.sleep(0.01)
    raise AssertionError(f"the run ended before anything was written: {child.communicate()[1].decode()}")


MANY = 12_000


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough items to be interrupted in the middle of."""
    folder = tmp_path_factory.mktemp("many")
    noise = [pixels(1, 28, 28, seed=i) for i in range(16)]
    with lmdb.open(str(folder / "db"), map_size=1 << 28) as environment, environment.begin(write=True) as transaction:
        for i in range(MANY):
            transaction.put(b"%06d" % i, raw(noise[i * i % 16], i % 5))
    return folder


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("suffix", [".h5", ".lmdb"])
def test_killed_and_gone_on_with(many: Path, tmp_path: Path, sent: signal.Signals, suffix: str) -> None:
    command = (NET, WEIGHTS, "--input-db", many / "db", "--batch-size", 2, "--blobs", "ip1", "--blobs", "prob")
    out = tmp_path / f"f{suffix}"
    child = process(*command, "-o", out)
    before = wait_for_rows(tmp_path / f"f{suffix}.partial", child)
    child.send_signal(sent)
    said = child.communicate()[1].decode()
    assert child.returncode != 0
    assert not out.exists()
    kept = int(json.loads((tmp_path / f"f{suffix}.partial" / "journal.json").read_text())["items"])
    assert before <= kept < MANY
    if sent == signal.SIGINT:
        assert f"stopped: {kept} items are in" in said
        assert "--resume continues" in said
    assert "Traceback" not in said
    assert f"an interrupted run left {kept} items here" in refusal(*command, "-o", out)
    result = run(*command, "-o", out, "--resume")
    assert f"going on after {kept} items" in result.stderr
    assert not (tmp_path / f"f{suffix}.partial").exists()
    whole = many / f"whole{suffix}"
    assert whole.exists() or run(*command, "-o", whole).exit_code == 0
    files = [Path()] if out.is_file() else sorted(p.relative_to(out) for p in out.rglob("*.mdb"))
    assert files
    for file in files:
        assert (out / file).read_bytes() == (whole / file).read_bytes()


class KilledError(Exception):
    pass


@pytest.mark.parametrize(
    ("suffix", "moment"),
    [(suffix, moment) for suffix in (".npy", ".npz", ".h5", ".lmdb") for moment in ("first", "emptied", "last")
     if (suffix, moment) != (".npy", "emptied")],  # its only part has become the file
)  # fmt: skip
def test_killed_when_the_file_is_there(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, moment: str
) -> None:
    """Before the folder of rows is touched, while it is emptied, and before it goes."""
    out, whole, partial = tmp_path / f"f{suffix}", tmp_path / f"whole{suffix}", tmp_path / f"f{suffix}.partial"
    unlink = Path.unlink

    def killed(*_: object) -> None:
        raise KilledError

    def killed_at_the_second(path: Path, missing_ok: bool = False) -> None:
        if path.parent == partial and path.name == "1.npy":
            raise KilledError
        unlink(path, missing_ok=missing_ok)

    blobs = ("--blobs", "prob") if suffix == ".npy" else ("--blobs", "ip1", "--blobs", "prob")
    command = (NET, WEIGHTS, "--input-db", many / "db", "--batch-size", "1000", *blobs)
    assert run(*command, "-o", whole).exit_code == 0
    with monkeypatch.context() as patched:
        if moment == "first":
            patched.setattr(Checkpoint, "remove", killed)
        elif moment == "emptied":
            patched.setattr(Path, "unlink", killed_at_the_second)
        else:
            draw = os.urandom
            patched.setattr(os, "urandom", lambda size: killed() if size == 6 and out.exists() else draw(size))
        assert isinstance(run(*command, "-o", out).exception, KilledError)
    assert partial.exists()
    made = out.stat().st_ino
    result = run(*command, "-o", out, "--resume")
    assert result.exit_code == 0, result.stderr
    if suffix == ".lmdb" or moment != "first":
        assert f"{out}: complete already" in result.stderr
        assert out.stat().st_ino == made
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([out.name, whole.name])
    for file in [Path()] if out.is_file() else sorted(path.relative_to(out) for path in out.rglob("*.mdb")):
        assert (out / file).read_bytes() == (whole / file).read_bytes()


def test_rows_that_a_removal_left_do_not_count(many: Path, tmp_path: Path) -> None:
    command = (NET, WEIGHTS, "--input-db", many / "db", "--batch-size", "1000", "--blobs", "prob", "-o")
    partial = tmp_path / "f.npy.partial"
    partial.mkdir()
    (partial / "0.npy").write_bytes(bytes(4000))
    assert run(*command, tmp_path / "f.npy").exit_code == 0
    assert run(*command, tmp_path / "whole.npy").exit_code == 0
    assert (tmp_path / "f.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.mark.usefixtures("here")
def test_another_run_is_not_gone_on_with(many: Path, tmp_path: Path) -> None:
    command = ("--input-db", many / "db", "--batch-size", 2, "--blobs", "ip1", "-o", "f.h5")
    child = process(NET, WEIGHTS, *command)
    wait_for_rows(tmp_path / "f.h5.partial", child)
    child.kill()
    child.communicate()
    said = refusal(NET, WEIGHTS, *command, "--resume", "--scale", "0.5")
    assert "mean, scale: None, 1 then, None, 0.5 now" in said
    assert "caffe.weights.sha256: " in refusal(NET, *command, "--resume")
    assert "in batches of 2 then" in refusal(NET, WEIGHTS, *command, "--resume", "--batch-size", 3)


@pytest.mark.usefixtures("here")
def test_nothing_to_go_on_with(here: Path) -> None:
    result = run("net.prototxt", "--blobs", "ip", "-o", "f.h5", "--resume")
    assert result.exit_code == 0
    assert "f.h5: nothing to resume; starting from the beginning" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_limit_on_the_size_of_files(many: Path, tmp_path: Path) -> None:
    """As on a full disk: what was written is kept, and is gone on with once there is room."""
    command = (NET, WEIGHTS, "--input-db", many / "db", "--batch-size", 500, "--blobs", "ip1", "-o", tmp_path / "f.npy")
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20));"
        "from caffeconv.cli import main; main()"
    )
    result = subprocess.run(
        [*script(tmp_path, limited), "run", *map(str, command)], capture_output=True, text=True, env=environment(),
        check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "f.npy: File too large, after 8000 items. They are kept in" in result.stderr
    assert "Traceback" not in result.stderr
    assert "going on after 8000 items" in run(*command, "--resume").stderr
    assert np.load(tmp_path / "f.npy").shape == (MANY, 64)


# -- damaged sources ---------------------------------------------------------------------------------------------------


def jpegs(folder: Path) -> None:
    good = {f"{i}": encoded(pixels(28, 28, seed=i), i % 5, ".jpg") for i in range(9)}
    bad = {"1": good["1"][:-150], "4": raw(pixels(1, 5, 5), 4), "7": b"\xff\xff\xff"}
    write_lmdb(folder / "bad", {**good, **bad})
    write_lmdb(folder / "good", {key: value for key, value in good.items() if key not in bad})


def test_damaged_items(here: Path) -> None:
    jpegs(here)
    for name in ("bad", "good"):
        (here / f"{name}.prototxt").write_text(data_layer(name, 2) + LOSS)
    assert "source (Data), line 1: bad, record '1': " in refusal("bad.prototxt")
    result = run("bad.prototxt", "--skip-bad")
    assert result.stdout == run("good.prototxt").stdout
    assert "3 damaged items were passed over:" in result.stderr
    listed = [line for line in result.stderr.splitlines() if line.startswith("  bad, record ")]
    assert [line.split("'")[1] for line in listed] == ["1", "4", "7"]
    assert run("bad.prototxt", "--skip-bad", "--blobs", "ip", "-o", "f.npy").exit_code == 0
    assert run("good.prototxt", "--blobs", "ip", "-o", "g.npy").exit_code == 0
    np.testing.assert_array_equal(np.load("f.npy"), np.load("g.npy"))


def test_the_first_item_is_damaged(here: Path) -> None:
    write_lmdb(here / "bad", {"0": b"\xff\xff", "1": raw(pixels(1, 28, 28), 1)})
    (here / "net.prototxt").write_text(data_layer("bad", 1) + LOSS)
    assert "bad, record '0': 2 bytes that are no Datum" in refusal("net.prototxt")
    assert "1 damaged items were passed over" in run("net.prototxt", "--skip-bad").stderr


def test_each_damaged_item_is_listed_once(here: Path) -> None:
    """However often it is met: a last batch goes on with the first items, and --iterations goes round and round."""
    good = {str(i): raw(pixels(1, 28, 28, seed=i), i) for i in (1, 2, 3)}
    write_lmdb(here / "bad", {"0": b"\xff\xff", **good})
    (here / "net.prototxt").write_text(data_layer("bad", 2) + LOSS)
    assert "was filled up with the first 1 items again" in run("net.prototxt", "--skip-bad").stderr
    for more in ((), ("--iterations", 7), ("--blobs", "ip", "-o", "f.npy")):
        said = run("net.prototxt", "--skip-bad", *more).stderr
        assert "1 damaged items were passed over" in said
        assert said.count("bad, record '0'") == 1


def test_damaged_lines(here: Path) -> None:
    write_pictures(here, {"a.png": pixels(28, 28), "b.png": pixels(28, 28, seed=1)})
    (here / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    write_list(here / "list.txt", ["a.png 1", "b.png", "cut.jpg 2", "gone.png 3", "b.png 0"])
    layer = 'layer { name: "source" type: "ImageData" top: "data" top: "label" image_data_param { source: "list.txt" '
    (here / "net.prototxt").write_text(layer + "batch_size: 2 is_color: false } }\n" + LOSS)
    assert "source (ImageData), line 1: list.txt, line 2: 'b.png'; a picture's name, a space" in refusal("net.prototxt")
    result = run("net.prototxt", "--skip-bad")
    assert result.exit_code == 0, result.stderr
    lines = [line.split(",")[1][:7] for line in result.stderr.splitlines() if line.startswith("  list.txt")]
    assert lines == [" line 2", " line 3", " line 4"]


def test_sources_that_are_not_as_they_should_be(here: Path) -> None:
    write_lmdb(here / "empty", {})
    (here / "net.prototxt").write_text(data_layer("empty") + LOSS)
    assert "source (Data), line 1: empty: the database is empty; at least one record was needed" in refusal(
        "net.prototxt"
    )
    assert "empty: the database is empty" in refusal(
        NET, WEIGHTS, "--input-db", "empty", "--blobs", "ip1", "-o", "f.h5"
    )
    (here / "net.prototxt").write_text(data_layer(more='transform_param { mean_file: "gone.binaryproto" }') + LOSS)
    assert "source (Data), line 1: gone.binaryproto: File not found; the mean image" in refusal("net.prototxt")
    assert "gone.binaryproto: File not found" in refusal(
        NET, WEIGHTS, "--input-db", "db", "--mean", "gone.binaryproto", "--blobs", "ip1", "-o", "f.h5"
    )  # fmt: skip
    (here / "net.prototxt").write_text(data_layer("gone", more="transform_param { crop_size: 28 }") + LOSS)
    assert "source (Data), line 1: gone: No such file or directory; an LMDB" in refusal("net.prototxt")
    assert "nowhere: No such file or directory; an LMDB" in refusal(
        NET, WEIGHTS, "--input-db", "nowhere", "--blobs", "ip1", "-o", "f.h5"
    )  # fmt: skip
    assert sorted(path.name for path in here.iterdir()) == ["db", "empty", "net.prototxt"]


def test_a_file_that_another_process_holds(here: Path) -> None:
    write_hdf5(here / "a.h5", data=np.zeros((2, 3)))
    write_list(here / "list.txt", ["a.h5"])
    layer = 'layer { name: "source" type: "HDF5Data" top: "data" hdf5_data_param { source: "list.txt" batch_size: 2 } }'
    (here / "net.prototxt").write_text(layer)
    code = "import h5py, sys; file = h5py.File('a.h5', 'r+'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        said = refusal("net.prototxt")
        holder.communicate()
    assert "a.h5 (of list.txt): Failed opening HDF5 file: another process has it open for writing" in said
    assert run("net.prototxt", "--blobs", "data", "-o", "f.npy").exit_code == 0


def test_items_that_do_not_fit(here: Path) -> None:
    write_lmdb(here / "wide", {"0": raw(pixels(3, 28, 28))})
    said = refusal(NET, WEIGHTS, "--input-db", "wide", "--blobs", "ip1", "-o", "f.h5")
    assert "--input-db wide: its items are 3×28×28; input 'data' needs 1×28×28" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--blobs", "ip"), "--blobs keeps features; say where: -o FILE.h5"),
        (("--resume",), "--resume continues an output file; name it"),
        (("-o", "f.npz", "--per-batch", "b.csv"), "--per-batch is for scores"),
        (("--crop", "3"), "--resize, --crop, --rgb, --oversample and --format are for --input"),
        (("--input", "data=x.npy", "--iterations", "3"), "--iterations with --input: it is for a net's data layers"),
    ],
)
def test_options_that_do_not_go_together(here: Path, arguments: tuple[str, ...], said: str) -> None:
    result = run("net.prototxt", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--blobs", "ip9", "-o", "f.h5"), "the net has no blob 'ip9'"),
        (("--blobs", "ip", "-o", "f.csv"), "f.csv: features are written as .npz, .npy, .h5, .lmdb"),
        (("-o", "f.npy"), ".npy holds one array, and there are 2"),
        (("--blobs", "ip", "-o", "no/f.h5"), "no/f.h5: there is no folder no"),
        (("--mean", "3"), "--batch-size, --mean and --scale are for --input and --input-db"),
        (("--input-db", "x=db", "--blobs", "ip", "-o", "f.h5"), "the net has no input 'x'; it has data, label"),
        (("--input-db", "db", "--mean", "3"), "layer 'source' has its own transform_param"),
    ],
)
def test_refused(here: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in refusal("net.prototxt", *arguments)


# -- others at the same files ------------------------------------------------------------------------------------------


def test_two_processes_over_one_database(many: Path, tmp_path: Path) -> None:
    command = (NET, WEIGHTS, "--input-db", many / "db", "--batch-size", 50, "--blobs", "prob", "-q")
    children = [process(*command, "-o", tmp_path / f"{i}.npy") for i in range(2)]
    assert [child.wait(120) for child in children] == [0, 0]
    assert (tmp_path / "0.npy").read_bytes() == (tmp_path / "1.npy").read_bytes()


def test_weights_that_are_replaced_while_a_net_holds_them(tmp_path: Path) -> None:
    """Written over in place, the worst way: the net keeps what it had, in every blob and parameter."""
    weights = tmp_path / "w.caffemodel"
    weights.write_bytes(WEIGHTS.read_bytes())
    net, fresh = caffeconv.Net(NET, weights), caffeconv.Net(NET, WEIGHTS)
    data = np.full((1, 1, 28, 28), 9, np.float32)
    net.forward(data=data)
    with weights.open("r+b") as file:
        file.truncate(10)
    fresh.forward(data=data)
    for blob in ("conv1", "ip1", "prob"):
        np.testing.assert_array_equal(net.blobs[blob].data, fresh.blobs[blob].data)
    for layer, params in fresh.params.items():
        for mine, theirs in zip(net.params[layer], params, strict=True):
            np.testing.assert_array_equal(mine.data, theirs.data)


def test_weights_that_are_written_to_while_they_are_read(tmp_path: Path) -> None:
    from caffeconv.files.unchanged import unchanged

    weights = tmp_path / "w.caffemodel"
    weights.write_bytes(b"old")
    with pytest.raises(caffeconv.CaffeconvError, match="changed while it was read"), unchanged([weights]):
        weights.write_bytes(b"newer")
