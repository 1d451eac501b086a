"""The learning rate of each iteration (caffe: SGDSolver::GetLearningRate)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caffeconv.errors import Diagnostic, InvalidNetError
from caffeconv.training.solver_file import SolverFile, policy_faults


@dataclass(frozen=True)
class Rate:
    """An iteration's learning rate, and the step that it stands at."""

    value: float
    """float32's value."""
    step: int
    """Of `step` and `multistep`, from 0; it is part of a snapshot."""


def rate_at(solver: SolverFile, iteration: int, step: int) -> Rate:
    """The rate of an iteration. step: that of the iteration before.

    `multistep` rises by at most one step an iteration, whatever the values. Raises InvalidNetError for a policy that Caffe
    does not know, or numbers that it refuses.
    """
    check_policy(solver)
    base, gamma = np.float32(solver.base_lr), np.float32(solver.gamma)
    one, count = np.float32(1), np.float32(iteration)
    if solver.lr_policy == "step":
        step = iteration // solver.stepsize
    if solver.lr_policy == "multistep" and step < len(solver.stepvalues) and iteration >= solver.stepvalues[step]:
        step += 1
    with np.errstate(all="ignore"):
        factor = {
            "fixed": lambda: one,
            "step": lambda: gamma ** np.float32(step),
            "exp": lambda: gamma**count,
            "inv": lambda: (one + gamma * count) ** np.float32(-solver.power),
            "multistep": lambda: gamma ** np.float32(step),
            "poly": lambda: (one - count / np.float32(solver.max_iter)) ** np.float32(solver.power),
            "sigmoid": lambda: one / (one + np.exp(-gamma * (count - np.float32(solver.stepsize)))),
        }[solver.lr_policy]()
        return Rate(float(np.float32(base * factor)), step)


def check_policy(solver: SolverFile) -> None:
    """Raises InvalidNetError for what Caffe refuses when it first asks for the rate."""
    problems = [Diagnostic("error", solver.where(name), message) for name, message in policy_faults(solver)]
    if problems:
        raise InvalidNetError(problems)
