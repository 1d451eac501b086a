"""Brings old net definitions to today's form: an ordered list of (needed?, upgrade), as Caffe's UpgradeNetAsNeeded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from caffeconv.caffe_pb2 import LayerParameter, NetParameter
from caffeconv.read.prototxt import NetSource


def upgrade_net(source: NetSource) -> NetSource:
    """The net in today's form; `source` itself is left as it is."""
    net = NetParameter()
    net.CopyFrom(source.net)
    source = replace(source, net=net)
    for needed, upgrade in UPGRADES:
        if needed(source.net):
            source = upgrade(source)
    return source


def has_input_fields(net: NetParameter) -> bool:
    return bool(net.input)


def upgrade_input_fields(source: NetSource) -> NetSource:
    """`input`, `input_shape`, `input_dim` → an Input layer in front (caffe: UpgradeNetInput)."""
    net = source.net
    lines = source.lines
    if net.input_shape or net.input_dim:
        layer = LayerParameter(name="input", type="Input", top=net.input)
        for i in range(len(net.input)):
            dims = net.input_shape[i].dim if net.input_shape else net.input_dim[4 * i : 4 * i + 4]
            layer.input_param.shape.add().dim.extend(dims)
        kept = list(net.layer)
        del net.layer[:]
        net.layer.extend([layer, *kept])
        lines = (0, *lines)
    for field in ("input", "input_shape", "input_dim"):
        net.ClearField(field)
    return replace(source, lines=lines)


Upgrade = tuple[Callable[[NetParameter], bool], Callable[[NetSource], NetSource]]
UPGRADES: tuple[Upgrade, ...] = ((has_input_fields, upgrade_input_fields),)
