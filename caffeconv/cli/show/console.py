"""The console that tables are printed on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 240
"""Columns where the output is no terminal: nothing is folded that somebody may want to search."""


def make_console() -> Console:
    """stdout, with colour on a terminal only, and the terminal's width."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    return Console(
        file=sys.stdout, width=None if terminal else WIDE, highlight=False, color_system="auto" if terminal else None
    )
