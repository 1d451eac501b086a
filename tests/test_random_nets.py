"""Nets drawn at random: every form that caffeconv gives a net computes the same, and gradients are derivatives."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from support.random_net_checks import DisagreementError, check_net
from support.random_nets import DrawnLayer, DrawnNet, drawn


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random_nets")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(drawn(most_layers=6))
def test_random_nets(folder: Path, net: DrawnNet) -> None:
    check_net(net, folder, all_forms=False)


def test_a_disagreement_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = DrawnNet({"x": (2, 3), "z": (2, 3)}, (DrawnLayer("TanH", "", ("x",), ("y",)),), "TEST", 1, is_v1=False)
    assert check_net(net, folder)[-1] == "gradient"
    monkeypatch.setattr("support.random_net_checks.run_model", lambda model, feeds: {"y": feeds["x"]})
    with pytest.raises(DisagreementError, match="folded: y: differs by up to"):
        check_net(net, folder)
