"""A solver's file given to `inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from caffeconv.cli import main

CASES = Path(__file__).parents[2] / "fixtures" / "solvers"


def test_a_solver_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES / "test_net")
    result = CliRunner().invoke(main, ["inspect", "solver.prototxt"])
    assert result.exit_code == 0
    for line in ("solver.prototxt: SGD, 10 iterations", "  3 passes every 4 iterations", "  from iteration 0: 0.1"):
        assert line in result.stdout.splitlines()
    facts = json.loads(CliRunner().invoke(main, ["inspect", "solver.prototxt", "--json"]).stdout)
    assert facts["train"]["data"][0]["items"] > 0
    assert facts["tests"][0]["passes"] == 3


def test_a_solver_that_is_wrong_still_leads_to_its_net(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text('net: "train_val.prototxt" test_iter: 100 base_lr: 0.01 lr_policy: "fixed" max_iter: 4000')
    result = CliRunner().invoke(main, ["inspect", str(path)])
    assert result.exit_code == 1
    assert "a solver; its net is train_val.prototxt\n" in str(result.exception) + result.stderr
