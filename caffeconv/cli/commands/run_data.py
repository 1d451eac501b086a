"""`caffeconv run` over databases and lists: scores as `caffe test` prints them, or features."""

from __future__ import annotations

import csv
import io
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caffeconv.cli.commands.run_features import extract
from caffeconv.cli.options.net import note
from caffeconv.cli.options.run import Verbosity
from caffeconv.cli.show.console import echo
from caffeconv.cli.show.progress import advancing, progress
from caffeconv.cli.show.run_notes import say_corrupt, say_non_finite, say_what_runs
from caffeconv.inference.request import RunRequest

if TYPE_CHECKING:
    from caffeconv.inference.data_passes import DatasetRunner
    from caffeconv.inference.output_batches import OutputBatch
    from caffeconv.inference.scores import Scores


def run_over_data(request: RunRequest, verbosity: Verbosity) -> None:
    """Scores, or features where -o says where to."""
    from caffeconv.files.atomic import refuse_input_as_output
    from caffeconv.inference.open_runner import open_net_run

    out = request.output.path
    if out is None:
        if request.blobs:
            raise click.UsageError("--blobs keeps features; say where: -o FILE.h5, .npz, .npy or .lmdb")
        if request.data.resume:
            raise click.UsageError("--resume continues an output file; name it: -o FILE")
        _test(request, verbosity)
        return
    if request.output.per_batch is not None:
        raise click.UsageError("--per-batch is for scores; -o keeps features. Leave one of them out")
    refuse_input_as_output(out, request.files.all)
    extract(open_net_run(request, partial(note, quiet=verbosity.quiet)), request, out, verbosity)


def _test(request: RunRequest, verbosity: Verbosity) -> None:
    """What `caffe test` prints."""
    from caffeconv.inference.corrupt_items import CorruptItems
    from caffeconv.inference.engine import check_engine, running
    from caffeconv.inference.non_finite import NonFiniteValues
    from caffeconv.inference.open_runner import open_net_run
    from caffeconv.inference.output_batches import passing
    from caffeconv.inference.scores import Scores

    say = partial(note, quiet=verbosity.quiet)
    run = open_net_run(request, say)
    assert run.net is not None
    check_engine(request.engine, run.net)
    scores = Scores(run.net)
    corrupt, non_finite, per_batch = CorruptItems(), NonFiniteValues(), request.output.per_batch
    with running(replace(run, blobs=scores.blobs), request, say) as runner:
        say_what_runs(runner, run.net, request, verbosity)
        batches = passing(corrupt.collect(runner), lambda batch: non_finite.add(batch.blobs))
        twice = _add_all(runner, batches, scores, per_batch, quiet=verbosity.quiet)
    if twice:
        say(f"the last batch was filled up with the first {twice} items again, as Caffe does: they count twice")
    say_corrupt(corrupt.messages)
    say_non_finite(non_finite)
    for line in itertools.chain([f"Loss: {scores.loss:.6g}"] if scores.weights else [], map(str, scores.means())):
        echo(line, err=str(per_batch) == "-")
    if verbosity.verbose:
        note(f"{runner.throughput}")


def _add_all(
    runner: DatasetRunner, batches: Iterable[OutputBatch], scores: Scores, per_batch: Path | None, *, quiet: bool
) -> int:
    """Adds every batch's scores; how many items count twice."""
    from caffeconv.inference.result_files import csv_text

    twice = 0
    with _rows(per_batch) as write, progress(runner.total_items, "testing", quiet=quiet) as advance:
        for output in advancing(batches, advance):
            batch = scores.add(output.number, output.blobs)
            if not output.number:
                write(itertools.chain(["batch"], map(csv_text, scores.names()), ["loss"]))
            write(itertools.chain([str(batch.number)], (f"{value:.9g}" for value in (*batch.values, batch.loss))))
            twice += int((~output.counted).sum())
    return twice


@contextmanager
def _rows(path: Path | None) -> Iterator[Callable[[Iterable[str]], object]]:
    """Writes rows of CSV to a file, whole or not at all; to stdout for ``-``; nowhere for None."""
    from caffeconv.files.atomic import whole_file

    if path is None:
        yield lambda row: None
    elif str(path) == "-":
        yield csv.writer(sys.stdout, lineterminator="\n").writerow
    else:
        with whole_file(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
            yield csv.writer(text, lineterminator="\n").writerow
            text.detach()
