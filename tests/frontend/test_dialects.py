"""A dialect that the caller chooses reaches every layer; one that does not exist is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from support.golden_cases import ROOT
from support.small_nets import write_net

import caffeconv
from caffeconv.cli import main
from caffeconv.frontend.dialects import DIALECTS, checked_dialect
from caffeconv.frontend.open_files import read_definition
from caffeconv.frontend.options import NetOptions

RELU = 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }'


def test_known_names_stay() -> None:
    assert [checked_dialect(name) for name in (None, *DIALECTS)] == [None, *DIALECTS]


@pytest.mark.parametrize("dialect", [None, "hed"])
def test_layers_know_it(dialect: str | None, tmp_path: Path) -> None:
    net = read_definition(write_net(tmp_path, {"x": (1, 2)}, RELU), NetOptions(dialect=dialect))
    assert {layer.dialect for layer in net.layers} == {dialect}


def test_unknown(tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 2)}, RELU)
    with pytest.raises(caffeconv.CaffeconvError, match=r"`dialect='nobody'`: no such dialect; one of akrit2013, bvlc"):
        caffeconv.convert(net, dialect="nobody")


@pytest.mark.parametrize("command", ["convert", "inspect", "upgrade"])
def test_every_command_takes_it(command: str, tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 2)}, RELU)
    out = {
        "convert": ["-o", str(tmp_path / "m.onnx")],
        "inspect": [],
        "upgrade": ["--deploy", "-o", str(tmp_path / "n.prototxt")],
    }
    result = CliRunner().invoke(main, [command, str(net), *out[command], "--dialect", "bvlc"])
    assert result.exit_code == 0, result.stderr
    assert "Invalid value for '--dialect'" in CliRunner().invoke(main, [command, str(net), "--dialect", "x"]).stderr


def test_the_page_lists_all() -> None:
    page = (ROOT / "docs" / "forks.md").read_text()
    for name, text in DIALECTS.items():
        fork, _, layers = text.partition(": ")
        assert f"| `{name}` | {fork} | {layers} |" in page
