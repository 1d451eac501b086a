"""caffeconv upgrade"""

from __future__ import annotations

from pathlib import Path

import click

from caffeconv.cli.options.net import net_options, note, talk_options
from caffeconv.cli.show.console import echo
from caffeconv.frontend.options import NetOptions


@click.command("upgrade")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The file to write: NEW.prototxt or NEW.caffemodel.",
)
@net_options
@talk_options
def upgrade_command(source: Path, out: Path, options: NetOptions, quiet: bool, verbose: bool) -> None:
    """Writes an old prototxt or caffemodel (SOURCE) in today's form, which Caffe itself reads too.

    A caffemodel given with -o NEW.prototxt: writes the net that it carries. All layers stay, whatever their phase; with
    --deploy, the prototxt is that of the net as it is used after training: without data layers, labels and losses.

    Example, from the project's folder:

    \b
        caffeconv upgrade fixtures/goldens/layers/v0_alex_padding/net.prototxt -o new.prototxt
    """
    from caffeconv.conversion.upgrade_file import upgrade_file

    if not options.deploy and (options.shapes or not options.keeps_net):
        raise click.UsageError(
            "--phase, --level, --stage, --shape, --extended and --infogain choose a form of the net, and an upgrade "
            "keeps them all; they were given without --deploy"
        )
    upgraded = upgrade_file(source, out, options)
    for line in upgraded.notes:
        note(line, quiet=quiet)
    if not quiet and out.is_file():
        echo(f"{out}: {out.stat().st_size} bytes")
