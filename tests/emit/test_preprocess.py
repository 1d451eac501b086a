"""Preprocessing in the model against Caffe's DataTransformer, and what of it the first convolution takes over."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto
from support.databases import write_mean
from support.small_nets import input_layer, session_of, write_net

import caffeconv
from caffeconv import Preprocess
from caffeconv.data.transform import Transform
from caffeconv.emit.metadata import image_preprocessing

RELU = 'layer { name: "r" type: "ReLU" bottom: "x" top: "r" relu_param { negative_slope: 1 } }'
CONV = (
    'layer {{ name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {{ num_output: 2 kernel_size: 3 pad: {} '
    'bias_term: {} group: {} weight_filler {{ type: "gaussian" std: 0.1 }} bias_filler {{ type: "constant" value: 1 }} }} }}'
)


def uint8(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)


def run(model: ModelProto, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = session_of(model)
    (given,) = session.get_inputs()
    assert given.type == "tensor(uint8)"
    (result,) = session.run(None, {given.name: pictures})
    return np.asarray(result, np.float32)


def transformed(pictures_bgr: NDArray[np.uint8], transform: Transform) -> NDArray[np.float32]:
    """What Caffe makes of N×C×H×W."""
    transformer = transform.load()
    return np.stack([transformer.apply(picture, "picture") for picture in pictures_bgr])


means = st.sampled_from(["none", "one", "each"])


@settings(max_examples=40, deadline=None)
@given(
    means, st.sampled_from([1.0, 0.017, 2.0]), st.integers(5, 8), st.booleans(), st.sampled_from(["rgb", "bgr"]),
    st.sampled_from(["nhwc", "nchw"]), st.sampled_from([1, 3]), st.sampled_from([RELU, CONV]), st.integers(0, 1),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_agrees_with_caffes_transformer(
    tmp_path_factory: pytest.TempPathFactory, mean: str, scale: float, size: int, rgb: bool, pictures: str, layout: str,
    channels: int, layer: str, pad: int, bias: bool, fold: bool,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("net")
    layer = layer.format(pad, str(bias).lower(), 1) if layer is CONV else layer
    net = write_net(folder, {"x": (2, channels, 5, 5)}, layer)
    values = {"none": None, "one": np.array([120.0]), "each": np.array([104.0, 117.5, 123.0])[:channels]}[mean]
    how = Preprocess(
        mean=None if values is None else values.astype(np.float32), scale=scale, size=(size, size), rgb=rgb,
        pictures="rgb" if pictures == "rgb" else "bgr", layout="nhwc" if layout == "nhwc" else "nchw",
    )  # fmt: skip
    held = uint8((2, channels, size, size))
    in_nets_order = held[:, ::-1] if channels == 3 and (pictures == "rgb") != rgb else held
    caffes = Transform(scale=scale, crop_size=5, mean_values=() if values is None else tuple(map(float, values)))
    want_in = transformed(in_nets_order, caffes)
    plain = caffeconv.convert(net, fold=fold)
    (want,) = session_of(plain).run(None, {"x": want_in})
    model = caffeconv.convert(net, preprocess=how, fold=fold)
    got = run(model, held.transpose(0, 2, 3, 1) if layout == "nhwc" else held)
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4 * np.abs(want).max())
    if layer is RELU:
        np.testing.assert_array_equal(got, want)


def test_a_mean_picture_is_cropped_with_the_picture(tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 3, 4, 4)}, RELU)
    mean = np.random.default_rng(0).uniform(0, 255, (3, 7, 7)).astype(np.float32)
    held = uint8((1, 3, 7, 7))
    got = run(caffeconv.convert(net, preprocess=Preprocess(mean=mean, pictures="bgr", layout="nchw")), held)
    transformer = replace(Transform(crop_size=4).load(), mean=mean)
    want = transformer.apply(held[0], "picture")
    np.testing.assert_array_equal(got[0], want)
    # and with the channels of both turned around
    turned = caffeconv.convert(net, preprocess=Preprocess(mean=mean, pictures="rgb", layout="nchw"))
    np.testing.assert_array_equal(run(turned, held[:, ::-1])[0], want)


@pytest.mark.parametrize(
    ("pad", "group", "half", "folded", "operators"),
    [
        (0, 1, False, ("order", "scale", "mean"), ["Transpose", "Cast"]),
        (1, 1, False, ("order", "scale"), ["Transpose", "Cast", "Sub"]),
        (0, 1, True, ("order",), ["Transpose", "Cast", "Sub", "Mul", "Cast"]),
        (0, 3, False, (), ["Transpose", "Gather", "Cast", "Sub", "Mul"]),
    ],
)
def test_what_is_folded(
    tmp_path: Path, pad: int, group: int, half: bool, folded: tuple[str, ...], operators: list[str]
) -> None:
    layer = CONV.format(pad, "true", group).replace("num_output: 2", "num_output: 3")
    net = write_net(tmp_path, {"x": (1, 3, 5, 5)}, layer)
    model = caffeconv.convert(net, preprocess=Preprocess(np.array([1, 2, 3], "f4"), 0.5), half=half)
    assert [node.op_type for node in model.graph.node][:-1] == operators
    said = image_preprocessing({entry.key: entry.value for entry in model.metadata_props})
    assert said is not None
    assert said.folded == folded
    assert str(said) == "RGB pictures of 5×5, uint8 (less the mean 1, 2, 3, times 0.5, turned to BGR)"


def test_weights_that_others_read_too_are_left_alone(tmp_path: Path) -> None:
    shared = CONV.format(0, "false", 1).replace('bottom: "x"', 'bottom: "x" param { name: "w" }')
    second = (
        shared.replace('name: "c"', 'name: "d"', 1)
        .replace('top: "c"', 'top: "d"')
        .replace('bottom: "x"', 'bottom: "y"')
    )
    net = write_net(tmp_path, {"x": (1, 3, 5, 5), "y": (1, 3, 5, 5)}, shared + second)
    model = caffeconv.convert(net, preprocess=Preprocess(scale=0.5, input="x"))
    assert [i.type.tensor_type.elem_type for i in model.graph.input] == [2, 1]
    assert "Gather" in [node.op_type for node in model.graph.node]


DATA = """
layer {{ name: "data" type: "ImageData" top: "data" top: "label" include {{ phase: {phase} }}
  image_data_param {{ source: "list.txt" batch_size: 1 new_height: 8 new_width: 9 }} transform_param {{ {param} }} }}
"""


def write_training_net(folder: Path, test: str, train: str = "crop_size: 5 mirror: true") -> Path:
    path = folder / "train_val.prototxt"
    path.write_text(
        DATA.format(phase="TRAIN", param=train) + DATA.format(phase="TEST", param=test) + RELU.replace('"x"', '"data"')
    )
    return path


def test_the_data_layer_of_the_phase_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_mean(tmp_path / "mean.binaryproto", np.full((3, 8, 9), 7, np.float32))
    net = write_training_net(tmp_path, 'crop_size: 5 mean_file: "mean.binaryproto" scale: 0.25')
    model = caffeconv.convert(net, preprocess=True, deploy=True)
    said = json.loads({e.key: e.value for e in model.metadata_props}["caffe.preprocess"])
    assert (said["size"], said["crop"], said["mean"], said["scale"]) == ([8, 9], [5, 5], "3×8×9", 0.25)
    held = uint8((1, 8, 9, 3))
    want = (held[:, 1:6, 2:7, ::-1].transpose(0, 3, 1, 2).astype("f4") - 7) * 0.25
    np.testing.assert_array_equal(run(model, held), want)
    other = caffeconv.convert(net, preprocess=True, deploy=True, phase="TRAIN")
    assert json.loads({e.key: e.value for e in other.metadata_props}["caffe.preprocess"])["mean"] == []


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (Preprocess(np.zeros((3, 4, 4), "f4") + 1, size=(9, 9)), r"of 4×4 pixels, the pictures before the crop of 9×9"),
        (Preprocess(np.ones((3, 4, 4), "f4")), r"pictures of 4×4 cannot be cropped to the net's 5×5"),
        (Preprocess(np.ones(2, "f4")), r"the mean is 2 values, the input 'x' has 3 channels"),
        (Preprocess(np.array([np.nan], "f4")), r"no finite numbers"),
        (Preprocess(input="z"), r"the net has no input 'z'; it has x"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, how: Preprocess, message: str) -> None:
    net = write_net(tmp_path, {"x": (1, 3, 5, 5)}, RELU)
    with pytest.raises(caffeconv.CaffeconvError, match=message):
        caffeconv.convert(net, preprocess=how)


def test_a_net_that_takes_no_pictures(tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1, 3)}, RELU)
    with pytest.raises(caffeconv.CaffeconvError, match=r"no input of the net takes pictures.*x batch×3"):
        caffeconv.convert(net, preprocess=Preprocess())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (input_layer("data", (1, 3, 5, 5)) + RELU.replace('"x"', '"data"'), "no data layer reads pictures in phase TEST"),
        (DATA.format(phase="TRAIN", param="crop_size: 5") + input_layer("x", (1, 3, 5, 5)) + RELU,
         r"in phase TEST \(phase TRAIN has one: `phase='TRAIN'`\)"),
        (DATA.format(phase="TEST", param='crop_size: 5 mean_file: "none.binaryproto"') + RELU.replace('"x"', '"data"'),
         r"data \(ImageData\).*none.binaryproto: File not found"),
    ],
)  # fmt: skip
def test_nets_that_do_not_say_it(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    with pytest.raises(caffeconv.CaffeconvError, match=message):
        caffeconv.convert(path, preprocess=True)
