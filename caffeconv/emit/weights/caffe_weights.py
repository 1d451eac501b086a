"""Writes a bound graph's layers and parameters as Caffe saves a net (caffe: Net::ToProto, Net::ToHDF5)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from caffeconv.caffe_format.caffemodel_writer import WrittenBlob, write_layer
from caffeconv.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter
from caffeconv.emit.weights.weight_arrays import Array, WeightsContent
from caffeconv.errors import CaffeconvError
from caffeconv.files import arguments
from caffeconv.files.atomic import PathLike, whole_file, whole_file_in_parts
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.tensor.non_finite import counted
from caffeconv.tensor.param import Param, ParamKey
from caffeconv.tensor.shape import FloatArray

if TYPE_CHECKING:
    import h5py

DiffOf: TypeAlias = "Callable[[ParamKey], FloatArray]"
HDF5_SUFFIX = ".caffemodel.h5"
MOST_BYTES = (1 << 31) - 1
"""protobuf, and so Caffe, reads no larger message."""


def save_weights(path: Path, graph: Graph) -> Counter[str]:
    """`save_hdf5` where the name ends in ``.caffemodel.h5``, else `save_caffemodel`."""
    save = save_hdf5 if path.name.lower().endswith(HDF5_SUFFIX) else save_caffemodel
    return save(path, graph)


def save_caffemodel(path: PathLike, graph: Graph, diff_of: DiffOf | None = None) -> Counter[str]:
    """Writes every layer, as its prototxt has it, with its parameters; a shared one stands in each layer that uses it.

    Returns which parameters, layer/name, hold NaN or infinite values, and how many.

    diff_of: gives what is written as each parameter's diff, float32, with as many elements; None: no diffs.
    The Split layers that Caffe adds to its own files are left out. Raises CaffeconvError where `path` cannot be written,
    or the file would be too large for Caffe.
    """
    path = arguments.path("path", path)
    head, non_finite = NetParameter(name=graph.net.name or None).SerializeToString(), Counter[str]()
    layers = [
        (_definition(node), [_blob(node, p, diff_of, non_finite) for p in node.params]) for node in _own_layers(graph)
    ]
    # each length before a blob or layer takes at most six bytes
    size = len(head) + sum(len(it) + 6 + sum(len(blob) + 6 for blob in blobs) for it, blobs in layers)
    if size > MOST_BYTES:
        raise CaffeconvError(
            f"{path}: the parameters take {size / 1e9:.1f} GB; a caffemodel holds at most {MOST_BYTES / 1e9:.1f} GB. "
            f"Write HDF5: a name that ends in {HDF5_SUFFIX}"
        )
    with whole_file(path) as file:
        file.write(head)
        for definition, blobs in layers:
            write_layer(file, definition, blobs)
    return non_finite


def save_stored(path: Path, content: WeightsContent) -> Counter[str]:
    """Writes blobs that stand alone, each in a layer of its own name and without a type.

    Returns what `save_caffemodel` does.
    """
    non_finite = Counter[str]()
    with whole_file(path) as file:
        for name, arrays in groupby(content.arrays, lambda array: array.group):
            blobs = [
                WrittenBlob.streamed(array.weight_array.shape, partial(_counted_parts, array, non_finite))
                for array in arrays
            ]
            write_layer(file, LayerParameter(name=name).SerializeToString(), blobs)
    return non_finite


def _counted_parts(array: Array, non_finite: Counter[str]) -> Iterator[FloatArray]:
    return counted(array.parts(), array.key, non_finite)


def _own_layers(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.layer.stands_in_net]


def _blob(node: Node, param: Param, diff_of: DiffOf | None, non_finite: Counter[str]) -> WrittenBlob:
    def blocks() -> Iterator[FloatArray]:
        return counted(param.blocks(), f"{node.name}/{param.name}", non_finite)

    blob = WrittenBlob.streamed(param.shape, blocks)
    return blob if diff_of is None else blob.with_diff(diff_of(param.key_in(node.name)))


def _definition(node: Node) -> bytes:
    proto = LayerParameter()
    proto.CopyFrom(node.definition.proto)
    proto.ClearField("blobs")
    proto.name = node.name
    # caffe: Net::Init gives every layer the net's phase
    proto.phase = TRAIN if node.definition.phase == "TRAIN" else TEST
    return proto.SerializeToString()


def save_hdf5(path: PathLike, graph: Graph, diff_of: DiffOf | None = None) -> Counter[str]:
    """Writes the parameters as /data/<layer>/<index>, float32; a shared one stands in its owner's layer only.

    diff_of: gives what is written as /diff/<layer>/<index>, in each layer that uses it, as of `save_caffemodel`.
    Returns what `save_caffemodel` does.
    Raises CaffeconvError where `path` cannot be written, and for a layer whose name holds a slash, as Caffe does.
    """
    path = arguments.path("path", path)
    slashed = [node.name for node in _own_layers(graph) if "/" in node.name or node.name in ("", ".")]
    if slashed:
        raise CaffeconvError(
            f"{path}: layer '{slashed[0]}' cannot be a group in HDF5, where a slash parts groups (Caffe refuses it too); "
            "a .caffemodel takes any name"
        )
    import h5py

    non_finite = Counter[str]()
    with whole_file_in_parts(path) as part:
        with h5py.File(part, "w") as file:
            data = file.create_group("data")
            places = [place for node in _own_layers(graph) for place in _reserve(data.create_group(node.name), node)]
            if diff_of is not None:
                _write_diffs(file.create_group("diff"), graph, diff_of)
        for offset, name, param in places:
            part.seek(offset)
            for block in counted(param.blocks(), name, non_finite):
                part.write(np.ascontiguousarray(block, "<f4").data)
    return non_finite


def _reserve(group: h5py.Group, node: Node) -> Iterator[tuple[int, str, Param]]:
    """Makes room for a layer's own parameters: where each one's values go in the file, and its name.

    They are written there when HDF5 has left the file: it would take each of them in one piece.
    """
    import h5py

    for index, param in enumerate(node.params):
        if param.owner is not None:
            continue
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.CONTIGUOUS)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        properties.set_obj_track_times(False)  # so that the same weights give the same bytes
        space = h5py.h5s.create_simple(param.shape) if param.shape else h5py.h5s.create(h5py.h5s.SCALAR)
        dataset = h5py.h5d.create(group.id, str(index).encode(), h5py.h5t.IEEE_F32LE, space, properties)
        if math.prod(param.shape):
            yield dataset.get_offset(), f"{node.name}/{param.name}", param


def _write_diffs(group: h5py.Group, graph: Graph, diff_of: DiffOf) -> None:
    for node in _own_layers(graph):
        layer = group.create_group(node.name)
        for index, param in enumerate(node.params):
            diff = diff_of(param.key_in(node.name))
            layer.create_dataset(str(index), data=np.ascontiguousarray(diff, "<f4").reshape(param.shape))
