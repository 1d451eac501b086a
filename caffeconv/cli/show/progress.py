"""A progress bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caffeconv.inference.output_batches import OutputBatch

PATIENCE = 1.0
"""Seconds after which a bar appears."""


@contextmanager
def progress(total: int | None, what: str, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Yields a function that moves the bar on by a number of items; the bar stands on stderr and goes when done.

    What is over within a second shows none. total None: the number of items is not known.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda items: None
        return
    with ExitStack() as stack:
        yield _Bar(total, what, stack).advance


def advancing(batches: Iterable[OutputBatch], advance: Callable[[int], None]) -> Iterator[OutputBatch]:
    """The batches; once each is done with, `advance` is told of its items."""
    for batch in batches:
        yield batch
        advance(batch.size)


class _Bar:
    """A bar that waits before it appears."""

    def __init__(self, total: int | None, what: str, stack: ExitStack) -> None:
        self._total = total
        self._what = what
        self._stack = stack
        self._start = time.monotonic()
        self._count = 0
        self._move: Callable[[int], None] | None = None

    def advance(self, items: int) -> None:
        self._count += items
        if self._move is None and time.monotonic() - self._start >= PATIENCE:
            self._move = self._show()
        if self._move is not None:
            self._move(self._count)

    def _show(self) -> Callable[[int], None]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        rate = TextColumn("{task.fields[rate]:.1f}/s")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        bar = self._stack.enter_context(Progress(*columns, console=Console(file=sys.stderr), transient=True))
        task = bar.add_task(self._what, total=self._total, rate=0.0)
        return lambda items: bar.update(task, completed=items, rate=items / (time.monotonic() - self._start))
