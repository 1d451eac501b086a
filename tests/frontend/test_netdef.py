"""Which write of a blob has the blob's name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import caffeconv
from caffeconv.caffe_format.prototxt import read_prototxt
from caffeconv.errors import InvalidNetError
from caffeconv.frontend.netdef import define_net
from caffeconv.frontend.options import NetOptions
from caffeconv.layers import LAYERS
from caffeconv.layers.input import Input

RELU = 'layer { name: "relu" type: "ReLU" bottom: "x" top: "x" }'


@dataclass(frozen=True)
class Camera(Input):
    """An input layer from outside."""


def tops(folder: Path, kind: str) -> list[tuple[str, ...]]:
    path = folder / "net.prototxt"
    path.write_text(f'layer {{ name: "in" type: "{kind}" top: "x" }}' + RELU)
    return [layer.top_values for layer in define_net(read_prototxt(path), NetOptions()).layers]


@pytest.mark.parametrize("kind", ["Input", "Data", "HDF5Data", "ImageData", "WindowData", "MemoryData", "Camera"])
def test_an_input_that_is_overwritten_keeps_its_name(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAYERS, "Camera", Camera)
    assert tops(tmp_path, kind) == [("x",), ("x/relu",)]


@pytest.mark.parametrize("kind", ["DummyData", "Unheard"])
def test_what_another_layer_makes_has_the_name_of_its_last_write(tmp_path: Path, kind: str) -> None:
    assert tops(tmp_path, kind) == [("x/in",), ("x",)]


def test_a_blob_of_another_phase_is_told_with_the_layer_that_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    data = 'layer { name: "images" type: "AnnotatedData" top: "x" top: "label" include { phase: TRAIN } }'
    path.write_text(data + "".join(RELU.replace('top: "x"', f'top: "{top}"') for top in "yz"))
    with pytest.raises(InvalidNetError) as caught:
        define_net(read_prototxt(path), NetOptions())
    first, second = (str(d) for d in caught.value.diagnostics if "Unknown bottom" in str(d))
    assert "Layer 'images' (AnnotatedData) makes it with `phase='TRAIN'`." in first
    assert "`deploy=True` `shapes={'x': (1, 3, 224, 224)}`" in first
    assert "images" not in second


def test_a_blob_without_a_name(tmp_path: Path) -> None:
    """Caffe takes a blob that is called nothing; ONNX cannot, so its value has a name."""
    text = """input: "x" input_shape { dim: [1, 2] }
        layer { type: "ReLU" bottom: "x" top: "" }
        layer { name: "p" type: "Power" bottom: "" top: "y" power_param { shift: 1 } }"""
    (tmp_path / "net.prototxt").write_text(text)
    net = caffeconv.Net(tmp_path / "net.prototxt")
    net.forward(x=np.array([[-1, 2]], np.float32))
    assert (net.blobs[""].data.tolist(), net.blobs["y"].data.tolist()) == ([[0, 2]], [[1, 3]])
