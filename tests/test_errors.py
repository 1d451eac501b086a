"""Names that were perhaps meant."""

from __future__ import annotations

import pytest

from caffeconv.errors import near_name
from caffeconv.layers import LAYERS


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("relu", "ReLU"),
        ("INNERPRODUCT", "InnerProduct"),
        ("Convoluton", "Convolution"),
        ("Softmaxx", "Softmax"),
        ("ROIAlignment", ""),
        ("Quantum", ""),
    ],
)
def test_layer_types(name: str, meant: str) -> None:
    assert near_name(name, LAYERS) == meant


def test_only_what_is_near() -> None:
    assert near_name("Correlation", ["Convolution"]) == ""
    assert near_name("pad_l", ["pad_h", "pad_w"]) == ""
    assert near_name("Kernel_Sise", ["kernel_size"]) == "kernel_size"
