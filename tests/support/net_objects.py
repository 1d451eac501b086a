"""The objects that a `caffeconv.Net` is made of, over one small net, for their own tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from caffeconv.conversion.load import Loaded, load
from caffeconv.frontend.options import NetOptions
from caffeconv.net.backward import Backward
from caffeconv.net.data_layers import DataLayers
from caffeconv.net.forward import Forward
from caffeconv.net.params import ParamStore
from caffeconv.net.sessions import SessionPool
from caffeconv.runtime.providers import ComputeOptions
from support.small_nets import write_net

ON_THE_CPU = ComputeOptions("cpu", 1, nhwc=False, half=False)
CHAIN = """
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 2 bias_term: false weight_filler { type: "constant" value: 2 } } }
layer { name: "double" type: "Power" bottom: "ip" top: "double" power_param { scale: 2 } }
layer { name: "loss" type: "Reduction" bottom: "double" top: "loss" loss_weight: 3 }
"""
"""x, N×3 → ip, N×2, each twice the sum of a row → double → loss, the sum of all, which counts three times."""
KEEP = """
import caffe

class Keep(caffe.Layer):
    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        rows = bottom[0].data[bottom[0].data[:, 0] > 0]
        top[0].reshape(*rows.shape)
        top[0].data[...] = rows
"""
"""A module whose layer keeps the rows that begin with a number above 0."""
KEEP_LAYERS = """
layer { name: "keep" type: "Python" bottom: "x" top: "rows" python_param { module: "keep" layer: "Keep" } }
layer { name: "double" type: "Power" bottom: "rows" top: "double" power_param { scale: 2 } }
"""


@dataclass(frozen=True)
class NetObjects:
    """What a net is made of."""

    loaded: Loaded
    params: ParamStore
    sessions: SessionPool
    data: DataLayers
    forward: Forward
    backward: Backward


def net_objects(
    folder: Path, layers: str = CHAIN, inputs: dict[str, tuple[int, ...]] | None = None, output_dir: Path | None = None
) -> NetObjects:  # fmt: skip
    """Those of a net over the inputs, x of 2×3 if not given; Python layers may be imported from its folder."""
    path = write_net(folder, {"x": (2, 3)} if inputs is None else inputs, layers)
    loaded = load(path, options=NetOptions(allow_python=True, output_dir=output_dir))
    params = ParamStore(loaded.graph.nodes)
    sessions = SessionPool(loaded, params, ON_THE_CPU)
    data = DataLayers(loaded.graph.nodes, 0)
    forward = Forward(sessions, data)
    return NetObjects(loaded, params, sessions, data, forward, Backward(sessions, params, forward.shape_of))
