"""Trains a net as Caffe's solver does: iterations, tests, snapshots (caffe: solver.cpp, sgd_solver.cpp)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np

from caffeconv.caffe_format.prototxt import NetSource
from caffeconv.emit.training_step import Learning
from caffeconv.errors import CaffeconvError
from caffeconv.frontend.options import NetOptions
from caffeconv.net.net import Net
from caffeconv.tensor.shape import FloatArray
from caffeconv.training.events import Event, Iteration, LogLine, NetTest, Note, Output, Snapshot
from caffeconv.training.learning_rate import Rate, rate_at
from caffeconv.training.smoothed_loss import SmoothedLoss
from caffeconv.training.solver_file import SolverFile, SolverNet, open_net
from caffeconv.training.solver_state import STATE_SUFFIX, SolverState, check_history, read_state, write_state
from caffeconv.training.update_rules import RULES

NetType = TypeVar("NetType", bound=Net)
Action = Literal["snapshot", "stop"]


@dataclass(frozen=True)
class Callback:
    """Called in each iteration: before its passes, and between these and the update, which goes by the params' diffs."""

    on_start: Callable[[], object]
    on_gradients_ready: Callable[[], object]


def _no_action() -> Action | None:
    return None


def _say_nothing(event: Event) -> None:
    pass


class Solver(Generic[NetType]):
    """A solver and its nets.

    Args:
        file: what the solver's file says.
        make_net: makes a net that was read, in a NetState.
        report: told of everything that Caffe's log has.
        next_action: asked after each iteration, and before each pass of a test, what somebody has requested meanwhile.

    Raises:
        CaffeconvError: whatever is wrong with the nets or their weights.
    """

    def __init__(
        self, file: SolverFile, make_net: Callable[[NetSource, NetOptions], NetType],
        report: Callable[[Event], object] = _say_nothing, next_action: Callable[[], Action | None] = _no_action,
    ) -> None:  # fmt: skip
        self.file = file
        self.iter = 0
        """How many iterations were made."""
        self.callbacks: list[Callback] = []
        self.stopped = False
        """Whether somebody has requested a stop."""
        self._report = report
        self._next_action = next_action
        self._make_net = make_net
        self._current_step = 0
        self._restored_states: tuple[Mapping[str, FloatArray], ...] = ()
        self._rule = RULES[file.type](file)
        self._say("solver.cpp:44", "Initializing solver from parameters:")
        self.net: NetType = self._open(file.train_net, f"Creating {file.train_net.words}")
        self.test_nets: list[NetType] = [
            self._open(net, f"Creating test net (#{i}) specified by {net.words}")
            for i, net in enumerate(file.test_nets)
        ]
        self._say("solver.cpp:56", "Solver scaffolding done.")
        learning = Learning(self._rule, file.iter_size, file.clip, file.weight_decay, file.regularization)
        self._stepper = self.net.stepper(learning)
        self._outputs = sorted(self.net.outputs)  # caffe: Net::Init takes them from a set
        self._loss_weights = {blob: weight for blob, weight in self.net.blob_loss_weights.items() if weight}
        self._losses = SmoothedLoss(file.average_loss)
        self._shown_at = time.monotonic()
        self._shown_iteration = 0

    def _open(self, net: SolverNet, words: str) -> NetType:
        self._say("solver.cpp:87" if net.phase == "TRAIN" else "solver.cpp:172", words)
        made = self._make_net(*open_net(net, self.file.path))
        for name in self.file.weights:
            self._say("solver.cpp:65", f"Finetuning from {name}")
            if not Path(name).exists():
                raise CaffeconvError(f"{self.file.where('weights')}: Couldn't open {name}: there is no such file")
            made.copy_from(name)
        return made

    def _say(self, source: str, text: str) -> None:
        self._report(Note(LogLine(source, text)))

    # -- learning rate -------------------------------------------------------------------------------------------------

    @property
    def lr(self) -> float:
        """The learning rate of the next iteration."""
        return self._rate().value

    def _rate(self) -> Rate:
        return rate_at(self.file, self.iter, self._current_step)

    # -- iterations ----------------------------------------------------------------------------------------------------

    def solve(self, resume_file: str | None = None, *, last: int | None = None) -> None:
        """Trains from here to max_iter, or until somebody requests a stop, with tests and snapshots as the file says.

        last: the iteration to end at, instead of max_iter. Raises CaffeconvError as `step`, `restore` and `snapshot`.
        """
        self._say("solver.cpp:272", f"Solving {self.net.name}")
        self._say("solver.cpp:273", f"Learning Rate Policy: {self.file.lr_policy}")
        self.stopped = False
        if resume_file is not None:
            self._say("solver.cpp:278", f"Restoring previous solver status from {resume_file}")
            self.restore(resume_file)
        start = self.iter
        self.step((self.file.max_iter if last is None else last) - self.iter)
        if self.file.snapshot_after_train and (not self.file.snapshot or self.iter % self.file.snapshot):
            self.snapshot()
        if self.stopped:
            self._say("solver.cpp:295", "Optimization stopped early.")
            return
        if self.file.display and self.iter % self.file.display == 0:
            loss = self._loss_of([self.net.forward([*self._loss_weights])])
            smoothed = self._losses.add(loss, self.iter - start)
            self._say("solver.cpp:310", f"Iteration {self.iter}, loss = {smoothed:g}")
        if self._is_test_due(at_end=True):
            self.test_all()
        self._say("solver.cpp:315", "Optimization Done.")

    def step(self, iterations: int) -> None:
        """Makes so many iterations, whatever max_iter says, or fewer where somebody requests a stop.

        Raises CaffeconvError as `Net.forward` and `Net.backward`, and for a learning rate that Caffe refuses.
        """
        start, self._losses = self.iter, SmoothedLoss(self.file.average_loss)
        self._shown_at = time.monotonic()
        while self.iter < start + iterations:
            self.net.clear_param_diffs()
            if self._is_test_due(at_end=False):
                self.test_all()
                if self.stopped:
                    return
            self._iterate(start)
            action = self._next_action()
            if action == "snapshot" or (self.file.snapshot and self.iter % self.file.snapshot == 0):
                self.snapshot()
            if action == "stop":
                self.stopped = True
                return

    def _iterate(self, start: int) -> None:
        for callback in self.callbacks:
            callback.on_start()
        rate = self._rate()
        scalars = {"rate": rate.value, **self._rule.scalars_at(self.iter)}
        wanted = list(dict.fromkeys([*self._outputs, *self._loss_weights]))
        is_apart = bool(self.callbacks) or self.file.debug_info
        if is_apart:
            passes = self._stepper.accumulate(wanted, traces=self.file.debug_info)
        else:
            passes = self._stepper.step(scalars, wanted)
        for source, text in self._stepper.trace:
            self._say(source, text)
        loss = self._loss_of(passes)
        for callback in self.callbacks:
            callback.on_gradients_ready()
        if is_apart:
            self._stepper.apply(scalars)
        self._report(self._iteration(rate, loss, self._losses.add(loss, self.iter - start), passes))
        self._current_step = rate.step
        self.iter += 1

    def _iteration(
        self, rate: Rate, loss: float, smoothed: float, passes: Sequence[dict[str, FloatArray]]
    ) -> Iteration:
        file, now = self.file, time.monotonic()
        is_shown = bool(file.display) and self.iter % file.display == 0
        seconds = now - self._shown_at
        per_second = (self.iter - self._shown_iteration) / (seconds or 1)
        if is_shown:
            self._shown_at, self._shown_iteration = now, self.iter
        norm = self._stepper.norm
        rose = rate.step if file.lr_policy == "multistep" and rate.step != self._current_step else None
        return Iteration(
            self.iter, loss, smoothed, rate.value, self.items_per_iteration, is_shown, per_second, seconds, file.display,
            _outputs_of(self.net, self._outputs, passes[-1] if passes else None) if is_shown else (), rose,
            norm if norm is not None and norm > file.clip >= 0 else None, file.clip,
        )  # fmt: skip

    @property
    def items_per_iteration(self) -> int:
        """How many items an iteration takes, by the first blob's first axis."""
        first = next(iter(self.net.blobs.values()), None)
        return (first.num if first is not None else 0) * self.file.iter_size

    def _loss_of(self, passes: Sequence[dict[str, FloatArray]]) -> float:
        total = np.float32(0)
        for blobs in passes:
            for blob, weight in self._loss_weights.items():
                total += np.float32(weight) * blobs[blob].sum(dtype=np.float32)
        with np.errstate(invalid="ignore"):
            return float(total / np.float32(self.file.iter_size)) if len(passes) != 1 else float(total)

    def add_callback(self, on_start: Callable[[], object], on_gradients_ready: Callable[[], object]) -> None:
        """Adds functions that each iteration calls: before its passes, and before its update."""
        self.callbacks.append(Callback(on_start, on_gradients_ready))

    def apply_update(self) -> None:
        """Changes the parameters by what their diffs hold, as the iteration `iter` would."""
        rate = self._rate()
        self._stepper.apply({"rate": rate.value, **self._rule.scalars_at(self.iter)})
        self._current_step = rate.step

    # -- tests ---------------------------------------------------------------------------------------------------------

    def _is_test_due(self, *, at_end: bool) -> bool:
        interval = self.file.test_interval
        is_first = self.iter == 0 and not at_end
        return bool(interval) and self.iter % interval == 0 and (not is_first or self.file.test_initialization)

    def test_all(self) -> None:
        """Tests every test net with the parameters as they are now."""
        for number in range(len(self.test_nets)):
            if not self.stopped:
                self._test(number)

    def _test(self, number: int) -> None:
        net, spec = self.test_nets[number], self.file.test_nets[number]
        self._say("solver.cpp:330", f"Iteration {self.iter}, Testing net (#{number})")
        net.share_with(self.net)
        outputs, weights = sorted(net.outputs), net.blob_loss_weights
        lossy = [blob for blob, weight in weights.items() if weight]
        sums: dict[str, FloatArray] = {}
        loss = np.float32(0)
        for _ in range(spec.passes):
            while (action := self._next_action()) is not None:
                if action == "snapshot":
                    self.snapshot()
                self.stopped |= action == "stop"
            if self.stopped:
                self._say("solver.cpp:380", "Test interrupted.")
                return
            blobs = net.forward([*outputs, *lossy])
            sums = {blob: sums[blob] + blobs[blob] if sums else blobs[blob].copy() for blob in outputs}
            loss += sum(np.float32(weights[blob]) * blobs[blob].sum() for blob in lossy)
        means = {blob: values / np.float32(spec.passes) for blob, values in sums.items()}
        mean_loss = float(loss / np.float32(max(spec.passes, 1))) if self.file.test_compute_loss else None
        means_of = _outputs_of(net, outputs, means) if means else ()  # test_iter: 0
        self._report(NetTest(self.iter, number, means_of, mean_loss))

    # -- state ---------------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Writes weights and state, each whole or not at all; CaffeconvError where that cannot be."""
        ending = ".h5" if self.file.snapshot_hdf5 else ""
        weights = self.file.snapshot_name(self.iter, f".caffemodel{ending}")
        state = self.file.snapshot_name(self.iter, f"{STATE_SUFFIX}{ending}")
        kind = "HDF5 file" if ending else "binary proto file"
        self._say("solver.cpp:457" if ending else "solver.cpp:447", f"Snapshotting to {kind} {weights}")
        save = self.net.save_hdf5 if ending else self.net.save
        save(weights, diffs=self.file.snapshot_diff)
        source = "sgd_solver.cpp:283" if ending else "sgd_solver.cpp:273"
        self._say(source, f"Snapshotting solver state to {kind} {state}")
        histories = tuple(self._stepper.histories)
        write_state(state, SolverState(self.iter, str(weights), self._current_step, histories, self._kept_states()))
        written = Snapshot(self.iter, str(weights), str(state), bool(ending))
        self._report(written)
        return written

    def restore(self, path: str | Path) -> None:
        """Goes on from a .solverstate: iteration, parameters, histories.

        The weights are those that the state names, from the current folder or beside the state. Raises CaffeconvError
        where a file is missing or does not fit; everything is as it was then.
        """
        state = read_state(Path(path))
        check_history(Path(path), state, [history.shape for history in self._stepper.histories])
        if state.learned_net:
            self.net.copy_from(_find_learned_net(state.learned_net, Path(path)))
        self._say("sgd_solver.cpp:318", "SGDSolver: restoring history")
        self._stepper.set_histories(state.history)
        self.iter, self._current_step = state.iteration, state.current_step
        self._restored_states = state.kept_states
        self._shown_iteration = self.iter

    def _kept_states(self) -> tuple[Mapping[str, FloatArray], ...]:
        nets = (self.net, *self.test_nets)
        return tuple(net.states for net in nets) if any(net.keeps_states for net in nets) else ()

    def seek_data(self) -> None:
        """Brings data, random numbers and what layers keep to where a run without a break has them at this iteration.

        Raises CaffeconvError for data that have no position: those of Python layers; and where the state that was restored
        does not say what the nets' layers keep.
        """
        nets = (self.net, *self.test_nets)
        kept = self._restored_states or ({},) * len(nets)
        if len(kept) != len(nets) or (
            self.iter and not self._restored_states and any(net.keeps_states for net in nets)
        ):
            raise CaffeconvError(
                f"{self.file.path}: the nets have layers that keep a state from pass to pass, and the snapshot does not hold "
                "it for each net (Caffe writes none); resume without continuing the data"
            )
        passes = self.iter * self.file.iter_size
        self.net.seek_passes(passes)
        tests = self._tests_before(self.iter)
        for net, spec in zip(self.test_nets, self.file.test_nets, strict=True):
            net.seek_passes(tests * spec.passes)
        for net, states in zip(nets, kept, strict=True):
            net.states = states

    def _tests_before(self, iteration: int) -> int:
        """How many tests each net has been through when that iteration comes."""
        if not self.file.test_interval or not iteration:
            return 0
        return (iteration - 1) // self.file.test_interval + self.file.test_initialization


def _find_learned_net(name: str, state: Path) -> Path:
    beside = state.parent / Path(name).name
    return beside if not Path(name).exists() and beside.exists() else Path(name)


def _outputs_of(net: Net, names: Sequence[str], values: dict[str, FloatArray] | None) -> list[Output]:
    weights = net.blob_loss_weights
    return [
        Output(name, float(value), weights[name])
        for name in names
        for value in (values[name] if values is not None else net.blobs[name].data).ravel()
    ]
