"""Graphs of nets as text, for the tests of what is done to graphs."""

from __future__ import annotations

from pathlib import Path

from caffeconv.caffe_format.prototxt import read_prototxt
from caffeconv.frontend.build import build
from caffeconv.frontend.netdef import define_net
from caffeconv.frontend.options import NetOptions
from caffeconv.ir.definition import NetDef
from caffeconv.ir.graph import Graph
from support.small_nets import write_net

Inputs = dict[str, tuple[int, ...]]


def net_of(folder: Path, inputs: Inputs, layers: str, options: NetOptions | None = None) -> NetDef:
    """The definition of a net over these inputs, written to net.prototxt."""
    return define_net(read_prototxt(write_net(folder, inputs, layers)), options or NetOptions())


def graph_of(folder: Path, inputs: Inputs, layers: str) -> Graph:
    """The graph of such a net, whose parameters have no values."""
    return build(net_of(folder, inputs, layers))


def layer(name: str, kind: str, bottoms: str, rest: str = "", top: str | None = None) -> str:
    """A layer over bottoms with spaces between them; its top is called as itself unless `top` says otherwise."""
    reads = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {reads} top: "{name if top is None else top}" {rest} }}\n'


def dense(name: str, bottom: str, outputs: int, rest: str = "") -> str:
    """An InnerProduct layer."""
    return layer(name, "InnerProduct", bottom, f"inner_product_param {{ num_output: {outputs} }} {rest}")
