"""The bar stands on a terminal only, and only where waiting would be dull."""

from __future__ import annotations

import io

import pytest

from caffeconv.cli.show import progress as module
from caffeconv.cli.show.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, patience: float, quiet: bool, total: int | None) -> str:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(module, "PATIENCE", patience)
    with progress(total, "counting", quiet=quiet) as advance:
        for _ in range(3):
            advance(2)
    return stream.getvalue()


@pytest.mark.parametrize("total", [6, None])
def test_bar(monkeypatch: pytest.MonkeyPatch, total: int | None) -> None:
    text = shown(monkeypatch, terminal=True, patience=0, quiet=False, total=total)
    assert "counting" in text
    assert f"6/{'?' if total is None else 6}" in text


@pytest.mark.parametrize(("terminal", "patience", "quiet"), [(False, 0, False), (True, 0, True), (True, 60, False)])
def test_no_bar(monkeypatch: pytest.MonkeyPatch, terminal: bool, patience: float, quiet: bool) -> None:
    assert shown(monkeypatch, terminal=terminal, patience=patience, quiet=quiet, total=6) == ""
