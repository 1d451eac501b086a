"""The layers of a net that take data from somewhere, and those that write it somewhere."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from caffeconv.data.source import DataSource
from caffeconv.errors import CaffeconvError
from caffeconv.ir.definition import error_context
from caffeconv.ir.layer import Node
from caffeconv.tensor.shape import FloatArray


class DataLayers:
    """What fills the tops of data layers, and what takes the bottoms of layers that write to a file.

    seed: for what is drawn at random; each layer draws from a seed of its own.
    """

    def __init__(self, nodes: Sequence[Node], seed: int) -> None:
        self.sources: dict[str, DataSource] = {}
        """Layer → what fills its tops, in the order in which they read."""
        self._definitions = {node.name: node.definition for node in nodes}
        for node in nodes:
            random = np.random.default_rng((seed, zlib.crc32(node.name.encode())))
            source = node.layer.data_source(node.definition.tops, random)
            if source is not None:
                self.sources[node.name] = source
        self._sinks = {node.name: sink for node in nodes if (sink := node.layer.data_sink()) is not None}

    @property
    def source_tops(self) -> set[str]:
        """The blobs that sources fill."""
        return {top for source in self.sources.values() for top in source.tops}

    def read_from(self, layer: str, source: DataSource) -> None:
        """Lets `source` fill the tops of a layer, after all other sources."""
        self.sources.pop(layer, None)
        self.sources[layer] = source

    def seek_passes(self, number: int) -> None:
        """Goes to where `number` passes leave all sources."""
        for source in self.sources.values():
            source.seek(number * source.batch_size)

    def set_arrays(self, layer: str, data: FloatArray, labels: FloatArray) -> None:
        """Gives a MemoryData layer its items; CaffeconvError where the layer is another, or they do not fit."""
        if layer not in self.sources:
            raise CaffeconvError("set_input_arrays may only be called if the first layer is a MemoryDataLayer")
        with error_context(self._definitions[layer]):
            self.sources[layer].set_arrays(data, labels)

    def next_batches(
        self, inputs: Mapping[str, FloatArray], layers: Collection[str], needed: Collection[str]
    ) -> Iterator[tuple[str, FloatArray]]:
        """Blob and values of the next batch of those among `layers` that are sources, and of those that `inputs` name.

        inputs: what the caller gives for tops, which is taken instead. needed: tops whose values somebody will look at.
        """
        for layer, source in self.sources.items():
            definition = self._definitions[layer]
            own = {top: inputs[top] for top in definition.tops if top in inputs}
            if own or layer in layers:
                with error_context(definition):
                    batch = source.next_batch(own, needed)
                yield from batch.items()

    # -- sinks -----------------------------------------------------------------------------------------------------

    @property
    def sinks(self) -> Collection[str]:
        """The layers that write."""
        return self._sinks.keys()

    def sink_bottoms(self, layers: Collection[str]) -> list[str]:
        """The blobs that those among `layers` write."""
        return [blob for layer in self._sinks if layer in layers for blob in self._definitions[layer].bottoms]

    def write(self, layers: Collection[str], value_of: Callable[[str], FloatArray]) -> None:
        """Lets those among `layers` that write do so."""
        for layer, sink in self._sinks.items():
            if layer in layers:
                definition = self._definitions[layer]
                with error_context(definition):
                    sink.write([value_of(blob) for blob in definition.bottoms])
