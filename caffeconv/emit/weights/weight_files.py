"""Arrays → a file: safetensors, npz, or HDF5 that Keras loads by layer names. Values are streamed."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

import numpy as np

from caffeconv.emit.weights.block_stream import stream
from caffeconv.emit.weights.weight_arrays import FORMAT, METADATA, Array, WeightsContent
from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import PathLike, whole_file, whole_file_in_parts
from caffeconv.tensor.non_finite import counted

if TYPE_CHECKING:
    import h5py

Advance = Callable[[int], None]
MOST_ATTRIBUTE_BYTES = 64512
"""What Keras puts into one attribute; HDF5 takes 64 kB."""
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest that zip knows, so that the same weights make the same bytes."""


@dataclass(frozen=True)
class WrittenArrays:
    """What was written."""

    bytes: int
    non_finite: Mapping[str, int]
    """Arrays that hold NaN or infinite values → how many."""


def write_weight_arrays(
    path: PathLike, content: WeightsContent, advance: Advance = lambda arrays: None
) -> WrittenArrays:
    """Writes the file whole or not at all, in the format that its suffix names.

    advance: called with a number of arrays as they are written.

    Raises:
        CaffeconvError: it cannot be written, or has another suffix.
    """
    if Path(path).name.lower().endswith(".weights.h5"):
        raise CaffeconvError(
            f"{path}: Keras 3 takes what ends in .weights.h5 for another format; end the name in .h5 alone"
        )
    writer = WRITERS.get(Path(path).suffix.lower())
    if writer is None:
        raise CaffeconvError(f"{path}: a name that ends in {', '.join(WRITERS)} was needed")
    values = _Values(advance)
    with (whole_file_in_parts if writer is write_keras_h5 else whole_file)(path) as file:
        writer(file, content, values)
        size = file.seek(0, os.SEEK_END) if file.seekable() else content.bytes
    return WrittenArrays(size, values.non_finite)


@dataclass(frozen=True)
class _Values:
    """Writes the values of arrays."""

    advance: Advance
    non_finite: Counter[str] = field(default_factory=Counter)

    def write(self, file: IO[bytes], array: Array) -> None:
        for block in counted(stream(array.parts()), array.key, self.non_finite):
            if block.size:
                file.write(block.reshape(-1).view(np.uint8).data)
        self.advance(1)


# -- safetensors -------------------------------------------------------------------------------------------------------


def write_safetensors(file: BinaryIO, content: WeightsContent, values: _Values) -> None:
    """Length of the header (8 bytes, little-endian), the header as JSON, and the arrays one after the other."""
    header: dict[str, object] = {METADATA: {"format": "np", "caffeconv": content.metadata()}}
    start = 0
    for array in content.arrays:
        header[array.key] = {
            "dtype": "F32", "shape": list(array.weight_array.shape), "data_offsets": [start, start + array.bytes]
        }  # fmt: skip
        start += array.bytes
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for array in content.arrays:
        values.write(file, array)


# -- npz ---------------------------------------------------------------------------------------------------------------


def write_npz(file: BinaryIO, content: WeightsContent, values: _Values) -> None:
    """A zip of .npy members, not compressed, and the metadata as a string without axes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for array in content.arrays:
            header = {"descr": "<f4", "fortran_order": False, "shape": array.weight_array.shape}
            member = zipfile.ZipInfo(f"{array.key}.npy", ZIP_TIME)
            with archive.open(member, "w", force_zip64=array.bytes >= zipfile.ZIP64_LIMIT >> 1) as member_file:
                np.lib.format.write_array_header_1_0(member_file, header)
                values.write(member_file, array)
        with archive.open(zipfile.ZipInfo(f"{METADATA}.npy", ZIP_TIME), "w") as member_file:
            np.lib.format.write_array(member_file, np.array(content.metadata()), allow_pickle=False)


# -- HDF5, as Keras has it ---------------------------------------------------------------------------------------------


def write_keras_h5(file: BinaryIO, content: WeightsContent, values: _Values) -> None:
    """A group for each layer, named in the attribute `layer_names`, its arrays in Keras's order in `weight_names`.

    HDF5 lays out the file with the places of all arrays, which are then filled from the mapped weights.
    """
    import h5py

    with h5py.File(file, "w") as h5:
        h5.attrs["format"] = FORMAT
        h5.attrs["layout"] = content.layout
        # what Keras 1 wrote, which named no version, Keras 2 would transpose
        h5.attrs["keras_version"], h5.attrs["backend"] = b"2.0.0", b"tensorflow"
        h5.create_dataset(METADATA, data=content.metadata(), dtype=h5py.string_dtype())
        groups = [(name, list(arrays)) for name, arrays in groupby(content.arrays, key=lambda array: array.group)]
        _write_names(h5.attrs, "layer_names", [name for name, _ in groups])
        facts = {str(layer.get("name", name)): layer for name, layer in content.layers.items()}
        offsets = [offset for name, arrays in groups for offset in _lay_out(h5.create_group(name), arrays)]
        for name, _ in groups:
            h5[name].attrs["caffe"] = json.dumps(facts.get(name, {}), ensure_ascii=False)
    for array, offset in zip(content.arrays, offsets, strict=True):
        file.seek(offset or 0)
        values.write(file, array)


def _lay_out(group: h5py.Group, arrays: Sequence[Array]) -> Iterator[int | None]:
    """Makes the data sets of a layer; where in the file each array's values are to lie."""
    import h5py

    _write_names(group.attrs, "weight_names", [array.weight_array.name for array in arrays])
    for array in arrays:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        properties.set_obj_track_times(False)  # so that the same weights give the same bytes
        shape = array.weight_array.shape
        space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
        dataset = h5py.h5d.create(
            group.id, array.weight_array.name.encode(), h5py.h5t.IEEE_F32LE, space, dcpl=properties
        )
        origin = array.origin()
        attributes = h5py.Dataset(dataset).attrs
        attributes["caffe"] = json.dumps(origin["caffe"], ensure_ascii=False)
        attributes["transposition"] = origin["transposition"]
        yield dataset.get_offset()


def _write_names(attributes: h5py.AttributeManager, name: str, values: Sequence[str]) -> None:
    """A list of names; in several attributes, numbered as by Keras, where one would be too large."""
    encoded = np.array([value.encode() for value in values], "S") if values else np.empty(0, "S1")
    number = -(-encoded.nbytes // MOST_ATTRIBUTE_BYTES)
    if number <= 1:
        attributes[name] = encoded
        return
    for i, part in enumerate(np.array_split(encoded, number + 1)):
        attributes[f"{name}{i}"] = part


WRITERS: dict[str, Callable[[BinaryIO, WeightsContent, _Values], None]] = {
    ".npz": write_npz,
    ".h5": write_keras_h5,
    ".safetensors": write_safetensors,
}
