"""What is said of a run on stderr: over what it goes, and what it passed over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffeconv.cli.options.net import note
from caffeconv.cli.options.run import Verbosity
from caffeconv.cli.show.console import echo
from caffeconv.inference.request import RunRequest

if TYPE_CHECKING:
    from caffeconv.inference.data_passes import DatasetRunner
    from caffeconv.inference.non_finite import NonFiniteValues
    from caffeconv.net.net import Net


def say_what_runs(runner: DatasetRunner, net: Net, request: RunRequest, verbosity: Verbosity) -> None:
    """How many items and batches; with -v where it computes."""
    if verbosity.verbose and request.engine.name == "process":
        from caffeconv.cli.show.placement import say_placement

        session = net.session_of(runner.blobs)
        if session is not None:
            say_placement(session, lambda: net.layer_names)
    if runner.leading is None:
        quiet = verbosity.quiet or runner.total > 1
        note("the net reads no data: 1 batch, unless --iterations says otherwise", quiet=quiet)
        return
    source = runner.sources[runner.leading]
    batches = "1 batch" if runner.total == 1 else f"{runner.total} batches"
    items = runner.items[runner.leading]
    note(f"{source.name}: {items} items, {batches} of {source.batch_size}", quiet=verbosity.quiet)


def say_non_finite(values: NonFiniteValues) -> None:
    """Names blobs with values that are no numbers."""
    for message in values.messages:
        note(f"{message}; the weights, or the preparation of the input, may not be the net's own")


def say_corrupt(messages: Sequence[str]) -> None:
    """Counts and lists corrupt items that were passed over."""
    if not messages:
        return
    note(f"{len(messages)} damaged items were passed over:")
    for message in messages:
        echo(f"  {message}", err=True)
