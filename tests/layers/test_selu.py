"""SeLU with numbers of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.small_nets import run_net


def test_selu_with_numbers_of_its_own(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
    text = 'layer { name: "l" type: "SeLU" bottom: "x" top: "y" selu_param { lambda: 0.7 alpha: 1.2 } }'
    y = run_net(tmp_path, text, {"x": x})["y"]
    np.testing.assert_allclose(y, 0.7 * np.where(x > 0, x, 1.2 * np.expm1(x)), rtol=1e-5)
