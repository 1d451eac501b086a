"""The console that tables are printed on."""

from __future__ import annotations

import io
import sys

import pytest

from caffeconv.cli.show.console import WIDE, cell, echo, encodable, has_colour, make_console, say, visible, wrapped


def test_no_terminal_is_wide_and_without_colour(capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print("[bold]" + "word " * 40 + "12")
    assert capsys.readouterr().out == "word " * 40 + "12\n"
    assert make_console().width == WIDE


def test_a_terminal_has_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("LINES", "20")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    console = make_console()
    assert (console.width, console.color_system) == (70, "256")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert make_console().color_system is None


def test_stdout_is_that_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print("first")
    assert capsys.readouterr().out == "first\n"
    make_console().print("second")
    assert capsys.readouterr().out == "second\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conv1\tα\n", "conv1\tα\n"),
        ("\x1b[31mred\x07", "\\u001b[31mred\\u0007"),
        ("a\0b\r\x9b2J", "a\\u0000b\\u000d\\u009b2J"),
        ("x\u202egnp.exe", "x\\u202egnp.exe"),
    ],
)
def test_control_characters_are_spelled_out(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert visible(text) == shown
    assert cell(f"[b]{text}") == f"\\[b]{shown}"
    echo(text, nl=False)
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "1×2 → α… μ \\xff"),
        ("cp1252", "1×2 -> alpha… μ \\xff".replace("μ", "\\u03bc")),
        ("ascii", "1x2 -> alpha... \\u03bc \\xff"),
    ],
)
def test_characters_that_a_stream_lacks(encoding: str, shown: str) -> None:
    assert encodable("1×2 → α… μ \udcff", io.TextIOWrapper(io.BytesIO(), encoding=encoding)) == shown


@pytest.mark.parametrize(
    ("variables", "on_terminal", "elsewhere"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"CLICOLOR": "0"}, False, False),
        ({"TERM": "dumb"}, False, False),
        ({"CLICOLOR_FORCE": "1"}, True, True),
        ({"CLICOLOR_FORCE": "0"}, True, False),
        ({"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_colour(
    variables: dict[str, str], on_terminal: bool, elsewhere: bool, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name in ("NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for is_terminal, expected in ((True, on_terminal), (False, elsewhere)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda is_terminal=is_terminal: is_terminal)
        assert has_colour(sys.stderr) == expected
        say("x\x1b[0m: no such file", "error")
        label = "\x1b[31m\x1b[1merror:\x1b[0m" if expected else "error:"
        assert capsys.readouterr().err == f"caffeconv: {label} x\\u001b[0m: no such file\n"


def test_long_lines_are_folded_between_words() -> None:
    text = "error: one two three four five\n  file: weight 4×3  (num_output)\nshort"
    assert wrapped(text, 20).split("\n") == [
        "error: one two three",
        "    four five",
        "  file: weight 4×3",
        "      (num_output)",
        "short",
    ]
    assert wrapped("a_name_that_is_longer_than_the_line", 20) == "a_name_that_is_longer_than_the_line"
