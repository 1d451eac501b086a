"""A solver in short."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffeconv.errors import InvalidNetError
from caffeconv.training.explanation import explain_solver

CASES = Path(__file__).parents[2] / "fixtures" / "solvers"


@pytest.fixture(autouse=True)
def _in_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES / "resume")


def test_nets_rates_and_passes() -> None:
    explanation = explain_solver(Path("solver.prototxt"))
    assert [iteration for iteration, _ in explanation.rates] == [0, 3, 7]
    assert [rate for _, rate in explanation.rates] == pytest.approx([0.1, 0.05, 0.025])
    (data,) = explanation.train.data
    assert (data.items, data.batch) == (4, 4)
    assert explanation.train.learned > 0
    assert not explanation.tests


def test_frozen_layers_and_test_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES / "lr_mult_0")
    assert explain_solver(Path("solver.prototxt")).train.frozen > 0
    monkeypatch.chdir(CASES / "test_net")
    (test,) = explain_solver(Path("solver.prototxt")).tests
    assert test.passes == 3


def test_faults_of_the_policy_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES / "error_unknown_policy")
    with pytest.raises(InvalidNetError, match="cosine"):
        explain_solver(Path("solver.prototxt"))
