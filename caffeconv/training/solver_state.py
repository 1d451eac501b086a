"""A solver's state in files, as Caffe writes and reads it (caffe: sgd_solver.cpp)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from google.protobuf.message import DecodeError

import caffeconv.caffe_pb2 as caffe_pb2
from caffeconv.caffe_format.caffemodel_writer import WrittenBlob
from caffeconv.caffe_format.file_faults import file_faults
from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import whole_file, whole_file_in_parts
from caffeconv.files.hdf5 import hdf5_faults, is_hdf5, numbers_in, open_hdf5
from caffeconv.files.plain_file import PlainFile
from caffeconv.files.wire import BYTES, VARINT, encode_varint, tag
from caffeconv.tensor.shape import FloatArray, Shape

if TYPE_CHECKING:
    import h5py

STATE_SUFFIX = ".solverstate"
_ITER, _LEARNED_NET, _HISTORY, _CURRENT_STEP, _KEPT_STATES = 1, 2, 3, 4, 1000
"""Fields of SolverState."""
_NAME, _VALUES = 1, 2
"""Fields of KeptStates."""
_KEPT = "kept_states"
"""The group of HDF5 files: of each net, by its number, a dataset for each state, whose attribute `name` is the state's."""


@dataclass(frozen=True)
class SolverState:
    """What a solver goes on from."""

    iteration: int
    learned_net: str
    """The weights file, as the state names it; empty where it names none."""
    current_step: int
    history: tuple[FloatArray, ...]
    kept_states: tuple[Mapping[str, FloatArray], ...] = ()
    """What layers keep from pass to pass, of the net that learns and of each test net; empty where no layer keeps any."""


def write_state(path: Path, state: SolverState) -> None:
    """Writes a .solverstate whole or not at all; HDF5 where the name ends in ``.h5``. CaffeconvError where it cannot be."""
    write = _write_hdf5 if path.suffix == ".h5" else _write_proto
    write(path, state)


def _write_proto(path: Path, state: SolverState) -> None:
    name = state.learned_net.encode()
    with whole_file(path) as file:
        file.write(tag(_ITER, VARINT) + encode_varint(state.iteration))
        file.write(tag(_LEARNED_NET, BYTES) + encode_varint(len(name)) + name)
        for values in state.history:
            _write_blob(file, _HISTORY, values)
        file.write(tag(_CURRENT_STEP, VARINT) + encode_varint(state.current_step))
        for states in state.kept_states:
            message = BytesIO()
            for key, values in states.items():
                message.write(tag(_NAME, BYTES) + encode_varint(len(key.encode())) + key.encode())
                _write_blob(message, _VALUES, values)
            file.write(tag(_KEPT_STATES, BYTES) + encode_varint(len(message.getvalue())) + message.getvalue())


def _write_blob(file: BinaryIO, field: int, values: FloatArray) -> None:
    blob = WrittenBlob.of(values.shape, values)
    file.write(tag(field, BYTES) + encode_varint(len(blob)))
    blob.write(file)


def _write_hdf5(path: Path, state: SolverState) -> None:
    import h5py

    with whole_file_in_parts(path) as part, h5py.File(part, "w") as file:
        file.create_dataset("iter", data=np.array([state.iteration], np.int32))
        file.create_dataset("current_step", data=np.array([state.current_step], np.int32))
        name = state.learned_net.encode()
        file.create_dataset("learned_net", data=np.array(name, f"S{len(name) + 1}"))
        group = file.create_group("history")
        for i, values in enumerate(state.history):
            group.create_dataset(str(i), data=np.ascontiguousarray(values, "<f4").reshape(values.shape))
        for number, states in enumerate(state.kept_states):
            kept = file.create_group(f"{_KEPT}/{number}")
            for i, (key, values) in enumerate(states.items()):
                kept.create_dataset(str(i), data=np.ascontiguousarray(values, "<f4")).attrs["name"] = key


def read_state(path: Path) -> SolverState:
    """A .solverstate of either form; CaffeconvError where it is missing, damaged, or something else."""
    return _read_hdf5(path) if is_hdf5(path) else _read_proto(path)


def _read_proto(path: Path) -> SolverState:
    message = caffe_pb2.SolverState()
    try:
        message.ParseFromString(_bytes_of(path))
    except DecodeError:
        raise CaffeconvError(f"{path}: not readable; a whole .solverstate that Caffe wrote was needed") from None
    if not message.HasField("iter"):
        raise CaffeconvError(f"{path}: it names no iteration; a solver's state (.solverstate) was needed")
    history = tuple(_values(blob) for blob in message.history)
    kept = tuple(dict(zip(states.name, map(_values, states.values), strict=False)) for states in message.kept_states)
    return SolverState(message.iter, message.learned_net, message.current_step, history, kept)


def _values(blob: caffe_pb2.BlobProto) -> FloatArray:
    return np.array(blob.data, np.float32).reshape(_shape(blob))


def _bytes_of(path: Path) -> bytes:
    with file_faults(path, "a solver's state (.solverstate)"):
        file = PlainFile(path)
        return file.read(0, len(file))


def _shape(blob: caffe_pb2.BlobProto) -> Shape:
    shape = (blob.num, blob.channels, blob.height, blob.width) if blob.HasField("num") else tuple(blob.shape.dim)
    fits = math.prod(shape) == len(blob.data) and min(shape, default=0) >= 0
    return shape if fits else (len(blob.data),)


def _read_hdf5(path: Path) -> SolverState:
    try:
        with open_hdf5(path) as file, hdf5_faults(path):
            missing = [name for name in ("iter", "current_step", "history") if name not in file]
            if missing:
                raise CaffeconvError(
                    f"{path}: /{missing[0]} is not in it; a solver's state (.solverstate.h5) was needed"
                )
            history = file["history"]
            arrays = tuple(np.asarray(_numbers(history, str(i), path), np.float32) for i in range(len(history)))
            iteration, step = (_number(_numbers(file, name, path)) for name in ("iter", "current_step"))
            return SolverState(iteration, _text(file), step, arrays, tuple(_kept_states(file, path)))
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise CaffeconvError(f"{path}: not readable as a solver's state in HDF5: {error}") from None


def _kept_states(file: h5py.File, path: Path) -> Iterator[Mapping[str, FloatArray]]:
    for number in range(len(file.get(_KEPT, ()))):
        group = file[f"{_KEPT}/{number}"]
        datasets = [_numbers(group, str(i), path) for i in range(len(group))]
        yield {str(dataset.attrs["name"]): np.asarray(dataset, np.float32) for dataset in datasets}


def _numbers(group: h5py.Group, name: str, path: Path) -> h5py.Dataset:
    dataset = numbers_in(group, name, path)
    if dataset is None:
        raise CaffeconvError(f"{path}: {name} holds no numbers; a solver's state (.solverstate.h5) was needed")
    return dataset


def _number(dataset: object) -> int:
    return int(np.ravel(np.asarray(dataset))[0])


def _text(file: object) -> str:
    import h5py

    assert isinstance(file, h5py.File)
    if "learned_net" not in file:
        return ""
    value = file["learned_net"][()]
    text: str = value.decode() if isinstance(value, bytes) else str(value)
    return text.rstrip("\0")


def check_history(path: Path, state: SolverState, shapes: Sequence[Shape]) -> None:
    """Raises CaffeconvError where a state does not fit a solver whose histories have these shapes.

    Another shape with as many values is taken, as Caffe does.
    """
    if len(state.history) != len(shapes):
        raise CaffeconvError(
            f"{path}: it holds {len(state.history)} history blobs, the solver has {len(shapes)}. Incorrect length of "
            "history blobs. It was written for another net, or another type of solver"
        )
    for i, (values, shape) in enumerate(zip(state.history, shapes, strict=True)):
        if values.size != int(np.prod(shape)):
            raise CaffeconvError(
                f"{path}: history blob {i} has {values.size} values, the solver's parameter {int(np.prod(shape))}; it was "
                "written for another net"
            )
