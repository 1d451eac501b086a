"""What a pass over a net was made on, so that it can give further values later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from caffeconv.tensor.param import ParamKey
from caffeconv.tensor.shape import FloatArray


@dataclass(frozen=True)
class Noise:
    """What the random numbers of a pass follow from."""

    seed: int = 0
    number: int = 0
    """How many passes there were before it."""


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass: which layers ran, and on what."""

    span: slice | None
    """None where it ran from the net's inputs on."""
    values: Mapping[str, str]
    """Blob → value that the last of these layers left in it."""
    feeds: Mapping[str, FloatArray]
    """Input value → what was in it."""
    states: Mapping[str, FloatArray]
    """What recurrent layers started from."""
    params_version: int
    """`ParamStore.version` when it ran."""
    held: bool = False
    """Whether nothing ran: `feeds` are what the blobs hold, by `held_value` (emit.held_values)."""
    was_read: bool = False
    """Whether a blob was read that nobody had asked for beforehand."""
    noise: Noise = Noise()
    params: Mapping[ParamKey, FloatArray] | None = None
    """The parameters that it ran with, where a solver has changed them since."""

    def writes(self, blob: str) -> bool:
        """Whether one of the layers computed what the blob holds: the pass did not start from it."""
        return self.values[blob] not in self.feeds


@dataclass(frozen=True)
class BackwardPass:
    """A backward pass: which layers ran, and on what."""

    span: slice
    feeds: Mapping[str, FloatArray]
    """Those of the forward pass that it belongs to, as `states`."""
    states: Mapping[str, FloatArray]
    seeds: Mapping[str, FloatArray]
    """Blob → the gradient to start from, where that is not its loss weight."""
    params_version: int
    """`ParamStore.version` when it ran."""
    reached: frozenset[str] = frozenset()
    """The blobs whose diff a layer makes."""
    noise: Noise = Noise()
    params: Mapping[ParamKey, FloatArray] | None = None
    """As of the forward pass."""
    held: bool = False
    """As of the forward pass."""


def initial_state(states: Mapping[str, FloatArray], name: str, dims: Sequence[int | str]) -> FloatArray:
    """What a recurrent layer starts from, by the name of the model's input for it, whose dims are all numbers."""
    shape = tuple(int(size) for size in dims)
    state = states.get(name)
    # caffe: RecurrentLayer::Reshape — another batch size starts from zeros
    return state if state is not None and state.shape == shape else np.zeros(shape, np.float32)
