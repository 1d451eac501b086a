"""What is said of options and arguments that click refuses."""

from __future__ import annotations

import click
import pytest

from caffeconv.cli.usage_mistakes import UsageMistake, refuse_arguments


@click.command()
@click.argument("net")
@click.option("--size", type=click.IntRange(1, 9), help="How large it is. More of it.")
@click.option("--out", required=True, help="The file of Caffe.")
def command(**_: object) -> None:
    """Nothing."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["n"], "missing option '--out': the file of Caffe"),
        (["--out", "x"], "missing argument 'NET': the prototxt of a net, or a file that carries one"),
        (["n", "--out", "x", "--size", "a"], "invalid value for '--size': 'a': a whole number was needed"),
        (["n", "--out", "x", "--size", "12"], "invalid value for '--size': 12: 1 to 9 was needed"),
        (["n", "m", "--out", "x"], "unexpected extra argument (m)"),
        (["n", "--oot", "x"], "no such option: --oot; did you mean --out?"),
        (["n", "--gpu", "0"], "no such option: --gpu; write --provider cuda, or cuda:N for the N-th GPU"),
        (["n", "--zzz"], "no such option: --zzz"),
    ],
)
def test_words(arguments: list[str], message: str) -> None:
    with pytest.raises(click.UsageError) as error:
        command.main(arguments, standalone_mode=False)
    assert UsageMistake(error.value).message == message


def test_own_messages_stay_as_they_are() -> None:
    assert UsageMistake(click.UsageError("Give a snapshot.")).message == "Give a snapshot."


@pytest.mark.parametrize("argument", ["", "https://x.org/net.prototxt", "data=HTTP://x.org/7.png", "s3://b/k"])
def test_what_is_no_file_here(argument: str) -> None:
    with pytest.raises(click.UsageError):
        refuse_arguments(["run", argument])
    refuse_arguments(["run", "a=b/http.png", "C:/x", "x://"])
