"""A net with its weights, read, built and bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from caffeconv.caffe_format.prototxt import UnknownField
from caffeconv.errors import InvalidNetError
from caffeconv.files.atomic import PathLike
from caffeconv.files.sha256 import Hashes, digest_of
from caffeconv.frontend.bind import BoundGraph, bind, for_built_layers
from caffeconv.frontend.build import build_partial_graph, finish
from caffeconv.frontend.deploy import UnknownSizeError
from caffeconv.frontend.netdef import define_net
from caffeconv.frontend.open_files import Weights, read_source, read_weights, weights_files
from caffeconv.frontend.options import State
from caffeconv.frontend.reshape import checked_shapes, input_shapes, reshape_graph
from caffeconv.ir.definition import NetDef
from caffeconv.ir.graph import Graph
from caffeconv.passes.fully_convolutional import fully_convolutional as to_fully_convolutional


@dataclass(frozen=True)
class Loaded:
    """A net with its weights, and what is to be said about them."""

    net: NetDef
    bound: BoundGraph
    files: tuple[Path, ...]
    dropped: tuple[UnknownField, ...] = ()

    @property
    def graph(self) -> Graph:
        return self.bound.graph


def load(
    net: PathLike, weights: Weights = None, *, state: State | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 0, ignore_unknown_fields: bool = False,
    fully_convolutional: bool = False,
) -> Loaded:  # fmt: skip
    """Reads, builds and binds; raises CaffeconvError with every problem found.

    fully_convolutional: InnerProduct layers become convolutions over the net's own size, and only then `shapes` count. A
    training net that is turned into a deploy net may not say its size; `shapes` are its own size then.
    """
    if fully_convolutional:
        read = partial(load, net, weights, state=state, seed=seed, ignore_unknown_fields=ignore_unknown_fields)
        try:
            loaded = read()
        except UnknownSizeError:
            if not shapes:
                raise
            loaded = read(shapes=shapes)
        graph = to_fully_convolutional(loaded.graph)
        graph = reshape_graph(graph, {**input_shapes(graph), **checked_shapes(graph, shapes or {})})
        return replace(loaded, net=graph.net, bound=replace(loaded.bound, graph=graph))
    source = read_source(net, state or State(), shapes, ignore_unknown_fields=ignore_unknown_fields)
    paths = weights_files(net, weights)
    files = [read_weights(path) for path in paths]
    definition = define_net(source, state or State())
    draft = build_partial_graph(definition, shapes)
    bound = bind(finish(definition, draft), files, seed=seed)
    errors = [d for d in (*draft.problems, *for_built_layers(draft, bound)) if d.severity == "error"]
    if errors:
        from caffeconv.inspection.diagnose import QUICK, diagnose

        raise InvalidNetError(diagnose(definition, files, errors, shapes, effort=QUICK).with_advice)
    return Loaded(definition, bound, (Path(net), *paths), source.dropped)


def source_metadata(loaded: Loaded, hashes: Hashes | None = None) -> dict[str, str]:
    """The NetState, and name, size and SHA-256 of every source file, each of which is read whole, or was by `hashes`."""
    digest = hashes.of if hashes is not None else digest_of
    net = loaded.net
    metadata: dict[str, str] = {"caffe.phase": net.phase}
    for i, path in enumerate(loaded.files):
        kind = "prototxt" if i == 0 else "weights" if i == 1 else f"weights{i}"
        found = digest(path)
        metadata[f"caffe.{kind}.name"] = path.name
        metadata[f"caffe.{kind}.bytes"] = str(found.bytes)
        metadata[f"caffe.{kind}.sha256"] = found.sha256
    return metadata
