"""The command line: resolves arguments, calls one function, prints. Commands are imported when they are called."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TextIO

import click

from caffeconv.cli.help_sections import PlainContext
from caffeconv.cli.shell_words import in_shell_words
from caffeconv.cli.show.console import say
from caffeconv.cli.usage_mistakes import UsageMistake, refuse_arguments
from caffeconv.errors import CaffeconvError, CaffeconvWarning, near_name
from caffeconv.files.atomic import OUT_OF_SPACE
from caffeconv.version import __version__

_PACKAGE = Path(__file__).parents[1]
COMMANDS = {
    "convert": "write a net as ONNX",
    "inspect": "check every shape and parameter, and whether weights fit",
    "run": "run a net on pictures or arrays",
    "train": "train a net by Caffe's solver file",
    "make-h": "write the matrix H of an InfogainLoss layer",
    "upgrade": "write an old prototxt or caffemodel in today's form",
}


NAMES_ELSEWHERE = {
    "test": "run", "time": "run --profile", "classification": "run", "classify": "run", "extract_features": "run --blobs",
    "device_query": "run --provider", "draw_net": "inspect --html", "upgrade_net_proto_text": "upgrade",
    "upgrade_net_proto_binary": "upgrade", "help": "--help", "version": "--version", "info": "inspect",
    "summary": "inspect", "summarize": "inspect", "show": "inspect", "check": "inspect", "diagnose": "inspect",
    "fix": "inspect --fix", "draw": "inspect --html", "verify": "convert --verify", "predict": "run", "infer": "run",
    "export": "convert", "quantize": "convert --int8", "benchmark": "run --profile", "fine-tune": "train --weights",
}  # fmt: skip
"""What Caffe's programs and scripts, and other tools' commands, are called → what does the same here."""


def _no_such_command(word: str) -> str:
    if Path(word).suffix or Path(word).exists():
        return f"{word} stands where a command was needed, such as `caffeconv inspect {word}`"
    beginnings = [command for command in COMMANDS if command.startswith(word)]
    near = NAMES_ELSEWHERE.get(word) or (beginnings[0] if len(beginnings) == 1 else near_name(word, COMMANDS))
    hint = f"did you mean {near}?" if near else f"commands: {', '.join(COMMANDS)}"
    return f"no such command: {word}; {hint}"


class _Commands(click.Group):
    """Commands by name, each in a module of its own, imported only when it is asked for."""

    context_class = PlainContext

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(importlib.import_module(f"caffeconv.cli.commands.{name}"), f"{name}_command")
        assert isinstance(command, click.Command)
        command.context_class = PlainContext
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:  # fmt: skip
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(_no_such_command(args[0]))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _usage_mistakes():
            refuse_arguments(args)
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            with _usage_mistakes(), _ending_in_order(), _warnings_as_notes():
                return super().invoke(ctx)
        except CaffeconvError as error:
            say(in_shell_words(str(error)), "error")
            ctx.exit(1)
        except KeyboardInterrupt:
            ctx.exit(128 + signal.SIGINT)
        except MemoryError:
            say("not enough memory for this", "error")
            ctx.exit(1)
        except BrokenPipeError:
            # whoever read our output has gone; let the interpreter close stdout in silence
            sys.stderr.close()
            ctx.exit(1)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                say(f"{str(error.filename)[:40]}…: {error.strerror}; choose a shorter one", "error")
                ctx.exit(1)
            if error.errno not in OUT_OF_SPACE:
                raise
            # files that are written whole explain this themselves, so it was stdout
            _give_up_stdout()
            say(f"stdout: {error.strerror}; what was printed is not all of it", "error")
            ctx.exit(1)


_HELP_WITHOUT_ARGUMENTS: type[Exception] = getattr(
    click.exceptions, "NoArgsIsHelpError", UsageMistake
)  # since click 8.2


@contextmanager
def _usage_mistakes() -> Iterator[None]:
    """Has click's usage errors look as all others do."""
    try:
        yield
    except (_HELP_WITHOUT_ARGUMENTS, UsageMistake):
        raise
    except click.UsageError as error:
        raise UsageMistake(error) from None


def _give_up_stdout() -> None:
    """Lets what could not be printed go, which the interpreter would try to print once more when it ends."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Lets a `kill`, or a terminal that is closed, end the block as Ctrl-C does: what is half written is removed."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    handlers: dict[int, Callable[[int, FrameType | None], None]] = {
        getattr(signal, name): end for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
    }
    handlers[signal.SIGINT] = signal.default_int_handler  # so that commands can say where they stopped
    in_main = threading.current_thread() is threading.main_thread()
    # what was told to ignore a signal (nohup) goes on ignoring it
    heeded = {
        number: end for number, end in handlers.items() if in_main and signal.getsignal(number) is not signal.SIG_IGN
    }
    before = {number: signal.signal(number, end) for number, end in heeded.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Shows our own warnings as the program's lines; others, as from Python layers, stay as they are.

    What numpy warns of in the package's own code (an overflow, an old header) is left out: results say it where it matters.
    """
    usual = warnings.showwarning

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
        line: str | None = None,
    ) -> None:  # fmt: skip
        if issubclass(category, CaffeconvWarning):
            say(in_shell_words(str(message)), "warning")
        elif not Path(filename).is_relative_to(_PACKAGE):
            usual(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="caffeconv")
def main() -> None:
    """Keep your Caffe models, drop Caffe.

    Each command has its own help: caffeconv COMMAND --help
    """
