"""Eight-bit models: close to float32, in a plain onnxruntime, and float32 where eight bits would do harm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto
from support.golden_cases import ROOT
from support.small_nets import Array, run_model, write_net

import caffeconv
from caffeconv.quantization.int8 import METADATA_KEY

DIGITS = ROOT / "fixtures" / "digits"
PAIR = (
    'layer { name: "a" type: "Convolution" bottom: "x" top: "a" convolution_param { num_output: 2 kernel_size: 1 } }'
    'layer { name: "r" type: "ReLU" bottom: "a" top: "r" }'
    'layer { name: "b" type: "Convolution" bottom: "r" top: "b" convolution_param { num_output: 3 kernel_size: 1 '
    'weight_filler { type: "xavier" } } }'
    'layer { name: "m" type: "Pooling" bottom: "b" top: "m" pooling_param { pool: AVE kernel_size: 2 stride: 2 } }'
)


def digits(layout: str = "nchw") -> ModelProto:
    return caffeconv.convert(DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel", layout=layout)  # type: ignore[arg-type]


def pictures(count: int = 24) -> list[dict[str, Array]]:
    random = np.random.default_rng(0)
    return [{"data": random.uniform(0, 255, (8, 1, 28, 28)).astype(np.float32)} for _ in range(count // 8)]


def pair(folder: Path, outlier: float) -> tuple[ModelProto, list[dict[str, Array]]]:
    """Two convolutions; the first does not look at its input's first channel, whose values may be very large."""
    model = caffeconv.convert(write_net(folder, {"x": (1, 2, 4, 4)}, PAIR))
    for initializer in model.graph.initializer:
        if initializer.name == "a/weight":
            weight = np.array([[0, 1], [0, 0.5]], np.float32).reshape(2, 2, 1, 1)
            initializer.CopyFrom(onnx.numpy_helper.from_array(weight, "a/weight"))
    x = np.random.default_rng(0).uniform(0, 1, (16, 2, 4, 4)).astype(np.float32)
    x[:, 0] *= outlier
    return model, [{"x": x}]


def test_digits_in_eight_bits() -> None:
    model, batches = digits(), pictures()
    quantized = caffeconv.quantize(model, batches)
    assert quantized.layers == ("conv1", "conv2", "ip1", "ip2")
    assert not quantized.float_layers
    assert 0 < quantized.deviation < 0.05
    onnx.checker.check_model(quantized.model, full_check=True)
    kinds = {it.name: it.data_type for it in quantized.model.graph.initializer}
    assert sum(kind == TensorProto.INT8 for name, kind in kinds.items() if "weight" in name) >= 4
    for batch in batches:
        expected, actual = run_model(model, batch)["prob"], run_model(quantized.model, batch)["prob"]
        np.testing.assert_allclose(actual, expected, atol=0.1)


def test_metadata_says_it_and_keeps_the_rest() -> None:
    model = digits()
    before = {entry.key: entry.value for entry in model.metadata_props}
    after = {entry.key: entry.value for entry in caffeconv.quantize(model, pictures()).model.metadata_props}
    assert after.pop(METADATA_KEY) == "4 layers; weights int8, a scale a channel; activations uint8, ranges of 24 items"
    assert after == before


def test_accuracy_against_labels() -> None:
    model, batches = digits(), pictures()
    classes = np.concatenate([run_model(model, batch)["prob"].argmax(1) for batch in batches]).astype(np.float32)
    (change,) = caffeconv.quantize(model, batches, labels=classes).outputs
    assert change.blob == "prob"
    assert change.accuracy == (1.0, change.same_class)


def test_a_layer_that_eight_bits_would_ruin_stays_float32(tmp_path: Path) -> None:
    model, batches = pair(tmp_path, 1e4)
    quantized = caffeconv.quantize(model, batches)
    assert quantized.layers == ("b",)
    assert quantized.float_layers["a"] > 0.05
    assert quantized.deviation <= 0.05
    assert caffeconv.quantize(*pair(tmp_path, 1)).layers == ("a", "b")


def test_nothing_is_in_eight_bits_where_nothing_may_be_off(tmp_path: Path) -> None:
    model, batches = pair(tmp_path, 1)
    quantized = caffeconv.quantize(model, batches, most_deviation=1e-9)
    assert quantized.layers == ()
    assert quantized.deviation == 0
    assert set(quantized.float_layers) == {"a", "b"}


def test_what_follows_the_last_product_stays_float32(tmp_path: Path) -> None:
    model, batches = pair(tmp_path, 1)
    graph = caffeconv.quantize(model, batches).model.graph
    quantized = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert {"x", "r"} <= quantized
    assert "m" not in quantized


def test_seven_bits(tmp_path: Path) -> None:
    model, batches = pair(tmp_path, 1)
    for reduce_range, most in ((False, 127), (True, 64)):
        graph = caffeconv.quantize(model, batches, reduce_range=reduce_range).model.graph
        values = [
            onnx.numpy_helper.to_array(it) for it in graph.initializer if it.name.startswith("b/weight_quantized")
        ]
        assert np.abs(values[0].astype(int)).max() == pytest.approx(most, abs=1)


@pytest.mark.parametrize(
    ("layers", "values", "words"),
    [
        (PAIR, None, "no items"),
        (PAIR, np.full((1, 2, 4, 4), np.nan, np.float32), "no finite numbers"),
        ('layer { name: "r" type: "ReLU" bottom: "x" top: "r" }', np.ones((1, 2, 4, 4), np.float32), "nothing to gain"),
    ],
)
def test_what_cannot_be(layers: str, values: Array | None, words: str, tmp_path: Path) -> None:
    model = caffeconv.convert(write_net(tmp_path, {"x": (1, 2, 4, 4)}, layers))
    with pytest.raises(caffeconv.CaffeconvError, match=words):
        caffeconv.quantize(model, [] if values is None else [{"x": values}])


def test_half_precision_is_refused() -> None:
    model = caffeconv.convert(DIGITS / "deploy.prototxt", DIGITS / "digits.caffemodel", half=True)
    with pytest.raises(caffeconv.CaffeconvError, match="of half precision"):
        caffeconv.quantize(model, pictures())
