"""`caffeconv run` over pictures and arrays: classes, detections, whole blobs, or features."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caffeconv.cli.commands.run_features import extract
from caffeconv.cli.options.net import note
from caffeconv.cli.options.run import Verbosity
from caffeconv.cli.show.console import echo
from caffeconv.cli.show.run_notes import say_corrupt, say_non_finite
from caffeconv.errors import CaffeconvError
from caffeconv.inference.request import RunRequest
from caffeconv.inference.result_files import RecordFormat, format_of

if TYPE_CHECKING:
    from caffeconv.cli.show.classes import Classified, ClassRule
    from caffeconv.cli.show.drawings import Drawer
    from caffeconv.inference.corrupt_items import CorruptItems
    from caffeconv.inference.engine import OpenedRun
    from caffeconv.inference.output_batches import OutputBatch
    from caffeconv.runtime.session import Session
    from caffeconv.tensor.shape import FloatArray


def run_over_inputs(request: RunRequest, verbosity: Verbosity) -> None:
    """Runs every item once, and shows or writes what comes of it."""
    from caffeconv.cli.show.placement import say_placement
    from caffeconv.inference.corrupt_items import CorruptItems
    from caffeconv.inference.engine import check_engine
    from caffeconv.inference.open_runner import open_input_run, open_model

    check_engine(request.engine)
    names = _read_labels(request.output.labels)
    say = partial(note, quiet=verbosity.quiet)
    model = open_model(request, say)
    in_rows = _is_in_rows(request, model.session)
    _check_output(request, list(model.session.outputs), in_rows=in_rows)
    corrupt = CorruptItems()
    run = open_input_run(request, model, note, corrupt.lines if _may_skip(request) else None)
    if verbosity.verbose:
        say_placement(model.session, lambda: [layer.name for layer in model.layers()])
    if in_rows is not None:
        extract(_with_outputs_of(run, request, in_rows), request, in_rows, verbosity)
    else:
        _predict(run, request, names, corrupt, verbosity)


# -- what the options mean together --------------------------------------------------------------------------------------


def _is_in_rows(request: RunRequest, session: Session) -> Path | None:
    """The output, where it is written row by row; a usage error where that does not go with other options."""
    out, resume = request.output.path, request.data.resume
    if request.output.draw is not None and request.images.oversample:
        raise click.UsageError(
            "--draw with --oversample: crops are averaged, and what is drawn is found in whole pictures"
        )
    if out is None:
        if resume:
            raise click.UsageError("--resume continues an output file; name it: -o FILE")
        return None
    form = format_of(out)
    is_whole = form.whole is not None
    streams = form.rows is not None and (not is_whole or (bool(request.blobs) and _has_rows(session)))
    if not streams and not resume:
        return None
    if request.output.draw is not None:
        raise click.UsageError(f"--draw with {out}: rows are kept of any number of items; draw in a run of its own")
    if request.output.records is not None:
        raise click.UsageError(f"--resume continues files of whole blobs, and {out} would hold classes or boxes")
    if request.images.oversample:
        raise click.UsageError(
            "--oversample with --blobs or --resume: crops are averaged for classes, not for features"
        )
    if request.data.skip_bad:
        raise click.UsageError(
            "--skip-bad with --input is for classes and boxes, not for whole blobs; take the damaged picture out"
        )
    return out


def _has_rows(session: Session) -> bool:
    """Whether every output has a row for each item."""
    batches = {dims[0] for dims in session.inputs.values() if dims}
    return all(
        dims and dims[0] in batches and session.kind(name) != "detections" for name, dims in session.outputs.items()
    )


def _check_output(request: RunRequest, outputs: Sequence[str], *, in_rows: Path | None) -> None:
    """Raises CaffeconvError for a file that cannot be written, or that is one of the net's own."""
    from caffeconv.files.atomic import refuse_input_as_output
    from caffeconv.inference.result_files import check_output

    out = request.output.path
    if out is None:
        return
    if request.output.records is None and in_rows is None:
        check_output(out, outputs)
    refuse_input_as_output(out, request.files.all)


def _may_skip(request: RunRequest) -> bool:
    """Whether corrupt items are passed over; a usage error where that is not possible."""
    if request.data.skip_bad and (len(request.inputs) > 1 or request.engine.name == "ray"):
        raise click.UsageError("--skip-bad with --input is for one --input, and for this process alone")
    return request.data.skip_bad


def _with_outputs_of(run: OpenedRun, request: RunRequest, out: Path) -> OpenedRun:
    """The run with the blobs that the file is to hold."""
    blobs = list(run.blobs)
    if format_of(out).one_blob and len(blobs) > 1:
        blobs = [blob for blob in blobs if blob in request.blobs] or blobs
    return replace(run, blobs=blobs)


def _form_of_records(request: RunRequest, *, boxes: bool) -> RecordFormat | None:
    """How classes or boxes are written; None where they are shown as a table, or whole blobs are written instead."""
    output = request.output
    if output.records is not None or output.path is None:
        return output.records
    # boxes are no rows of values, one for each item, so a .csv holds them one a row in any case
    if (output.per_item and not request.blobs) or (boxes and format_of(output.path).records == "csv"):
        return format_of(output.path).records
    return None


# -- classes, boxes, whole blobs -----------------------------------------------------------------------------------------


def _predict(
    run: OpenedRun, request: RunRequest, names: Sequence[str], corrupt: CorruptItems, verbosity: Verbosity
) -> None:
    from caffeconv.data.image_transform import CROPS
    from caffeconv.inference.engine import running
    from caffeconv.inference.fixed_batch import DEFAULT_BATCH
    from caffeconv.inference.non_finite import NonFiniteValues
    from caffeconv.inference.output_batches import averaged, passing

    with running(run, request, partial(note, quiet=verbosity.quiet)) as runner:
        batches = averaged(runner, CROPS) if request.images.oversample else iter(runner)
        non_finite = NonFiniteValues()
        batches = passing(batches, lambda batch: non_finite.add(batch.blobs))
        drawer = _drawer(run, request, names)
        batches = batches if drawer is None else passing(batches, drawer.draw)
        _show(run, request, names, corrupt.collect(batches), verbosity)
    say_corrupt(corrupt.messages)
    say_non_finite(non_finite)
    if drawer is not None:
        number = f"{drawer.written} pictures" if drawer.written else "nothing to draw: no boxes, no maps of labels"
        note(f"{request.output.draw}: {number}", quiet=verbosity.quiet and bool(drawer.written))
    if verbosity.verbose:
        size = next((source.batch_size for source in run.dataset.sources.values()), DEFAULT_BATCH)
        note(f"{_count_items(run)} items in batches of {size}")


def _drawer(run: OpenedRun, request: RunRequest, names: Sequence[str]) -> Drawer | None:
    """What draws; None where nobody asks for it. CaffeconvError where the inputs are no pictures."""
    folder, pictures = request.output.draw, run.main_input
    if folder is None:
        return None
    from caffeconv.cli.show.detections import Detected
    from caffeconv.cli.show.drawings import Drawer
    from caffeconv.data.input_items import ImageSource

    if not isinstance(pictures, ImageSource):
        raise CaffeconvError(f"--draw {folder}: the input is an array; pictures were needed, to draw on")
    return Drawer(folder, pictures, Detected(run.item_name, names, request.output.threshold), run.dataset.model.kind)


def _show(
    run: OpenedRun, request: RunRequest, names: Sequence[str], batches: Iterator[OutputBatch], verbosity: Verbosity
) -> None:
    """Shows or writes what the first batch says that they are: classes, boxes, or other blobs."""
    from caffeconv.cli.show.classes import refuse_other_outputs
    from caffeconv.cli.show.detections import is_detection

    first, model, out = next(batches), run.dataset.model, request.output.path
    batches = itertools.chain([first], batches)
    rule = _class_rule(run, request, names)
    boxes = is_detection(model, first)
    classes = not boxes and rule.is_classification(first)
    if classes and request.output.wants_boxes:
        raise CaffeconvError(
            "--threshold is for boxes, and these are scores of classes: --top-k says how many are shown"
        )
    if request.output.records is not None and not classes and not boxes:
        refuse_other_outputs(rule, first, _asking(request))
    form = _form_of_records(request, boxes=boxes) if classes or boxes else None
    if form is not None:
        _write_records(run, request, names, batches, form, verbosity, boxes=boxes)
    elif out is None and classes:
        _print_classes(run, request, names, batches, verbosity)
    elif not request.data.skip_bad:
        _keep_all(run, request, names, batches, verbosity)
    else:
        raise click.UsageError(
            "--skip-bad with --input is for classes and for boxes (--format csv or jsonl); other values are kept whole"
        )


def _asking(request: RunRequest) -> str:
    output = request.output
    return f"--format {output.records}" if output.format_is_asked else f"-o {output.path}"


def _count_items(run: OpenedRun) -> int:
    return run.main_input.count_items() if run.main_input is not None and run.dataset.sources else 1


def _classified(run: OpenedRun, request: RunRequest, names: Sequence[str]) -> Classified:
    from caffeconv.cli.show.classes import Classified
    from caffeconv.data.input_items import ImageSource

    own = run.main_input.images.classes if isinstance(run.main_input, ImageSource) else None
    return Classified(run.item_name, own, names, request.output.top_k)


def _write_records(
    run: OpenedRun, request: RunRequest, names: Sequence[str], batches: Iterator[OutputBatch], form: RecordFormat,
    verbosity: Verbosity, *, boxes: bool,
) -> None:  # fmt: skip
    """Classes or boxes, one batch after another, to stdout or into a file."""
    from caffeconv.cli.show.classes import Tally, predictions
    from caffeconv.cli.show.detections import Detected
    from caffeconv.cli.show.progress import advancing, progress
    from caffeconv.cli.show.records import Record, lines_of, write_lines

    naming = _classified(run, request, names)
    detections = Detected(naming.items, naming.labels, request.output.threshold)
    tally, sizes = Tally(request.output.top_k), list[int]()
    out = request.output.path
    with progress(
        _count_items(run), "running", quiet=verbosity.quiet or (out is None and sys.stdout.isatty())
    ) as advance:
        batches = advancing(advancing(batches, advance), sizes.append)
        records: Iterator[Record] = detections.records(batches) if boxes else predictions(batches, naming, tally)
        lines = lines_of(records, detections.header if boxes else naming.header, form)
        if out is not None:
            write_lines(lines, out)
        else:
            for line in lines:
                echo(line, nl=False)
    if out is not None:
        note(f"{out}: {'boxes' if boxes else 'classes'} of {sum(sizes)} items", quiet=verbosity.quiet)
    if tally.items:
        note(str(tally), quiet=verbosity.quiet)


def _print_classes(
    run: OpenedRun, request: RunRequest, names: Sequence[str], batches: Iterator[OutputBatch], verbosity: Verbosity
) -> None:
    from caffeconv.cli.show.classes import print_table
    from caffeconv.cli.show.progress import advancing, progress

    with progress(_count_items(run), "running", quiet=verbosity.quiet or sys.stdout.isatty()) as advance:
        tally = print_table(advancing(batches, advance), _classified(run, request, names))
    if tally.items:
        note(str(tally), quiet=verbosity.quiet)


def _keep_all(
    run: OpenedRun, request: RunRequest, names: Sequence[str], batches: Iterator[OutputBatch], verbosity: Verbosity
) -> None:
    from caffeconv.cli.show.progress import advancing, progress
    from caffeconv.cli.show.tables import print_blobs
    from caffeconv.inference.output_batches import join
    from caffeconv.inference.result_files import write_results

    model, total, output = run.dataset.model, _count_items(run), request.output
    with progress(total, "running", quiet=verbosity.quiet) as advance:
        results = join(list(advancing(batches, advance)), {name: model.kind(name) for name in run.blobs})
    items = [run.item_name(i) for i in range(total)]
    if output.path is not None:
        write_results(output.path, results, items)
        note(f"{output.path}: {', '.join(results)} of {total} items", quiet=verbosity.quiet)
    if output.path is None or not verbosity.quiet:
        rule = _class_rule(run, request, names)
        if output.path is None and output.per_item:
            _refuse_if_nothing_fits(rule, results, total)
        print_blobs(results, rule.kind, items, names, output.top_k, output.threshold)


def _refuse_if_nothing_fits(rule: ClassRule, results: Mapping[str, FloatArray], items: int) -> None:
    """Raises CaffeconvError where neither classes nor boxes are among the results."""
    from caffeconv.tensor.shape import format_shape

    if any(rule.kind(name, values, items) for name, values in results.items()):
        return
    shapes = ", ".join(f"'{name}' is {format_shape(values.shape)}" for name, values in results.items())
    names = f"{len(rule.labels)} names, and " if rule.labels else ""
    raise CaffeconvError(
        f"--labels, --top-k and --threshold are for scores of classes or for boxes; {names}{shapes}; leave them out"
    )


def _read_labels(path: Path | None) -> list[str]:
    if path is None:
        return []
    from caffeconv.inference.class_names import read_class_names

    return read_class_names(path)


def _class_rule(run: OpenedRun, request: RunRequest, names: Sequence[str]) -> ClassRule:
    from caffeconv.cli.show.classes import ClassRule

    return ClassRule(run.dataset.model.kind, names, request.output.wants_classes)
