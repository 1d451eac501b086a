"""Help of commands with many options: under headings instead of in one long list; and what was perhaps meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

Headings = Mapping[str, Sequence[str]]
"""Heading → names of the parameters under it; those under none come last, with --help."""


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
