"""Nets drawn at random: every form that caffeconv gives a net computes the same, and gradients are derivatives."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from support.random_layers import DrawnInput, DrawnLayer
from support.random_net_checks import DisagreementError, check_net
from support.random_nets import DrawnNet, drawn


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random_nets")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(drawn(most_layers=6))
def test_random_nets(folder: Path, net: DrawnNet) -> None:
    check_net(net, folder, all_forms=False)


MEANFIELD = "multi_stage_meanfield_param { theta_alpha: 1 theta_beta: 1 theta_gamma: 1 num_iterations: 1 }"
PLANES = DrawnInput((1, 2, 4, 3))
ONCE_WRONG: dict[str, tuple[dict[str, DrawnInput], tuple[DrawnLayer, ...]]] = {
    "a blob that shares the memory of one whose size follows from values": (
        {"x": DrawnInput((3, 4)), "s": DrawnInput((3, 1), "whole", 2)},
        (
            DrawnLayer("Filter", "", ("x", "s"), ("kept",)),
            DrawnLayer("Split", "", ("kept",), ("a", "b")),
            DrawnLayer("Reshape", "reshape_param { shape { dim: -1 dim: 2 dim: 2 } }", ("a",), ("c",)),
        ),
    ),
    "a shared parameter called as a value of its first layer": (
        {name: DrawnInput((2, 3, 2, 2)) for name in "xz"},
        tuple(
            DrawnLayer("MultiStageMeanfield", MEANFIELD, (x, "x", "z"), (f"y_{x}",), ("s", "b", "c")) for x in "xz"
        ),
    ),
    "axes of a blob that has none": (
        {"x": DrawnInput(())},
        (
            DrawnLayer("Transpose", "", ("x",), ("t",)),
            DrawnLayer("ReduceMax", "reduce_max_param { keepdims: true }", ("t",), ("r",)),
            DrawnLayer("Pad", "pad_param { constant_values: 1 }", ("r",), ("y",)),
        ),
    ),
    "nearest places of a plane that was cut first": (
        {"x": PLANES},
        (DrawnLayer("Interp", "interp_param { full_zoom_factor: 2 pad_beg: -1 mode: NEAREST }", ("x",), ("y",)),),
    ),
    "cubic places that are fewer, channels last": (
        {"x": PLANES},
        (DrawnLayer("ImResize", "imresize_param { target_spatial_height: 3 target_spatial_width: 2 }", ("x",), ("y",)),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ONCE_WRONG)
def test_what_was_once_wrong(folder: Path, case: str) -> None:
    inputs, layers = ONCE_WRONG[case]
    assert "channels last" in check_net(DrawnNet(inputs, layers, "TEST", 330), folder)


def test_a_disagreement_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = DrawnNet({"x": DrawnInput((2, 3))}, (DrawnLayer("TanH", "", ("x",), ("y",)),), "TEST", 1)
    assert check_net(net, folder)[-1] == "gradient"
    monkeypatch.setattr("support.random_net_checks.run_model", lambda model, feeds: {"y": feeds["x"]})
    with pytest.raises(DisagreementError, match="folded: y: differs by up to"):
        check_net(net, folder)
