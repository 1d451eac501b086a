"""Rewrites old Caffe files in today's form, as Caffe's upgrade_net_proto_text and upgrade_net_proto_binary did."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from caffeconv.caffe_format.caffemodel import StoredBlob, WeightsFile, read_caffemodel
from caffeconv.caffe_format.caffemodel_writer import WrittenBlob, write_layer
from caffeconv.caffe_format.file_faults import file_faults
from caffeconv.caffe_format.prototxt import NetSource, read_prototxt, unknown_field_lines
from caffeconv.caffe_format.prototxt_writer import net_to_text
from caffeconv.caffe_format.small_files import read_bytes
from caffeconv.caffe_format.upgrade import has_v0_layers, is_folded_away, upgrade_and_tell
from caffeconv.caffe_pb2 import NetParameter
from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import PathLike, refuse_input_as_output, whole_file
from caffeconv.files.hdf5 import is_hdf5
from caffeconv.files.plain_file import PlainFile
from caffeconv.frontend.deploy import to_deploy
from caffeconv.frontend.open_files import refuse_dropped
from caffeconv.frontend.options import NetOptions
from caffeconv.layers import LAYERS
from caffeconv.tensor.param_values import Blob
from caffeconv.tensor.shape import Shape, count, format_shape, shape_string

_TEXT_SUFFIXES = (".prototxt", ".pbtxt", ".pt", ".txt")
_OTHER_SUFFIXES = (".onnx", ".npz", ".npy", ".h5", ".safetensors", ".binaryproto", ".json")
"""What other commands write, or the other way round: no names of caffemodels."""
_COMMENT = re.compile(r"""^(?:[^"'#\n]|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')*\#""", re.MULTILINE)
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")


@dataclass(frozen=True)
class Upgraded:
    """The file written, and notes on it."""

    path: Path
    notes: tuple[str, ...]


def upgrade_file(source: PathLike, out: PathLike, options: NetOptions | None = None) -> Upgraded:
    """Writes a prototxt or caffemodel in today's form; Caffe itself reads the result.

    Args:
        source: a prototxt or a caffemodel, V0, V1 or with any other outdated field; numbers stored as double, half,
            one by one or under num/channels/height/width become packed float32 with a shape.
        out: the file to write, of the same kind as `source`; or a prototxt for the net that a caffemodel carries.
        options: with `deploy`, the prototxt is that of the deploy net: what the phase, level and stages keep, without data
            layers, labels and losses, its inputs of `shapes` where the net does not say them. Else all layers stay.

    Raises:
        CaffeconvError: the file is damaged or something else, Caffe refuses its net, or `out` cannot be written or is
            the input; an input of the deploy net has no known shape.
    """
    source, out, options = Path(source), Path(out), options or NetOptions()
    refuse_input_as_output(out, [source])
    if not _is_binary(source):
        if out.suffix.lower() == ".caffemodel":
            raise CaffeconvError(
                f"{out}: {source} is a prototxt, and becomes one; a name that ends in .prototxt was needed. "
                "Upgrade the caffemodel by itself."
            )
        net_source = read_prototxt(source, ignore_unknown_fields=options.ignore_unknown_fields or options.deploy)
        if options.deploy:
            refuse_dropped(net_source, options)
        return _upgrade_prototxt(net_source, source, out, options)
    if is_hdf5(source):
        raise CaffeconvError(f"{source}: this is HDF5, which Caffe never changed; there is nothing to upgrade in it")
    file = read_caffemodel(source)
    if out.suffix.lower() in _TEXT_SUFFIXES:
        return _extract_net(file, out, options)
    if options.deploy:
        raise CaffeconvError(f"{out}: a deploy net is written as text; a name that ends in .prototxt was needed")
    if out.suffix.lower() in _OTHER_SUFFIXES:
        raise CaffeconvError(
            f"{out}: {source} is a caffemodel, and becomes one; a name that ends in .caffemodel was needed, or in "
            ".prototxt for the net that it carries"
        )
    return _upgrade_caffemodel(file, out)


def _is_binary(path: Path) -> bool:
    with file_faults(path, "a prototxt or caffemodel"):
        file = PlainFile(path)
        return _BINARY.search(file.read(0, min(len(file), 1 << 16))) is not None


def _upgrade_prototxt(source: NetSource, path: Path, out: Path, options: NetOptions) -> Upgraded:
    upgraded, more_notes = upgrade_and_tell(source)
    notes = [f"dropped: {line}" for line in unknown_field_lines(source.dropped)]
    notes += more_notes or ["nothing to upgrade: this is today's form"]
    if options.deploy:
        upgraded, more_notes = _deploy_net(upgraded, options)
        notes += more_notes
    if _COMMENT.search(read_bytes(path, "a prototxt").decode("utf-8", "replace")):
        notes.append(f"the comments of {path} are lost; keep it")
    # the user wrote these blobs, if any, by hand: they belong to the text
    text = net_to_text(upgraded.net, with_blobs=True)
    with whole_file(out) as file:
        file.write(text.encode())
    return Upgraded(out, tuple(notes))


def _deploy_net(source: NetSource, options: NetOptions) -> tuple[NetSource, tuple[str, ...]]:
    """The deploy net, and notes on its layers."""
    deploy_source = to_deploy(source, options)
    types = {layer.name: layer.type for layer in deploy_source.net.layer}
    removed_names = dict.fromkeys(layer.name for layer in source.net.layer if layer.name not in types)
    old_names = {layer.name for layer in source.net.layer}
    new_names = [name for name in types if name not in old_names]
    inputs = [
        f"{top} {format_shape(shape.dim)}"
        for layer in deploy_source.net.layer
        if layer.type in LAYERS and LAYERS[layer.type].is_input
        for top, shape in zip(layer.top, layer.input_param.shape, strict=False)
    ]
    notes = [f"deploy net of phase {options.phase}; inputs: {', '.join(inputs) or 'none'}"]
    if removed_names:
        notes.append(f"layers that are gone: {', '.join(removed_names)}")
    if new_names:
        notes.append(f"layers that are new: {', '.join(f'{name} ({types[name]})' for name in new_names)}")
    return deploy_source, tuple(notes)


def _extract_net(file: WeightsFile, out: Path, options: NetOptions) -> Upgraded:
    upgraded, notes = _upgraded_net(file)
    if not any(layer.bottom or layer.top for layer in upgraded.net.layer):
        raise CaffeconvError(f"{file.path}: its layers have no bottoms and tops: it holds weights, but no net to write")
    if options.deploy:
        upgraded, deploy_notes = _deploy_net(upgraded, options)
        notes = (*notes, *deploy_notes)
    with whole_file(out) as target:
        target.write(net_to_text(upgraded.net).encode())
    return Upgraded(out, (*notes, f"this is the net that {file.path} carries, as it was when the weights were saved"))


def _upgrade_caffemodel(file: WeightsFile, out: Path) -> Upgraded:
    upgraded, notes = _upgraded_net(file)
    net = upgraded.net
    head = NetParameter()
    head.CopyFrom(net)
    del head.layer[:]
    blobs = _blobs_of_layers(file, upgraded)
    with whole_file(out) as target:
        target.write(head.SerializeToString())
        for layer, layer_blobs in zip(net.layer, blobs, strict=True):
            written_blobs = [_written_blob(file, layer.name, layer.type, i, blob) for i, blob in enumerate(layer_blobs)]
            write_layer(target, layer.SerializeToString(), written_blobs)
    return Upgraded(out, (*notes, *_storage_notes(file)))


def _upgraded_net(file: WeightsFile) -> tuple[NetSource, tuple[str, ...]]:
    net = file.net()
    lines = (0,) * (len(net.layer) + len(net.layers))
    return upgrade_and_tell(NetSource(net, lines, file.path, file.path.parent))


def _blobs_of_layers(file: WeightsFile, upgraded: NetSource) -> list[tuple[Blob | None, ...]]:
    """The blobs of each layer of the upgraded net: padding layers are gone, an Input layer may have come in front."""
    v0 = has_v0_layers(file.net())
    blobs = [layer.blobs for layer in file.layers if not (v0 and is_folded_away(layer.type))]
    return [()] * (len(upgraded.net.layer) - len(blobs)) + blobs


def _written_blob(file: WeightsFile, layer: str, kind: str, index: int, blob: Blob | None) -> WrittenBlob:
    assert blob is not None  # only HDF5 leaves blobs out
    if blob.count != count(blob.shape):
        raise CaffeconvError(
            f"{file.path}: layer '{layer}', blob {index}: {blob.count} numbers for the shape "
            f"{shape_string(blob.shape)}; the file is damaged: copy or download it again"
        )
    shape = todays_shape(kind, index, blob.shape) if blob.legacy else blob.shape
    written = WrittenBlob.of(shape or blob.shape, blob.array(), legacy=shape is None)
    diff = blob.diff if isinstance(blob, StoredBlob) else None
    return written.with_diff(diff.array() if diff is not None and diff.count == blob.count else None)


def todays_shape(kind: str, index: int, legacy: Shape) -> Shape | None:
    """The shape today of a parameter that was stored as num, channels, height, width.

    None where the layer's type does not say it; Caffe goes on reading the old fields, and compares them generously.
    """
    axes = {"Convolution": (4, 1), "Deconvolution": (4, 1), "InnerProduct": (2, 1)}.get(kind, ())
    if index >= len(axes) or any(dim != 1 for dim in legacy[: len(legacy) - axes[index]]):
        return None if len(legacy) == 4 else legacy  # caffe has no fields for the five sizes of C3D 1.0
    return legacy[len(legacy) - axes[index] :]


def _storage_notes(file: WeightsFile) -> Iterator[str]:
    blobs = [blob for layer in file.layers for blob in layer.blobs if blob is not None]
    legacy = sum(blob.legacy for blob in blobs)
    if legacy:
        yield f"{legacy} of {len(blobs)} blobs had num, channels, height, width instead of a shape"
    other = sum(blob.offset is None and blob.count > 0 for blob in blobs)
    if other:
        yield f"{other} of {len(blobs)} blobs were not stored as packed float32"
