"""Tables and lists as notebooks show them, HTML without a style sheet."""

from __future__ import annotations

import html
from collections.abc import Sequence

MOST_ROWS = 500
"""Rows of a table, as notebooks keep in their file what they show."""
MOST_ITEMS = 20
"""Entries of a list."""


def html_table(headings: Sequence[str], rows: Sequence[Sequence[str | Sequence[str]]]) -> str:
    """A table; cells of several texts have a line for each."""
    head = "".join(f"<th>{_escaped(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows[:MOST_ROWS])
    rest = len(rows) - MOST_ROWS
    more = f"<tr><td colspan='{len(headings)}'>… and {rest} more</td></tr>" if rest > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}{more}</tbody></table>"


def html_list(heading: str, texts: Sequence[str]) -> str:
    """A heading and a list; nothing where there are no texts."""
    if not texts:
        return ""
    items = [f"<li><pre>{_escaped(text)}</pre></li>" for text in texts[:MOST_ITEMS]]
    rest = len(texts) - MOST_ITEMS
    items += [f"<li>… and {rest} more</li>"] if rest > 0 else []
    return f"<p>{_escaped(heading)}</p><ul>{''.join(items)}</ul>"


def _cell(content: str | Sequence[str]) -> str:
    lines = [content] if isinstance(content, str) else content
    return f"<td style='text-align: left'>{'<br>'.join(map(_escaped, lines))}</td>"


def _escaped(text: str) -> str:
    return html.escape(text)
