"""caffeconv make-h"""

from __future__ import annotations

from pathlib import Path

import click

from caffeconv.cli.options import note, talk_options


@click.command("make-h")
@click.argument("source", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The file to write: H.binaryproto.")
@click.option("--identity", type=click.IntRange(1, 1 << 14), metavar="L", help="The identity for L classes.")
@click.option(
    "--frequencies",
    metavar="N,N,…",
    help="How often each class occurs: rare classes then weigh as much as common ones.",
)
@click.option(
    "--distances", metavar="X,X,…", help="Where graded classes lie: a near miss then costs less than a far one."
)
@click.option(
    "--spread", type=float, default=1.0, show_default=True, help="For --distances: how far a miss is still near."
)
@click.option("--legacy", is_flag=True, help="Write num, channels, height, width, for a Caffe from before 2015.")
@talk_options
def make_h_command(
    source: Path | None, out: Path, identity: int | None, frequencies: str | None, distances: str | None, spread: float,
    legacy: bool, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Writes the matrix H of an InfogainLoss layer as binaryproto, and prints the layer that uses it.

    SOURCE holds H, a row for each true label and a column for each predicted class: .npy, .npz, .csv, .txt, or another
    .binaryproto. Instead of SOURCE, H is made by --identity, --frequencies or --distances.

    Example:

    \b
        caffeconv make-h --frequencies 900,90,10 -o H.binaryproto
    """
    from caffeconv.emit.atomic import refuse_input_as_output
    from caffeconv.make_h import from_distances, from_frequencies, make_h, read_matrix, remarks
    from caffeconv.make_h import identity as identity_matrix

    ways = {"SOURCE": source, "--identity": identity, "--frequencies": frequencies, "--distances": distances}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        raise click.UsageError(f"{' and '.join(given) or 'nothing'} given; one of {', '.join(ways)} was needed")
    if source is not None:
        refuse_input_as_output(out, [source])
        matrix = read_matrix(source)
    elif identity is not None:
        matrix = identity_matrix(identity)
    elif frequencies is not None:
        matrix = from_frequencies(_numbers(frequencies, "--frequencies"))
    else:
        matrix = from_distances(_numbers(distances or "", "--distances"), spread)
    make_h(matrix, out, legacy=legacy)
    for remark in remarks(matrix):
        note(f"warning: {remark}", quiet=quiet)
    if verbose:
        note(f"{out}: {len(matrix)}×{len(matrix)}", quiet=quiet)
    click.echo(_layer_text(out), nl=False)


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.UsageError(f"{option} {text}: numbers apart by commas were needed, e.g. 900,90,10") from None


def _layer_text(source: Path) -> str:
    from caffeconv.caffe_pb2 import InfogainLossParameter, LayerParameter, NetParameter
    from caffeconv.emit.prototxt import net_to_text

    layer = LayerParameter(
        name="loss", type="InfogainLoss", bottom=["score", "label"], top=["loss"],
        infogain_loss_param=InfogainLossParameter(source=str(source)),
    )  # fmt: skip
    return net_to_text(NetParameter(layer=[layer]))
