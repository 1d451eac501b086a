"""The console that tables are printed on."""

from __future__ import annotations

import sys

import pytest

from caffeconv.cli.show.console import WIDE, cell, echo, make_console, visible


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
