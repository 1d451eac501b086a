"""Nets for training that are given where the net that is used afterwards was meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from caffeconv.caffe_format.caffemodel import WeightsFile
from caffeconv.caffe_format.prototxt import NetSource
from caffeconv.errors import CaffeconvError
from caffeconv.frontend.bind import bind, with_stored_shapes
from caffeconv.frontend.build import build_partial_graph, finish
from caffeconv.frontend.data_sizes import SIZES
from caffeconv.frontend.deploy import to_deploy
from caffeconv.frontend.netdef import define_net
from caffeconv.frontend.options import NetOptions
from caffeconv.ir.definition import LayerDef
from caffeconv.layers import LAYERS
from caffeconv.tensor.shape import Shape


def deploy_options(
    source: NetSource, options: NetOptions, unbuilt: Sequence[LayerDef], files: Sequence[WeightsFile]
) -> str:
    """The options with which the net's deploy form is whole and takes all weights; empty where none of those tried does.

    `unbuilt`: the layers that cannot be built; nothing is tried where none of these is a data layer.
    """
    data = [layer for layer in unbuilt if layer.type in LAYERS and LAYERS[layer.type].fills_itself]
    for shapes in _shapes(data):
        if _is_whole(source, replace(options, deploy=True, shapes={**options.shapes, **shapes}), files):
            return f"`deploy=True` `shapes={dict(shapes)}`" if shapes else "`deploy=True`"
    return ""


def _shapes(data: Sequence[LayerDef]) -> Iterator[Mapping[str, Shape]]:
    """Shapes of the data layers' first blobs: the net's own, then images of the usual sizes."""
    if not data:
        return
    yield {}
    for channels in (3, 1):
        yield from ({layer.tops[0]: (1, channels, size, size) for layer in data if layer.tops} for size in SIZES)


def _is_whole(source: NetSource, options: NetOptions, files: Sequence[WeightsFile]) -> bool:
    try:
        net = with_stored_shapes(define_net(to_deploy(source, options), options), files)
    except CaffeconvError:
        return False
    partial_graph = build_partial_graph(net)
    if partial_graph.problems or partial_graph.unbuilt or partial_graph.unknown:
        return False
    return not any(d.severity == "error" for d in bind(finish(net, partial_graph), files).diagnostics)
