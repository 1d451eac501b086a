"""Databases, HDF5 data and blobs in binary form that `inspect` lists."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from click.testing import CliRunner
from support.databases import encoded, pixels, raw, refused, write_lmdb, write_mean

from caffeconv.cli import main
from caffeconv.inspection.data_listing import list_binaryproto, list_database, list_hdf5_data


def stdout(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, ["inspect", *map(str, arguments)])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_a_database(tmp_path: Path) -> None:
    records = {
        "00": raw(pixels(3, 4, 5), 7), "01": raw(pixels(3, 4, 5), 7), "02": encoded(pixels(6, 7), 1), "03": b"\xff",
    }  # fmt: skip
    path = write_lmdb(tmp_path / "db", records)
    listing = list_database(path)
    assert listing.contents == {"3×4×5 uint8": 2, "1×6×7 uint8, encoded": 1, "no Datum": 1}
    assert listing.labels == {1: 1, 7: 2}
    assert (listing.records, list_database(path, most=2).records) == (4, 4)
    assert "keys: 00, 01, 02, …\nof the first 4 records:\n  2 × 3×4×5 uint8\n" in stdout(path)


def test_a_folder_without_a_database(tmp_path: Path) -> None:
    with refused("a folder with no database in it"):
        list_database(tmp_path)


def test_hdf5_data(tmp_path: Path) -> None:
    path = tmp_path / "rows.h5"
    with h5py.File(path, "w") as file:
        file["data"], file["label"] = np.zeros((3, 2, 4), np.float32), np.array([0.0, 2.0, 2.0])
    data, label = list_hdf5_data(path)
    assert (data.shape, data.labels, label.labels) == ((3, 2, 4), {}, {0: 1, 2: 2})
    assert "2 labels, 0 to 2: 0: 1, 2: 2" in stdout(path)


def test_a_mean_and_a_matrix(tmp_path: Path) -> None:
    mean = write_mean(tmp_path / "mean.binaryproto", np.full((3, 2, 2), [[[1]], [[2]], [[4]]], np.float32))
    assert list_binaryproto(mean).channel_means == (1, 2, 4)
    assert "mean of each channel: 1, 2, 4" in stdout(mean)
    matrix = write_mean(tmp_path / "h.binaryproto", np.array([[[1, 0.5], [0.25, 1]]], np.float32))
    listing = list_binaryproto(matrix)
    assert listing.matrix is not None
    assert listing.channel_means == ()
    assert "0.25" in stdout(matrix)
