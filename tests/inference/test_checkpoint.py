"""Rows on their way into a file: counted ones survive, others are cut off, and another run is not gone on with."""

from __future__ import annotations

import errno
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest
from support.databases import refused

from caffeconv.caffe_pb2 import Datum
from caffeconv.inference import checkpoint as module
from caffeconv.inference.checkpoint import Checkpoint, NoSpaceError, was_finished
from caffeconv.inference.features import RowBlock, write_features
from caffeconv.inference.result_files import check_feature_file, make_feature_file

RUN = {"net": "a", "--batch-size": "4"}
ROWS = np.random.default_rng(0).normal(size=(9, 2, 3)).astype(np.float32)


def chunks(begin: int = 0, end: int = 9, step: int = 4) -> list[RowBlock]:
    return [
        RowBlock(
            min(step, end - i), {"x": ROWS[i : min(i + step, end)]}, {"data": i + step}, (f"bad {i}",), {"h": ROWS[i]}
        )
        for i in range(begin, end, step)
    ]


def quiet(items: int) -> None:
    return


@pytest.mark.parametrize("suffix", ["npy", "npz", "h5", "lmdb"])
def test_files(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"f.{suffix}"
    parts = Checkpoint.create(out, RUN, ["x"])
    write_features(parts, chunks(), quiet, lambda i: "a")
    assert not parts.folder.exists()
    if suffix == "npy":
        found = np.load(out)
    elif suffix == "npz":
        found = np.load(out)["x"]
    elif suffix == "h5":
        import h5py

        with h5py.File(out) as file:
            found = file["x"][()]
            assert [name.decode() for name in file["items"]] == ["a"] * 9
    else:
        with lmdb.open(str(out), readonly=True, lock=False) as environment, environment.begin() as transaction:
            records = [(key, Datum.FromString(value)) for key, value in transaction.cursor()]
        # caffe: extract_features.cpp — format_int(image_index, 10)
        assert [key for key, _ in records] == [b"%010d" % i for i in range(9)]
        assert {(datum.channels, datum.height, datum.width) for _, datum in records} == {(2, 3, 1)}
        found = np.array([datum.float_data for _, datum in records], np.float32).reshape(9, 2, 3)
    np.testing.assert_array_equal(found, ROWS)


def test_a_datum_is_written_as_protobuf_writes_it(tmp_path: Path) -> None:
    parts = Checkpoint.create(tmp_path / "f.lmdb", RUN, ["x"])
    write_features(parts, chunks(), quiet)
    with (
        lmdb.open(str(tmp_path / "f.lmdb"), readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        for value in dict(transaction.cursor()).values():
            assert Datum.FromString(value).SerializeToString() == value


def test_several_blobs_of_any_name(tmp_path: Path) -> None:
    for suffix in ("npz", "h5", "lmdb"):
        names = ["../x", "a/b", "a_b"]
        parts = Checkpoint.create(tmp_path / f"f.{suffix}", RUN, names)
        write_features(parts, [RowBlock(9, {name: ROWS + i for i, name in enumerate(names)})], quiet)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.h5", "f.lmdb", "f.npz"]
    assert sorted(path.name for path in (tmp_path / "f.lmdb").iterdir()) == ["_._x", "a_b", "a_b_"]
    np.testing.assert_array_equal(np.load(tmp_path / "f.npz")["a_b"], ROWS + 2)


def test_what_was_not_noted_is_cut_off(tmp_path: Path) -> None:
    out = tmp_path / "f.npy"
    first = chunks(0, 4)
    parts = Checkpoint.create(out, RUN, ["x"])
    parts.append(first[0].rows)
    parts.commit(replace(parts.journal, passes=1, items=4, positions={"data": 4}), {"h": ROWS[0]})
    parts.append({"x": ROWS + 100})  # nobody was told of these
    parts.close_files()
    going_on = Checkpoint.resume(out, RUN, ["x"])
    assert going_on is not None
    assert (going_on.journal.items, going_on.journal.positions) == (4, {"data": 4})
    np.testing.assert_array_equal(going_on.states()["h"], ROWS[0])
    np.testing.assert_array_equal(going_on.rows("x"), ROWS[:4])
    write_features(going_on, chunks(4), quiet)
    np.testing.assert_array_equal(np.load(out), ROWS)


def test_killed_while_the_file_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix in ("npy", "h5"):
        out = tmp_path / f"f.{suffix}"
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "remove", Checkpoint.close_files)  # as if killed before that
            write_features(Checkpoint.create(out, RUN, ["x"]), chunks(), quiet)
        content = out.read_bytes()
        again = Checkpoint.resume(out, RUN, ["x"])
        assert again is not None
        write_features(again, [], quiet)
        assert out.read_bytes() == content
        assert not again.folder.exists()


def test_an_interruption_before_the_first_row_is_no_hindrance(tmp_path: Path) -> None:
    first = Checkpoint.create(tmp_path / "f.npy", RUN, ["x"])
    with refused("another process"):
        Checkpoint.create(tmp_path / "f.npy", RUN, ["x"])
    first.close()
    again = Checkpoint.create(tmp_path / "f.npy", {**RUN, "blobs": "y"}, ["x"])
    assert again.journal.run["blobs"] == "y"
    again.close()


def test_an_interruption_keeps_what_was_added(tmp_path: Path) -> None:
    def interrupted() -> object:
        yield from chunks()[:2]
        raise KeyboardInterrupt

    parts = Checkpoint.create(tmp_path / "f.h5", RUN, ["x"])
    with pytest.raises(KeyboardInterrupt):
        write_features(parts, interrupted(), quiet)  # type: ignore[arg-type]
    parts.close_files()
    with refused(r"f.h5.partial: an interrupted run left 8 items here. `resume=True` continues it"):
        Checkpoint.create(tmp_path / "f.h5", RUN, ["x"])
    again = Checkpoint.resume(tmp_path / "f.h5", RUN, ["x"])
    assert again is not None
    assert again.journal.skipped == ["bad 0", "bad 4"]
    assert again.journal.passes == 2


def test_another_run_is_told_apart(tmp_path: Path) -> None:
    out = tmp_path / "f.h5"
    assert Checkpoint.resume(out, RUN, ["x"]) is None
    Checkpoint.create(out, RUN, ["x"]).close_files()
    with refused(r"another one.\n  net: a then, b now\n  `blobs=…`: x then, y now\nGive it what it had then"):
        Checkpoint.resume(out, {**RUN, "net": "b"}, ["y"])
    with refused(r"--mean: nothing then, 3 now"):
        Checkpoint.resume(out, {**RUN, "--mean": "3"}, ["x"])


def test_two_at_once(tmp_path: Path) -> None:
    out = tmp_path / "f.h5"
    held = Checkpoint.create(out, RUN, ["x"])
    with refused(r"f.h5.partial: another process is at work on this"):
        Checkpoint.resume(out, RUN, ["x"])
    held.close_files()


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 1}', b'{"run": {}, "blobs": [], "version": 9}', b"[]"])
def test_damaged_journal(tmp_path: Path, content: bytes) -> None:
    Checkpoint.create(tmp_path / "f.h5", RUN, ["x"]).close_files()
    (tmp_path / "f.h5.partial" / "journal.json").write_bytes(content)
    with refused("journal.json: not readable, or of another version of caffeconv; remove the folder"):
        Checkpoint.resume(tmp_path / "f.h5", RUN, ["x"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"states": "../victim.npz"}, {"rows": {"x": -1}}, {"rows": {"x": 1}, "row_shapes": {}}, {"row_shapes": {"y": [1]}},
        {"row_shapes": {"x": ["1"]}}, {"blobs": "x"}, {"skipped": 7}, {"other": 1}, {"run": {"net": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_a_journal_of_wrong_types_is_none(tmp_path: Path, wrong: dict[str, object]) -> None:
    parts = Checkpoint.create(tmp_path / "f.h5", RUN, ["x"])
    parts.append({"x": ROWS[0]})
    parts.commit(replace(parts.journal, items=1), {})
    parts.close_files()
    file = parts.folder / "journal.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **wrong}))
    with refused("journal.json: not readable"):
        Checkpoint.resume(tmp_path / "f.h5", RUN, ["x"])


def test_a_run_follows_no_links(tmp_path: Path) -> None:
    parts = Checkpoint.create(tmp_path / "f.h5", RUN, ["x"])
    parts.close_files()
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (parts.folder / "0.npy").symlink_to(victim)
    with refused("0.npy: a file of the run was needed, and no link"):
        Checkpoint.resume(tmp_path / "f.h5", RUN, ["x"])
    assert victim.read_bytes() == b"precious"


def test_rows_that_are_gone(tmp_path: Path) -> None:
    out = tmp_path / "f.h5"
    parts = Checkpoint.create(out, RUN, ["x"])
    parts.append({"x": ROWS})
    parts.commit(replace(parts.journal, items=9), {})
    parts.close_files()
    os.truncate(parts.part("x"), 300)
    with refused(r"0.npy: 472 bytes of 'x' were written here and are gone"):
        Checkpoint.resume(out, RUN, ["x"])


def test_rows_of_another_size(tmp_path: Path) -> None:
    parts = Checkpoint.create(tmp_path / "f.h5", RUN, ["x"])
    parts.append({"x": ROWS})
    with refused("blob 'x' has rows of 3×2 now and had 2×3 before"):
        parts.append({"x": ROWS.reshape(9, 3, 2)})


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second chunk finds no room; what the first gave is kept, and is gone on with."""
    out = tmp_path / "f.npy"
    parts = Checkpoint.create(out, RUN, ["x"])
    write, written = module._write_all, []

    def full(file: io.FileIO, values: np.ndarray) -> None:
        written.append(values)
        if len(written) == 2:
            file.write(b"half a row")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, values)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_all", full)
        with pytest.raises(
            NoSpaceError, match=r"f.npy: No space left on device, after 4 items. They are kept in .*`resume=True`"
        ):
            write_features(parts, chunks(), quiet)
    parts.close_files()
    assert not out.exists()
    again = Checkpoint.resume(out, RUN, ["x"])
    assert again is not None
    write_features(again, chunks(4), quiet)
    np.testing.assert_array_equal(np.load(out), ROWS)


def test_full_disk_while_the_file_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "f.npz"
    parts = Checkpoint.create(out, RUN, ["x"])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", full)
        with pytest.raises(
            NoSpaceError, match=r"f.npz: could not be written whole.*All 9 items are in .*`resume=True`"
        ):
            write_features(parts, chunks(), quiet)
    assert not out.exists()
    parts.close_files()
    again = Checkpoint.resume(out, RUN, ["x"])
    assert again is not None
    make_feature_file(again)
    np.testing.assert_array_equal(np.load(out)["x"], ROWS)


def test_nothing_at_all(tmp_path: Path) -> None:
    parts = Checkpoint.create(tmp_path / "f.npz", RUN, ["x"])
    write_features(parts, [], quiet)
    assert np.load(tmp_path / "f.npz")["x"].size == 0


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with refused("f.csv: features are written as .npz, .npy, .h5, .lmdb"):
        check_feature_file(tmp_path / "f.csv", 1)
    with refused("f.npy: .npy holds one array, and there are 2"):
        check_feature_file(tmp_path / "f.npy", 2)
    with refused("there is no folder .*nowhere"):
        Checkpoint.create(tmp_path / "nowhere" / "f.h5", RUN, ["x"])
    (tmp_path / "d.lmdb").mkdir()
    (tmp_path / "d.lmdb" / "x").touch()
    with refused("d.lmdb: this is there already, and is not replaced"):
        check_feature_file(tmp_path / "d.lmdb", 1)
    parts = Checkpoint.create(tmp_path / "f.lmdb", RUN, ["x"])
    with refused("blob 'x' has rows of 4 axes; a Datum has channels, height and width"):
        write_features(parts, [RowBlock(1, {"x": np.zeros((1, 2, 2, 2, 2), np.float32)})], quiet)


def test_a_new_run_forgets_that_an_earlier_one_was_finished(tmp_path: Path) -> None:
    out = tmp_path / "f.npz"
    earlier = Checkpoint.create(out, {**RUN, "net": "b"}, ["x"])
    (earlier.folder / "journal.json").rename(earlier.folder / "finished.json")  # as a kill may leave it
    earlier.close_files()
    out.write_bytes(b"of the earlier run")
    parts = Checkpoint.create(out, RUN, ["x"])
    parts.append({"x": ROWS})
    parts.commit(replace(parts.journal, items=9), {})
    parts.close_files()
    assert not was_finished(out, RUN, ["x"])
    again = Checkpoint.resume(out, RUN, ["x"])
    assert again is not None
    np.testing.assert_array_equal(again.rows("x"), ROWS)
    again.close_files()


def test_a_new_run_removes_only_what_runs_write(tmp_path: Path) -> None:
    folder = tmp_path / "f.npz.partial"
    (folder / "mine").mkdir(parents=True)
    for name in ("notes.txt", "0.npy", "journal.new", "states-3.npz"):
        (folder / name).write_text("x")
    Checkpoint.create(tmp_path / "f.npz", RUN, ["x"]).close_files()
    assert sorted(path.name for path in folder.iterdir()) == ["journal.json", "lock", "mine", "notes.txt"]
