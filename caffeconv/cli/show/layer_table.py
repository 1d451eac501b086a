"""The layers of a net as a table that fits the terminal: no word is broken, and every shape stays whole."""

from __future__ import annotations

import bisect
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffeconv.cli.show.console import echo, visible
from caffeconv.tensor.shape import format_shape

if TYPE_CHECKING:
    from caffeconv.inspection.layer_report import LayerReport

UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
GAP = "  "
SHORTEST = 8
"""Characters that a name keeps at least."""


@dataclass(frozen=True)
class Column:
    """A heading, and for each row its lines. rank: the columns of the highest give way first; 0: never."""

    heading: str
    cells: Sequence[Sequence[str]]
    rank: int = 0
    right: bool = False

    @functools.cached_property
    def width(self) -> int:
        return max(len(line) for cell in (*self.cells, [self.heading]) for line in cell or [""])


def terminal_width() -> int | None:
    """The terminal's width; None where stdout is something else."""
    import shutil

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_layers(layers: Sequence[LayerReport]) -> None:
    """Prints one row a layer on stdout: in a terminal as wide as that allows, else whole."""
    columns = fitting(functools.partial(_columns, layers), terminal_width())
    for row in range(-1, len(layers)):
        is_faulty = row >= 0 and bool(layers[row].problems)
        for line in lines_of(columns, row):
            echo(line, colour="red" if is_faulty else None)


def table_lines(layers: Sequence[LayerReport], width: int | None = None) -> list[str]:
    """The table's lines, headings first, of at most `width` characters where names and costs can give way to it."""
    columns = fitting(functools.partial(_columns, layers), width)
    return [line for row in range(-1, len(layers)) for line in lines_of(columns, row)]


def fitting(columns_of: Callable[[int | None], Sequence[Column]], width: int | None) -> Sequence[Column]:
    """The columns that fit: first whole ones go, those of the highest rank before others; then names lose their middle.

    `columns_of`: the columns with names of so many characters at most, or whole ones for None.
    """
    columns = columns_of(None)
    if width is None:
        return columns
    while _width(columns) > width and any(column.rank for column in columns):
        rank = max(column.rank for column in columns)
        columns = [column for column in columns if column.rank != rank]
    if _width(columns) <= width:
        return columns
    headings = {column.heading for column in columns}

    def shortened(length: int) -> list[Column]:
        return [column for column in columns_of(length) if column.heading in headings]

    lengths = range(SHORTEST, max(SHORTEST, width) + 1)
    most = bisect.bisect_right(lengths, width, key=lambda length: _width(shortened(length)))
    return shortened(lengths[max(0, most - 1)])


def elided(name: str, length: int | None) -> str:
    """The name, shortened to so many characters by its middle where it is longer."""
    if length is None or len(name) <= length:
        return name
    tail = (length - 1) // 2
    return f"{name[: length - 1 - tail]}…{name[len(name) - tail :]}"


def short(number: int) -> str:
    """``1.23M``; empty for 0."""
    for size, unit in UNITS:
        if number >= size:
            return f"{number / size:.3g}{unit}" if number < 1000 * size else f"{number / size:.0f}{unit}"
    return str(number) if number else ""


def short_bytes(number: int) -> str:
    """``1.23 MB``; empty for 0."""
    for size, unit in UNITS:
        if number >= size:
            return f"{number / size:.3g} {unit}B"
    return f"{number} B" if number else ""


def _columns(layers: Sequence[LayerReport], longest: int | None) -> list[Column]:
    def name(text: str) -> str:
        return elided(visible(text), longest)

    tops = [[f"{name(blob)} {format_shape(shape)}" for blob, shape in layer.tops] or ["–"] for layer in layers]
    params = [[f"{visible(param)} {format_shape(shape)}" for param, shape in layer.params] for layer in layers]
    fields = [layer.receptive_field for layer in layers]
    return [
        Column("layer", [[name(layer.name)] for layer in layers]),
        Column("type", [[name(layer.type)] for layer in layers]),
        Column("bottoms", [[*map(name, layer.bottoms)] for layer in layers], 1),
        Column("tops", tops),
        Column("parameters", params),
        Column("params", [[short(layer.parameter_count)] for layer in layers], 2, right=True),
        Column("mult-adds", [[short(layer.multiply_adds)] for layer in layers], 3, right=True),
        Column("memory", [[short_bytes(layer.activation_bytes)] for layer in layers], 4, right=True),
        Column("rec. field", [["×".join(map(str, field.size))] if field else [] for field in fields], 5, right=True),
    ]


def _width(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + len(GAP) * (len(columns) - 1)


def lines_of(columns: Sequence[Column], row: int) -> list[str]:
    """One row's lines, or for -1 the headings."""
    cells = [[column.heading] if row < 0 else column.cells[row] for column in columns]
    lines = []
    for i in range(max(1, *map(len, cells))):
        texts = [cell[i] if i < len(cell) else "" for cell in cells]
        padded = [
            text.rjust(column.width) if column.right else text.ljust(column.width)
            for text, column in zip(texts, columns, strict=True)
        ]
        lines.append(GAP.join(padded).rstrip())
    return lines
