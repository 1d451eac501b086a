"""caffeconv convert … -o OUT.caffemodel|.caffemodel.h5: the parameters, as Caffe saves them."""

from __future__ import annotations

from pathlib import Path

from caffeconv.cli.options.net import refuse_other_options, tell_problems
from caffeconv.cli.show.console import echo
from caffeconv.frontend.options import NetOptions

SUFFIXES = (".caffemodel", ".caffemodel.h5")
ARGUMENTS = frozenset(("net", "weights", "out", "seed"))
"""What of `convert` bears on this, besides the options that choose and shape the net."""


def writes_caffemodel(out: Path) -> bool:
    """Whether OUT is a file for weights as Caffe saves them, by its name."""
    return out.name.lower().endswith(SUFFIXES)


def convert_weights(
    net: Path, weights: tuple[Path, ...], out: Path, options: NetOptions, *, quiet: bool, verbose: bool
) -> None:
    """Writes the parameters, and prints a summary and the notes on them."""
    from caffeconv.cli.show.written_files import non_finite_remarks, saved_summary
    from caffeconv.conversion.load import load
    from caffeconv.conversion.stored_weights import is_weights_alone, stored_arrays
    from caffeconv.emit.weights.caffe_weights import save_stored, save_weights
    from caffeconv.errors import CaffeconvError
    from caffeconv.frontend.open_files import weights_files

    refuse_other_options(ARGUMENTS, f"is for ONNX models, and {out.name} holds weights as Caffe saves them")
    if out.suffix.lower() == ".caffemodel" and is_weights_alone(net, weights):
        content = stored_arrays(net)
        assert content is not None
        non_finite = save_stored(out, content)
        tell_problems((), [*non_finite_remarks(out, non_finite)], quiet=quiet, verbose=verbose)
        if not quiet:
            echo(f"{out}: {len(content.arrays)} blobs, {out.stat().st_size / 1e6:.2f} MB")
        return
    if not weights_files(net, weights):
        raise CaffeconvError(f"{out}: no weights were given, so there are none to save; give WEIGHTS after NET")
    loaded = load(net, weights, options)
    remarks = [*loaded.remarks, *non_finite_remarks(out, save_weights(out, loaded.graph))]
    tell_problems(loaded.dropped, remarks, quiet=quiet, verbose=verbose)
    if not quiet:
        echo(f"{out}: {saved_summary(loaded.graph)}, {out.stat().st_size / 1e6:.2f} MB")
