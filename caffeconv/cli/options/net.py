"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click
from click.core import ParameterSource

from caffeconv.caffe_format.prototxt import UnknownField, unknown_field_lines
from caffeconv.caffe_format.terms import Phase
from caffeconv.cli.shell_words import in_shell_words
from caffeconv.cli.show.console import say
from caffeconv.cli.show.problems import folded
from caffeconv.errors import CaffeconvError, Diagnostic, InvalidNetError
from caffeconv.frontend.dialects import DIALECTS
from caffeconv.frontend.options import NetOptions
from caffeconv.ir.definition import Infogain
from caffeconv.runtime.providers import MOST_THREADS, ComputeOptions, Provider, parse_provider

Command = TypeVar("Command", bound=Callable[..., None])


def net_argument(command: Command) -> Command:
    """NET: the prototxt (or a caffemodel that carries its own net)."""
    return click.argument("net", type=click.Path(path_type=Path))(command)


def weights_argument(command: Command) -> Command:
    """[WEIGHTS]...: weights files, applied in order."""
    return click.argument("weights", type=click.Path(path_type=Path), nargs=-1)(command)


def net_options(command: Callable[..., None]) -> Callable[..., None]:
    """Caffe's NetState, input shapes and the like, handed to the command as one `options`."""

    @functools.wraps(command)
    def wrapper(
        *args: object, phase: str, level: int, stages: tuple[str, ...], shapes: tuple[str, ...], deploy: bool,
        extended: bool, infogain: Infogain | None, allow_python: bool, ignore_unknown_fields: bool, dialect: str | None,
        root: Path | None,
        **rest: object,
    ) -> None:  # fmt: skip
        full_phase: Phase = "TRAIN" if phase == "train" else "TEST"
        options = NetOptions(
            full_phase, level, stages, parse_shapes(shapes), deploy, extended, infogain, allow_python,
            ignore_unknown_fields, dialect=dialect, root=root,
        )  # fmt: skip
        command(*args, options=options, **rest)

    decorators = (
        click.option("--phase", type=click.Choice(["test", "train"], case_sensitive=False), default="test", show_default=True,
                     help="Caffe's phase: which layers take part."),
        click.option("--level", type=int, default=0, help="NetState level."),
        click.option("--stage", "stages", multiple=True, metavar="NAME", help="NetState stage; may be repeated."),
        click.option("--shape", "shapes", multiple=True, metavar="BLOB=1,3,224,224",
                     help="Shape of an input instead of the prototxt's; may be repeated."),
        click.option("--deploy", is_flag=True,
                     help="Turn a training net into a deploy net first: no data layers, labels and losses, but predictions."),
        click.option("--extended", is_flag=True, help="Let layers do what Caffe refuses: pooling of 5-D blobs."),
        click.option("--infogain", type=click.Choice(["logits", "probabilities"], case_sensitive=False),
                     help="What InfogainLoss layers are given: scores, as in Caffe 1.0 (so by default), or probabilities, "
                     "as before April 2017."),
        click.option("--allow-python", is_flag=True,
                     help='Import and run the modules of `type: "Python"` layers: code that you have to trust.'),
        click.option("--dialect", type=click.Choice(list(DIALECTS), case_sensitive=False), metavar="NAME",
                     help="The fork whose rules count where forks have several of one name (docs/forks.md lists them)."),
        click.option("--root", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="DIR",
                     help="Read files that the net names only where they lie in this folder or below."),
        click.option("--ignore-unknown-fields", is_flag=True,
                     help="Ignore prototxt fields that the schema lacks, and list what was dropped."),
    )  # fmt: skip
    decorated: Callable[..., None] = wrapper
    for decorator in reversed(decorators):
        decorated = decorator(decorated)
    return decorated


def compute_options(command: Callable[..., None]) -> Callable[..., None]:
    """--provider, --threads, --nhwc and --fp16, handed to the command as one `compute`."""

    @functools.wraps(command)
    def wrapper(*args: object, provider: Provider, threads: int | None, nhwc: bool, half: bool, **rest: object) -> None:
        command(*args, compute=ComputeOptions(provider, threads, nhwc, half), **rest)

    decorators = (
        click.option("--provider", metavar="auto|cpu|openvino|cuda[:N]", default="auto", show_default=True,
                     callback=lambda _, __, value: checked_provider(value),
                     help="Where to compute: the CPU, with onnxruntime's kernels or OpenVINO's, or the N-th GPU. auto: a GPU "
                          "where onnxruntime has CUDA, else OpenVINO where it has that."),
        click.option("--threads", type=click.IntRange(1, MOST_THREADS), help="Threads of onnxruntime."),
        click.option("--nhwc", is_flag=True, help="On CUDA, prefer kernels that keep channels last."),
        click.option("--fp16", "half", is_flag=True,
                     help="On CUDA, compute in half precision, except for losses and statistics."),
    )  # fmt: skip
    decorated: Callable[..., None] = wrapper
    for decorator in reversed(decorators):
        decorated = decorator(decorated)
    return decorated


def checked_provider(value: str) -> Provider:
    """The value of --provider; a usage error where it is none."""
    try:
        parse_provider(value)
    except CaffeconvError as error:
        raise click.UsageError(str(error)) from None
    return value


def fully_convolutional_option(command: Command) -> Command:
    """--fully-convolutional."""
    return click.option(
        "--fully-convolutional",
        is_flag=True,
        help="Make convolutions of InnerProduct layers, so that the net takes larger pictures and gives a map.",
    )(command)


def talk_options(command: Callable[..., None]) -> Callable[..., None]:
    """-q and -v; without -v, many problems of a kind in a net's error are folded."""

    @functools.wraps(command)
    def folding(*args: object, verbose: bool, **rest: object) -> None:
        try:
            command(*args, verbose=verbose, **rest)
        except InvalidNetError as error:
            lines = [text for _, text in folded(error.diagnostics, verbose=verbose)]
            raise CaffeconvError("\n".join(lines)) from error

    decorated = click.option("-v", "--verbose", is_flag=True, help="Say more, on stderr.")(folding)
    return click.option("-q", "--quiet", is_flag=True, help="Print results only.")(decorated)


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
    """A line for people, on stderr; the message names arguments as Python does."""
    if not quiet:
        say(in_shell_words(message))


def tell_problems(
    dropped: Sequence[UnknownField], diagnostics: Sequence[Diagnostic], *, quiet: bool, verbose: bool
) -> None:
    """Prints the notes on a net that could be used: fields dropped, warnings, and on -v all the rest."""
    for line in unknown_field_lines(dropped):
        note(f"dropped: {line}", quiet=quiet)
    told = [d for d in diagnostics if verbose or d.severity == "warning"]
    for _, text in folded(told, verbose=verbose):
        note(text, quiet=quiet)


NET_ARGUMENTS = frozenset(
    ("net", "weights", "phase", "level", "stages", "shapes", "deploy", "extended", "infogain", "allow_python", "dialect",
     "root", "ignore_unknown_fields", "quiet", "verbose")
)  # fmt: skip
"""What every command that reads a net has, by the names of its parameters."""


def refuse_other_options(allowed: frozenset[str], why: str) -> None:
    """A usage error where an option was given that is neither of NET_ARGUMENTS nor among `allowed`."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        is_given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if is_given and name not in NET_ARGUMENTS and name not in allowed:
            raise click.UsageError(f"{parameter.opts[0]} {why}")
