"""A pass that the machine has no memory for is refused before anything is allocated."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.graphs import layer
from support.small_nets import write_net

import caffeconv
from caffeconv.caffe_format.terms import Phase
from caffeconv.net import memory

PHASES: tuple[Phase, ...] = ("TEST", "TRAIN")


@pytest.mark.parametrize("phase", PHASES)
def test_a_pass_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: Phase) -> None:
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 2000000 kB\nSwapFree: 0 kB\n")
    path = write_net(tmp_path, {"x": (1, 1, 100)}, layer("t", "Tile", "x", "tile_param { axis: 1 tiles: 20000000 }"))
    assert caffeconv.inspect(path).ok
    with pytest.raises(caffeconv.CaffeconvError, match=r"parameters take 8.0 GB at once; 2.0 GB of memory are free"):
        caffeconv.Net(path, phase=phase).forward()


def test_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    assert memory.free_bytes() is None
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   3 kB\nSwapFree: 2 kB\n")
    assert memory.free_bytes() == 5 * 1024
