"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., None])


def net_argument(command: Command) -> Command:
    """NET: the prototxt (or a caffemodel that carries its own net)."""
    return click.argument("net", type=click.Path(path_type=Path))(command)


def weights_argument(command: Command) -> Command:
    """[WEIGHTS]...: weights files, applied in order."""
    return click.argument("weights", type=click.Path(path_type=Path), nargs=-1)(command)


def net_options(command: Command) -> Command:
    """Caffe's NetState, input shapes and unknown fields."""
    options = (
        click.option("--phase", type=click.Choice(["test", "train"]), default="test", show_default=True,
                     help="Caffe's phase: which layers take part."),
        click.option("--level", type=int, default=0, help="NetState level."),
        click.option("--stage", "stages", multiple=True, metavar="NAME", help="NetState stage; may be repeated."),
        click.option("--shape", "shapes", multiple=True, metavar="BLOB=1,3,224,224",
                     help="Shape of an input instead of the prototxt's; may be repeated."),
        click.option("--ignore-unknown-fields", is_flag=True,
                     help="Go on without prototxt fields that the schema lacks; lists what was dropped."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def talk_options(command: Command) -> Command:
    """-q and -v."""
    command = click.option("-v", "--verbose", is_flag=True, help="Say more, on stderr.")(command)
    return click.option("-q", "--quiet", is_flag=True, help="Print results only.")(command)


def parse_shapes(values: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """``data=1,3,224,224`` → {"data": (1, 3, 224, 224)}; a usage error where a value is something else."""
    shapes = {}
    for value in values:
        blob, equals, sizes = value.rpartition("=")
        if not equals or not re.fullmatch(r"\d+([,x×]\d+)*", sizes):
            raise click.UsageError(f"--shape {value}: BLOB=SIZE,SIZE,… was needed, e.g. --shape data=1,3,224,224")
        shapes[blob] = tuple(int(size) for size in re.split("[,x×]", sizes))
    return shapes


def parse_size(value: str, option: str) -> tuple[int, int]:
    """``256`` or ``256x340`` (height × width) → (256, 340)."""
    if not re.fullmatch(r"\d+([x×,]\d+)?", value):
        raise click.UsageError(f"{option} {value}: a size was needed, e.g. 256 or 256x340 (height×width)")
    sizes = [int(size) for size in re.split("[x×,]", value)]
    if min(sizes) < 1 or max(sizes) > 1 << 16:
        raise click.UsageError(f"{option} {value}: sizes of 1 to {1 << 16} are possible")
    return sizes[0], sizes[-1]


def note(message: str, *, quiet: bool = False) -> None:
    """A line for people, on stderr."""
    if not quiet:
        click.echo(f"caffeconv: {message}", err=True)
