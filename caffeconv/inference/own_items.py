"""What a net's own data layers give beside the inputs that are handed over, such as the matrix H of an InfogainLoss."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from caffeconv.data.input_items import ArraySource, InputSource
from caffeconv.data.source import DataSource
from caffeconv.inference.engine import Say
from caffeconv.ir.definition import error_context
from caffeconv.ir.layer import Node
from caffeconv.net.data_layers import DataLayers
from caffeconv.tensor.shape import FloatArray, format_shape

Dims = Sequence[int | str]


def own_items(
    nodes: Sequence[Node], inputs: Mapping[str, Dims], named: Mapping[str, InputSource], say: Say
) -> dict[str, InputSource]:
    """A source for each input that data layers fill of whose tops none is `named`: as many items as the named inputs have,
    from the first on and over again; or one batch, where that is all that the layer reads and the input's size is fixed.

    Raises CaffeconvError where a layer's data cannot be read.
    """
    missing = [blob for blob in inputs if blob not in named]
    layers = [node for node in nodes if _is_left_whole(node, missing, named)]
    if not named or not layers:
        return {}
    definitions = {node.name: node.definition for node in layers}
    count = next(iter(named.values())).count_items()
    filled: dict[str, InputSource] = {}
    with error_context(layers[0].definition):
        sources = DataLayers(layers, 0).sources
    for layer, source in sources.items():
        tops = [top for top in source.tops if top in missing]
        with error_context(definitions[layer]):
            is_one_batch = source.count_items() == source.batch_size
            is_constant = is_one_batch and all(_is_of(inputs[top], source.batch_size) for top in tops)
            arrays = _first_items(source, source.batch_size if is_constant else count, tops)
        for top, values in arrays.items():
            say(f"{top}: {format_shape(values.shape)} from {source.name}, which layer '{layer}' reads")
            filled[top] = ArraySource(top, Path(source.name), values)
    return filled


def _is_left_whole(node: Node, missing: Collection[str], named: Collection[str]) -> bool:
    """Whether the inputs want a layer's tops, and nobody names one of them: a layer's tops belong together."""
    tops = node.definition.tops
    return not node.definition.bottoms and any(top in missing for top in tops) and not any(top in named for top in tops)


def _is_of(dims: Dims, size: int) -> bool:
    return bool(dims) and dims[0] == size


def _first_items(source: DataSource, count: int, tops: Sequence[str]) -> dict[str, FloatArray]:
    source.seek(0)
    batches = [*_batches(source, count, tops)]
    return {top: np.concatenate([batch[top] for batch in batches])[:count] for top in tops}


def _batches(source: DataSource, count: int, tops: Sequence[str]) -> Iterator[dict[str, FloatArray]]:
    for _ in range(0, count, source.batch_size):
        batch = source.next_batch({}, tops)
        yield {top: batch[top].copy() for top in tops}
