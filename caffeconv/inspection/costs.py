"""What a net costs: memory with and without reuse, and how much of the picture each place sees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from caffeconv.errors import LayerError
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.tensor.shape import count

FLOAT_BYTES = 4


@dataclass(frozen=True)
class ReceptiveField:
    """What one place of a blob depends on: pixels of the input on each spatial axis, and how far apart neighbours are.

    Both in order height, width. Where paths of different lengths meet, the largest.
    """

    size: tuple[int, ...]
    stride: tuple[Fraction, ...]

    def __str__(self) -> str:
        sizes = "×".join(map(str, self.size))
        strides = "×".join(_number(step) for step in self.stride)
        return f"{sizes} pixels, {strides} apart"


def _number(step: Fraction) -> str:
    return str(step.numerator) if step.denominator == 1 else f"{float(step):.3g}"


def receptive_fields(nodes: Sequence[Node]) -> dict[str, ReceptiveField]:
    """Value → receptive field with respect to the inputs; left out where that is not known, or is all."""
    fields: dict[str, ReceptiveField] = {}
    for node in nodes:
        receptive_field = _field(node, fields) if node.bottoms else _input_field(node)
        if receptive_field is not None:
            fields.update(
                (top, receptive_field) for top, shape in zip(node.tops, node.top_shapes, strict=True) if len(shape) > 2
            )
    return fields


def _input_field(node: Node) -> ReceptiveField | None:
    axes = max((len(shape) - 2 for shape in node.top_shapes), default=0)
    return ReceptiveField((1,) * axes, (Fraction(1),) * axes) if axes > 0 else None


def _field(node: Node, fields: Mapping[str, ReceptiveField]) -> ReceptiveField | None:
    bottom_fields = [fields[value] for value in node.bottoms if value in fields]
    if not bottom_fields or not node.top_shapes or len(node.top_shapes[0]) != len(node.bottom_shapes[0]):
        return None
    bottom, top = node.bottom_shapes[0], node.top_shapes[0]
    axes = range(len(bottom) - 2)
    if node.layer.mixes_positions or any(len(field.size) != len(axes) for field in bottom_fields):
        return None
    size = tuple(max(field.size[i] for field in bottom_fields) for i in axes)
    step = tuple(max(field.stride[i] for field in bottom_fields) for i in axes)
    try:
        window = node.layer.window_over(bottom)
    except LayerError:
        return None
    if window is None or len(window.kernel) != len(axes):
        ratios = [Fraction(bottom[i + 2], top[i + 2]) if top[i + 2] else Fraction(1) for i in axes]
        return ReceptiveField(size, tuple(step[i] * ratios[i] for i in axes))
    if node.layer.transposed:
        spread = tuple(size[i] + int((window.extent(i) - 1) // window.stride[i] * step[i]) for i in axes)
        return ReceptiveField(spread, tuple(step[i] / window.stride[i] for i in axes))
    spread = tuple(size[i] + int((window.extent(i) - 1) * step[i]) for i in axes)
    return ReceptiveField(spread, tuple(step[i] * window.stride[i] for i in axes))


def peak_bytes(nodes: Sequence[Node], outputs: Sequence[str]) -> int:
    """The most that blobs take at once, float32, where each is freed after its last reader; parameters not counted.

    Layers that work in place in Caffe do so here.
    """
    last = {value: i for i, node in enumerate(nodes) for value in (*node.tops, *node.bottoms)}
    last.update(dict.fromkeys(outputs, len(nodes)))
    ends = defaultdict[int, list[str]](list)
    for value, i in last.items():
        ends[i].append(value)
    alive: dict[str, int] = {}
    total = peak = 0
    for i, node in enumerate(nodes):
        for value, blob, shape in zip(node.tops, _blobs(node), node.top_shapes, strict=True):
            for j, bottom in enumerate(node.definition.bottoms):
                if bottom == blob:
                    total -= alive.pop(node.bottoms[j], 0)
            alive[value] = count(shape) * FLOAT_BYTES
            total += alive[value]
        peak = max(peak, total)
        total -= sum(alive.pop(value, 0) for value in ends[i])
    return peak


def session_bytes(graph: Graph) -> int:
    """About what a session for the graph holds: its parameters, those that are shared once, and its blobs at the peak."""
    params = sum(count(param.shape) for node in graph.nodes for param in node.params if param.owner is None)
    return params * FLOAT_BYTES + peak_bytes(graph.nodes, graph.outputs)


def _blobs(node: Node) -> tuple[str, ...]:
    return (*node.definition.tops, *node.tops[len(node.definition.tops) :])
