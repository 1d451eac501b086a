"""The net with the edits of a cure, layers of other phases too: as a message, and as the user's own text."""

from __future__ import annotations

import itertools
from dataclasses import replace

from caffeconv.caffe_format.prototxt import NetSource, parse_text, read_text
from caffeconv.caffe_format.prototxt_writer import net_to_text
from caffeconv.caffe_format.text_edit import LayerEdit, edited_text
from caffeconv.caffe_format.upgrade import upgrade_net
from caffeconv.caffe_pb2 import NetParameter
from caffeconv.errors import CaffeconvError
from caffeconv.inspection.diagnose import Cure
from caffeconv.ir.definition import NetDef


def with_edits(source: NetSource, definition: NetDef, cure: Cure) -> NetParameter:
    """The whole net, layers of other phases too, with the edits made."""
    net = NetParameter()
    net.CopyFrom(source.net)
    del net.layer[:]
    pending, edited_layers = list(enumerate(definition.layers)), iter(cure.net.layers)
    for proto in source.net.layer:
        if not pending or proto != pending[0][1].proto:
            net.layer.append(proto)
            continue
        number = cure.layer_counts.get(pending.pop(0)[0], 1)
        net.layer.extend(layer.proto for layer in itertools.islice(edited_layers, number))
    return net


def fixed_text(source: NetSource, definition: NetDef, cure: Cure, fixed: NetParameter) -> str:
    """The net `fixed` as prototxt: the text of `source` with what changes, where that can be; otherwise written anew."""
    whole = net_to_text(fixed)
    if source.path is None or source.path.suffix == ".caffemodel":
        return whole
    edited_layers = iter(cure.net.layers)
    edits = []
    for i, layer in enumerate(definition.layers):
        after = tuple(each.proto for each in itertools.islice(edited_layers, cure.layer_counts.get(i, 1)))
        if after != (layer.proto,):
            edits.append(LayerEdit(layer.proto, after))
    text = edited_text(read_text(source.path), edits)
    return text if text is not None and _says(text, fixed, source) else whole


def _says(text: str, net: NetParameter, source: NetSource) -> bool:
    """Whether a prototxt is that net, by Caffe's upgrades."""
    parsed = NetParameter()
    try:
        parse_text(text, parsed, "the edited net")
        lines = (0,) * len(parsed.layer or parsed.layers)
        return list(upgrade_net(replace(source, net=parsed, lines=lines)).net.layer) == list(net.layer)
    except CaffeconvError:
        return False
