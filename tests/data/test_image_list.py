"""ImageData's lists of pictures."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from support.databases import pixels, refused, write_list, write_pictures

from caffeconv.data.image_list import ImageList, ImageListSource, Line
from caffeconv.data.transform import Transform
from caffeconv.files.net_folders import NetFolders


def image_list(folder: Path, *lines: str, size: tuple[int, int] | None = None) -> ImageList:
    return ImageList(write_list(folder / "list.txt", lines), "", NetFolders(folder), color=True, size=size)


def source(images: ImageList, *, shuffle: bool = False, rand_skip: int = 0, seed: int = 0) -> ImageListSource:
    random = np.random.default_rng(seed)
    return ImageListSource(("data", "label"), images, 2, Transform(), random, shuffle=shuffle, rand_skip=rand_skip)


def labels(images: ImageListSource, batches: int) -> list[float]:
    return [float(label) for _ in range(batches) for label in images.next_batch({}, ("data", "label"))["label"]]


@pytest.fixture
def six(tmp_path: Path) -> ImageList:
    """Six pictures of 4×5, labelled 0 to 5."""
    names = [f"{i}.png" for i in range(6)]
    write_pictures(tmp_path, {name: pixels(4, 5, 3, seed=i) for i, name in enumerate(names)})
    return image_list(tmp_path, *(f"{name} {i}" for i, name in enumerate(names)))


def test_what_follows_the_last_space_is_the_label(tmp_path: Path) -> None:
    lines = image_list(tmp_path, "a b.png 3", "c.png -1", "d.png 2x").lines()
    assert lines == [Line("a b.png", 3, 1), Line("c.png", -1, 2), Line("d.png", 2, 3)]


def test_a_list_without_labels_takes_the_digits_that_names_begin_with(tmp_path: Path) -> None:
    assert image_list(tmp_path, "12.png", "b.png").lines() == [Line("12.png", 12, 1), Line("b.png", 0, 2)]


@pytest.mark.parametrize("faulty", ["b.png", "b.png one", " 3", ""])
def test_a_line_with_a_fault(tmp_path: Path, faulty: str) -> None:
    images = image_list(tmp_path, "a.png 1", faulty)
    message = (
        f"{images.source}, line 2: '{faulty}'; a picture's name, a space, and its label (a whole number) were needed"
    )
    with refused(f"^{re.escape(message)}$"):
        images.lines()
    assert [line.fault for line in images.all_lines()] == ["", message]


def test_empty_lists(tmp_path: Path) -> None:
    with refused("list.txt: File is empty; lines `picture label` were needed$"):
        image_list(tmp_path).lines()


def test_pictures_come_resized(six: ImageList, tmp_path: Path) -> None:
    resized = ImageList(six.source, "", NetFolders(tmp_path), color=False, size=(2, 3))
    assert [resized.read(line).shape for line in resized.lines()] == [(2, 3, 1)] * 6
    np.testing.assert_array_equal(six.read(six.lines()[1]), pixels(4, 5, 3, seed=1))


def test_a_picture_that_is_missing(tmp_path: Path) -> None:
    images = image_list(tmp_path, "a.png 1")
    with refused(r"list\.txt, line 1 \(a\.png\): Could not open or find file .*root_folder is put before them$"):
        images.read(images.lines()[0])


def test_the_first_picture_that_is_whole_tells_the_size(six: ImageList, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"damaged")
    assert six.first_size() == (4, 5)
    for i in range(1, 6):
        (tmp_path / f"{i}.png").unlink()
    with refused(r"line 1 \(0\.png\): not a readable picture"):
        six.first_size()


def test_batches_go_round(six: ImageList) -> None:
    images = source(six)
    assert labels(images, 4) == [0, 1, 2, 3, 4, 5, 0, 1]
    images.seek(5)
    batch = images.next_batch({}, ("data", "label"))
    assert batch["label"].tolist() == [5, 0]
    np.testing.assert_array_equal(batch["data"][1], pixels(4, 5, 3, seed=0).transpose(2, 0, 1))


def test_each_epoch_has_an_order_of_its_own(six: ImageList) -> None:
    first = labels(source(six, shuffle=True), 6)
    assert first == labels(source(six, shuffle=True), 6)
    assert sorted(first[:6]) == sorted(first[6:]) == [0, 1, 2, 3, 4, 5]
    assert first[:6] != first[6:]


def test_skipping(six: ImageList) -> None:
    assert labels(source(six, rand_skip=1), 1) == [0, 1]
    starts = {labels(source(six, rand_skip=6, seed=seed), 1)[0] for seed in range(20)}
    assert len(starts) > 1
    with refused("6 lines; Not enough points to skip "):
        source(six, rand_skip=10**9).next_batch({}, ("data",))
