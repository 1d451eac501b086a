"""Which image files a name stands for, and how they are made to fit an input."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from support.databases import refused, write_list

from caffeconv.data.input_images import ImageFiles, find_images, image_transform


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return paths


def test_a_folder_with_those_in_it(tmp_path: Path) -> None:
    b, _, a, c = touch(tmp_path, "b.PNG", "notes.txt", "a.jpg", "inner/c.webp")
    assert find_images(tmp_path) == ImageFiles((a, b, c))
    with refused(r"no picture in this folder \(\.bmp, \.jpeg, \.jpg, "):
        find_images(touch(tmp_path, "empty/notes.md")[0].parent)


def test_a_pattern_and_a_file(tmp_path: Path) -> None:
    a, b, _ = touch(tmp_path, "a1.png", "a2.xyz", "b.png")
    assert find_images(tmp_path / "a?.*").paths == (a, b)
    assert find_images(b).paths == (b,)
    with refused("c[*]: no file matches this pattern$"):
        find_images(tmp_path / "c*")
    with refused(
        r"c\.png: no such file; a picture, a folder or pattern of pictures, a list of them \(\.list, \.lst, \.txt\)"
    ):
        find_images(tmp_path / "c.png")


def test_a_list_with_or_without_classes(tmp_path: Path) -> None:
    a, b = touch(tmp_path, "a.png", "b c.png")
    assert find_images(write_list(tmp_path / "names.txt", ["a.png", "", "b c.png "])) == ImageFiles((a, b))
    assert find_images(write_list(tmp_path / "classes.lst", ["a.png 3\r", "b c.png  12"])) == ImageFiles(
        (a, b), (3, 12)
    )


def test_lines_with_faults_are_collected_or_refused(tmp_path: Path) -> None:
    (a,) = touch(tmp_path, "a.png")
    path = write_list(tmp_path / "list.txt", ["x.png 1", "a.png 2", "a.png"])
    faults: list[str] = []
    assert find_images(path, faults) == ImageFiles((a,), (2,))
    assert [fault.removeprefix(f"{path}, line ")[:45] for fault in faults] == [
        "1: there is no picture x.png; names are looke", "3: 'a.png'; other lines end in a class number",
    ]  # fmt: skip
    with refused(f"^{re.escape(faults[0])}$"):
        find_images(path)


def test_lists_of_which_nothing_is_left(tmp_path: Path) -> None:
    with refused("File is empty; lines `picture` or `picture class` were needed$"):
        find_images(write_list(tmp_path / "empty.txt", ["", " "]))
    with refused("bad.txt: not one line of it can be used; the first: .*there is no picture x.png"):
        find_images(write_list(tmp_path / "bad.txt", ["x.png"]), [])


def test_what_images_are_resized_to_before_the_crop() -> None:
    mean = np.zeros((3, 8, 9), np.float32)
    assert image_transform(3, (4, 5)).resize == (4, 5)
    assert image_transform(3, (4, 5), mean=mean).resize == (8, 9)
    both = image_transform(3, (4, 5), resize=(6, 7), mean=mean[:, :1, :1], scale=0.5, rgb=True)
    assert (both.resize, both.crop, both.scale, both.order) == ((6, 7), (4, 5), 0.5, "rgb")
    assert both.mean is not None
    assert both.mean.shape == (3,)


@pytest.mark.parametrize(
    ("channels", "resize", "mean", "message"),
    [
        (4, None, None, "the net takes 4 channels; a picture has 1 or 3. Give an array (.npy)"),
        (3, None, (2,), "the mean has 2 channels, the net takes 3"),
        (3, (3, 9), None, "a picture of 3×9 cannot be cropped to the net's 4×5"),
        (
            3,
            (8, 8),
            (3, 6, 7),
            "the mean is 3×6×7, the picture 8×8 before the crop; leave `resize=…` out, or give a mean ",
        ),
    ],
)
def test_what_does_not_go_together(
    channels: int, resize: tuple[int, int] | None, mean: tuple[int, ...] | None, message: str
) -> None:
    values = None if mean is None else np.zeros(mean, np.float32)
    with refused(f"^{re.escape(message)}"):
        image_transform(channels, (4, 5), resize=resize, mean=values)
