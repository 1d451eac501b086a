"""What is said of a command line that click refuses: what was needed, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import IO

import click

from caffeconv.cli.shell_words import in_shell_words
from caffeconv.cli.show.console import echo, say

ARGUMENTS: Mapping[str, str] = {
    "net": "the prototxt of a net, or a file that carries one",
    "solver": "the solver's file (prototxt)",
    "source": "the file to upgrade, a prototxt or caffemodel",
}
"""Argument of a command → what it is."""
OPTIONS_ELSEWHERE: Mapping[str, str] = {
    "-m": "the net is the first argument, without an option",
    "--model": "the net is the first argument, without an option",
    "--prototxt": "the net is the first argument, without an option",
    "--solver": "the solver's file is the first argument, without an option",
    "-w": "weights are the arguments after the net, without an option",
    "--caffemodel": "weights are the arguments after the net, without an option",
    "--gpu": "write --provider cuda, or cuda:N for the N-th GPU",
    "--cpu": "write --provider cpu",
    "-i": "write --input SOURCE",
    "--image": "write --input PICTURE",
    "--images": "write --input PICTURE",
    "--batch": "write --batch-size N",
    "--dtype": "half precision is --fp16",
    "--half": "write --fp16",
}
"""What other programs call things → what to write here."""
_WORDS: Sequence[tuple[str, str]] = (
    (r"(.*): '(.*)' is not a valid integer(?: range)?", r"\1: '\2': a whole number was needed"),
    (r"(.*): '(.*)' is not a valid float(?: range)?", r"\1: '\2': a number was needed"),
    (r"(.*): (\S+) is not in the range x>=(\S+)", r"\1: \2: at least \3 was needed"),
    (r"(.*): (\S+) is not in the range (\S+)<=x<=(\S+)", r"\1: \2: \3 to \4 was needed"),
    (r"(.*): (\S+) is not in the range (\S+)<x<=(\S+)", r"\1: \2: more than \3, up to \4, was needed"),
    (r"(.*): (\S+) is not in the range (\S+)<=x<(\S+)", r"\1: \2: \3 or more, and less than \4, was needed"),
    (
        r"(.*'--weights': .*\.(?:caffemodel|h5)') is not one of .*",
        r"\1 is a file: weights are the arguments after the net, "
        "without an option; --weights says where the model keeps them",
    ),
    (r"(.*): (\S+) is not in the range x>(\S+)", r"\1: \2: more than \3 was needed"),
)
_WEB = re.compile(r"(?:[^/=]+=)?(?:https?|ftp|s3|gs)://", re.IGNORECASE)


class UsageMistake(click.UsageError):
    """A usage error of click's, shown with the prefix of all errors; exit code 2."""

    def __init__(self, error: click.UsageError) -> None:
        super().__init__(_message(error), error.ctx)

    def show(self, file: IO[str] | None = None) -> None:
        if self.ctx is not None:
            echo(f"{self.ctx.get_usage()}\nTry '{self.ctx.command_path} --help' for help.\n", err=True)
        say(in_shell_words(self.message), "error")


def refuse_arguments(arguments: Sequence[str]) -> None:
    """A usage error for what names no file of this machine, whatever the command: nothing, and addresses in the web."""
    for argument in arguments:
        if not argument:
            raise click.UsageError("an argument is empty; is a variable of your shell not set?")
        if _WEB.match(argument):
            raise click.UsageError(f"{argument}: files are read from this machine alone; download it first")


def _message(error: click.UsageError) -> str:
    message = error.format_message()
    if isinstance(error, click.exceptions.MissingParameter) and error.param is not None:
        return f"{_lowered(message)}: {_purpose(error.param)}"
    if isinstance(error, click.exceptions.NoSuchOption):
        return _no_such_option(error)
    if type(error) is click.UsageError and not message.startswith("Got unexpected"):
        return message  # one of our own; others are click's sentences
    for pattern, words in _WORDS:
        message = re.sub(f"^{pattern}$", words, message.removesuffix("."))
    return _lowered(message.replace("Got unexpected", "unexpected"))


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].removesuffix(".")


def _purpose(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Option):
        return _lowered((parameter.help or "").partition(". ")[0])
    return ARGUMENTS.get(parameter.name or "", "")


def _no_such_option(error: click.exceptions.NoSuchOption) -> str:
    option = error.option_name
    possible = sorted(error.possibilities or (), key=lambda other: -SequenceMatcher(None, option, other).ratio())
    message = f"no such option: {option}"
    if option in OPTIONS_ELSEWHERE:
        return f"{message}; {OPTIONS_ELSEWHERE[option]}"
    commands = _commands_with(option, error.ctx)
    if commands:
        return f"{message}; it belongs to {', '.join(commands)}"
    return f"{message}; did you mean {' or '.join(possible)}?" if possible else message


def _commands_with(option: str, context: click.Context | None) -> list[str]:
    """The commands that have an option, where the one in hand has not."""
    root = context.find_root() if context is not None else None
    if root is None or not isinstance(root.command, click.Group) or root.command is (context and context.command):
        return []
    commands = {name: root.command.get_command(root, name) for name in root.command.list_commands(root)}
    return [
        name for name, command in commands.items()
        if command is not None and any(option in parameter.opts for parameter in command.params)
    ]  # fmt: skip
