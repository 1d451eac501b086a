"""A graph at other input shapes: reshaping, and which axes vary with the batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from caffeconv.build import infer_tops
from caffeconv.errors import CaffeconvError, Diagnostic, InvalidNetError, LayerError
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.tensor.shape import BATCH, Dims, Shape, by_x


def reshape_graph(graph: Graph, input_shapes: Mapping[str, Sequence[int]], *, data_size: int | None = None) -> Graph:
    """The graph with inputs (blob → shape) of other shapes, and all that follows; parameters stay.

    `data_size`: see build. Raises InvalidNetError where shapes do not go together, or parameters would change theirs.
    """
    asked = {blob: tuple(shape) for blob, shape in input_shapes.items()}
    shapes: dict[str, Shape] = {}
    nodes = []
    for node in graph.nodes:
        try:
            nodes.append(_reshaped(node, tuple(shapes[value] for value in node.bottoms), asked, data_size))
        except LayerError as error:
            raise InvalidNetError([Diagnostic("error", node.definition.where, str(error), layer=node.name)]) from None
        shapes.update(zip(node.tops, nodes[-1].top_shapes, strict=True))
    return replace(graph, nodes=tuple(nodes), shapes=shapes)


def _reshaped(node: Node, bottoms: tuple[Shape, ...], asked: Mapping[str, Shape], data_size: int | None) -> Node:
    tops = infer_tops(node.definition, node.layer, bottoms, asked, data_size)
    for name, shape in node.layer.weight_shapes(bottoms).items():
        if node.has_param(name) and node.param(name).shape != tuple(shape):
            raise LayerError(
                f"its parameter {name} would be {by_x(shape)} for these input shapes, "
                f"and no longer what the weights are, {by_x(node.param(name).shape)}"
            )
    return replace(node, bottom_shapes=bottoms, top_shapes=tops)


def input_shapes(graph: Graph) -> dict[str, Shape]:
    """Blob → shape of every input."""
    return {
        blob: graph.shapes[value]
        for node in graph.nodes
        if node.layer.is_input
        for blob, value in zip(node.definition.tops, node.tops, strict=True)
    }


def checked_shapes(graph: Graph, asked: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """The shapes that the caller asks for; CaffeconvError for what is no input of the graph."""
    given = input_shapes(graph)
    for blob in asked:
        if blob not in given:
            raise CaffeconvError(
                f"shape given for '{blob}', which is no input of the net; inputs: {', '.join(sorted(given))}"
            )
    return {blob: tuple(shape) for blob, shape in asked.items()}


def for_any_batch(graph: Graph) -> Graph:
    """The same graph, in which layers that name the batch size as a number mean the batch."""
    nodes = (replace(node, layer=node.layer.for_any_batch(node.bottom_shapes)) for node in graph.nodes)
    return replace(graph, nodes=tuple(nodes))


def with_batch(graph: Graph, batch: int) -> Graph:
    """The graph at a batch size: that of the first input, and of others as large as it."""
    if batch < 1:
        raise CaffeconvError(f"batch {batch}: at least 1 was needed")
    given = input_shapes(graph)
    main = next((shape[0] for shape in given.values() if shape), None)
    asked = {blob: (batch, *shape[1:]) for blob, shape in given.items() if shape and shape[0] == main}
    return reshape_graph(for_any_batch(graph), asked)


Symbols = dict[tuple[str, int], str]
_BATCH_SIZES = (7, 11, 13, 17, 19, 23, 29)
_DATA_SIZE = 37
_GROWTH = 1009
# primes, so that a size tells what it follows from, and none divides another by chance


def dynamic_candidates(graph: Graph, *, any_size: bool = False) -> Iterable[tuple[dict[str, Dims], Symbols, str]]:
    """Shapes with None where they vary with the batch, names for those axes, and the inputs whose batch that is.

    An axis varies where builds with other batch sizes differ. First every input has a batch of its own (rois are no
    pictures); where that does not go together, as with labels, those that are equal stay equal; then only those as
    large as the first vary; then only the first. What does not build, or changes the parameters' shapes, is left out.

    any_size: the axes of inputs after the second, height and width, vary too.
    """
    given = input_shapes(graph)
    sizes = {blob: shape[0] for blob, shape in given.items() if shape}
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
        varying = _varying(graph, given, follows, any_size=any_size)
        if varying is not None:
            yield *varying, ", ".join(sorted(follows))


def _varying(
    graph: Graph, given: Mapping[str, Shape], follows: Mapping[str, int], *, any_size: bool
) -> tuple[dict[str, Dims], Symbols] | None:
    names: dict[int, str] = {0: BATCH}
    for blob, number in follows.items():
        names.setdefault(number, f"{blob}_0")
    others = []
    for factor in (1, 31):
        asked = {blob: (_BATCH_SIZES[follows[blob]] * factor, *given[blob][1:]) for blob in follows}
        asked = {**given, **asked}
        if any_size:
            asked = grown(asked, _GROWTH * factor)
        try:
            others.append(reshape_graph(graph, asked, data_size=_DATA_SIZE * factor).shapes)
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
    picture = next((blob for blob, shape in given.items() if len(shape) == 4), None)
    if any_size and picture is not None:
        symbols |= {(picture, 2): "height", (picture, 3): "width"}
    return dims, symbols


def grown(shapes: Mapping[str, Shape], pixels: int) -> dict[str, Shape]:
    """Inputs of N×C×spatial… that are larger by a number of pixels, another one on each axis; others as they are."""
    return {
        blob: (*shape[:2], *(size + pixels + i for i, size in enumerate(shape[2:]))) for blob, shape in shapes.items()
    }


def fixed_dims(graph: Graph) -> dict[str, Dims]:
    """The graph's shapes, with None only for what follows from values (Filter, DetectionOutput)."""
    if all(node.layer.open_axis is None for node in graph.nodes):
        return dict(graph.shapes)
    try:
        dims = _differing(graph.shapes, [reshape_graph(graph, input_shapes(graph), data_size=_DATA_SIZE).shapes])
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


def _differing(shapes: Mapping[str, Shape], others: Iterable[Mapping[str, Shape]]) -> dict[str, Dims] | None:
    """The shapes with None where others differ; None where the number of axes does."""
    dims: dict[str, Dims] = dict(shapes)
    for other in others:
        for value, shape in other.items():
            if len(shape) != len(dims[value]):
                return None
            dims[value] = tuple(a if a == b else None for a, b in zip(dims[value], shape, strict=True))
    return dims
