"""Positions of data and random numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.small_nets import write_net

from caffeconv.net.net import Net

LAYERS = 'layer { name: "drop" type: "Dropout" bottom: "x" top: "y" }'


def test_random_numbers_follow_from_the_number_of_passes(tmp_path: Path) -> None:
    net = Net(write_net(tmp_path, {"x": (5, 20)}, LAYERS), phase="TRAIN")
    values = [net.forward(x=np.ones((5, 20)))["y"].copy() for _ in range(3)]
    net.seek_passes(1)
    np.testing.assert_array_equal(net.forward()["y"], values[1])
