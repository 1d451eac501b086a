"""A mean to subtract, as a user names it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from caffeconv.caffe_format.caffemodel import read_binaryproto
from caffeconv.data.array_files import read_array
from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import FloatArray


@dataclass(frozen=True)
class Mean:
    """``104,117,123`` or ``104 117 123``, or the name of a .npy or .binaryproto."""

    text: str
    array: FloatArray | None = field(default=None, compare=False)
    """What it holds, where that is known already: C values, or C×H×W."""

    def __str__(self) -> str:
        return self.text

    @property
    def values(self) -> tuple[float, ...]:
        """One value, or one for each channel; empty for a file."""
        try:
            return tuple(float(value) for value in self.text.replace(",", " ").split())
        except ValueError:
            return ()

    @property
    def file(self) -> Path | None:
        return None if self.values or self.array is not None else Path(self.text)

    def load(self) -> FloatArray:
        """C values, or C×H×W, float32; CaffeconvError where the file holds neither."""
        path = self.file
        if self.array is not None:
            return self.array
        if path is None:
            return np.array(self.values, np.float32)
        if not path.exists():
            raise CaffeconvError(
                f"{path}: no such file; for `mean=…` a .binaryproto or .npy, or numbers such as 104,117,123, were needed"
            )
        if path.suffix.lower() in (".npy", ".npz"):
            array = read_array(path, "mean")
        else:
            blob = read_binaryproto(path)
            array = blob.array().reshape(blob.shape)
        if array.ndim == 4 and array.shape[0] == 1:
            array = array[0]
        if array.ndim not in (1, 3):
            raise CaffeconvError(f"{path}: the mean is {array.shape}; C values or C×H×W were needed")
        return array
