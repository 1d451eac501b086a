"""Options that commands share, and how their values are read."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from caffeconv.caffe_format.prototxt import UnknownField
from caffeconv.cli import main
from caffeconv.cli.options.net import (
    compute_options,
    net_argument,
    net_options,
    note,
    parse_shapes,
    parse_size,
    refuse_other_options,
    talk_options,
    tell_problems,
    weights_argument,
)
from caffeconv.errors import Diagnostic
from caffeconv.frontend.dialects import DIALECTS
from caffeconv.frontend.options import NetOptions
from caffeconv.runtime.providers import ComputeOptions

DIALECT = next(iter(DIALECTS))


@click.command()
@net_argument
@weights_argument
@net_options
@compute_options
@talk_options
@click.option("--top-k", type=int)
def command(
    net: Path, weights: tuple[Path, ...], options: NetOptions, compute: ComputeOptions, quiet: bool, verbose: bool,
    top_k: int | None,
) -> None:  # fmt: skip
    refuse_other_options(frozenset(("threads",)), "is not for this")
    click.echo(repr((net, weights, options, compute, quiet, verbose)))


def call(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_defaults_are_those_of_python() -> None:
    expected = Path("n"), (), NetOptions(), ComputeOptions("auto", None, nhwc=False, half=False), False, False
    assert call("n").stdout == f"{expected!r}\n"


def test_every_option() -> None:
    result = call(
        "n", "a", "b", "--phase", "train", "--level", "2", "--stage", "s", "--stage", "t", "--shape", "x=1,3", "--deploy",
        "--extended", "--infogain", "logits", "--allow-python", "--ignore-unknown-fields",
        "--dialect", DIALECT, "--threads", "3", "-q", "-v",
    )  # fmt: skip
    options = NetOptions("TRAIN", 2, ("s", "t"), {"x": (1, 3)}, True, True, "logits", True, True, dialect=DIALECT)
    compute = ComputeOptions("auto", 3, nhwc=False, half=False)
    assert result.stdout == f"{(Path('n'), (Path('a'), Path('b')), options, compute, True, True)!r}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--provider", "gpu"), "`provider='gpu'`: auto, cpu, openvino, cuda or cuda:N"),
        (("--top-k", "3"), "--top-k is not for this"),
        (("--nhwc",), "--nhwc is not for this"),
        (("--shape", "x"), "--shape x: BLOB=SIZE,SIZE,… was needed, e.g. --shape data=1,3,224,224"),
    ],
)
def test_what_is_refused(arguments: tuple[str, ...], message: str) -> None:
    result = call("n", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@given(
    st.dictionaries(st.text(min_size=1), st.lists(st.integers(0, 10**9), min_size=1).map(tuple)), st.sampled_from(",x×")
)
def test_shapes_come_back(shapes: dict[str, tuple[int, ...]], between: str) -> None:
    assert parse_shapes([f"{blob}={between.join(map(str, shape))}" for blob, shape in shapes.items()]) == shapes


@pytest.mark.parametrize("text", ["", "x", "x=", "x=1,", "x=-1", "x=1.5", "x=1, 2"])
def test_shapes_that_are_none(text: str) -> None:
    with pytest.raises(click.UsageError, match=f"^{re.escape(f'--shape {text}: BLOB=SIZE')}"):
        parse_shapes([text])


def test_sizes() -> None:
    assert [parse_size(text, "--resize") for text in ("256", "256x340", "2×3", "2,65536")] == [
        (256, 256), (256, 340), (2, 3), (2, 65536),
    ]  # fmt: skip
    for text, message in (("a", "a size was needed"), ("1x2x3", "a size was needed"), ("0", "sizes of 1 to 65536"),
                          ("65537x1", "sizes of 1 to 65536 are possible")):  # fmt: skip
        with pytest.raises(click.UsageError, match=f"^--resize {text}: {message}"):
            parse_size(text, "--resize")


def test_notes(capsys: pytest.CaptureFixture[str]) -> None:
    note("`deploy=True` was needed")
    note("nothing", quiet=True)
    assert capsys.readouterr().err == "caffeconv: --deploy was needed\n"


def test_problems_are_told_as_far_as_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    dropped = [UnknownField(3, "fc", "LayerParameter", "novelty")]
    notes = [Diagnostic("warning", "fc", "is odd"), Diagnostic("note", "", "by the way")]
    lines = {}
    for quiet, verbose in ((False, False), (False, True), (True, True)):
        tell_problems(dropped, notes, quiet=quiet, verbose=verbose)
        lines[quiet, verbose] = [line.removeprefix("caffeconv: ") for line in capsys.readouterr().err.splitlines()]
    assert lines[False, False] == [f"dropped: {dropped[0]}", "fc: is odd"]
    assert lines[False, True] == [*lines[False, False], "by the way"]
    assert lines[True, True] == []


@pytest.mark.parametrize(("more", "lines"), [((), 7), (("-v",), 40)])
def test_a_net_with_many_problems_of_a_kind(more: tuple[str, ...], lines: int, tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text("\n".join(f'layer {{ name: "l{i}" type: "ReLU" bottom: "b{i}" top: "t{i}" }}' for i in range(40)))
    result = CliRunner().invoke(main, ["convert", str(net), "-o", str(tmp_path / "x.onnx"), *more])
    assert result.exit_code == 1
    assert len([line for line in result.stderr.splitlines() if not line.startswith("  ")]) == lines
    assert ("… and 34 more of this kind; -v lists them" in result.stderr) == (not more)
