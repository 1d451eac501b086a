"""ENet's layer in Python, computed without its code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import write_net

import caffeconv

LAYER = """
layer { name: "d" type: "Python" bottom: "x" top: "y"
  python_param { module: "spatial_dropout" layer: "SpatialDropoutLayer" param_str: "PARAMETERS" } }
"""


def dropped(tmp_path: Path, phase: str) -> np.ndarray:
    text = LAYER.replace("PARAMETERS", "{\\'phase\\': \\'" + phase + "\\', \\'p\\': \\'0.2\\'}")
    net = caffeconv.Net(write_net(tmp_path, {"x": (4, 50, 3, 2)}, text))
    return np.asarray(net.forward(x=np.ones((4, 50, 3, 2), np.float32))["y"])


def test_in_test_all_grows(tmp_path: Path) -> None:
    np.testing.assert_allclose(dropped(tmp_path, "TEST"), 1.25, rtol=1e-6)


def test_in_train_whole_channels_go(tmp_path: Path) -> None:
    y = dropped(tmp_path, "TRAIN")
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :, :1, :1], y.shape))
    kept = y[:, :, 0, 0] != 0
    assert 0.6 < kept.mean() < 0.95
    np.testing.assert_allclose(y[:, :, 0, 0][kept], 1.25, rtol=1e-6)


@pytest.mark.parametrize("parameters", ["", "{'phase': 'TEST'}", "{'phase': 'TEST', 'p': '1'}", "{'p': '0.5'}"])
def test_what_it_needs(parameters: str, tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 2, 3, 3)}, LAYER.replace("PARAMETERS", parameters))
    with pytest.raises(caffeconv.CaffeconvError, match="param_str is"):
        caffeconv.convert(net)


def test_a_deploy_net_has_none(tmp_path: Path) -> None:
    text = LAYER.replace("PARAMETERS", "{'phase': 'TRAIN', 'p': '0.2'}")
    text += 'layer { name: "r" type: "ReLU" bottom: "y" top: "z" }'
    model = caffeconv.convert(write_net(tmp_path, {"x": (1, 2, 3, 3)}, text), deploy=True)
    assert [node.op_type for node in model.graph.node] == ["Relu"]
