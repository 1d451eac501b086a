"""What HDF5Output writes."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from support.databases import refused

from caffeconv.data.hdf5_sink import HDF5Sink
from caffeconv.files.net_folders import NetFolders
from caffeconv.tensor.shape import FloatArray


def blobs(number: int, width: int = 3) -> tuple[FloatArray, FloatArray]:
    data = np.arange(number * width, dtype=np.float32).reshape(number, width)
    return data, np.arange(number, dtype=np.float32)


def test_blobs_have_four_axes(tmp_path: Path) -> None:
    data, label = blobs(2)
    HDF5Sink("out.h5", NetFolders(tmp_path, output=tmp_path)).write((data, label))
    with h5py.File(tmp_path / "out.h5") as file:
        assert sorted(file) == ["data", "label"]
        assert (file["data"].shape, file["label"].shape, file["data"].dtype) == ((2, 3, 1, 1), (2, 1, 1, 1), np.float32)
        np.testing.assert_array_equal(file["data"][:, :, 0, 0], data)


def test_the_first_pass_makes_the_file_anew_and_further_ones_add(tmp_path: Path) -> None:
    for numbers in ((5,), (2, 1, 3)):
        sink = HDF5Sink("out.h5", NetFolders(tmp_path, output=tmp_path))
        for number in numbers:
            sink.write(blobs(number))
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["label"][:].ravel().tolist() == [0, 1, 0, 0, 1, 2]
        assert file["data"][2].ravel().tolist() == [0, 1, 2]


def test_rows_of_another_size(tmp_path: Path) -> None:
    sink = HDF5Sink("out.h5", NetFolders(tmp_path, output=tmp_path))
    sink.write(blobs(2))
    with refused(r"out\.h5: data is 2×4×1×1 in this pass; rows of 3×1×1 were needed, as in the pass before$"):
        sink.write(blobs(2, 4))


def test_two_bottoms(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        HDF5Sink("out.h5", NetFolders(tmp_path, output=tmp_path)).write(blobs(2)[:1])
    assert not (tmp_path / "out.h5").exists()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    sink = HDF5Sink("none/out.h5", NetFolders(tmp_path, output=tmp_path))
    with refused(r"out\.h5: Failed to open HDF5 file, or to write it: "):
        sink.write(blobs(2))
    (tmp_path / "none").mkdir()
    sink.write(blobs(2))  # what failed has not begun the file
    assert (tmp_path / "none" / "out.h5").is_file()


def test_only_below_the_folder_that_is_given(tmp_path: Path) -> None:
    with refused("^the net wants to write out.h5; nothing that a net names is written, unless .* `output_dir='.'`$"):
        HDF5Sink("out.h5", NetFolders(tmp_path)).write(blobs(2))
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link.h5").symlink_to(tmp_path / "outside.h5")
    for name in ("../out.h5", str(tmp_path / "out.h5"), "link.h5"):
        with refused("it lies outside `output_dir=.*`, and is not written$"):
            HDF5Sink(name, NetFolders(tmp_path, output=folder)).write(blobs(2))
    HDF5Sink(str(folder / "out.h5"), NetFolders(tmp_path, output=folder)).write(blobs(2))
    assert sorted(path.name for path in tmp_path.rglob("*.h5")) == ["link.h5", "out.h5"]


def test_what_is_no_hdf5_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.h5").write_text("precious")
    with refused(r"out\.h5: this is there, and no HDF5 file: it is not replaced; remove it, or rename it$"):
        HDF5Sink("out.h5", NetFolders(tmp_path, output=tmp_path)).write(blobs(2))
    assert (tmp_path / "out.h5").read_text() == "precious"
