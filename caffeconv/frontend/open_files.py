"""The files of a net: its definition and its weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from caffeconv.caffe_format.caffemodel import WeightsFile, read_caffemodel
from caffeconv.caffe_format.hdf5 import read_hdf5_weights
from caffeconv.caffe_format.prototxt import NetSource, read_prototxt, refuse_unknown_fields
from caffeconv.caffe_format.upgrade import upgrade_net
from caffeconv.caffe_pb2 import LayerParameter, NetParameter
from caffeconv.errors import CaffeconvError
from caffeconv.files import arguments
from caffeconv.files.atomic import PathLike
from caffeconv.files.hdf5 import is_hdf5
from caffeconv.frontend.cut import without_obstacles
from caffeconv.frontend.deploy import to_deploy
from caffeconv.frontend.netdef import define_net
from caffeconv.frontend.options import NetOptions
from caffeconv.ir.definition import NetDef
from caffeconv.layers import LAYERS
from caffeconv.layers.training_only import is_training_type

Weights = PathLike | Sequence[PathLike] | None


def weight_paths(weights: Weights) -> tuple[Path, ...]:
    """One path, several or none, as a tuple; CaffeconvError for what is no path."""
    if weights is None:
        return ()
    if isinstance(weights, (str, os.PathLike)) or not isinstance(weights, Iterable):
        return (arguments.path("weights", weights),)
    return tuple(arguments.path("weights", path) for path in weights)


def weights_files(net: PathLike, weights: Weights) -> tuple[Path, ...]:
    """The files that a net's weights come from: those given, or the net itself where it is a caffemodel."""
    paths = weight_paths(weights)
    return paths if paths or arguments.path("net", net).suffix != ".caffemodel" else (Path(net),)


def read_net(path: PathLike, *, is_built: bool = False) -> NetSource:
    """The net definition of a prototxt, or the one that a caffemodel carries (by its suffix).

    Fields that the schema lacks are in its `dropped`; `refuse_dropped` says which of them cannot be left out.

    is_built: whether the net is to be built, so that a layer of an unknown type is refused, or left out, as a whole.
    """
    path = arguments.path("net", path)
    if path.suffix == ".caffemodel":
        net = read_caffemodel(path).net()
        if not _has_blobs(net):
            raise CaffeconvError(
                f"{path}: this caffemodel holds weights, but no net around them; give the prototxt first, then the weights"
            )
        return NetSource(net, (0,) * len(net.layer or net.layers), path, path.parent)
    extra_fields = {name: kind.extra_fields for name, kind in LAYERS.registered.items()}
    return read_prototxt(
        path, ignore_unknown_fields=True, extra_fields=extra_fields, types=LAYERS if is_built else None
    )


def carries_net(path: Path) -> bool:
    """Whether a caffemodel holds the net that it was saved from, beside the weights."""
    return _has_blobs(read_caffemodel(path).net())


def _has_blobs(net: NetParameter) -> bool:
    """Whether any layer makes a blob, so that this is a net and not a list of parameters."""
    return any(layer.top for layer in net.layer) or any(layer.top for layer in net.layers)


def read_weights(path: Path) -> WeightsFile:
    """A weights file of any kind: caffemodel or Caffe's HDF5."""
    return read_hdf5_weights(path) if is_hdf5(path) else read_caffemodel(path)


def read_definition(net: PathLike, options: NetOptions) -> NetDef:
    """The layers of a net, none of them built: no shape is known, and no code of the user's is run. Raises as `load`."""
    return define_net(read_source(net, options), options)


def _unknown_types(source: NetSource, *, deploy: bool) -> list[str]:
    """What is to be said of each type that nobody here knows; of a deploy net, of those that may stay in it."""
    places: dict[str, list[int]] = {}
    for layer, line in zip(source.net.layer, source.lines, strict=False):
        goes = deploy and (not layer.bottom or is_training_type(layer.type))
        if layer.type and layer.type not in LAYERS and not goes:
            places.setdefault(layer.type, []).append(line)
    return [
        f"{kind} (line {lines[0]}" + (f", the first of {len(lines)} layers)" if len(lines) > 1 else ")")
        for kind, lines in places.items()
    ]


_OF_SOLVERS = frozenset(("ParamSpec",))
"""Messages that say how parameters are trained, and of what is computed nothing."""


def refuse_dropped(source: NetSource, options: NetOptions) -> None:
    """Raises CaffeconvError for fields that the schema lacks, where they can change what the net computes.

    How a parameter is trained changes nothing outside of training, nor what a layer says that a deploy net has not.
    """
    if options.ignore_unknown_fields or not source.dropped:
        return
    trains = options.phase == "TRAIN" and not options.deploy
    gone = _lines_that_go(source) if options.deploy else frozenset()
    refuse_unknown_fields(
        [
            field for field in source.dropped
            if (trains or field.message not in _OF_SOLVERS) and field.layer_line not in gone
        ],
        source.path,
        _unknown_types(source, deploy=options.deploy),
    )  # fmt: skip


def _lines_that_go(source: NetSource) -> frozenset[int]:
    """Where layers begin that no deploy net has: those that read data, losses and evaluations."""
    source = upgrade_net(source)
    return frozenset(
        line for layer, line in zip(source.net.layer, source.lines, strict=False)
        if line and (is_training_type(layer.type) or _reads_data(layer))
    )  # fmt: skip


def _reads_data(layer: LayerParameter) -> bool:
    """Whether a layer fills its tops from elsewhere; the type of a fork's is not known."""
    if layer.type in LAYERS:
        return LAYERS[layer.type].fills_itself or LAYERS[layer.type].is_loss
    return not layer.bottom and bool(layer.top)


def read_source(net: PathLike, options: NetOptions) -> NetSource:
    """As `read_net`, in the deploy form where that is wanted, and without what stands in the way of the outputs wanted."""
    source = read_net(net, is_built=True)
    if not options.outputs:
        refuse_dropped(source, options)
    deployed = to_deploy(source, options) if options.deploy else source
    if not options.outputs:
        return deployed
    cut = without_obstacles(deployed, options)
    lines = set(cut.lines)
    needed = [field for field in source.dropped if not field.layer_line or field.layer_line in lines]
    refuse_dropped(replace(source, dropped=tuple(needed)), options)
    return cut
