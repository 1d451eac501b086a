"""What Caffe's `debug_info` tells of a pass: the mean absolute value of every blob, parameter and diff (caffe: net.cpp)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffeconv.emit.backward import BackwardStep, BackwardWriter
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.tensor.param import ParamKey

if TYPE_CHECKING:
    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class TraceLine:
    """A line of Caffe's log, for whose numbers a model has outputs."""

    source: str
    """Caffe's source file, and its line there."""
    text: str
    """With a ``{}`` for each number."""
    values: tuple[str, ...]
    """Outputs of the model, scalars."""


def write_trace(
    graph: Graph, steps: Sequence[BackwardStep], backward: BackwardWriter, params: Mapping[ParamKey, str],
    gradients: Mapping[ParamKey, str],
) -> tuple[TraceLine, ...]:  # fmt: skip
    """Writes the nodes that give the numbers, after those of a forward and a backward pass.

    params, gradients: the values of the parameters that Caffe calls learnable, and their diffs where they have any.
    """
    writer = _TraceWriter(graph, backward, gradients)
    lines = [*writer.forward(), *writer.backward(steps), writer.totals(params)]
    return tuple(lines)


class _Splits:
    """The Split layers that Caffe puts behind blobs of several readers, by their names (caffe: insert_splits.cpp)."""

    def __init__(self, graph: Graph) -> None:
        self._source = {
            value: (node, i, blob)
            for node in graph.nodes
            for i, (blob, value) in enumerate(zip(_top_blobs(node), node.tops, strict=True))
        }
        self._readers = Counter(value for node in graph.nodes for value in node.bottoms)
        weighted = [
            value for node in graph.nodes for value, weight in zip(node.tops, node.definition.loss_weights, strict=False)
            if weight
        ]  # fmt: skip
        self._readers.update(weighted)
        self._names: dict[tuple[str, int], str] = {}
        """(Layer, bottom) → the blob that Caffe lets it read."""
        taken = Counter(weighted)
        for node in graph.nodes:
            for i, value in enumerate(node.bottoms):
                split = self.layer(value)
                self._names[node.name, i] = f"{split}_{taken[value]}" if split else self._source[value][2]
                taken[value] += 1

    def layer(self, value: str) -> str:
        """The Split layer behind a value; empty where there is none."""
        if self._readers[value] < 2:
            return ""
        node, index, blob = self._source[value]
        return f"{blob}_{node.name}_{index}_split"

    def tops(self, value: str) -> list[str]:
        """The tops of that layer."""
        return [f"{self.layer(value)}_{i}" for i in range(self._readers[value])] if self.layer(value) else []

    def read_by(self, layer: str, bottom: int) -> str:
        """What a layer's bottom is called."""
        return self._names[layer, bottom]


def _top_blobs(node: Node) -> tuple[str, ...]:
    return (*node.definition.tops, *node.tops[len(node.definition.tops) :])


class _TraceWriter:
    def __init__(self, graph: Graph, backward: BackwardWriter, gradients: Mapping[ParamKey, str]) -> None:
        self._graph = graph
        self._backward = backward
        self._gradients = gradients
        self._onnx: OnnxBuilder = backward.builder
        self._splits = _Splits(graph)
        self._params: dict[ParamKey, str] = {}

    def forward(self) -> Iterator[TraceLine]:
        for node in self._graph.nodes:
            self._onnx.resume(node.name, node.tops, node.params)
            means = [self._mean(value, f"top_{i}") for i, value in enumerate(node.tops)]
            for blob, mean in zip(_top_blobs(node), means, strict=True):
                yield TraceLine("net.cpp:593", _line("Forward", node.name, f"top blob {blob} data"), (mean,))
            for i, param in enumerate(node.params):
                name = _display_name(node, i)
                mean = self._mean(self._onnx.weight(param.name), f"{param.name}_size")
                yield TraceLine("net.cpp:605", _line("Forward", node.name, f"param blob {name} data"), (mean,))
            for value, mean in zip(node.tops, means, strict=True):
                for top in self._splits.tops(value):
                    text = _line("Forward", self._splits.layer(value), f"top blob {top} data")
                    yield TraceLine("net.cpp:593", text, (mean,))

    def backward(self, steps: Sequence[BackwardStep]) -> Iterator[TraceLine]:
        diffs = self._backward.bottom_diffs
        for step in reversed(steps):
            node = step.node
            self._onnx.resume(node.name, node.tops, node.params)
            for value, blob in list(zip(node.tops, _top_blobs(node), strict=True))[::-1]:
                total = self._backward.total_of(value)
                if self._splits.layer(value) and total is not None:
                    text = _line("Backward", self._splits.layer(value), f"bottom blob {blob} diff")
                    yield TraceLine("net.cpp:621", text, (self._mean(total, "split_diff"),))
            for i in range(len(node.bottoms)):
                if (diff := diffs.get((node.name, i))) is not None:
                    text = _line("Backward", node.name, f"bottom blob {self._splits.read_by(node.name, i)} diff")
                    yield TraceLine("net.cpp:621", text, (self._mean(diff, f"bottom_{i}_diff"),))
            for i, (param, learns) in enumerate(zip(node.params, step.params, strict=True)):
                gradient = self._gradients.get(param.key_in(node.name))
                if step.runs and learns and gradient is not None:
                    mean = self._mean(gradient, f"{param.name}_diff_size")
                    yield TraceLine("net.cpp:632", _line("Backward", node.name, f"param blob {i} diff"), (mean,))

    def totals(self, params: Mapping[ParamKey, str]) -> TraceLine:
        values = [
            self._total("Abs", [*params.values()], "data"),
            self._total("Abs", [*self._gradients.values()], "diff"),
        ]
        squares = [self._total("", [*params.values()], "data"), self._total("", [*self._gradients.values()], "diff")]
        lengths = [self._onnx.op("Sqrt", [square], what="length") for square in squares]
        text = "    [Backward] All net params (data, diff): L1 norm = ({}, {}); L2 norm = ({}, {})"
        return TraceLine("net.cpp:721", text, (*values, *lengths))

    def _total(self, kind: str, values: Sequence[str], what: str) -> str:
        """The sum of the absolute values, or of the squares, of all values."""
        sums = []
        for value in values:
            if kind:
                size = self._onnx.op("Abs", [value], what=f"all_{what}_sizes")
                sums.append(self._onnx.reduce("ReduceSum", size, None, keepdims=False, what=f"all_{what}_sum"))
            else:
                sums.append(
                    self._onnx.reduce("ReduceSumSquare", value, None, keepdims=False, what=f"all_{what}_squares")
                )
        return self._onnx.op("Sum", sums, what=f"all_{what}") if sums else self._onnx.floats(f"no_{what}", 0)

    def _mean(self, value: str, what: str) -> str:
        size = self._onnx.op("Abs", [value], what=f"{what}_sizes")
        return self._onnx.reduce("ReduceMean", size, None, keepdims=False, what=f"{what}_mean_size")


def _line(direction: str, layer: str, what: str) -> str:
    return f"    [{direction}] Layer {_literal(layer)}, {_literal(what)}: {{}}"


def _literal(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")


def _display_name(node: Node, index: int) -> str:
    """A parameter's name, where the prototxt gives one; else its place in the layer."""
    specs = node.definition.param_specs
    return (specs[index].name if index < len(specs) else "") or str(index)
