"""Products as convolutions: the same numbers at the net's own size, and a sliding window's at a larger one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.golden_cases import ROOT
from support.small_nets import Array, blob, run_model, write_net

import caffeconv
from caffeconv.caffe_pb2 import LayerParameter, NetParameter
from caffeconv.cli import main

DIGITS = ROOT / "fixtures" / "digits"
NET, WEIGHTS = DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel"
CONV = """
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" convolution_param { num_output: 3 kernel_size: 2 } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
"""
TAIL = """
layer { name: "relu" type: "ReLU" bottom: "fc" top: "fc" }
layer { name: "drop" type: "Dropout" bottom: "fc" top: "fc" }
layer { name: "out" type: "InnerProduct" bottom: "fc" top: "out" inner_product_param { num_output: 3 } }
layer { name: "prob" type: "Softmax" bottom: "out" top: "prob" }
"""
FLATTEN = 'layer { name: "flat" type: "Flatten" bottom: "pool" top: "flat" }\n'
RESHAPE = (
    'layer { name: "flat" type: "Reshape" bottom: "pool" top: "flat" reshape_param { shape { dim: 0 dim: -1 } } }\n'
)
IN_PLACE = 'layer { name: "act" type: "ReLU" bottom: "flat" top: "flat" }\n'


def product(bottom: str, more: str = "") -> str:
    return (
        f'layer {{ name: "fc" type: "InnerProduct" bottom: "{bottom}" top: "fc" '
        f"inner_product_param {{ num_output: 5 {more} }} }}\n"
    )


def with_weights(folder: Path, layers: str, *, transposed: bool = False) -> tuple[Path, Path]:
    """A net over x: 1×2×9×7, and weights for it."""
    random = np.random.default_rng(3)
    fc = random.normal(size=(5, 36)).astype(np.float32)
    blobs: dict[str, list[NDArray[np.float64] | Array]] = {
        "conv": [random.normal(size=(3, 2, 2, 2)), random.normal(size=3)],
        "fc": [fc.T if transposed else fc, random.normal(size=5)],
        "out": [random.normal(size=(3, 5)), random.normal(size=3)],
    }
    stored = NetParameter(
        layer=[
            LayerParameter(name=name, blobs=[blob(np.ascontiguousarray(values, np.float32)) for values in arrays])
            for name, arrays in blobs.items()
        ]
    )
    weights = folder / "w.caffemodel"
    weights.write_bytes(stored.SerializeToString())
    return write_net(folder, {"x": (1, 2, 9, 7)}, layers), weights


@pytest.mark.parametrize(
    ("layers", "transposed"),
    [
        (CONV + product("pool") + TAIL, False),
        (CONV + product("pool", "transpose: true") + TAIL, True),
        (CONV + FLATTEN + product("flat") + TAIL, False),
        (CONV + RESHAPE + IN_PLACE + product("flat", "axis: -1") + TAIL, False),
    ],
)
def test_a_larger_picture_gives_what_a_sliding_window_does(tmp_path: Path, layers: str, transposed: bool) -> None:
    net, weights = with_weights(tmp_path, layers, transposed=transposed)
    original = caffeconv.Net(net, weights)
    sliding = caffeconv.Net(net, weights, fully_convolutional=True)
    assert sliding.params["fc"][0].shape == (5, 3, 4, 3)
    assert sliding.params["out"][0].shape == (3, 5, 1, 1)

    picture = np.random.default_rng(1).normal(size=(1, 2, 15, 13)).astype(np.float32)
    own = original.forward(x=picture[:, :, :9, :7])["prob"]
    np.testing.assert_allclose(sliding.forward(x=picture[:, :, :9, :7])["prob"], own[..., None, None], atol=1e-6)
    sliding.blobs["x"].reshape(*picture.shape)
    places = sliding.forward(x=picture)["prob"]
    assert places.shape == (1, 3, 4, 4)
    for row, column in np.ndindex(4, 4):
        window = picture[:, :, 2 * row : 2 * row + 9, 2 * column : 2 * column + 7]
        expected = original.forward(x=window)["prob"]
        np.testing.assert_allclose(places[:, :, row, column], expected, atol=1e-6)


def test_every_blob_of_digits_stays(tmp_path: Path) -> None:
    nets = [caffeconv.Net(NET, WEIGHTS, fully_convolutional=form) for form in (False, True)]
    picture = np.random.default_rng(0).uniform(0, 255, (3, 1, 28, 28)).astype(np.float32)
    for net in nets:
        net.forward(data=picture)
    plain, sliding = nets
    assert list(plain.blobs) == list(sliding.blobs)
    for name, values in plain.blobs.items():
        got = sliding.blobs[name].data
        np.testing.assert_allclose(got.reshape(values.shape), values.data, rtol=1e-4, atol=1e-4)


def test_the_model_takes_any_size(tmp_path: Path) -> None:
    model = caffeconv.convert(NET, WEIGHTS, fully_convolutional=True)
    net = caffeconv.Net(NET, WEIGHTS, fully_convolutional=True)
    for height, width, batch in ((28, 28, 1), (37, 45, 2), (41, 30, 1), (64, 29, 3)):  # odd sizes: pooling rounds up
        picture = np.random.default_rng(height).uniform(0, 255, (batch, 1, height, width)).astype(np.float32)
        net.blobs["data"].reshape(*picture.shape)
        expected = net.forward(data=picture)["prob"]
        np.testing.assert_allclose(run_model(model, {"data": picture})["prob"], expected, atol=1e-6)


@settings(max_examples=30)
@given(st.data())
def test_pooling_of_any_size(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """What onnxruntime makes of a pooling whose sizes are open is what Caffe's rules give for every size."""
    kernel, stride = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    pad, ceil = data.draw(st.integers(0, kernel - 1)), data.draw(st.booleans())
    method = data.draw(st.sampled_from(["MAX", "AVE"]))
    whole = data.draw(st.booleans())
    window = "global_pooling: true" if whole else f"kernel_size: {kernel} stride: {stride} pad: {pad}"
    rounding = "" if ceil or whole else "round_mode: FLOOR"
    layer = f'layer {{ name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param {{ pool: {method} {window} {rounding} }} }}'
    net = write_net(tmp_path_factory.mktemp("pool"), {"x": (1, 2, 8, 8)}, layer)
    model = caffeconv.convert(net, fully_convolutional=True)
    assume(model.graph.input[0].type.tensor_type.shape.dim[2].dim_param)
    caffe = caffeconv.Net(net)
    for _ in range(4):
        shape = (1, 2, data.draw(st.integers(4, 13)), data.draw(st.integers(4, 13)))
        picture = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        caffe.blobs["x"].reshape(*shape)
        expected = caffe.forward(x=picture)["y"]
        got = run_model(model, {"x": picture})["y"]
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(
    "window",
    ["pool: AVE kernel_size: 3 stride: 2 pad: 1", "pool: MAX kernel_size: 1 stride: 2"],
)
def test_sizes_stay_fixed_where_a_layer_needs_them(tmp_path: Path, window: str) -> None:
    layer = f'layer {{ name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param {{ {window} }} }}'
    net = write_net(tmp_path, {"x": (1, 2, 8, 8)}, layer)
    dims = caffeconv.convert(net, fully_convolutional=True).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims][1:] == [2, 8, 8]
    result = CliRunner().invoke(
        main, ["convert", str(net), "--fully-convolutional", "-v", "-o", str(tmp_path / "m.onnx")]
    )
    assert "height and width are fixed: p: this pooling needs to know the sizes of its input" in result.stderr


@pytest.mark.parametrize(
    ("inputs", "layers", "message"),
    [
        ({"x": (2, 8)}, product("x"), "bottom 'x' is 2×8; N×C×H×W was needed"),
        ({"x": (2, 3, 4, 4)}, product("x", "axis: 2"), "it multiplies the axes from 2 on; `axis: 1` was needed"),
        (
            {"x": (2, 3, 4, 4)},
            product("x") + 'layer { name: "s" type: "Softmax" bottom: "fc" top: "s" softmax_param { axis: -1 } }',
            "bottom 'fc' would be 2×5×1×1 in place of 2×5, and Softmax has no form",
        ),
        (
            {"x": (2, 3, 4, 4)},
            product("x")
            + 'layer { name: "s" type: "Reshape" bottom: "fc" top: "s" reshape_param { shape { dim: 0 dim: 5 dim: 1 } } }'
            + 'layer { name: "t" type: "Tile" bottom: "s" top: "t" tile_param { axis: 2 tiles: 3 } }',
            "t (Tile)",
        ),
    ],
)
def test_what_cannot_slide(tmp_path: Path, inputs: dict[str, tuple[int, ...]], layers: str, message: str) -> None:
    net = write_net(tmp_path, inputs, layers)
    with pytest.raises(caffeconv.CaffeconvError, match="cannot be part of a fully convolutional net") as error:
        caffeconv.convert(net, fully_convolutional=True)
    assert message in str(error.value)


def test_a_shared_and_transposed_weight_is_refused(tmp_path: Path) -> None:
    shared = product("x", "transpose: true").replace("top:", 'param { name: "w" } top:')
    again = shared.replace('"fc"', '"fc2"').replace("num_output: 5", "num_output: 5")
    net = write_net(tmp_path, {"x": (2, 3, 4, 4)}, shared + again)
    with pytest.raises(caffeconv.CaffeconvError, match="its weight is shared, and transposed"):
        caffeconv.convert(net, fully_convolutional=True)


def test_shared_weights_stay_shared(tmp_path: Path) -> None:
    shared = product("x").replace("top:", 'param { name: "w" } top:')
    net = write_net(tmp_path, {"x": (1, 3, 4, 4)}, shared + shared.replace('"fc"', '"fc2"'))
    caffe = caffeconv.Net(net, fully_convolutional=True)
    caffe.params["fc"][0].data[...] = 1
    picture: Array = np.ones((1, 3, 4, 4), np.float32)
    assert caffe.forward(x=picture)["fc2"].ravel().tolist() == [48] * 5


def test_commands(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    runner = CliRunner()
    result = runner.invoke(main, ["convert", str(NET), str(WEIGHTS), "--fully-convolutional", "-o", str(model)])
    assert result.exit_code == 0, result.stderr
    assert "prob[batch,10,prob_2,prob_3]" in result.stdout
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 40, 36), np.float32))
    outs = [tmp_path / "map.npy", tmp_path / "map_of_model.npy"]
    arguments = ["--input", str(tmp_path / "x.npy"), "-o"]
    whole = ["run", str(NET), str(WEIGHTS), "--fully-convolutional", "--shape", "data=1,1,40,36"]
    for command, out in ((whole, outs[0]), (["run", str(model)], outs[1])):
        result = runner.invoke(main, [*command, *arguments, str(out)])
        assert result.exit_code == 0, result.stderr
    one, other = (np.load(out) for out in outs)
    assert one.shape == (1, 10, 4, 3)
    np.testing.assert_allclose(one, other, atol=1e-6)
    wrong = runner.invoke(main, [*whole[:-1], "dat=1,1,40,36", *arguments, str(outs[0])])
    assert "shape given for 'dat', which is no input of the net" in wrong.stderr


def test_a_training_net_that_does_not_say_its_size(tmp_path: Path) -> None:
    """The size that is named is then the net's own: the windows are over that, and the model takes any."""
    data = 'layer { name: "d" type: "Data" top: "x" top: "label" data_param { source: "gone" backend: LMDB batch_size: 8 } }\n'
    loss = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "out" bottom: "label" top: "loss" }\n'
    deploy, weights = with_weights(tmp_path, CONV + product("pool") + TAIL)
    train = tmp_path / "train.prototxt"
    train.write_text(data + CONV + product("pool") + TAIL.replace('top: "prob"', 'top: "other"') + loss)
    with pytest.raises(caffeconv.CaffeconvError, match=r"Name it: `shapes=\{'x': \(1, 3, 224, 224\)\}`"):
        caffeconv.convert(train, weights, deploy=True, fully_convolutional=True)
    with pytest.raises(caffeconv.CaffeconvError, match="shape mismatch"):
        caffeconv.convert(train, weights, deploy=True, fully_convolutional=True, shapes={"x": (1, 2, 12, 13)})
    made = caffeconv.convert(train, weights, deploy=True, fully_convolutional=True, shapes={"x": (1, 2, 9, 7)})
    known = caffeconv.convert(deploy, weights, fully_convolutional=True)
    larger = {"x": np.random.default_rng(0).normal(size=(3, 2, 12, 13)).astype(np.float32)}
    np.testing.assert_array_equal(run_model(made, larger)["other"], run_model(known, larger)["prob"])
