"""Fillers: constant ones exactly, random ones by their statistics; in parameters and in DummyData alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, run_model, write_net

import caffeconv

SHAPE = (40, 30, 7, 7)
FAN_IN, FAN_OUT = 30 * 49, 40 * 49
CASES = [
    ('type: "constant" value: 3', 3, 0, 3, 3),
    ('type: "uniform" min: -1 max: 3', 1, 4 / 12**0.5, -1, 3),
    ('type: "gaussian" mean: 2 std: 0.5', 2, 0.5, None, None),
    ('type: "gaussian" std: 1 sparse: 10', 0, 0.25**0.5, None, None),
    ('type: "xavier"', 0, (1 / FAN_IN) ** 0.5, -((3 / FAN_IN) ** 0.5), (3 / FAN_IN) ** 0.5),
    ('type: "xavier" variance_norm: FAN_OUT', 0, (1 / FAN_OUT) ** 0.5, -((3 / FAN_OUT) ** 0.5), (3 / FAN_OUT) ** 0.5),
    ('type: "msra" variance_norm: AVERAGE', 0, (4 / (FAN_IN + FAN_OUT)) ** 0.5, None, None),
    ('type: "msra" alpha: 0.5', 0, (2 / FAN_IN / 1.25) ** 0.5, None, None),
    ('type: "positive_unitball"', 1 / FAN_IN, (1 / 3) ** 0.5 / FAN_IN, 0, None),
]


def dummy(folder: Path, filler: str) -> Array:
    dims = " ".join(f"dim: {dim}" for dim in SHAPE)
    param = f"shape {{ {dims} }} data_filler {{ {filler} }}"
    layer = f'layer {{ name: "d" type: "DummyData" top: "y" dummy_data_param {{ {param} }} }}'
    return run_model(caffeconv.convert(write_net(folder, {}, layer)), {})["y"]


def weight(folder: Path, filler: str) -> Array:
    layer = (
        'layer { name: "c" type: "Convolution" bottom: "x" top: "y" '
        f"convolution_param {{ num_output: {SHAPE[0]} kernel_size: 7 weight_filler {{ {filler} }} }} }}"
    )
    return caffeconv.Net(write_net(folder, {"x": (1, *SHAPE[1:])}, layer), seed=3).params["c"][0].data


@pytest.mark.parametrize(("filler", "mean", "deviation", "low", "high"), CASES)
@pytest.mark.parametrize("make", [dummy, weight])
def test_statistics(
    tmp_path: Path, make: object, filler: str, mean: float, deviation: float, low: float | None, high: float | None
) -> None:
    assert callable(make)
    values = make(tmp_path, filler)
    assert values.shape == SHAPE
    spread = deviation or 1e-6
    assert abs(values.mean() - mean) < 5 * spread / values.size**0.5 + 1e-6
    assert abs(values.std() - deviation) < 0.03 * spread + 1e-6
    assert low is None or values.min() >= low - 1e-6
    assert high is None or values.max() <= high + 1e-6
    if "unitball" in filler:
        np.testing.assert_allclose(values.reshape(SHAPE[0], -1).sum(axis=1), 1, rtol=1e-4)


def test_a_seed_gives_the_same_weights(tmp_path: Path) -> None:
    np.testing.assert_array_equal(weight(tmp_path, 'type: "xavier"'), weight(tmp_path, 'type: "xavier"'))


def test_each_pass_draws_anew(tmp_path: Path) -> None:
    layer = (
        'layer { name: "d" type: "DummyData" top: "y" '
        'dummy_data_param { shape { dim: 9 } data_filler { type: "gaussian" } } }'
    )
    net = caffeconv.Net(write_net(tmp_path, {}, layer))
    assert not np.array_equal(net.forward()["y"].copy(), net.forward()["y"])


def test_an_unknown_filler_is_refused(tmp_path: Path) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match="Unknown filler name: guassian"):
        dummy(tmp_path, 'type: "guassian"')
