"""The mean of the last losses, as Caffe's log has it (caffe: Solver::UpdateSmoothedLoss)."""

from __future__ import annotations

import numpy as np


class SmoothedLoss:
    """The mean of the last `size` losses, float32, updated as Caffe updates it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._losses: list[np.float32] = []
        self._mean = np.float32(0)

    def add(self, loss: float, index: int) -> float:
        """The new mean; index: how many losses there were before."""
        value = np.float32(loss)
        with np.errstate(invalid="ignore", over="ignore"):
            if len(self._losses) < self._size:
                self._losses.append(value)
                count = len(self._losses)
                self._mean = (self._mean * np.float32(count - 1) + value) / np.float32(count)
            else:
                place = index % self._size
                self._mean += (value - self._losses[place]) / np.float32(self._size)
                self._losses[place] = value
        return float(self._mean)
