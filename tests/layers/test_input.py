"""Tops that come from no file: from the caller, from fillers, from a parameter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.databases import refused
from support.golden_cases import ROOT

import caffeconv


def net_of(tmp_path: Path, layers: str) -> caffeconv.Net:
    path = tmp_path / "net.prototxt"
    path.write_text(layers)
    return caffeconv.Net(path)


def test_one_shape_for_all_tops_or_one_for_each(tmp_path: Path) -> None:
    layer = 'layer {{ name: "in" type: "Input" top: "a" top: "b" input_param {{ {} }} }}'
    one, two = "shape { dim: 2 dim: 3 } ", "shape { dim: 4 } "
    assert net_of(tmp_path, layer.format(one)).blobs["b"].shape == (2, 3)
    assert net_of(tmp_path, layer.format(one + two)).blobs["b"].shape == (4,)
    with refused("3 shapes for 2 tops"):
        net_of(tmp_path, layer.format(one + two + two))
    with refused("no shape is given"):
        net_of(tmp_path, layer.format(""))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("num: 2 channels: 3 height: 4 width: 5 shape { dim: 1 }", "Both shape and legacy fields were specified"),
        ("num: 2 channels: 3 height: 4", "must each be given once, or once per top"),
        ("shape { dim: 1 } shape { dim: 1 } shape { dim: 1 }", "3 shapes for 2 tops"),
        ("shape { dim: 1 } " + 3 * "data_filler { value: 1 } ", "3 data_filler for 2 tops"),
    ],
)
def test_faulty_dummy_data(tmp_path: Path, fields: str, said: str) -> None:
    with refused(said):
        net_of(
            tmp_path,
            f'layer {{ name: "d" type: "DummyData" top: "a" top: "b" dummy_data_param {{ {fields} }} }}',
        )


def test_dummy_data_and_parameter(tmp_path: Path) -> None:
    dummy = (
        'layer { name: "d" type: "DummyData" top: "a" top: "b" dummy_data_param { num: 2 num: 1 channels: 3 height: 1 '
        "width: 1 data_filler { value: 5 } data_filler { value: 6 } } }"
    )
    parameter = 'layer { name: "p" type: "Parameter" top: "c" parameter_param { shape { dim: 2 dim: 2 } } }'
    net = net_of(tmp_path, dummy + parameter)
    net.params["p"][0].data[...] = [[1, 2], [3, 4]]
    blobs = net.forward()
    np.testing.assert_array_equal(blobs["a"], np.full((2, 3, 1, 1), 5))
    np.testing.assert_array_equal(blobs["b"], np.full((1, 3, 1, 1), 6))
    np.testing.assert_array_equal(blobs["c"], [[1, 2], [3, 4]])


def test_a_parameter_begins_as_its_filler_says(tmp_path: Path) -> None:
    """training_toolbox_caffe's; BVLC's begins as 0."""
    fields = "shape { dim: 2 } filler { value: 3 }"
    net = net_of(tmp_path, f'layer {{ name: "p" type: "Parameter" top: "c" parameter_param {{ {fields} }} }}')
    np.testing.assert_array_equal(net.forward()["c"], [3, 3])


def test_a_net_without_data_layers_loads_no_readers(tmp_path: Path) -> None:
    code = "import sys, caffeconv; caffeconv.inspect(sys.argv[1]); print(*sys.modules)"
    net = ROOT / "fixtures" / "digits" / "deploy.prototxt"
    run = subprocess.run(
        [sys.executable, "-c", code, net], cwd=tmp_path, capture_output=True, text=True, check=True
    )  # fmt: skip
    modules = set(run.stdout.split())
    assert "caffeconv.layers.input" in modules
    assert not modules & {"caffeconv.data.database", "caffeconv.data.image_list", "lmdb", "h5py", "PIL", "onnxruntime"}
