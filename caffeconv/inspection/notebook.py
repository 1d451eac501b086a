"""Tables and lists as notebooks show them, HTML without a style sheet."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from caffeconv.tensor.shape import FloatArray

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


def array_html(title: str, values: FloatArray) -> str:
    """The title, and where an array's values lie; NaN and infinite ones are counted, and otherwise left out."""
    finite = values[np.isfinite(values)]
    rows = [("values", f"{values.size:,}")]
    if finite.size:
        rows += [("least", f"{finite.min():g}"), ("mean", f"{finite.mean():g}"), ("greatest", f"{finite.max():g}")]
        rows += [("zeros", f"{1 - np.count_nonzero(finite) / finite.size:.1%}")]
    if finite.size < values.size:
        rows += [("NaN or infinite", f"{values.size - finite.size:,}")]
    return f"<p>{_escaped(title)}</p>" + html_table(
        tuple(name for name, _ in rows), [tuple(value for _, value in rows)]
    )


def _cell(content: str | Sequence[str]) -> str:
    lines = [content] if isinstance(content, str) else content
    return f"<td style='text-align: left'>{'<br>'.join(map(_escaped, lines))}</td>"


def _escaped(text: str) -> str:
    return html.escape(text)
