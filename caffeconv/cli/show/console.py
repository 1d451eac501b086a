"""What is printed, and where: names out of files never reach a terminal as commands to it."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 240
"""Columns where the output is no terminal: nothing is folded that somebody may want to search."""
# control characters but for tab and line end, and the marks that turn the direction of text around
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text with control characters spelled out as in JSON and Python, ``\\u001b``."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def cell(text: str) -> str:
    """Text for a rich table, which shows it as it is."""
    from rich.markup import escape

    return escape(visible(text))


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Prints text, made visible, to stdout or stderr."""
    click.echo(visible(text), err=err, nl=nl)


def make_console() -> Console:
    """stdout, with colour on a terminal only, and the terminal's width."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    return Console(
        file=sys.stdout, width=None if terminal else WIDE, highlight=False, color_system="auto" if terminal else None
    )
