"""caffeconv make-h"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from caffeconv.cli.options.h_recipe import Start, Weighing
from caffeconv.cli.options.net import note, talk_options
from caffeconv.cli.show.console import echo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from caffeconv.infogain.balance import Balance
    from caffeconv.infogain.matrices import Decay
    from caffeconv.tensor.shape import FloatArray

FILE = click.Path(path_type=Path)


@click.command("make-h")
@click.argument("source", required=False, type=FILE)
@click.option(
    "-o",
    "--out",
    type=FILE,
    help="What to write: H.binaryproto; or H.h5 or a folder H_lmdb, as data for a third bottom.",
)
@click.option("--identity", type=click.IntRange(1, 1 << 14), metavar="L", help="Start from the identity for L classes.")
@click.option(
    "--hierarchy",
    type=FILE,
    metavar="FILE",
    help="Start from a tree of labels: classes with more common ancestors are more alike.",
)
@click.option(
    "--positions",
    metavar="X,X,…|FILE",
    help="Start from graded classes that lie at these places; for --from-distances.",
)
@click.option(
    "--from-distances",
    "decay",
    type=click.Choice(["exp", "linear", "inverse"], case_sensitive=False),
    help="SOURCE holds distances D between classes; make exp(-D/σ), 1-D/σ or 1/(1+D/σ) of them.",
)
@click.option(
    "--sigma",
    type=float,
    metavar="σ",
    help="For --from-distances: in the distances' unit.  [default: 1; with linear the greatest distance]",
)
@click.option(
    "--smooth", type=float, metavar="ε", help="Spread the share ε of each row over all classes: label smoothing."
)
@click.option(
    "--normalize",
    type=click.Choice(["rows"], case_sensitive=False),
    help="Divide each row by its sum, before class weights are applied.",
)
@click.option("--class-weights", metavar="W,W,…|FILE", help="Multiply each class's row by its weight.")
@click.option("--counts", metavar="N,N,…|FILE", help="Weight classes by how often they occur: numbers of labels.")
@click.option(
    "--count-labels",
    "place",
    type=FILE,
    metavar="DATA",
    help="As --counts, counted in an LMDB, LevelDB, HDF5 file, list of pictures, or folder of label pictures.",
)
@click.option(
    "--balance",
    type=click.Choice(["median-frequency", "inverse-frequency", "effective-number"], case_sensitive=False),
    help="How counts become weights.  [default: median-frequency]",
)
@click.option("--beta", type=float, metavar="β", help="For effective-number.  [default: 0.999]")
@click.option(
    "--classes",
    type=click.IntRange(1, 1 << 14),
    metavar="L",
    help="For --count-labels: labels are 0…L-1.  [default: as found]",
)
@click.option("--ignore-label", type=int, metavar="N", help="For --count-labels: this label is no class.")
@click.option(
    "--label-maps", is_flag=True, help="For --count-labels: the pictures in the database or list are maps of labels."
)
@click.option("--dataset", metavar="NAME", help="For --count-labels: the labels' name in HDF5 files.  [default: label]")
@click.option(
    "--labels", type=FILE, metavar="FILE", help="Class names, one a line, for --show, --plot and --hierarchy."
)
@click.option("--show", is_flag=True, help="Print H: as numbers, or on a terminal that is too narrow as a heat map.")
@click.option("--plot", type=FILE, metavar="PNG", help="Draw H.")
@click.option("--legacy", is_flag=True, help="Write num, channels, height, width, for a Caffe from before 2015.")
@talk_options
def make_h_command(
    source: Path | None, out: Path | None, identity: int | None, hierarchy: Path | None, positions: str | None,
    decay: Decay | None, sigma: float | None, smooth: float | None, normalize: Literal["rows"] | None,
    class_weights: str | None, counts: str | None, place: Path | None, balance: Balance | None, beta: float | None,
    classes: int | None, ignore_label: int | None, label_maps: bool, dataset: str | None, labels: Path | None,
    show: bool, plot: Path | None, legacy: bool, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Writes the matrix H of an InfogainLoss layer, and prints the layer that uses it.

    SOURCE holds H, a row for each true label and a column for each predicted class: .npy, .npz, .csv, .txt, .h5, .mat
    or .binaryproto. Without SOURCE, H starts from --identity, --hierarchy or --positions, or from the identity where
    only classes are weighted: by --class-weights, --counts or --count-labels. docs/infogain.md has recipes.

    Example:

    \b
        caffeconv make-h --counts 900,90,10 --balance inverse-frequency -o H.binaryproto
    """
    from caffeconv.files.atomic import refuse_input_as_output, whole_file
    from caffeconv.infogain.writing import check_place, files_of, layers_using, make_h

    start = Start(source, identity, hierarchy, positions, decay, sigma)
    weighing = Weighing(class_weights, counts, place, balance, beta, classes, ignore_label, label_maps, dataset)
    start.check()
    weighing.check()
    if not start.option_names and not weighing.option_names:
        raise click.UsageError(
            f"nothing to make H of; one of {', '.join((*start.choices, *weighing.choices))} was needed"
        )
    if out is None and not show and plot is None:
        raise click.UsageError("nothing to do with H; -o FILE, --show or --plot PNG was needed")
    if plot is not None and plot.suffix.lower() != ".png":
        raise click.UsageError(f"--plot {plot}: a name that ends in .png was needed")
    if out is not None:
        check_place(out, legacy=legacy)
    for output in (*(files_of(out) if out else ()), *([plot] if plot else ())):
        refuse_input_as_output(output, [path for path in (*start.files, *weighing.files, labels) if path])

    base, names = start.matrix(_read_names(labels))
    weights = weighing.weights(len(base) if base is not None else len(names) or None, quiet=quiet, verbose=verbose)
    matrix = _matrix(base, weights, smooth, unit_rows=normalize is not None, quiet=quiet)
    _check_names(names, len(matrix), labels)
    if out is not None:
        make_h(matrix, out, legacy=legacy)
        if verbose:
            note(f"{out}: {len(matrix)}×{len(matrix)}", quiet=quiet)
    if plot is not None:
        from caffeconv.infogain.picture import plot as draw

        with whole_file(plot) as file:
            file.write(draw(matrix, names))
    if show:
        _show(matrix, names)
    if out is not None:
        echo(layers_using(out), nl=False)


def _matrix(
    base: FloatArray | None, weights: NDArray[np.float64] | None, smooth: float | None, *, unit_rows: bool, quiet: bool
) -> FloatArray:
    """H of a start, the identity where there is none; what might not be meant goes to stderr."""
    from caffeconv.infogain.matrices import identity, smoothed, weighted, with_unit_rows
    from caffeconv.infogain.remarks import remarks

    if base is None:
        assert weights is not None
        base = identity(len(weights))
    matrix = base if smooth is None else smoothed(base, smooth)
    matrix = with_unit_rows(matrix) if unit_rows else matrix
    matrix = matrix if weights is None else weighted(matrix, weights)
    for remark in remarks(matrix, weighted=weights is not None, base=base):
        note(f"warning: {remark}", quiet=quiet)
    return matrix


def _read_names(path: Path | None) -> Sequence[str]:
    if path is None:
        return ()
    from caffeconv.caffe_format.small_files import read_bytes

    text = read_bytes(path, "a list of class names, one a line,").decode("utf-8-sig", "replace")
    return [line.strip() for line in text.rstrip().splitlines()]


def _check_names(names: Sequence[str], size: int, path: Path | None) -> None:
    from caffeconv.errors import CaffeconvError

    if names and len(names) != size:
        raise CaffeconvError(f"{path}: {len(names)} class names for {size} classes; one for each class was needed")


def _show(matrix: FloatArray, names: Sequence[str]) -> None:
    from caffeconv.cli.show.console import make_console, visible
    from caffeconv.infogain.picture import lines_of

    console = make_console()
    for line in lines_of(matrix, [visible(name) for name in names], console.width if console.is_terminal else None):
        console.print(line, soft_wrap=True)
