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
        for heading, rows in self.sections(ctx).items():
            with formatter.section(heading):
                formatter.write_dl(rows)

    def sections(self, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
        """Heading → options and their help, in the help's order."""
        options = [
            p for p in self.get_params(ctx) if isinstance(p, click.Option)
        ]  # newer clicks describe arguments too
        records = {p.name: record for p in options if (record := p.get_help_record(ctx)) is not None}
        headed = {name for names in self._headings.values() for name in names}
        names_by_heading = {**self._headings, "Other options": [name for name in records if name not in headed]}
        sections = {
            heading: [records[name] for name in names if name in records] for heading, names in names_by_heading.items()
        }
        return {heading: rows for heading, rows in sections.items() if rows}
