"""Help texts, those of many options under headings, in the characters that the terminal has."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import click

from caffeconv.cli.show.console import encodable

Headings = Mapping[str, Sequence[str]]
"""Heading → names of the parameters under it; those under none come last, with --help."""


class _PlainFormatter(click.HelpFormatter):
    def getvalue(self) -> str:
        return encodable(super().getvalue(), sys.stdout)


class PlainContext(click.Context):
    """A context whose help stdout can show whatever its encoding is."""

    formatter_class = _PlainFormatter


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
