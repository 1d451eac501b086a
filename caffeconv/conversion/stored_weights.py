"""Weights without a net around them: every blob as the file has it, under its layer's name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from caffeconv.caffe_format.caffemodel import StoredLayer, WeightsFile
from caffeconv.conversion.upgrade_file import todays_shape
from caffeconv.emit.weights.weight_arrays import Array, WeightsContent
from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import PathLike
from caffeconv.files.hdf5 import is_hdf5
from caffeconv.frontend.bind import with_stored_shapes
from caffeconv.frontend.build import build_partial_graph
from caffeconv.frontend.netdef import define_net
from caffeconv.frontend.open_files import Weights, read_source, read_weights, weights_files
from caffeconv.frontend.options import NetOptions
from caffeconv.layers import LAYERS
from caffeconv.tensor.shape import count, shape_string
from caffeconv.tensor.weight_array import Source, WeightArray


def is_weights_alone(net: PathLike, weights: Weights) -> bool:
    """Whether NET is itself a weights file, one that carries no net, and no other is given."""
    path = Path(net)
    if weights or path.suffix.lower() not in (".caffemodel", ".h5", ".hdf5") or not path.is_file():
        return False
    if is_hdf5(path):
        return True
    carried = read_weights(path).net()
    return not any(layer.top for layer in carried.layer) and not any(layer.top for layer in carried.layers)


def stored_arrays(net: PathLike, weights: Weights = None, options: NetOptions | None = None) -> WeightsContent | None:
    """Each blob as `layer/0`, `layer/1`, …, of a weights file alone, or of a net that has layers of unknown types.

    Parameters of layers that are known, and that such a net builds, keep their own names. None where all types of the
    net are known. Raises CaffeconvError for damaged files, and where none of the net's layers has a blob.
    """
    if is_weights_alone(net, weights):
        return _content("", _arrays([read_weights(Path(net))], {}))
    options = options or NetOptions()
    source = read_source(net, options)
    definition = define_net(source, options)
    if all(layer.type in LAYERS for layer in definition.layers):
        return None
    files = [read_weights(path) for path in weights_files(net, weights)]
    draft = build_partial_graph(with_stored_shapes(definition, files), options.shapes)
    names: dict[str, tuple[str, ...]] = {layer.name: () for layer in definition.layers}
    names.update((node.name, tuple(param.name for param in node.params)) for node in draft.nodes)
    return _content(definition.name, _arrays(files, names))


def _arrays(files: Sequence[WeightsFile], names: dict[str, tuple[str, ...]]) -> Iterator[Array]:
    """The blobs of the layers that `names` has, of all layers where it is empty; a later file's replace an earlier's."""
    layers: dict[str, tuple[WeightsFile, StoredLayer]] = {}
    for file in files:
        seen: set[str] = set()
        for layer in file.layers:
            if layer.name not in seen and (not names or layer.name in names):
                layers[layer.name] = file, layer
            seen.add(layer.name)
    for file, layer in layers.values():
        own = names.get(layer.name, ())
        for index, blob in enumerate(layer.blobs):
            if blob is None:
                continue
            if blob.count != count(blob.shape):
                raise CaffeconvError(
                    f"{file.path}: layer '{layer.name}', blob {index}: {blob.count} numbers for the shape "
                    f"{shape_string(blob.shape)}; the file is damaged: copy or download it again"
                )
            name = own[index] if len(own) == len(layer.blobs) else str(index)
            shape = (todays_shape(layer.type, index, blob.shape) if blob.legacy else None) or blob.shape
            origin = Source(layer.name, index, name, blob.shape, str(file.path))
            yield Array(layer.name, WeightArray(name, shape, (origin,), "none", blob.blocks))


def _content(net: str, arrays: Iterator[Array]) -> WeightsContent:
    content = WeightsContent("nchw", net, tuple(arrays), {}, {})
    if not content.arrays:
        raise CaffeconvError("no layer of the weights has a blob; there are no weights to write")
    return content
