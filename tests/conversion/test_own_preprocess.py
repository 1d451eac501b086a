"""What a net's own data layer does to pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.databases import refused, write_mean

from caffeconv.caffe_format.prototxt import NetSource, read_prototxt
from caffeconv.conversion.own_preprocess import own_preprocess
from caffeconv.emit.metadata import Preprocess
from caffeconv.errors import Diagnostic
from caffeconv.frontend.options import NetOptions

DATA = (
    'layer {{ name: "{0}" type: "Data" top: "{0}" top: "{0}_label" include {{ phase: {1} }} '
    'data_param {{ source: "db" batch_size: 1 }} transform_param {{ {2} }} }}\n'
)
IMAGES = (
    'layer { name: "pictures" type: "ImageData" top: "images" top: "label" '
    'image_data_param { source: "list.txt" batch_size: 1 new_height: 8 new_width: 9 } transform_param { scale: 0.5 } }'
)


def source(folder: Path, *layers: str) -> NetSource:
    (folder / "net.prototxt").write_text("".join(layers))
    return read_prototxt(folder / "net.prototxt")


def test_the_phase_decides_between_two(tmp_path: Path) -> None:
    net = source(
        tmp_path,
        DATA.format("data", "TRAIN", "scale: 2"),
        DATA.format("data", "TEST", "scale: 0.25 mean_value: [1, 2, 3]"),
    )
    preprocess = own_preprocess(net, NetOptions())
    assert (preprocess.scale, preprocess.input, preprocess.size) == (0.25, "data", None)
    np.testing.assert_array_equal(np.asarray(preprocess.mean), [1, 2, 3])
    assert own_preprocess(net, NetOptions("TRAIN")).scale == 2


def test_how_pictures_come_is_the_caller_s(tmp_path: Path) -> None:
    base = Preprocess(rgb=True, pictures="bgr", layout="nchw")
    preprocess = own_preprocess(source(tmp_path, IMAGES), NetOptions(), base)
    assert preprocess == Preprocess(None, 0.5, (8, 9), True, "bgr", "nchw", "images")
    assert own_preprocess(source(tmp_path, IMAGES), NetOptions(), Preprocess(size=(4, 5))).size == (4, 5)


def test_the_layer_that_makes_the_blob(tmp_path: Path) -> None:
    net = source(tmp_path, DATA.format("data", "TEST", "scale: 2"), IMAGES)
    assert own_preprocess(net, NetOptions()).scale == 2
    assert own_preprocess(net, NetOptions(), Preprocess(input="images")).scale == 0.5


def test_a_mean_image(tmp_path: Path) -> None:
    mean = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    net = source(
        tmp_path, DATA.format("data", "TEST", f'mean_file: "{write_mean(tmp_path / "mean.binaryproto", mean)}"')
    )
    np.testing.assert_array_equal(np.asarray(own_preprocess(net, NetOptions()).mean), mean)
    (tmp_path / "mean.binaryproto").unlink()
    with refused(r"^data \(Data\), line 1: .*mean.binaryproto: File not found; the mean image"):
        own_preprocess(net, NetOptions())


def test_mirroring_is_told(tmp_path: Path) -> None:
    notes: list[Diagnostic] = []
    net = source(tmp_path, DATA.format("data", "TEST", "mirror: true"))
    assert own_preprocess(net, NetOptions(), notes=notes) == own_preprocess(net, NetOptions())
    assert [(note.layer, note.message) for note in notes] == [("data", "mirrors at random, which the model does not")]


def test_the_deploy_form_is_asked_about_its_training_form(tmp_path: Path) -> None:
    net = source(tmp_path, DATA.format("data", "TEST", "scale: 2"))
    assert own_preprocess(net, NetOptions(deploy=True)).scale == 2


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (DATA.format("data", "TRAIN", ""), r"^net\.prototxt: `preprocess=True`: no data layer reads pictures in phase TEST "
         r"\(phase TRAIN has one: `phase='TRAIN'`\), so nothing says how they are prepared; give "),
        ('layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 } } }', "in phase TEST, so nothing says"),
    ],
)  # fmt: skip
def test_no_such_layer(tmp_path: Path, layer: str, message: str) -> None:
    with refused(message):
        own_preprocess(source(tmp_path, layer), NetOptions())
