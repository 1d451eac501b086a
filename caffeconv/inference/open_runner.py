"""Opens what a request names: a net over its own data, or a model over what is handed over for its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from caffeconv.conversion.load import Loaded, load_cropped, source_metadata
from caffeconv.conversion.to_onnx import choose_outputs, to_onnx
from caffeconv.data.database import DatabaseSource, first_shape
from caffeconv.data.input_items import InputSource
from caffeconv.data.source import DataSource, MemorySource
from caffeconv.data.transform import Transform
from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import refuse_input_as_output
from caffeconv.files.database_folders import Backend, database_in
from caffeconv.files.sha256 import digest_of
from caffeconv.files.unchanged import unchanged
from caffeconv.frontend.open_files import read_definition
from caffeconv.frontend.options import NetOptions
from caffeconv.frontend.reshape import with_batch
from caffeconv.inference.data_passes import Dataset, Model, no_data_error, own_data
from caffeconv.inference.engine import OpenedRun, Say
from caffeconv.inference.fixed_batch import FixedBatch, batch_size_of, fixed_batch_size
from caffeconv.inference.open_inputs import open_inputs, oversampled, set_batch_size
from caffeconv.inference.own_items import own_items
from caffeconv.inference.request import NetFiles, RunRequest
from caffeconv.inference.result_files import companions
from caffeconv.inference.run_identity import reads_of, run_identity
from caffeconv.inference.sharding import bytes_of_net, bytes_of_session
from caffeconv.inspection.layer_facts import LayerFacts, facts_of_file, facts_of_graph
from caffeconv.ir.graph import Graph
from caffeconv.layers import LAYERS
from caffeconv.net.open_session import open_session
from caffeconv.net.planned_session import PlannedSession
from caffeconv.runtime.providers import Provider
from caffeconv.runtime.session import Session
from caffeconv.tensor.shape import FloatArray, format_shape

if TYPE_CHECKING:
    from caffeconv.net.net import Net

# -- a net over what its data layers read --------------------------------------------------------------------------------


def reads_own_data(net: Path, options: NetOptions) -> bool:
    """Whether a net has data of its own: nothing that the caller fills, or a layer that reads."""
    definition = read_definition(net, options)
    inputs = [(layer, kind) for layer in definition.layers if (kind := LAYERS.get(layer.type)) and kind.is_input]
    try:
        sources = [kind.parse(layer).data_source(layer.tops, np.random.default_rng(0)) for layer, kind in inputs]
    except CaffeconvError:
        return False  # whoever builds the net says what is wrong with it
    return not inputs or any(source is not None and not isinstance(source, MemorySource) for source in sources)


def open_net_run(request: RunRequest, say: Say) -> OpenedRun:
    """A net over its data layers, or over the database that takes their place."""
    net = open_net(request, say)
    _refuse_reads_as_outputs(request, net.sources.values())
    return OpenedRun(
        own_data(net), partial(_open_net_elsewhere, request), _blobs_of(net, request.blobs),
        partial(bytes_of_net, net),
        lambda: run_identity(net.file_digests(), request.net, request.compute, reads_of(request, net.sources)), net=net,
    )  # fmt: skip


def _refuse_reads_as_outputs(request: RunRequest, sources: Iterable[DataSource]) -> None:
    """Raises CaffeconvError where the run would write over a file that it reads, also through a link."""
    outputs = [
        path for path in (request.output.path, request.output.per_batch) if path is not None and str(path) != "-"
    ]
    mean = request.images.mean.file if request.images.mean is not None else None
    reads = [*request.files.all, *(path for path in (request.output.labels, mean) if path is not None)]
    for source in sources if outputs else ():
        reads += [Path(source.name), *source.files]
    if request.output.path is not None:
        outputs += companions(request.output.path)
    for output in outputs:
        refuse_input_as_output(output, reads)


def _open_net_elsewhere(request: RunRequest, provider: Provider, threads: int) -> Dataset:
    compute = replace(request.compute, provider=provider, threads=threads)
    return own_data(open_net(replace(request, compute=compute), _say_nothing))


def _say_nothing(line: str) -> None:
    return


def _blobs_of(net: Net, blobs: Sequence[str]) -> list[str]:
    if not blobs:
        return list(net.outputs)
    if tuple(blobs) == ("all",):
        return [blob for blob in net.blobs if not any(blob in source.tops for source in net.sources.values())]
    net.check_known(blobs)
    return list(dict.fromkeys(blobs))


def open_net(request: RunRequest, say: Say) -> Net:
    """The net, all of whose inputs its data layers or a database fill; CaffeconvError where one is left."""
    files, options, compute = request.files, request.net, request.compute
    from caffeconv.net.net import Net  # takes its time, and models that are ONNX need none

    net = Net(
        files.net, files.weights, options.phase, level=options.level, stages=options.stages,
        allow_python=options.allow_python, provider=compute.provider, threads=compute.threads, nhwc=compute.nhwc,
        half=compute.half, fully_convolutional=options.fully_convolutional, deploy=options.deploy,
        extended=options.extended, infogain=options.infogain, shapes=options.shapes,
        ignore_unknown_fields=options.ignore_unknown_fields, dialect=options.dialect, root=options.root,
        output_dir=options.output_dir,
    )  # fmt: skip
    for diagnostic in net.diagnostics:
        say(str(diagnostic))
    if request.data.input_db is not None:
        _read_database(net, request.data.input_db, request)
    elif _prepares_items(request):
        raise CaffeconvError(
            "`batch_size=…`, `mean=…` and `scale=…` are for `input=…` and `input_db=…`; "
            "a data layer has them in the prototxt (batch_size, transform_param)"
        )
    if net.inputs:
        raise no_data_error(net)
    return net


def _prepares_items(request: RunRequest) -> bool:
    return request.data.batch_size is not None or request.images.mean is not None or request.images.scale != 1


def _read_database(net: Net, value: str, request: RunRequest) -> None:
    """Lets a database fill an input, or take the place of a Data layer's own."""
    own = {layer: source for layer, source in net.sources.items() if isinstance(source, DatabaseSource)}
    tops = {**{top: layer for layer, source in own.items() for top in source.tops}, **net.input_layers()}
    blob, equals, place = value.partition("=")
    if not equals or (blob not in tops and Path(value).exists()):
        blob, place = "", value
    if blob and blob not in tops:
        raise CaffeconvError(f"`input_db={value}`: the net has no input '{blob}'; it has {', '.join(tops) or 'none'}")
    path = Path(place)
    layers = dict.fromkeys(tops.values())
    if not blob and len(layers) != 1:
        raise CaffeconvError(
            f"`input_db={value}`: name the blob that it fills, `input_db=BLOB={place}`; "
            f"the net has {', '.join(tops) or 'none'}"
        )
    layer = tops[blob] if blob else next(iter(layers))
    if layer in own:
        if _prepares_items(request):
            raise CaffeconvError(
                f"`mean=…`, `scale=…` and `batch_size=…` with `input_db=…`: layer '{layer}' has its own transform_param and "
                "batch_size"
            )
        net.read_from(layer, own[layer].at(path, _backend(path)))
        return
    blob = blob or next(top for top in tops if tops[top] == layer)
    net.read_from(layer, _database_for(net, blob, path, request))


def _backend(path: Path) -> Backend:
    return database_in(path) or "LMDB"  # whose reader says what is missing


def _database_for(net: Net, blob: str, path: Path, request: RunRequest) -> DataSource:
    shape, mean = net.shape_of(blob), request.images.mean
    if len(shape) != 4:
        raise CaffeconvError(f"`input_db={path}`: input '{blob}' is {format_shape(shape)}; a Datum needs N×C×H×W")
    batch, channels, height, width = shape
    transform = Transform(
        scale=request.images.scale, crop_size=height if height == width else 0,
        mean_file=mean.file if mean is not None else None, mean_values=mean.values if mean is not None else (),
        force_color=channels == 3, force_gray=channels == 1,
    )  # fmt: skip
    item = first_shape(path, _backend(path), transform)
    if item != shape[1:]:
        raise CaffeconvError(
            f"`input_db={path}`: its items are {format_shape(item)}; input '{blob}' needs {format_shape(shape[1:])}. "
            f"For a net that takes any size: `shapes={ {blob: (batch, *item)} }`"
        )
    source = DatabaseSource(
        (blob,), path, _backend(path), request.data.batch_size or batch, transform, np.random.default_rng(0)
    )  # fmt: skip
    net.reshape_input(blob, (source.batch_size, *item))
    return source


# -- a model over what is handed over ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpenedModel:
    """A session, and the net that it runs, as it is run."""

    session: Session
    files: NetFiles
    loaded: Loaded | None = None
    """None for an ONNX model."""
    graph: Graph | None = None

    def layers(self) -> list[LayerFacts]:
        """The layers, in order; of an ONNX model what its nodes are called after."""
        if self.graph is not None:
            return facts_of_graph(self.graph)
        return facts_of_file(self.files.net)

    def digests(self) -> dict[str, str]:
        """What the files hold: name → SHA-256."""
        if self.loaded is not None:
            return source_metadata(self.loaded)
        return {"model.sha256": digest_of(self.files.net).sha256}


def open_model(
    request: RunRequest, say: Say, *, batch: int | Literal["dynamic", "keep"] = "dynamic", profile_to: Path | None = None
) -> OpenedModel:  # fmt: skip
    """The session of an ONNX file, or of a net that is converted on the way; raises CaffeconvError as these do."""
    compute, files = request.compute, request.files
    with unchanged(files.all):
        if files.is_onnx:
            _check_model(request)
            session = open_session(files.net, compute, profile_to=profile_to)
            for name, dims in session.inputs.items():
                if 0 in dims:
                    raise CaffeconvError(
                        f"{files.net}: input '{name}' is {list(dims)}; sizes of at least 1 were needed"
                    )
            return OpenedModel(session, files)
        loaded = load_cropped(files.net, files.weights, request.net, request.images.crop)
        for diagnostic in loaded.remarks:
            if diagnostic.severity == "warning":
                say(str(diagnostic))
        graph = with_batch(loaded.graph, batch) if isinstance(batch, int) else loaded.graph
        values = _values_of(loaded.graph, request.blobs)
        if not values:
            raise CaffeconvError(
                f"{files.net}: the net has no output, as each blob is the bottom of a layer; name those that you want: "
                '`blobs=[…]`, or all of them: `blobs="all"`'
            )
        if profile_to is None and any(node.layer.has_dynamic_shapes for node in graph.nodes):
            return OpenedModel(PlannedSession(loaded, values, compute, batch=batch), files, loaded, graph)
        model, host = to_onnx(loaded, values, batch=batch), loaded.net.python_host
        session = open_session(model, compute, python_host=host, profile_to=profile_to)
        return OpenedModel(session, files, loaded, graph)


def _values_of(graph: Graph, blobs: Sequence[str]) -> tuple[str, ...]:
    if tuple(blobs) == ("all",):
        return choose_outputs(graph, "all")
    also = choose_outputs(graph, blobs) if blobs else ()
    return tuple(dict.fromkeys((*choose_outputs(graph, None), *also)))


def _check_model(request: RunRequest) -> None:
    """Raises CaffeconvError for what an ONNX model has settled."""
    net, options = request.files.net, request.net
    if request.files.weights or request.blobs or options.shapes or request.images.crop:
        raise CaffeconvError(
            f"{net}: an ONNX model has its weights, blobs and shapes; leave WEIGHTS, `blobs=…`, `shapes=…` and `crop=…` out"
        )
    if options.fully_convolutional:
        raise CaffeconvError(
            f"{net}: an ONNX model stays as it is; convert the net again with `fully_convolutional=True`, or leave that out"
        )
    if options.infogain is not None:
        raise CaffeconvError(
            f"{net}: in an ONNX model it is settled what InfogainLoss layers are given; leave `infogain=…` out, or "
            f"convert the net again with `infogain={options.infogain!r}`"
        )
    if not net.is_file():
        raise CaffeconvError(f"{net}: no such file; an ONNX model was needed")


def open_input_run(
    request: RunRequest, model: OpenedModel, say: Say, faults: list[str] | None = None
) -> OpenedRun:  # fmt: skip
    """A model over what is handed over for its inputs; `faults` as of `open_inputs`."""
    session = model.session
    own = partial(own_items, model.graph.nodes if model.graph is not None else (), session.inputs, say=say)
    inputs = open_inputs(session, request.inputs, request.images, faults, own)
    _refuse_reads_as_outputs(request, inputs.sources_by_input.values())
    size = batch_size_of(session, request.data.batch_size)
    set_batch_size(inputs, session, size)
    sources = oversampled(inputs.sources, say) if request.images.oversample else inputs.sources
    main = next(iter(inputs.sources.values()), None)
    return OpenedRun(
        Dataset(_of_any_batch(session), sources), partial(_open_inputs_elsewhere, request, inputs.constants, sources),
        list(session.outputs), partial(bytes_of_session, session, size),
        lambda: run_identity(model.digests(), request.net, request.compute, reads_of(request, inputs.sources_by_input)),
        main_input=main if main is not None else next(iter(inputs.sources_by_input.values()), None), stdin=request.stdin,
    )  # fmt: skip


def _of_any_batch(session: Session) -> Model:
    """The session, which takes a short last batch too."""
    size = fixed_batch_size(session)
    return session if size is None else FixedBatch(session, size)


def _open_inputs_elsewhere(
    request: RunRequest, constants: Mapping[str, FloatArray], sources: Mapping[str, InputSource], provider: Provider,
    threads: int,
) -> Dataset:  # fmt: skip
    compute = replace(request.compute, provider=provider, threads=threads)
    session = open_model(replace(request, compute=compute), _say_nothing).session
    session.bind_constants(constants)
    return Dataset(_of_any_batch(session), sources)
