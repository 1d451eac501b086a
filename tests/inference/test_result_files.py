"""What becomes of results that a file's format has no word for."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffeconv.inference.result_files import write_results


def test_json_holds_null_for_what_is_no_number(tmp_path: Path) -> None:
    values = np.array([[1, np.nan], [-np.inf, 2.5]], np.float32)
    write_results(tmp_path / "r.json", {"a": values}, ["x", "y"])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    blobs = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)["blobs"]
    assert blobs["a"] == {"shape": [2, 2], "data": [[1.0, None], [None, 2.5]]}


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".h5", ".csv", ".json"])
def test_every_file_names_the_items(tmp_path: Path, suffix: str) -> None:
    out, names = tmp_path / f"r{suffix}", ["a.png", "b\udcff.png"]
    blob = "file" if suffix != ".npy" else "a"  # numpy.savez has an argument of that name
    write_results(out, {blob: np.arange(2, dtype=np.float32)}, names)
    if suffix == ".npz":
        with np.load(out) as archive:
            assert {name: archive[name].tolist() for name in archive.files} == {"file": [0, 1], "items": names}
    elif suffix == ".npy":
        assert (tmp_path / "r.names.txt").read_bytes() == b"a.png\nb\xff.png\n"
    elif suffix == ".h5":
        with h5py.File(out) as file:
            assert list(file["items"]) == [b"a.png", b"b\\udcff.png"]
    else:
        assert all(name in out.read_text() for name in ("a.png", "b\\udcff.png"))
