"""A net as pycaffe has it: blobs, params, forward, on onnxruntime."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from caffeconv.batch import input_shapes, reshape_graph
from caffeconv.convert import Loaded, PathLike, Weights, convert_loaded, load, source_metadata, weight_paths
from caffeconv.data.sources import DataSource
from caffeconv.errors import CaffeconvError, Diagnostic, PlanOutdatedError
from caffeconv.gradient import (
    BackwardModel,
    Slot,
    emit_backward,
    goes_backward,
    loss_weights,
    open_tops,
    plan_backward,
)  # fmt: skip
from caffeconv.held import holding_weights, unchanged
from caffeconv.ir import FloatArray, Graph, Infogain, LayerDef, Node, Phase, Shape, by_x, count
from caffeconv.read.netdef import State

if TYPE_CHECKING:
    from caffeconv.runtime.session import Provider, Session

MAX_SESSIONS = 8


class NetBlob:
    """One blob of a net: `data`, `shape`, and for an input `reshape`."""

    def __init__(self, net: Net, name: str) -> None:
        self._net = net
        self.name = name

    @property
    def shape(self) -> Shape:
        return self._net.shape_of(self.name)

    @property
    def data(self) -> FloatArray:
        """The values, float32. Assign into an input's (``blob.data[...] = x``); any other is computed when read."""
        return self._net.value_of(self.name)

    @property
    def diff(self) -> FloatArray:
        """The gradient that the last backward left, float32; 0 where none was computed, an output's loss weight.

        Assign into an output's, or a top's of the layer that `backward` starts at, to go backward from there.
        """
        return self._net.diff_of(self.name)

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

    def reshape(self, *shape: int) -> None:
        """Gives an input another shape; the rest of the net follows at the next forward."""
        self._net.reshape_input(self.name, shape)


class ParamBlob:
    """One parameter blob, float32: `data` may be assigned into (net surgery); `diff` is what backward passes added."""

    def __init__(self, values: FloatArray, diff: FloatArray) -> None:
        self.data = values
        self.diff = diff

    @property
    def shape(self) -> Shape:
        return self.data.shape

    @property
    def count(self) -> int:
        return self.data.size


class _Params(Mapping[str, list[ParamBlob]]):
    """layer → its parameter blobs, made when first asked for."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = {node.name: node for node in nodes if node.params}
        self._owned: dict[Slot, ParamBlob] = {}
        self._diffs: dict[Slot, FloatArray] = {}
        self._marks: dict[Slot, int] = {}

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

    def add_diffs(self, diffs: Mapping[Slot, FloatArray]) -> None:
        for key, diff in diffs.items():
            if key in self._diffs:
                self._diffs[key] += diff.reshape(self._diffs[key].shape)
            else:
                self._diffs[key] = diff

    def clear_diffs(self) -> None:
        for diff in self._diffs.values():
            diff[...] = 0

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
                held = self._owned.get(param.owner or (node.name, param.name))
                params.append(param if held is None else replace(param, values=held.data.ravel))
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
        allow_python: import and run the module of a `type: "Python"` layer.
        provider: "auto", "cpu" or "cuda".
        threads: of onnxruntime, for one pass.
        seed: for fillers that draw at random.
        deploy, extended, infogain, shapes: as for `convert`.

    Raises:
        CaffeconvError: whatever is wrong with the net or the weights.
    """

    def __init__(
        self, net: PathLike, weights: Weights = None, phase: Phase = "TEST", *, level: int = 0,
        stages: Sequence[str] = (), allow_python: bool = False, provider: Provider = "auto", seed: int = 0,
        deploy: bool = False, extended: bool = False, infogain: Infogain | None = None,
        ignore_unknown_fields: bool = False, shapes: Mapping[str, Sequence[int]] | None = None,
        threads: int | None = None,
    ) -> None:  # fmt: skip
        with unchanged([Path(net), *weight_paths(weights)]):
            self._loaded: Loaded = holding_weights(load(
                net, weights, shapes=shapes, state=State(phase, level, tuple(stages), extended, deploy, infogain, allow_python),
                seed=seed, ignore_unknown_fields=ignore_unknown_fields,
            ))  # fmt: skip
        self.diagnostics: tuple[Diagnostic, ...] = self._loaded.bound.diagnostics
        """What might not be meant: layers without weights, probabilities where scores belong, …"""
        self.allow_python = allow_python
        self._user_code = self._loaded.net.user_code
        self._provider: Provider = provider
        self._threads = threads
        self._graph = self._loaded.graph
        self._buffers = {name: np.zeros(shape, np.float32) for name, shape in input_shapes(self._graph).items()}
        self._computed: dict[str, FloatArray] = {}
        self._ran: dict[str, FloatArray] | None = None
        self._kept: set[str] = set()
        self._sessions: dict[tuple[object, ...], Session] = {}
        self._backward_sessions: dict[tuple[object, ...], tuple[Session | None, BackwardModel]] = {}
        self._states: dict[str, FloatArray] = {}
        """What recurrent layers left after the last forward: the model's input for it → values."""
        self._started_from: dict[str, FloatArray] = {}
        """The states from which the last forward started."""
        self._diffs: dict[str, FloatArray] = {}
        self._went_back: _WentBack | None = None
        self._keeps_diffs = False
        """Whether a diff was read that backward had not been asked for, so that from now on it computes all."""
        self._params = _Params(self._graph.nodes)
        self.params: Mapping[str, list[ParamBlob]] = self._params
        definition = self._loaded.net
        self.blobs: dict[str, NetBlob] = {name: NetBlob(self, name) for name in definition.blob_order()}
        self._automatic = [value for node in self._graph.nodes for value in node.tops[len(node.definition.tops) :]]
        self.blobs |= {name: NetBlob(self, name) for name in self._automatic}
        self.name = definition.name
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
        self._session(tuple(self._graph.outputs) or tuple(self._last_values().values()))

    # -- shapes and values -----------------------------------------------------------------------------------------

    def shape_of(self, blob: str) -> Shape:
        """The shape that a blob has, or will have after the next forward."""
        if blob in self._buffers and blob not in self._computed:
            return self._buffers[blob].shape
        if blob in self._computed:
            return self._computed[blob].shape
        return self._reshaped().shapes[self._last_values()[blob]]

    def value_of(self, blob: str) -> FloatArray:
        """A blob's values; one that the last forward did not compute is computed now, and kept by later ones."""
        if blob in self._buffers:
            return self._buffers[blob]
        if blob not in self._computed:
            if self._ran is None:
                self._computed[blob] = np.zeros(self.shape_of(blob), np.float32)
            else:
                self._kept.add(blob)
                names = [name for name in self.blobs if name not in self._buffers]
                self._computed |= self._run(self._ran, names, self._started_from)[0]
        return self._computed[blob]

    def reshape_input(self, blob: str, shape: Sequence[int]) -> None:
        """Gives an input another shape, its values zero; CaffeconvError for a blob that is no input."""
        if blob not in self._buffers:
            raise CaffeconvError(
                f"blob '{blob}' is no input: its shape follows from the inputs' ({', '.join(self.inputs)})"
            )
        if tuple(shape) != self._buffers[blob].shape:
            self._buffers[blob] = np.zeros(tuple(shape), np.float32)
            self._forget()

    def reshape(self) -> None:
        """Works out every shape anew; raises CaffeconvError where the inputs' shapes do not go together."""
        self._reshaped()

    def _forget(self) -> None:
        self._computed.clear()
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
            start: not supported yet: CaffeconvError.
            end: the layer after which to stop; its tops are returned instead of the outputs.
            inputs: blob=array; float32, the blob's shape; another batch size reshapes the net. A data layer whose tops
                are not given takes the next batch of its database, list or file; a MemoryData layer that of its arrays.

        Raises:
            CaffeconvError: an unknown blob, a wrong shape, a label out of range, a source that is missing or damaged.
        """
        if start is not None:
            raise CaffeconvError("forward(start=…) is not supported yet; run the whole net")
        wanted = list(dict.fromkeys([*(self._tops_of(end) if end is not None else self.outputs), *(blobs or ())]))
        self.check_known(wanted)
        running = self.layer_names if end is None else self.layer_names[: self.layer_names.index(end) + 1]
        sinks = [(node, sink) for node, sink in self._sinks if node.name in running]
        written = [blob for node, _ in sinks for blob in node.definition.bottoms]
        handed = {name: np.asarray(value, np.float32) for name, value in inputs.items()}
        always = [*written, *self._made_by_code(running)]
        self._fill(handed, running, [*wanted, *always])
        feeds = {name: buffer.copy() for name, buffer in self._buffers.items()}
        self._forget()
        self._started_from = self._states
        if self._user_code is not None:
            self._user_code.begin_pass()
        results, self._states = self._run(feeds, list(dict.fromkeys([*wanted, *always, *self._kept])), self._states)
        self._ran = feeds
        self._computed = {name: value for name, value in results.items() if name not in self._buffers}
        for name in self._buffers:
            if name in results:  # caffe: a layer in place overwrites the input itself
                self._buffers[name] = results[name]
        for node, sink in sinks:
            with placed(node.definition):
                sink.write([results[blob] for blob in node.definition.bottoms])
        return {name: self._buffers[name] if name in self._buffers else self._computed[name] for name in wanted}

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

    def loss_weights(self) -> dict[str, float]:
        """Blob → loss weight, of those that have one (caffe: Layer::SetLossWeights)."""
        weights = [
            (self._blob_of[value], weight)
            for node in self._graph.nodes
            for value, weight in zip(node.tops, loss_weights(node), strict=True)
            if weight and value in self._blob_of
        ]
        return dict(weights)

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
        if self._user_code is not None:
            self._user_code.begin_pass()
        written = [blob for node, _ in self._sinks for blob in node.definition.bottoms]
        wanted = list(dict.fromkeys([*blobs, *written, *self._made_by_code(self.layer_names)]))
        results, self._states = self._run({**self._buffers, **feeds}, wanted, self._states)
        for node, sink in self._sinks:
            with placed(node.definition):
                sink.write([results[blob] for blob in node.definition.bottoms])
        return {name: results[name] for name in blobs}

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
            with placed(node.definition):
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
                    f"input '{name}': the array is {by_x(array.shape)}, the net needs {by_x(shape)}; "
                    f"for another size call net.blobs['{name}'].reshape{array.shape} first"
                )
            self.reshape_input(name, array.shape)
        self._buffers[name] = np.array(array)

    def _run(
        self, feeds: Mapping[str, FloatArray], names: Sequence[str], states: Mapping[str, FloatArray]
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """The blobs `names`, and the states that this pass leaves, by the input that takes them in the next one."""
        last = self._last_values()
        graph = self._reshaped()
        inputs = set(graph.inputs)
        values = {name: last[name] for name in names if last[name] not in inputs}
        if not values:
            return {name: feeds[name] for name in names}, dict(states)
        for _ in graph.nodes:  # whenever Python layers make other shapes than planned, one more of them has run
            try:
                return self._run_session(feeds, names, values, states)
            except PlanOutdatedError:
                self._plan_anew()
        return self._run_session(feeds, names, values, states)

    def _run_session(
        self, feeds: Mapping[str, FloatArray], names: Sequence[str], values: Mapping[str, str],
        states: Mapping[str, FloatArray],
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:  # fmt: skip
        session = self._session(tuple(values.values()))
        inputs = set(self._graph.inputs)
        kept = {name: f"{name.removesuffix('_in')}_out" for name in session.inputs if name not in inputs}
        held = {name: self._state(states, name, session) for name in kept}
        needed = {name: feeds[name] for name in session.inputs if name in inputs}
        results = session.run({**needed, **held}, [*values.values(), *kept.values()], same_pass=True)
        found = {name: results[value] for name, value in values.items()}
        blobs = {name: found[name] if name in found else feeds[name] for name in names}
        return blobs, {**states, **{name: results[value] for name, value in kept.items()}}

    def _plan_anew(self) -> None:
        """Shapes, and so sessions, for what Python layers made in this pass."""
        if self._user_code is not None:
            self._user_code.learn_shapes()
        self._graph = reshape_graph(self._graph, input_shapes(self._graph))
        self._diffs.clear()

    def _made_by_code(self, running: Sequence[str]) -> list[str]:
        """The tops of Python layers: these run in every pass, whether anybody asks for what they make or not."""
        nodes = (node for node in self._graph.nodes if node.layer.makes_shapes and node.name in running)
        return [top for node in nodes for top in node.definition.tops]

    def _state(self, states: Mapping[str, FloatArray], name: str, session: Session) -> FloatArray:
        shape = tuple(int(size) for size in session.inputs[name])
        held = states.get(name)
        # caffe: RecurrentLayer::Reshape — another batch size starts from zeros
        return held if held is not None and held.shape == shape else np.zeros(shape, np.float32)

    def _session(self, values: tuple[str, ...]) -> Session:
        from caffeconv.runtime.session import Session

        self._drop_outdated_sessions()
        graph = self._reshaped()
        key = (values, tuple(sorted(input_shapes(graph).items())), _plan(graph))
        if key not in self._sessions:
            if len(self._sessions) >= MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            loaded = replace(self._loaded, bound=replace(self._loaded.bound, graph=self._params.apply(graph)))
            model = convert_loaded(loaded, values, batch="keep", stateful=True)
            self._sessions[key] = Session(model, self._provider, self._threads, user_code=self._user_code)
        return self._sessions[key]

    def _drop_outdated_sessions(self) -> None:
        """Forgets what holds other parameters than `params` does now."""
        if not self._params.changed():
            return
        self._sessions.clear()
        self._backward_sessions.clear()
        if self._went_back is not None:
            self._went_back = replace(self._went_back, outdated=True)

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
        held = {blob: self.diff_of(blob) for blob in opened}
        seeds = {blob: diff.copy() for blob, diff in held.items() if not (diff == self._first_diff(blob)).all()}
        if self._went_back is not None and not self._went_back.outdated and (start, end) != (None, None):
            for blob in self._went_back.reached:  # those that this pass does not come to stay as they are
                self.diff_of(blob)
        going = _WentBack(slice(first, last + 1), self._ran, self._started_from, seeds)
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
                raise CaffeconvError(f"backward({blob}=…): the array is {by_x(diff.shape)}, the blob {by_x(shape)}")
            self._diffs[blob] = diff

    def _run_back(
        self, going: _WentBack, wanted: Collection[str]
    ) -> tuple[dict[str, FloatArray], dict[Slot, FloatArray], frozenset[str]]:
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
        if key not in self._backward_sessions:
            if len(self._backward_sessions) >= MAX_SESSIONS:
                del self._backward_sessions[next(iter(self._backward_sessions))]
            backward = emit_backward(self._params.apply(graph), span, seeded=seeded, wanted=wanted)
            session = None
            if backward.blobs or backward.params:
                session = Session(backward.model, self._provider, self._threads, user_code=self._user_code)
            self._backward_sessions[key] = session, backward
        return self._backward_sessions[key]


@dataclass(frozen=True)
class _WentBack:
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


@contextmanager
def placed(definition: LayerDef) -> Iterator[None]:
    """Names the layer in what goes wrong inside."""
    try:
        yield
    except CaffeconvError as error:
        raise CaffeconvError(f"{definition.where}: {error}") from None


def _plan(graph: Graph) -> tuple[object, ...]:
    """What a session is made for, of what the user's code decides."""
    return tuple((node.top_shapes, node.layer.open_axis) for node in graph.nodes if node.layer.makes_shapes)


def _legacy_axis(shape: Shape, axis: int) -> int:
    # caffe: Blob::LegacyShape — axes that a blob lacks count as 1
    return shape[axis] if axis < len(shape) else 1
