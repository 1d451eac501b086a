"""What inspect says of single layers, of values, of costs, of two nets, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.golden_cases import GOLDENS
from support.small_nets import write_net, write_weights

import caffeconv
from caffeconv.cli import main
from caffeconv.inspection.costs import ReceptiveField, receptive_fields
from caffeconv.inspection.diff import compare
from caffeconv.inspection.explain import explain

ALEXNET = GOLDENS / "nets" / "alexnet"
FC6 = GOLDENS / "errors" / "fc6_after_padded_1x1"


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
  each place sees 7×7 pixels, 1×1 apart in the input (height×width)
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


def test_a_net_without_parameters_has_none(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text('input: "x" input_shape { dim: 2 } layer { name: "l" type: "Silence" bottom: "x" }')
    assert "2 layers, 0 parameters (0 B), 0 multiply-adds, 8 B activations" in call(net).stdout


def test_receptive_fields() -> None:
    report = caffeconv.inspect(ALEXNET / "net.prototxt")
    fields = receptive_fields(report.nodes)
    assert fields["pool1"] == ReceptiveField((13, 13), (Fraction(6), Fraction(6)))
    assert fields["pool5"].stride == (Fraction(24), Fraction(24))
    assert "fc8" not in fields


@pytest.mark.parametrize(
    ("kind", "param", "want"),
    [
        ("ReLU", "", (1, 1)),
        ("LRN", "", (1, 1)),
        ("LRN", "lrn_param { norm_region: WITHIN_CHANNEL }", None),
        ("Permute", "permute_param { order: 0 order: 1 order: 3 order: 2 }", None),
        ("Reshape", "reshape_param { shape { dim: 0 dim: 0 dim: 4 dim: 9 } }", None),
        ("MVN", "", None),
        ("Python", 'python_param { module: "m" layer: "L" }', None),
    ],
)
def test_what_a_place_sees_is_left_out_where_it_is_not_known(
    kind: str, param: str, want: tuple[int, int] | None, tmp_path: Path
) -> None:
    net = write_net(tmp_path, {"x": (1, 2, 6, 6)}, f'layer {{ name: "l" type: "{kind}" bottom: "x" top: "y" {param} }}')
    report = caffeconv.inspect(net, shapes={"y": (1, 2, 6, 6)} if kind == "Python" else None)
    field = report.layers[1].receptive_field
    assert report.layers[1].tops
    assert (field.size if field else None) == want
    assert "sees the whole input" not in "\n".join(explain(report.nodes, "l"))


def test_json_of_edits_beyond_fields(tmp_path: Path) -> None:
    pool = 'layer { name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param { kernel_size: 2 } }'
    report = json.loads(call(write_net(tmp_path, {"x": (1, 2, 3, 4, 6)}, pool), "--json").stdout)
    edit = report["cures"][0]["edits"][0]
    assert (edit["layer"], edit["field"]) == ("p", "layers")
    assert edit["to"].count("layer {") == 3
    assert "dim: 0 dim: 6 dim: 4 dim: 6" in edit["to"]


def test_memory_with_reuse(tmp_path: Path) -> None:
    layer = 'layer {{ name: "{1}" type: "AbsVal" bottom: "{0}" top: "{1}" }}'.format
    net = write_net(tmp_path, {"a": (2, 10)}, layer("a", "b") + layer("b", "c") + layer("c", "d"))
    report = caffeconv.inspect(net)
    assert (report.activation_bytes, report.peak_bytes) == (320, 160)
    assert caffeconv.inspect(net, batch=4).peak_bytes == 320
    relu = 'layer { name: "r" type: "ReLU" bottom: "a" top: "a" }'
    assert caffeconv.inspect(write_net(tmp_path, {"a": (2, 10)}, relu)).peak_bytes == 80


def infinite(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    x[1, 2] = np.inf


def missing(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    x[0, :2] = np.nan


def zero(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    x[:] = 0


@pytest.mark.parametrize(
    ("spoil", "ok", "want"),
    [
        (infinite, False, "param 0 (weight) holds 0 NaN and 1 infinite values of 12, the first at [1, 2]"),
        (missing, False, "param 0 (weight) holds 2 NaN and 0 infinite values of 12, the first at [0, 0]"),
        (zero, True, "param 0 (weight) is all zero"),
    ],
)
def test_values(
    spoil: Callable[[np.ndarray[tuple[int, ...], np.dtype[np.float32]]], None], ok: bool, want: str, tmp_path: Path
) -> None:
    net = write_net(
        tmp_path, {"x": (1, 4)},
        'layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 3 } }',
    )  # fmt: skip
    weight = np.ones((3, 4), np.float32)
    spoil(weight)
    weights = write_weights(tmp_path / "w.caffemodel", "fc", [weight, np.zeros(3, np.float32)])
    assert caffeconv.inspect(net, weights).ok
    report = caffeconv.inspect(net, weights, values=True)
    assert report.ok == ok
    assert [d.message for d in report.diagnostics] == [want]
    assert want in call(net, weights, "--values").stderr


def test_two_nets(tmp_path: Path) -> None:
    text = (ALEXNET / "net.prototxt").read_text()
    other = tmp_path / "other.prototxt"
    other.write_text(text.replace("num_output: 10 ", "num_output: 12 ").replace('"prob"', '"probability"'))
    changes = compare(caffeconv.inspect(ALEXNET / "net.prototxt"), caffeconv.inspect(other))
    assert [(change.name, change.kind) for change in changes] == [
        ("fc8", "differs"), ("prob", "only in A"), ("probability", "only in B"),
    ]  # fmt: skip
    assert "inner_product_param.num_output: 10 → 12" in changes[0].changes
    assert "parameter weight: 10×24 → 12×24" in changes[0].changes
    result = call(ALEXNET / "net.prototxt", other)
    assert result.exit_code == 0
    assert "  inner_product_param.num_output: 10 → 12\n" in result.stdout
    assert call(other, other).stdout.endswith("No layer differs.\n")
    assert json.loads(call(ALEXNET / "net.prototxt", other, "--json").stdout)["layers"][0]["layer"] == "fc8"


def test_fix_writes_the_net_that_fits(tmp_path: Path) -> None:
    out = tmp_path / "fixed.prototxt"
    result = call(FC6 / "net.prototxt", FC6 / "weights.caffemodel", "--fix", out)
    assert result.exit_code == 1
    assert "reduce { pad: 1 → 0, num_output: 4 → 16 }" in result.stderr
    again = call(out, FC6 / "weights.caffemodel")
    assert (again.exit_code, again.stdout.splitlines()[-1]) == (0, "The weights fit.")
    assert call(out, FC6 / "weights.caffemodel", "--fix", tmp_path / "none.prototxt").exit_code == 0
    assert not (tmp_path / "none.prototxt").exists()


def test_json_is_as_documented() -> None:
    document = (GOLDENS.parent.parent / "docs" / "inspect.md").read_text()
    result = call(FC6 / "net.prototxt", FC6 / "weights.caffemodel", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["version"], report["ok"]) == (1, 1, False)
    cure = report["cures"][0]
    for names in (report, report["layers"][3], report["diagnostics"][0], cure, cure["edits"][0]):
        assert [name for name in names if f"`{name}`" not in document] == []
    assert report["cures"][0]["edits"][0] == {"layer": "reduce", "field": "pad", "from": "1", "to": "0"}
    assert report["layers"][3]["receptive_field"] == {"size": [1, 1], "stride": [1.0, 1.0]}
