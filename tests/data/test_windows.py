"""WindowData: the file, where a window comes to lie, and the share of objects and background."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.databases import pixels, refused, write_mean, write_pictures

from caffeconv import Net, inspect
from caffeconv.data.windows import Window, place, read_windows

FILE = """# 0
a.png
3 20 24
3
1 0.9 2 3 11 12
2 0.7 4 3 15 18
0 0.1 0 0 7 7
# 1
b.png
3 20 24
2
3 0.55 0 0 8 8
0 0.2 10 10 23 19
"""
LAYER = """layer {{ name: "source" type: "WindowData" top: "data" top: "label"
  window_data_param {{ source: "w.txt" batch_size: 8 {} }} transform_param {{ crop_size: 10 {} }} }}
"""


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.txt").write_text(FILE)
    write_pictures(tmp_path, {"a.png": pixels(20, 24, 3), "b.png": pixels(20, 24, 3, seed=1)})


def net_of(param: str = "", transform: str = "") -> Net:
    Path("net.prototxt").write_text(LAYER.format(param, transform))
    return Net("net.prototxt")


def test_reading(tmp_path: Path) -> None:
    found = read_windows(tmp_path / "w.txt", 0.6, 0.5)
    assert found.images == ("a.png", "b.png")
    assert found.objects == (Window(0, 1, 2, 3, 11, 12), Window(0, 2, 4, 3, 15, 18))
    assert found.background == (Window(0, 0, 0, 0, 7, 7), Window(1, 0, 10, 10, 23, 19))  # 0.55 is neither


def test_background_first_then_objects() -> None:
    net = net_of()
    seen: set[float] = set()
    for _ in range(20):
        got = net.forward(blobs=["data", "label"])
        assert got["data"].shape == (8, 3, 10, 10)
        assert got["label"][:6].tolist() == [0] * 6
        seen.update(got["label"][6:])
    assert seen == {1, 2, 3}


def test_a_window_of_the_crop_size_is_cut_out_as_it_is(tmp_path: Path) -> None:
    windows = FILE.split("# 1", maxsplit=1)[0].replace("2 0.7 4 3 15 18\n", "").replace("3\n1 0.9", "2\n1 0.9")
    (tmp_path / "w.txt").write_text(windows)
    mean = np.random.default_rng(0).uniform(0, 255, (3, 14, 14)).astype(np.float32)
    write_mean(tmp_path / "m.binaryproto", mean)
    # caffe: window_data_param's scale counts, transform_param's does not
    net = net_of("fg_fraction: 1 scale: 0.5", 'mean_file: "m.binaryproto" scale: 7')
    cut = pixels(20, 24, 3)[3:13, 2:12].transpose(2, 0, 1)
    np.testing.assert_array_equal(net.forward(blobs=["data"])["data"][0], (cut - mean[:, 2:12, 2:12]) * np.float32(0.5))
    seen = {net_of("fg_fraction: 1", "mirror: true").forward(blobs=["data"])["data"][i].tobytes() for i in range(8)}
    assert seen == {part.astype(np.float32).tobytes() for part in (cut, np.ascontiguousarray(cut[..., ::-1]))}


def test_seeded() -> None:
    one, other = net_of(), net_of()
    for _ in range(3):
        np.testing.assert_array_equal(one.forward(blobs=["data"])["data"], other.forward(blobs=["data"])["data"])


def test_cached_pictures_are_the_same(tmp_path: Path) -> None:
    want = net_of().forward(blobs=["data"])["data"]
    net = net_of("cache_images: true")
    np.testing.assert_array_equal(net.forward(blobs=["data"])["data"], want)
    for _ in range(10):
        net.forward()
    (tmp_path / "a.png").unlink()
    net.forward()


def test_warped_without_context() -> None:
    at = place(Window(0, 1, 2, 3, 15, 18), (20, 24), 10, 0, "warp", mirrored=False)
    assert (at.x1, at.y1, at.x2, at.y2, at.width, at.height, at.left, at.top) == (2, 3, 15, 18, 10, 10, 0, 0)


@pytest.mark.parametrize(("mirrored", "left"), [(False, 0), (True, 2)])
def test_context_beyond_the_edge_is_left_empty(*, mirrored: bool, left: int) -> None:
    # 12×12 in the lower right corner of 20×20; 2 of the crop's 10 pixels around it: centre 14, half the size
    # 6·10/6 = 10, so 4 to 24, of which 5 of 21 lie beyond the edge: 16·10/21 pixels of picture, 5·10/21 of nothing
    at = place(Window(0, 1, 8, 8, 19, 19), (20, 20), 10, 2, "warp", mirrored=mirrored)
    assert (at.x1, at.y1, at.x2, at.y2) == (4, 4, 19, 19)
    assert (at.width, at.height, at.left, at.top) == (8, 8, left, 0)


def test_square_takes_the_longer_side() -> None:
    at = place(Window(0, 1, 4, 5, 7, 14), (20, 24), 10, 0, "square", mirrored=False)
    assert (at.x1, at.x2, at.y1, at.y2) == (1, 11, 5, 15)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "w.txt: Window file is empty"),
        ("hello 0", "w.txt, line 1: 'hello' where '#' was needed"),
        ("# 0\na.png\n3 20 x 0", "w.txt, line 3: 'x' where a whole number was needed"),
        ("# 0\na.png\n3 20 24\n2\n1 0.9 1 1 2 2\n", "w.txt, line 5: the file ends here"),
        ("# 0\na.png\n3 20 24\n1\n1 much 1 1 2 2\n", "w.txt, line 5: 'much' where a number was needed"),
        ("# 0\na.png\n3 20 24\n1\n0 0.9 1 1 2 2\n", "w.txt, line 5: label 0 of a window with overlap 0.9"),
        ("# 1\na.png\n3 20 24\n1\n1 0.9 1 1 2 2\n", "w.txt: image index 1, with 1 pictures in the file"),
        ("# 0\na.png\n1 20 24\n1\n1 0.9 1 1 2 2\n", "w.txt: pictures of 1 channels; 3 were needed"),
        ("# 0\na.png\n3 20 24\n1\n1 0.9 1 1 2 2\n", "w.txt: no background windows .fg_threshold 0.5"),
        ("# 0\na.png\n3 20 24\n1\n0 0 20 1 24 2\n", "w.txt: window x 20 to 24, y 1 to 2 does not lie in a.png"),
        ("# 0\ngone.png\n3 20 24\n1\n0 0 2 1 4 2\n", "w.txt names gone.png: Could not open or find file gone.png"),
    ],
)
def test_faulty_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "w.txt").write_text(text)
    with refused(r"source \(WindowData\), line 1: " + said):
        net_of("fg_fraction: 0").forward(blobs=["data"])


def test_without_the_file(tmp_path: Path) -> None:
    (tmp_path / "w.txt").unlink()
    net = net_of()
    assert inspect("net.prototxt").blobs == {"data": (8, 3, 10, 10), "label": (8,)}
    with refused("Failed to open source file: w.txt"):
        net.forward()
