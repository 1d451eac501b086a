"""Reading ahead in threads gives what reading one after another gives, wherever one begins, and names what is damaged."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.databases import encoded, pixels, raw, refused, write_hdf5, write_list, write_lmdb, write_pictures
from support.golden_cases import Array

from caffeconv.data.database import DatabaseSource
from caffeconv.data.hdf5 import HDF5Files, HDF5Source
from caffeconv.data.image_list import ImageList, ImageListSource
from caffeconv.data.prefetch import Prefetcher, in_order
from caffeconv.data.source import DataSource
from caffeconv.data.transform import Transform
from caffeconv.data.windows import Sampling, WindowSource
from caffeconv.files.net_folders import NetFolders

TRAIN = Transform(mirror=True, crop_size=4, phase="TRAIN")
Make = Callable[[Path], DataSource]


def seeded() -> np.random.Generator:
    return np.random.default_rng(3)


def database(folder: Path) -> DataSource:
    if not (folder / "db").exists():
        write_lmdb(folder / "db", {f"{i:03}": encoded(pixels(6, 7, 3, seed=i), i) for i in range(11)})
    return DatabaseSource(("data", "label"), folder / "db", "LMDB", 3, TRAIN, seeded())


def pictures(folder: Path) -> DataSource:
    write_pictures(folder, {f"{i}.png": pixels(6, 7, 3, seed=i) for i in range(7)})
    write_list(folder / "list.txt", [f"{i}.png {i}" for i in range(7)])
    listed = ImageList(folder / "list.txt", "", NetFolders(folder), True, None)
    return ImageListSource(("data", "label"), listed, 3, TRAIN, seeded(), shuffle=True, rand_skip=4)


def rows(folder: Path) -> DataSource:
    for i, number in enumerate((4, 1, 3)):
        if not (folder / f"{i}.h5").exists():
            write_hdf5(folder / f"{i}.h5", data=np.arange(number)[:, None] + 10.0 * i)
    write_list(folder / "list.txt", ["0.h5", "1.h5", "2.h5"])
    return HDF5Source(HDF5Files(folder / "list.txt", NetFolders(folder), ("data",)), 3, seeded(), shuffle=True)


def windows(folder: Path) -> DataSource:
    write_pictures(folder, {"a.png": pixels(20, 20, 3)})
    (folder / "w.txt").write_text("# 0 a.png 3 20 20 4 1 0.9 1 1 9 9 2 0.8 3 3 12 9 0 0.1 0 0 5 5 0 0 2 2 15 15\n")
    sampling = Sampling(folder / "w.txt", "", NetFolders(folder), 4, 6, 0, "warp", 0.5, 0.5, 0.5, 1.0, False)
    return WindowSource(("data", "label"), sampling, Transform(mirror=True, crop_size=6), seeded())


def batches(source: DataSource, number: int, threads: int) -> list[tuple[Array, ...]]:
    with (
        ThreadPoolExecutor(max(threads, 1)) as pool,
        Prefetcher(source, pool if threads else None, 2 * threads) as prefetcher,
    ):
        return [tuple(blob.copy() for blob in prefetcher.next_batch().blobs) for _ in range(number)]


def assert_equal(one: list[tuple[Array, ...]], other: list[tuple[Array, ...]]) -> None:
    for left, right in zip(one, other, strict=True):
        for a, b in zip(left, right, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("make", [database, pictures, rows, windows])
@pytest.mark.parametrize("threads", [1, 4])
def test_threads_change_nothing(tmp_path: Path, make: Make, threads: int) -> None:
    source = make(tmp_path)
    plain = [tuple(source.next_batch({}, source.tops).values()) for _ in range(9)]
    assert_equal(batches(make(tmp_path), 9, 0), plain)
    assert_equal(batches(make(tmp_path), 9, threads), plain)


@pytest.mark.parametrize("make", [database, pictures, rows, windows])
def test_beginning_in_the_middle(tmp_path: Path, make: Make) -> None:
    whole = batches(make(tmp_path), 9, 0)
    for behind in (1, 4, 7):
        source = make(tmp_path)
        source.seek(behind * source.batch_size)
        assert_equal(batches(source, 9 - behind, 2), whole[behind:])


def test_order_and_bound() -> None:
    running: list[int] = []

    def jobs() -> object:
        for i in range(50):
            running.append(i)
            yield lambda i=i: i

    with ThreadPoolExecutor(4) as pool:
        for taken, value in enumerate(in_order(jobs(), pool, 5)):  # type: ignore[arg-type,var-annotated]
            assert value == taken
            assert len(running) <= taken + 6


def test_a_constant_source_is_taken_once(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", {"H": raw(pixels(1, 4, 4), 3)})
    source = DatabaseSource(("H",), tmp_path / "db", "LMDB", 1, Transform(), seeded())
    assert len(batches(source, 5, 2)) == 5
    assert source.position == 1


def test_items_of_several_sizes(tmp_path: Path) -> None:
    """The arrays of a batch that is done with are filled again, but only by a batch of the same size."""
    items = [pixels(1, 3 + i % 3, 4, seed=i) for i in range(9)]
    write_lmdb(tmp_path / "db", {f"{i}": raw(item) for i, item in enumerate(items)})
    source = DatabaseSource(("data",), tmp_path / "db", "LMDB", 1, Transform(), seeded())
    assert_equal(batches(source, 9, 2), [(item[None].astype(np.float32),) for item in items])
    same = DatabaseSource(("data",), tmp_path / "db", "LMDB", 1, Transform(crop_size=3), seeded())
    with ThreadPoolExecutor(2) as pool, Prefetcher(same, pool, 4) as prefetcher:
        assert len({id(prefetcher.next_batch().blobs[0]) for _ in range(50)}) < 10


def mixed(folder: Path) -> dict[str, bytes]:
    """Nine records, of which every third is damaged in a way of its own."""
    good = {f"{i}": encoded(pixels(8, 8, 3, seed=i), i, ".jpg") for i in range(9)}
    bad = {"1": good["1"][:-150], "4": raw(pixels(3, 5, 5), 4), "7": b"\xff\xff\xff"}
    write_lmdb(folder / "good", {key: value for key, value in good.items() if key not in bad})
    write_lmdb(folder / "db", {**good, **bad})
    return bad


@pytest.mark.parametrize("threads", [0, 3])
def test_passing_over_what_is_damaged(tmp_path: Path, threads: int) -> None:
    mixed(tmp_path)
    source = DatabaseSource(("data", "label"), tmp_path / "db", "LMDB", 2, Transform(), seeded())
    source.skips_bad = True
    clean = DatabaseSource(("data", "label"), tmp_path / "good", "LMDB", 2, Transform(), seeded())
    assert_equal(batches(source, 7, threads), batches(clean, 7, 0))
    source.seek(0)
    with Prefetcher(source, None, 0) as prefetcher:
        skipped = [text for _ in range(3) for text in prefetcher.next_batch().skipped]
    assert [text.split("record ")[1][:3] for text in skipped] == ["'1'", "'4'", "'7'"]


@pytest.mark.parametrize("threads", [0, 3])
def test_what_is_damaged_stops_otherwise(tmp_path: Path, threads: int) -> None:
    mixed(tmp_path)
    source = DatabaseSource(("data", "label"), tmp_path / "db", "LMDB", 1, Transform(), seeded())
    with refused(r"db, record '1': the (picture is cut off|Datum)|no Datum|not a readable picture"):
        batches(source, 9, threads)


@pytest.mark.parametrize("threads", [0, 2])
def test_nothing_but_damage(tmp_path: Path, threads: int) -> None:
    write_lmdb(tmp_path / "db", {f"{i}": b"\xff\xff\xff" for i in range(5)})
    source = DatabaseSource(("data",), tmp_path / "db", "LMDB", 2, Transform(), seeded())
    source.skips_bad = True
    with refused("db: not one item of it can be used; the first: .*record '0'"):
        batches(source, 3, threads)


def test_lines_that_name_no_picture(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"a.png": pixels(4, 4, 3), "b.png": pixels(4, 4, 3, seed=1)})
    write_list(tmp_path / "list.txt", ["a.png 1", "a.png", "none.png 3", "b.png 4"])
    listed = ImageList(tmp_path / "list.txt", "", NetFolders(tmp_path), True, None)
    source = ImageListSource(("data", "label"), listed, 2, Transform(), seeded())
    source.skips_bad = True
    with Prefetcher(source, None, 0) as prefetcher:
        batch = prefetcher.next_batch()
    np.testing.assert_array_equal(batch.blobs[1], [1, 4])
    assert [text.split("list.txt, ")[1][:6] for text in batch.skipped] == ["line 2", "line 3"]
    strict = ImageListSource(("data", "label"), listed, 1, Transform(), seeded())
    with refused("list.txt, line 2: 'a.png'; "), Prefetcher(strict, None, 0) as prefetcher:
        prefetcher.next_batch()  # before the good first line is read
