"""Which axes of a graph vary with the batch, the pictures' size, or values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from caffeconv.errors import CaffeconvError
from caffeconv.frontend.reshape import grown, input_shapes, reshape_graph
from caffeconv.ir.graph import Graph
from caffeconv.tensor.shape import BATCH, Dims, Shape

Symbols = dict[tuple[str, int], str]

# primes, so that a size tells what it follows from, and none divides another by chance
_BATCH_SIZES = (7, 11, 13, 17, 19, 23, 29)
DATA_SIZE = 37
"""What values decide, in graphs that are only compared."""
_GROWTH = 1009


def dynamic_candidates(graph: Graph, *, any_size: bool = False) -> Iterable[tuple[dict[str, Dims], Symbols, str]]:
    """Shapes with None where they vary with the batch, names for those axes, and the inputs whose batch that is.

    An axis varies where builds with other batch sizes differ. First every input has a batch of its own (rois are no
    pictures); where that does not go together, as with labels, those that are equal stay equal; then only those as
    large as the first vary; then only the first. What does not build, or changes the parameters' shapes, is left out.

    any_size: the axes of inputs after the second, height and width, vary too.
    """
    shapes = input_shapes(graph)
    sizes = {blob: shape[0] for blob, shape in shapes.items() if shape}
    if not sizes:
        return
    lead = next(iter(sizes))
    order = list(dict.fromkeys(sizes.values()))
    candidates: list[dict[str, int]] = []  # each: input → which of the batch sizes it follows
    for follows in (
        {blob: i for i, blob in enumerate(sizes)},
        {blob: order.index(size) for blob, size in sizes.items()},
        {blob: 0 for blob, size in sizes.items() if size == sizes[lead]},
        {lead: 0},
    ):
        if follows in candidates or max(follows.values()) >= len(_BATCH_SIZES):
            continue
        candidates.append(follows)
        varying = _varying(graph, shapes, follows, any_size=any_size)
        if varying is not None:
            yield *varying, ", ".join(sorted(follows))


def _varying(
    graph: Graph, shapes: Mapping[str, Shape], follows: Mapping[str, int], *, any_size: bool
) -> tuple[dict[str, Dims], Symbols] | None:
    names: dict[int, str] = {0: BATCH}
    for blob, number in follows.items():
        names.setdefault(number, f"{blob}_0")
    others = []
    for factor in (1, 31):
        requested = {blob: (_BATCH_SIZES[follows[blob]] * factor, *shapes[blob][1:]) for blob in follows}
        requested = {**shapes, **requested}
        if any_size:
            requested = grown(requested, _GROWTH * factor)
        try:
            others.append(reshape_graph(graph, requested, data_size=DATA_SIZE * factor).shapes)
        except CaffeconvError:
            return None
    dims = _differing(graph.shapes, others)
    if dims is None:
        return None
    named = {(size, size * 31): names[number] for number, size in enumerate(_BATCH_SIZES) if number in names}
    symbols: Symbols = {}
    for value, shape in dims.items():
        for axis, dim in enumerate(shape):
            seen = others[0][value][axis], others[1][value][axis]
            if dim is None and seen in named:
                symbols[value, axis] = named[seen]
    picture = next((blob for blob, shape in shapes.items() if len(shape) == 4), None)
    if any_size and picture is not None:
        symbols |= {(picture, 2): "height", (picture, 3): "width"}
    return dims, symbols


def fixed_dims(graph: Graph) -> dict[str, Dims]:
    """The graph's shapes, with None only for what follows from values (Filter, DetectionOutput)."""
    if all(node.layer.open_axis is None for node in graph.nodes):
        return dict(graph.shapes)
    try:
        dims = _differing(graph.shapes, [reshape_graph(graph, input_shapes(graph), data_size=DATA_SIZE).shapes])
    except CaffeconvError:  # a later layer wants the size that Caffe guesses; the run will tell
        dims = None
    return dims or {
        **graph.shapes,
        **{
            top: tuple(None if axis == node.layer.open_axis else dim for axis, dim in enumerate(shape))
            for node in graph.nodes
            for top, shape in zip(node.tops, node.top_shapes, strict=True)
        },
    }


def values_decide(graph: Graph) -> bool:
    """Whether the size of some blob follows from values, and not from what the user's code makes, which is planned anew."""
    return any(node.layer.open_axis is not None and not node.layer.has_dynamic_shapes for node in graph.nodes)


def _differing(shapes: Mapping[str, Shape], others: Iterable[Mapping[str, Shape]]) -> dict[str, Dims] | None:
    """The shapes with None where others differ; None where the number of axes does."""
    dims: dict[str, Dims] = dict(shapes)
    for other in others:
        for value, shape in other.items():
            if len(shape) != len(dims[value]):
                return None
            dims[value] = tuple(a if a == b else None for a, b in zip(dims[value], shape, strict=True))
    return dims
