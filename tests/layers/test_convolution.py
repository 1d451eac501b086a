"""Windows of convolutions as the prototxt gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from support.graphs import layer
from support.small_nets import Array, write_net

import caffeconv
from caffeconv.caffe_pb2 import ConvolutionParameter
from caffeconv.errors import LayerError
from caffeconv.layers.convolution import parse_window
from caffeconv.tensor.window import Window


def parameter(text: str) -> ConvolutionParameter:
    p = ConvolutionParameter()
    text_format.Parse(text, p)
    return p


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("kernel_size: 3 stride: 2 pad: 1 dilation: 2", Window((3, 3), (2, 2), (1, 1), (2, 2))),
        ("kernel_h: 3 kernel_w: 5 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 2", Window((3, 5), (2, 1), (1, 2), (1, 1))),
        ("kernel_size: 3 kernel_size: 5", Window((3, 5), (1, 1), (0, 0), (1, 1))),
        ("kernel_size: 3 hole: 4", Window((3, 3), (1, 1), (0, 0), (4, 4))),
        ("kernel_size: 3 hole_h: 4 hole_w: 2", Window((3, 3), (1, 1), (0, 0), (4, 2))),
    ],
)
def test_a_window_over_height_and_width(text: str, window: Window) -> None:
    assert parse_window(parameter(text)).over(2) == window


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kernel_size: 3 dilation: 2 hole: 2", "dilation, hole, and hole_h/hole_w are names of one thing"),
        (
            "kernel_size: 3 kernel_depth: 3",
            "kernel_depth, temporal_stride, temporal_pad, filter_group are fields of C3D's",
        ),
        ("kernel_size: 3 kernel_h: 3", "Either kernel_size or kernel_h/w should be specified"),
        ("kernel_h: 3 dilation: 2 hole: 2", "dilation, hole"),
        ("kernel_size: 0 kernel_depth: 3", "kernel_depth"),
    ],
)
def test_faults_show_over_axes_and_not_before(text: str, message: str) -> None:
    spec = parse_window(parameter(text))
    with pytest.raises(LayerError) as error:
        spec.over(2)
    assert str(error.value).startswith(message)


def passed(folder: Path, kind: str, rule: str, x: Array) -> tuple[Array, Array, list[Array]]:
    """Values of the top, the diffs of bottom and parameters where the top's is 1; weights count up from 1."""
    text = layer("y", kind, "x", f"convolution_param {{ {rule} }}")
    net = caffeconv.Net(write_net(folder, {"x": x.shape}, text, "force_backward: true\n"))
    params = net.params.get("y", [])
    for param in params:
        param.data[...] = np.arange(1, param.count + 1).reshape(param.shape)
    y = net.forward(x=x)["y"]
    diff = net.backward(y=np.ones_like(y))["x"]
    return y, diff, [param.diff for param in params]


SQUARE = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 2, 2)


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (1, 1, 3, 2), (1, 1, 2, 4)])
def test_a_window_larger_than_its_input(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = np.ones(shape, np.float32)
    y, diff, (weight, bias) = passed(tmp_path, "Convolution", "num_output: 1 kernel_size: 3 stride: 2", x)
    kernel = np.arange(1, 10, dtype=np.float32).reshape(3, 3)[: shape[2], : shape[3]]
    assert y.shape == (1, 1, 1, 1)  # caffe: -1/2 + 1, and 1/2 + 1, both truncated
    assert y.item() == kernel.sum() + 1
    np.testing.assert_array_equal(diff[0, 0, :3, :3], kernel)
    assert weight.sum() == x[0, 0, :3, :3].sum()
    assert bias == 1


def test_im2col_of_a_window_larger_than_its_input(tmp_path: Path) -> None:
    y, diff, _ = passed(tmp_path, "Im2col", "kernel_size: 3 stride: 2", SQUARE)
    np.testing.assert_array_equal(y.ravel(), [1, 2, 0, 3, 4, 0, 0, 0, 0])  # recorded from Caffe
    np.testing.assert_array_equal(diff, np.ones_like(SQUARE))


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
def test_dilation_0_lays_all_elements_upon_one_place(tmp_path: Path, kind: str) -> None:
    y, diff, (weight, bias) = passed(tmp_path, kind, "num_output: 1 kernel_size: 2 dilation: 0 stride: 1", SQUARE)
    np.testing.assert_array_equal(y, 10 * SQUARE + 1)
    np.testing.assert_array_equal(diff, np.full_like(SQUARE, 10))
    np.testing.assert_array_equal(weight, np.full((1, 1, 2, 2), 10))
    assert bias == 4


def test_dilation_0_along_one_axis(tmp_path: Path) -> None:
    rule = "num_output: 1 kernel_size: 2 dilation: 0 dilation: 1"
    y, _, (weight, _) = passed(tmp_path, "Convolution", rule, SQUARE)
    np.testing.assert_array_equal(y.ravel(), [4 * 1 + 6 * 2 + 1, 4 * 3 + 6 * 4 + 1])
    np.testing.assert_array_equal(weight.ravel(), [4, 6, 4, 6])
    y, _, _ = passed(tmp_path, "Im2col", "kernel_size: 2 dilation: 0", SQUARE)
    np.testing.assert_array_equal(y.ravel(), np.tile(SQUARE.ravel(), 4))
