"""What is odd about parameters' values, whatever the file is called that they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.small_nets import write_net, write_weights

import caffeconv
from caffeconv.cli import main

LAYERS = 'layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 3 } }'
NAN = "param 0 (weight) holds 1 NaN and 0 infinite values of 12, the first at [0, 0]"


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A net in the current folder, so that weights beside it have names without a folder."""
    monkeypatch.chdir(tmp_path)
    write_net(tmp_path, {"x": (1, 4)}, LAYERS)
    return Path("net.prototxt")


@pytest.mark.parametrize("name", ["filler_net.caffemodel", "filler xavier.caffemodel"])
def test_weights_called_like_a_filler_are_looked_at(net: Path, name: str) -> None:
    weight = np.ones((3, 4), np.float32)
    weight[0, 0] = np.nan
    weights = write_weights(Path(name), "fc", [weight, np.zeros(3, np.float32)])
    report = caffeconv.inspect(net, weights, values=True)
    assert [(d.message, d.where) for d in report.diagnostics] == [(NAN, f"fc (InnerProduct), line 2 in {name}")]
    result = CliRunner().invoke(main, ["inspect", str(net), name, "--values", "--html", "page.html"])
    assert NAN in result.stderr
    assert '"low":0.5' in Path("page.html").read_text()


def test_what_fillers_make_is_not_looked_at(net: Path) -> None:
    assert caffeconv.inspect(net, values=True).diagnostics == ()


def test_a_net_keeps_weights_called_like_a_filler(net: Path) -> None:
    weights = write_weights(Path("filler net.caffemodel"), "fc", [np.ones((3, 4), np.float32), np.zeros(3, np.float32)])
    loaded = caffeconv.Net(net, weights)
    weights.write_bytes(b"")  # whoever still looked into the mapped file would die of it
    np.testing.assert_array_equal(loaded.forward(x=np.ones((1, 4), np.float32))["fc"], np.full((1, 3), 4, np.float32))
