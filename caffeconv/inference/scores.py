"""What `caffe test` prints: every output averaged over the batches, loss weights included (caffe: tools/caffe.cpp)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import FloatArray, Shape, count, format_shape

if TYPE_CHECKING:
    from caffeconv.net.net import Net

MOST_SCORES = 1 << 24
"""Each is a line of what `caffe test` prints."""


@dataclass(frozen=True)
class Score:
    """One element of an output, averaged over the batches."""

    output: str
    mean: float
    loss_weight: float

    def __str__(self) -> str:
        """The line that `caffe test` prints."""
        if not self.loss_weight:
            return f"{self.output} = {self.mean:.6g}"
        return f"{self.output} = {self.mean:.6g} (* {self.loss_weight:.6g} = {self.loss_weight * self.mean:.6g} loss)"


@dataclass(frozen=True)
class BatchScores:
    """What one batch gave: the total loss, and every element of every output, in `Scores.names`' order."""

    number: int
    loss: float
    values: NDArray[np.float64]


class Scores:
    """Adds up the outputs of passes, in double precision, where Caffe adds floats."""

    def __init__(self, net: Net) -> None:
        self.weights = {blob: weight for blob, weight in net.blob_loss_weights.items() if weight}
        """Blob → its loss weight."""
        self.outputs: Sequence[str] = net.outputs
        self.blobs: list[str] = list(dict.fromkeys([*net.outputs, *self.weights]))
        """What each pass has to give."""
        self._shapes: dict[str, Shape] = {}
        self._sum: NDArray[np.float64] = np.zeros(0)
        self._loss = 0.0
        self._batches = 0

    def add(self, number: int, blobs: Mapping[str, FloatArray]) -> BatchScores:
        """Takes a batch; CaffeconvError where an output has another size than in the batch before."""
        for output in self.outputs:
            self._check_shape(output, blobs[output])
        total = sum(blobs[output].size for output in self.outputs)
        if total > MOST_SCORES:
            raise CaffeconvError(
                f"the outputs {', '.join(self.outputs)} have {total} values, of which each is a score; {MOST_SCORES} at most "
                "are averaged. `blobs=…` -o FILE.lmdb keeps the values of some"
            )
        loss = sum(weight * float(blobs[blob].sum(dtype=np.float64)) for blob, weight in self.weights.items())
        values = np.concatenate([np.zeros(0), *(blobs[output].ravel().astype(np.float64) for output in self.outputs)])
        self._sum = values + (self._sum if self._batches else 0)
        self._loss += loss
        self._batches += 1
        return BatchScores(number, loss, values)

    def _check_shape(self, output: str, values: FloatArray) -> None:
        shape = self._shapes.setdefault(output, values.shape)
        if values.shape != shape:
            raise CaffeconvError(
                f"output '{output}' is {format_shape(values.shape)} in this batch and {format_shape(shape)} in "
                "the first; one size was "
                f"needed to average it over the batches. `blobs={output}` -o FILE.lmdb keeps its values"
            )

    def names(self) -> Iterator[str]:
        """The output of each element, known after the first batch; `prob[3]` where an output has several."""
        for output in self.outputs:
            size = count(self._shapes[output])
            yield from [output] if size == 1 else (f"{output}[{i}]" for i in range(size))

    @property
    def loss(self) -> float:
        """The mean of the total loss (caffe: `Loss: …`)."""
        return self._loss / max(self._batches, 1)

    def means(self) -> Iterator[Score]:
        """Every element of every output, in Caffe's order."""
        means = iter(self._sum / max(self._batches, 1))
        for output in self.outputs if self._batches else ():
            for mean in itertools.islice(means, count(self._shapes[output])):
                yield Score(output, float(mean), self.weights.get(output, 0.0))
