"""caffeconv inspect"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caffeconv.caffe_format.prototxt import is_solver, solver_nets
from caffeconv.cli.commands.inspect_files import compare_weights_files, inspect_file, is_weights
from caffeconv.cli.options.net import net_argument, net_options, note, talk_options, weights_argument
from caffeconv.cli.shell_words import in_shell_words
from caffeconv.cli.show.console import echo, say, within_terminal
from caffeconv.cli.show.problems import folded
from caffeconv.errors import CaffeconvError, close_names
from caffeconv.frontend.options import NetOptions

if TYPE_CHECKING:
    from caffeconv.inspection.report import Report

MOST_NAMES = 10


@click.command("inspect")
@net_argument
@weights_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--fix",
    "fix",
    type=click.Path(path_type=Path),
    metavar="OUT.prototxt",
    help="Write the net with the first suggested fix: your own text, only those lines changed; `-` prints a diff.",
)
@click.option(
    "--fix-weights",
    "fix_weights",
    type=click.Path(path_type=Path),
    metavar="OUT.caffemodel",
    help="Write the weights in the form that NET takes as it is: other names, axes or blobs.",
)
@click.option(
    "--swap-channels",
    is_flag=True,
    help="With --fix-weights: write the weights for pictures with RGB in place of BGR, or the reverse.",
)
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path),
    metavar="REPORT.html",
    help="Write the report as one page with the net drawn as a graph.",
)
@click.option(
    "--layer", "layer", metavar="NAME", help="Explain one layer instead: blobs, sizes, learning rates, TensorFlow."
)
@click.option("--batch", type=int, metavar="N", help="Compute memory and multiply-adds for this batch size.")
@click.option("--values", is_flag=True, help="Look at the weights' values too: NaN, infinite, all zero.")
@net_options
@talk_options
def inspect_command(
    net: Path, weights: tuple[Path, ...], as_json: bool, fix: Path | None, fix_weights: Path | None, layer: str | None,
    batch: int | None, values: bool, page: Path | None, options: NetOptions, swap_channels: bool, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Shows every layer of NET with its shapes, parameters and costs, and says whether WEIGHTS fit.

    Where they do not, says why, and which edits of NET would fix it. Exit code 0 where they fit, 1 where they do not.
    With a second prototxt in place of WEIGHTS: what differs between the two nets, layer by layer. Of a solver's file: its
    nets, its learning rates, and how many iterations go through the data once. NET may also be weights, an LMDB or LevelDB
    folder, HDF5 data, or a mean or H in a binaryproto, which are listed; two weights files are compared.

    Example, from the project's folder:

    \b
        caffeconv inspect fixtures/digits/deploy.prototxt fixtures/digits/digits.caffemodel
    """
    if is_prototxt(net) and is_solver(net):
        _explain_solver(net, as_json=as_json)
        return
    if len(weights) == 1 and is_prototxt(net) and is_prototxt(weights[0]):
        _compare(_report(net, (), options, batch), _report(weights[0], (), options, batch), as_json=as_json)
        return
    if not weights and inspect_file(net, values=values, as_json=as_json):
        return
    if len(weights) == 1 and is_weights(net) and is_weights(weights[0]):
        compare_weights_files(net, weights[0], as_json=as_json)
        return
    if swap_channels and fix_weights is None:
        raise click.UsageError("--swap-channels goes with --fix-weights OUT.caffemodel, which it changes")
    report = _report(net, weights, options, batch, values=values, swap_channels=swap_channels)
    if layer is not None:
        _explain(report, layer, as_json=as_json)
        return
    if as_json:
        echo(report.to_json())
    elif not quiet and str(fix) != "-":
        print_table(report)
    for severity, text in folded(report.diagnostics, verbose=verbose):
        say(within_terminal(text, len(f"caffeconv: {severity}: ")), severity)
    if report.advice:
        echo(within_terminal(report.advice), err=True)
    if page is not None:
        _write_page(report, page, (net, *weights), quiet=quiet)
    if fix is not None:
        _write_fix(report, fix, (net, *weights), quiet=quiet)
    if fix_weights is not None:
        _write_weights(report, fix_weights, (net, *weights), quiet=quiet)
    if not report.ok:
        raise SystemExit(1)
    if not quiet and not as_json:
        echo(_verdict(report))


def _verdict(report: Report) -> str:
    if not report.has_weights:
        return "The shapes go together; no weights were given."
    if not report.unfilled:
        return "The weights fit."
    number = len(report.unfilled)
    names = ", ".join(report.unfilled[:MOST_NAMES]) + (", …" if number > MOST_NAMES else "")
    layers = "1 layer stays at its fillers" if number == 1 else f"{number} layers stay at their fillers"
    return f"The weights fit, but {layers}: {names}"


def _explain_solver(path: Path, *, as_json: bool) -> None:
    from caffeconv.cli.show.solver import solver_lines, to_json
    from caffeconv.training.explanation import explain_solver

    try:
        explanation = explain_solver(path)
    except CaffeconvError as error:
        nets = " and ".join(solver_nets(path))
        raise CaffeconvError(f"{path}: a solver{f'; its net is {nets}' if nets else ''}\n  {error}") from None
    if as_json:
        echo(to_json(explanation))
        return
    for line in solver_lines(explanation):
        echo(line)


def is_prototxt(path: Path) -> bool:
    """Whether a path is that of a net definition, by its suffix."""
    return path.suffix in (".prototxt", ".pt", ".txt")


def _report(
    net: Path, weights: tuple[Path, ...], options: NetOptions, batch: int | None, *, values: bool = False,
    swap_channels: bool = False,
) -> Report:  # fmt: skip
    from caffeconv.inspection.report import inspect

    report = inspect(
        net, weights, phase=options.phase, level=options.level, stages=options.stages, shapes=options.shapes,
        deploy=options.deploy, extended=options.extended, infogain=options.infogain,
        allow_python=options.allow_python, dialect=options.dialect, root=options.root,
        ignore_unknown_fields=options.ignore_unknown_fields, batch=batch, values=values, swap_channels=swap_channels,
    )  # fmt: skip
    diagnostics = tuple(
        replace(d, message=in_shell_words(d.message), hint=in_shell_words(d.hint)) for d in report.diagnostics
    )
    return replace(report, diagnostics=diagnostics, advice=in_shell_words(report.advice))


def _explain(report: Report, layer: str, *, as_json: bool) -> None:
    from caffeconv.inspection.explain import explain
    from caffeconv.inspection.report_json import layer_to_json

    try:
        lines = explain(report.nodes, layer)
        reported = next(other for other in report.layers if other.name == layer)
        echo(layer_to_json(reported, lines) if as_json else "\n".join(lines))
    except KeyError:
        for diagnostic in report.diagnostics:
            if diagnostic.layer == layer and diagnostic.severity == "error":
                raise CaffeconvError(str(diagnostic)) from None
        names = [other.name for other in report.layers]
        matches = close_names(layer, names, 3)
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        hint = (
            f" Did you mean {' or '.join(matches)}?" if matches else f" Layers: {', '.join(names[:MOST_NAMES])}{more}."
        )
        raise CaffeconvError(f"the net has no layer '{layer}' that could be built.{hint}") from None


def _compare(a: Report, b: Report, *, as_json: bool) -> None:
    from caffeconv.inspection.diff import compare
    from caffeconv.inspection.report_json import changes_to_json

    for report in (a, b):
        for diagnostic in report.diagnostics:
            if diagnostic.severity == "error":
                say(str(diagnostic), "error")
    changes = compare(a, b)
    if as_json:
        echo(changes_to_json(changes))
        _exit_unless_built(a, b)
        return
    for change in changes:
        echo(f"{change.name} ({change.kind})")
        for line in change.changes:
            echo(f"  {line}")
    from caffeconv.cli.show.layer_table import short

    for what, old, new in (
        ("parameters", a.parameter_count, b.parameter_count), ("multiply-adds", a.multiply_adds, b.multiply_adds),
    ):  # fmt: skip
        echo(f"{what}: {short(old) or 0} → {short(new) or 0}")
    if not changes:
        echo("No layer differs.")
    _exit_unless_built(a, b)


def _exit_unless_built(*reports: Report) -> None:
    """Exit code 1 where one of two nets that were compared cannot be built: what differs is then said in part."""
    if not all(report.ok for report in reports):
        raise SystemExit(1)


def _write_page(report: Report, out: Path, inputs: Sequence[Path], *, quiet: bool) -> None:
    from caffeconv.cli.show.inspect_html import to_html
    from caffeconv.files.atomic import refuse_input_as_output, whole_file

    refuse_input_as_output(out, inputs)
    with whole_file(out) as file:
        file.write(to_html(report, histograms=True).encode())
    note(f"{out}: written", quiet=quiet)


def _write_fix(report: Report, out: Path, inputs: Sequence[Path], *, quiet: bool) -> None:
    from caffeconv.files.atomic import refuse_input_as_output, whole_file

    if report.fixed is None:
        if report.ok:
            note(f"nothing to fix; {out} is not written", quiet=quiet)
            return
        raise CaffeconvError(f"{out}: not written: no edits were found after which everything fits")
    if str(out) == "-":
        echo(_unified_diff(report, inputs[0]), nl=False)
        return
    refuse_input_as_output(out, inputs)
    with whole_file(out) as file:
        file.write(report.fixed_text.replace("\n", _line_end_of(inputs[0])).encode())
    note(f"{out}: written, with {report.cures[0].text(MOST_NAMES)}", quiet=quiet)


def _line_end_of(net: Path) -> str:
    """How the lines of the net's file end, as those of Windows or as the others."""
    from caffeconv.caffe_format.small_files import read_bytes

    is_windows_text = not is_weights(net) and b"\r\n" in read_bytes(net, "a net definition")
    return "\r\n" if is_windows_text else "\n"


def _unified_diff(report: Report, net: Path) -> str:
    import difflib

    from caffeconv.caffe_format.prototxt import read_text

    texts = ("" if is_weights(net) else read_text(net), report.fixed_text)
    end = _line_end_of(net)
    before, after = (text.replace("\n", end).splitlines(keepends=True) for text in texts)
    return "".join(difflib.unified_diff(before, after, str(net), f"{net} (fixed)"))


def _write_weights(report: Report, out: Path, inputs: Sequence[Path], *, quiet: bool) -> None:
    from caffeconv.caffe_format.caffemodel_writer import write_caffemodel
    from caffeconv.files.atomic import refuse_input_as_output, whole_file

    fix = report.weights_fix
    if fix is None:
        raise CaffeconvError(f"{out}: not written: no other form of the weights was found that the net takes as it is")
    if out.suffix != ".caffemodel":
        raise CaffeconvError(f"{out}: a name that ends in .caffemodel was needed")
    refuse_input_as_output(out, inputs)
    types = {layer.name: layer.type for layer in report.layers}
    layers = (
        (layer.name, types.get(layer.name, layer.type), [(blob.shape, blob.array()) for blob in layer.blobs if blob])
        for layer in fix.file.layers
    )
    with whole_file(out) as file:
        write_caffemodel(file, report.net, layers)
    note(f"{out}: written; {len(fix.changes)} of {len(fix.file.layers)} layers changed", quiet=quiet)
    for change in () if fix.keeps_numbers else fix.changes[:MOST_NAMES]:
        note(f"  {change}", quiet=quiet)


MOST_ROWS = 2000
"""Layers that the table shows: laying out more takes long, and nobody reads them."""


def print_table(report: Report) -> None:
    """Prints one row a layer, and totals, on stdout."""
    from caffeconv.cli.show.layer_table import print_layers, short, short_bytes

    print_layers(report.layers[:MOST_ROWS])
    if len(report.layers) > MOST_ROWS:
        echo(f"… and {len(report.layers) - MOST_ROWS} more layers, which --json and --html show too")
    echo(
        f"{report.net or 'net'}: {len(report.layers)} layers, {short(report.parameter_count) or 0} parameters "
        f"({short_bytes(report.parameter_count * 4) or '0 B'}), {short(report.multiply_adds) or 0} multiply-adds, "
        f"{short_bytes(report.activation_bytes) or '0 B'} activations, "
        f"peak memory {short_bytes(report.peak_bytes) or '0 B'}"
    )
