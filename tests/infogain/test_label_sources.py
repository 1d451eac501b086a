"""Labels wherever they are kept, some at a time, each with a name for messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.databases import pixels, raw, refused, write_hdf5, write_list, write_lmdb, write_pictures

from caffeconv.infogain import label_sources
from caffeconv.infogain.label_sources import Labels, open_labels

MAP = np.array([[0, 1, 2], [3, 4, 5]], np.uint8)


def labels(place: Path, *, label_maps: bool = False) -> list[Labels]:
    return list(open_labels(place, label_maps=label_maps))


def values(place: Path, *, label_maps: bool = False) -> list[list[list[float]]]:
    return [block.values.tolist() for block in labels(place, label_maps=label_maps)]


def test_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_sources, "_TOGETHER", 2)
    db = write_lmdb(tmp_path / "db", {f"{i}": raw(pixels(1, 1, 1), i + 5) for i in range(3)})
    assert (open_labels(db).total, values(db)) == (3, [[[5], [6]], [[7]]])
    assert labels(db)[1].where(0, 0) == f"{db}, record '2'"


def test_label_maps_in_a_database(tmp_path: Path) -> None:
    db = write_lmdb(tmp_path / "db", {"a": raw(MAP[None], 9)})
    (block,) = labels(db, label_maps=True)
    assert (block.values.tolist(), block.where(0, 4)) == ([[0, 1, 2, 3, 4, 5]], f"{db}, record 'a', row 1, column 1")
    with refused("record 'a': 3×1×1 values; one channel of labels was needed$"):
        labels(write_lmdb(tmp_path / "other", {"a": raw(pixels(3, 1, 1))}), label_maps=True)


def test_arrays_and_hdf5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_sources, "_TOGETHER", 2)
    array = np.arange(12).reshape(3, 2, 2)
    np.save(tmp_path / "a.npy", array)
    file = write_hdf5(tmp_path / "a.h5", label=array, other=[1])
    expected = [[[0, 1, 2, 3], [4, 5, 6, 7]], [[8, 9, 10, 11]]]
    assert values(tmp_path / "a.npy") == values(file) == expected
    assert labels(tmp_path / "a.npy")[1].where(0, 3) == f"{tmp_path / 'a.npy'}, item 2, at 1, 1"
    assert labels(file)[1].where(0, 3) == f"{file}, dataset label, item 2, at 1, 1"


def test_files_that_a_list_names(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", label=[1, 2])
    write_hdf5(tmp_path / "b.h5", label=[3])
    assert values(write_list(tmp_path / "list.txt", ["a.h5", "b.h5"])) == [[[1], [2]], [[3]]]
    with refused(r"none\.h5: no such file; an HDF5 file with labels was needed"):
        labels(write_list(tmp_path / "list.txt", ["none.h5"]))


def test_pictures_with_labels_or_of_labels(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"map.png": MAP})
    named = write_list(tmp_path / "named.txt", ["absent.png 3", "other.png 4"])
    (block,) = labels(named)
    assert (block.values.tolist(), block.where(1, 0)) == ([[3], [4]], f"{named}, line 2 (other.png)")
    pairs = write_list(tmp_path / "pairs.txt", ["absent.png map.png"])
    for place, where in ((pairs, f"{pairs}, line 1 (map.png)"), (tmp_path / "map.png", str(tmp_path / "map.png"))):
        (block,) = labels(place)
        assert (block.values.tolist(), block.where(0, 2)) == ([[0, 1, 2, 3, 4, 5]], f"{where}, row 0, column 2")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.txt", b" \n", "list.txt: the list is empty; an LMDB or LevelDB"),
        (
            "map.png",
            b"\xff\xd8",
            "map.png: a JPEG, which changes the values that it stores; labels need PNG or the like$",
        ),
        ("a.h5", b"text", "a.h5: not readable as HDF5: "),
    ],
)
def test_what_holds_no_labels(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with refused(message):
        labels(tmp_path / name)


def test_nothing_there(tmp_path: Path) -> None:
    with refused(r"none: no such file; an LMDB or LevelDB \(its folder\), an HDF5 file, a list of pictures"):
        open_labels(tmp_path / "none")
    write_pictures(tmp_path, {"map.png": pixels(2, 2, 3)})
    with refused("map.png: a picture in colour; one channel with each pixel's class was needed$"):
        labels(tmp_path / "map.png")
