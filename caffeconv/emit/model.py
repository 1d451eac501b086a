"""Writes a graph as an ONNX model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import FunctionProto, ModelProto, TensorProto, ValueInfoProto, helper

from caffeconv.emit.lazy_model import LazyModel, packed
from caffeconv.emit.precision import PRECISION_KEY, precision_of
from caffeconv.errors import CaffeconvError, LayerError
from caffeconv.frontend.open_axes import DATA_SIZE, values_decide
from caffeconv.frontend.reshape import input_shapes, reshape_graph
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.ir.onnx_builder import OUR_DOMAIN, Array, NeedsFixedBatchError, OnnxBuilder, same
from caffeconv.tensor.param import Param
from caffeconv.tensor.shape import Dims
from caffeconv.version import __version__

DEFAULT_OPSET = 17
LEAST_OPSET = 13


def emit_model(
    graph: Graph, outputs: Sequence[str], *, opset: int = DEFAULT_OPSET, metadata: Mapping[str, str] | None = None,
    stateful: bool = False, unroll: bool = False,
) -> ModelProto:  # fmt: skip
    """As `emit_lazy`, with all values inside; CaffeconvError also where they are too many for one message."""
    model = emit_lazy(graph, outputs, opset=opset, metadata=metadata, stateful=stateful, unroll=unroll)
    return model.materialize()


def emit_lazy(
    graph: Graph, outputs: Sequence[str], *, opset: int = DEFAULT_OPSET, metadata: Mapping[str, str] | None = None,
    stateful: bool = False, unroll: bool = False,
) -> LazyModel:  # fmt: skip
    """The ONNX model of a bound graph, with `outputs` (values of the graph) as its outputs.

    Inputs and outputs are float32; an axis that varies with the batch is the symbol ``batch``. Raises CaffeconvError
    where a layer cannot be written, NeedsFixedBatchError where one cannot be for a batch size not known.

    stateful: what layers keep from pass to pass (Layer.state_shapes) becomes further inputs ``layer/state_in``, to be
    fed zeros at first, and outputs ``layer/state_out``, to be fed the next time; of the layers that `outputs` need.
    unroll: no Scan node, but its steps one after another, where their number is known.
    """
    builder = lower_graph(graph, opset=opset, stateful=stateful, unroll=unroll)
    names = {name for node in _needed_nodes(builder, outputs) for name in _reads(node)}
    states = {output: shape for value, (output, shape) in builder.states.items() if value in names}
    dims = {value: graph.dims[value] for value in outputs}
    return finish_model(graph, builder, {**dims, **states}, metadata=metadata)


def lower_graph(
    graph: Graph, *, opset: int = DEFAULT_OPSET, stateful: bool = False, unroll: bool = False,
    open_params: bool = False, training_ops: bool = False,
) -> OnnxBuilder:  # fmt: skip
    """Every layer as ONNX nodes; raises as `emit_model`. open_params, training_ops: see OnnxBuilder.

    NeedsFixedBatchError also where a layer would be written for the size that Caffe guesses of what values decide.
    """
    if values_decide(graph):
        _require_no_guess(graph, opset)
    builder = OnnxBuilder(
        opset, graph.dims, stateful=stateful, unroll=unroll, open_params=open_params, training_ops=training_ops
    )
    _lower(graph.nodes, builder)
    return builder


def _lower(nodes: Sequence[Node], builder: OnnxBuilder) -> None:
    for node in nodes:
        builder.enter(node.name, node.tops, node.params)
        try:
            node.layer.lower(node, builder)
        except LayerError as error:
            raise CaffeconvError(f"{node.definition.where}: {error}") from None


def _require_no_guess(graph: Graph, opset: int) -> None:
    try:
        other = reshape_graph(graph, input_shapes(graph), data_size=DATA_SIZE)
    except CaffeconvError:  # a layer wants the size that Caffe guesses; the run will tell
        return
    layer = differing_layer([graph, other], opset=opset)
    if layer is not None:
        raise NeedsFixedBatchError(f"{layer}: it needs to know the size of a bottom, which values decide")


def differing_layer(graphs: Sequence[Graph], *, opset: int) -> str | None:
    """The first layer that is not written alike for all the graphs, which differ in their shapes alone; None: none.

    Raises as `emit_model`.
    """
    for i, node in enumerate(graphs[0].nodes):
        builders = [
            OnnxBuilder(opset, {value: graph.dims[value] for value in (*node.bottoms, *node.tops)}) for graph in graphs
        ]
        for graph, builder in zip(graphs, builders, strict=True):
            _lower(graph.nodes[i : i + 1], builder)
        first, *others = builders
        if not all(_alike(first, other) for other in others):
            return node.name
    return None


def _alike(one: OnnxBuilder, other: OnnxBuilder) -> bool:
    """Whether both hold the same nodes, function bodies and values."""
    if one.nodes != other.nodes or one.functions != other.functions:
        return False
    if one.initializers.keys() != other.initializers.keys():
        return False
    pairs = ((value, other.initializers[name]) for name, value in one.initializers.items())
    return all(
        same(a, b) if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) else a is b or _is_same_param(a, b)
        for a, b in pairs
    )


def _is_same_param(one: Array | Param, other: Array | Param) -> bool:
    return isinstance(one, Param) and isinstance(other, Param) and one == other


def finish_model(
    graph: Graph, builder: OnnxBuilder, outputs: Mapping[str, Dims], *, more_inputs: Mapping[str, Dims] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> LazyModel:  # fmt: skip
    """The model of the nodes that `outputs` (name → dims) need.

    Its inputs are the graph's, `more_inputs`, and the states, noise and open parameters that those nodes read.
    """
    nodes = _needed_nodes(builder, outputs)
    names = {name for node in nodes for name in _reads(node)}
    own_inputs = {value: shape for value, (_, shape) in builder.states.items()} | builder.noise
    initializers = {name: value for name, value in builder.initializers.items() if name in names}
    if builder.open_params:
        own_inputs |= {name: value.shape for name, value in initializers.items() if isinstance(value, Param)}
        initializers = {name: value for name, value in initializers.items() if name not in own_inputs}
    inputs: dict[str, Dims] = {value: graph.dims[value] for value in graph.inputs}
    inputs |= more_inputs or {}
    inputs |= {value: shape for value, shape in own_inputs.items() if value in names}
    proto = helper.make_graph(
        nodes,
        graph.net.name or "net",
        [_value_info(value, dims, graph) for value, dims in inputs.items()],
        [_value_info(value, dims, graph) for value, dims in outputs.items()],
    )
    proto.initializer.extend(_tensor(name, value) for name, value in initializers.items())
    functions = [f for f in builder.functions.values() if _calls(proto, f)]
    entries = {**_kinds(graph, outputs), **_labels(graph), PRECISION_KEY: precision_of(graph, builder.makers, nodes)}
    params = {name: value for name, value in initializers.items() if isinstance(value, Param)}
    return LazyModel(_model(proto, functions, builder.opset, {**(metadata or {}), **entries}), params)


def _kinds(graph: Graph, outputs: Iterable[str]) -> dict[str, str]:
    """Metadata: what each output means (probabilities, detections, …), for displaying it."""
    names = set(outputs)
    return {
        f"caffeconv.kind.{top}": kind
        for node in graph.nodes
        for top, kind in zip(node.tops, node.layer.top_kinds, strict=False)
        if kind and top in names
    }


def _labels(graph: Graph) -> dict[str, str]:
    """Metadata: which inputs hold labels and in what range, to be checked before a run: ONNX itself can refuse none."""
    inputs = set(graph.inputs)
    rules = [
        {"where": node.definition.where, "input": blob, "classes": rule.classes, "ignore_label": rule.ignore_label}
        for node in graph.nodes
        for rule in node.layer.label_rules(node)
        if (blob := node.bottoms[rule.bottom]) in inputs
        and not (rule.of_batch and graph.dims[node.bottoms[0]][0] is None)
    ]
    return {"caffeconv.labels": json.dumps(rules)} if rules else {}


def _calls(proto: onnx.GraphProto, function: FunctionProto) -> bool:
    return any(
        n.domain == OUR_DOMAIN and (n.op_type, n.overload) == (function.name, function.overload) for n in proto.node
    )


def _needed_nodes(builder: OnnxBuilder, outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes that the outputs need, in order."""
    values = set(outputs)
    nodes = []
    for node in reversed(builder.nodes):
        if values.intersection(node.output):
            nodes.append(node)
            values.update(_reads(node))
    return nodes[::-1]


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """What the node reads, the bodies of a Loop or an If included."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _reads(inner)


def _model(
    proto: onnx.GraphProto, functions: Sequence[FunctionProto], opset: int, metadata: Mapping[str, str]
) -> ModelProto:
    imports = [helper.make_opsetid("", opset)]
    if functions or any(node.domain == OUR_DOMAIN for node in proto.node):
        imports.append(helper.make_opsetid(OUR_DOMAIN, 1))
    model = helper.make_model(proto, opset_imports=imports, functions=list(functions), producer_name="caffeconv")
    model.producer_version = __version__
    # a function's `overload` came with IR version 10; without one, an older version is read by more runtimes
    overloaded = any(function.overload for function in functions)
    model.ir_version = max(helper.find_min_ir_version_for(imports[:1]), 10 if overloaded else 8)
    helper.set_model_props(model, dict(sorted(metadata.items())))
    return model


def _value_info(value: str, dims: Dims, graph: Graph) -> ValueInfoProto:
    # onnxruntime shares memory between axes of one name, so an axis that is not just an input's batch has its own
    shape = [
        dim if dim is not None else graph.symbols.get((value, axis), f"{value}_{axis}") for axis, dim in enumerate(dims)
    ]
    return helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)


def _tensor(name: str, value: Array | Param) -> TensorProto:
    if isinstance(value, Param):
        return TensorProto(name=name, data_type=TensorProto.FLOAT, dims=value.shape)
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return TensorProto(name=name, data_type=kind, dims=value.shape, raw_data=packed(value))
