"""Numbers of few bits: FcRistretto with the identity as its weight shows how each precision rounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, run_model, write_net, write_weights

import caffeconv


def rounded(folder: Path, said: str, x: Array, phase: str = "TEST") -> Array:
    """`x` through one weight of 1."""
    product = "inner_product_param { num_output: 1 bias_term: false weight_filler { value: 1 } }"
    layer = f'layer {{ name: "l" type: "FcRistretto" bottom: "x" top: "y" {product} {said} }}\n'
    path = write_net(folder, {"x": (x.size, 1)}, layer)
    model = caffeconv.convert(path, batch="keep", phase="TRAIN" if phase == "TRAIN" else "TEST")
    return run_model(model, {"x": x.reshape(-1, 1).astype(np.float32)})["y"].ravel()


def test_fixed_point_rounds_halves_away_from_zero_and_is_held(tmp_path: Path) -> None:
    said = "quantization_param { bw_layer_in: 4 fl_layer_in: 1 }"
    got = rounded(tmp_path, said, np.array([0.25, -0.25, 0.24, 1.3, 9, -9]))
    np.testing.assert_array_equal(got, [0.5, -0.5, 0, 1.5, 3.5, -4])


def test_mini_float_carries_saturates_and_stops_at_the_first_small_value(tmp_path: Path) -> None:
    said = "quantization_param { precision: MINIFLOAT mant_bits: 2 exp_bits: 3 }"
    # exponents -3…4; the sixth value is too small, and the last stays as it is (until what is made is rounded as well)
    got = rounded(tmp_path, said, np.array([1.0, 1.1, 1.9, -3.2, 100, 0.01, 1.1]))
    np.testing.assert_allclose(got, [1, 1, 2, -3, 28, 0, 1.1], rtol=1e-6)


def test_powers_of_2_are_for_parameters_only(tmp_path: Path) -> None:
    said = "quantization_param { precision: INTEGER_POWER_OF_2_WEIGHTS exp_max: 0 }"
    values = np.array([0.3, -1.7], np.float32)
    np.testing.assert_array_equal(rounded(tmp_path, said, values), values)


def test_who_reads_the_bottom_later_sees_it_rounded(tmp_path: Path) -> None:
    layers = """
    layer { name: "first" type: "Power" bottom: "x" top: "first" }
    layer { name: "row" type: "Flatten" bottom: "x" top: "row" }
    layer { name: "l" type: "FcRistretto" bottom: "row" top: "y" inner_product_param { num_output: 1 }
            quantization_param { bw_layer_in: 4 fl_layer_in: 1 } }
    layer { name: "then" type: "Power" bottom: "x" top: "then" power_param { scale: 2 } }
    """
    x = np.array([0.25, 1.3, 9], np.float32).reshape(1, 3, 1)
    path = write_net(tmp_path, {"x": x.shape}, layers)
    got = run_model(caffeconv.convert(path, batch="keep"), {"x": x})
    np.testing.assert_array_equal(got["first"], x)
    np.testing.assert_array_equal(got["then"].ravel(), [1, 3, 7])
    net = caffeconv.Net(path)
    net.forward(x=x)
    np.testing.assert_array_equal(net.blobs["x"].data.ravel(), [0.5, 1.5, 3.5])  # Flatten's memory is x's


@pytest.mark.parametrize(
    ("said", "phase", "complaint"),
    [
        ("", "TEST", "no quantization_param"),
        ("quantization_param { }", "TRAIN", "known in TEST only"),
        ("quantization_param { rounding_scheme: STOCHASTIC }", "TEST", "draws numbers"),
        ("quantization_param { fl_params: 3 fl_params: 4 }", "TEST", "Intel's fork"),
    ],
)
def test_refusals(tmp_path: Path, said: str, phase: str, complaint: str) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match=complaint):
        rounded(tmp_path, said, np.ones(2, np.float32), phase)


def test_a_bias_is_no_power_of_2(tmp_path: Path) -> None:
    text = """layer { name: "l" type: "FcRistretto" bottom: "x" top: "y" inner_product_param { num_output: 2 }
        quantization_param { precision: INTEGER_POWER_OF_2_WEIGHTS exp_min: -3 exp_max: 0 } }"""
    weights = write_weights(tmp_path / "w.caffemodel", "l", [np.array([[0.3], [-1.7]]), np.array([0.3, -1.7])])
    x = np.ones((1, 1), np.float32)
    model = caffeconv.convert(write_net(tmp_path, {"x": x.shape}, text), weights)
    np.testing.assert_allclose(run_model(model, {"x": x})["y"], [[0.25 + 0.3, -1 - 1.7]], rtol=1e-6)
