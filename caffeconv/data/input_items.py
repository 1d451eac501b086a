"""Where a run's inputs come from: arrays and pictures, item by item along the batch axis."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from caffeconv.caffe_format.caffemodel import read_binaryproto
from caffeconv.data.images import Image
from caffeconv.data.input_images import Transform
from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import FloatArray, format_shape


class Source(Protocol):
    """Items for one input, in order."""

    def __len__(self) -> int: ...
    def read(self, start: int, end: int) -> FloatArray:
        """Items start…end-1 along axis 0, float32."""
        ...

    def label(self, index: int) -> str:
        """What to call an item."""
        ...


@dataclass(frozen=True)
class ArraySource:
    """Rows of an array."""

    name: str
    array: FloatArray

    def __len__(self) -> int:
        return self.array.shape[0] if self.array.ndim else 1

    def read(self, start: int, end: int) -> FloatArray:
        return self.array[start:end] if self.array.ndim else self.array

    def label(self, index: int) -> str:
        return f"{self.name}[{index}]"


@dataclass(frozen=True)
class PictureSource:
    """Picture files, decoded when read."""

    paths: tuple[Path, ...]
    transform: Transform
    classes: tuple[int, ...] | None = None
    """The class that a list gives for each, where it does."""
    channels_last: bool = False
    """Whether the model takes N×H×W×C."""
    faults: dict[int, str] | None = None
    """Takes what is wrong with damaged pictures, by number; these are black then. None: the first raises CaffeconvError."""

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, start: int, end: int) -> FloatArray:
        planes = np.stack([self.transform.apply(self.decode(i)) for i in range(start, end)])
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)) if self.channels_last else planes

    def decode(self, index: int) -> Image:
        """H×W×C of a picture as it is in its file."""
        try:
            return self.transform.decode(self.paths[index])
        except CaffeconvError as fault:
            if self.faults is None:
                raise
            self.faults[index] = str(fault)
            return self.transform.black

    def label(self, index: int) -> str:
        return str(self.paths[index])


CROPS = 10


class TenCrops:
    """The ten crops of every picture, one after another: item 10·i + j is crop j of picture i."""

    def __init__(self, pictures: PictureSource) -> None:
        self.pictures = pictures
        self._held: tuple[int, FloatArray] | None = None  # a batch may end between two crops of one picture

    def __len__(self) -> int:
        return CROPS * len(self.pictures)

    def read(self, start: int, end: int) -> FloatArray:
        parts = []
        for i in range(start // CROPS, -(-end // CROPS)):
            parts.append(self._crops(i)[max(0, start - CROPS * i) : end - CROPS * i])
        return np.concatenate(parts)

    def _crops(self, picture: int) -> FloatArray:
        if self._held is None or self._held[0] != picture:
            self._held = picture, self.pictures.transform.ten_crops(self.pictures.decode(picture))
        return self._held[1]

    def label(self, index: int) -> str:
        return self.pictures.label(index // CROPS)


def constants_among(sources: Mapping[str, Source], shapes: Mapping[str, Sequence[int | str]]) -> dict[str, FloatArray]:
    """Inputs that every batch takes whole, as InfogainLoss takes H: their batch axis is fixed and as long as what is given,
    and the other inputs have another number of items."""
    whole = {
        name: source.array
        for name, source in sources.items()
        if isinstance(source, ArraySource) and (not shapes[name] or shapes[name][0] == len(source))
    }
    others = [len(source) for name, source in sources.items() if name not in whole]
    items = others or [len(source) for source in list(sources.values())[:1]]
    return {name: array for name, array in whole.items() if len(sources[name]) not in items}


def read_array(path: Path, blob: str) -> FloatArray:
    """A float32 array from .npy, from .npz (the array called `blob`, ``in/blob``, or the only one), or a binaryproto."""
    if path.suffix.lower() == ".binaryproto":
        stored = read_binaryproto(path)
        return stored.array().reshape(stored.shape)
    try:
        loaded = np.load(path, allow_pickle=False)
        array = loaded if isinstance(loaded, np.ndarray) else _from_archive(path, blob, loaded)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        if isinstance(error, FileNotFoundError):
            raise CaffeconvError(f"{path}: no such file; an array (.npy, .npz) was needed") from None
        raise CaffeconvError(f"{path}: not a readable array file: {str(error).splitlines()[0]}") from None
    if array.dtype.kind not in "fiub":
        raise CaffeconvError(f"{path}: holds {array.dtype}; numbers were needed")
    with np.errstate(over="ignore"):  # what no float32 holds is infinite
        return np.asarray(array, np.float32)


def _from_archive(path: Path, blob: str, archive: np.lib.npyio.NpzFile) -> FloatArray:
    names = archive.files
    for name in (blob, f"in/{blob}", *(names if len(names) == 1 else ())):
        if name in names:
            array: FloatArray = archive[name]
            return array
    raise CaffeconvError(f"{path}: no array called '{blob}'; it has {', '.join(names[:10]) or 'none'}")


def _listed(shape: Sequence[int]) -> str:
    return ",".join(map(str, shape))


def fit_array(array: FloatArray, shape: list[int | str], name: str) -> FloatArray:
    """The array, given a batch axis, and axes of size 1 after it, where it lacks them.

    Raises CaffeconvError where it is of another shape than the input.
    """
    given = format_shape(array.shape)
    missing = len(shape) - array.ndim
    if missing > 0 and all(size == 1 for size in shape[1:missing]):
        array = array.reshape((1,) * missing + array.shape)
    wanted = format_shape([size if isinstance(size, int) else -1 for size in shape]).replace("-1", "N")
    mismatch = array.ndim != len(shape) or any(
        isinstance(size, int) and size != actual for size, actual in list(zip(shape, array.shape, strict=False))[1:]
    )
    if mismatch:
        hint = f". A net, unlike an ONNX model, can be given another size: --shape {name}={_listed(array.shape)}"
        raise CaffeconvError(
            f"input '{name}': the array is {given}; {wanted} was needed{hint if len(shape) == 4 else ''}"
        )
    return array
