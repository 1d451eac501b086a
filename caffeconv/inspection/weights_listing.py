"""What a weights file holds, and in what two of them differ, without a net."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from caffeconv.caffe_format.caffemodel import StoredBlob, StoredLayer, WeightsFile
from caffeconv.caffe_format.hdf5 import HDF5Blob
from caffeconv.caffe_pb2 import V1LayerParameter
from caffeconv.errors import CaffeconvError
from caffeconv.tensor.param_values import Blob
from caffeconv.tensor.shape import Shape, format_shape

_PRECISIONS = {"<f8": "double", "<f4": "float", "<f2": "half"}
_C3D_AXES = 5


@dataclass(frozen=True)
class ValueStatistics:
    """Statistics of an array's values; `minimum`, `maximum`, `mean` and `deviation` are of those that are finite."""

    minimum: float
    maximum: float
    mean: float
    deviation: float
    zeros: int
    not_finite: int
    """How many are NaN or infinite."""


@dataclass(frozen=True)
class BlobListing:
    """One blob of a weights file."""

    shape: Shape
    count: int
    """Values in the file; another number than the shape has where the file is damaged or left them out."""
    storage: str
    """How the values lie there: ``float``, ``half``, ``double``, each perhaps ``unpacked``."""
    statistics: ValueStatistics | None = None


@dataclass(frozen=True)
class LayerListing:
    """One layer of a weights file."""

    name: str
    type: str
    """As the file has it; empty where it says none (HDF5)."""
    blobs: tuple[BlobListing, ...]


@dataclass(frozen=True)
class WeightsListing:
    """A weights file without a net."""

    path: Path
    net: str
    """The net's name in the file; empty where it has none."""
    form: str
    """What wrote it, as far as the file tells: ``caffemodel of today's form (V2)``."""
    layers: tuple[LayerListing, ...]
    """In the file's order, layers without blobs too."""

    @property
    def parameter_count(self) -> int:
        return sum(blob.count for layer in self.layers for blob in layer.blobs)


def list_weights(file: WeightsFile, *, values: bool = False) -> WeightsListing:
    """The layers and blobs of a weights file; with `values` their statistics, for which all of it is read."""
    definition = _definition(file)
    layers = tuple(
        LayerListing(layer.name, kind, tuple(_blob(blob, values=values) for blob in _blobs(layer)))
        for layer, kind in zip(file.layers, definition.types, strict=True)
    )
    return WeightsListing(file.path, definition.name, _form(file, definition.form), layers)


@dataclass(frozen=True)
class _Definition:
    """What the file says of the net: its name, the form of its layers, and each one's type, in the file's words."""

    name: str
    form: str
    types: Sequence[str]


def _definition(file: WeightsFile) -> _Definition:
    types = [layer.type for layer in file.layers]
    try:
        net = file.net()
    except CaffeconvError:
        return _Definition("", "", types)
    if net.layer:
        return _Definition(net.name, " of today's form (V2)", types)
    if any(layer.HasField("layer") for layer in net.layers):
        return _Definition(net.name, " of the form of 2013 (V0)", types)
    types = [V1LayerParameter.LayerType.Name(layer.type) for layer in net.layers] or types
    return _Definition(net.name, " of the form of 2014 (V1)" if net.layers else "", types)


def _blobs(layer: StoredLayer) -> Iterator[Blob]:
    yield from (blob for blob in layer.blobs if blob is not None)


def _form(file: WeightsFile, version: str) -> str:
    blobs = [blob for layer in file.layers for blob in _blobs(layer)]
    if any(isinstance(blob, HDF5Blob) for blob in blobs):
        return "Caffe's HDF5 (.caffemodel.h5)"
    if any(blob.legacy and len(blob.shape) == _C3D_AXES for blob in blobs):
        return "caffemodel of C3D 1.0"
    if any(isinstance(blob, StoredBlob) and blob.is_raw for blob in blobs):
        return f"caffemodel{version}, raw data as NVIDIA Caffe writes it"
    old_shapes = ", shapes as num, channels, height, width" if blobs and all(blob.legacy for blob in blobs) else ""
    return f"caffemodel{version}{old_shapes}"


def _blob(blob: Blob, *, values: bool) -> BlobListing:
    return BlobListing(blob.shape, blob.count, _storage(blob), _statistics(blob) if values and blob.count else None)


def _storage(blob: Blob) -> str:
    if not isinstance(blob, StoredBlob) or not blob.runs:
        return "float"
    precision = _PRECISIONS[blob.dtype]
    return f"{precision}, unpacked" if blob.runs[0].step != int(blob.dtype[-1]) else precision


def _statistics(blob: Blob) -> ValueStatistics:
    minimum, maximum, total, squares, zeros, count = math.inf, -math.inf, 0.0, 0.0, 0, 0
    for block in blob.blocks():
        finite = block[np.isfinite(block)].astype(np.float64)
        zeros += int(block.size - np.count_nonzero(block))
        if finite.size:
            minimum, maximum = min(minimum, float(finite.min())), max(maximum, float(finite.max()))
            total, squares = total + float(finite.sum()), squares + float((finite**2).sum())
            count += finite.size
    if not count:
        return ValueStatistics(math.nan, math.nan, math.nan, math.nan, zeros, blob.count)
    mean = total / count
    deviation = math.sqrt(max(0.0, squares / count - mean**2))
    return ValueStatistics(minimum, maximum, mean, deviation, zeros, blob.count - count)


# -- two files ---------------------------------------------------------------------------------------------------------

Kind = Literal["only in A", "only in B", "renamed", "differs"]


@dataclass(frozen=True)
class WeightsChange:
    """One layer that is not the same in both weights files."""

    name: str
    kind: Kind
    changes: tuple[str, ...]
    """``blob 0: 10×64 → 21×64``, ``blob 1: differs by 0.25 at most``."""


def compare_weights(a: WeightsFile, b: WeightsFile) -> tuple[WeightsChange, ...]:
    """The layers with blobs that differ, in the order of `a`, then those that only `b` has.

    A layer that only one of the files has is held to be renamed where the other has one of the same shapes that is left,
    in the same order.
    """
    blobs_a, blobs_b = ({layer.name: tuple(_blobs(layer)) for layer in file.layers} for file in (a, b))
    names = _renames(blobs_a, blobs_b)
    changes = []
    for name, blobs in blobs_a.items():
        other = name if name in blobs_b else names.get(name)
        if not blobs and not (other and blobs_b[other]):
            continue
        if other is None:
            changes.append(WeightsChange(name, "only in A", _shapes_line(blobs)))
            continue
        lines = tuple(_blob_changes(blobs, blobs_b[other]))
        if other != name:
            changes.append(WeightsChange(name, "renamed", (f"'{other}' in B", *lines)))
        elif lines:
            changes.append(WeightsChange(name, "differs", lines))
    new_names = set(names.values())
    changes += [
        WeightsChange(name, "only in B", _shapes_line(blobs))
        for name, blobs in blobs_b.items() if blobs and name not in blobs_a and name not in new_names
    ]  # fmt: skip
    return tuple(changes)


def _renames(a: Mapping[str, Sequence[Blob]], b: Mapping[str, Sequence[Blob]]) -> dict[str, str]:
    spare = [name for name, blobs in b.items() if blobs and name not in a]
    renames: dict[str, str] = {}
    for name, blobs in a.items():
        shapes = [_shape(blob) for blob in blobs]
        same = [other for other in spare if [_shape(blob) for blob in b[other]] == shapes]
        if blobs and name not in b and same:
            renames[name] = same[0]
            spare.remove(same[0])
    return renames


def _shape(blob: Blob) -> Shape:
    """A blob's shape, without the ones in front that fill it up in files of the old forms."""
    shape = blob.shape
    while blob.legacy and len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def _shapes_line(blobs: Sequence[Blob]) -> tuple[str, ...]:
    return (f"blobs {', '.join(format_shape(blob.shape) for blob in blobs)}",)


def _blob_changes(a: Sequence[Blob], b: Sequence[Blob]) -> Iterator[str]:
    if len(a) != len(b):
        yield f"{len(a)} blobs → {len(b)}"
    for i, (old, new) in enumerate(zip(a, b, strict=False)):
        if _shape(old) != _shape(new):
            yield f"blob {i}: {format_shape(old.shape)} → {format_shape(new.shape)}"
        if old.count == new.count:
            difference, greatest = _difference(old, new)
            if difference:
                yield f"blob {i}: values differ by {difference:.3g} at most, the greatest in A is {greatest:.3g}"


def _difference(a: Blob, b: Blob) -> tuple[float, float]:
    """The greatest absolute difference of two blobs of as many values, and A's greatest absolute value."""
    old, new = (blob.array().ravel() for blob in (a, b))
    if not old.size or np.array_equal(old, new, equal_nan=True):
        return 0.0, 0.0
    return float(np.abs(old.astype(np.float64) - new).max()), float(np.abs(old).max())
