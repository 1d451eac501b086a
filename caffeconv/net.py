"""A net as pycaffe has it: blobs, params, forward, on onnxruntime."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from caffeconv.batch import input_shapes, reshape_graph
from caffeconv.convert import Loaded, PathLike, Weights, convert_loaded, load
from caffeconv.errors import CaffeconvError
from caffeconv.ir import FloatArray, Graph, Node, Phase, Shape, by_x, count
from caffeconv.layers.base import LabelRule
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
    """One parameter blob: `data` is float32 and may be assigned into (net surgery)."""

    def __init__(self, values: FloatArray) -> None:
        self.data = values

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
        self._owned: dict[tuple[str, str], ParamBlob] = {}
        self._marks: dict[tuple[str, str], int] = {}

    def __getitem__(self, layer: str) -> list[ParamBlob]:
        node = self._nodes[layer]
        return [self._blob(param.owner or (layer, param.name), node, i) for i, param in enumerate(node.params)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def _blob(self, key: tuple[str, str], node: Node, index: int) -> ParamBlob:
        if key not in self._owned:
            self._owned[key] = ParamBlob(np.array(node.params[index].array()))
            self._marks[key] = _mark(self._owned[key].data)
        blob = self._owned[key]
        shape = node.params[index].shape
        return blob if blob.shape == shape else ParamBlob(blob.data.reshape(shape))

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
        seed: for fillers that draw at random.
        deploy, extended: as for `convert`.

    Raises:
        CaffeconvError: whatever is wrong with the net or the weights.
    """

    def __init__(
        self, net: PathLike, weights: Weights = None, phase: Phase = "TEST", *, level: int = 0,
        stages: Sequence[str] = (), allow_python: bool = False, provider: Provider = "auto", seed: int = 0,
        deploy: bool = False, extended: bool = False, ignore_unknown_fields: bool = False,
    ) -> None:  # fmt: skip
        self._loaded: Loaded = load(
            net, weights, state=State(phase, level, tuple(stages), extended, deploy), seed=seed,
            ignore_unknown_fields=ignore_unknown_fields,
        )  # fmt: skip
        self.allow_python = allow_python
        self._provider: Provider = provider
        self._graph = self._loaded.graph
        self._buffers = {name: np.zeros(shape, np.float32) for name, shape in input_shapes(self._graph).items()}
        self._computed: dict[str, FloatArray] = {}
        self._ran: dict[str, FloatArray] | None = None
        self._kept: set[str] = set()
        self._sessions: dict[tuple[object, ...], Session] = {}
        self._states: dict[str, FloatArray] = {}
        """What recurrent layers left after the last forward: the model's input for it → values."""
        self._started_from: dict[str, FloatArray] = {}
        """The states from which the last forward started."""
        self.params: Mapping[str, list[ParamBlob]] = _Params(self._graph.nodes)
        definition = self._loaded.net
        self.blobs: dict[str, NetBlob] = {name: NetBlob(self, name) for name in definition.blob_order()}
        self._automatic = [
            value for node in self._graph.nodes for value in node.tops[len(node.definition.tops) :]
        ]
        self.blobs |= {name: NetBlob(self, name) for name in self._automatic}
        self.name = definition.name
        self.inputs: list[str] = list(self._buffers)
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
            raise CaffeconvError(f"blob '{blob}' is no input: its shape follows from the inputs' ({', '.join(self.inputs)})")
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
            inputs: blob=array; float32, the blob's shape; another batch size reshapes the net.

        Raises:
            CaffeconvError: an unknown blob, a wrong shape, a label out of range.
        """
        if start is not None:
            raise CaffeconvError("forward(start=…) is not supported yet; run the whole net")
        for name, value in inputs.items():
            self._assign(name, value)
        wanted = list(dict.fromkeys([*(self._tops_of(end) if end is not None else self.outputs), *(blobs or ())]))
        unknown = [name for name in wanted if name not in self.blobs]
        if unknown:
            raise CaffeconvError(f"the net has no blob '{unknown[0]}'; it has {', '.join(self.blobs)}")
        feeds = {name: buffer.copy() for name, buffer in self._buffers.items()}
        self._check_labels(feeds)
        self._forget()
        self._started_from = self._states
        results, self._states = self._run(feeds, list(dict.fromkeys([*wanted, *self._kept])), self._states)
        self._ran = feeds
        self._computed = {name: value for name, value in results.items() if name not in self._buffers}
        for name in self._buffers:
            if name in results:  # caffe: a layer in place overwrites the input itself
                self._buffers[name] = results[name]
        return {name: self._buffers[name] if name in self._buffers else self._computed[name] for name in wanted}

    def _tops_of(self, layer: str) -> list[str]:
        if layer not in self.top_names:
            raise CaffeconvError(f"the net has no layer '{layer}'; it has {', '.join(self.layer_names)}")
        return self.top_names[layer]

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
        session = self._session(tuple(values.values()))
        kept = {name: f"{name.removesuffix('_in')}_out" for name in session.inputs if name not in inputs}
        held = {name: self._state(states, name, session) for name in kept}
        needed = {name: feeds[name] for name in session.inputs if name in inputs}
        results = session.run({**needed, **held}, [*values.values(), *kept.values()])
        found = {name: results[value] for name, value in values.items()}
        blobs = {name: found[name] if name in found else feeds[name] for name in names}
        return blobs, {**states, **{name: results[value] for name, value in kept.items()}}

    def _state(self, states: Mapping[str, FloatArray], name: str, session: Session) -> FloatArray:
        shape = tuple(int(size) for size in session.inputs[name])
        held = states.get(name)
        # caffe: RecurrentLayer::Reshape — another batch size starts from zeros
        return held if held is not None and held.shape == shape else np.zeros(shape, np.float32)

    def _session(self, values: tuple[str, ...]) -> Session:
        from caffeconv.runtime.session import Session

        params = self.params
        assert isinstance(params, _Params)
        if params.changed():
            self._sessions.clear()
        graph = self._reshaped()
        key = (values, tuple(sorted(input_shapes(graph).items())))
        if key not in self._sessions:
            if len(self._sessions) >= MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            loaded = replace(self._loaded, bound=replace(self._loaded.bound, graph=params.apply(graph)))
            model = convert_loaded(loaded, values, batch="keep", stateful=True)
            self._sessions[key] = Session(model, self._provider)
        return self._sessions[key]

    def _check_labels(self, feeds: Mapping[str, FloatArray]) -> None:
        graph = self._reshaped()
        for node in graph.nodes:
            for rule in node.layer.label_rules(node):
                value = node.bottoms[rule.bottom]
                if value in feeds:
                    check_labels(node, rule, value, feeds[value])


def check_labels(node: Node, rule: LabelRule, blob: str, values: FloatArray) -> None:
    """Raises CaffeconvError for the first label out of range, with its place."""
    whole = np.trunc(values)
    wrong = ~((whole >= 0) & (whole < rule.classes))
    if rule.ignore_label is not None:
        wrong &= whole != rule.ignore_label
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        ignored = "" if rule.ignore_label is None else f" (or ignore_label {rule.ignore_label})"
        raise CaffeconvError(
            f"{node.definition.where}: label {values[place]:g} in blob '{blob}' at {list(place)} is out of range; "
            f"0 to {rule.classes - 1}{ignored} was needed"
        )


def _legacy_axis(shape: Shape, axis: int) -> int:
    # caffe: Blob::LegacyShape — axes that a blob lacks count as 1
    return shape[axis] if axis < len(shape) else 1
