"""Sessions whose parameters are inputs, so that these may be others in each pass: for nets that learn."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from caffeconv.errors import CaffeconvError
from caffeconv.frontend.open_axes import fixed_dims, values_decide
from caffeconv.ir.graph import Graph
from caffeconv.net.open_session import open_session
from caffeconv.net.params import ParamStore
from caffeconv.net.pass_state import Noise
from caffeconv.runtime.install import choose_providers, for_gradients, import_onnxruntime
from caffeconv.runtime.providers import CPU, ComputeOptions
from caffeconv.runtime.session import Session
from caffeconv.tensor.param import ParamKey
from caffeconv.tensor.shape import FloatArray, Shape

if TYPE_CHECKING:
    from caffeconv.emit.lazy_model import LazyModel


@dataclass(frozen=True)
class OpenInputs:
    """The inputs of a session that are neither blobs nor states."""

    params: Mapping[str, ParamKey]
    noise: Mapping[str, Shape]
    fixed: frozenset[ParamKey] = frozenset()
    """Parameters whose values went into the model itself: it is outdated when they change."""

    def feeds(
        self, session: Session, params: ParamStore, own: Mapping[ParamKey, FloatArray] | None, noise: Noise
    ) -> dict[str, FloatArray]:
        """Input → values. own: parameters that had other values in the pass in question than they have now."""
        feeds = {}
        for name, key in self.params.items():
            values = own[key] if own is not None and key in own else params.values_of(key)
            feeds[name] = values.reshape([int(size) for size in session.inputs[name]])
        return feeds | {name: draw(noise, name, shape) for name, shape in self.noise.items()}


NO_INPUTS = OpenInputs({}, {})


@dataclass(frozen=True)
class OpenForward:
    """A session for forward passes with open parameters."""

    session: Session | None
    """None where the pass computes nothing: neither values nor states nor parameters."""
    inputs: OpenInputs
    changed: Mapping[ParamKey, str]
    """Parameter that the pass itself changes → the output that holds its new values."""


def draw(noise: Noise, name: str, shape: Shape) -> FloatArray:
    """Numbers in [0, 1) for one input in one pass, the same each time."""
    random = np.random.default_rng((noise.seed, zlib.crc32(name.encode()), noise.number))
    return random.random(shape, np.float32)


def open_forward(
    graph: Graph, values: tuple[str, ...], params: ParamStore, compute: ComputeOptions
) -> OpenForward:  # fmt: skip
    """A session that gives `values` of a graph, and what its layers leave in parameters.

    Raises CaffeconvError as `to_onnx`.
    """
    from caffeconv.emit.backward import open_inputs
    from caffeconv.emit.check import check_model
    from caffeconv.emit.model import finish_model, lower_graph
    from caffeconv.ir.onnx_builder import NeedsFixedBatchError

    read: set[ParamKey] = set()
    observed = params.apply(graph, read.add)
    try:
        observed = replace(observed, dims=fixed_dims(graph))
        builder = lower_graph(observed, stateful=True, open_params=True)
    except NeedsFixedBatchError:
        if values_decide(graph):
            raise
        # what the user's code makes is planned for as it was; a Net plans anew where it comes out otherwise
        observed = replace(observed, dims=graph.shapes)
        builder = lower_graph(observed, stateful=True, open_params=True)
    outputs = {value: observed.dims[value] for value in values}
    outputs |= dict(builder.states.values())
    outputs |= {output: params.values_of(key).shape for key, output in builder.changed_params.items()}
    if not outputs:
        return OpenForward(None, NO_INPUTS, {})
    model = check_model(finish_model(observed, builder, outputs))
    session = learning_session(model, graph, compute)
    inputs = OpenInputs(open_inputs(model, builder), _noise_of(session, builder.noise), frozenset(read))
    return OpenForward(session, inputs, dict(builder.changed_params))


def takes_training_ops(compute: ComputeOptions) -> bool:
    """Whether our library's operators for training may stand in models: it has them, and the CPU computes."""
    from caffeconv.ops import has_training_ops

    return choose_providers(for_gradients(compute).provider, import_onnxruntime())[0] == CPU and has_training_ops()


def learning_session(model: LazyModel, graph: Graph, compute: ComputeOptions) -> Session:
    """A session of a model with open parameters, in float32."""
    if model.params:
        raise CaffeconvError(f"parameters stand in the model: {', '.join(model.params)}")
    return open_session(model, for_gradients(compute), python_host=graph.net.python_host)


def _noise_of(session: Session, noise: Mapping[str, Shape]) -> dict[str, Shape]:
    return {name: shape for name, shape in noise.items() if name in session.inputs}
