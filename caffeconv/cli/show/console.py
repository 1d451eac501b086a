"""What is printed, and where: names out of files never reach a terminal as commands to it, and no stream's encoding fails."""

from __future__ import annotations

import codecs
import io
import os
import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, TextIO

import click

from caffeconv.errors import Severity

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST = 40
"""Columns below which nothing is folded."""
WIDE = 240
"""Columns where the output is no terminal: nothing is folded that somebody may want to search."""
PROGRAM = "caffeconv"
# control characters but for tab and line ends, and the marks that turn the direction of text around
_CONTROL = re.compile("\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_STAND_INS = {
    "×": "x", "→": "->", "←": "<-", "…": "...", "·": "*", "∗": "*", "÷": "/", "−": "-", "–": "-", "—": "-", "±": "+-",
    "∓": "-+", "≤": "<=", "≥": ">=", "²": "^2", "√": "sqrt", "½": "1/2", "∞": "inf", "Σ": "sum", "α": "alpha",
    "β": "beta", "ε": "eps", "λ": "lambda", "σ": "sigma", "━": "-", "╸": "-", "╺": "-", "▀": "#",
}  # fmt: skip
_COLOURS = {"error": "red", "warning": "yellow"}
STAND_IN = "caffeconv.stand_in"
"""Error handler for streams in other encodings than UTF-8: ``->`` for →, ``\\u03bc`` for what has no likeness in ASCII."""


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_in_ascii, error.object[error.start : error.end])), error.end


def _in_ascii(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a file's name that is no character (PEP 383)
        return f"\\x{ord(character) - 0xDC00:02x}"
    return _STAND_INS.get(character) or ascii(character)[1:-1]


codecs.register_error(STAND_IN, _stand_in)


def accept_every_character() -> None:
    """Has stdout and stderr write stand-ins for characters that their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=STAND_IN)


def encodable(text: str, stream: TextIO) -> str:
    """The text with stand-ins for what the stream's encoding lacks. (click would write UTF-8 where that is ASCII.)"""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, STAND_IN).decode(encoding)


def visible(text: str) -> str:
    """The text with control characters spelled out as in JSON and Python, ``\\u001b``."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def cell(text: str) -> str:
    """Text for a rich table, which shows it as it is."""
    from rich.markup import escape

    return escape(visible(text))


def has_colour(stream: TextIO) -> bool:
    """Whether to colour what a stream gets: terminals, but for NO_COLOR and CLICOLOR=0; with CLICOLOR_FORCE everything."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    return stream.isatty() and os.environ.get("CLICOLOR") != "0" and os.environ.get("TERM") != "dumb"


def echo(text: str, *, err: bool = False, nl: bool = True, colour: str | None = None) -> None:
    """Prints text, made visible, to stdout or stderr; in a colour of click's where the stream has any."""
    _write(_styled(visible(text), colour, sys.stderr if err else sys.stdout), err=err, nl=nl)


def say(message: str, severity: Severity | None = None) -> None:
    """A line for people on stderr, which all begin alike: ``caffeconv: error: …``."""
    label = _styled(f"{severity}:", _COLOURS.get(severity), sys.stderr) + " " if severity else ""
    _write(f"{PROGRAM}: {label}{visible(message)}", err=True)


def _styled(text: str, colour: str | None, stream: TextIO) -> str:
    return click.style(text, fg=colour, bold=True) if colour and has_colour(stream) else text


def _write(text: str, *, err: bool, nl: bool = True) -> None:
    stream = sys.stderr if err else sys.stdout
    click.echo(encodable(text, stream), err=err, nl=nl, color=has_colour(stream))


def within_terminal(text: str, taken: int = 0) -> str:
    """Text for stderr, folded between words where that is a terminal; `taken`: columns that stand before its first line."""
    columns = shutil.get_terminal_size().columns if sys.stderr.isatty() else 0
    return wrapped(text, columns, taken) if columns >= NARROWEST else text


def wrapped(text: str, columns: int, taken: int = 0) -> str:
    """The text with no line longer than `columns`, where words are no longer; what follows is set in below its line."""
    first, *rest = text.split("\n")
    lines = [
        *_wrapped_line("\0" * taken + first, columns),
        *(part for line in rest for part in _wrapped_line(line, columns)),
    ]
    return "\n".join(lines)[taken:]


def _wrapped_line(line: str, columns: int) -> list[str]:
    if len(line) <= columns:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.wrap(
        line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=False,
    )  # fmt: skip


def make_console() -> Console:
    """stdout, with colour where it has any, and the terminal's width."""
    from rich.console import Console

    terminal, colour = sys.stdout.isatty(), has_colour(sys.stdout)
    return Console(
        file=sys.stdout, width=None if terminal else WIDE, highlight=False,
        color_system=None if not colour else "auto" if terminal else "standard",
    )  # fmt: skip
