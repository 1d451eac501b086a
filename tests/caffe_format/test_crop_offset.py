"""The old CROP layer gets the offset that it found itself: the published offsets of the FCN nets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import caffeconv
from caffeconv import CaffeconvError
from caffeconv.caffe_format.prototxt import read_prototxt
from caffeconv.caffe_format.upgrade import upgrade_net
from caffeconv.frontend.open_files import read_definition
from caffeconv.frontend.options import NetOptions

NET = 'input: "data"\ninput_dim: 1\ninput_dim: 3\ninput_dim: 500\ninput_dim: 500\n'


def layer(kind: str, name: str, bottoms: str, param: str = "", top: str = "") -> str:
    made = "".join(f' bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layers {{ type: {kind} name: "{name}" top: "{top or name}"{made} {param} }}\n'


def conv(name: str, bottom: str, kernel: int, pad: int = 0) -> str:
    return layer("CONVOLUTION", name, bottom, f"convolution_param {{ num_output: 2 kernel_size: {kernel} pad: {pad} }}")


def deconv(name: str, bottom: str, kernel: int, stride: int) -> str:
    param = f"convolution_param {{ num_output: 2 kernel_size: {kernel} stride: {stride} }}"
    return layer("DECONVOLUTION", name, bottom, param)


def pool(name: str, bottom: str) -> str:
    return layer("POOLING", name, bottom, "pooling_param { kernel_size: 2 stride: 2 }")


def vgg() -> str:
    """VGG-16 up to its score, padded by 100 in front (fcn-32s of 2015)."""
    text, bottom = "", "data"
    for block, convolutions in enumerate((2, 2, 3, 3, 3), 1):
        for i in range(1, convolutions + 1):
            name = f"conv{block}_{i}"
            text += conv(name, bottom, 3, 100 if name == "conv1_1" else 1)
            text += layer("RELU", f"relu{block}_{i}", name, top=name)
            bottom = name
        text += pool(f"pool{block}", bottom)
        bottom = f"pool{block}"
    return text + conv("fc6", bottom, 7) + layer("DROPOUT", "drop6", "fc6", top="fc6") + conv("score", "fc6", 1)


def offsets(tmp_path: Path, text: str) -> dict[str, list[int]]:
    path = tmp_path / "fcn.prototxt"
    path.write_text(NET + text)
    net = upgrade_net(read_prototxt(path)).net
    return {layer.name: list(layer.crop_param.offset) for layer in net.layer if layer.type == "Crop"}


def test_fcn_32s(tmp_path: Path) -> None:
    text = vgg() + deconv("up", "score", 64, 32) + layer("CROP", "crop", "up data")
    assert offsets(tmp_path, text) == {"crop": [19, 19]}


def test_fcn_16s(tmp_path: Path) -> None:
    """Published today as offsets 5 and 27; the second path leads through the first crop."""
    text = vgg() + deconv("score2", "score", 4, 2) + conv("score-pool4", "pool4", 1)
    text += layer("CROP", "crop4", "score-pool4 score2") + layer("ELTWISE", "fused", "score2 crop4")
    text += deconv("up", "fused", 32, 16) + layer("CROP", "crop", "up data")
    assert offsets(tmp_path, text) == {"crop4": [5, 5], "crop": [27, 27]}


def test_height_and_width(tmp_path: Path) -> None:
    param = "convolution_param { num_output: 1 kernel_h: 3 kernel_w: 5 stride_h: 1 stride_w: 1 pad_h: 3 pad_w: 2 }"
    text = layer("CONVOLUTION", "c", "data", param) + layer("CROP", "crop", "c data")
    assert offsets(tmp_path, text) == {"crop": [2, 0]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (conv("c", "data", 3) + layer("CROP", "crop", "c data"), "the offset would be -1; a whole number from 0 on"),
        (conv("c", "data", 4, 2) + layer("CROP", "crop", "c data"), "the offset would be 0.5; a whole number"),
        (pool("p", "data") + layer("CROP", "crop", "p data"), "'p' and 'data' differ in scale by 0.5"),
        (layer("CROP", "crop", "data"), "1 bottoms; the blob to crop and the blob of the wanted size were needed"),
        (layer("DUMMY_DATA", "d", "") + layer("CROP", "crop", "d data"), "Cannot align apparently disconnected blobs."),
        (
            layer("INNER_PRODUCT", "ip", "data") + layer("CROP", "crop", "ip data"),
            "it is not known which places layer 'ip' (InnerProduct) looks at",
        ),
    ],
)
def test_no_offset_follows(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CaffeconvError) as caught:
        offsets(tmp_path, text)
    line = 5 + text.count("\n")
    assert f"fcn.prototxt: layer 'crop', line {line}: {message}" in str(caught.value)
    assert "crop_param { axis: 2 offset: … }" in str(caught.value)


def today(
    kind: str, dialect: str | None, tmp_path: Path, *, crop_param: str = "", pad: int = 35, kin: str = ""
) -> list[int]:
    """The offset of a last layer that crops what a padded convolution of dilation 2 makes."""
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 9 dim: 9 } } }\n'
        'layer { name: "c" type: "Convolution" bottom: "x" top: "c" '
        f"convolution_param {{ num_output: 1 kernel_size: 3 pad: {pad} dilation: 2 }} }}\n"
        + (f'layer {{ name: "kin" type: "{kin}" bottom: "x" bottom: "x" top: "z" }}\n' if kin else "")
        + f'layer {{ name: "crop" type: "{kind}" bottom: "c" bottom: "x" top: "y" {crop_param} }}\n'
    )
    net = read_definition(path, NetOptions(dialect=dialect))
    return list(net.layers[-1].proto.crop_param.offset)


def test_crop_of_hed(tmp_path: Path) -> None:
    assert today("Crop", "hed", tmp_path) == [34, 34], "the dilation does not count"
    assert today("AutoCrop", None, tmp_path) == [34, 34]
    assert today("Crop", "bvlc", tmp_path) == []


def test_a_crop_that_two_forks_read_differently(tmp_path: Path) -> None:
    """Nobody can run it without a choice, but all shapes are known, and so is what the net's kin would do."""
    words = r"`dialect='bvlc'`\), HED's and FCN's forks at 34, 34.*`dialect='hed'`"
    assert today("Crop", None, tmp_path) == []
    with pytest.raises(CaffeconvError, match=words):
        caffeconv.convert(tmp_path / "net.prototxt")
    report = caffeconv.inspect(tmp_path / "net.prototxt")
    assert report.ok
    assert report.blobs["y"] == (1, 1, 9, 9)
    assert [d.severity for d in report.diagnostics if re.search(words, d.message)] == ["warning"]
    assert today("Crop", None, tmp_path, kin="AutoCrop") == [34, 34]
    assert today("Crop", None, tmp_path, pad=1) == [], "both are 0"
    assert today("Crop", None, tmp_path, crop_param="crop_param { offset: 3 }") == [3]


def test_an_auto_crop_without_an_offset(tmp_path: Path) -> None:
    with pytest.raises(
        CaffeconvError, match=r"the offset would be -1; a whole number from 0 on was needed.*`crop_param"
    ):
        today("AutoCrop", None, tmp_path, pad=0)
