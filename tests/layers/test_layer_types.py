"""The table of layer types: its classes are there, and only what a net has is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from caffeconv.ir.layer import Layer
from caffeconv.layers import LAYERS, PYTHON_LAYERS, TYPES_BY_FIELD
from caffeconv.layers.activations import ReLU
from caffeconv.layers.layer_types import LayerTypes


@pytest.mark.parametrize(
    "types", [LAYERS, PYTHON_LAYERS, TYPES_BY_FIELD], ids=["LAYERS", "PYTHON_LAYERS", "TYPES_BY_FIELD"]
)
def test_every_class_is_there(types: LayerTypes) -> None:
    for name, kind in types.items():
        assert issubclass(kind, Layer), name
        assert kind.__module__.startswith("caffeconv.layers."), name


def test_a_class_is_imported_when_a_net_has_its_type() -> None:
    code = """
import sys
from caffeconv.layers import LAYERS
assert "ReLU" in LAYERS and "Convolution" in LAYERS and LAYERS.get("Nonsense") is None and len(LAYERS) > 100
assert "caffeconv.layers.activations" not in sys.modules
LAYERS["ReLU"]
assert "caffeconv.layers.activations" in sys.modules and "caffeconv.layers.optical_flow" not in sys.modules
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_types_from_outside() -> None:
    class Mine(ReLU):
        pass

    types = LayerTypes({"ReLU": "activations.ReLU"})
    types["Mine"] = Mine
    assert list(types) == ["ReLU", "Mine"]
    assert len(types) == 2
    assert types["Mine"] is Mine
    assert types.registered == {"Mine": Mine}
    del types["Mine"]
    assert list(types) == ["ReLU"]
    assert not types.registered
    with pytest.raises(KeyError, match="own"):
        del types["ReLU"]
