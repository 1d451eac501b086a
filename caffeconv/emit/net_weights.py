"""Writes a bound graph's layers and parameters as Caffe saves a net (caffe: Net::ToProto, Net::ToHDF5)."""

from __future__ import annotations

from pathlib import Path

from caffeconv.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter
from caffeconv.emit.atomic import whole_file
from caffeconv.emit.caffemodel import WrittenBlob, write_layer
from caffeconv.errors import CaffeconvError
from caffeconv.ir import Graph, Node


def save_caffemodel(path: Path, graph: Graph) -> None:
    """Writes every layer, as its prototxt has it, with its parameters; a shared one stands in each layer that uses it.

    The Split layers that Caffe adds to its own files are left out. Raises CaffeconvError where `path` cannot be written.
    """
    with whole_file(path) as file:
        file.write(NetParameter(name=graph.net.name or None).SerializeToString())
        for node in graph.nodes:
            blobs = [WrittenBlob.of(param.shape, param.array()) for param in node.params]
            write_layer(file, _definition(node).SerializeToString(), blobs)


def _definition(node: Node) -> LayerParameter:
    proto = LayerParameter()
    proto.CopyFrom(node.definition.proto)
    proto.ClearField("blobs")
    proto.name = node.name
    # caffe: Net::Init gives every layer the net's phase
    proto.phase = TRAIN if node.definition.phase == "TRAIN" else TEST
    return proto


def save_hdf5(path: Path, graph: Graph) -> None:
    """Writes the parameters as /data/<layer>/<index>, float32; a shared one stands in its owner's layer only.

    Raises CaffeconvError where `path` cannot be written, and for a layer whose name holds a slash, as Caffe does.
    """
    slashed = [node.name for node in graph.nodes if "/" in node.name or node.name in ("", ".")]
    if slashed:
        raise CaffeconvError(
            f"{path}: layer '{slashed[0]}' cannot be a group in HDF5, where a slash parts groups (Caffe refuses it too); "
            "save() writes a caffemodel, which takes any name"
        )
    import h5py

    with whole_file(path) as target, h5py.File(target, "w") as file:
        data = file.create_group("data")
        for node in graph.nodes:
            group = data.create_group(node.name)
            for index, param in enumerate(node.params):
                if param.owner is None:
                    group.create_dataset(str(index), data=param.array())
