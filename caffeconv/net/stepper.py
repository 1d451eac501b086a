"""A solver's iterations over a net: each pass is one run of one model, on parameters that stay where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from caffeconv.emit.training_step import Learning, StepKind, StepModel, emit_step, learned_params
from caffeconv.net.backward import Backward
from caffeconv.net.bound_arrays import BoundRun, SwappedArrays
from caffeconv.net.forward import Forward
from caffeconv.net.memory import session_size
from caffeconv.net.open_params import OpenInputs, draw, learning_session, takes_training_ops
from caffeconv.net.params import ParamStore
from caffeconv.net.pass_state import BackwardPass, ForwardPass, initial_state
from caffeconv.net.planned_session import session_key
from caffeconv.net.sessions import SessionPool
from caffeconv.tensor.param import ParamKey
from caffeconv.tensor.shape import FloatArray

if TYPE_CHECKING:
    from caffeconv.runtime.session import Session

Values = Mapping[str, FloatArray]


@dataclass(frozen=True)
class StepSession:
    """A model of one pass, ready to run."""

    session: Session
    model: StepModel
    inputs: OpenInputs
    run: BoundRun


@dataclass(frozen=True)
class _Before:
    """What a pass started from, so that it can tell more of itself later."""

    feeds: Values
    """The model's input → values, parameters and histories aside."""
    params: Mapping[ParamKey, FloatArray]
    histories: Mapping[tuple[ParamKey, int], FloatArray]


class Stepper:
    """What a solver remembers of a net's parameters, and the passes that change them."""

    def __init__(
        self, sessions: SessionPool, params: ParamStore, forward: Forward, backward: Backward, learning: Learning
    ) -> None:  # fmt: skip
        sessions.open_params()
        self.learned = learned_params(sessions.graph)
        self.norm: float | None = None
        """The length of the last iteration's gradients, where they are clipped."""
        self.trace: list[tuple[str, str]] = []
        """Lines of Caffe's log on the last iteration's passes, each with its place in Caffe's source."""
        self._sessions = sessions
        self._params = params
        self._forward = forward
        self._backward = backward
        self._learning = learning
        self._histories: SwappedArrays[tuple[ParamKey, int]] = SwappedArrays(
            {(param.key, i): param.shape for i in range(learning.rule.histories) for param in self.learned}
        )
        self._sums: SwappedArrays[ParamKey] = SwappedArrays({param.key: param.shape for param in self.learned})
        self._spares: SwappedArrays[ParamKey] = SwappedArrays({})
        self._resting = self._find_resting()
        self._entries: dict[object, StepSession] = {}

    # -- histories -----------------------------------------------------------------------------------------------------

    @property
    def histories(self) -> list[FloatArray]:
        """What is remembered, in Caffe's order: all first ones, then all second ones; each shaped as its parameter."""
        return self._histories.values()

    def set_histories(self, values: Sequence[FloatArray]) -> None:
        """Takes over what was remembered: as many arrays as `histories`, each with as many values."""
        for current, new in zip(self.histories, values, strict=True):
            current[...] = new.reshape(current.shape)
        self._resting = self._find_resting()

    def _find_resting(self) -> frozenset[ParamKey]:
        moving = {key for (key, _), values in self._histories.items() if values.any()}
        return frozenset(param.key for param in self.learned if param.key not in moving)

    # -- iterations ----------------------------------------------------------------------------------------------------

    def step(self, scalars: Mapping[str, float], wanted: Sequence[str]) -> list[dict[str, FloatArray]]:
        """One iteration: the blobs `wanted` after each of its passes.

        scalars: the learning rate, `rate`, and what else the rule wants. Raises CaffeconvError as `Net.forward` and
        `Net.backward`; the parameters are then as they were before the pass.
        """
        passes = self._learning.passes
        if not passes:
            self._sums.fill(0)
            self._apply(scalars)
            return []
        results = [self._pass(StepKind(adds=True, updates=False), wanted, {}, i) for i in range(passes - 1)]
        return [*results, self._pass(StepKind(adds=passes > 1), wanted, scalars, passes - 1)]

    def accumulate(self, wanted: Sequence[str], *, traces: bool = False) -> list[dict[str, FloatArray]]:
        """The passes of an iteration without the update: the parameters' diffs are then the sums of the gradients.

        traces: whether `trace` is to say what Caffe's `debug_info` tells of these passes.
        """
        self.trace.clear()
        kind = StepKind(adds=self._learning.passes > 1, updates=False, traces=traces)
        results = [self._pass(kind, wanted, {}, i) for i in range(self._learning.passes)]
        self._params.set_diffs({key: values.copy() for key, values in self._sums.items()})
        return results

    def apply(self, scalars: Mapping[str, float]) -> None:
        """The update by what the parameters' diffs hold (caffe: SGDSolver::ApplyUpdate)."""
        self._sums.set({param.key: self._params.diff_of(param.key).copy() for param in self.learned})
        self._apply(scalars)

    def _apply(self, scalars: Mapping[str, float]) -> None:
        kind = StepKind(runs=False)
        entry = self._entry(kind, (), tells_updates=True)
        feeds = {name: self._sums[key] for key, name in entry.model.sum_inputs.items()}
        outputs, _ = self._run(entry, {**feeds, **_scalars(entry, scalars)}, ())
        self._params.set_diffs({key: outputs[name] for key, name in entry.model.updates.items()})

    def _pass(
        self, kind: StepKind, wanted: Sequence[str], scalars: Mapping[str, float], number: int
    ) -> dict[str, FloatArray]:  # fmt: skip
        if number == 0:
            self._sums.fill(0)
        span = slice(0, len(self._sessions.graph.nodes))
        forward, blobs = self._forward.begin(span, wanted, {})
        inputs = set(self._sessions.graph.inputs)
        values = tuple(dict.fromkeys(forward.values[b] for b in blobs if forward.values[b] not in inputs))

        def run() -> tuple[StepSession, dict[str, FloatArray], _Before]:
            tells_updates = kind.updates and self._params.diffs_were_read
            entry = self._entry(kind, values, tells_updates=tells_updates)
            return entry, *self._run(
                entry, self._feeds(entry, forward, scalars), (*values, *entry.model.states.values())
            )

        entry, outputs, before = self._sessions.replanning(run)
        states = {**forward.states, **{name: outputs[output] for name, output in entry.model.states.items()}}
        self._take_over(span, replace(forward, params=before.params), entry, outputs, states)
        if entry.model.updates:
            self._params.set_diffs({key: outputs[name] for key, name in entry.model.updates.items()})
        elif kind.updates:
            self._params.set_diffs_late(lambda: self._updates_again(kind, before))
        own = {blob: outputs.get(forward.values[blob]) for blob in wanted}
        return {blob: forward.feeds[forward.values[blob]] if it is None else it for blob, it in own.items()}

    def _take_over(
        self, span: slice, forward: ForwardPass, entry: StepSession, outputs: Values, states: dict[str, FloatArray]
    ) -> None:  # fmt: skip
        blobs = {blob: outputs[value] for blob, value in forward.values.items() if value in outputs}
        self._forward.finish(span, forward, blobs, states)
        self._backward.take_over(
            BackwardPass(
                span, forward.feeds, forward.states, {}, 0, entry.model.reached, forward.noise, forward.params
            )
        )  # fmt: skip

    def _updates_again(self, kind: StepKind, before: _Before) -> dict[ParamKey, FloatArray]:
        """What the last iteration subtracted from the parameters, computed once more."""
        entry = self._entry(kind, (), tells_updates=True)
        feeds = {**before.feeds}
        for name, key in entry.inputs.params.items():
            feeds[name] = before.params[key].reshape([int(size) for size in entry.session.inputs[name]])
        feeds |= {name: before.histories[key] for key, name in entry.model.history_inputs.items()}
        feeds = {name: values for name, values in feeds.items() if name in entry.session.inputs}
        outputs = entry.session.run(feeds, list(entry.model.updates.values()), same_pass=True)
        return {key: outputs[name] for key, name in entry.model.updates.items()}

    # -- one run -------------------------------------------------------------------------------------------------------

    def _entry(self, kind: StepKind, values: tuple[str, ...], *, tells_updates: bool) -> StepSession:
        graph = self._sessions.graph
        key = (kind, values, tells_updates, self._resting, session_key(graph))
        entry = self._entries.get(key)
        if entry is None or entry.inputs.fixed:
            session_size(graph, with_diffs=True)
            read: set[ParamKey] = set()
            model = emit_step(
                self._params.apply(graph, read.add), self._learning, kind, values=values, resting=self._resting,
                tells_updates=tells_updates, training_ops=takes_training_ops(self._sessions.compute),
            )  # fmt: skip
            session = learning_session(model.model, graph, self._sessions.compute)
            noise = {name: shape for name, shape in model.noise.items() if name in session.inputs}
            inputs = OpenInputs(model.param_inputs, noise, frozenset(read))
            entry = self._entries[key] = StepSession(session, model, inputs, BoundRun(session))
        return entry

    def _feeds(self, entry: StepSession, forward: ForwardPass, scalars: Mapping[str, float]) -> dict[str, FloatArray]:
        """The model's inputs, parameters and histories aside."""
        session, model = entry.session, entry.model
        feeds = {name: values for name, values in forward.feeds.items() if name in session.inputs}
        feeds |= {
            name: initial_state(forward.states, name, session.inputs[name])
            for name in model.states
            if name in session.inputs
        }
        feeds |= {name: draw(forward.noise, name, shape) for name, shape in entry.inputs.noise.items()}
        feeds |= {name: self._sums[key] for key, name in model.sum_inputs.items()}
        return feeds | _scalars(entry, scalars)

    def _run(
        self, entry: StepSession, feeds: dict[str, FloatArray], values: Sequence[str]
    ) -> tuple[dict[str, FloatArray], _Before]:
        """The model's outputs, parameters, histories and sums aside, which are exchanged."""
        session, model, run = entry.session, entry.model, entry.run
        session.check_labels(feeds)
        moves = _ParamMoves(self._params, self._spares, model.params)
        for name, array in feeds.items():
            run.bind_input(name, array, lasting=False)
        before = {key: moves.before(key) for key in entry.inputs.params.values()}
        for name, key in entry.inputs.params.items():
            run.bind_input(name, before[key])
        histories = {key: self._histories[key] for key in model.history_inputs}
        for place, name in model.history_inputs.items():
            run.bind_input(name, histories[place])
        places = {name: place for place, name in model.histories.items()}  # an update may be the history itself
        traced = [value for line in model.trace for value in line.values]
        outputs = {
            name: np.empty([int(size) for size in session.outputs[name]], np.float32)
            for name in (*values, *model.updates.values(), *([model.norm] if model.norm else []), *traced)
            if name not in places
        }
        for name, array in outputs.items():
            run.bind_output(name, array, lasting=False)
        for key, name in model.params.items():
            run.bind_output(name, moves.after(key))
        for place, name in model.histories.items():
            run.bind_output(name, self._histories.spare(place))
        for key, name in model.sums.items():
            run.bind_output(name, self._sums.spare(key))
        try:
            run.run()
        except BaseException:
            moves.undo()
            raise
        moves.finish()
        self._histories.swap(model.histories)
        self._sums.swap(model.sums)
        outputs |= {name: self._histories[places[name]].copy() for name in model.updates.values() if name in places}
        if model.norm is not None:
            self.norm = float(outputs[model.norm])
        for line in model.trace:
            numbers = [f"{float(outputs[value]):g}" for value in line.values]
            self.trace.append((line.source, line.text.format(*numbers)))
        return outputs, _Before(feeds, before, histories)


def _scalars(entry: StepSession, scalars: Mapping[str, float]) -> dict[str, FloatArray]:
    named = {f"solver/{name}": np.array(value, np.float32) for name, value in scalars.items()}
    return {name: value for name, value in named.items() if name in entry.session.inputs}


class _ParamMoves:
    """Where the parameters' values are before and after a run.

    They go from one array to another, which changes places with it; where somebody may hold the array they stay in it,
    and the run starts from a copy.
    """

    def __init__(self, params: ParamStore, spares: SwappedArrays[ParamKey], changed: Mapping[ParamKey, str]) -> None:
        self._params = params
        self._changed = changed
        self._spares = spares
        self._current = {key: params.values_of(key) for key in changed}
        self._copied = [key for key in changed if params.is_handed_out(key)]
        for key, values in self._current.items():
            spares.lay_out(key, values)
        for key in self._copied:
            spares.spare(key)[...] = self._current[key]

    def before(self, key: ParamKey) -> FloatArray:
        """What the run reads."""
        if key not in self._changed:
            return self._params.values_of(key)
        return self._spares.spare(key) if key in self._copied else self._current[key]

    def after(self, key: ParamKey) -> FloatArray:
        """What the run writes."""
        return self._current[key] if key in self._copied else self._spares.spare(key)

    def undo(self) -> None:
        """Puts back what a run that failed may have overwritten."""
        for key in self._copied:
            self._current[key][...] = self._spares.spare(key)

    def finish(self) -> None:
        """Makes what the run wrote the parameters' values."""
        moved = [key for key in self._changed if key not in self._copied]
        self._spares.swap(moved)
        for key in moved:
            self._params.move_to(key, self._spares[key])
        self._params.version += 1
