"""caffeconv convert … -o OUT.npz|.h5|.safetensors: the weights alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from click.core import ParameterSource

from caffeconv.cli.options import NetOptions, note

SUFFIXES = (".npz", ".h5", ".safetensors")
ARGUMENTS = frozenset(
    ("net", "weights", "out", "layout", "seed", "phase", "level", "stages", "shapes", "deploy", "extended", "infogain",
     "allow_python", "ignore_unknown_fields", "quiet", "verbose")
)  # fmt: skip
"""What of `convert` bears on weights alone."""


def writes_kernels(out: Path) -> bool:
    """Whether OUT is a file for weights alone, by its name; ``.caffemodel.h5`` is Caffe's own."""
    return out.suffix.lower() in SUFFIXES and not out.name.lower().endswith(".caffemodel.h5")


def convert_kernels(
    net: Path, weights: tuple[Path, ...], out: Path, layout: Literal["nhwc", "nchw"], seed: int, options: NetOptions,
    *, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Writes the arrays, and says what there is to say of them."""
    from caffeconv.cli.progress import progress
    from caffeconv.convert import load
    from caffeconv.emit.atomic import refuse_input_as_output
    from caffeconv.emit.kernel_files import write_kernels
    from caffeconv.emit.kernels import kernels_of

    _refuse_other_options(out)
    refuse_input_as_output(out, (net, *weights))
    loaded = load(
        net, weights, state=options.state, shapes=options.shapes, seed=seed,
        ignore_unknown_fields=options.ignore_unknown_fields,
    )  # fmt: skip
    content = kernels_of(loaded.graph, layout, keras_names=out.suffix.lower() == ".h5")
    with progress(len(content.arrays), "writing arrays", quiet=quiet) as advance:
        written = write_kernels(out, content, advance)
    if not weights and net.suffix != ".caffemodel":
        note("no weights were given; the arrays hold what their fillers make", quiet=quiet)
    for unknown in loaded.dropped:
        note(f"dropped: {unknown}", quiet=quiet)
    for diagnostic in loaded.bound.diagnostics:
        if verbose or diagnostic.severity == "warning":
            note(str(diagnostic), quiet=quiet)
    _tell_notes({name: layer.get("notes", ()) for name, layer in content.layers.items()}, verbose=verbose, quiet=quiet)
    if not quiet:
        held = "channels last (NHWC)" if layout == "nhwc" else "as Caffe has them"
        click.echo(f"{out}: {len(content.arrays)} arrays, {written / 1e6:.2f} MB; {held}")


def _refuse_other_options(out: Path) -> None:
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in ARGUMENTS and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} is for ONNX models, and {out.name} holds weights alone")


def _tell_notes(notes: dict[str, object], *, verbose: bool, quiet: bool) -> None:
    told = [(layer, line) for layer, lines in notes.items() if isinstance(lines, (list, tuple)) for line in lines]
    if verbose:
        for layer, line in told:
            note(f"{layer}: {line}", quiet=quiet)
    elif told:
        layers = len({layer for layer, _ in told})
        word = "layer" if layers == 1 else "layers"
        note(f"{layers} {word} with something to know; -v says it, and so does the file's metadata", quiet=quiet)
