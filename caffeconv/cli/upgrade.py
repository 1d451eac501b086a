"""caffeconv upgrade"""

from __future__ import annotations

from pathlib import Path

import click

from caffeconv.cli.options import note, talk_options


@click.command("upgrade")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The file to write: NEW.prototxt or NEW.caffemodel.",
)
@click.option(
    "--ignore-unknown-fields",
    is_flag=True,
    help="Go on without prototxt fields that the schema lacks; lists what was dropped.",
)
@talk_options
def upgrade_command(
    source: Path, out: Path, ignore_unknown_fields: bool, quiet: bool, verbose: bool
) -> None:  # fmt: skip
    """Writes an old prototxt or caffemodel (SOURCE) in today's form, which Caffe itself reads too.

    A caffemodel given with -o NEW.prototxt: writes the net that it carries.

    Example, from the project's folder:

    \b
        caffeconv upgrade fixtures/goldens/layers/v0_alex_padding/net.prototxt -o new.prototxt
    """
    from caffeconv.upgrade import upgrade_file

    upgraded = upgrade_file(source, out, ignore_unknown_fields=ignore_unknown_fields)
    for told in upgraded.notes:
        note(told, quiet=quiet)
    if not quiet and out.is_file():
        click.echo(f"{out}: {out.stat().st_size} bytes")
