"""caffeconv convert"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import click

from caffeconv.cli.form_options import (
    FormOptions,
    cropped_shapes,
    form_options,
    not_right,
    report_half,
    show_verification,
)
from caffeconv.cli.options import NetOptions, net_argument, net_options, note, talk_options, weights_argument


@click.command("convert")
@net_argument
@weights_argument
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The model to write: OUT.onnx.")
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="BLOB",
    help="Make these blobs the outputs and cut the rest; `all`: every blob. May be repeated.",
)
@click.option(
    "--batch",
    default="dynamic",
    show_default=True,
    metavar="dynamic|keep|N",
    help="Batch size: any, where every layer allows it; the prototxt's; or N.",
)
@click.option("--opset", type=int, help="ONNX operator set.  [default: 17]")
@click.option("--no-fold", is_flag=True, help="Keep BatchNorm, Scale, Bias and Dropout as layers of their own.")
@click.option("--seed", type=int, default=0, help="For fillers that draw at random, where weights are missing.")
@form_options
@net_options
@talk_options
def convert_command(
    net: Path, weights: tuple[Path, ...], out: Path, outputs: tuple[str, ...], batch: str, opset: int | None,
    no_fold: bool, seed: int, form_options: FormOptions, options: NetOptions, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Writes NET with WEIGHTS as an ONNX model that a plain onnxruntime runs.

    Example, from the project's folder:

    \b
        caffeconv convert fixtures/digits/deploy.prototxt fixtures/digits/digits.caffemodel -o digits.onnx
    """
    from caffeconv.convert import choose_outputs, convert_loaded, load, source_metadata
    from caffeconv.emit.atomic import refuse_input_as_output, whole_file
    from caffeconv.emit.form import take_form
    from caffeconv.errors import CaffeconvError, Diagnostic
    from caffeconv.verify import verify

    if out.suffix.lower() != ".onnx":
        raise CaffeconvError(f"{out}: only ONNX models are written yet; a name that ends in .onnx was needed")
    size = _batch(batch)
    refuse_input_as_output(out, (net, *weights))
    notes: list[Diagnostic] = []
    form = form_options.form(net, options, notes, fold=not no_fold)
    read = functools.partial(
        load, net, weights, state=options.state, seed=seed, ignore_unknown_fields=options.ignore_unknown_fields
    )
    loaded = read(shapes=options.shapes)
    if form_options.crop_size is not None:
        loaded = read(shapes={**options.shapes, **cropped_shapes(loaded, form_options.crop_size)})
    values = choose_outputs(loaded.graph, "all" if outputs == ("all",) else outputs or None)
    plain = convert_loaded(
        loaded, values, batch=size, opset=opset, fold=not no_fold, metadata=source_metadata(loaded), notes=notes
    )
    model = take_form(plain, form, notes)
    if form_options.wants_verification:
        typical = form_options.typical(net, options)
        found = verify(loaded, model, form, options.state, typical=typical, engine=form_options.verify_with)
        show_verification(found, quiet=quiet)
        if not found.ok:
            raise CaffeconvError(not_right(found, out))
    elif form.half and not quiet:
        report_half(loaded, plain, model, form)
    with whole_file(out) as file:
        written = file.write(model.SerializeToString(deterministic=True))
    _report(loaded.dropped, [*loaded.bound.diagnostics, *notes], quiet=quiet, verbose=verbose)
    if not quiet:
        described = " ".join(_describe(value) for value in model.graph.input)
        results = " ".join(_describe(value) for value in model.graph.output)
        click.echo(
            f"{out}: {len(model.graph.node)} nodes, {written / 1e6:.2f} MB; {described or 'no input'} → {results}"
        )


def _batch(value: str) -> int | Literal["dynamic", "keep"]:
    if value in ("dynamic", "keep"):
        return "keep" if value == "keep" else "dynamic"
    if not value.isdigit():
        raise click.UsageError(f"--batch {value}: dynamic, keep or a number was needed")
    return int(value)


def _report(dropped: tuple[object, ...], diagnostics: list[object], *, quiet: bool, verbose: bool) -> None:
    for unknown in dropped:
        note(f"dropped: {unknown}", quiet=quiet)
    for diagnostic in diagnostics:
        if verbose or getattr(diagnostic, "severity", "") == "warning":
            note(str(diagnostic), quiet=quiet)


def _describe(value: object) -> str:
    dims = value.type.tensor_type.shape.dim  # type: ignore[attr-defined]
    return f"{value.name}[{','.join(d.dim_param or str(d.dim_value) for d in dims)}]"  # type: ignore[attr-defined]
