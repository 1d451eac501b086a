"""Sizes of pictures that follow from the layers behind them."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffeconv.caffe_format.prototxt import read_prototxt
from caffeconv.errors import CaffeconvWarning
from caffeconv.frontend.deploy import UnknownSizeError, to_deploy
from caffeconv.frontend.netdef import draft_net
from caffeconv.frontend.options import NetOptions
from caffeconv.frontend.pinned_sizes import PROBES, candidates, without_rest

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
    with pytest.warns(CaffeconvWarning, match=f"line 1: .* This size fits .*1, 3, {size[0]}, {size[1]}"):
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


def test_probes_come_first(tmp_path: Path) -> None:
    net, _ = draft_net(
        read_prototxt(written(tmp_path, DATA + POOL + upsample("upsample_h: 7 upsample_w: 9"))), NetOptions()
    )
    probes, stated, usual = candidates(net.layers)
    assert probes == [(probe, probe) for probe in PROBES]
    assert stated == [(7, 9), (14, 18), (28, 36), (56, 72), (112, 144), (224, 288), (448, 576)]
    assert (360, 480) in usual
    assert not set(usual) & set(probes)


def test_of_sizes_that_lead_to_the_same_one_is_meant() -> None:
    assert without_rest([(448, 448), (473, 473), (500, 500)]) == [(448, 448)]
    assert without_rest([(448, 448), (480, 640)]) == [(448, 448), (480, 640)]
    assert without_rest([(224, 224), (300, 300)]) == [(224, 224), (300, 300)]


def test_c3d_clips_have_the_length_that_is_told(tmp_path: Path) -> None:
    data = 'layers { name: "data" type: VIDEO_SEGMENTATION_DATA top: "data" top: "truth" image_data_param { crop_size: 112 } }'
    conv = """layers { name: "conv" type: CONVOLUTION3D bottom: "data" top: "conv"
      convolution_param { num_output: 2 kernel_size: 3 kernel_depth: 3 } }"""
    with pytest.warns(CaffeconvWarning, match="C3D's 16 frames are taken: .*1, 3, 16, 112, 112"):
        net = to_deploy(read_prototxt(written(tmp_path, data + conv)), NetOptions()).net
    assert list(net.layer[0].input_param.shape[0].dim) == [1, 3, 16, 112, 112]
