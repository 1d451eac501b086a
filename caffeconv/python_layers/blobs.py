"""What Python layers are made of where no Caffe is installed: Layer, its blobs, TRAIN and TEST.

caffe: python/caffe/_caffe.cpp, include/caffe/layers/python_layer.hpp.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from caffeconv.tensor.shape import FloatArray, Shape, count

TRAIN = 0
TEST = 1


class Blob:
    """A blob that a Python layer reads and writes: `data` and `diff`, float32, the axes in Caffe's order."""

    def __init__(self, *shape: int) -> None:
        self._shape: Shape = ()
        self._values: dict[str, FloatArray] = {}
        self.reshape(*shape)

    @property
    def shape(self) -> Shape:
        return self._shape

    def reshape(self, *shape: int) -> None:
        """Gives the blob another shape; what it holds stays, as far as there is room (caffe: Blob::Reshape)."""
        dims = tuple(int(dim) for dim in shape)
        if any(dim < 0 for dim in dims):
            raise ValueError(f"reshape{dims}: a blob's sizes are 0 or more")
        self._shape = dims

    @property
    def data(self) -> FloatArray:
        return self._memory("data")

    @property
    def diff(self) -> FloatArray:
        return self._memory("diff")

    def _memory(self, which: str) -> FloatArray:
        buffer, needed = self._values.get(which), self.count
        if buffer is None or buffer.size < needed:
            buffer = self._values[which] = np.zeros(needed, np.float32)
        return buffer[:needed].reshape(self._shape)

    @property
    def count(self) -> int:
        return count(self._shape)

    @property
    def num(self) -> int:
        return self._legacy_axis(0)

    @property
    def channels(self) -> int:
        return self._legacy_axis(1)

    @property
    def height(self) -> int:
        return self._legacy_axis(2)

    @property
    def width(self) -> int:
        return self._legacy_axis(3)

    def _legacy_axis(self, axis: int) -> int:
        # caffe: Blob::LegacyShape — axes that a blob lacks count as 1
        return self._shape[axis] if axis < len(self._shape) else 1


class BlobVec:
    """A layer's parameters."""

    def __init__(self) -> None:
        self._blobs: list[Blob] = []

    def add_blob(self, *shape: int) -> None:
        """Adds a parameter of that shape, zero."""
        self._blobs.append(Blob(*shape))

    def __len__(self) -> int:
        return len(self._blobs)

    def __getitem__(self, index: int) -> Blob:
        return self._blobs[index]

    def __iter__(self) -> Iterator[Blob]:
        return iter(self._blobs)


class Layer:
    """What a Python layer derives from; it defines setup, reshape, forward and, for training, backward."""

    param_str: str
    param_str_: str
    """As `param_str`, under the name that it had before 2015."""
    phase: int
    blobs: BlobVec
    type = "Python"

    def __init__(self, param: object = None) -> None:
        pass
