"""What inspect says of one layer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.golden_cases import GOLDENS, ROOT
from support.small_nets import write_net

import caffeconv
from caffeconv.cli import main
from caffeconv.inspection.explain import explain

ALEXNET = GOLDENS / "nets" / "alexnet"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


CONV1 = """\
conv1 (Convolution), line 2: Convolution 7×7, pad 3
  reads data 1×13×7×7
  makes conv1 1×128×7×7
  size: (in + 2·pad − extent)/stride + 1, where extent = dilation·(kernel − 1) + 1
    height: (7 + 2·3 − 7)/1 + 1 = 7
    width: (7 + 2·3 − 7)/1 + 1 = 7
  blob 0 (weight) 128×13×7×7: 128 filters, each over all 13 channels, 7×7 (num_output × channels/group × kernel_h × kernel_w)
    lr_mult 2, decay_mult 0: it learns at 2 × the solver's base_lr, without weight decay; once blobs_lr and weight_decay
  blob 1 (bias) 128: 128 biases, one for each output
    lr_mult 0, decay_mult 1: it does not learn, with 1 × its weight_decay; once blobs_lr and weight_decay
  each place has a receptive field of 7×7 pixels, 1×1 apart in the input (height×width)
  TensorFlow: padding='SAME' pads as Caffe does here (top 3, bottom 3, left 3, right 3)
  in NHWC: 1×7×7×13 → 1×7×7×128, kernel 7×7×13×128 (height × width × in × out)"""


def test_one_layer(tmp_path: Path) -> None:
    net = write_net(
        tmp_path, {"data": (1, 13, 7, 7)},
        'layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { lr_mult: 2 decay_mult: 0 } '
        "param { lr_mult: 0 } convolution_param { num_output: 128 kernel_size: 7 pad: 3 } }",
    )  # fmt: skip
    assert "\n".join(explain(caffeconv.inspect(net).nodes, "conv1")) == CONV1
    assert call(net, "--layer", "conv1").stdout == CONV1 + "\n"


@pytest.mark.parametrize(
    ("size", "fields", "kind", "want"),
    [
        (8, "kernel_size: 3 stride: 2 pad: 1", "Convolution", [
            "  TensorFlow: padding='SAME' would pad top 0, bottom 1, left 0, right 1 and make 4×4; "
            "Caffe pads top 1, bottom 0, left 1, right 0:",
            "    tf.pad(x, [[0, 0], [1, 0], [1, 0], [0, 0]]), then padding='VALID' (NHWC)"]),
        (8, "kernel_size: 3 stride: 2", "Pooling", [
            "  TensorFlow: padding='SAME' pads as Caffe does here (top 0, bottom 1, left 0, right 1)"]),
        (9, "kernel_size: 3 stride: 2", "Convolution", ["  TensorFlow: padding='VALID' does the same"]),
        (9, "kernel_size: 2 stride: 2 pad: 1", "Pooling", [
            "  TensorFlow: padding='SAME' would pad top 0, bottom 1, left 0, right 1 and make 5×5; "
            "Caffe pads top 1, bottom 0, left 1, right 0:",
            "    tf.pad(x, [[0, 0], [1, 0], [1, 0], [0, 0]], constant_values=x.dtype.min), then padding='VALID' (NHWC)"]),
    ],
)  # fmt: skip
def test_tensorflow_padding(size: int, fields: str, kind: str, want: list[str], tmp_path: Path) -> None:
    param = f"pooling_param {{ {fields} }}" if kind == "Pooling" else f"convolution_param {{ num_output: 2 {fields} }}"
    net = write_net(
        tmp_path, {"data": (1, 3, size, size)}, f'layer {{ name: "x" type: "{kind}" bottom: "data" top: "x" {param} }}'
    )
    lines = explain(caffeconv.inspect(net).nodes, "x")
    start = next(i for i, line in enumerate(lines) if "TensorFlow" in line)
    assert lines[start : start + len(want)] == want


def test_near_layer_name() -> None:
    result = call(ALEXNET / "net.prototxt", "--layer", "con1")
    assert result.exit_code == 1
    assert "no layer 'con1' that could be built. Did you mean conv1" in result.stderr


def test_as_json() -> None:
    net = ROOT / "fixtures/digits/deploy.prototxt"
    layer = json.loads(call(net, "--layer", "conv1", "--json").stdout)
    assert (layer["name"], layer["type"], layer["parameters"]) == ("conv1", "Convolution", 208)
    assert layer["explanation"] == call(net, "--layer", "conv1").stdout.splitlines()
