"""caffeconv inspect"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from caffeconv.cli.options import NetOptions, net_argument, net_options, note, talk_options, weights_argument
from caffeconv.errors import CaffeconvError

if TYPE_CHECKING:
    from rich.table import Table

    from caffeconv.report import LayerReport, Report

UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@click.command("inspect")
@net_argument
@weights_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--fix", "fix", type=click.Path(path_type=Path), metavar="OUT.prototxt",
              help="Write the net with the first of the edits that mend it.")
@net_options
@talk_options
def inspect_command(
    net: Path, weights: tuple[Path, ...], as_json: bool, fix: Path | None, options: NetOptions,
    quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Shows every layer of NET with its shapes, parameters and costs, and says whether WEIGHTS fit.

    Exit code 0 where they do, 1 where they do not. Example, from the project's folder:

    \b
        caffeconv inspect fixtures/digits/deploy.prototxt fixtures/digits/digits.caffemodel
    """
    from caffeconv.report import inspect

    report = inspect(
        net, weights, phase=options.phase, level=options.level, stages=options.stages, shapes=options.shapes,
        deploy=options.deploy, extended=options.extended, infogain=options.infogain,
        ignore_unknown_fields=options.ignore_unknown_fields,
    )  # fmt: skip
    if as_json:
        click.echo(to_json(report))
    elif not quiet:
        print_table(report)
    shown = ("error", "warning", "note") if verbose else ("error", "warning")
    for diagnostic in report.diagnostics:
        if diagnostic.severity in shown:
            click.echo(f"{diagnostic.severity}: {diagnostic}", err=True)
    if report.advice:
        click.echo(report.advice, err=True)
    if fix is not None:
        _write_fix(report, fix, (net, *weights), quiet=quiet)
    if not report.ok:
        raise SystemExit(1)
    if not quiet and not as_json:
        fits = "The weights fit." if weights else "The shapes go together; no weights were given."
        click.echo(fits)


def _write_fix(report: Report, out: Path, inputs: Sequence[Path], *, quiet: bool) -> None:
    from caffeconv.emit.atomic import refuse_input_as_output, whole_file
    from caffeconv.emit.prototxt import net_to_text

    if report.fixed is None:
        if report.ok:
            note(f"nothing to mend; {out} is not written", quiet=quiet)
            return
        raise CaffeconvError(f"{out}: not written: no edits were found after which everything fits")
    refuse_input_as_output(out, inputs)
    with whole_file(out) as file:
        file.write(net_to_text(report.fixed).encode())
    note(f"{out}: written, with {report.cures[0]}", quiet=quiet)


def to_json(report: Report) -> str:
    """The report as JSON."""
    import json

    return json.dumps(
        {
            "version": 1,
            "net": report.net,
            "ok": report.ok,
            "inputs": {name: list(shape) for name, shape in report.inputs.items()},
            "outputs": {name: list(shape) for name, shape in report.outputs.items()},
            "parameters": report.parameter_count,
            "multiply_adds": report.multiply_adds,
            "activation_bytes": report.activation_bytes,
            "layers": [
                {
                    "name": layer.name,
                    "type": layer.type,
                    "line": layer.line,
                    "bottoms": list(layer.bottoms),
                    "tops": [{"name": name, "shape": list(shape)} for name, shape in layer.tops],
                    "params": [{"name": name, "shape": list(shape)} for name, shape in layer.params],
                    "parameters": layer.parameter_count,
                    "multiply_adds": layer.multiply_adds,
                    "activation_bytes": layer.activation_bytes,
                }
                for layer in report.layers
            ],
            "diagnostics": [
                {"severity": d.severity, "where": d.where, "message": d.message, "hint": d.hint, "layer": d.layer}
                for d in report.diagnostics
            ],
        },
        indent=1,
    )


def print_table(report: Report) -> None:
    """Prints one row a layer, and totals, on stdout."""
    from caffeconv.cli.table import make_console

    console = make_console()
    console.print(_table(report.layers), soft_wrap=False)
    click.echo(
        f"{report.net or 'net'}: {len(report.layers)} layers, {short(report.parameter_count)} parameters "
        f"({short_bytes(report.parameter_count * 4)}), {short(report.multiply_adds)} multiply-adds, "
        f"{short_bytes(report.activation_bytes)} activations"
    )


def _table(layers: Sequence[LayerReport]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from caffeconv.ir import by_x

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("layer", "type", "bottoms", "tops", "parameters"):
        table.add_column(heading, overflow="fold")
    for heading in ("params", "mult-adds", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in layers:
        tops = "\n".join(f"{name} {by_x(shape)}" for name, shape in layer.tops) or "–"
        params = "\n".join(f"{name} {by_x(shape)}" for name, shape in layer.params)
        table.add_row(
            escape(layer.name), layer.type, escape("\n".join(layer.bottoms)), escape(tops), escape(params),
            short(layer.parameter_count), short(layer.multiply_adds), short_bytes(layer.activation_bytes),
            style="red" if layer.problems else None,
        )  # fmt: skip
    return table


def short(number: int) -> str:
    """``1.23M``; empty for 0."""
    for size, unit in UNITS:
        if number >= size:
            return f"{number / size:.3g}{unit}" if number < 1000 * size else f"{number / size:.0f}{unit}"
    return str(number) if number else ""


def short_bytes(number: int) -> str:
    """``1.23 MB``; empty for 0."""
    for size, unit in UNITS:
        if number >= size:
            return f"{number / size:.3g} {unit}B"
    return f"{number} B" if number else ""
