"""Learning rates, and what Caffe refuses; every recorded policy is in test_solver.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffeconv.errors import InvalidNetError
from caffeconv.training.learning_rate import rate_at
from caffeconv.training.solver_file import SolverFile, read_solver


def solver(tmp_path: Path, fields: str) -> SolverFile:
    path = tmp_path / "solver.prototxt"
    path.write_text(f'net: "n.prototxt"\nbase_lr: 0.5\nmax_iter: 10\n{fields}\n')
    return read_solver(path)


@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        ('lr_policy: "fixed"', [0.5] * 4),
        ('lr_policy: "step" gamma: 0.1 stepsize: 2', [0.5, 0.5, 0.05, 0.05]),
        ('lr_policy: "exp" gamma: 0.5', [0.5, 0.25, 0.125, 0.0625]),
        ('lr_policy: "inv" gamma: 1 power: 2', [0.5, 0.125, 0.5 / 9, 0.5 / 16]),
        ('lr_policy: "multistep" gamma: 0.1 stepvalue: 1 stepvalue: 1', [0.5, 0.05, 0.005, 0.005]),
        ('lr_policy: "poly" power: 1', [0.5, 0.45, 0.4, 0.35]),
        ('lr_policy: "sigmoid" gamma: 0 stepsize: 2', [0.25] * 4),
    ],
)
def test_policies(tmp_path: Path, fields: str, rates: list[float]) -> None:
    file, step, values = solver(tmp_path, fields), 0, []
    for iteration in range(4):
        rate = rate_at(file, iteration, step)
        step = rate.step
        values.append(rate.value)
    assert values == pytest.approx(rates, rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('lr_policy: "cosine"', r"solver\.prototxt, line 4: Unknown learning rate policy: cosine; one of fixed, step"),
        ("", "Unknown learning rate policy: ;"),
        (
            'lr_policy: "step" gamma: 0.1',
            r"stepsize is 0; policy step needs .* Check failed: this->param_.stepsize\(\) > 0",
        ),
        ('lr_policy: "exp" gamma: -0.5', r"gamma is -0.5; at least 0 .* this->param_.gamma\(\) >= 0 \(-0.5 vs. 0\)"),
    ],
)
def test_what_caffe_refuses(tmp_path: Path, fields: str, message: str) -> None:
    with pytest.raises(InvalidNetError, match=message):
        rate_at(solver(tmp_path, fields), 0, 0)
