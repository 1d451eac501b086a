"""Caffe's solvers as pycaffe has them (caffe: _caffe.cpp)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from caffeconv.caffe_format.prototxt import NetSource
from caffeconv.files.atomic import PathLike
from caffeconv.frontend.options import NetOptions
from caffeconv.net import net as caffeconv_net
from caffeconv.pycaffe import mode
from caffeconv.pycaffe.net import Net
from caffeconv.runtime.providers import ComputeOptions
from caffeconv.training.solver import Solver
from caffeconv.training.solver_file import SolverFile, read_solver


@dataclass(frozen=True)
class SolverParameter:
    """What pycaffe tells of a solver's file."""

    max_iter: int
    display: int
    layer_wise_reduce: bool
    base_lr: float


class SGDSolver:
    """A solver with its nets; `step` and `solve` train `net`.

    solver_file: its type is taken to be that of the class, whatever the file says. Modules of Python layers may come from
    where Python itself looks, as in Caffe. output_dir: the folder that HDF5Output layers may write in; None: nowhere.

    Raises CaffeconvError with everything that is wrong with the file, the nets or their weights.
    """

    _type = "SGD"

    def __init__(self, solver_file: PathLike, *, output_dir: PathLike | None = None) -> None:
        self._open(read_solver(solver_file, kind=self._type), output_dir)

    def _open(self, file: SolverFile, output_dir: PathLike | None = None) -> None:
        current = mode.current()
        seed = file.random_seed if file.random_seed >= 0 else current.seed
        compute = ComputeOptions(current.provider, None, nhwc=False, half=False)

        def make_net(source: NetSource, options: NetOptions) -> Net:
            return Net.of_source(
                source, replace(options, allow_python="path", seed=seed, output_dir=output_dir), compute
            )

        self._solver: Solver[Net] = Solver(file, make_net)

    @property
    def net(self) -> Net:
        """The net that is trained."""
        return self._solver.net

    @property
    def test_nets(self) -> Sequence[Net]:
        """The nets that are tested; they share the trained net's parameters from the first test on."""
        return self._solver.test_nets

    @property
    def iter(self) -> int:
        """How many iterations were made."""
        return self._solver.iter

    @property
    def lr(self) -> float:
        """The learning rate of the next iteration."""
        return self._solver.lr

    @property
    def max_iter(self) -> int:
        return self._solver.file.max_iter

    @property
    def param(self) -> SolverParameter:
        """What the file says."""
        file = self._solver.file
        return SolverParameter(file.max_iter, file.display, file.layer_wise_reduce, file.base_lr)

    def step(self, n: int) -> None:
        """Makes n iterations, with the tests and snapshots that fall among them."""
        self._solver.step(int(n))

    def solve(self, resume_file: PathLike | None = None) -> None:
        """Trains to max_iter, from a .solverstate where one is given, and writes a snapshot at the end."""
        self._solver.solve(None if resume_file is None else str(resume_file))

    def snapshot(self) -> None:
        """Writes the weights and the solver's state, named after snapshot_prefix."""
        self._solver.snapshot()

    def restore(self, state_file: PathLike) -> None:
        """Goes on from a .solverstate; raises CaffeconvError where it does not fit."""
        self._solver.restore(str(state_file))

    def add_callback(self, on_start: Callable[[], object], on_gradients_ready: Callable[[], object]) -> None:
        """Adds functions that each iteration calls: before its passes, and before the update by the params' diffs."""
        self._solver.add_callback(on_start, on_gradients_ready)

    def apply_update(self) -> None:
        """Changes the parameters by their diffs, as the next iteration would."""
        self._solver.apply_update()

    def share_weights(self, net: caffeconv_net.Net) -> None:
        """Makes the trained net hold another one's parameters."""
        self._solver.net.share_with(net)


class NesterovSolver(SGDSolver):
    """As SGDSolver, with Nesterov's momentum."""

    _type = "Nesterov"


class AdaGradSolver(SGDSolver):
    """As SGDSolver, with AdaGrad."""

    _type = "AdaGrad"


class RMSPropSolver(SGDSolver):
    """As SGDSolver, with RMSProp."""

    _type = "RMSProp"


class AdaDeltaSolver(SGDSolver):
    """As SGDSolver, with AdaDelta."""

    _type = "AdaDelta"


class AdamSolver(SGDSolver):
    """As SGDSolver, with Adam."""

    _type = "Adam"


def get_solver(solver_file: PathLike) -> SGDSolver:
    """The solver of the type that the file names. Raises as SGDSolver."""
    file = read_solver(solver_file)
    kinds = (SGDSolver, NesterovSolver, AdaGradSolver, RMSPropSolver, AdaDeltaSolver, AdamSolver)
    kind = next(kind for kind in kinds if kind._type == file.type)
    solver = kind.__new__(kind)
    solver._open(file)
    return solver
