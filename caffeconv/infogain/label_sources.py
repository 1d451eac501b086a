"""Where labels are kept: databases, HDF5 files, lists of pictures, pictures whose pixels are labels."""

from __future__ import annotations

import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from caffeconv.caffe_pb2 import Datum
from caffeconv.data.datum import read_datum
from caffeconv.data.image_list import ImageList, Line
from caffeconv.data.images import decode_image
from caffeconv.data.input_images import SUFFIXES, find_images
from caffeconv.data.lists import read_list
from caffeconv.data.records import Records, open_records
from caffeconv.errors import CaffeconvError
from caffeconv.files.database_folders import database_in
from caffeconv.files.hdf5 import hdf5_faults, open_hdf5
from caffeconv.files.net_folders import NetFolders
from caffeconv.files.plain_file import read_plain
from caffeconv.infogain.reading import HDF5, TABLES, find_dataset
from caffeconv.tensor.shape import format_shape

_KINDS = (
    "an LMDB or LevelDB (its folder), an HDF5 file, a list of pictures with labels (.txt), a folder or pattern of "
    "label pictures, or an array (.npy) was needed"
)
_TOGETHER = 1024
_VALUES_TOGETHER = 1 << 22


@dataclass(frozen=True)
class Labels:
    """The labels of some items."""

    values: NDArray[np.generic]
    """Items × labels of each."""
    where: Callable[[int, int], str]
    """Names a label, by its row and column here, in a message."""


class LabelSource(ABC):
    """Labels, some items at a time."""

    total: int | None = None
    """The number of items, where it is known beforehand."""

    @abstractmethod
    def __iter__(self) -> Iterator[Labels]:
        """Raises CaffeconvError where the source is damaged, or holds no labels."""


def open_labels(place: Path, *, label_maps: bool = False, dataset: str = "label") -> LabelSource:
    """The labels at a place, found out by what is there.

    - A folder with an LMDB or LevelDB: the `label` of each record; with `label_maps`, the record's values.
    - .h5, .hdf5, or a list of such files (.txt): the dataset `dataset`, else the only one; items along its first axis.
    - Another .txt: lines `picture label`, as ImageData reads them, the pictures themselves are not opened; or lines
      `picture label-picture`; with `label_maps`, the picture that each line ends in.
    - A picture, a folder or pattern of pictures: their pixels.
    - .npy: items along the first axis.

    Raises CaffeconvError where there is nothing of the kind.
    """
    kind = place.suffix.lower()
    backend = database_in(place)
    if backend is not None:
        records = open_records(place, backend)
        # how many a LevelDB has would only be known after reading it all
        return _Database(records, records.count() if backend == "LMDB" else None, label_maps=label_maps)
    if kind in HDF5:
        return _Hdf5([place], dataset)
    if kind in (".npy", ".npz"):
        return _Array(place, dataset)
    if place.is_dir() or kind in SUFFIXES or any(mark in place.name for mark in "*?["):
        return _LabelImages([(path, str(path)) for path in find_images(place).paths])
    if kind not in TABLES and not place.is_file():
        raise CaffeconvError(f"{place}: {'no such file' if not place.exists() else 'no file'}; {_KINDS}")
    return _open_list(place, dataset, label_maps=label_maps)


def _open_list(path: Path, dataset: str, *, label_maps: bool) -> LabelSource:
    text = read_list(path)
    words = text.split()
    if not words:
        raise CaffeconvError(f"{path}: the list is empty; {_KINDS}")
    if Path(words[0]).suffix.lower() in HDF5:
        return _Hdf5([_find(name, path) for name in words], dataset)
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if label_maps or (len(lines[0][1]) > 1 and Path(lines[0][1][-1]).suffix.lower() in SUFFIXES):
        ends = [(number, line[-1]) for number, line in lines]
        return _LabelImages([(_find(name, path), f"{path}, line {i} ({name})") for i, name in ends])
    return _LabelledImages(ImageList(path, "", NetFolders(path.parent), color=True, size=None))


def _find(name: str, listed_in: Path) -> Path:
    """A file that a list names: from the current folder, else from the list's folder, or from one that this is in."""
    paths = (NetFolders(folder).find(name) for folder in listed_in.absolute().parents)
    return next((path for path in paths if path.exists()), Path(name))


class _Database(LabelSource):
    """Records of Datum messages."""

    def __init__(self, records: Records, total: int | None, *, label_maps: bool) -> None:
        self.total = total
        self._records = records
        self._label_maps = label_maps

    def __iter__(self) -> Iterator[Labels]:
        records = iter(self._records)
        if self._label_maps:
            for key, content in records:
                yield self._map(content, self._records.where(key))
            return
        while some := [(key, self._label(content, key)) for key, content in islice(records, _TOGETHER)]:
            yield self._labels(some)

    def _labels(self, some: Sequence[tuple[bytes, int]]) -> Labels:
        labels = np.array([[label] for _, label in some])
        return Labels(labels, lambda i, _: self._records.where(some[i][0]))

    def _label(self, content: bytes, key: bytes) -> int:
        try:
            return Datum.FromString(content).label
        except DecodeError:
            where = self._records.where(key)
            raise CaffeconvError(f"{where}: {len(content)} bytes that are no Datum; a whole Datum was needed") from None

    def _map(self, content: bytes, where: str) -> Labels:
        values = read_datum(content, where).values
        if values.shape[0] != 1:
            raise CaffeconvError(f"{where}: {format_shape(values.shape)} values; one channel of labels was needed")
        return _label_map(values[0], where)


class _Hdf5(LabelSource):
    """A dataset in one or more HDF5 files."""

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        self._paths = paths
        self._name = name

    def __iter__(self) -> Iterator[Labels]:
        for path in self._paths:
            if not path.is_file():
                raise CaffeconvError(f"{path}: no such file; an HDF5 file with labels was needed")
            with open_hdf5(path) as file, hdf5_faults(path):
                yield from self._rows(find_dataset(file, path, self._name), path)

    def _rows(self, dataset: object, path: Path) -> Iterator[Labels]:
        import h5py

        assert isinstance(dataset, h5py.Dataset)
        where = f"{path}, dataset {dataset.name.lstrip('/')}"
        if not dataset.shape:
            raise CaffeconvError(f"{where}: a single number; an axis of items was needed")
        item_size = int(np.prod(dataset.shape[1:], dtype=np.int64))
        step = max(1, min(_TOGETHER, _VALUES_TOGETHER // max(1, item_size)))
        for start in range(0, dataset.shape[0], step):
            yield _rows(np.asarray(dataset[start : start + step]), where, start)


class _Array(LabelSource):
    """An array file."""

    def __init__(self, path: Path, name: str) -> None:
        from caffeconv.data.array_files import read_array

        self._array = np.atleast_1d(read_array(path, name))
        self._path = path
        self.total = len(self._array)

    def __iter__(self) -> Iterator[Labels]:
        for start in range(0, len(self._array), _TOGETHER):
            yield _rows(self._array[start : start + _TOGETHER], str(self._path), start)


def _rows(values: NDArray[np.generic], where: str, start: int) -> Labels:
    def name(i: int, j: int) -> str:
        place = np.unravel_index(j, values.shape[1:]) if values.ndim > 1 else ()
        return f"{where}, item {start + i}" + (f", at {', '.join(str(int(x)) for x in place)}" if len(place) else "")

    return Labels(values.reshape(len(values), -1), name)


class _LabelledImages(LabelSource):
    """The labels beside the names of pictures."""

    def __init__(self, images: ImageList) -> None:
        self._images = images
        self._lines = images.lines()
        self.total = len(self._lines)

    def __iter__(self) -> Iterator[Labels]:
        for start in range(0, len(self._lines), _TOGETHER):
            some = self._lines[start : start + _TOGETHER]
            yield self._labels(some)

    def _labels(self, some: Sequence[Line]) -> Labels:
        return Labels(np.array([[line.label] for line in some]), lambda i, _: self._images.where(some[i]))


class _LabelImages(LabelSource):
    """Pictures whose pixels are labels."""

    def __init__(self, images: Sequence[tuple[Path, str]]) -> None:
        self._images = images
        """Each with what to call it."""
        self.total = len(images)

    def __iter__(self) -> Iterator[Labels]:
        for path, where in self._images:
            try:
                content = read_plain(path)
            except OSError as error:
                needed = "a label picture was needed"
                raise CaffeconvError(f"{where}: {path} cannot be read: {error.strerror}; {needed}") from None
            yield _label_map(_pixels(content, where), where)


def _label_map(values: NDArray[np.generic], where: str) -> Labels:
    """Of one picture, H×W."""
    width = values.shape[1]
    return Labels(values.reshape(1, -1), lambda _, j: f"{where}, row {j // width}, column {j % width}")


def _pixels(content: bytes, where: str) -> NDArray[np.uint8]:
    """The labels in a picture, H×W: its grey values, or the numbers that a PNG's colours have in its palette."""
    if content.startswith(b"\xff\xd8"):
        raise CaffeconvError(f"{where}: a JPEG, which changes the values that it stores; labels need PNG or the like")
    bits = _palette_bits(content)
    image = decode_image(content if bits is None else _without_palette(content), where, color=None)
    if image.shape[2] > 1 and (image != image[:, :, :1]).any():
        raise CaffeconvError(f"{where}: a picture in colour; one channel with each pixel's class was needed")
    grey = image[:, :, 0]
    # as grey, 1, 2 or 4 bits are stretched to 0…255
    return grey if bits is None else np.asarray(grey // (255 // ((1 << bits) - 1)), np.uint8)


_PNG = b"\x89PNG\r\n\x1a\n"
_HEADER = _PNG + b"\0\0\0\rIHDR"
_PALETTE, _GREY = 3, 0


def _palette_bits(content: bytes) -> int | None:
    """Bits of each pixel of a PNG with a palette; None for another picture."""
    if content[: len(_HEADER)] != _HEADER or len(content) < 33 or content[25] != _PALETTE:
        return None
    bits = content[24]
    return bits if bits in (1, 2, 4, 8) else None


def _without_palette(content: bytes) -> bytes:
    """The PNG with the numbers of its palette as grey values."""
    chunks = [_PNG]
    position = len(_PNG)
    while position + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 12 + length
        if kind == b"IHDR":
            header = bytearray(content[position + 8 : position + 8 + length])
            header[9] = _GREY
            body = kind + bytes(header)
            chunks.append(struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body)))
        elif kind not in (b"PLTE", b"tRNS"):
            chunks.append(content[position:end])
        position = end
    return b"".join(chunks)
