"""Cuts a net before what cannot be built, where the blobs that are wanted do not need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from caffeconv.caffe_format.prototxt import NetSource
from caffeconv.caffe_format.upgrade import upgrade_net
from caffeconv.caffe_pb2 import NetParameter
from caffeconv.frontend.build import build_partial_graph
from caffeconv.frontend.netdef import draft_net
from caffeconv.frontend.options import NetOptions
from caffeconv.ir.definition import LayerDef, NetDef


def without_obstacles(source: NetSource, options: NetOptions) -> NetSource:
    """The net with only the layers that `options.outputs` need, where one of the others cannot be taken; else `source`.

    Such a layer has an unknown type, fields that the schema lacks, or is faulty. Also `source` where a blob is missing.
    """
    upgraded = upgrade_net(source)
    net, faults = draft_net(upgraded, options)
    if not set(options.outputs) <= net.last_value.keys():
        return source
    needed = _needed(net, options.outputs)
    names = {layer.name for layer in needed}
    field_lines = {field.layer_line for field in source.dropped if field.layer_line}
    obstacles = {fault.layer for fault in faults} | {layer.name for layer in net.layers if layer.line in field_lines}
    if not obstacles - names:
        partial_graph = build_partial_graph(net, options.shapes)
        obstacles = {layer.name for layer in (*partial_graph.unbuilt, *partial_graph.unknown)}
    if not obstacles - names:
        return source
    cut = NetParameter()
    cut.CopyFrom(upgraded.net)
    del cut.layer[:]
    cut.layer.extend(layer.proto for layer in needed)
    return replace(upgraded, net=cut, lines=tuple(layer.line or 0 for layer in needed))


def _needed(net: NetDef, outputs: Sequence[str]) -> list[LayerDef]:
    """The layers that the last writes of some blobs are made by, and those that make what these read, in order."""
    values = {net.last_value[blob] for blob in outputs}
    needed: list[LayerDef] = []
    for layer in reversed(net.layers):
        if values.intersection(layer.top_values):
            needed.append(layer)
            values.update(layer.bottom_values)
    return needed[::-1]
