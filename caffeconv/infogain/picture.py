"""Shows H: as lines of text for a terminal, and as a picture."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from caffeconv.tensor.shape import FloatArray

if TYPE_CHECKING:
    from rich.text import Text

Colours = NDArray[np.uint8]
"""…×3: red, green, blue."""

# from zero to the greatest value, and from zero to the least
_UP = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64)
_DOWN = np.array([(68, 1, 84), (150, 20, 80), (240, 60, 50)], np.float64)


def colours(matrix: FloatArray) -> Colours:
    """L×L×3: dark for 0, from blue over green to yellow for what is above, red for what is below."""
    greatest = max(float(matrix.max()), 0.0) or 1.0
    least = max(float(-matrix.min()), 0.0) or 1.0
    up, down = _ramp(_UP, np.maximum(matrix, 0) / greatest), _ramp(_DOWN, np.maximum(-matrix, 0) / least)
    return np.asarray(np.where((matrix < 0)[..., None], down, up).round(), np.uint8)


def _ramp(stops: NDArray[np.float64], share: NDArray[np.floating]) -> NDArray[np.float64]:
    positions = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(share, positions, channel) for channel in stops.T], axis=-1)


def _ink(colour: Colours) -> tuple[int, int, int]:
    """Black or white, whichever can be read on the colour."""
    red, green, blue = (int(part) for part in colour)
    return (0, 0, 0) if 299 * red + 587 * green + 114 * blue > 140_000 else (255, 255, 255)


# -- text --------------------------------------------------------------------------------------------------------------


def lines_of(matrix: FloatArray, names: Sequence[str], width: int | None) -> list[Text]:
    """H as lines: a table of numbers, or where that is wider than `width` columns, a heat map of coloured half blocks.

    `names` are those of the classes, or none: then their numbers stand there. width None: always numbers.
    """
    if width is not None and 3 * len(matrix) > width:
        return _heat_map(matrix, width)
    table = _table(matrix, names, coloured=width is not None)
    return table if width is None or max(line.cell_len for line in table) <= width else _heat_map(matrix, width)


def _table(matrix: FloatArray, names: Sequence[str], *, coloured: bool) -> list[Text]:
    from rich.cells import cell_len
    from rich.text import Text

    heads = [str(label) for label in range(len(matrix))]
    titles = [f"{head} {name}" for head, name in zip(heads, names, strict=True)] if names else heads
    cells = [[f"{value:.3g}" for value in row] for row in matrix.tolist()]
    left = max(map(cell_len, titles))
    widths = [max(len(head), *map(len, column)) for head, column in zip(heads, zip(*cells, strict=True), strict=True)]

    def filled(row: Sequence[str]) -> list[str]:
        return [f" {value:>{width}} " for value, width in zip(row, widths, strict=True)]

    titles = [title + " " * (left - cell_len(title) + 1) for title in titles]
    first = Text(" " * (left + 1) + "".join(filled(heads)), style="bold")
    if not coloured:
        return [first, *(Text(title + "".join(filled(row))) for title, row in zip(titles, cells, strict=True))]
    lines = [first]
    for title, row, shades in zip(titles, cells, colours(matrix), strict=True):
        line = Text(title, style="bold")
        for cell, shade in zip(filled(row), shades, strict=True):
            line.append(cell, style=f"not bold {_style(_ink(shade))} on {_style(shade)}")
        lines.append(line)
    return lines


def _heat_map(matrix: FloatArray, width: int) -> list[Text]:
    """Two rows of cells in each line, several classes in a cell where there are more of them than columns."""
    from rich.text import Text

    step = math.ceil(len(matrix) / max(1, width))
    shades = colours(_largest(matrix, step))
    lines = []
    for i in range(0, len(shades), 2):
        line = Text()
        for j, upper in enumerate(shades[i]):
            lower = f" on {_style(shades[i + 1, j])}" if i + 1 < len(shades) else ""
            line.append("▀", style=_style(upper) + lower)
        lines.append(line)
    size = f"{step}×{step} entries in each cell, the largest shown" if step > 1 else "an entry in each cell"
    lines.append(Text(f"{len(matrix)}×{len(matrix)}, {size}; from {matrix.min():.3g} to {matrix.max():.3g}"))
    return lines


def _largest(matrix: FloatArray, step: int) -> FloatArray:
    """Of every step×step entries the one that is farthest from 0."""
    size = math.ceil(len(matrix) / step)
    padded = np.zeros((size * step, size * step), np.float32)
    padded[: len(matrix), : len(matrix)] = matrix
    blocks = padded.reshape(size, step, size, step).transpose(0, 2, 1, 3).reshape(size, size, -1)
    farthest = np.abs(blocks).argmax(axis=2, keepdims=True)
    return np.asarray(np.take_along_axis(blocks, farthest, axis=2)[..., 0])


def _style(colour: Sequence[int] | Colours) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour)


# -- picture -----------------------------------------------------------------------------------------------------------

_SIDE = 960
"""Pixels for the cells, about."""
_LARGEST_CELL, _CELL_WITH_NUMBER = 64, 40
_GAP, _TEXT, _BAR = 12, 18, 16
"""Pixels between parts, for a line of text, and across the bar that explains the colours."""
_LONGEST = 28
"""Letters of a name that are drawn."""


def plot(matrix: FloatArray, names: Sequence[str]) -> bytes:
    """H as a PNG: a coloured square for each entry, with its number where there is room, and the classes beside it."""
    import cv2

    size = len(matrix)
    cell = max(1, min(_LARGEST_CELL, _SIDE // size))
    labels = [_drawable(names[label] if names else "") or str(label) for label in range(size)]
    labelled = range(0, size, math.ceil(_TEXT / cell))
    texts = {label: _text(labels[label]) for label in labelled}
    widest = max(text.shape[1] for text in texts.values())
    upright = widest > cell * labelled.step - 4
    numbers = [_text(f"{value:.4g}") for value in (matrix.max(), min(0.0, float(matrix.min())))]
    left = _GAP + _TEXT + widest + _GAP
    top = _GAP + _TEXT + (widest if upright else _TEXT) + _GAP
    right = _GAP + _BAR + _GAP // 2 + max(number.shape[1] for number in numbers) + _GAP
    side = cell * size
    canvas = np.full((top + side + _GAP, left + side + right, 3), 255, np.uint8)
    canvas[top : top + side, left : left + side] = np.repeat(np.repeat(colours(matrix), cell, 0), cell, 1)
    if cell >= _CELL_WITH_NUMBER:
        for (i, j), value in np.ndenumerate(matrix):
            region = canvas[top + i * cell : top + (i + 1) * cell, left + j * cell : left + (j + 1) * cell]
            _draw(region, _text(f"{value:.2g}"), cell // 2, cell // 2, _ink(region[0, 0]))
    for label, text in texts.items():
        middle = label * cell + cell // 2
        _draw(canvas, text, left - _GAP // 2 - text.shape[1] // 2 - 1, top + middle)
        rotated = np.rot90(text) if upright else text
        _draw(canvas, rotated, left + middle, top - _GAP // 2 - rotated.shape[0] // 2 - 1)
    _draw(canvas, np.rot90(_text("true label")), _GAP + _TEXT // 2, top + side // 2)
    _draw(canvas, _text("predicted class"), left + side // 2, _GAP + _TEXT // 2)
    _draw_bar(canvas[top : top + side, left + side + _GAP :], matrix, numbers)
    return bytes(cv2.imencode(".png", canvas[:, :, ::-1])[1])


def _draw_bar(canvas: Colours, matrix: FloatArray, numbers: Sequence[NDArray[np.uint8]]) -> None:
    """What the colours mean, from the greatest value down to the least, or 0."""
    values = np.linspace(matrix.max(), min(0.0, float(matrix.min())), len(canvas), dtype=np.float32)
    canvas[:, :_BAR] = colours(values[:, None])
    for number, y in zip(
        numbers, (number_height := numbers[0].shape[0] // 2, len(canvas) - number_height - 1), strict=True
    ):
        _draw(canvas, number, _BAR + _GAP // 2 + number.shape[1] // 2, y)


def _text(text: str) -> NDArray[np.uint8]:
    """A line of text, 255 where there is ink."""
    import cv2

    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.42
    (width, height), below = cv2.getTextSize(text, font, scale, 1)
    image = np.zeros((height + below + 2, width + 2), np.uint8)
    cv2.putText(image, text, (1, height + 1), font, scale, 255, 1, cv2.LINE_AA)
    return image


def _draw(canvas: Colours, text: NDArray[np.uint8], x: int, y: int, colour: tuple[int, int, int] = (0, 0, 0)) -> None:
    """Draws a text around a point; what would lie outside the canvas is cut off."""
    top, left = max(0, y - text.shape[0] // 2), max(0, x - text.shape[1] // 2)
    region = canvas[top : top + text.shape[0], left : left + text.shape[1]]
    ink = text[: region.shape[0], : region.shape[1], None] / 255
    region[...] = (region * (1 - ink) + np.array(colour) * ink).round()


def _drawable(name: str) -> str:
    """A name in the letters that OpenCV's fonts have; empty where nothing of it can be drawn."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return ascii_name if len(ascii_name) <= _LONGEST else f"{ascii_name[: _LONGEST - 2]}.."
