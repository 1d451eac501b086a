"""What is said of TensorFlow's SAME and VALID, against Keras that pads so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from keras import ops
from support.golden_cases import Array
from support.keras_nets import LOWEST, Said, sides
from support.small_nets import write_net, write_weights

import caffeconv
from caffeconv.cli import main
from caffeconv.conversion.load import load
from caffeconv.emit.weights.weight_arrays import weight_arrays_of

# kernel, stride, pad, dilation, height and width of the input
WINDOWS = [
    (3, 1, 1, 1, 7, 8), (3, 2, 1, 1, 8, 8), (3, 2, 1, 1, 7, 9), (3, 2, 0, 1, 9, 9), (3, 2, 0, 1, 8, 8),
    (7, 2, 3, 1, 14, 15), (5, 1, 1, 1, 6, 6), (2, 2, 0, 1, 7, 8), (2, 2, 1, 1, 9, 9), (3, 1, 2, 2, 9, 9),
    (1, 2, 0, 1, 7, 8), (4, 1, 2, 1, 6, 7), (2, 3, 0, 1, 8, 9), (3, 3, 1, 1, 8, 10),
]  # fmt: skip


def caffes(folder: Path, layer: str, x: Array, weights: list[Array]) -> tuple[Array, Said]:
    """What the layer `x` makes, channels last, and what is said of its window."""
    net = write_net(folder, {"data": x.shape}, layer)
    blobs = write_weights(folder / "w.caffemodel", "x", weights) if weights else None
    y = caffeconv.Net(net, blobs, phase="TEST").forward(data=x)["x"].transpose(0, 2, 3, 1)
    # a layer with parameters, for a file needs some
    net = write_net(folder, {"data": x.shape}, layer + PARAMETERS)
    window = weight_arrays_of(load(net).graph, "nhwc").layers["x"]["window"]
    assert isinstance(window, dict)
    return y, window


PARAMETERS = 'layer { name: "s" type: "Scale" bottom: "x" top: "s" }'


def agree(got: object, want: Array) -> bool:
    values = np.asarray(got)
    return values.shape == want.shape and bool(np.allclose(values, want, rtol=1e-4, atol=1e-5, equal_nan=True))


def data(height: int, width: int, channels: int = 3) -> Array:
    # negative, so that padding with 0 shows in a greatest value
    return np.random.default_rng(5).uniform(-2, -1, (2, channels, height, width)).astype(np.float32)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_convolution(window: tuple[int, ...], tmp_path: Path) -> None:
    kernel, stride, pad, dilation, height, width = window
    x = data(height, width)
    weight = np.random.default_rng(6).normal(0, 1, (4, 3, kernel, kernel)).astype(np.float32)
    fields = f"num_output: 4 kernel_size: {kernel} stride: {stride} pad: {pad} dilation: {dilation} bias_term: false"
    layer = f'layer {{ name: "x" type: "Convolution" bottom: "data" top: "x" convolution_param {{ {fields} }} }}'
    want, said = caffes(tmp_path, layer, x, [weight])
    x, kernel_hwio = x.transpose(0, 2, 3, 1), weight.transpose(2, 3, 1, 0)

    def convolved(image: object, how: str) -> object:
        return ops.conv(image, kernel_hwio, stride, how, dilation_rate=dilation)

    assert said["same"] == agree(convolved(x, "same"), want)
    assert said["valid"] == agree(convolved(x, "valid"), want)
    assert agree(convolved(ops.pad(x, [(0, 0), *sides(said, "pad"), (0, 0)]), "valid"), want)


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize("window", [w for w in WINDOWS if w[3] == 1 and w[2] < w[0]], ids=str)
def test_pooling(window: tuple[int, ...], method: str, tmp_path: Path) -> None:
    kernel, stride, pad, _, height, width = window
    x = data(height, width)
    fields = f"pool: {method} kernel_size: {kernel} stride: {stride} pad: {pad}"
    layer = f'layer {{ name: "x" type: "Pooling" bottom: "data" top: "x" pooling_param {{ {fields} }} }}'
    want, said = caffes(tmp_path, layer, x, [])
    x = x.transpose(0, 2, 3, 1)
    pool = ops.max_pool if method == "MAX" else ops.average_pool
    assert said["same"] == agree(pool(x, kernel, stride, "same"), want)
    assert said["valid"] == agree(pool(x, kernel, stride, "valid"), want)
    fill = LOWEST if said["pad_with"] == "lowest" else 0.0
    explicit = pool(ops.pad(x, [(0, 0), *sides(said, "pad"), (0, 0)], constant_values=fill), kernel, stride, "valid")
    factors = said.get("then_multiply", [[1.0], [1.0]])
    rows, columns = (np.array(axis, np.float32) for axis in factors)
    assert agree(explicit * rows[:, None, None] * columns[:, None], want)


@pytest.mark.parametrize("window", [
    (4, 2, 1, 1), (4, 2, 0, 1), (2, 2, 0, 1), (3, 2, 1, 1), (3, 2, 0, 1), (3, 1, 1, 1), (5, 1, 1, 1), (2, 3, 0, 1),
    (1, 2, 0, 1), (16, 8, 4, 1), (8, 4, 2, 1), (3, 1, 2, 2), (2, 3, 1, 1),
], ids=str)  # fmt: skip
def test_deconvolution(window: tuple[int, ...], tmp_path: Path) -> None:
    kernel, stride, pad, dilation = window
    x = data(4, 5)
    weight = np.random.default_rng(6).normal(0, 1, (3, 2, kernel, kernel)).astype(np.float32)
    fields = f"num_output: 2 kernel_size: {kernel} stride: {stride} pad: {pad} dilation: {dilation} bias_term: false"
    layer = f'layer {{ name: "x" type: "Deconvolution" bottom: "data" top: "x" convolution_param {{ {fields} }} }}'
    want, said = caffes(tmp_path, layer, x, [weight])
    x, kernel_hwoi = x.transpose(0, 2, 3, 1), weight.transpose(2, 3, 1, 0)

    def spread(how: str) -> Array:
        return np.asarray(ops.conv_transpose(x, kernel_hwoi, stride, how, dilation_rate=dilation))

    assert said["same"] == agree(spread("same"), want)
    whole = spread("valid")
    assert said["valid"] == agree(whole, want)
    (top, bottom), (left, right) = sides(said, "crop")
    assert agree(whole[:, top : whole.shape[1] - bottom, left : whole.shape[2] - right], want)


def test_a_layer_explained_says_the_same(tmp_path: Path) -> None:
    fields = "num_output: 2 kernel_size: 3 stride: 2 pad: 1"
    deconvolution = 'layer {{ name: "up" type: "Deconvolution" bottom: "data" top: "up" convolution_param {{ {} }} }}'
    average = 'layer { name: "a" type: "Pooling" bottom: "data" top: "a" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }'
    net = write_net(tmp_path, {"data": (1, 3, 8, 8)}, deconvolution.format(fields) + average)

    def explained(layer: str) -> str:
        return CliRunner().invoke(main, ["inspect", str(net), "--layer", layer]).stdout

    assert "would cut off top 0, bottom 1, left 0, right 1 and make 16×16; Caffe cuts off top 1, bottom 1" in explained(
        "up"
    )
    assert "padding='VALID', then y[:, 1:-1, 1:-1, :]" in explained("up")
    assert "height × width × out × in" in explained("up")
    assert "padding='SAME' pads as Caffe does here (top 0, bottom 1, left 0, right 1)" in explained("a")
    average = average.replace("stride: 2", "stride: 2 pad: 1")
    net = write_net(tmp_path, {"data": (1, 3, 7, 8)}, average)
    assert "tf.pad(x, [[0, 0], [1, 1], [1, 2], [0, 0]]), then padding='VALID' (NHWC)" in explained("a")
    assert "then multiply, of axis 2, place 4 by 1.5: Caffe divides by fewer there" in explained("a")
