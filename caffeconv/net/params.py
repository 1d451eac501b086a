"""The parameters of a net: what they are now, what backward passes added up for them, and whether they have changed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from caffeconv.emit.backward import ParamKey
from caffeconv.errors import CaffeconvError, Diagnostic, InvalidNetError, UnknownNameError
from caffeconv.frontend.bind import copied_from
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.net.blobs import ParamBlob
from caffeconv.net.snapshot import with_copied_values
from caffeconv.tensor.param import Param
from caffeconv.tensor.param_values import ArrayValues
from caffeconv.tensor.shape import FloatArray, format_shape, shape_string

if TYPE_CHECKING:
    from caffeconv.caffe_format.caffemodel import WeightsFile


class ParamStore(Mapping[str, list[ParamBlob]]):
    """Layer → its parameter blobs, which are made when first asked for; layers without any are left out."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.version = 0
        """Another number whenever parameters have been seen to change; `refresh` looks."""
        self._params: dict[str, tuple[Param, ...]] = {node.name: node.params for node in nodes if node.params}
        self._blobs: dict[ParamKey, ParamBlob] = {}
        """Those that were handed out, by their owners."""
        self._diffs: dict[ParamKey, FloatArray] = {}
        self._marks: dict[ParamKey, int] = {}
        """Of the values that the blobs had at the last look."""

    def __getitem__(self, layer: str) -> list[ParamBlob]:
        if layer not in self._params:
            raise UnknownNameError("layer with parameters", layer, self)
        return [self._blob(_key(layer, param), param) for param in self._params[layer]]

    def __contains__(self, layer: object) -> bool:
        return layer in self._params

    def __repr__(self) -> str:
        shapes = (
            f"{layer}: {', '.join(format_shape(p.shape) for p in params)}" for layer, params in self._params.items()
        )
        return f"<parameters {'; '.join(shapes)}>"

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)

    def _blob(self, key: ParamKey, param: Param) -> ParamBlob:
        if key not in self._blobs:
            values = np.array(param.array())
            diff = self._diffs.setdefault(key, np.zeros(values.shape, np.float32))
            self._blobs[key] = ParamBlob(values, diff.reshape(values.shape))
            self._marks[key] = _mark(values)
        blob = self._blobs[key]
        # caffe: PERMISSIVE sharing takes the same numbers in another shape
        if blob.shape == param.shape:
            return blob
        return ParamBlob(blob.data.reshape(param.shape), blob.diff.reshape(param.shape))

    # -- diffs -----------------------------------------------------------------------------------------------------

    def add_diffs(self, diffs: Mapping[ParamKey, FloatArray]) -> None:
        for key, diff in diffs.items():
            if key in self._diffs:
                self._diffs[key] += diff.reshape(self._diffs[key].shape)
            else:
                self._diffs[key] = diff

    def clear_diffs(self) -> None:
        for diff in self._diffs.values():
            diff[...] = 0

    # -- values ----------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Makes `version` another number if blobs that were handed out have other values than at the last call."""
        marks = {key: _mark(blob.data) for key, blob in self._blobs.items()}
        if marks != self._marks:
            self._marks = marks
            self.version += 1

    def apply(self, graph: Graph) -> Graph:
        """The graph, of this net's layers and others without parameters, with the values that parameters have now."""
        nodes = tuple(
            replace(node, params=tuple(self._now(_key(node.name, param), param) for param in self._params[node.name]))
            if node.params
            else node
            for node in graph.nodes
        )
        return replace(graph, nodes=nodes)

    def _now(self, key: ParamKey, param: Param) -> Param:
        blob = self._blobs.get(key)
        return param if blob is None else replace(param, values=ArrayValues(blob.data))

    def copy_from(self, file: WeightsFile, graph: Graph) -> tuple[Diagnostic, ...]:
        """Takes over the parameters of those layers of the graph that a file has, and returns what is to be said of it.

        Raises InvalidNetError, and leaves all as they are, where one does not fit.
        """
        values, diagnostics = copied_from(file, graph)
        errors = [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]
        if errors:
            raise InvalidNetError(errors)
        for layer, params in self._params.items():
            self._params[layer] = tuple(
                with_copied_values(replace(param, values=values[key], source=str(file.path)))
                if (key := _key(layer, param)) in values
                else param
                for param in params
            )
        for key in values.keys() & self._blobs.keys():
            data = self._blobs[key].data
            data[...] = values[key].array().reshape(data.shape)
        self.version += 1
        return diagnostics

    def share_with(self, other: ParamStore) -> None:
        """Makes the blobs of layers that both have hold the very values that the other's hold.

        Raises CaffeconvError where those of a layer differ in number or shape; nothing is shared then.
        """
        both = [layer for layer in other if layer in self]
        for layer in both:
            _check_alike(layer, self[layer], other[layer])
        for layer in both:
            for param, mine, theirs in zip(self._params[layer], self[layer], other[layer], strict=True):
                self._blobs[_key(layer, param)] = ParamBlob(theirs.data, mine.diff)


def _key(layer: str, param: Param) -> ParamKey:
    return param.owner or (layer, param.name)


def _mark(values: FloatArray) -> int:
    return zlib.crc32(np.ascontiguousarray(values).view(np.uint8).data)


def _check_alike(layer: str, blobs: Sequence[ParamBlob], others: Sequence[ParamBlob]) -> None:
    if len(blobs) != len(others):
        raise CaffeconvError(f"Incompatible number of blobs for layer {layer}: {len(others)} and {len(blobs)}")
    for i, (mine, theirs) in enumerate(zip(blobs, others, strict=True)):
        if mine.shape != theirs.shape:
            raise CaffeconvError(
                f"Cannot share param {i} weights from layer '{layer}'; shape mismatch.  Source param shape is "
                f"{shape_string(theirs.shape)}; target param shape is {shape_string(mine.shape)}"
            )
