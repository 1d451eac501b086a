"""`caffeconv run -o`, row by row: features as extract_features keeps them, of any number of items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from caffeconv.cli.options.net import note
from caffeconv.cli.options.run import Verbosity
from caffeconv.cli.show.progress import progress
from caffeconv.cli.show.run_notes import say_corrupt, say_non_finite, say_what_runs
from caffeconv.inference.request import RunRequest

if TYPE_CHECKING:
    from caffeconv.inference.checkpoint import Checkpoint
    from caffeconv.inference.data_passes import DatasetRunner
    from caffeconv.inference.engine import OpenedRun, Say


def extract(run: OpenedRun, request: RunRequest, out: Path, verbosity: Verbosity) -> None:
    """Keeps the blobs of a run in a file, or goes on with it."""
    from caffeconv.inference.checkpoint import was_finished
    from caffeconv.inference.engine import Start, check_engine, running
    from caffeconv.inference.result_files import check_feature_file

    say = partial(note, quiet=verbosity.quiet)
    identity = run.identify()
    if request.data.resume and was_finished(out, identity, run.blobs):
        say(f"{out}: complete already; the run was stopped after it")
        return
    check_feature_file(out, len(run.blobs))
    check_engine(request.engine, run.net)
    _warn_of_several_sources(run, request)
    with _checkpoint(out, identity, run.blobs, say, resume=request.data.resume) as checkpoint:
        journal = checkpoint.journal
        if run.net is not None:
            run.net.states = checkpoint.states()
        with running(run, request, say, Start(journal.positions, journal.passes)) as runner:
            if run.net is not None:
                say_what_runs(runner, run.net, request, verbosity)
            _write(checkpoint, run, runner, verbosity)


@contextmanager
def _checkpoint(
    out: Path, identity: Mapping[str, str], blobs: Sequence[str], say: Say, *, resume: bool
) -> Iterator[Checkpoint]:
    from caffeconv.inference.checkpoint import Checkpoint

    checkpoint = Checkpoint.resume(out, identity, blobs) if resume else None
    if checkpoint is not None:
        say(f"{out}: going on after {checkpoint.journal.items} items")
    else:
        if resume:
            say(f"{out}: nothing to resume; starting from the beginning")
        checkpoint = Checkpoint.create(out, identity, blobs)
    try:
        yield checkpoint
    finally:
        checkpoint.close()


def _write(checkpoint: Checkpoint, run: OpenedRun, runner: DatasetRunner, verbosity: Verbosity) -> None:
    from caffeconv.inference.features import row_blocks, write_features
    from caffeconv.inference.non_finite import NonFiniteValues
    from caffeconv.inference.output_batches import passing

    left = None if runner.end is None else runner.end - checkpoint.journal.items
    item_name = run.item_name if run.net is None else None
    non_finite = NonFiniteValues()
    try:
        with progress(left, "extracting", quiet=verbosity.quiet) as advance:
            blocks = row_blocks(runner, lambda: run.states)
            blocks = passing(blocks, lambda block: non_finite.add(block.rows))
            write_features(checkpoint, blocks, advance, item_name)
    except KeyboardInterrupt:
        items, folder = checkpoint.journal.items, checkpoint.folder
        note(f"stopped: {items} items are in {folder}; the same command with --resume continues")
        raise
    journal = checkpoint.journal
    say_corrupt(journal.skipped)
    say_non_finite(non_finite)
    shapes = ", ".join(f"{blob} {'×'.join(map(str, checkpoint.shape(blob)))}" for blob in journal.blobs)
    note(f"{checkpoint.out}: {shapes}, of {journal.items} items", quiet=verbosity.quiet)
    if verbosity.verbose and run.net is not None:
        note(f"{runner.throughput}")


def _warn_of_several_sources(run: OpenedRun, request: RunRequest) -> None:
    if request.data.skip_bad and len(run.dataset.sources) > 1:
        note(
            "--skip-bad with several data layers: each passes over its own damaged items, so items of different layers "
            "no longer stand side by side after one"
        )
