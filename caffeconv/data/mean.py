"""A mean to subtract, as a user names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caffeconv.caffe_format.caffemodel import read_binaryproto
from caffeconv.data.input_items import read_array
from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import FloatArray


def read_mean(mean: str | None) -> FloatArray | None:
    """``104,117,123``, a .npy or a .binaryproto, as C or C×H×W; CaffeconvError where it is none of these."""
    if mean is None:
        return None
    try:
        return np.array([float(value) for value in mean.split(",")], np.float32)
    except ValueError:
        pass
    path = Path(mean)
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
