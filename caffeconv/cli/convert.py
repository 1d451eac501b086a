"""caffeconv convert"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from caffeconv.cli.options import NetOptions, net_argument, net_options, note, talk_options, weights_argument

if TYPE_CHECKING:
    from caffeconv.emit.store import Storage


@click.command("convert")
@net_argument
@weights_argument
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="What to write: a model, OUT.onnx; or weights as Caffe saves them, OUT.caffemodel or OUT.caffemodel.h5.",
)
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
@click.option(
    "--weights",
    "storage",
    type=click.Choice(["embed", "external", "link"]),
    help="Where the weights go: into OUT; beside it, to OUT.….data; or nowhere: OUT points into WEIGHTS, which must lie in "
    "its folder or below.  [default: embed; external where OUT would be over 2 GiB]",
)
@click.option("--opset", type=int, help="ONNX operator set.  [default: 17]")
@click.option("--no-fold", is_flag=True, help="Keep BatchNorm, Scale, Bias and Dropout as layers of their own.")
@click.option("--seed", type=int, default=0, help="For fillers that draw at random, where weights are missing.")
@net_options
@talk_options
def convert_command(
    net: Path, weights: tuple[Path, ...], out: Path, outputs: tuple[str, ...], batch: str, storage: Storage | None,
    opset: int | None, no_fold: bool, seed: int,
    options: NetOptions, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Writes NET with WEIGHTS as an ONNX model that a plain onnxruntime runs, or as weights that Caffe loads.

    Example, from the project's folder:

    \b
        caffeconv convert fixtures/digits/deploy.prototxt fixtures/digits/digits.caffemodel -o digits.onnx
    """
    from functools import partial

    from caffeconv.cli.stored import saved, told
    from caffeconv.convert import choose_outputs, load, outline_loaded, source_metadata, weights_files
    from caffeconv.emit.atomic import refuse_input_as_output
    from caffeconv.emit.net_weights import is_weights_name, save_weights
    from caffeconv.errors import CaffeconvError, Diagnostic
    from caffeconv.read.hashes import hashing

    refuse_input_as_output(out, (net, *weights))
    if is_weights_name(out):
        if storage or outputs or opset:
            raise CaffeconvError(f"{out}: --weights, --output and --opset are for ONNX models; this file holds weights")
        if not weights_files(net, weights):
            raise CaffeconvError(f"{out}: no weights were given, so there are none to save; give WEIGHTS after NET")
        loaded = load(
            net, weights, state=options.state, shapes=options.shapes, seed=seed,
            ignore_unknown_fields=options.ignore_unknown_fields,
        )  # fmt: skip
        save_weights(out, loaded.graph)
        _report(loaded.dropped, list(loaded.bound.diagnostics), quiet=quiet, verbose=verbose)
        if not quiet:
            click.echo(f"{out}: {saved(loaded.graph)}, {out.stat().st_size / 1e6:.2f} MB")
        return
    if out.suffix.lower() != ".onnx":
        raise CaffeconvError(
            f"{out}: a name that ends in .onnx was needed for a model, or in .caffemodel or .caffemodel.h5 for weights"
        )
    size = _batch(batch)
    notes: list[Diagnostic] = []
    with hashing(weights_files(net, weights)) as hashes:
        loaded = load(
            net, weights, state=options.state, shapes=options.shapes, seed=seed,
            ignore_unknown_fields=options.ignore_unknown_fields,
        )  # fmt: skip
        values = choose_outputs(loaded.graph, "all" if outputs == ("all",) else outputs or None)
        outline = outline_loaded(
            loaded, values, batch=size, opset=opset, fold=not no_fold, link=storage == "link", notes=notes
        )
        from caffeconv.emit.store import choose_storage, write_model

        chosen = choose_storage(outline, storage)
        written = write_model(outline, out, chosen, hashes, partial(source_metadata, loaded, hashes))
    _report(loaded.dropped, [*loaded.bound.diagnostics, *notes], quiet=quiet, verbose=verbose)
    for line in told(written, automatic=chosen != (storage or "embed"), verbose=verbose):
        note(line, quiet=quiet)
    if not quiet:
        graph = outline.model.graph
        described = " ".join(_describe(value) for value in graph.input)
        results = " ".join(_describe(value) for value in graph.output)
        click.echo(
            f"{out}: {len(graph.node)} nodes, {written.bytes / 1e6:.2f} MB; {described or 'no input'} → {results}"
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
