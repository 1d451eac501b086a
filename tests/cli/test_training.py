"""A training as it is shown."""

from __future__ import annotations

from caffeconv.cli.show.training import Table, progress_bar
from caffeconv.training.events import Iteration, NetTest, Output


def test_rows_of_the_table() -> None:
    lines: list[str] = []
    table = Table(lines.append)
    table.report(Iteration(0, 1.0, 1.0, 0.1, 4, False, 1.0, 1.0, 5, []))
    table.report(NetTest(5, 1, [Output("accuracy", 0.5)], None))
    assert [line.split() for line in lines[1:]] == [["5", "test", "1", "accuracy", "0.5"]]


def test_there_is_no_bar_where_there_is_no_terminal() -> None:
    with progress_bar(0, 5, quiet=True) as (report, _):
        report(Iteration(0, 1.0, 1.0, 0.1, 4, False, 1.0, 1.0, 5, []))
