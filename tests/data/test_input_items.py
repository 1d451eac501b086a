"""Items that are handed over come once: a last batch is short, and what is corrupt is named, wherever it stands."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.databases import pixels, refused, write_pictures
from support.golden_cases import Array

from caffeconv.data.images import Image
from caffeconv.data.input_images import find_images, image_transform
from caffeconv.data.input_items import ArraySource, ImageSource, InputSource, check_counts, constants_among, once
from caffeconv.data.prefetch import InputBatch, Prefetcher


def array(rows: int, batch_size: int = 4) -> ArraySource:
    values = np.arange(rows, dtype=np.float32)[:, None]
    return ArraySource("x", Path("folder/x.npy"), values, batch_size)


def images(folder: Path, number: int, batch_size: int = 4, *, corrupt: tuple[int, ...] = ()) -> ImageSource:
    write_pictures(folder, {f"{i}.png": pixels(6, 5, 3, seed=i) for i in range(number)})
    for i in corrupt:
        (folder / f"{i}.png").write_bytes(b"none")
    transform = image_transform(3, (4, 4), resize=(6, 5))
    return ImageSource("x", folder, find_images(folder), transform, batch_size, color=True)


def batches(source: InputSource, threads: int) -> list[tuple[Array, list[int], list[str]]]:
    """Values, positions and what was passed over, of every batch."""
    results: list[tuple[Array, list[int], list[str]]] = []
    with (
        ThreadPoolExecutor(max(threads, 1)) as pool,
        Prefetcher(source, pool if threads else None, 2 * threads) as prefetcher,
    ):
        position = source.position
        while position < source.count_items():
            batch: InputBatch = prefetcher.next_batch()
            values = batch.blobs[0].copy() if batch.blobs else np.zeros(0, np.float32)
            results.append((values, batch.positions.tolist(), list(batch.skipped)))
            position = batch.next_position
    return results


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize("rows", [1, 4, 7, 8])
def test_the_last_batch_is_short(rows: int, threads: int) -> None:
    results = batches(array(rows), threads)
    assert [len(values) for values, _, _ in results] == [4] * (rows // 4) + ([rows % 4] if rows % 4 else [])
    np.testing.assert_array_equal(np.concatenate([values for values, _, _ in results])[:, 0], np.arange(rows))
    assert [item for _, items, _ in results for item in items] == list(range(rows))


@pytest.mark.parametrize("threads", [0, 3])
def test_beginning_in_the_middle(threads: int) -> None:
    source = array(11)
    source.seek(8)
    assert [values[:, 0].tolist() for values, _, _ in batches(source, threads)] == [[8, 9, 10]]


@pytest.mark.parametrize("threads", [0, 3])
def test_corrupt_images_are_passed_over(tmp_path: Path, threads: int) -> None:
    source = images(tmp_path, 9, corrupt=(1, 8))
    source.skips_bad = True
    results = batches(source, threads)
    assert [items for _, items, _ in results] == [[0, 2, 3, 4], [5, 6, 7]]
    assert [[text.split(":")[0] for text in skipped] for _, _, skipped in results] == [
        [str(tmp_path / "1.png")], [str(tmp_path / "8.png")]
    ]  # fmt: skip


@pytest.mark.parametrize("threads", [0, 3])
def test_what_is_corrupt_after_the_last_full_batch_is_named(tmp_path: Path, threads: int) -> None:
    source = images(tmp_path, 5, corrupt=(4,))
    source.skips_bad = True
    results = batches(source, threads)
    assert [items for _, items, _ in results] == [[0, 1, 2, 3], []]
    assert [len(skipped) for _, _, skipped in results] == [0, 1]


def test_all_images_are_corrupt(tmp_path: Path) -> None:
    source = images(tmp_path, 2, corrupt=(0, 1))
    source.skips_bad = True
    with refused(r"not one picture of `input=…` can be used; the first: .*0.png: not a readable picture"):
        batches(source, 0)
    crops = source.ten_crops()
    crops.skips_bad = True
    with refused("not one picture of `input=…` can be used"):
        batches(crops, 2)


@pytest.mark.parametrize("threads", [0, 3])
def test_ten_crops_of_a_corrupt_image_are_passed_over(tmp_path: Path, threads: int) -> None:
    crops = images(tmp_path, 3, corrupt=(1,)).ten_crops()
    crops.skips_bad = True
    results = batches(crops, threads)
    assert [item for _, items, _ in results for item in items] == [*range(10), *range(20, 30)]
    assert {crops.item_name(item) for _, items, _ in results for item in items} == {
        str(tmp_path / name) for name in ("0.png", "2.png")
    }


def test_an_image_is_decoded_once_for_its_crops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, decoded = images(tmp_path, 3), list[int]()
    decode = source.decode

    def count(index: int) -> Image:
        decoded.append(index)
        return decode(index)

    monkeypatch.setattr(source, "decode", count)
    assert len(batches(source.ten_crops(), 4)) == 8
    assert sorted(decoded) == [0, 1, 2]


def test_once_fails_again_as_it_failed() -> None:
    def fail() -> Array:
        raise ValueError

    make = once(fail)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^$"):
            make()


def test_names() -> None:
    assert (array(3).name, array(3).item_name(2), array(3).files) == (
        "folder/x.npy",
        "x.npy[2]",
        [Path("folder/x.npy")],
    )


def test_constants_have_no_items() -> None:
    matrix = ArraySource("H", Path("H.npy"), np.zeros((1, 1, 3, 3), np.float32))
    scalar = ArraySource("s", Path("s.npy"), np.zeros((), np.float32))
    shapes: dict[str, list[int | str]] = {"x": ["N", 1], "H": [1, 1, 3, 3], "s": []}
    assert constants_among({"x": array(5), "H": matrix, "s": scalar}, shapes).keys() == {"H", "s"}
    assert constants_among({"x": array(1), "H": matrix}, shapes).keys() == set()  # an item each


def test_sources_that_do_not_go_together() -> None:
    with refused("input 'y' has no source; give `input=y=FILE`"):
        check_counts({"x": array(3)}, ["x", "y"])
    with refused(r"different numbers of items \(x: 3, y: 4\)"):
        check_counts({"x": array(3), "y": array(4)}, ["x", "y"])
    with refused("input 'x' holds no item"):
        check_counts({"x": array(0)}, ["x"])
