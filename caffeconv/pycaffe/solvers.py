"""Caffe's solvers, which train nets: none is supported, and making one raises TrainingError."""

from __future__ import annotations

from typing import NoReturn

from caffeconv.files.atomic import PathLike
from caffeconv.pycaffe.errors import TrainingError


def get_solver(solver_file: PathLike) -> NoReturn:
    """Raises TrainingError."""
    raise TrainingError(
        f"{solver_file}: caffeconv runs trained nets and does not train them. Net.forward and Net.backward give Caffe's "
        "losses and gradients; to train, convert the net (caffeconv convert) and go on in a training framework"
    )


class SGDSolver:
    """Raises TrainingError when made."""

    def __init__(self, solver_file: PathLike) -> None:
        get_solver(solver_file)


class NesterovSolver(SGDSolver):
    """As SGDSolver."""


class AdaGradSolver(SGDSolver):
    """As SGDSolver."""


class RMSPropSolver(SGDSolver):
    """As SGDSolver."""


class AdaDeltaSolver(SGDSolver):
    """As SGDSolver."""


class AdamSolver(SGDSolver):
    """As SGDSolver."""
