"""The parameters of a net: what they are now, what backward passes added up for them, and whether they have changed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from caffeconv.errors import CaffeconvError, Diagnostic, InvalidNetError, UnknownNameError
from caffeconv.files import arguments
from caffeconv.frontend.bind import copied_from
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.net.blobs import ParamBlob
from caffeconv.net.snapshot import with_copied_values
from caffeconv.python_layers.blobs import Layer
from caffeconv.tensor.param import Param, ParamKey
from caffeconv.tensor.param_values import ArrayValues, ObservedValues
from caffeconv.tensor.shape import FloatArray, format_shape, shape_string

if TYPE_CHECKING:
    from caffeconv.caffe_format.caffemodel import WeightsFile


class ParamStore(Mapping[str, list[ParamBlob]]):
    """Layer → its parameter blobs, which are made when first asked for; layers without any are left out."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.version = 0
        """Another number whenever parameters have been seen to change; `refresh` looks."""
        self.diffs_were_read = False
        """Whether somebody has looked at the diff of a parameter, and may hold its array."""
        self._params: dict[str, tuple[Param, ...]] = {node.name: node.params for node in nodes if node.params}
        self._values: dict[ParamKey, FloatArray] = {}
        """Those that were needed so far, by their owners."""
        self._lenders: dict[ParamKey, tuple[ParamStore, ParamKey]] = {}
        """Parameter that holds the values of another net's → that net's parameters, and which of them."""
        self._blobs: dict[ParamKey, ParamBlob] = {}
        """Those that were handed out, by their owners."""
        self._handed_out: set[ParamKey] = set()
        """Parameters whose values' arrays somebody may hold, so that they stay where they are."""
        self._diffs: dict[ParamKey, FloatArray] = {}
        self._late_diffs: Callable[[], Mapping[ParamKey, FloatArray]] | None = None
        """What gives the diffs, where they are to be computed when they are read."""
        self._marks: dict[object, int] = {}
        """Of the values that the blobs had at the last look."""
        self._of_code: frozenset[ParamKey] = frozenset()
        """Those of the user's own layers, which write into their diffs themselves: nothing is added up there."""
        for node in nodes:
            if isinstance(node.layer.user_object, Layer):
                self._take_blobs(node, node.layer.user_object)

    def __getitem__(self, layer: str) -> list[ParamBlob]:
        if not isinstance(layer, str) or layer not in self._params:
            raise UnknownNameError("layer with parameters", layer, self)
        return [self._blob(param.key_in(layer), param) for param in self._params[layer]]

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
            values = self._hand_out(key)
            diff = self._diffs.setdefault(key, np.zeros(values.shape, np.float32))
            self._blobs[key] = ParamBlob(values, diff.reshape(values.shape), self._read_diffs)
            self._marks[key] = _mark(values)
        blob = self._blobs[key]
        # caffe: PERMISSIVE sharing takes the same numbers in another shape
        return blob if blob.shape == param.shape else blob.reshaped(param.shape)

    def _take_blobs(self, node: Node, code: Layer) -> None:
        """Makes a Python layer's own blobs those of the net, as they are in Caffe."""
        own = [(param, blob) for param, blob in zip(node.params, code.blobs, strict=True) if param.owner is None]
        for param, blob in own:
            blob.data[...] = param.array().reshape(blob.shape)
            key = node.name, param.name
            self._blobs[key], self._diffs[key] = ParamBlob(blob.data, blob.diff), blob.diff
            self._values[key] = blob.data
            self._handed_out.add(key)
            self._marks[key] = _mark(blob.data)
        self._of_code |= {(node.name, param.name) for param, _ in own}

    # -- diffs -----------------------------------------------------------------------------------------------------

    def add_diffs(self, diffs: Mapping[ParamKey, FloatArray], overwritten: Collection[ParamKey] = ()) -> None:
        """Adds to what earlier passes left; those that are `overwritten` take its place."""
        self._compute_late_diffs()
        for key, diff in diffs.items():
            if key in self._of_code:
                continue
            if key not in self._diffs:
                self._diffs[key] = diff
            elif key in overwritten:
                self._diffs[key][...] = diff.reshape(self._diffs[key].shape)
            else:
                self._diffs[key] += diff.reshape(self._diffs[key].shape)

    @contextmanager
    def unchanged_diffs(self) -> Iterator[None]:
        """Where the user's layers may write into their diffs, and these are afterwards as they were."""
        before = {key: self._diffs[key].copy() for key in self._of_code}
        try:
            yield
        finally:
            for key, diff in before.items():
                self._diffs[key][...] = diff

    def clear_diffs(self) -> None:
        self._late_diffs = None
        for diff in self._diffs.values():
            diff[...] = 0

    def set_diffs(self, diffs: Mapping[ParamKey, FloatArray]) -> None:
        """Puts these in the place of all there were; 0 for parameters that are not among them."""
        self.clear_diffs()
        self.add_diffs(diffs)

    def set_diffs_late(self, compute: Callable[[], Mapping[ParamKey, FloatArray]]) -> None:
        """As `set_diffs` with what `compute` gives, when somebody reads one."""
        self._late_diffs = compute

    def diffs_if(self, *, wanted: bool) -> Callable[[ParamKey], FloatArray] | None:
        """`diff_of`, or None where diffs are not wanted."""
        return self.diff_of if arguments.truth("diffs", wanted) else None

    def diff_of(self, key: ParamKey) -> FloatArray:
        """The diff, shaped as the parameter's owner has it."""
        self._compute_late_diffs()
        values = self.values_of(key)
        return self._diffs.setdefault(key, np.zeros(values.shape, np.float32)).reshape(values.shape)

    def _read_diffs(self) -> None:
        self.diffs_were_read = True
        self._compute_late_diffs()

    def _compute_late_diffs(self) -> None:
        compute, self._late_diffs = self._late_diffs, None
        if compute is not None:
            self.set_diffs(compute())

    # -- values ----------------------------------------------------------------------------------------------------

    def values_of(self, key: ParamKey) -> FloatArray:
        """What a parameter holds now, shaped as its owner has it; not a copy."""
        if key in self._lenders:
            lender, lent = self._lenders[key]
            return lender.values_of(lent)
        if key not in self._values:
            self._values[key] = np.array(self._owned(key).array(), np.float32)
        return self._values[key]

    def _hand_out(self, key: ParamKey) -> FloatArray:
        """As `values_of`, for somebody who may hold the array: it stays the one that the parameter's values are in."""
        if key in self._lenders:
            lender, lent = self._lenders[key]
            return lender._hand_out(lent)
        self._handed_out.add(key)
        return self.values_of(key)

    def is_handed_out(self, key: ParamKey) -> bool:
        """Whether somebody may hold the array of the values."""
        if key in self._lenders:
            lender, lent = self._lenders[key]
            return lender.is_handed_out(lent)
        return key in self._handed_out

    def move_to(self, key: ParamKey, values: FloatArray) -> None:
        """Makes another array the one that the parameter's values are in; it must not have been handed out."""
        if key in self._lenders:
            lender, lent = self._lenders[key]
            lender.move_to(lent, values)
        else:
            self._values[key] = values

    def _owned(self, key: ParamKey) -> Param:
        return next(param for param in self._params[key[0]] if param.name == key[1])

    def refresh(self) -> None:
        """Makes `version` another number if blobs that were handed out have other values than at the last call."""
        marks: dict[object, int] = {key: _mark(blob.data) for key, blob in self._blobs.items()}
        for key, (lender, lent) in self._lenders.items():
            marks[id(lender)] = lender.version
            if key not in marks and lender.is_handed_out(lent):
                marks[key] = _mark(self.values_of(key))
        if marks != self._marks:
            self._marks = marks
            self.version += 1

    def apply(self, graph: Graph, on_read: Callable[[ParamKey], object] | None = None) -> Graph:
        """The graph, of this net's layers and others without parameters, with the values that parameters have now.

        on_read: called with the parameter whose values somebody reads.
        """

        def now(layer: str, param: Param) -> Param:
            key = param.key_in(layer)
            if on_read is not None:
                return replace(param, values=ObservedValues(lambda: self.values_of(key), lambda: on_read(key)))
            if key in self._values or key in self._lenders:
                return replace(param, values=ArrayValues(self.values_of(key)))
            return param

        nodes = tuple(
            replace(node, params=tuple(now(node.name, param) for param in self._params[node.name]))
            if node.params
            else node
            for node in graph.nodes
        )
        return replace(graph, nodes=nodes)

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
                if (key := param.key_in(layer)) in values
                else param
                for param in params
            )
        for key in values:
            if key in self._values or key in self._lenders:
                data = self.values_of(key)
                data[...] = values[key].array().reshape(data.shape)
        self.version += 1
        return diagnostics

    def share_with(self, other: ParamStore) -> None:
        """Makes the blobs of layers that both have hold the very values that the other's hold.

        Raises CaffeconvError where those of a layer differ in number or shape; nothing is shared then.
        """
        both = [layer for layer in other if layer in self]
        for layer in both:
            _check_alike(layer, self._params[layer], other._params[layer])
        for layer in both:
            for mine, theirs in zip(self._params[layer], other._params[layer], strict=True):
                self._share(mine.key_in(layer), other, theirs.key_in(layer))

    def _share(self, key: ParamKey, other: ParamStore, theirs: ParamKey) -> None:
        lender, lent = other, theirs
        while lent in lender._lenders:
            lender, lent = lender._lenders[lent]
        if (lender is self and lent == key) or self._lenders.get(key) == (lender, lent):
            return
        self.version += 1
        self._lenders[key] = lender, lent
        self._blobs.pop(key, None)
        self._values.pop(key, None)


def _mark(values: FloatArray) -> int:
    return zlib.crc32(np.ascontiguousarray(values).view(np.uint8).data)


def _check_alike(layer: str, blobs: Sequence[Param], others: Sequence[Param]) -> None:
    if len(blobs) != len(others):
        raise CaffeconvError(f"Incompatible number of blobs for layer {layer}: {len(others)} and {len(blobs)}")
    for i, (mine, theirs) in enumerate(zip(blobs, others, strict=True)):
        if mine.shape != theirs.shape:
            raise CaffeconvError(
                f"Cannot share param {i} weights from layer '{layer}'; shape mismatch.  Source param shape is "
                f"{shape_string(theirs.shape)}; target param shape is {shape_string(mine.shape)}"
            )
