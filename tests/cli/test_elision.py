"""Names in narrow tables: no word is broken, and what is beside them stays."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from caffeconv.cli.show.elision import Elided


@pytest.mark.parametrize(("width", "shown"), [(40, "pictures/of_somewhere/0001.png"), (24, "pictures/…")])
def test_a_name_loses_its_middle(width: int, shown: str) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_row(Elided("pictures/of_somewhere/0001.png"), "12")
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.split("…")[0] in text
    assert len(text.splitlines()) == 1
    assert ("…" in text) == (width < 30)
    assert text.rstrip().endswith("12")


def test_control_characters_are_visible() -> None:
    console = Console(file=io.StringIO(), width=40)
    console.print(Elided("\x1b[2J"))
    assert "\\u001b" in console.file.getvalue()  # type: ignore[attr-defined]
