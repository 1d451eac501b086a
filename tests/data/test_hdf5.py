"""Rows of datasets in files that a list names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike
from support.databases import refused, write_hdf5, write_list

from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.hdf5 import HDF5Files, HDF5Source
from caffeconv.files.net_folders import NetFolders

BOTH = ("data", "label")


def files(folder: Path, *numbers: int) -> HDF5Files:
    """A list of files with so many rows each; labels count through."""
    start = 0
    for i, number in enumerate(numbers):
        rows = np.arange(start, start + number, dtype=np.float32)
        write_hdf5(folder / f"{i}.h5", data=rows[:, None] * [1, -1], label=rows)
        start += number
    return HDF5Files(
        write_list(folder / "list.txt", [f"{i}.h5" for i in range(len(numbers))]), NetFolders(folder), BOTH
    )


def labels(source: HDF5Source, batches: int) -> list[float]:
    return [float(label) for _ in range(batches) for label in source.next_batch({}, BOTH)["label"]]


def test_rows_of_one_file_after_another_over_and_over(tmp_path: Path) -> None:
    source = HDF5Source(files(tmp_path, 3, 1, 2), 4, np.random.default_rng(0), shuffle=False)
    assert labels(source, 3) == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]
    assert source.count_items() == 6
    source.seek(4)
    batch = source.next_batch({}, BOTH)
    assert (batch["label"].tolist(), batch["data"].tolist()) == ([4, 5, 0, 1], [[4, -4], [5, -5], [0, 0], [1, -1]])


def test_shuffled_epochs_hold_every_row_once(tmp_path: Path) -> None:
    source = HDF5Source(files(tmp_path, 5, 4, 3), 4, np.random.default_rng(1), shuffle=True)
    drawn = labels(source, 6)
    assert sorted(drawn[:12]) == sorted(drawn[12:]) == list(range(12))
    assert drawn[:12] != drawn[12:]
    again = HDF5Source(files(tmp_path, 5, 4, 3), 4, np.random.default_rng(1), shuffle=True)
    again.seek(12)
    assert labels(again, 3) == drawn[12:]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"data": [[1]]}, "Failed to find HDF5 dataset label; each top's name is a dataset's. It has data$"),
        (
            {"data": [[1]], "label": [1, 2]},
            r"rows data: 1, label: 2; the same number, at least 1, was needed in each dataset$",
        ),
        (
            {"data": np.zeros((8, 8, 1, 6)), "label": np.zeros((1, 6))},
            "rows data: 8, label: 1; .* The last axes of 8×8×1×6 and 1×6 agree: the 6 items seem to lie there",
        ),
        ({"data": np.zeros((0, 1)), "label": []}, "rows data: 0, label: 0; the same number, at least 1, was needed"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, sets: dict[str, ArrayLike], message: str) -> None:
    listed = HDF5Files(write_list(tmp_path / "list.txt", ["a.h5"]), NetFolders(tmp_path), BOTH)
    with refused(message):
        listed.open(write_hdf5(tmp_path / "a.h5", **sets))


def test_lists_and_files_that_are_none(tmp_path: Path) -> None:
    listed = HDF5Files(write_list(tmp_path / "list.txt", ["a.h5"]), NetFolders(tmp_path), BOTH)
    with pytest.raises(SourceUnavailableError, match="Failed opening HDF5 file: No such file or directory"):
        listed.open(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_text("text")
    with refused("Failed opening HDF5 file: .*; a whole HDF5 file was needed"):
        listed.open(tmp_path / "a.h5")
    with refused("list.txt: Must have at least 1 HDF5 filename listed in "):
        HDF5Files(write_list(tmp_path / "list.txt", []), NetFolders(tmp_path), BOTH).paths()


def test_a_file_in_place_of_the_list(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "a.h5", data=[[1]], label=[1])
    with refused("a.h5: this is an HDF5 file itself; `source` is a text file that lists HDF5 files, one a line"):
        HDF5Files(path, NetFolders(tmp_path), BOTH).paths()
