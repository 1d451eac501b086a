"""The console that tables are printed on."""

from __future__ import annotations

import sys

import pytest

from caffeconv.cli.show.console import WIDE, make_console


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
