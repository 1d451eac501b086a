"""A net as pycaffe has it: blobs, params, forward, on onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from caffeconv.caffe_format.hdf5 import read_hdf5_weights
from caffeconv.caffe_format.prototxt import NetSource
from caffeconv.caffe_format.terms import Phase
from caffeconv.conversion.load import Loaded, load, load_source, source_metadata
from caffeconv.data.source import DataSource
from caffeconv.emit.weights.caffe_weights import save_caffemodel, save_hdf5
from caffeconv.errors import CaffeconvError, Diagnostic
from caffeconv.files import arguments
from caffeconv.files.atomic import PathLike
from caffeconv.files.hdf5 import is_hdf5
from caffeconv.files.unchanged import unchanged
from caffeconv.frontend.open_files import Weights, read_weights, weight_paths
from caffeconv.frontend.options import NetOptions
from caffeconv.ir.definition import Infogain, LayerDef
from caffeconv.net.backward import Backward
from caffeconv.net.batching import BatchSplitter
from caffeconv.net.blobs import NamedBlobs, NetBlob, ParamBlob, float_arrays, with_shapes
from caffeconv.net.data_layers import DataLayers
from caffeconv.net.forward import Forward
from caffeconv.net.params import ParamStore
from caffeconv.net.sessions import SessionPool
from caffeconv.net.snapshot import with_copied_weights
from caffeconv.net.topology import (
    blob_kinds,
    blob_loss_weights,
    checked_names,
    layer_objects,
    layer_span,
    order_reasons,
    place_of,
)
from caffeconv.net.trainable import Trainable
from caffeconv.passes.subgraph import last_writes
from caffeconv.python_layers.host import AllowPython
from caffeconv.runtime.providers import ComputeOptions, Provider
from caffeconv.tensor.shape import FloatArray, Shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.caffe_format.caffemodel import WeightsFile
    from caffeconv.runtime.session import Session


class Net(Trainable):
    """A Caffe net that runs on onnxruntime.

    Args:
        net: the prototxt, or a caffemodel that carries its own net.
        weights: caffemodel or Caffe's HDF5, or several, applied in order.
        phase, level, stages: Caffe's NetState.
        allow_python: import and run the module of a `type: "Python"` layer; "path": only one that Python itself finds.
        provider: "auto", "cpu", "openvino", "cuda" or "cuda:N"; auto takes CUDA, else OpenVINO, where onnxruntime has it.
        threads: of onnxruntime, for one pass. nhwc: on CUDA, prefer kernels that keep channels last.
        half: forward passes in half precision, except for losses and statistics; on CUDA only.
        seed: for fillers that draw at random.
        deploy, extended, infogain, shapes, fully_convolutional, dialect, root: as for `convert`.
        output_dir: the folder that HDF5Output layers may write in; None: nowhere (with `allow_python` here).

    Raises:
        CaffeconvError: whatever is wrong with the net or the weights.
    """

    def __init__(
        self, net: PathLike, weights: Weights = None, phase: Phase = "TEST", *, level: int = 0,
        stages: Sequence[str] = (), allow_python: AllowPython = False, provider: Provider = "auto", seed: int = 0,
        deploy: bool = False, extended: bool = False, infogain: Infogain | None = None,
        ignore_unknown_fields: bool = False, shapes: Mapping[str, Sequence[int]] | None = None,
        fully_convolutional: bool = False, threads: int | None = None, nhwc: bool = False, half: bool = False,
        dialect: str | None = None, root: PathLike | None = None, output_dir: PathLike | None = None,
    ) -> None:  # fmt: skip
        options = NetOptions(
            phase, level, stages, {} if shapes is None else shapes, deploy, extended, infogain, allow_python,
            ignore_unknown_fields, seed, fully_convolutional, dialect, root=root, output_dir=output_dir,
        )  # fmt: skip
        with unchanged([arguments.path("net", net), *weight_paths(weights)]):
            loaded = with_copied_weights(load(net, weights, options))
        self._open(loaded, ComputeOptions(provider, threads, nhwc, half), options)

    @classmethod
    def of_source(cls, source: NetSource, options: NetOptions, compute: ComputeOptions) -> Self:
        """A net that has been read already, without weights; raises as the constructor."""
        net = cls.__new__(cls)
        net._open(load_source(source, (), options, source.path or source.directory), compute, options)
        return net

    def _open(self, loaded: Loaded, compute: ComputeOptions, options: NetOptions) -> None:
        definition, graph, seed = loaded.net, loaded.graph, options.seed
        self.allow_python = options.allow_python
        self.name = definition.name
        self.diagnostics: tuple[Diagnostic, ...] = loaded.remarks
        """What might not be meant: layers without weights, probabilities where scores belong, …"""
        self._loaded, self._params = loaded, ParamStore(graph.nodes)
        self._sessions = SessionPool(loaded, self._params, compute)
        self._data = DataLayers(graph.nodes, seed)
        self._forward = Forward(self._sessions, self._data, seed)
        self._backward = Backward(self._sessions, self._params, self.shape_of)
        self.params: Mapping[str, list[ParamBlob]] = self._params
        access = self.shape_of, self.value_of, self.diff_of, self.reshape_input
        self.blobs = NamedBlobs((blob, NetBlob(blob, *access)) for blob in self._forward.blobs)
        self.layer_names: list[str] = [layer.name for layer in definition.layers]
        self.top_names: dict[str, list[str]] = {layer.name: list(layer.tops) for layer in definition.layers}
        self.bottom_names: dict[str, list[str]] = {layer.name: list(layer.bottoms) for layer in definition.layers}
        last_values = last_writes(graph.nodes)
        blob_of = {value: blob for blob, value in last_values.items()}
        self.outputs: list[str] = [blob_of[value] for value in graph.outputs]
        # a dry build of every layer: what Caffe refuses in its set-up is refused here, not at the first forward
        self._sessions.forward_session(graph, tuple(graph.outputs) or tuple(last_values.values()))

    def __repr__(self) -> str:
        inputs, outputs = (with_shapes(blobs, self.shape_of) for blobs in (self.inputs, self.outputs))
        return f"<Net {self.name!r}, {self._loaded.net.phase}: {len(self.layer_names)} layers, {inputs} → {outputs}>"

    def _repr_html_(self) -> str:
        """As notebooks show it: layers with their blobs and parameters."""
        from caffeconv.net.notebook import net_html

        return net_html(repr(self), self._loaded.net.layers, self.shape_of, self.params)

    # -- shapes and values -----------------------------------------------------------------------------------------

    @property
    def inputs(self) -> list[str]:
        """The blobs that the caller fills."""
        return self._forward.inputs

    def shape_of(self, blob: str) -> Shape:
        """The shape that a blob has, or will have after the next forward."""
        return self._forward.shape_of(self.blobs.known(blob))

    def value_of(self, blob: str) -> FloatArray:
        """A blob's values; one that the last forward did not compute is computed now, and kept by later ones."""
        return self._forward.value_of(self.blobs.known(blob))

    def diff_of(self, blob: str) -> FloatArray:
        """A blob's gradient; one that the last backward did not compute is computed now, and from then on each time."""
        return self._backward.diff_of(self.blobs.known(blob))

    def reshape_input(self, blob: str, shape: Sequence[int]) -> None:
        """Gives an input another shape, its values zero; CaffeconvError for a blob that is no input."""
        self._forward.reshape_input(blob, shape)

    def reshape(self) -> None:
        """Computes every shape again; raises CaffeconvError where the inputs' shapes do not go together."""
        self._sessions.update_shapes()

    def check_known(self, blobs: Iterable[str]) -> None:
        """Raises CaffeconvError for a blob that the net lacks."""
        self._forward.check_known(blobs)

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
        names = checked_names(blobs, "forward(blobs=[…])", "forward(data=array)")
        span = layer_span(self._loaded.graph.nodes, start, end)
        wanted = list(dict.fromkeys([*(self.outputs if end is None else self.top_names[end]), *names]))
        self.check_known(wanted)
        self._forward.run(span, wanted, float_arrays(inputs))
        return {blob: self.value_of(blob) for blob in wanted}

    def before_forward(self, call: Callable[[int], object]) -> None:
        """From now on `call` is called before each layer of a forward pass, with the layer's index.

        Layers then run one at a time, as Caffe runs them; that is slower by far.
        """
        self._forward.before_layer.append(arguments.function("call", call))

    def after_forward(self, call: Callable[[int], object]) -> None:
        """As `before_forward`, after each layer."""
        self._forward.after_layer.append(arguments.function("call", call))

    def run(self, feeds: Mapping[str, FloatArray], outputs: Sequence[str]) -> dict[str, FloatArray]:
        """The blobs of one pass, as of `forward`, without a copy and without touching `net.blobs`: for many batches.

        Args:
            feeds: input → values, float32; an input that is left out is as it was. Another shape reshapes the net.
            outputs: the blobs to return.
        """
        return self._forward.run_alone(feeds, outputs)

    def session_of(self, blobs: Sequence[str]) -> Session | None:
        """What computes the blobs of a `run`, while no batch of another size comes; None where all are inputs."""
        return self._forward.session_alone(blobs)

    @property
    def states(self) -> dict[str, FloatArray]:
        """What recurrent layers keep for the next pass, empty before the first one; assign to continue from elsewhere."""
        return self._forward.states

    @states.setter
    def states(self, states: Mapping[str, FloatArray]) -> None:
        self._forward.states = dict(states)

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None,
        **top_diffs: ArrayLike,
    ) -> dict[str, FloatArray]:  # fmt: skip
        """Runs the net backward from its losses and returns {blob: gradient} of its inputs and of `diffs`.

        Gradients are those that Caffe computes: of what lies between a loss and something that learns (lr_mult other
        than 0), or of everything with `force_backward: true` in the net. They are then in ``blobs[…].diff``, 0
        elsewhere; in ``params[…][i].diff`` they add up from pass to pass until `clear_param_diffs`. The pass belongs to
        the last forward, its inputs and states; where that ran a part of the layers, or none did, to what the blobs hold.

        Args:
            diffs: further blobs to return.
            start: the layer to start at; the diffs of its tops are what ``blobs[…].diff`` holds.
            end: the layer to stop after; its bottoms are returned instead of the inputs.
            top_diffs: output=gradient to start from, shaped as the blob, instead of its loss weight.

        Raises:
            CaffeconvError: an unknown blob or layer, a wrong shape, a layer whose gradient is not
                known, a gradient that Caffe refuses (of labels), a net in which nothing goes backward.
        """
        names = checked_names(diffs, "backward(diffs=[…])", "backward(prob=array)")
        forward = self._forward.pass_to_go_back()
        span = layer_span(self._loaded.graph.nodes, end, start)
        self._backward.check()
        wanted = list(dict.fromkeys([*(self.inputs if end is None else self.bottom_names[end]), *names]))
        self.check_known(wanted)
        self._backward.run(span, forward, wanted, top_diffs)
        return {blob: self.diff_of(blob) for blob in wanted}

    def clear_param_diffs(self) -> None:
        """Sets the gradients of all parameters to 0; backward passes add to them."""
        self._params.clear_diffs()

    # -- batches ---------------------------------------------------------------------------------------------------

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: ArrayLike) -> dict[str, FloatArray]:
        """Runs the net over arrays of any number of items, batch after batch; outputs and `blobs`, item by item.

        The last batch is filled up with zeros, and what comes of these left out again. A blob that has no items, such
        as a loss, gives a value for each batch. Raises as `forward`.
        """
        batches = self._batches(inputs)
        return batches.joined([_copied(self.forward(blobs, **batch)) for batch in batches])  # type: ignore[arg-type]

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **arrays: ArrayLike
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """As `forward_all`, with a backward pass after each batch: the blobs, and the diffs of inputs and of `diffs`.

        arrays: inputs, and gradients of outputs to start from.
        """
        batches = self._batches(arrays)
        values, gradients = [], []
        for batch in batches:
            seeds = {blob: batch.pop(blob) for blob in self.outputs if blob in batch}
            values.append(_copied(self.forward(blobs, **batch)))  # type: ignore[arg-type]
            gradients.append(_copied(self.backward(diffs, **seeds)))  # type: ignore[arg-type]
        return batches.joined(values), batches.joined(gradients)

    def _batches(self, arrays: Mapping[str, ArrayLike]) -> BatchSplitter:
        size = next(iter(self.blobs.values())).num
        return BatchSplitter(float_arrays(arrays), size)

    # -- data layers -----------------------------------------------------------------------------------------------

    @property
    def sources(self) -> dict[str, DataSource]:
        """Data layer → what fills its tops."""
        return dict(self._data.sources)

    def read_from(self, layer: str, source: DataSource) -> None:
        """Lets `source` fill the tops of a layer: instead of its own source, or of the caller."""
        self._data.read_from(layer, source)

    def input_layers(self) -> dict[str, str]:
        """Input that the caller fills → the layer that it is a top of."""
        inputs = self.inputs
        return {top: layer for layer, tops in self.top_names.items() for top in tops if top in inputs}

    def set_input_arrays(self, data: ArrayLike, labels: ArrayLike) -> None:
        """Gives the MemoryData layer that the net begins with its items, N×C×H×W, and labels, N or N×1×1×1.

        N is a multiple of the batch size; the next `forward` takes the first batch. Raises CaffeconvError where the
        first layer is another, or the arrays do not fit.
        """
        self._data.set_arrays(self.layer_names[0], **float_arrays({"data": data, "labels": labels}))

    # -- layers ----------------------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[object]:
        """A `NetLayer` for each layer; for a Python layer the user's own object."""
        return list(self.layer_dict.values())

    @property
    def layer_dict(self) -> dict[str, object]:
        """Layer → as in `layers`."""
        return layer_objects(self._loaded.graph.nodes, self.params)

    def definition_of(self, layer: str) -> LayerDef:
        """What the prototxt says of a layer."""
        return self._loaded.graph.nodes[place_of(self._loaded.graph.nodes, layer)].definition

    @property
    def user_layers(self) -> list[str]:
        """The layers that are the user's own code."""
        return [node.name for node in self._loaded.graph.nodes if node.layer.has_dynamic_shapes]

    def bound_to_order(self) -> dict[str, str]:
        """Layer → why all passes have to go through this one net, one after another."""
        return order_reasons(self._loaded.graph.nodes, self._data.sinks)

    def kind(self, output: str) -> str:
        """What a blob means to whoever runs the net (probabilities, detections, …); empty where its layer does not say."""
        return blob_kinds(self._loaded.graph.nodes).get(arguments.name("output", output), "")

    @property
    def blob_loss_weights(self) -> dict[str, float]:
        """Blob → its weight in the net's loss."""
        return {**dict.fromkeys(self.blobs, 0.0), **blob_loss_weights(self._loaded.graph.nodes)}

    # -- weights files ---------------------------------------------------------------------------------------------

    def file_digests(self) -> dict[str, str]:
        """Name and SHA-256 of the net's and the weights' files, and the phase."""
        return source_metadata(self._loaded)

    def save(self, path: PathLike, *, diffs: bool = False) -> None:
        """Writes net and parameters, as they are now, as a caffemodel; CaffeconvError where that cannot be.

        diffs: write the parameters' diffs too.
        """
        save_caffemodel(path, self._params.apply(self._loaded.graph), self._params.diffs_if(wanted=diffs))

    def save_hdf5(self, path: PathLike, *, diffs: bool = False) -> None:
        """As `save`, as Caffe's HDF5; CaffeconvError where that cannot be (a slash in a layer's name)."""
        save_hdf5(path, self._params.apply(self._loaded.graph), self._params.diffs_if(wanted=diffs))

    def copy_from(self, path: PathLike) -> None:
        """Takes over the parameters of those layers that a caffemodel, or Caffe's HDF5, has; the others stay.

        Raises InvalidNetError, and leaves all as they are, where one does not fit.
        """
        self._copy_from(read_weights(arguments.path("path", path)))

    def load_hdf5(self, path: PathLike) -> None:
        """As `copy_from`, from Caffe's HDF5."""
        file = arguments.path("path", path)
        if not is_hdf5(file):
            raise CaffeconvError(f"{path}: this is no HDF5 file, or not there; weights in Caffe's HDF5 were needed")
        self._copy_from(read_hdf5_weights(file))

    def _copy_from(self, file: WeightsFile) -> None:
        self.diagnostics += self._params.copy_from(file, self._loaded.graph)
        self._sessions.drop_outdated()


def _copied(values: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    return {blob: array.copy() for blob, array in values.items()}
