"""Sizes of pictures that follow from the layers behind them."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffeconv.caffe_format.prototxt import read_prototxt
from caffeconv.errors import CaffeconvWarning
from caffeconv.frontend.deploy import UnknownSizeError, to_deploy
from caffeconv.frontend.netdef import draft_net
from caffeconv.frontend.options import NetOptions
from caffeconv.frontend.pinned_sizes import PROBES, candidates

DATA = 'layer { name: "data" type: "DenseImageData" top: "data" top: "label" }'
POOL = """
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" top: "mask"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "up" bottom: "label" top: "loss" }'


def written(folder: Path, text: str) -> Path:
    path = folder / "net.prototxt"
    path.write_text(text)
    return path


def upsample(fields: str) -> str:
    return (
        f'layer {{ name: "up" type: "Upsample" bottom: "pool" bottom: "mask" top: "up" upsample_param {{ {fields} }} }}'
        'layer { name: "sum" type: "Eltwise" bottom: "up" bottom: "data" top: "sum" }'
    )


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ("scale: 2 upsample_h: 360 upsample_w: 480", (360, 480)),
        ("scale: 2 upsample_h: 106 upsample_w: 212", (106, 212)),
    ],
)
def test_the_only_size_that_fits_is_taken_and_told(tmp_path: Path, fields: str, size: tuple[int, int]) -> None:
    path = written(tmp_path, DATA + POOL + upsample(fields) + LOSS)
    with pytest.warns(CaffeconvWarning, match=f"line 1: .* only this one fits them.*1, 3, {size[0]}, {size[1]}"):
        net = to_deploy(read_prototxt(path), NetOptions()).net
    assert list(net.layer[0].input_param.shape[0].dim) == [1, 3, *size]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ("scale: 2", "1, 3, 224, 224"),  # any even size fits
        ("scale: 2 pad_out_h: true pad_out_w: true", "1, 3, 227, 227"),  # any odd one
        ("scale: 2 upsample_h: 5001 upsample_w: 5001", "1, 3, 224, 224"),  # and here none
    ],
)
def test_otherwise_it_is_asked_for(tmp_path: Path, fields: str, named: str) -> None:
    path = written(tmp_path, DATA + POOL + upsample(fields) + LOSS)
    with pytest.raises(UnknownSizeError, match="does not say how large 'data' is") as error:
        to_deploy(read_prototxt(path), NetOptions())
    assert named in str(error.value)


def test_probes_come_first_and_nothing_twice(tmp_path: Path) -> None:
    net, _ = draft_net(
        read_prototxt(written(tmp_path, DATA + POOL + upsample("upsample_h: 7 upsample_w: 9"))), NetOptions()
    )
    sizes = list(candidates(net.layers))
    assert sizes[:4] == [*((probe, probe) for probe in PROBES), (7, 9)]
    assert len(set(sizes)) == len(sizes)
    assert (224, 288) in sizes
