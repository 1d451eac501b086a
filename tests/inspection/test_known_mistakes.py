"""Mistakes that other converters make, one test each, against numpy written from Caffe's rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.small_nets import Array, run_model, run_net, write_net, write_weights

import caffeconv
from caffeconv.cli import main

RNG = np.random.default_rng(7)
slow_path = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def random(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def one(folder: Path, layer: str, x: Array, **options: object) -> Array:
    """The top y of one layer over x."""
    text = f'layer {{ name: "l" bottom: "x" top: "y" {layer} }}'
    return run_net(folder, text, {"x": x}, **options)["y"]  # type: ignore[arg-type]


# -- normalisation -----------------------------------------------------------------------------------------------------


@slow_path
@given(
    st.integers(1, 12), st.sampled_from([1, 3, 5, 11]), st.sampled_from([0.75, 0.5, 1.2]), st.sampled_from([1.0, 2.0])
)
def test_lrn_k_and_alpha_over_size(tmp_path: Path, channels: int, size: int, beta: float, k: float) -> None:
    x = random(2, channels, 3, 2)
    alpha = 0.3
    squares = np.pad(x.astype("f8") ** 2, ((0, 0), (size // 2,) * 2, (0, 0), (0, 0)))
    total = sum(squares[:, i : i + channels] for i in range(size))
    param = f"local_size: {size} alpha: {alpha} beta: {beta} k: {k}"
    got = one(tmp_path, f'type: "LRN" lrn_param {{ {param} }}', x)
    np.testing.assert_allclose(got, x / (k + alpha / size * total) ** beta, rtol=1e-4)


def test_lrn_within_channel_is_not_across(tmp_path: Path) -> None:
    x = random(1, 4, 5, 5)
    param = "local_size: 3 alpha: 2 beta: 0.75 k: 9 norm_region: WITHIN_CHANNEL"
    got = one(tmp_path, f'type: "LRN" lrn_param {{ {param} }}', x)
    square = np.pad(x.astype("f8") ** 2, ((0, 0), (0, 0), (1, 1), (1, 1)))
    # padding counts in Caffe's average, so it is always over 3×3; k is ignored
    average = sum(square[:, :, i : i + 5, j : j + 5] for i in range(3) for j in range(3)) / 9
    np.testing.assert_allclose(got, x / (1 + 2 * average) ** 0.75, rtol=1e-4)


@pytest.mark.parametrize("factor", [0.0, 1.0, 4.0])
def test_batch_norm_divides_both_statistics_by_the_scale_factor(tmp_path: Path, factor: float) -> None:
    x, mean, variance = random(2, 3, 4, 4), random(3), random(3) ** 2 + 1
    weights = write_weights(tmp_path / "w.caffemodel", "l", [mean, variance, np.array([factor], np.float32)])
    got = one(tmp_path, 'type: "BatchNorm" batch_norm_param { eps: 0.1 }', x, weights=weights)
    scale = 0 if factor == 0 else 1 / factor
    expected = (x - (mean * scale)[:, None, None]) / np.sqrt((variance * scale)[:, None, None] + 0.1)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_mvn_adds_eps_to_the_deviation(tmp_path: Path) -> None:
    x = random(2, 3, 4, 4)
    got = one(tmp_path, 'type: "MVN" mvn_param { eps: 0.5 }', x)
    centred = x - x.mean(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(got, centred / (x.std(axis=(2, 3), keepdims=True) + 0.5), rtol=1e-4, atol=1e-5)


# -- elementwise -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("axis", [1, 2, -1, 0])
def test_softmax_of_four_axes(tmp_path: Path, axis: int, opset: int) -> None:
    x = random(2, 3, 4, 5)
    got = one(tmp_path, f'type: "Softmax" softmax_param {{ axis: {axis} }}', x, opset=opset)
    exp = np.exp(x - x.max(axis=axis, keepdims=True))
    np.testing.assert_allclose(got, exp / exp.sum(axis=axis, keepdims=True), rtol=1e-5)


def test_eltwise_coefficients(tmp_path: Path) -> None:
    a, b, c = random(2, 3), random(2, 3), random(2, 3)
    layer = (
        'layer { name: "e" type: "Eltwise" bottom: "a" bottom: "b" bottom: "c" top: "y" '
        "eltwise_param { coeff: 1 coeff: -0.5 coeff: 0 } }"
    )
    np.testing.assert_allclose(run_net(tmp_path, layer, {"a": a, "b": b, "c": c})["y"], a - 0.5 * b, rtol=1e-6)


def test_swish_beta(tmp_path: Path) -> None:
    x = random(2, 3)
    got = one(tmp_path, 'type: "Swish" swish_param { beta: 1.7 }', x)
    np.testing.assert_allclose(got, x / (1 + np.exp(-1.7 * x)), rtol=1e-5)


def test_prelu_slope_belongs_to_the_channels(tmp_path: Path) -> None:
    x, slope = random(2, 5, 5, 5), random(5)
    weights = write_weights(tmp_path / "w.caffemodel", "l", [slope])
    got = one(tmp_path, 'type: "PReLU"', x, weights=weights)
    np.testing.assert_allclose(got, np.where(x > 0, x, slope[:, None, None] * x), rtol=1e-6)


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_dropout_of_a_test_net_is_gone(tmp_path: Path, opset: int) -> None:
    net = write_net(tmp_path, {"x": (2, 3)}, 'layer { name: "d" type: "Dropout" bottom: "x" top: "y" }')
    model = caffeconv.convert(net, opset=opset)
    assert [node.op_type for node in model.graph.node] == ["Identity"]


# -- products ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transpose", [False, True])
def test_inner_product_transpose(tmp_path: Path, *, transpose: bool) -> None:
    x, w = random(3, 2, 2), random(4, 4)
    weights = write_weights(tmp_path / "w.caffemodel", "l", [w])
    param = f"num_output: 4 bias_term: false transpose: {str(transpose).lower()}"
    got = one(tmp_path, f'type: "InnerProduct" inner_product_param {{ {param} }}', x, weights=weights)
    np.testing.assert_allclose(got, x.reshape(3, 4) @ (w if transpose else w.T), rtol=1e-4, atol=1e-6)


# -- pooling -----------------------------------------------------------------------------------------------------------


def slow_pool(x: Array, method: str, kernel: int, stride: int, pad: int, *, ceil: bool) -> Array:
    """Pooling as a loop over windows, from Caffe's rule."""
    n, c, h, w = x.shape

    def size(length: int) -> int:
        steps = (length + 2 * pad - kernel) / stride
        count = int(np.ceil(steps) if ceil else np.floor(steps)) + 1
        return count - 1 if pad and (count - 1) * stride >= length + pad else count

    y = np.zeros((n, c, size(h), size(w)))
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            top, left = i * stride - pad, j * stride - pad
            bottom, right = min(top + kernel, h + pad), min(left + kernel, w + pad)
            divisor = (bottom - top) * (right - left)
            window = x[:, :, max(top, 0) : min(bottom, h), max(left, 0) : min(right, w)]
            if method == "AVE":
                y[:, :, i, j] = window.sum(axis=(2, 3)) / divisor
            else:
                y[:, :, i, j] = window.max(axis=(2, 3))
    return y.astype(np.float32)


@slow_path
@given(
    st.integers(3, 11), st.integers(3, 11), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3),
    st.sampled_from(["MAX", "AVE"]), st.booleans(),
)  # fmt: skip
def test_pooling_ceil_clip_and_divisor(
    tmp_path: Path, height: int, width: int, kernel: int, stride: int, pad: int, method: str, ceil: bool,
) -> None:  # fmt: skip
    pad, stride = min(pad, kernel - 1), min(stride, kernel)
    kernel = min(kernel, height, width)
    pad = min(pad, kernel - 1)
    stride = min(stride, kernel)
    x = random(2, 2, height, width)
    mode = "CEIL" if ceil else "FLOOR"
    param = f"pool: {method} kernel_size: {kernel} stride: {stride} pad: {pad} round_mode: {mode}"
    got = one(tmp_path, f'type: "Pooling" pooling_param {{ {param} }}', x)
    np.testing.assert_allclose(got, slow_pool(x, method, kernel, stride, pad, ceil=ceil), rtol=1e-5, atol=1e-6)


# -- nets --------------------------------------------------------------------------------------------------------------


def test_include_and_exclude_are_not_the_same(tmp_path: Path) -> None:
    layers = (
        'layer { name: "a" type: "Power" bottom: "x" top: "y" power_param { shift: 1 } include { phase: TRAIN } }'
        'layer { name: "b" type: "Power" bottom: "x" top: "y" power_param { shift: 2 } exclude { phase: TRAIN } }'
    )
    net = write_net(tmp_path, {"x": (1,)}, layers)
    for phase, shift in (("TEST", 2), ("TRAIN", 1)):
        model = caffeconv.convert(net, phase=phase)  # type: ignore[arg-type]
        assert run_model(model, {"x": np.zeros(1, np.float32)})["y"] == shift


def test_two_data_layers_for_two_phases_are_no_duplicate_blobs(tmp_path: Path) -> None:
    text = (
        'layer { name: "data" type: "Input" top: "x" include { phase: TRAIN } input_param { shape { dim: 9 dim: 2 } } }'
        'layer { name: "data" type: "Input" top: "x" include { phase: TEST } input_param { shape { dim: 4 dim: 2 } } }'
        'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }'
    )
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    assert caffeconv.inspect(path).blobs == {"x": (4, 2), "y": (4, 2)}


def test_v1_layers_and_new_ones_do_the_same(tmp_path: Path) -> None:
    x = random(1, 2, 5, 5)
    new = 'layer { name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 2 kernel_size: 3 } }'
    old = (
        'layers { name: "c" type: CONVOLUTION bottom: "x" top: "y" convolution_param { num_output: 2 kernel_size: 3 } }'
    )
    weights = write_weights(tmp_path / "w.caffemodel", "c", [random(2, 2, 3, 3), random(2)])
    results = []
    for text in (new, old):
        net = tmp_path / "net.prototxt"
        net.write_text(f'input: "x" input_dim: 1 input_dim: 2 input_dim: 5 input_dim: 5 {text}')
        results.append(run_model(caffeconv.convert(net, weights), {"x": x})["y"])
    np.testing.assert_array_equal(results[0], results[1])


def test_in_place_chain_in_order(tmp_path: Path) -> None:
    layers = "".join(
        f'layer {{ name: "p{i}" type: "Power" bottom: "x" top: "x" power_param {{ scale: {scale} shift: {shift} }} }}'
        for i, (scale, shift) in enumerate([(2, 1), (3, -1), (-1, 4)])
    )
    model = caffeconv.convert(write_net(tmp_path, {"x": (3,)}, layers))
    x = random(3)
    assert [i.name for i in model.graph.input] == ["x"]
    assert [o.name for o in model.graph.output] == ["x/p2"]
    np.testing.assert_allclose(run_model(model, {"x": x})["x/p2"], -((2 * x + 1) * 3 - 1) + 4, rtol=1e-5, atol=1e-5)


def test_shared_parameters_are_stored_once(tmp_path: Path) -> None:
    layers = "".join(
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" '
        'param { name: "w" } inner_product_param { num_output: 4 bias_term: false } }'
        for name, bottom in (("one", "x"), ("two", "one"))
    )
    w = random(4, 4)
    weights = write_weights(tmp_path / "w.caffemodel", "one", [w])
    model = caffeconv.convert(write_net(tmp_path, {"x": (2, 4)}, layers), weights)
    assert [tensor.name for tensor in model.graph.initializer] == ["one/weight"]
    x = random(2, 4)
    np.testing.assert_allclose(run_model(model, {"x": x})["two"], x @ w.T @ w.T, rtol=1e-4, atol=1e-5)


def test_an_unknown_layer_is_refused(tmp_path: Path) -> None:
    net = write_net(tmp_path, {"x": (1,)}, 'layer { name: "q" type: "Quantum" bottom: "x" top: "y" }')
    result = CliRunner().invoke(main, ["convert", str(net), "-o", str(tmp_path / "m.onnx")])
    assert result.exit_code == 1
    assert "q (Quantum), line 2: Unknown layer type: Quantum" in result.stderr
    assert not (tmp_path / "m.onnx").exists()


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    layers = (
        'layer { name: "q" type: "Quantum" bottom: "x" top: "q" }\n'
        'layer { name: "p" type: "Pooling" bottom: "x" top: "p" }\n'
        'layer { name: "s" type: "Slice" bottom: "x" top: "a" top: "b" }\n'
    )
    with pytest.raises(caffeconv.CaffeconvError) as caught:
        caffeconv.convert(write_net(tmp_path, {"x": (1, 3, 4, 4)}, layers))
    text = str(caught.value)
    assert "q (Quantum), line 2" in text
    assert "p (Pooling), line 3" in text
    assert "s (Slice), line 4" in text


def test_nothing_is_written_beside_the_input(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    net = write_net(tmp_path / "in", {"x": (1, 2)}, 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }')
    result = CliRunner().invoke(main, ["convert", str(net), "-o", str(tmp_path / "m.onnx")])
    assert result.exit_code == 0, result.stderr
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["net.prototxt"]


def test_node_names_are_layer_names(tmp_path: Path) -> None:
    layers = (
        'layer { name: "conv 1" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 2 kernel_size: 1 } }'
        'layer { name: "norm" type: "LRN" bottom: "c" top: "n" }'
    )
    model = caffeconv.convert(write_net(tmp_path, {"x": (1, 2, 3, 3)}, layers))
    names = [node.name for node in model.graph.node]
    assert names[0] == "conv 1"
    assert names[-1] == "norm"
    assert all(name == "conv 1" or name.startswith("norm") for name in names)
    assert {"conv 1/weight", "conv 1/bias"} <= {tensor.name for tensor in model.graph.initializer}


def test_batch_size_is_not_baked_in(tmp_path: Path) -> None:
    layers = (
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 6 } }'
        'layer { name: "r" type: "Reshape" bottom: "ip" top: "r" reshape_param { shape { dim: 0 dim: 2 dim: -1 } } }'
    )
    model = caffeconv.convert(write_net(tmp_path, {"x": (1, 3, 2, 2)}, layers))
    for batch in (1, 2, 7):
        assert run_model(model, {"x": random(batch, 3, 2, 2)})["r"].shape == (batch, 2, 3)


def test_a_reshape_that_repeats_the_batch_size_follows_it(tmp_path: Path) -> None:
    layers = (
        'layer { name: "r" type: "Reshape" bottom: "x" top: "r" reshape_param { shape { dim: 1 dim: -1 dim: 2 } } }'
    )
    model = caffeconv.convert(write_net(tmp_path, {"x": (1, 3, 4)}, layers))
    x = random(5, 3, 4)
    np.testing.assert_array_equal(run_model(model, {"x": x})["r"], x.reshape(5, 6, 2))
