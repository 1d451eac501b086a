"""Forward passes over a net's layers, and what they left in its blobs (caffe: Net::ForwardFromTo)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from caffeconv.emit.held_values import held_value
from caffeconv.errors import CaffeconvError
from caffeconv.files import arguments
from caffeconv.frontend.open_axes import fixed_dims
from caffeconv.frontend.reshape import input_shapes
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.net.data_layers import DataLayers
from caffeconv.net.pass_state import ForwardPass, Noise
from caffeconv.net.sessions import SessionPool, Values
from caffeconv.passes.shared_memory import shared_blobs
from caffeconv.passes.subgraph import external_inputs, last_writes, values_behind
from caffeconv.runtime.session import Session
from caffeconv.tensor.shape import FloatArray, Shape, count, format_shape
from caffeconv.tensor.window import INT_MAX


@dataclass(frozen=True)
class _Span:
    """What all passes over the same layers have in common, whatever the shapes."""

    layers: tuple[str, ...]
    always: tuple[str, ...]
    """Blobs that every pass gives, whether anybody asks for them or not."""
    values: Mapping[str, str]
    """Blob → its last value."""
    is_start: bool
    """Whether nothing but inputs lies before."""


class Forward:
    """The values of a net's blobs: its inputs' buffers, and what passes computed of the others.

    A pass computes what was wanted of it; what else it wrote is computed when it is read, and from then on by each pass.
    """

    def __init__(self, sessions: SessionPool, data: DataLayers, seed: int = 0) -> None:
        graph = sessions.graph
        self.states: Values = {}
        """What recurrent layers left after the last pass: the model's input for it → values."""
        self.before_layer: list[Callable[[int], object]] = []
        """Called with a layer's index before it runs; where there are any, layers run one at a time."""
        self.after_layer: list[Callable[[int], object]] = []
        self.noise = Noise(seed)
        """What the next pass draws its random numbers from."""
        self._sessions = sessions
        self._data = data
        self._nodes: Sequence[Node] = graph.nodes
        """For what no reshaping changes."""
        self._input_values = frozenset(graph.inputs)
        self._last_values = last_writes(graph.nodes)
        self._buffers = {blob: np.zeros(shape, np.float32) for blob, shape in input_shapes(graph).items()}
        self._values: dict[str, FloatArray] = {}
        """Blob → what a pass computed."""
        self._groups = shared_blobs(graph.nodes)
        self._holder: dict[str, str] = {}
        """Blob → the one whose memory it shares, which the last pass that wrote into either computed."""
        self._pending: dict[str, ForwardPass] = {}
        """Blobs that a pass wrote but nobody asked for yet → that pass, which computes them when they are read."""
        self._requested: set[str] = set()
        """Blobs that were read without having been asked for."""
        self._last: ForwardPass | None = None
        self._spans: dict[tuple[int, int], _Span] = {}
        self._inputs_by_blobs: dict[tuple[str, ...], set[str]] = {}
        automatic = [top for node in graph.nodes for top in node.tops[len(node.definition.tops) :]]
        self.blobs: Sequence[str] = (*graph.net.blob_order(), *automatic)

    @property
    def inputs(self) -> list[str]:
        """The inputs that the caller fills."""
        source_tops = self._data.source_tops
        return [blob for blob in self._buffers if blob not in source_tops]

    # -- shapes and values -----------------------------------------------------------------------------------------

    def shape_of(self, blob: str) -> Shape:
        """The shape that a blob has, or will have after the next pass."""
        if blob in self._holder:
            size = count(self.shape_of(self._holder[blob]))
            return _shape_of_size(self._sessions.graph, self._last_values[blob], size)
        if blob in self._values:
            return self._values[blob].shape
        if blob in self._buffers:
            return self._buffers[blob].shape
        if blob in self._pending:
            forward = self._pending[blob]
            return self._sessions.graph_of(forward).shapes[forward.values[blob]]
        return self._sessions.graph.shapes[self._last_values[blob]]

    def value_of(self, blob: str) -> FloatArray:
        """A blob's values; one that the last pass did not compute is computed now."""
        if blob in self._holder:
            return self.value_of(self._holder[blob]).reshape(self.shape_of(blob))
        if blob in self._buffers:
            return self._buffers[blob]
        if blob in self._pending and blob not in self._values:
            forward = self._pending[blob]
            # the second time that this is asked of a pass, it computes all its blobs
            self._compute(forward, self._left_by(forward) if forward.was_read else [blob])
            self._requested.add(blob)
        if blob not in self._values:
            self._values[blob] = np.zeros(self.shape_of(blob), np.float32)
        return self._values[blob]

    def _left_by(self, forward: ForwardPass) -> list[str]:
        """The blobs that only this pass can give."""
        return [blob for blob, other in self._pending.items() if other is forward]

    def _compute(self, forward: ForwardPass, blobs: Sequence[str]) -> None:
        self._sessions.drop_outdated()
        if forward.params is None and forward.params_version != self._sessions.params_version:
            raise CaffeconvError(
                f"blob '{blobs[0]}' was not computed by the last forward(), and parameters have been changed since. "
                f"Ask for it: forward(blobs=['{blobs[0]}'])"
            )
        values, _ = self._sessions.run(forward, blobs, again=True)
        self._values |= values
        read = replace(forward, was_read=True)
        self._pending = {
            blob: read if other is forward else other for blob, other in self._pending.items() if blob not in values
        }

    def reshape_input(self, blob: str, shape: Sequence[int]) -> None:
        """Gives an input another shape, its values zero; CaffeconvError for a blob that is no input."""
        if arguments.name("blob", blob) not in self._buffers:
            raise CaffeconvError(
                f"blob '{blob}' is no input: its shape follows from the inputs' ({', '.join(self.inputs)})"
            )
        shape = arguments.shapes("shape", {blob: shape})[blob]
        if min(shape, default=0) < 0 or count([max(size, 1) for size in shape]) > INT_MAX:
            raise CaffeconvError(
                f"blob '{blob}' cannot be {format_shape(shape)}: sizes of at least 0 were needed, and at most "
                f"{INT_MAX} values in all"
            )
        if tuple(shape) != self._buffers[blob].shape:
            self._buffers[blob] = np.zeros(tuple(shape), np.float32)
            self._sessions.reshape_input(blob, self._buffers[blob].shape)
            self._forget()

    def _forget(self) -> None:
        self._values.clear()
        self._pending.clear()
        self._holder.clear()
        self._last = None

    def check_known(self, blobs: Iterable[str]) -> None:
        """Raises CaffeconvError for a blob that the net lacks."""
        for blob in blobs:
            if blob not in self._last_values:
                raise CaffeconvError(f"the net has no blob '{blob}'; it has {', '.join(self.blobs)}")

    def pass_to_go_back(self) -> ForwardPass:
        """The pass whose gradients a backward pass computes: the last one, or, where that ran a part of the net or there
        was none, what the blobs hold."""
        if self._last is not None and self._last.span is None:
            return self._last
        graph = self._sessions.graph
        self._sessions.drop_outdated()
        blob_of = {
            value: blob
            for node in graph.nodes
            for blob, value in zip(
                (*node.definition.tops, *node.tops[len(node.definition.tops) :]), node.tops, strict=True
            )
        }
        feeds = {
            held_value(value): self.value_of(blob).reshape(graph.shapes[value]).copy()
            for value, blob in blob_of.items()
        }
        return ForwardPass(None, self._last_values, feeds, self.states, self._sessions.params_version, held=True)

    # -- passes ----------------------------------------------------------------------------------------------------

    def run(self, span: slice, wanted: Sequence[str], inputs: Mapping[str, FloatArray]) -> None:
        """Runs the layers `span`, so that at least the blobs `wanted` among those that they write hold their values.

        inputs: blob → values that go into the inputs before; data layers in the span whose tops are not among them take
        the next batch of their sources. Raises CaffeconvError as `Net.forward`.
        """
        if self.before_layer or self.after_layer:
            self._run_by_layers(span, inputs)
        else:
            self._run(span, wanted, inputs)

    def _run_by_layers(self, span: slice, inputs: Mapping[str, FloatArray]) -> None:
        place_of = {top: i for i, node in enumerate(self._nodes) for top in node.definition.tops[::-1]}
        place_of |= {top: i for i, node in enumerate(self._nodes) if node.layer.is_input for top in node.tops}
        self.check_known(inputs)
        layer = sum(node.layer.stands_in_net for node in self._nodes[: span.start])
        for place in range(span.start, span.stop):
            is_own = self._nodes[place].layer.stands_in_net
            for call in self.before_layer if is_own else ():
                call(layer)
            first = place == span.start
            own = {
                blob: values
                for blob, values in inputs.items()
                if place_of[blob] == place or (first and not span.start <= place_of[blob] < span.stop)
            }
            self._run(slice(place, place + 1), self._nodes[place].definition.tops, own)
            for call in self.after_layer if is_own else ():
                call(layer)
            layer += is_own

    def _run(self, span: slice, wanted: Sequence[str], inputs: Mapping[str, FloatArray]) -> None:
        forward, blobs = self.begin(span, wanted, inputs)
        self.finish(span, forward, *self._sessions.run(forward, blobs))

    def begin(
        self, span: slice, wanted: Sequence[str], inputs: Mapping[str, FloatArray]
    ) -> tuple[ForwardPass, list[str]]:
        """Fills the inputs of a pass: what it starts from, and the blobs that it has to give. Raises as `run`."""
        always = self._span(span).always
        self._fill(inputs, self._span(span).layers, [*wanted, *always])
        forward = self._begin_pass(span)
        in_place = [blob for blob in forward.values if blob in self._buffers and forward.writes(blob)]
        requested = [blob for blob in (*wanted, *always, *sorted(self._requested)) if blob in forward.values]
        return forward, list(dict.fromkeys([*requested, *in_place]))

    def finish(self, span: slice, forward: ForwardPass, values: Mapping[str, FloatArray], states: Values) -> None:
        """Takes over what a pass left: the blobs that it was asked for, and states."""
        self.states = states
        self._last = forward
        self._store(forward, values)
        self._data.write(self._span(span).layers, self.value_of)

    def _span(self, span: slice) -> _Span:
        key = (span.start, span.stop)
        if key not in self._spans:
            self._spans[key] = _span_of(self._nodes, span, self._data)
        return self._spans[key]

    def _store(self, forward: ForwardPass, values: Mapping[str, FloatArray]) -> None:
        for blob in forward.values:
            self._pending.pop(blob, None)
            self._values.pop(blob, None)
            if blob not in self._buffers and blob not in values:
                self._pending[blob] = forward
        for blob, array in values.items():
            if blob not in self._buffers:
                self._values[blob] = array
            elif forward.writes(blob):  # caffe: a layer in place overwrites the input itself
                self._buffers[blob][...] = array

        self._share_memory(forward)

    def _share_memory(self, forward: ForwardPass) -> None:
        """Lets blobs that are one memory be one, whichever of them the pass wrote; an input, where there is one."""
        for group in {self._groups[blob] for blob in forward.values if blob in self._groups}:
            written = [blob for blob in self.blobs if blob in group and blob in forward.values]
            computed = [
                blob for blob in self.blobs if blob in group and (blob in self._buffers or blob in self._values)
            ]
            holder = next((blob for blob in computed if blob in written or blob in self._buffers), written[0])
            self._holder.pop(holder, None)
            for blob in group - {holder} - self._buffers.keys():
                self._values.pop(blob, None)
                self._pending.pop(blob, None)
                self._holder[blob] = holder

    def _begin_pass(self, span: slice) -> ForwardPass:
        """A pass over some layers, with what its inputs hold now."""
        graph = self._sessions.graph
        host = graph.net.python_host
        if host is not None and any(node.layer.has_dynamic_shapes for node in graph.nodes):
            while self._pending and span.start:  # from now on Python layers give what is new
                forward = next(iter(self._pending.values()))
                self._compute(forward, self._left_by(forward))
            host.begin_pass()
        self._sessions.drop_outdated()
        values, version = self._span(span).values, self._sessions.params_version
        noise = self.noise
        self.noise = replace(noise, number=noise.number + 1)
        if self._span(span).is_start:
            feeds = {blob: buffer.copy() for blob, buffer in self._buffers.items()}
            return ForwardPass(None, values, feeds, self.states, version, noise=noise)
        nodes = graph.nodes[span]
        feeds = {value: self.value_of(blob).copy() for value, blob in external_inputs(nodes).items()}
        feeds |= {
            top: self._buffers[top].copy() for node in nodes if node.layer.is_input for top in node.definition.tops
        }
        return ForwardPass(span, values, feeds, self.states, version, noise=noise)

    def run_alone(self, feeds: Mapping[str, FloatArray], blobs: Sequence[str]) -> Values:
        """The blobs of one pass over the whole net, which leaves nothing but its states.

        feeds: input → values, float32, which are not copied; an input that is left out is as it was. Another shape
        reshapes the net.
        """
        self.check_known(blobs)
        for blob, values in feeds.items():
            self.reshape_input(blob, values.shape)
        self._forget()
        self._sessions.drop_outdated()
        graph = self._sessions.graph
        if graph.net.python_host is not None:
            graph.net.python_host.begin_pass()
        forward = ForwardPass(
            None, self._last_values, {**self._buffers, **feeds}, self.states, self._sessions.params_version,
            noise=self.noise,
        )  # fmt: skip
        self.noise = replace(self.noise, number=self.noise.number + 1)
        results, self.states = self._sessions.run(forward, self._wanted_alone(blobs))
        self._data.write(self._data.sinks, results.__getitem__)
        return {blob: results[blob] for blob in blobs}

    def session_alone(self, blobs: Sequence[str]) -> Session | None:
        """What computes the blobs of `run_alone` at these shapes; None where all are inputs."""
        graph = self._sessions.graph
        last_values = [self._last_values[blob] for blob in self._wanted_alone(blobs)]
        values = tuple(value for value in last_values if value not in graph.inputs)
        return self._sessions.forward_session(graph, values) if values else None

    def _wanted_alone(self, blobs: Sequence[str]) -> list[str]:
        return list(dict.fromkeys([*blobs, *self._data.sink_bottoms(self._data.sinks), *_tops_of_code(self._nodes)]))

    # -- inputs ----------------------------------------------------------------------------------------------------

    def _fill(self, inputs: Mapping[str, FloatArray], layers: Sequence[str], wanted: Sequence[str]) -> None:
        """Puts what the caller gives, and the next batch of every data layer among `layers`, into the buffers."""
        needed = self._inputs_of([*wanted, *self._requested])
        for blob, values in self._data.next_batches(inputs, layers, needed):
            if values is not inputs.get(blob):
                self.reshape_input(blob, values.shape)
            self._assign(blob, values)
        source_tops = self._data.source_tops
        for blob, values in inputs.items():
            if blob not in source_tops:
                self._assign(blob, values)

    def _inputs_of(self, blobs: Iterable[str]) -> set[str]:
        """The inputs that some blobs depend on."""
        key = tuple(blobs)
        if key not in self._inputs_by_blobs:
            values = values_behind(self._nodes, [self._last_values[blob] for blob in key])
            self._inputs_by_blobs[key] = values & self._input_values
        return self._inputs_by_blobs[key]

    def _assign(self, blob: str, values: FloatArray) -> None:
        if blob not in self._buffers:
            raise CaffeconvError(f"the net has no input '{blob}'; inputs: {', '.join(self.inputs)}")
        shape = self._buffers[blob].shape
        if values.shape != shape:
            if values.ndim != len(shape) or values.shape[1:] != shape[1:]:
                raise CaffeconvError(
                    f"input '{blob}': the array is {format_shape(values.shape)}, the net needs {format_shape(shape)}; "
                    f"for another size call net.blobs['{blob}'].reshape({', '.join(map(str, values.shape))}) first"
                )
            self.reshape_input(blob, values.shape)
        self._buffers[blob][...] = values


def _shape_of_size(graph: Graph, value: str, size: int) -> Shape:
    """The shape of a value that has `size` elements, which values may have decided along one axis (Filter)."""
    planned = graph.shapes[value]
    if count(planned) == size:
        return planned
    dims = fixed_dims(graph)[value]
    known = math.prod(dim for dim in dims if dim is not None)
    return tuple(size // max(known, 1) if dim is None else dim for dim in dims)


def _span_of(all_nodes: Sequence[Node], span: slice, data: DataLayers) -> _Span:
    nodes = all_nodes[span]
    layers = tuple(node.name for node in nodes)
    always = (*data.sink_bottoms(layers), *_tops_of_code(nodes))
    is_start = all(node.layer.is_input for node in all_nodes[: span.start])
    return _Span(layers, always, last_writes(nodes), is_start)


def _tops_of_code(nodes: Sequence[Node]) -> list[str]:
    """The tops of Python layers: these run in every pass, whether anybody asks for what they make or not."""
    return [top for node in nodes if node.layer.has_dynamic_shapes for top in node.definition.tops]
