"""Small nets as text, run in a plain onnxruntime, for the tests of layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

import caffeconv
from caffeconv.caffe_pb2 import BlobProto, LayerParameter, NetParameter

Array = NDArray[np.float32]


def input_layer(name: str, shape: tuple[int, ...]) -> str:
    dims = " ".join(f"dim: {dim}" for dim in shape)
    return f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'


def net_text(inputs: Mapping[str, tuple[int, ...]], layers: str, head: str = "") -> str:
    return head + "".join(input_layer(name, shape) for name, shape in inputs.items()) + layers


def write_net(folder: Path, inputs: Mapping[str, tuple[int, ...]], layers: str, head: str = "") -> Path:
    path = folder / "net.prototxt"
    path.write_text(net_text(inputs, layers, head))
    return path


def blob(values: Array) -> BlobProto:
    proto = BlobProto(data=values.ravel().tolist())
    proto.shape.dim.extend(values.shape)
    return proto


def write_weights(path: Path, layer: str, blobs: list[Array]) -> Path:
    net = NetParameter(layer=[LayerParameter(name=layer, blobs=[blob(values) for values in blobs])])
    path.write_bytes(net.SerializeToString())
    return path


def session_of(model: ModelProto) -> onnxruntime.InferenceSession:
    """A session with nothing of ours registered."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_model(model: ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    session = session_of(model)
    used = {i.name: np.asarray(feeds[i.name], np.float32) for i in session.get_inputs()}
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, used), strict=True))


def run_net(
    folder: Path, layers: str, feeds: Mapping[str, Array], *, written_batch: int | None = None,
    weights: Path | None = None, opset: int | None = None,
) -> dict[str, Array]:  # fmt: skip
    """Every blob of a net of these inputs; `written_batch` stands in its prototxt instead of axis 0 of the feeds."""
    shapes = {name: values.shape for name, values in feeds.items()}
    if written_batch is not None:
        shapes = {name: (written_batch, *shape[1:]) for name, shape in shapes.items()}
    model = caffeconv.convert(write_net(folder, shapes, layers), weights, outputs="all", opset=opset)
    return run_model(model, feeds)
