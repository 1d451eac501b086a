"""A net as pycaffe has it: blobs, params, forward, on onnxruntime."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from caffeconv.caffe_format.hdf5 import is_hdf5, read_hdf5_weights
from caffeconv.caffe_format.terms import Phase
from caffeconv.conversion.load import Loaded, load, source_metadata
from caffeconv.conversion.to_onnx import to_onnx
from caffeconv.data.source import DataSource
from caffeconv.emit.backward import (
    BackwardModel,
    ParamKey,
    emit_backward,
    goes_backward,
    loss_weights,
    open_tops,
    plan_backward,
)
from caffeconv.emit.weights.caffe_weights import save_caffemodel, save_hdf5
from caffeconv.errors import CaffeconvError, Diagnostic, InvalidNetError, ShapesChangedError
from caffeconv.files.atomic import PathLike
from caffeconv.files.unchanged import unchanged
from caffeconv.frontend.bind import copied_from
from caffeconv.frontend.open_files import Weights, read_weights, weight_paths
from caffeconv.frontend.options import NetOptions
from caffeconv.frontend.reshape import input_shapes, reshape_graph
from caffeconv.inspection.costs import session_bytes
from caffeconv.ir.definition import Infogain, LayerDef, error_context
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.net.batching import BatchSplitter
from caffeconv.net.lru import LruCache
from caffeconv.net.snapshot import with_copied_values, with_copied_weights
from caffeconv.passes.subgraph import external_inputs, extract_subgraph, last_writes
from caffeconv.python_layers.host import AllowPython
from caffeconv.tensor.shape import FloatArray, Shape, count, format_shape, shape_string
from caffeconv.tensor.window import INT_MAX

if TYPE_CHECKING:
    from caffeconv.caffe_format.caffemodel import WeightsFile
    from caffeconv.runtime.providers import Provider
    from caffeconv.runtime.session import Session

MAX_SESSIONS = 8
MAX_SESSION_BYTES = 2 << 30
"""What the sessions of a net may hold together, by `session_bytes`; the newest is kept whatever it holds."""


class _Sized:
    """The sizes that a blob has by its shape."""

    @property
    def shape(self) -> Shape:
        raise NotImplementedError

    @property
    def count(self) -> int:
        return count(self.shape)

    @property
    def num(self) -> int:
        return _legacy_axis(self.shape, 0)

    @property
    def channels(self) -> int:
        return _legacy_axis(self.shape, 1)

    @property
    def height(self) -> int:
        return _legacy_axis(self.shape, 2)

    @property
    def width(self) -> int:
        return _legacy_axis(self.shape, 3)


class NetBlob(_Sized):
    """One blob of a net: `data`, `shape`, and for an input `reshape`."""

    def __init__(self, net: Net, name: str) -> None:
        self._net = net
        self.name = name

    @property
    def shape(self) -> Shape:
        return self._net.shape_of(self.name)

    @property
    def data(self) -> FloatArray:
        """The values, float32, to be assigned into (``blob.data[...] = x``); what no pass computed yet is when read."""
        return self._net.value_of(self.name)

    @property
    def diff(self) -> FloatArray:
        """The gradient that the last backward left, float32; 0 where none was computed, an output's loss weight.

        Assign into an output's, or a top's of the layer that `backward` starts at, to go backward from there.
        """
        return self._net.diff_of(self.name)

    def reshape(self, *shape: int) -> None:
        """Gives an input another shape; the rest of the net follows at the next forward."""
        self._net.reshape_input(self.name, shape)


class ParamBlob(_Sized):
    """One parameter blob, float32: `data` may be assigned into (net surgery); `diff` is what backward passes added."""

    def __init__(self, values: FloatArray, diff: FloatArray) -> None:
        self._values = values
        self._diff = diff

    @property
    def data(self) -> FloatArray:
        return self._values

    @property
    def diff(self) -> FloatArray:
        return self._diff

    @property
    def shape(self) -> Shape:
        return self._values.shape


@dataclass(frozen=True)
class NetLayer:
    """One layer of a net: its type and its parameter blobs, none for most types."""

    type: str
    blobs: Sequence[ParamBlob]


class _ParamStore(Mapping[str, list[ParamBlob]]):
    """layer → its parameter blobs, made when first asked for."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes: dict[str, Node] = {}
        self.take_nodes(nodes)
        self._owned: dict[ParamKey, ParamBlob] = {}
        self._diffs: dict[ParamKey, FloatArray] = {}
        self._marks: dict[ParamKey, int] = {}

    def take_nodes(self, nodes: Sequence[Node]) -> None:
        """The layers from whose parameters the blobs are made."""
        self._nodes = {node.name: node for node in nodes if node.params}

    def __getitem__(self, layer: str) -> list[ParamBlob]:
        node = self._nodes[layer]
        return [self._blob(param.owner or (layer, param.name), node, i) for i, param in enumerate(node.params)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def _blob(self, key: tuple[str, str], node: Node, index: int) -> ParamBlob:
        if key not in self._owned:
            values = np.array(node.params[index].array())
            diff = self._diffs.setdefault(key, np.zeros(values.shape, np.float32))
            self._owned[key] = ParamBlob(values, diff.reshape(values.shape))
            self._marks[key] = _mark(self._owned[key].data)
        blob = self._owned[key]
        shape = node.params[index].shape
        return blob if blob.shape == shape else ParamBlob(blob.data.reshape(shape), blob.diff.reshape(shape))

    def add_diffs(self, diffs: Mapping[ParamKey, FloatArray]) -> None:
        for key, diff in diffs.items():
            if key in self._diffs:
                self._diffs[key] += diff.reshape(self._diffs[key].shape)
            else:
                self._diffs[key] = diff

    def clear_diffs(self) -> None:
        for diff in self._diffs.values():
            diff[...] = 0

    def overwrite(self, given: Mapping[ParamKey, Callable[[], FloatArray]]) -> None:
        """Puts values into those blobs that were handed out."""
        for slot in given.keys() & self._owned.keys():
            with_copied_values = self._owned[slot].data
            with_copied_values[...] = given[slot]().reshape(with_copied_values.shape)

    def share(self, layer: str, blobs: Sequence[ParamBlob]) -> None:
        """Makes a layer's blobs hold the very values that another net's hold."""
        for param, mine, theirs in zip(self._nodes[layer].params, self[layer], blobs, strict=True):
            self._owned[param.owner or (layer, param.name)] = ParamBlob(theirs.data, mine.diff)

    def changed(self) -> bool:
        """Whether any blob that was handed out has other values than at the last call."""
        marks = {key: _mark(blob.data) for key, blob in self._owned.items()}
        different = marks != self._marks
        self._marks = marks
        return different

    def apply(self, graph: Graph) -> Graph:
        """The graph with the values that were assigned."""
        nodes = []
        for node in graph.nodes:
            params = []
            for param in node.params:
                with_copied_values = self._owned.get(param.owner or (node.name, param.name))
                params.append(
                    param if with_copied_values is None else replace(param, values=with_copied_values.data.ravel)
                )
            nodes.append(replace(node, params=tuple(params)))
        return replace(graph, nodes=tuple(nodes))


def _mark(values: FloatArray) -> int:
    return zlib.crc32(np.ascontiguousarray(values).view(np.uint8).data)


class Net:
    """A Caffe net that runs on onnxruntime.

    Args:
        net: the prototxt, or a caffemodel that carries its own net.
        weights: caffemodel or Caffe's HDF5, or several, applied in order.
        phase, level, stages: Caffe's NetState.
        allow_python: import and run the module of a `type: "Python"` layer; "path": only one that Python itself finds.
        provider: "auto", "cpu", "cuda" or "cuda:N"; auto takes CUDA where onnxruntime has it.
        threads: of onnxruntime, for one pass. nhwc: on CUDA, prefer kernels that keep channels last.
        half: forward passes in half precision, but for losses and statistics; on CUDA only.
        seed: for fillers that draw at random.
        deploy, extended, infogain, shapes, fully_convolutional: as for `convert`.

    Raises:
        CaffeconvError: whatever is wrong with the net or the weights.
    """

    def __init__(
        self, net: PathLike, weights: Weights = None, phase: Phase = "TEST", *, level: int = 0,
        stages: Sequence[str] = (), allow_python: AllowPython = False, provider: Provider = "auto", seed: int = 0,
        deploy: bool = False, extended: bool = False, infogain: Infogain | None = None,
        ignore_unknown_fields: bool = False, shapes: Mapping[str, Sequence[int]] | None = None,
        fully_convolutional: bool = False, threads: int | None = None, nhwc: bool = False, half: bool = False,
    ) -> None:  # fmt: skip
        options = NetOptions(
            phase, level, tuple(stages), shapes or {}, deploy, extended, infogain, allow_python, ignore_unknown_fields, seed,
            fully_convolutional,
        )  # fmt: skip
        with unchanged([Path(net), *weight_paths(weights)]):
            self._loaded: Loaded = with_copied_weights(load(net, weights, options))
        self.diagnostics: tuple[Diagnostic, ...] = self._loaded.bound.diagnostics
        """What might not be meant: layers without weights, probabilities where scores belong, …"""
        self.allow_python = allow_python
        self._python_host = self._loaded.net.python_host
        self._provider: Provider = provider
        self._threads, self._nhwc, self._half = threads, nhwc, half
        self._graph = self._loaded.graph
        self._buffers = {name: np.zeros(shape, np.float32) for name, shape in input_shapes(self._graph).items()}
        self._computed: dict[str, FloatArray] = {}
        self._pending: dict[str, _ForwardPass] = {}
        """Blobs that a pass wrote but nobody asked for yet → that pass, which computes them when they are read."""
        self._ran: _ForwardPass | None = None
        """The last forward pass."""
        self._kept: set[str] = set()
        self._params_version = 0
        self._sessions: LruCache[Session] = LruCache(MAX_SESSIONS, MAX_SESSION_BYTES)
        self._backward_sessions: LruCache[tuple[Session | None, BackwardModel]] = LruCache(
            MAX_SESSIONS, MAX_SESSION_BYTES
        )
        self._states: dict[str, FloatArray] = {}
        """What recurrent layers left after the last forward: the model's input for it → values."""
        self._diffs: dict[str, FloatArray] = {}
        self._went_back: _BackwardPass | None = None
        self._keeps_diffs = False
        """Whether a diff was read that backward had not been asked for, so that from now on it computes all."""
        self._params = _ParamStore(self._graph.nodes)
        self.params: Mapping[str, list[ParamBlob]] = self._params
        definition = self._loaded.net
        self.blobs: dict[str, NetBlob] = {name: NetBlob(self, name) for name in definition.blob_order()}
        self._automatic = [value for node in self._graph.nodes for value in node.tops[len(node.definition.tops) :]]
        self.blobs |= {name: NetBlob(self, name) for name in self._automatic}
        self.name = definition.name
        self._before_forward: list[Callable[[int], object]] = []
        self._after_forward: list[Callable[[int], object]] = []
        self._sources = _sources(self._graph, seed)
        self._sinks = [(node, sink) for node in self._graph.nodes if (sink := node.layer.data_sink()) is not None]
        filled = {top for node, _ in self._sources for top in node.definition.tops}
        self.inputs: list[str] = [name for name in self._buffers if name not in filled]
        self.layer_names: list[str] = [layer.name for layer in definition.layers]
        self.top_names: dict[str, list[str]] = {layer.name: list(layer.tops) for layer in definition.layers}
        self.bottom_names: dict[str, list[str]] = {layer.name: list(layer.bottoms) for layer in definition.layers}
        self._blob_of = {value: name for name, value in self._last_values().items()}
        self.outputs: list[str] = [self._blob_of[value] for value in self._graph.outputs]
        # a dry build of every layer: what Caffe refuses in its set-up is refused here, not at the first forward
        self._session(tuple(self._graph.outputs) or tuple(self._last_values().values()), None, self._graph)

    # -- shapes and values -----------------------------------------------------------------------------------------

    def shape_of(self, blob: str) -> Shape:
        """The shape that a blob has, or will have after the next forward."""
        if blob in self._buffers and blob not in self._computed:
            return self._buffers[blob].shape
        if blob in self._computed:
            return self._computed[blob].shape
        if blob in self._pending:
            return self._graph_of(self._pending[blob]).shapes[self._pending[blob].values[blob]]
        return self._reshaped().shapes[self._last_values()[blob]]

    def value_of(self, blob: str) -> FloatArray:
        """A blob's values; one that the last forward did not compute is computed now, and kept by later ones."""
        if blob in self._buffers:
            return self._buffers[blob]
        if blob not in self._computed:
            if blob in self._pending:
                self._compute(blob)
            else:
                self._computed[blob] = np.zeros(self.shape_of(blob), np.float32)
        return self._computed[blob]

    def _compute(self, blob: str) -> None:
        """Works out what a pass left in a blob; the second time that this is asked of a pass, in all its blobs."""
        going = self._pending[blob]
        names = self._left_by(going) if going.was_asked else [blob]
        self._fetch(going, names)
        self._kept.add(blob)

    def _left_by(self, going: _ForwardPass) -> list[str]:
        """The blobs that only this pass can give."""
        return [name for name, its_pass in self._pending.items() if its_pass is going]

    def _fetch(self, going: _ForwardPass, names: Sequence[str]) -> None:
        self._drop_outdated_sessions()
        if going.params_version != self._params_version:
            raise CaffeconvError(
                f"blob '{names[0]}' was not computed by the last forward(), and parameters have been changed since. "
                f"Ask for it: forward(blobs=['{names[0]}'])"
            )
        found = self._run(going, names)[0]
        self._computed |= found
        asked = replace(going, was_asked=True)
        self._pending = {
            name: asked if its_pass is going else its_pass
            for name, its_pass in self._pending.items()
            if name not in found
        }

    def reshape_input(self, blob: str, shape: Sequence[int]) -> None:
        """Gives an input another shape, its values zero; CaffeconvError for a blob that is no input."""
        if blob not in self._buffers:
            raise CaffeconvError(
                f"blob '{blob}' is no input: its shape follows from the inputs' ({', '.join(self.inputs)})"
            )
        sizes = [max(int(size), 1) for size in shape]
        if any(size < 0 for size in shape) or count(sizes) > INT_MAX:
            raise CaffeconvError(
                f"blob '{blob}' cannot be {format_shape(shape)}: sizes of at least 0 were needed, and at most "
                f"{INT_MAX} values in all"
            )
        if tuple(shape) != self._buffers[blob].shape:
            self._buffers[blob] = np.zeros(tuple(shape), np.float32)
            self._forget()

    def reshape(self) -> None:
        """Works out every shape anew; raises CaffeconvError where the inputs' shapes do not go together."""
        self._reshaped()

    def _forget(self) -> None:
        self._computed.clear()
        self._pending.clear()
        self._ran = None

    def _last_values(self) -> dict[str, str]:
        return {**self._loaded.net.last_value, **{value: value for value in self._automatic}}

    def _reshaped(self) -> Graph:
        shapes = {name: buffer.shape for name, buffer in self._buffers.items()}
        if shapes != input_shapes(self._graph):
            self._graph = reshape_graph(self._graph, shapes)
            self._diffs.clear()
            self._went_back = None
        return self._graph

    # -- running ---------------------------------------------------------------------------------------------------

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **inputs: ArrayLike
    ) -> dict[str, FloatArray]:
        """Runs the net and returns {blob: values} of its outputs and of `blobs`.

        Args:
            blobs: further blobs to return.
            start: the layer to start at. It and those after it run on what the blobs hold now, values that were
                assigned (``blobs["conv1"].data[...] = x``) included; no layer before it runs, data layers neither.
            end: the layer after which to stop; its tops are returned instead of the outputs.
            inputs: blob=array; float32, the blob's shape; another batch size reshapes the net. A data layer whose tops
                are not given takes the next batch of its database, list or file; a MemoryData layer that of its arrays.

        Raises:
            CaffeconvError: an unknown blob, a wrong shape, a label out of range, a source that is missing or damaged.
        """
        first = 0 if start is None else self._place_of(start)
        last = len(self.layer_names) - 1 if end is None else self._place_of(end)
        wanted = list(dict.fromkeys([*(self._tops_of(end) if end is not None else self.outputs), *(blobs or ())]))
        self.check_known(wanted)
        span = slice(first, max(first, last + 1))
        handed = {name: np.asarray(value, np.float32) for name, value in inputs.items()}
        if self._before_forward or self._after_forward:
            self._forward_by_layers(span, handed)
        else:
            self._forward(span, wanted, handed)
        return {name: self.value_of(name) for name in wanted}

    def _forward_by_layers(self, span: slice, handed: Mapping[str, FloatArray]) -> None:
        layer_of = {top: place for place, name in enumerate(self.layer_names) for top in self.top_names[name][::-1]}
        layer_of |= {top: i for i, node in enumerate(self._graph.nodes) if node.layer.is_input for top in node.tops}
        self.check_known(list(handed))
        for place in range(span.start, span.stop):
            for call in self._before_forward:
                call(place)
            first = place == span.start
            given = {
                name: values
                for name, values in handed.items()
                if layer_of[name] == place or (first and not span.start <= layer_of[name] < span.stop)
            }
            self._forward(slice(place, place + 1), self.top_names[self.layer_names[place]], given)
            for call in self._after_forward:
                call(place)

    def _forward(self, span: slice, wanted: Sequence[str], handed: Mapping[str, FloatArray]) -> None:
        """Runs the layers `span`, so that at least the blobs `wanted` among those that they write hold their values."""
        running = self.layer_names[span]
        sinks = [(node, sink) for node, sink in self._sinks if node.name in running]
        consumed = [blob for node, _ in sinks for blob in node.definition.bottoms]
        always = [*consumed, *self._made_by_code(running)]
        self._fill(handed, running, [*wanted, *always])
        going = self._begin_pass(span)
        overwritten = [blob for blob in going.values if blob in self._buffers and going.writes(blob)]
        asked = [blob for blob in (*wanted, *always, *sorted(self._kept)) if blob in going.values]
        results, self._states = self._run(going, list(dict.fromkeys([*asked, *overwritten])))
        self._ran = going
        for blob in going.values:
            self._pending.pop(blob, None)
            self._computed.pop(blob, None)
            if blob not in self._buffers and blob not in results:
                self._pending[blob] = going
        for blob, values in results.items():
            if blob not in self._buffers:
                self._computed[blob] = values
            elif going.writes(blob):  # caffe: a layer in place overwrites the input itself
                self._buffers[blob][...] = values
        for node, sink in sinks:
            with error_context(node.definition):
                sink.write([self.value_of(blob) for blob in node.definition.bottoms])

    def _begin_pass(self, span: slice) -> _ForwardPass:
        """A pass over some layers, with what its inputs hold now."""
        graph = self._reshaped()
        if self._python_host is not None and any(node.layer.has_dynamic_shapes for node in graph.nodes):
            while self._pending and span.start:  # from now on Python layers give what is new
                going = next(iter(self._pending.values()))
                self._fetch(going, self._left_by(going))
            self._python_host.begin_pass()
        self._drop_outdated_sessions()
        nodes = graph.nodes[span]
        values = last_writes(nodes)
        if all(node.layer.is_input for node in graph.nodes[: span.start]):
            feeds = {name: buffer.copy() for name, buffer in self._buffers.items()}
            return _ForwardPass(None, values, feeds, self._states, self._params_version)
        feeds = {value: self.value_of(blob).copy() for value, blob in external_inputs(nodes).items()}
        feeds |= {
            top: self._buffers[top].copy() for node in nodes if node.layer.is_input for top in node.definition.tops
        }
        return _ForwardPass(span, values, feeds, self._states, self._params_version)

    def before_forward(self, call: Callable[[int], object]) -> None:
        """From now on `call` is called before each layer of a forward pass, with the layer's index.

        Layers then run one at a time, as Caffe runs them; that is slower by far.
        """
        self._before_forward.append(call)

    def after_forward(self, call: Callable[[int], object]) -> None:
        """As `before_forward`, after each layer."""
        self._after_forward.append(call)

    @property
    def sources(self) -> dict[str, DataSource]:
        """Data layer → what fills its tops."""
        return {node.name: source for node, source in self._sources}

    def read_from(self, layer: str, source: DataSource) -> None:
        """Lets `source` fill the tops of a layer: instead of its own source, or of the caller."""
        (node,) = (node for node in self._graph.nodes if node.name == layer)
        self._sources = [(other, own) for other, own in self._sources if other.name != layer] + [(node, source)]
        self.inputs = [name for name in self.inputs if name not in source.tops]

    def input_layers(self) -> dict[str, str]:
        """Input that the caller fills → the layer that it is a top of."""
        return {top: layer for layer, tops in self.top_names.items() for top in tops if top in self.inputs}

    def definition_of(self, layer: str) -> LayerDef:
        """What the prototxt says of a layer."""
        return self._loaded.net.layers[self._place_of(layer)]

    @property
    def states(self) -> dict[str, FloatArray]:
        """What recurrent layers keep for the next pass, empty before the first one; assign to go on from elsewhere."""
        return self._states

    @states.setter
    def states(self, states: Mapping[str, FloatArray]) -> None:
        self._states = dict(states)

    @property
    def user_layers(self) -> list[str]:
        """The layers that are the user's own code."""
        return [node.name for node in self._graph.nodes if node.layer.has_dynamic_shapes]

    def bound_to_order(self) -> dict[str, str]:
        """Layer → why all passes have to go through this one net, one after another."""
        why = {node.name: "writes what it is given to a file" for node, _ in self._sinks}
        for node in self._graph.nodes:
            if node.layer.state_shapes(node.bottom_shapes):
                why[node.name] = "keeps its state from one pass to the next"
            elif node.layer.has_dynamic_shapes and not node.bottoms:
                why[node.name] = "is the user's code and makes data of its own"
        return why

    def kinds(self) -> dict[str, str]:
        """Blob → what it means to whoever runs the net (probabilities, detections, …), where its layer says that."""
        return {
            self._blob_of[value]: kind
            for node in self._graph.nodes
            for value, kind in zip(node.tops, node.layer.top_kinds, strict=False)
            if value in self._blob_of
        }

    def file_digests(self) -> dict[str, str]:
        """Name and SHA-256 of the net's and the weights' files, and the phase."""
        return source_metadata(self._loaded)

    def run_pass(self, feeds: Mapping[str, FloatArray], blobs: Sequence[str]) -> dict[str, FloatArray]:
        """The blobs of one pass, as of `forward`, without a copy and without a word in `net.blobs`: for many batches.

        Args:
            feeds: input → values, float32; an input that is left out is as it was. Another shape reshapes the net.
            blobs: what to return.
        """
        self.check_known(blobs)
        for name, values in feeds.items():
            self.reshape_input(name, values.shape)
        self._forget()
        self._drop_outdated_sessions()
        if self._python_host is not None:
            self._python_host.begin_pass()
        written_last = last_writes(self._reshaped().nodes)
        going = _ForwardPass(None, written_last, {**self._buffers, **feeds}, self._states, self._params_version)
        results, self._states = self._run(going, self._wanted_of_pass(blobs))
        for node, sink in self._sinks:
            with error_context(node.definition):
                sink.write([results[blob] for blob in node.definition.bottoms])
        return {name: results[name] for name in blobs}

    def session_of(self, blobs: Sequence[str]) -> Session | None:
        """What computes the blobs of a `run_pass`, while no batch of another size comes; None where all are inputs."""
        graph = self._reshaped()
        last = last_writes(graph.nodes)
        values = tuple(last[blob] for blob in self._wanted_of_pass(blobs) if last[blob] not in graph.inputs)
        return self._session(values, None, graph) if values else None

    def _wanted_of_pass(self, blobs: Sequence[str]) -> list[str]:
        written = [blob for node, _ in self._sinks for blob in node.definition.bottoms]
        return list(dict.fromkeys([*blobs, *written, *self._made_by_code(self.layer_names)]))

    def check_known(self, blobs: Sequence[str]) -> None:
        """Raises CaffeconvError for a blob that the net lacks."""
        unknown = [name for name in blobs if name not in self.blobs]
        if unknown:
            raise CaffeconvError(f"the net has no blob '{unknown[0]}'; it has {', '.join(self.blobs)}")

    def _tops_of(self, layer: str) -> list[str]:
        if layer not in self.top_names:
            raise CaffeconvError(f"the net has no layer '{layer}'; it has {', '.join(self.layer_names)}")
        return self.top_names[layer]

    def _fill(self, handed: Mapping[str, FloatArray], running: Sequence[str], wanted: Sequence[str]) -> None:
        """Puts what the caller hands over, and the next batch of every data layer among `running`, into the inputs."""
        needed = self._inputs_of([*wanted, *self._kept])
        rest = dict(handed)
        for node, source in self._sources:
            given = {top: rest.pop(top) for top in node.definition.tops if top in rest}
            if not given and node.name not in running:
                continue
            with error_context(node.definition):
                batch = source.next_batch(given, needed)
            for name, values in batch.items():
                if values is not given.get(name):
                    self.reshape_input(name, values.shape)
                self._assign(name, values)
        for name, values in rest.items():
            self._assign(name, values)

    def _inputs_of(self, names: Sequence[str]) -> set[str]:
        """The inputs that some blobs depend on."""
        last = self._last_values()
        values = {last[name] for name in names}
        for node in reversed(self._graph.nodes):
            if values.intersection(node.tops):
                values.update(node.bottoms)
        return values.intersection(self._graph.inputs)

    def _assign(self, name: str, value: ArrayLike) -> None:
        if name not in self._buffers:
            raise CaffeconvError(f"the net has no input '{name}'; inputs: {', '.join(self.inputs)}")
        array = np.asarray(value, np.float32)
        shape = self._buffers[name].shape
        if array.shape != shape:
            if array.ndim != len(shape) or array.shape[1:] != shape[1:]:
                raise CaffeconvError(
                    f"input '{name}': the array is {format_shape(array.shape)}, the net needs {format_shape(shape)}; "
                    f"for another size call net.blobs['{name}'].reshape{array.shape} first"
                )
            self.reshape_input(name, array.shape)
        self._buffers[name][...] = array

    def _run(
        self, going: _ForwardPass, names: Sequence[str]
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:  # fmt: skip
        """The blobs `names`, and the states that this pass leaves, by the input that takes them in the next one."""
        graph = self._graph_of(going)
        inputs = set(graph.inputs)
        values = {name: going.values[name] for name in names if going.values[name] not in inputs}
        if not values:
            return {name: going.feeds[going.values[name]] for name in names}, dict(going.states)
        for _ in graph.nodes:  # whenever Python layers make other shapes than planned, one more of them has run
            try:
                return self._run_session(going, graph, names, values)
            except ShapesChangedError:
                self._plan_anew()
                graph = self._graph_of(going)
        return self._run_session(going, graph, names, values)

    def _run_session(
        self, going: _ForwardPass, graph: Graph, names: Sequence[str], values: Mapping[str, str]
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        session = self._session(tuple(values.values()), going.span, graph)
        inputs = set(graph.inputs)
        kept = {name: f"{name.removesuffix('_in')}_out" for name in session.inputs if name not in inputs}
        with_copied_values = {name: self._state(going.states, name, session) for name in kept}
        needed = {name: going.feeds[name] for name in session.inputs if name in inputs}
        results = session.run({**needed, **with_copied_values}, [*values.values(), *kept.values()], same_pass=True)
        found = {name: results[value] for name, value in values.items()}
        blobs = {name: found[name] if name in found else going.feeds[going.values[name]] for name in names}
        return blobs, {**going.states, **{name: results[value] for name, value in kept.items()}}

    def _graph_of(self, going: _ForwardPass) -> Graph:
        """The layers that a pass runs."""
        graph = self._reshaped()
        if going.span is None:
            return graph
        return extract_subgraph(graph, going.span, {value: values.shape for value, values in going.feeds.items()})

    def _plan_anew(self) -> None:
        """Shapes, and so sessions, for what Python layers made in this pass."""
        if self._python_host is not None:
            self._python_host.learn_shapes()
        self._graph = reshape_graph(self._graph, input_shapes(self._graph))
        self._diffs.clear()

    def _made_by_code(self, running: Sequence[str]) -> list[str]:
        """The tops of Python layers: these run in every pass, whether anybody asks for what they make or not."""
        nodes = (node for node in self._graph.nodes if node.layer.has_dynamic_shapes and node.name in running)
        return [top for node in nodes for top in node.definition.tops]

    def _state(self, states: Mapping[str, FloatArray], name: str, session: Session) -> FloatArray:
        shape = tuple(int(size) for size in session.inputs[name])
        with_copied_values = states.get(name)
        # caffe: RecurrentLayer::Reshape — another batch size starts from zeros
        return (
            with_copied_values
            if with_copied_values is not None and with_copied_values.shape == shape
            else np.zeros(shape, np.float32)
        )

    def _session(self, values: tuple[str, ...], span: slice | None, graph: Graph) -> Session:
        from caffeconv.runtime.session import Session

        key = (values, span and (span.start, span.stop), tuple(sorted(input_shapes(graph).items())), _plan(graph))
        session = self._sessions.get(key)
        if session is None:
            size = session_bytes(graph)
            self._sessions.evict_for(size)
            loaded = replace(self._loaded, bound=replace(self._loaded.bound, graph=self._params.apply(graph)))
            model = to_onnx(loaded, values, batch="keep", stateful=True)
            session = Session(
                model, self._provider, self._threads, python_host=self._python_host, nhwc=self._nhwc, half=self._half
            )
            self._sessions.put(key, session, size)
        return session

    def _drop_outdated_sessions(self) -> None:
        """Forgets what holds other parameters than `params` does now."""
        if self._params.changed():
            self._params_changed()

    def _params_changed(self) -> None:
        self._params_version += 1
        self._sessions.clear()
        self._backward_sessions.clear()
        if self._went_back is not None:
            self._went_back = replace(self._went_back, outdated=True)

    # -- batches ---------------------------------------------------------------------------------------------------

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: ArrayLike) -> dict[str, FloatArray]:
        """Runs the net over arrays of any number of items, batch after batch; outputs and `blobs`, item by item.

        The last batch is filled up with zeros, and what comes of these left out again. A blob that has no items, such
        as a loss, gives a value for each batch. Raises as `forward`.
        """
        batches = BatchSplitter(
            {name: np.asarray(values, np.float32) for name, values in inputs.items()}, self._batch_size()
        )
        found = [self._copied(self.forward(blobs, **batch)) for batch in batches]  # type: ignore[arg-type]
        return batches.joined(found)

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **arrays: ArrayLike
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """As `forward_all`, with a backward pass after each batch: the blobs, and the diffs of inputs and of `diffs`.

        arrays: inputs, and gradients of outputs to start from.
        """
        batches = BatchSplitter(
            {name: np.asarray(values, np.float32) for name, values in arrays.items()}, self._batch_size()
        )
        found, found_diffs = [], []
        for batch in batches:
            seeds = {name: batch.pop(name) for name in self.outputs if name in batch}
            found.append(self._copied(self.forward(blobs, **batch)))  # type: ignore[arg-type]
            found_diffs.append(self._copied(self.backward(diffs, **seeds)))  # type: ignore[arg-type]
        return batches.joined(found), batches.joined(found_diffs)

    def _batch_size(self) -> int:
        return next(iter(self.blobs.values())).num

    @staticmethod
    def _copied(values: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        return {name: array.copy() for name, array in values.items()}

    def set_input_arrays(self, data: ArrayLike, labels: ArrayLike) -> None:
        """Gives the MemoryData layer that the net begins with its items, N×C×H×W, and labels, N or N×1×1×1.

        N is a multiple of the batch size; the next `forward` takes the first batch. Raises CaffeconvError where the
        first layer is another, or the arrays do not fit.
        """
        source = next((source for node, source in self._sources if node.name == self.layer_names[0]), None)
        if source is None:
            raise CaffeconvError("set_input_arrays may only be called if the first layer is a MemoryDataLayer")
        with error_context(self._graph.nodes[0].definition):
            source.set_arrays(np.asarray(data, np.float32), np.asarray(labels, np.float32))

    # -- layers and weights files ------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[object]:
        """A `NetLayer` for each layer; for a Python layer the user's own object."""
        return list(self.layer_dict.values())

    @property
    def layer_dict(self) -> dict[str, object]:
        """Layer → as in `layers`."""
        found: dict[str, object] = {}
        for node in self._graph.nodes:
            own = node.layer.user_object
            found[node.name] = NetLayer(node.type, self.params.get(node.name, [])) if own is None else own
        return found

    @property
    def blob_loss_weights(self) -> dict[str, float]:
        """Blob → by how much it counts in the net's loss."""
        weights = dict.fromkeys(self.blobs, 0.0)
        for node in self._graph.nodes:
            names = (*node.definition.tops, *node.tops[len(node.definition.tops) :])
            weights |= zip(names, loss_weights(node), strict=True)
        return weights

    def save(self, path: PathLike) -> None:
        """Writes net and parameters, as they are now, as a caffemodel; CaffeconvError where that cannot be."""
        save_caffemodel(Path(path), self._params.apply(self._graph))

    def save_hdf5(self, path: PathLike) -> None:
        """Writes the parameters as Caffe's HDF5; CaffeconvError where that cannot be (a slash in a layer's name)."""
        save_hdf5(Path(path), self._params.apply(self._graph))

    def copy_from(self, path: PathLike) -> None:
        """Takes over the parameters of those layers that a caffemodel, or Caffe's HDF5, has; the others stay.

        Raises InvalidNetError, and leaves all as they are, where one does not fit.
        """
        self._copy_from(read_weights(Path(path)))

    def load_hdf5(self, path: PathLike) -> None:
        """As `copy_from`, from Caffe's HDF5."""
        if not is_hdf5(Path(path)):
            raise CaffeconvError(
                f"{path}: this is no HDF5 file, or not there; weights that Caffe saved as HDF5 were needed"
            )
        self._copy_from(read_hdf5_weights(Path(path)))

    def _copy_from(self, file: WeightsFile) -> None:
        given, diagnostics = copied_from(file, self._graph)
        errors = [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]
        if errors:
            raise InvalidNetError(errors)
        nodes = []
        for node in self._graph.nodes:
            slots = [param.owner or (node.name, param.name) for param in node.params]
            params = tuple(
                with_copied_values(replace(param, values=given[slot], source=str(file.path)))
                if slot in given
                else param
                for slot, param in zip(slots, node.params, strict=True)
            )
            nodes.append(replace(node, params=params))
        self._graph = replace(self._graph, nodes=tuple(nodes))
        self._params.take_nodes(nodes)
        self._params.overwrite(given)
        self._params_changed()
        self.diagnostics += diagnostics

    def share_with(self, other: Net) -> None:
        """From now on the layers that both nets have hold the other's parameters: what changes in one does in both.

        Raises CaffeconvError where those of a layer differ in number or shape; nothing is shared then.
        """
        both = [layer for layer in other.params if layer in self.params]
        for layer in both:
            mine, theirs = self.params[layer], other.params[layer]
            if len(mine) != len(theirs):
                raise CaffeconvError(f"Incompatible number of blobs for layer {layer}: {len(theirs)} and {len(mine)}")
            for i, (own, given) in enumerate(zip(mine, theirs, strict=True)):
                if own.shape != given.shape:
                    raise CaffeconvError(
                        f"Cannot share param {i} weights from layer '{layer}'; shape mismatch.  Source param shape is "
                        f"{shape_string(given.shape)}; target param shape is {shape_string(own.shape)}"
                    )
        for layer in both:
            self._params.share(layer, other.params[layer])

    # -- backward --------------------------------------------------------------------------------------------------

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None,
        **top_diffs: ArrayLike,
    ) -> dict[str, FloatArray]:  # fmt: skip
        """Runs the net backward from its losses and returns {blob: gradient} of its inputs and of `diffs`.

        Gradients are those that Caffe computes: of what lies between a loss and something that learns (lr_mult other
        than 0), or of everything with `force_backward: true` in the net. They are then in ``blobs[…].diff``, 0
        elsewhere; in ``params[…][i].diff`` they add up from pass to pass until `clear_param_diffs`. The pass belongs to
        the last forward, its inputs and states.

        Args:
            diffs: further blobs to return.
            start: the layer to start at; the diffs of its tops are what ``blobs[…].diff`` holds.
            end: the layer to stop after; its bottoms are returned instead of the inputs.
            top_diffs: output=gradient to start from, shaped as the blob, instead of its loss weight.

        Raises:
            CaffeconvError: no forward before, an unknown blob or layer, a wrong shape, a layer whose gradient is not
                known, a gradient that Caffe refuses (of labels), a net in which nothing goes backward.
        """
        if self._ran is None:
            raise CaffeconvError("backward() needs a forward() before it, whose gradients it computes")
        if self._ran.span is not None:
            raise CaffeconvError(
                f"backward() after forward(start='{self.layer_names[self._ran.span.start]}') is not supported: "
                "the gradients of a whole forward() are computed. Run that first"
            )
        last = len(self.layer_names) - 1 if start is None else self._place_of(start)
        first = 0 if end is None else self._place_of(end)
        graph = self._reshaped()
        if not goes_backward(graph):
            raise CaffeconvError(
                "nothing goes backward in this net: no top has a loss_weight, and force_backward is not set. "
                "Add a loss, or write `force_backward: true` at the top of the prototxt"
            )
        wanted = [*(self.inputs if end is None else self.bottom_names[end]), *(diffs or ())]
        self.check_known(wanted)
        opened = open_tops(plan_backward(graph)[first : last + 1])
        self._give_diffs(top_diffs, {*opened, *self.outputs})
        with_copied_values = {blob: self.diff_of(blob) for blob in opened}
        seeds = {
            blob: diff.copy() for blob, diff in with_copied_values.items() if not (diff == self._first_diff(blob)).all()
        }
        if self._went_back is not None and not self._went_back.outdated and (start, end) != (None, None):
            for blob in self._went_back.reached:  # those that this pass does not come to stay as they are
                self.diff_of(blob)
        going = _BackwardPass(slice(first, last + 1), self._ran.feeds, self._ran.states, seeds)
        found, params, reached = self._run_back(going, self.blobs if self._keeps_diffs else wanted)
        self._params.add_diffs(params)
        self._diffs = {blob: diff for blob, diff in self._diffs.items() if blob not in reached} | found
        self._went_back = replace(going, reached=reached)
        return {blob: self.diff_of(blob) for blob in dict.fromkeys(wanted)}

    def clear_param_diffs(self) -> None:
        """Sets the gradients of all parameters to 0; backward passes add to them."""
        self._params.clear_diffs()

    def diff_of(self, blob: str) -> FloatArray:
        """A blob's gradient; one that the last backward did not compute is computed now, and from then on each time."""
        if blob in self._diffs:
            return self._diffs[blob]
        if self._went_back is None or blob not in self._went_back.reached:
            self._diffs[blob] = np.full(self.shape_of(blob), self._first_diff(blob), np.float32)
            return self._diffs[blob]
        self._drop_outdated_sessions()
        if self._went_back.outdated:
            raise CaffeconvError(
                f"the gradient of '{blob}' was not computed by the last backward(), and parameters have been changed "
                f"since. Ask for it: backward(diffs=['{blob}'])"
            )
        self._keeps_diffs = True
        self._diffs = {**self._run_back(self._went_back, self.blobs)[0], **self._diffs}
        return self._diffs[blob]

    def _first_diff(self, blob: str) -> float:
        # caffe: Layer::SetLossWeights
        for node in self._graph.nodes:
            for value, weight in zip(node.tops, loss_weights(node), strict=True):
                if weight and self._blob_of.get(value) == blob:
                    return weight
        return 0.0

    def _place_of(self, layer: str) -> int:
        self._tops_of(layer)
        return self.layer_names.index(layer)

    def _give_diffs(self, given: Mapping[str, ArrayLike], allowed: set[str]) -> None:
        for blob, values in given.items():
            if blob not in allowed:
                raise CaffeconvError(
                    f"backward({blob}=…): a gradient can be given of {', '.join(sorted(allowed))}; '{blob}' is no output"
                )
            diff, shape = np.array(values, np.float32), self.shape_of(blob)
            if diff.shape != shape:
                raise CaffeconvError(
                    f"backward({blob}=…): the array is {format_shape(diff.shape)}, the blob {format_shape(shape)}"
                )
            self._diffs[blob] = diff

    def _run_back(
        self, going: _BackwardPass, wanted: Collection[str]
    ) -> tuple[dict[str, FloatArray], dict[ParamKey, FloatArray], frozenset[str]]:
        """The diffs of the blobs `wanted`, as far as there are any, and of the parameters; and which blobs get one."""
        graph = self._reshaped()
        session, backward = self._backward_session(going.span, going.seeds.keys(), wanted)
        if session is None:
            return {}, {}, backward.reached
        feeds = {name: going.feeds[name] for name in session.inputs if name in going.feeds and name in graph.inputs}
        feeds |= {name: going.seeds[blob] for blob, name in backward.seeds.items() if name in session.inputs}
        states = {name: self._state(going.states, name, session) for name in session.inputs if name not in feeds}
        results = session.run({**feeds, **states}, same_pass=True)
        blobs = {blob: results[name] for blob, name in backward.blobs.items()}
        return blobs, {slot: results[name] for slot, name in backward.params.items()}, backward.reached

    def _backward_session(
        self, span: slice, seeded: Collection[str], wanted: Collection[str]
    ) -> tuple[Session | None, BackwardModel]:
        """The model, and a session for it unless it has nothing to give."""
        from caffeconv.runtime.session import Session

        self._drop_outdated_sessions()
        graph = self._reshaped()
        shapes = (*sorted(input_shapes(graph).items()), _plan(graph))
        key = (span.start, span.stop, tuple(sorted(seeded)), tuple(sorted(wanted)), shapes)
        made = self._backward_sessions.get(key)
        if made is None:
            size = 2 * session_bytes(graph)  # values and diffs
            self._backward_sessions.evict_for(size)
            backward = emit_backward(self._params.apply(graph), span, seeded=seeded, wanted=wanted)
            session = None
            if backward.blobs or backward.params:
                session = Session(
                    backward.outline, self._provider, self._threads, python_host=self._python_host, nhwc=self._nhwc
                )
            made = session, backward
            self._backward_sessions.put(key, made, size)
        return made


@dataclass(frozen=True)
class _ForwardPass:
    """A forward pass: which layers ran, and on what, so that it can give further blobs."""

    span: slice | None
    """None where it ran from the net's inputs on."""
    values: Mapping[str, str]
    """Blob → value that the last of these layers left in it."""
    feeds: Mapping[str, FloatArray]
    """Input value → what it held."""
    states: Mapping[str, FloatArray]
    """What recurrent layers started from."""
    params_version: int
    was_asked: bool = False
    """Whether a blob was read that nobody had asked for beforehand."""

    def writes(self, blob: str) -> bool:
        """Whether one of the layers computed what the blob holds: the pass did not start from it."""
        return self.values[blob] not in self.feeds


@dataclass(frozen=True)
class _BackwardPass:
    """What a backward pass started from, so that it can give further diffs."""

    span: slice
    feeds: Mapping[str, FloatArray]
    states: Mapping[str, FloatArray]
    seeds: Mapping[str, FloatArray]
    reached: frozenset[str] = frozenset()
    outdated: bool = False
    """Whether parameters were changed since."""


def _sources(graph: Graph, seed: int) -> list[tuple[Node, DataSource]]:
    """The layers that fill their tops themselves; each draws from a seed of its own."""
    found = []
    for node in graph.nodes:
        random = np.random.default_rng((seed, zlib.crc32(node.name.encode())))
        source = node.layer.data_source(node.definition.tops, random)
        if source is not None:
            found.append((node, source))
    return found


def _plan(graph: Graph) -> tuple[object, ...]:
    """What a session is made for, of what the user's code decides."""
    return tuple((node.top_shapes, node.layer.open_axis) for node in graph.nodes if node.layer.has_dynamic_shapes)


def _legacy_axis(shape: Shape, axis: int) -> int:
    # caffe: Blob::LegacyShape — axes that a blob lacks count as 1
    return shape[axis] if axis < len(shape) else 1
