"""Models of a fixed batch size take a short last batch too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from caffeconv.errors import CaffeconvError
from caffeconv.runtime.session import Session
from caffeconv.tensor.shape import FloatArray

DEFAULT_BATCH = 16


def fixed_batch_size(session: Session) -> int | None:
    """The batch size that the model's inputs fix; None where it is open."""
    sizes = {dims[0] for dims in session.inputs.values() if dims and isinstance(dims[0], int)}
    return max((size for size in sizes if isinstance(size, int)), default=None)


def batch_size_of(session: Session, batch_size: int | None) -> int:
    """Items per pass: the model's batch size where it is fixed, else what is requested."""
    size = fixed_batch_size(session)
    if size is None:
        return batch_size or DEFAULT_BATCH
    if batch_size not in (None, size):
        raise CaffeconvError(f"`batch_size={batch_size}`: the model's batch size is fixed at {size}")
    return size


class FixedBatch:
    """A session whose batches are filled up with their last item; the rows that come of that are dropped."""

    def __init__(self, session: Session, size: int) -> None:
        self.session = session
        self.inputs, self.outputs = session.inputs, session.outputs
        self._size = size

    def kind(self, output: str) -> str:
        """As `Session.kind`."""
        return self.session.kind(output)

    def run(self, feeds: Mapping[str, FloatArray], outputs: Sequence[str]) -> Mapping[str, FloatArray]:
        """The outputs for up to `size` items, along axis 0 of the inputs."""
        items = min((len(values) for values in feeds.values()), default=self._size)
        if items == self._size:
            return self.session.run(feeds, outputs)
        results = self.session.run({name: _fill_up(values, self._size) for name, values in feeds.items()}, outputs)
        return {name: self._trim(values, items, self.kind(name)) for name, values in results.items()}

    def _trim(self, values: FloatArray, items: int, kind: str) -> FloatArray:
        if kind == "detections":
            width = values.shape[-1]
            rows = values.reshape(-1, width)
            boxes: FloatArray = rows[rows[:, 0] < items].reshape(1, 1, -1, width)
            return boxes
        return values[:items] if values.ndim and len(values) == self._size else values


def _fill_up(values: FloatArray, size: int) -> FloatArray:
    return np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])
