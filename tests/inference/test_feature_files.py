"""The files that rows become."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest

from caffeconv.caffe_pb2 import Datum
from caffeconv.inference import feature_files
from caffeconv.inference.checkpoint import Checkpoint
from caffeconv.inference.feature_files import write_h5, write_lmdb, write_npy, write_npz
from caffeconv.tensor.shape import FloatArray

ROWS = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)


def checkpoint(out: Path, **blobs: FloatArray) -> Checkpoint:
    """A run that has these rows and has not made its file yet."""
    run = Checkpoint.create(out, {"net": "a"}, list(blobs))
    run.append(blobs)
    run.finish_parts()
    return run


def test_npy(tmp_path: Path) -> None:
    run = checkpoint(tmp_path / "x.npy", x=ROWS)
    for _ in range(2):  # killed right after, it may come here again
        write_npy(run, None)
        np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), ROWS)


def test_npz_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        write_npz(checkpoint(tmp_path / name, x=ROWS, y=ROWS[:2, 0]), None)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as archive:
        assert archive.files == ["x", "y"]
        np.testing.assert_array_equal(archive["y"], ROWS[:2, 0])
    with zipfile.ZipFile(tmp_path / "a.npz") as archive_file:
        assert archive_file.testzip() is None


@pytest.mark.parametrize("at_once", [1, 50, 1 << 24])
def test_h5_in_blocks_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(feature_files, "_AT_ONCE", at_once)
    write_h5(checkpoint(tmp_path / "x.h5", x=ROWS, none=ROWS[:0]), None)
    with h5py.File(tmp_path / "x.h5") as file:
        assert sorted(file) == ["none", "x"]
        np.testing.assert_array_equal(file["x"][()], ROWS)
        assert file["none"].shape == (0, 2, 3)


def read_lmdb(folder: Path) -> list[tuple[bytes, Datum]]:
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return [(key, Datum.FromString(value)) for key, value in transaction.cursor()]


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_lmdb_as_caffe_writes_it(tmp_path: Path, axes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_files, "_RECORDS_A_TRANSACTION", 2)
    rows = ROWS.reshape((5, *(6, 1, 1)[: axes - 1])) if axes > 1 else ROWS[:, 0, 0]
    write_lmdb(checkpoint(tmp_path / "x.lmdb", x=rows), None)
    records = read_lmdb(tmp_path / "x.lmdb")
    assert [key for key, _ in records] == [b"%010d" % i for i in range(5)]
    assert (records[0][1].channels, records[0][1].height, records[0][1].width) == (6 if axes > 1 else 1, 1, 1)
    np.testing.assert_array_equal(np.array([datum.float_data for _, datum in records], np.float32), rows.reshape(5, -1))


def test_names_of_blobs_that_are_none_of_folders(tmp_path: Path) -> None:
    write_lmdb(checkpoint(tmp_path / "x.lmdb", **{"a/b": ROWS, "a b": ROWS[:1], "..": ROWS[:2]}), None)
    assert {path.name: len(read_lmdb(path)) for path in (tmp_path / "x.lmdb").iterdir()} == {
        "a_b": 5,
        "a_b_": 1,
        "_.": 2,
    }


@pytest.mark.parametrize("suffix", ["npz", "npy", "h5", "lmdb"])
def test_names_of_items(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_files, "_AT_ONCE", 50)
    names = ["a.png", "ä b.png", "", "x" * 30, "two\nlines"]
    blob = "x" if suffix == "npy" else "items"  # a name that is taken
    out = tmp_path / f"x.{suffix}"
    write = {"npz": write_npz, "npy": write_npy, "h5": write_h5, "lmdb": write_lmdb}[suffix]
    run = checkpoint(out, **{blob: ROWS})
    run.journal = replace(run.journal, items=len(names))
    write(run, lambda i: names[i])
    in_lines = [*names[:4], "two\\nlines"]
    if suffix == "npz":
        with np.load(out) as archive:
            assert (archive.files, archive["items_"].tolist()) == (["items", "items_"], names)
    elif suffix == "h5":
        with h5py.File(out) as file:
            assert [name.decode() for name in file["items_"]] == names
    else:
        lines = (tmp_path / "x.names.txt" if suffix == "npy" else out / "names.txt").read_text()
        assert lines.split("\n") == [*in_lines, ""]
