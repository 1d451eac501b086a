"""Writes a model to disk: its values inside, beside it, or left where they lie in the weights file.

No value is held longer than it takes to write it, so memory stays flat whatever the model's size. protobuf's own writer
would hold the whole message twice and stops at 2 GiB, so the few bytes around the values are written by hand. Wire
format: protobuf's encoding guide; field numbers: onnx.proto.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from onnx import ModelProto, TensorProto

from caffeconv.emit.lazy_model import MOST_BYTES, LazyModel, dtype_of, packed, refuse_too_large, without
from caffeconv.emit.metadata import metadata_of
from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import whole_file, whole_files
from caffeconv.files.onnx_records import FILES_KEY, FileRecord, record_text, recorded_files
from caffeconv.files.sha256 import Hashes
from caffeconv.files.wire import BYTES, encode_varint, tag
from caffeconv.tensor.non_finite import count_non_finite
from caffeconv.tensor.param import Param
from caffeconv.tensor.param_values import FileValues, Location

Storage = Literal["embed", "external", "link"]
Block = bytes | memoryview
_LEAST_APART = {"external": 1 << 10, "link": 1 << 16}
"""Tensors of fewer bytes stay in the model, where shape inference sees them; few of a linked one deserve a file."""
_PAGE, _LARGE, _LINE = 1 << 16, 1 << 20, 64  # Windows maps files at multiples of 64 KiB only
_READ = 1 << 18
_TAG_DIGITS = 12
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9


@dataclass(frozen=True)
class Tensor:
    """An initializer whose values are written apart from the rest of the model."""

    proto: TensorProto
    """Name, type and dims."""
    bytes: int
    blocks: Callable[[], Iterator[Block]]
    """Gives the values piece by piece; a piece is good until the next one is asked for."""
    source: str
    stored: Location | None = None
    """Where they lie in a file just as ONNX wants them."""


@dataclass(frozen=True)
class Written:
    """What was written."""

    model: Path
    storage: Storage
    bytes: int
    """The model's own size."""
    data: FileRecord | None
    """The file beside it, where there is one."""
    linked: tuple[Tensor, ...]
    apart: tuple[Tensor, ...]
    """Tensors in the file beside the model."""
    inside: tuple[Tensor, ...]
    non_finite: Mapping[str, int]
    """Tensors that hold NaN or infinite values → how many; linked ones are not looked at."""


def choose_storage(lazy_model: LazyModel, requested: Storage | None) -> Storage:
    """What the caller asks for; else embed, or external where one file cannot hold the model.

    Raises CaffeconvError where that is so for parameters that no weights file has: so large a file must be asked for.
    """
    fillers = (param for param in lazy_model.params.values() if param.is_filled)
    if requested is None and sum(4 * math.prod(param.shape) for param in fillers) >= MOST_BYTES:
        refuse_too_large(lazy_model)
    return requested or ("embed" if lazy_model.bytes < MOST_BYTES else "external")


def write_model(
    lazy_model: LazyModel, out: Path, storage: Storage, hashes: Hashes, metadata: Callable[[], Mapping[str, str]]
) -> Written:
    """Writes `lazy_model` to `out`, whole or not at all.

    Args:
        lazy_model: the model; what it holds in memory is written like the rest.
        out: the ONNX file.
        storage: where its values go: inside; beside it, into a file ``OUT.<start of its SHA-256>.data``; or nowhere,
            the model pointing into the weights file, and only what this does not hold as ONNX wants it beside.
        hashes: digests of the weights files.
        metadata: what the model says besides; asked for when the values have been written.

    Raises:
        CaffeconvError: where `out` cannot be written, would be too large, or lies where it cannot link from.
    """
    if storage == "embed":
        return _embed(lazy_model, out, metadata)
    real = _plain_place(out)
    folder = real.parent
    tensors = tuple(_tensors(lazy_model))
    linked = tuple(t for t in tensors if t.stored is not None) if storage == "link" else ()
    locations = {t.proto.name: _location(t.stored.path, folder, out) for t in linked if t.stored is not None}
    apart = tuple(t for t in tensors if t.proto.name not in locations and t.bytes >= _LEAST_APART[storage])
    superseded, non_finite = _data_files(out), Counter[str]()
    with whole_files(out) as pair:
        places, data = _write_data(pair.side, apart, real.name, non_finite)
        if data is not None:
            pair.name_side(data.location)
        for tensor in linked:
            assert tensor.stored is not None
            places[tensor.proto.name] = _Place(locations[tensor.proto.name], tensor.stored.offset, tensor.bytes)
        files = dict.fromkeys(tensor.stored.path for tensor in linked if tensor.stored is not None)
        records = [_record(_location(path, folder, out), hashes, path) for path in files] + ([data] if data else [])
        entries = {**metadata(), FILES_KEY: record_text(records)} if records else metadata()
        size = _write_message(pair.main, _pointing(lazy_model, places), entries)
    _remove(superseded, data)
    inside = tuple(t for t in tensors if t.proto.name not in places)
    for tensor in inside:
        for _ in _watched(tensor, non_finite):
            pass
    return Written(out, storage, size, data, linked, apart, inside, non_finite)


# -- tensors -----------------------------------------------------------------------------------------------------------


def _tensors(lazy_model: LazyModel) -> Iterator[Tensor]:
    """The parameters, and whatever else is large."""
    for proto in lazy_model.model.graph.initializer:
        head = TensorProto(name=proto.name, data_type=proto.data_type, dims=proto.dims)
        param = lazy_model.params.get(proto.name)
        if param is not None:
            yield _of_param(head, param)
        elif proto.HasField("raw_data") and proto.ByteSize() >= _LEAST_APART["external"]:
            yield Tensor(head, len(proto.raw_data), partial(_held, proto), "computed")


def _of_param(head: TensorProto, param: Param) -> Tensor:
    values, dtype = param.values, dtype_of(head)
    size, blocks = dtype.itemsize * math.prod(param.shape), partial(_computed, param, dtype)
    if not isinstance(values, FileValues):
        return Tensor(head, size, blocks, param.source)
    if values.location is None or dtype != np.float32:
        return Tensor(head, size, blocks, f"{param.source}, not stored there as packed {dtype.name}")
    return Tensor(head, size, partial(_read, *values.location, size), param.source, values.location)


def _held(proto: TensorProto) -> Iterator[Block]:
    yield proto.raw_data


def _computed(param: Param, dtype: np.dtype[np.generic]) -> Iterator[Block]:
    for block in param.blocks():
        yield packed(block, dtype)


def _watched(tensor: Tensor, non_finite: Counter[str]) -> Iterator[Block]:
    """The tensor's blocks; counts the values that are no finite numbers, for as long as each lies in the cache."""
    for block in tensor.blocks():
        if tensor.proto.data_type == TensorProto.FLOAT:
            number = count_non_finite(np.frombuffer(block, np.float32))
            if number:
                non_finite[tensor.proto.name] += number
        yield block


def _read(path: Path, offset: int, size: int) -> Iterator[Block]:
    """Bytes of a file, read rather than mapped: that is as fast, and they do not count as this process's memory."""
    block = memoryview(bytearray(min(_READ, size)))
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while size:
            part = block[: min(size, _READ)]
            read = 0
            while read < len(part):
                more = file.readinto(part[read:])
                if not more:
                    raise CaffeconvError(f"{path}: became shorter while it was read")
                read += more
            size -= read
            yield part


# -- values inside -----------------------------------------------------------------------------------------------------


def _embed(lazy_model: LazyModel, out: Path, metadata: Callable[[], Mapping[str, str]]) -> Written:
    refuse_too_large(lazy_model)
    tensors = tuple(_tensors(lazy_model))
    apart = {tensor.proto.name for tensor in tensors}
    graph = without(lazy_model.model.graph, {"initializer"})
    graph.initializer.extend(t for t in lazy_model.model.graph.initializer if t.name not in apart)
    rest = graph.SerializeToString(deterministic=True)
    heads = [_initializer_head(tensor) for tensor in tensors]
    length = len(rest) + sum(len(head) + tensor.bytes for head, tensor in zip(heads, tensors, strict=True))
    superseded, non_finite = _data_files(out), Counter[str]()
    with whole_file(out) as file:
        size = _write_message(file, without(lazy_model.model, {"graph", "metadata_props"}), {})
        opening = tag(_GRAPH, BYTES) + encode_varint(length) + rest
        file.write(opening)
        for head, tensor in zip(heads, tensors, strict=True):
            file.write(head)
            for block in _watched(tensor, non_finite):
                file.write(block)
        # at the end, because they may hold a digest that is still being worked out
        size += (
            len(opening)
            + length
            - len(rest)
            + _write_message(file, ModelProto(metadata_props=lazy_model.model.metadata_props), metadata())
        )
    _remove(superseded, None)
    return Written(out, "embed", size, None, (), (), tensors, non_finite)


def _initializer_head(tensor: Tensor) -> bytes:
    """What stands before a tensor's values in a GraphProto."""
    head = tensor.proto.SerializeToString(deterministic=True) + tag(_RAW_DATA, BYTES) + encode_varint(tensor.bytes)
    return tag(_INITIALIZER, BYTES) + encode_varint(len(head) + tensor.bytes) + head


def _write_message(file: BinaryIO, model: ModelProto, metadata: Mapping[str, str]) -> int:
    entries = {**metadata_of(model), **metadata}
    del model.metadata_props[:]
    for key in sorted(entries):
        model.metadata_props.add(key=key, value=entries[key])
    content = model.SerializeToString(deterministic=True)
    file.write(content)
    return len(content)


# -- values elsewhere --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where a tensor's values lie."""

    location: str
    offset: int
    length: int


def _write_data(
    file: BinaryIO, tensors: Sequence[Tensor], name: str, non_finite: Counter[str]
) -> tuple[dict[str, _Place], FileRecord | None]:
    """Writes the values one after another; the file's name says what it holds, so no model finds another's data."""
    digest, end = hashlib.sha256(), 0
    starts = []
    for tensor in tensors:
        padding = -end % (_PAGE if tensor.bytes >= _LARGE else _LINE)
        starts.append(end + padding)
        blocks: Iterator[Block] = chain([bytes(padding)], _watched(tensor, non_finite))
        for block in blocks:
            file.write(block)
            digest.update(block)
        end = starts[-1] + tensor.bytes
    if not tensors:
        return {}, None
    record = FileRecord(f"{name}.{digest.hexdigest()[:_TAG_DIGITS]}.data", end, digest.hexdigest())
    spans = zip(tensors, starts, strict=True)
    return {tensor.proto.name: _Place(record.location, start, tensor.bytes) for tensor, start in spans}, record


def _plain_place(out: Path) -> Path:
    """Where `out` really lies; CaffeconvError where it is a link to another folder, to which onnxruntime is not led."""
    real = Path(os.path.realpath(out))
    if real.parent != Path(os.path.realpath(out.parent)):
        raise CaffeconvError(
            f"{out}: this is a link to {real}, and onnxruntime looks for a model's weights beside the link; name {real} itself"
        )
    return real


def _location(path: Path, folder: Path, out: Path) -> str:
    """Where a weights file lies, from the model's folder; CaffeconvError where that is not below it."""
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(folder):
        raise CaffeconvError(
            f"{out}: cannot link to {path}: onnxruntime reads linked weights only from the model's own folder or below it. "
            f"Write the model to {real.parent / out.name}, or take `storage='external'`"
        )
    return real.relative_to(folder).as_posix()


def _record(location: str, hashes: Hashes, path: Path) -> FileRecord:
    digest = hashes.of(path)
    return FileRecord(location, digest.bytes, digest.sha256)


def _pointing(lazy_model: LazyModel, places: Mapping[str, _Place]) -> ModelProto:
    """The model with those tensors pointing to their places, and all others' values inside."""
    graph = without(lazy_model.model.graph, {"initializer"})
    for proto in lazy_model.model.graph.initializer:
        place, param = places.get(proto.name), lazy_model.params.get(proto.name)
        if place is None:
            graph.initializer.append(proto)
            if param is not None:
                graph.initializer[-1].raw_data = packed(param.array(), dtype_of(proto))
            continue
        head = graph.initializer.add(name=proto.name, data_type=proto.data_type, dims=proto.dims)
        head.data_location = TensorProto.EXTERNAL
        for key, value in (("location", place.location), ("offset", place.offset), ("length", place.length)):
            head.external_data.add(key=key, value=str(value))
    model = without(lazy_model.model, {"graph"})
    model.graph.CopyFrom(graph)
    return model


# -- data files of earlier models --------------------------------------------------------------------------------------


def _data_files(out: Path) -> tuple[Path, ...]:
    """The data files, written by us, of the model that stands at `out` now."""
    real = Path(os.path.realpath(out))
    ours = re.compile(re.escape(real.name) + rf"\.[0-9a-f]{{{_TAG_DIGITS}}}\.data")
    if not real.is_file():
        return ()
    return tuple(real.with_name(r.location) for r in recorded_files(real) if ours.fullmatch(r.location))


def _remove(superseded: Iterable[Path], data: FileRecord | None) -> None:
    """Removes data files that no model names any more."""
    for path in superseded:
        if data is None or path.name != data.location:
            with suppress(OSError):
                path.unlink()
