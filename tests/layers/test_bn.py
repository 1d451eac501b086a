"""Batch normalisation of forks whose layouts only the weights file tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.golden_cases import forward
from support.small_nets import Array, write_net, write_weights

import caffeconv

F = np.float32
CHANNELS = 3


def normed(folder: Path, layer: str, x: Array, blobs: list[Array]) -> Array:
    text = f'layer {{ name: "l" bottom: "x" top: "y" {layer} }}'
    weights = write_weights(folder / "w.caffemodel", "l", blobs)
    return forward(caffeconv.Net(write_net(folder, {"x": x.shape}, text), weights), {"x": x})["y"]


def drawn(*shape: int, channels: int = CHANNELS) -> tuple[Array, list[Array]]:
    """x, and four vectors of that shape: scale, bias, mean, variance."""
    rng = np.random.default_rng(0)
    vectors: list[Array] = [rng.uniform(0.5, 2, shape or (channels,)).astype(F) for _ in range(4)]
    x: Array = rng.normal(size=(2, channels, 2, 2)).astype(F)
    return x, vectors


def expected(x: Array, vectors: list[Array], eps: float) -> Array:
    scale, bias, mean, variance = (vector.reshape(-1, 1, 1) for vector in vectors)
    y: Array = (x - mean) / np.sqrt(variance + F(eps)) * scale + bias
    return y


COUNTER = np.array([7], F)


@pytest.mark.parametrize("fields", ["", "batch_norm_param { scale_filler { value: 1 } }"])
@pytest.mark.parametrize("shape", [(3,), (1, 3, 1, 1)])
def test_blobs_of_nvidias_015(tmp_path: Path, fields: str, shape: tuple[int, ...]) -> None:
    x, vectors = drawn(*shape)
    got = normed(tmp_path, f'type: "BatchNorm" {fields}', x, [*vectors, COUNTER])
    np.testing.assert_allclose(got, expected(x, vectors, 1e-5), rtol=1e-4, atol=1e-5)


def test_one_channel_with_fillers_is_nvidias_016(tmp_path: Path) -> None:
    x, vectors = drawn(channels=1)
    scale, bias, mean, variance = vectors
    fields = 'type: "BatchNorm" batch_norm_param { scale_filler { value: 1 } }'
    got = normed(tmp_path, fields, x, [mean, variance, COUNTER, scale, bias])
    np.testing.assert_allclose(got, expected(x, vectors, 1e-5), rtol=1e-4, atol=1e-5)


def test_one_channel_without_fields_is_nvidias_015(tmp_path: Path) -> None:
    x, vectors = drawn(channels=1)
    got = normed(tmp_path, 'type: "BatchNorm"', x, [*vectors, COUNTER])
    np.testing.assert_allclose(got, expected(x, vectors, 1e-5), rtol=1e-4, atol=1e-5)


def test_four_blobs_make_a_bn_without_fields_pspnets(tmp_path: Path) -> None:
    x, vectors = drawn()
    np.testing.assert_allclose(
        normed(tmp_path, 'type: "BN"', x, vectors), expected(x, vectors, 1e-5), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("fields", "momentum"),
    [
        ("momentum: 0.75", 0.75),
        ("frozen: false", 0.9),
        ("frozen: true", 1),
        ("decay: 0.7", 0.3),
        ("sync_forward: true", 0.95),
    ],
)
def test_training_moves_pspnets_averages(tmp_path: Path, fields: str, momentum: float) -> None:
    x, vectors = drawn()
    weights = write_weights(tmp_path / "w.caffemodel", "l", vectors)
    text = f'layer {{ name: "l" type: "BN" bottom: "x" top: "y" bn_param {{ {fields} }} }}'
    net = caffeconv.Net(write_net(tmp_path, {"x": x.shape}, text), weights, phase="TRAIN")
    mean, variance = (vector.astype(np.float64) for vector in vectors[2:])
    for number in (1, 2):
        batch = number * x
        net.forward(x=batch)
        mean = momentum * mean + (1 - momentum) * batch.mean(axis=(0, 2, 3))
        variance = momentum * variance + (1 - momentum) * batch.var(axis=(0, 2, 3))
        for blob, expected_values in zip(net.params["l"], (*vectors[:2], mean, variance), strict=True):
            np.testing.assert_allclose(blob.data.ravel(), expected_values, 1e-5)
    assert net.params["l"][2].data.shape == (1, CHANNELS, 1, 1)


@pytest.mark.parametrize(
    ("fields", "eps", "of_batch"),
    [
        ("scale_filler { } shift_filler { }", 1e-10, False),  # the four blobs tell
        ("scale_filler { } var_eps: 0.5", 0.5, False),
        ("var_eps: 0.5 moving_average: false", 0.5, True),
        ("slope_filler { } moving_average: true", 1e-5, False),
    ],
)
def test_averages_of_other_forks(tmp_path: Path, fields: str, eps: float, of_batch: bool) -> None:
    x, vectors = drawn()
    statistics = [x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))] if of_batch else vectors[2:]
    got = normed(tmp_path, f'type: "BN" bn_param {{ {fields} }}', x, vectors)
    np.testing.assert_allclose(got, expected(x, [*vectors[:2], *statistics], eps), rtol=1e-4, atol=1e-5)


def test_two_blobs_make_a_bn_without_fields_ndsbs(tmp_path: Path) -> None:
    x, vectors = drawn()
    statistics = [x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))]
    got = normed(tmp_path, 'type: "BN"', x, vectors[:2])
    np.testing.assert_allclose(got, expected(x, [*vectors[:2], *statistics], 1e-9), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fold", [False, True])
def test_eps_after_the_root_folds_alike(tmp_path: Path, fold: bool) -> None:
    layers = """layer { name: "c" type: "Convolution" bottom: "x" top: "c"
        convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "l" type: "BatchNorm" bottom: "c" top: "y" batch_norm_param { eps: 0.5 add_eps_before_sqrt: false } }
"""
    x, (_, _, mean, variance) = drawn()
    weights = write_weights(tmp_path / "w.caffemodel", "l", [mean, variance, np.ones(1, F)])
    net = caffeconv.Net(write_net(tmp_path, {"x": x.shape}, layers), weights)
    middle = forward(net, {"x": x}, ["c", "y"])
    deviation = np.sqrt(variance).reshape(-1, 1, 1) + F(0.5)
    np.testing.assert_allclose(middle["y"], (middle["c"] - mean.reshape(-1, 1, 1)) / deviation, rtol=1e-4, atol=1e-5)
    model = caffeconv.convert(write_net(tmp_path, {"x": x.shape}, layers), weights, fold=fold)
    assert [node.op_type for node in model.graph.node] == (["Conv"] if fold else ["Conv", "Sub", "Div"])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ('type: "BN" bn_param { bn_mode: INFERENCE } top: "m"', "INFERENCE makes 1"),
        ('type: "BN" bn_param { frozen: true } top: "m"', "produces 1 top blob(s)"),
        ('type: "BN" bn_param { var_eps: 1 } top: "m"', "produces 1 top blob(s)"),
        ('type: "BN" bn_param { var_eps: 1 axis: 2 }', "axis is 2"),
        ('type: "BN" bn_param { slope_filler { } moving_average: false }', "fields of one fork's BN"),
        ('type: "BatchNorm" batch_norm_param { scale_bias: true add_eps_before_sqrt: false }', "NVIDIA's"),
    ],
)
def test_refused(tmp_path: Path, layer: str, message: str) -> None:
    text = f'layer {{ name: "l" bottom: "x" top: "y" {layer} }}'
    with pytest.raises(caffeconv.CaffeconvError) as refusal:
        caffeconv.Net(write_net(tmp_path, {"x": (1, 2, 3, 3)}, text))
    assert message in str(refusal.value)
