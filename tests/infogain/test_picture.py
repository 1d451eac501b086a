"""H as text and as a picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from caffeconv.infogain.picture import colours, lines_of, plot

H = np.array([[1, 0.5, 0], [0.25, 2, -0.125], [0, 0, 1e-7]], np.float32)


def test_table() -> None:
    lines = lines_of(H, ["cat", "Hund", "馬"], None)
    assert [line.plain.rstrip() for line in lines] == [
        "           0    1       2",
        "0 cat      1  0.5       0",
        "1 Hund  0.25    2  -0.125",
        "2 馬       0    0   1e-07",
    ]
    assert [line.plain.rstrip() for line in lines_of(np.eye(2, dtype=np.float32), (), None)] == [
        "   0  1",
        "0  1  0",
        "1  0  1",
    ]


def test_heat_map_where_numbers_do_not_fit() -> None:
    h = np.eye(100, dtype=np.float32)
    assert len(lines_of(h, (), None)) == 101
    for width, cells in ((30, 25), (100, 100), (1, 1)):
        lines = lines_of(h, (), width)
        assert {line.plain for line in lines[:-1]} == {"▀" * cells}
        assert len(lines) == (cells + 1) // 2 + 1
    assert lines_of(h, (), 30)[-1].plain == "100×100, 4×4 entries in each cell, the largest shown; from 0 to 1"
    assert len(lines_of(h, (), 10_000)) == 101


def test_what_a_cell_of_many_entries_shows() -> None:
    """The entry farthest from 0: a diagonal is not lost."""
    h = np.zeros((40, 40), np.float32)
    h[3, 30], h[39, 39] = 1, -2
    top, bottom = lines_of(h, (), 4)[:2]
    styles = [span.style for line in (top, bottom) for span in line.spans]
    yellow, red, dark = "#fde725", "#f03c32", "#440154"
    assert styles == [f"{dark} on {dark}"] * 3 + [f"{yellow} on {dark}"] + [f"{dark} on {dark}"] * 3 + [
        f"{dark} on {red}"
    ]


def test_colours() -> None:
    shades = colours(np.array([[2, 0], [-1, 1]], np.float32))
    assert shades.tolist() == [[[253, 231, 37], [68, 1, 84]], [[240, 60, 50], [33, 145, 140]]]
    assert colours(np.zeros((2, 2), np.float32)).tolist() == [[[68, 1, 84]] * 2] * 2


@pytest.mark.parametrize(("size", "cell"), [(1, 64), (3, 64), (21, 45), (100, 9), (1000, 1)])
def test_plot(size: int, cell: int) -> None:
    """Every entry has its square; text lies around them, in black on white."""
    h = np.random.default_rng(0).random((size, size), np.float32)
    content = plot(h, [f"größe {i}" for i in range(size)])
    assert content.startswith(b"\x89PNG")
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    rgb = picture[:, :, ::-1]
    coloured = np.ptp(rgb.astype(int), axis=2) > 30
    top, left = np.argwhere(coloured)[0]
    grid = rgb[top : top + size * cell, left : left + size * cell]
    assert grid.shape == (size * cell, size * cell, 3)
    np.testing.assert_array_equal(grid[::cell, ::cell], colours(h))
    around = rgb.copy()
    around[top : top + size * cell, left:] = 255
    assert np.ptp(around.astype(int), axis=2).max() == 0
    assert (around < 100).any()


def test_names_that_cannot_be_drawn() -> None:
    """A number stands for a name without any letter that the font has; a long one is cut."""
    assert plot(H, ["馬", "犬", "魚"]) == plot(H, ["0", "1", "2"]) == plot(H, ())
    assert plot(H, ["a" * 99, "", ""]) == plot(H, ["a" * 98, "1", "2"])
