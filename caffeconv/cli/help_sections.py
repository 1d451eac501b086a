"""Help texts, those of many options under headings, and mistakes of usage, in the characters that the terminal has."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import IO

import click

from caffeconv.cli.shell_words import in_shell_words
from caffeconv.cli.show.console import echo, encodable, say

Headings = Mapping[str, Sequence[str]]
"""Heading → names of the parameters under it; those under none come last, with --help."""


class _PlainFormatter(click.HelpFormatter):
    def getvalue(self) -> str:
        return encodable(super().getvalue(), sys.stdout)


class PlainContext(click.Context):
    """A context whose help stdout can show whatever its encoding is."""

    formatter_class = _PlainFormatter


class UsageMistake(click.UsageError):
    """A usage error of click's, shown with the prefix of all errors; exit code 2."""

    def __init__(self, error: click.UsageError) -> None:
        message = error.format_message()
        is_own = type(error) is click.UsageError  # others are click's sentences
        super().__init__(message if is_own else message[:1].lower() + message[1:].removesuffix("."), error.ctx)

    def show(self, file: IO[str] | None = None) -> None:
        if self.ctx is not None:
            echo(f"{self.ctx.get_usage()}\nTry '{self.ctx.command_path} --help' for help.\n", err=True)
        say(in_shell_words(self.message), "error")


class SectionedCommand(click.Command):
    """A command whose help lists its options under headings."""

    def __init__(self, *args: object, headings: Headings, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type] # click's own arguments, handed on
        self._headings = headings

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = {p.name: record for p in self.get_params(ctx) if (record := p.get_help_record(ctx)) is not None}
        named = {name for names in self._headings.values() for name in names}
        sections = {**self._headings, "Other options": [name for name in records if name not in named]}
        for heading, names in sections.items():
            rows = [records[name] for name in names if name in records]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)
