"""Nets that Xilinx's tools quantise, against the fork's rules written with numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, run_model, write_net, write_weights

import caffeconv

F = np.float32


def neuron(folder: Path, said: str, position: float, x: Array) -> Array:
    layer = f'layer {{ name: "f" type: "FixedNeuron" bottom: "x" top: "y" fixed_param {{ bit_width: 4 {said} }} }}\n'
    path = write_net(folder, {"x": x.shape}, layer)
    weights = write_weights(folder / "w.caffemodel", "f", [np.array([position], F)])
    return run_model(caffeconv.convert(path, weights), {"x": x})["y"]


def test_neurons_round_halves_up_and_are_held(tmp_path: Path) -> None:
    x = np.array([[0.25, -0.25, -0.3, 0.75, 9, -9]], F)
    np.testing.assert_array_equal(neuron(tmp_path, "fixed_method: DIFF_S", 1.7, x), [[0.5, 0, -0.5, 1, 3.5, -4]])


def test_neurons_behind_data_cut(tmp_path: Path) -> None:
    x = np.array([[0.3, -0.9, 9, -9.6]], F)
    said = "fixed_method: OVER_FLOW follow_data_layer: true"
    np.testing.assert_array_equal(neuron(tmp_path, said, 1, x), [[0, -0.5, 9, -9.5]])


def test_neurons_over_a_scalar(tmp_path: Path) -> None:
    assert neuron(tmp_path, "fixed_method: OVER_FLOW", 1, np.array(0.8, F)) == F(1)


def test_a_neuron_that_is_off_copies(tmp_path: Path) -> None:
    x = np.array([[0.3, -0.9]], F)
    np.testing.assert_array_equal(neuron(tmp_path, "fixed_method: DIFF_S enable: false", 1, x), x)


def rounded(values: Array, bits: int, position: int) -> Array:
    step = 2.0**-position
    whole = np.sign(values) * np.floor(np.abs(values) / step + 0.5)
    held: Array = (np.clip(whole, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * step).astype(F)
    return held


def fixed(values: Array, bits: int, method: str) -> Array:
    """caffe_cpu_fix_pos_overflow and caffe_cpu_fix_pos_diffs, and the numbers that they lead to."""
    guard = 2 ** (bits - 1)
    step = max(values.min() / (-guard - 0.5), values.max() / (guard - 0.5))
    if step == 0:
        return values
    position = int(np.floor(np.log2(1 / step)))
    trials = [rounded(values, bits, position + i) for i in range(5 if method == "DIFF_S" else 1)]
    return trials[int(np.argmin([((values - trial) ** 2).sum() for trial in trials]))]


@pytest.mark.parametrize("method", ["DIFF_S", "OVER_FLOW"])
@pytest.mark.parametrize("kind", ["Convolution", "InnerProduct"])
def test_parameters_are_rounded_where_they_lose_least(tmp_path: Path, kind: str, method: str) -> None:
    rng = np.random.default_rng(3)
    weight = (rng.standard_t(2, (3, 2, 1, 1) if kind == "Convolution" else (3, 2)) / 3).astype(F)
    bias = np.zeros(3, F)
    param = "convolution_param { kernel_size: 1" if kind == "Convolution" else "inner_product_param {"
    layer = (
        f'layer {{ name: "l" type: "{kind}Fixed" bottom: "x" top: "y" {param} num_output: 3 }} '
        f"fixed_param {{ fixed_method: {method} bit_width: 4 }} }}\n"
    )
    x = np.eye(2, dtype=F).reshape(2, 2, 1, 1)
    path = write_net(tmp_path, {"x": x.shape}, layer)
    model = caffeconv.convert(path, write_weights(tmp_path / "w.caffemodel", "l", [weight, bias]))
    got = run_model(model, {"x": x})["y"].reshape(2, 3)
    np.testing.assert_allclose(got.T, fixed(weight.reshape(3, 2), 4, method), rtol=1e-6)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("method", ["DIFF_S", "OVER_FLOW"])
def test_neurons_in_train_go_by_the_batch(tmp_path: Path, method: str, follow: bool) -> None:
    x = (np.random.default_rng(5).standard_t(2, (4, 6)) / 3).astype(F)
    said = f"fixed_method: {method} follow_data_layer: {str(follow).lower()}"
    got = neuron(tmp_path, f"{said} }} phase: TRAIN nms_param {{", 7, x)
    np.testing.assert_allclose(got, fixed(x, 4, method), rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "complaint"),
    [
        ('type: "FixedNeuron" fixed_param { fixed_method: DIFF_S }', "no bit_width"),
        ('type: "FixedNeuron" fixed_param { bit_width: 8 }', "fixed_method is"),
        (
            'type: "InnerProductFixed" inner_product_param { num_output: 1 } '
            "fixed_param { bit_width: 8 fixed_method: DIFF_A }",
            "fixed_method is DIFF_A",
        ),
    ],
)
def test_refusals(tmp_path: Path, layer: str, complaint: str) -> None:
    path = write_net(tmp_path, {"x": (1, 2)}, f'layer {{ name: "l" bottom: "x" top: "y" {layer} }}\n')
    with pytest.raises(caffeconv.CaffeconvError, match=complaint):
        caffeconv.convert(path)
