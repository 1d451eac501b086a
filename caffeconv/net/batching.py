"""Arrays of any number of items, cut into batches for a net of a fixed size (caffe: pycaffe.py, _Net_batch)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import FloatArray


class BatchSplitter:
    """The batches of some arrays, item by item along axis 0; the last one filled up with zeros."""

    def __init__(self, arrays: Mapping[str, FloatArray], size: int) -> None:
        numbers = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
        if not numbers or min(numbers.values()) < 1 or len(set(numbers.values())) > 1:
            counts = ", ".join(f"{name} has {number}" for name, number in numbers.items()) or "none is given"
            raise CaffeconvError(f"arrays of equally many items, at least one, were needed, as blob=array; {counts}")
        self._arrays = arrays
        self._number = next(iter(numbers.values()))
        self._size = size

    def __iter__(self) -> Iterator[dict[str, FloatArray]]:
        for first in range(0, self._number, self._size):
            yield {name: self._padded(array[first : first + self._size]) for name, array in self._arrays.items()}

    def _padded(self, items: FloatArray) -> FloatArray:
        missing = self._size - len(items)
        return np.concatenate([items, np.zeros((missing, *items.shape[1:]), np.float32)]) if missing else items

    def joined(self, results: Sequence[Mapping[str, FloatArray]]) -> dict[str, FloatArray]:
        """What the batches gave, in one array for each blob, without what comes of the zeros."""
        whole = {}
        for name in results[0]:
            values = np.concatenate([np.atleast_1d(result[name]) for result in results])
            rows = len(results) * self._size
            # several rows an item (ten crops, say) are cut in proportion; what follows no item is left whole
            whole[name] = values[: len(values) * self._number // rows] if len(values) % rows == 0 else values
        return whole
