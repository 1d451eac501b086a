"""A net with its weights, read, built and bound."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from caffeconv.caffe_format.ignored_fields import IgnoredField, ignored_fields
from caffeconv.caffe_format.prototxt import NetSource, UnknownField
from caffeconv.caffe_format.upgrade import upgrade_net
from caffeconv.errors import CaffeconvError, Diagnostic, InvalidNetError, Severity
from caffeconv.files.atomic import PathLike
from caffeconv.files.sha256 import Hashes, digest_of
from caffeconv.frontend.bind import BoundGraph, at_fillers, bind, for_built_layers, with_stored_shapes
from caffeconv.frontend.build import build_partial_graph, finish
from caffeconv.frontend.deploy import UnknownSizeError
from caffeconv.frontend.netdef import define_net
from caffeconv.frontend.open_files import Weights, read_source, read_weights, weights_files
from caffeconv.frontend.options import NetOptions
from caffeconv.frontend.reshape import checked_shapes, input_shapes, reshape_graph
from caffeconv.ir.definition import NetDef
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.passes.fully_convolutional import fully_convolutional
from caffeconv.passes.shared_memory import follow_shared_memory


@dataclass(frozen=True)
class Loaded:
    """A net with its weights, and the diagnostics about them."""

    net: NetDef
    bound: BoundGraph
    files: tuple[Path, ...]
    dropped: tuple[UnknownField, ...] = ()
    ignored: tuple[IgnoredField, ...] = ()

    @property
    def graph(self) -> Graph:
        return self.bound.graph

    @property
    def remarks(self) -> tuple[Diagnostic, ...]:
        """What whoever converts or runs the net should know of it."""
        ignored = [Diagnostic("note", "", str(field)) for field in self.ignored]
        return (*self.bound.diagnostics, *self._missing_weights(), *self._doubtful_values(), *ignored)

    def _doubtful_values(self) -> Iterator[Diagnostic]:
        """Once for all layers of which the same is to be said."""
        layers = defaultdict[tuple[Severity, str], list[Node]](list)
        for node in self.graph.nodes:
            layers["warning", node.layer.doubtful_values(node)].append(node)
            layers["note", node.layer.clamp].append(node)
        for (severity, text), nodes in layers.items():
            others = f" (and {len(nodes) - 1} other layers)" if len(nodes) > 1 else ""
            if text:
                yield Diagnostic(severity, nodes[0].definition.where + others, text, layer=nodes[0].name)

    def _missing_weights(self) -> Iterator[Diagnostic]:
        unfilled = at_fillers(self.graph)
        if unfilled and len(self.files) == 1:
            yield Diagnostic("warning", "", f"no weights were given: {unfilled}, so the results mean nothing")


def load(net: PathLike, weights: Weights = None, options: NetOptions | None = None) -> Loaded:
    """Reads, builds and binds; raises CaffeconvError with every problem found.

    In a fully convolutional net `shapes` count after its layers have become convolutions, except where a training net
    that is turned into a deploy net does not say its size: they are its own size then.
    """
    options = options or NetOptions()
    if options.fully_convolutional:
        return _load_fully_convolutional(net, weights, options)
    return load_source(read_source(net, options), weights_files(net, weights), options, Path(net))


def load_source(source: NetSource, paths: Sequence[Path], options: NetOptions, net: Path) -> Loaded:
    """As `load`, of a net that has been read already. paths: weights files. net: the file that it was read from."""
    files = [read_weights(path) for path in paths]
    definition = with_stored_shapes(define_net(source, options), files)
    partial_graph = build_partial_graph(definition, options.shapes)
    bound = bind(finish(definition, partial_graph), files, seed=options.seed)
    if partial_graph.undecided and not partial_graph.problems:
        raise InvalidNetError(partial_graph.undecided)
    errors = [d for d in (*partial_graph.summary, *for_built_layers(partial_graph, bound)) if d.severity == "error"]
    if errors:
        from caffeconv.inspection.diagnose import QUICK, diagnose

        raise InvalidNetError(diagnose(definition, files, errors, options.shapes, effort=QUICK).with_advice)
    ignored = tuple(ignored_fields(upgrade_net(source).net))
    graph = follow_shared_memory(bound.graph)
    return Loaded(graph.net, replace(bound, graph=graph), (net, *paths), source.dropped, ignored)


def load_cropped(
    net: PathLike, weights: Weights, options: NetOptions, crop: tuple[int, int] | None
) -> Loaded:  # fmt: skip
    """As `load`; crop: height and width for the net's first input that takes images.

    Raises CaffeconvError as `load`, and where no input takes images.
    """
    loaded = load(net, weights, options)
    if crop is None:
        return loaded
    for name, shape in input_shapes(loaded.graph).items():
        if len(shape) == 4:
            return load(net, weights, replace(options, shapes={**options.shapes, name: (*shape[:2], *crop)}))
    raise CaffeconvError("`crop=…`: the net has no input of 4 axes")


def _load_fully_convolutional(net: PathLike, weights: Weights, options: NetOptions) -> Loaded:
    own_size = replace(options, fully_convolutional=False, shapes={})
    try:
        loaded = load(net, weights, own_size)
    except UnknownSizeError:
        if not options.shapes:
            raise
        loaded = load(net, weights, replace(own_size, shapes=options.shapes))
    graph = fully_convolutional(loaded.graph)
    graph = reshape_graph(graph, {**input_shapes(graph), **checked_shapes(graph, options.shapes)})
    return replace(loaded, net=graph.net, bound=replace(loaded.bound, graph=graph))


def source_metadata(loaded: Loaded, hashes: Hashes | None = None) -> dict[str, str]:
    """The NetState, and name, size and SHA-256 of every source file, each of which is read whole, or was by `hashes`."""
    digest = hashes.of if hashes is not None else digest_of
    net = loaded.net
    metadata: dict[str, str] = {"caffe.phase": net.phase}
    for i, path in enumerate(loaded.files):
        kind = "prototxt" if i == 0 else "weights" if i == 1 else f"weights{i}"
        file_digest = digest(path)
        metadata[f"caffe.{kind}.name"] = path.name
        metadata[f"caffe.{kind}.bytes"] = str(file_digest.bytes)
        metadata[f"caffe.{kind}.sha256"] = file_digest.sha256
    return metadata
