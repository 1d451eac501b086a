"""Windows of convolutions as the prototxt gives them."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

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
