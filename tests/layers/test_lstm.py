"""Lstm against a slow loop written from the forks' rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.golden_cases import forward
from support.small_nets import Array, run_net, write_net, write_weights

import caffeconv

F = np.float32
Doubles = NDArray[np.float64]


def sigmoid(x: Doubles) -> Doubles:
    y: Doubles = 1 / (1 + np.exp(-x))
    return y


def slow(
    x: Array, weights: list[Array], follows: Array, states: tuple[Doubles, Doubles]
) -> tuple[Doubles, Doubles, Doubles]:
    """x steps × items × inputs, follows steps × items → outputs and the last states."""
    w_x, w_h, b = (values.astype(np.float64) for values in weights)
    (h, c), outputs = states, []
    for now, goes_on in zip(x, follows[..., None], strict=True):
        i, f, o, g = np.split(now @ w_x.T + b + (h * goes_on) @ w_h.T, 4, axis=-1)
        c = sigmoid(f) * goes_on * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs), h, c


def drawn(steps: int, items: int, inputs: int, size: int) -> tuple[Array, list[Array]]:
    rng = np.random.default_rng(0)
    shapes = (4 * size, inputs), (4 * size, size), (4 * size,)
    return rng.normal(size=(steps, items, inputs)).astype(F), [rng.normal(0, 0.5, shape).astype(F) for shape in shapes]


def zeros(items: int, size: int) -> tuple[Doubles, Doubles]:
    return np.zeros((items, size)), np.zeros((items, size))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((4, 3, 5), ""), ((4, 3, 5, 1), ""), ((12, 5), "batch_size: 3"), ((12, 5, 1, 1), "batch_size: 3"),
        ((4, 3, 5), "batch_size: 7"),
    ],
)  # fmt: skip
def test_both_forms(tmp_path: Path, shape: tuple[int, ...], said: str) -> None:
    x, weights = drawn(4, 3, 5, 2)
    file = write_weights(tmp_path / "w.caffemodel", "l", weights)
    layer = f'layer {{ name: "l" type: "Lstm" bottom: "x" top: "y" lstm_param {{ num_output: 2 {said} }} }}'
    got = run_net(tmp_path, layer, {"x": x.reshape(shape)}, weights=file)["y"]
    want = slow(x, weights, np.ones((4, 3), F), zeros(3, 2))[0]
    assert got.shape == ((4, 3, 2) if shape[0] == 4 else (12, 2))
    np.testing.assert_allclose(got.reshape(want.shape), want, rtol=1e-4, atol=1e-5)


def test_state_goes_on_from_pass_to_pass_with_an_indicator(tmp_path: Path) -> None:
    x, weights = drawn(4, 2, 3, 2)
    file = write_weights(tmp_path / "w.caffemodel", "l", weights)
    layer = 'layer { name: "l" type: "Lstm" bottom: "x" bottom: "on" top: "y" lstm_param { num_output: 2 } }'
    net = caffeconv.Net(write_net(tmp_path, {"x": x.shape, "on": (4, 2)}, layer), file)
    numbers = np.array([1, 1, 0, 1, 1, 0, 1, 1], F)
    follows = numbers[np.arange(4)[:, None] + np.arange(2)]
    h, c = zeros(2, 2)
    for _ in range(3):
        want, h, c = slow(x, weights, follows, (h, c))
        got = forward(net, {"x": x, "on": numbers.reshape(4, 2)})["y"]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_lstm_with_recurrent_param_is_caffes(tmp_path: Path) -> None:
    layer = 'layer { name: "l" type: "Lstm" bottom: "x" bottom: "on" top: "y" recurrent_param { num_output: 2 } }'
    report = caffeconv.inspect(write_net(tmp_path, {"x": (4, 1, 3), "on": (4, 1)}, layer))
    assert report.ok
    assert report.params["l"] == [(8, 3), (8,), (8, 2)]


@pytest.mark.parametrize(
    ("said", "inputs", "message"),
    [
        ("", {"x": (4, 1, 3)}, "num_output must be positive"),
        ("num_output: 2 batch_size: 0", {"x": (4, 3)}, "batch_size is 0"),
        ("num_output: 2 batch_size: 3", {"x": (4, 3)}, "a multiple of 3 items was needed"),
        ("num_output: 2", {"x": (4,)}, "at least 2 axes were needed"),
        ("num_output: 2", {"x": (4, 2, 3), "on": (4,)}, "8 numbers were needed"),
    ],
)
def test_refused(tmp_path: Path, said: str, inputs: dict[str, tuple[int, ...]], message: str) -> None:
    bottoms = "".join(f' bottom: "{name}"' for name in inputs)
    layer = f'layer {{ name: "l" type: "Lstm" top: "y"{bottoms} lstm_param {{ {said} }} }}'
    with pytest.raises(caffeconv.CaffeconvError) as refusal:
        caffeconv.Net(write_net(tmp_path, inputs, layer))
    assert message in str(refusal.value)
