"""A training while it goes on: lines as Caffe's log has them, a table, a bar."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Literal

from caffeconv.cli.show.console import echo, visible
from caffeconv.training.events import Event, Iteration, LogLine, NetTest, Output, log_lines, number

Format = Literal["caffe", "table"]
Print = Callable[[str], None]


class CaffeLog:
    """Lines as glog writes them, so that what reads Caffe's logs reads these."""

    def __init__(self, write: Print) -> None:
        self._write = write

    def report(self, event: Event) -> None:
        for line in log_lines(event):
            self.line(line)

    def line(self, line: LogLine) -> None:
        now = datetime.now()
        self._write(f"I{now:%m%d %H:%M:%S.%f} {os.getpid():5d} {line.source}] {line.text}")


class FirstNonFinite:
    """Says once where the loss is no number any more: what is learned from there on is worth nothing."""

    def __init__(self, write: Print) -> None:
        self._write: Print | None = write

    def report(self, event: Event) -> None:
        if isinstance(event, Iteration) and self._write is not None and not math.isfinite(event.loss):
            self._write(
                f"warning: the loss is {number(event.loss)} in iteration {event.number}, and snapshots from there on are worth "
                "nothing; a smaller base_lr, `clip_gradients`, or other data were needed"
            )
            self._write = None


class Table:
    """A line for each iteration that Caffe's log has, and for each test."""

    def __init__(self, write: Print) -> None:
        self._write = write
        self._has_head = False

    def report(self, event: Event) -> None:
        if isinstance(event, Iteration) and event.is_shown:
            self._row(str(event.number), "train", number(event.smoothed_loss), number(event.rate), event.outputs)
        elif isinstance(event, NetTest):
            loss = "" if event.loss is None else number(event.loss)
            self._row(str(event.iteration), f"test {event.net}", loss, "", event.outputs)

    def _row(self, iteration: str, net: str, loss: str, rate: str, outputs: object) -> None:
        if not self._has_head:
            self._has_head = True
            self._write(f"{'iteration':>9}  {'net':7} {'loss':>10} {'lr':>10}  outputs")
        assert isinstance(outputs, (list, tuple))
        values = "  ".join(f"{it.name} {number(it.value)}" for it in outputs if isinstance(it, Output))
        self._write(f"{iteration:>9}  {net:7} {loss:>10} {rate:>10}  {values}".rstrip())


@contextmanager
def progress_bar(first: int, last: int, *, quiet: bool) -> Iterator[tuple[Callable[[Event], None], Print]]:
    """Yields what moves a bar on stderr by iterations, and what prints lines above it; no bar where stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda event: None, lambda line: echo(line, err=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    text = TextColumn("loss {task.fields[loss]}  lr {task.fields[lr]}  {task.fields[rate]} images/s")
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    with Progress(
        BarColumn(), MofNCompleteColumn(), text, TimeRemainingColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task("", total=last, completed=first, loss="", lr="", rate="")

        def report(event: Event) -> None:
            if isinstance(event, Iteration):
                speed = bar.tasks[0].speed
                rate = f"{speed * event.items:.0f}" if speed else ""
                bar.update(
                    task, completed=event.number + 1, loss=number(event.smoothed_loss), lr=number(event.rate), rate=rate
                )

        yield report, lambda line: console.print(visible(line), markup=False)
