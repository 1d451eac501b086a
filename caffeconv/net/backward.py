"""Backward passes over a net's layers, and the gradients that they left (caffe: Net::BackwardFromTo)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from caffeconv.emit.backward import BackwardModel, goes_backward, loss_weights, open_tops, plan_backward
from caffeconv.errors import CaffeconvError
from caffeconv.ir.layer import Node
from caffeconv.net.params import ParamStore
from caffeconv.net.pass_state import BackwardPass, ForwardPass, initial_state
from caffeconv.net.sessions import SessionPool, Values
from caffeconv.passes.shared_memory import shared_diffs
from caffeconv.passes.subgraph import last_writes
from caffeconv.tensor.param import ParamKey
from caffeconv.tensor.shape import FloatArray, Shape, format_shape


class Backward:
    """The diffs of a net's blobs, each shaped as its blob, float32; those of parameters are added up in `params`.

    shape_of: blob → the shape that it has.
    """

    def __init__(self, sessions: SessionPool, params: ParamStore, shape_of: Callable[[str], Shape]) -> None:
        graph = sessions.graph
        self._nodes: Sequence[Node] = graph.nodes
        self._sessions = sessions
        self._params = params
        self._shape_of = shape_of
        self._blob_of = {value: blob for blob, value in last_writes(graph.nodes).items()}
        self._blobs = tuple(self._blob_of.values())
        self._outputs = [self._blob_of[value] for value in graph.outputs]
        self._holder = shared_diffs(graph.nodes, [step.node for step in plan_backward(graph) if step.runs])
        """Blob → the one whose diff's memory it shares."""
        self._diffs: Values = {}
        self._last: BackwardPass | None = None
        self._computes_all = False
        """Whether a diff was read that no pass had been asked for, so that from now on each computes all."""
        sessions.on_reshape.append(self._forget_pass)
        sessions.on_replan.append(self._forget_diffs)

    def _forget_pass(self) -> None:
        self._last = None
        self._forget_diffs()

    def _forget_diffs(self) -> None:
        self._diffs.clear()

    # -- passes ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises CaffeconvError for a net in which nothing goes backward."""
        if not goes_backward(self._sessions.graph):
            raise CaffeconvError(
                "nothing goes backward in this net: no top has a loss_weight, and force_backward is not set. "
                "Add a loss, or write `force_backward: true` at the top of the prototxt"
            )

    def run(
        self, span: slice, forward: ForwardPass, wanted: Sequence[str], top_diffs: Mapping[str, ArrayLike]
    ) -> None:  # fmt: skip
        """Runs the layers `span` backward, so that at least the blobs `wanted` have their diffs.

        forward: the pass whose gradients these are. top_diffs: blob → gradient to start from, instead of what its diff
        holds. Raises CaffeconvError as `Net.backward`.
        """
        graph = self._sessions.graph
        steps = plan_backward(graph)
        open_blobs = open_tops(steps[span])
        self._assign(top_diffs, {*open_blobs, *self._outputs})
        diffs = {blob: self.diff_of(blob) for blob in open_blobs}
        seeds = {blob: diff.copy() for blob, diff in diffs.items() if not (diff == self._first_diff(blob)).all()}
        is_partial = (span.start, span.stop) != (0, len(steps))
        if self._last is not None and is_partial and not self._is_outdated(self._last):
            for blob in self._last.reached:  # those that this pass does not come to stay as they are
                self.diff_of(blob)
        backward = BackwardPass(
            span,
            forward.feeds,
            forward.states,
            seeds,
            self._sessions.params_version,
            noise=forward.noise,
            held=forward.held,
        )
        wanted = [self._root(blob) for blob in (self._blobs if self._computes_all else wanted)]
        blobs, params, model = self._compute(backward, wanted)
        reached = model.reached
        self._params.add_diffs(params, model.overwritten)
        self._diffs = {blob: diff for blob, diff in self._diffs.items() if blob not in reached} | blobs
        self._last = replace(backward, reached=reached, params_version=self._sessions.params_version)

    def take_over(self, backward: BackwardPass) -> None:
        """Makes a pass over the whole net that a solver has run the last one; diffs are computed when they are read."""
        self._last = backward
        self._diffs.clear()

    def diff_of(self, blob: str) -> FloatArray:
        """A blob's gradient; one that the last pass did not compute is computed now, and from then on each time.

        Where no layer makes one it is 0, or the blob's loss weight, until it is assigned into.
        """
        if blob in self._holder:
            return self.diff_of(self._holder[blob]).reshape(self._shape_of(blob))
        if blob in self._diffs:
            return self._diffs[blob]
        self._sessions.update_shapes()  # at other shapes than it ran at, the last pass is forgotten
        last = self._last
        if last is None or blob not in last.reached:
            self._diffs[blob] = np.full(self._shape_of(blob), self._first_diff(blob), np.float32)
            return self._diffs[blob]
        self._sessions.drop_outdated()
        if self._is_outdated(last):
            raise CaffeconvError(
                f"the gradient of '{blob}' was not computed by the last backward(), and parameters have been changed "
                f"since. Ask for it: backward(diffs=['{blob}'])"
            )
        self._computes_all = True
        with self._params.unchanged_diffs():
            blobs, _, _ = self._compute(last, self._blobs)
        self._diffs = {**blobs, **self._diffs}
        return self._diffs[blob]

    def _root(self, blob: str) -> str:
        while blob in self._holder:
            blob = self._holder[blob]
        return blob

    def _is_outdated(self, backward: BackwardPass) -> bool:
        """Whether parameters have been changed since."""
        return backward.params is None and backward.params_version != self._sessions.params_version

    def _first_diff(self, blob: str) -> float:
        # caffe: Layer::SetLossWeights
        for node in self._nodes:
            for value, weight in zip(node.tops, loss_weights(node), strict=True):
                if weight and self._blob_of.get(value) == blob:
                    return weight
        return 0.0

    def _assign(self, diffs: Mapping[str, ArrayLike], allowed: Collection[str]) -> None:
        for blob, values in diffs.items():
            if blob not in allowed:
                raise CaffeconvError(
                    f"backward({blob}=…): a gradient can be given of {', '.join(sorted(allowed))}; '{blob}' is no output"
                )
            diff, shape = np.array(values, np.float32), self._shape_of(blob)
            if diff.shape != shape:
                raise CaffeconvError(
                    f"backward({blob}=…): the array is {format_shape(diff.shape)}, the blob {format_shape(shape)}"
                )
            self._diffs[blob] = diff

    def _compute(
        self, backward: BackwardPass, wanted: Collection[str]
    ) -> tuple[Values, Mapping[ParamKey, FloatArray], BackwardModel]:
        """The diffs of the blobs `wanted`, as far as there are any, and of the parameters; and what gave them."""
        entry = self._sessions.backward_session(backward.span, backward.seeds.keys(), wanted, held=backward.held)
        session, model = entry.session, entry.model
        if session is None:
            return {}, {}, model
        feeds = {name: backward.feeds[name] for name in session.inputs if name in backward.feeds}
        feeds |= {name: backward.seeds[blob] for blob, name in model.seeds.items() if name in session.inputs}
        feeds |= entry.inputs.feeds(session, self._params, backward.params, backward.noise)
        feeds |= {
            name: initial_state(backward.states, name, dims)
            for name, dims in session.inputs.items()
            if name not in feeds
        }
        outputs = session.run(feeds, same_pass=True)
        blobs = {blob: outputs[name] for blob, name in model.blobs.items()}
        return blobs, {key: outputs[name] for key, name in model.params.items()}, model
