"""Names in rich's tables that lose their middle where a column is too narrow, so that no word is broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.measure import Measurement
from rich.text import Text

from caffeconv.cli.show.console import visible
from caffeconv.cli.show.layer_table import SHORTEST, elided

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


@dataclass(frozen=True)
class Elided:
    """A name as a cell, of as many characters as its column has room for."""

    name: str

    def __str__(self) -> str:
        return visible(self.name)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(elided(str(self), options.max_width))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        length = len(str(self))
        return Measurement(min(length, SHORTEST), length)
