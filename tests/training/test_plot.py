"""Plots, where matplotlib is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from caffeconv.errors import CaffeconvError
from caffeconv.training.plot import Curves, check_plot


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        CaffeconvError, match=r"p\.svg: plots are drawn by matplotlib.* pip install 'caffeconv\[plot\]'"
    ):
        check_plot(Path("p.svg"))


def test_other_kinds_of_files_are_refused() -> None:
    with pytest.raises(CaffeconvError, match=r"p\.gif: a plot's name ends in \.png or \.svg"):
        check_plot(Path("p.gif"))


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_curves(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    curves = Curves()
    for i in range(3):
        curves.write({"iteration": i, "loss": 1 / (i + 1), "lr": 0.1, "test0/accuracy": i / 3})
    curves.draw(tmp_path / f"p{suffix}")
    content = (tmp_path / f"p{suffix}").read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
