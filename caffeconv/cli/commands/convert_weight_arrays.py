"""caffeconv convert … -o OUT.npz|.h5|.safetensors: the weights alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from caffeconv.cli.options.net import note, refuse_other_options, tell_problems
from caffeconv.cli.show.console import echo
from caffeconv.frontend.options import NetOptions

if TYPE_CHECKING:
    from caffeconv.emit.metadata import Layout
    from caffeconv.emit.weights.weight_arrays import WeightsContent

SUFFIXES = (".npz", ".h5", ".safetensors")
ARGUMENTS = frozenset(("out", "layout", "seed"))
"""What of `convert` bears on weights alone, besides the options that choose and shape the net."""


def writes_weight_arrays(out: Path) -> bool:
    """Whether OUT is a file for weights alone, by its name; ``.caffemodel.h5`` is Caffe's own."""
    return out.suffix.lower() in SUFFIXES and not out.name.lower().endswith(".caffemodel.h5")


def convert_weight_arrays(
    net: Path, weights: tuple[Path, ...], out: Path, layout: Layout | None, options: NetOptions,
    *, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Writes the arrays, and prints a summary and the notes on them; channels last where the layout is not said."""
    from caffeconv.cli.show.progress import progress
    from caffeconv.cli.show.written_files import non_finite_remarks
    from caffeconv.conversion.load import load
    from caffeconv.emit.weights.weight_arrays import weight_arrays_of
    from caffeconv.emit.weights.weight_files import write_weight_arrays

    refuse_other_options(ARGUMENTS, f"is for ONNX models, and {out.name} holds weights alone")
    content = _as_stored(net, weights, layout, options, quiet=quiet)
    loaded = None
    if content is None:
        loaded = load(net, weights, options)
        content = weight_arrays_of(loaded.graph, layout or "nhwc", keras_names=out.suffix.lower() == ".h5")
    with progress(len(content.arrays), "writing arrays", quiet=quiet) as advance:
        written = write_weight_arrays(out, content, advance)
    dropped, remarks = (loaded.dropped, loaded.remarks) if loaded is not None else ((), ())
    tell_problems(dropped, [*remarks, *non_finite_remarks(out, written.non_finite)], quiet=quiet, verbose=verbose)
    _tell_notes({name: layer.get("notes", ()) for name, layer in content.layers.items()}, verbose=verbose, quiet=quiet)
    if not quiet:
        layout_text = "channels last (NHWC)" if content.layout == "nhwc" else "as Caffe has them"
        echo(f"{out}: {len(content.arrays)} arrays, {written.bytes / 1e6:.2f} MB; {layout_text}")


def _as_stored(
    net: Path, weights: tuple[Path, ...], layout: Layout | None, options: NetOptions, *, quiet: bool
) -> WeightsContent | None:
    """The blobs as the files have them, where nothing tells what a net that keeps channels last makes of them."""
    from caffeconv.conversion.stored_weights import is_weights_alone, stored_arrays
    from caffeconv.errors import CaffeconvError

    if is_weights_alone(net, weights):
        if layout == "nhwc":
            raise CaffeconvError(
                f"`layout='nhwc'`: {net} holds weights alone, and without its net nobody knows which axes are channels; "
                "give the prototxt first, then the weights, or take `layout='nchw'`"
            )
        return stored_arrays(net)
    if layout != "nchw":
        return None
    content = stored_arrays(net, weights, options)
    if content is not None:
        note("the net has layers of unknown types; their parameters are named by number", quiet=quiet)
    return content


def _tell_notes(notes: dict[str, object], *, verbose: bool, quiet: bool) -> None:
    lines = [(layer, line) for layer, texts in notes.items() if isinstance(texts, (list, tuple)) for line in texts]
    if verbose:
        for layer, line in lines:
            note(f"{layer}: {line}", quiet=quiet)
    elif lines:
        layers = len({layer for layer, _ in lines})
        word = "layer" if layers == 1 else "layers"
        note(f"{layers} {word} with something to know; -v says it, and so does the file's metadata", quiet=quiet)
