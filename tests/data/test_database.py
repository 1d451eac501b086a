"""Data layers' databases as sources of batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.databases import pixels, raw, refused, write_lmdb

from caffeconv.data.database import LOOKED_AT, DatabaseSource, first_shape
from caffeconv.data.transform import Transform

BOTH = ("data", "label")


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Three items of 1×4×5, labelled 0 to 2."""
    return write_lmdb(tmp_path / "db", {f"{i}": raw(pixels(1, 4, 5, seed=i), i) for i in range(3)})


def source(path: Path, transform: Transform | None = None, seed: int = 0) -> DatabaseSource:
    return DatabaseSource(BOTH, path, "LMDB", 2, transform or Transform(), np.random.default_rng(seed))


def test_items_in_the_order_of_their_keys_over_and_over(three: Path) -> None:
    data = source(three)
    assert [data.next_batch({}, BOTH)["label"].tolist() for _ in range(3)] == [[0, 1], [2, 0], [1, 2]]
    assert (data.at_start, data.count_items(), data.position) == (True, 3, 6)
    data.seek(4)
    batch = data.next_batch({}, BOTH)
    assert batch["label"].tolist() == [1, 2]
    np.testing.assert_array_equal(batch["data"][0], pixels(1, 4, 5, seed=1))


def test_without_a_label_top(three: Path) -> None:
    data = DatabaseSource(("data",), three, "LMDB", 1, Transform(), np.random.default_rng(0))
    assert list(data.next_batch({}, ("data",))) == ["data"]


def test_what_an_item_becomes_follows_from_its_position(three: Path) -> None:
    transform = Transform(mirror=True, crop_size=2, phase="TRAIN")
    data = source(three, transform)
    batches = [data.next_batch({}, BOTH)["data"] for _ in range(6)]
    data.seek(6)
    np.testing.assert_array_equal(data.next_batch({}, BOTH)["data"], batches[3])
    assert not np.array_equal(batches[0], batches[3])  # the same items, drawn otherwise
    assert (data.is_random, source(three).is_random) == (True, False)


def test_the_same_for_another_database(three: Path, tmp_path: Path) -> None:
    other = write_lmdb(tmp_path / "other", {"a": raw(pixels(1, 4, 5), 8)})
    data = source(three, Transform(scale=2)).at(other, "LMDB")
    batch = data.next_batch({}, BOTH)
    assert (data.name, batch["label"].tolist()) == (str(other), [8, 8])
    np.testing.assert_array_equal(batch["data"][0], pixels(1, 4, 5) * np.float32(2))


def test_the_files_whose_content_it_is(three: Path) -> None:
    (three / "lock.mdb").touch()
    (three / "notes.txt").touch()
    assert [file.name for file in source(three).files] == ["data.mdb"]


def test_the_shape_of_the_first_item_that_is_whole(tmp_path: Path) -> None:
    def with_damage(number: int) -> Path:
        return write_lmdb(
            tmp_path / f"{number}", {**{f"{i:03}": b"?" for i in range(number)}, "x": raw(pixels(3, 4, 5))}
        )

    assert first_shape(with_damage(0), "LMDB", Transform(crop_size=2)) == (3, 2, 2)
    assert first_shape(with_damage(LOOKED_AT - 1), "LMDB", Transform()) == (3, 4, 5)
    with refused("record '000': 1 bytes that are no Datum; a whole Datum was needed$"):
        first_shape(with_damage(LOOKED_AT), "LMDB", Transform())
    with refused("record 'x': 4×5 pixels; crop_size 6 needs at least 6×6$"):
        first_shape(tmp_path / "0", "LMDB", Transform(crop_size=6))


def test_an_empty_database(tmp_path: Path) -> None:
    with refused("the database is empty; at least one record was needed$"):
        first_shape(write_lmdb(tmp_path / "db", {}), "LMDB", Transform())
