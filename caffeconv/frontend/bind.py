"""Gives every parameter its values: from weights files, from the prototxt itself, from the owner of a shared blob, or
from its filler (caffe: Net::CopyTrainedLayersFrom, Net::AppendParam).
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from caffeconv.caffe_format.caffemodel import StoredLayer, WeightsFile
from caffeconv.errors import Diagnostic
from caffeconv.frontend.build import PartialGraph
from caffeconv.ir.definition import NetDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.tensor.param_values import ArrayValues, Blob, FileValues, FillerValues, ParamValues
from caffeconv.tensor.shape import Shape, Shapes, count, shape_string

RENAME = "To learn this layer's parameters from scratch rather than copying from a saved net, rename the layer."


@dataclass(frozen=True)
class BoundGraph:
    """A graph with all its parameters, and what is to be said about them (errors: what did not fit)."""

    graph: Graph
    diagnostics: tuple[Diagnostic, ...]


def bind(graph: Graph, files: Sequence[WeightsFile], *, seed: int = 0) -> BoundGraph:
    """The graph with values for every parameter; later files replace what earlier ones gave, as in Caffe."""
    diagnostics: list[Diagnostic] = []
    nodes, owners = _share(graph.nodes, diagnostics)
    file_params = _inline_blobs(nodes, diagnostics)
    for file in files:
        file_params |= _copy_from(file, nodes, diagnostics)
    if files:
        diagnostics += _left_alone(nodes, files)
    diagnostics += _remarks(nodes)
    # caffe: a layer that shares copies too, into the blob that its owner holds; the last copy wins
    by_owner = {owners[slot]: entry for slot, entry in file_params.items()}
    by_name = {node.name: node for node in reversed(nodes)}
    sharers = Counter(owners.values())
    bound = []
    for node in nodes:
        params = []
        for i, param in enumerate(node.params):
            owner, j = owners[node.name, i]
            param = replace(param, shared=sharers[owner, j] > 1)
            if (owner, j) in by_owner:
                values, source = by_owner[owner, j]
                params.append(replace(param, values=values, source=source))
            else:
                filler = by_name[owner].layer.fillers().get(by_name[owner].params[j].name, Filler())
                values = _filled(filler, by_name[owner], j, seed)
                params.append(replace(param, values=values, source=f"filler {filler.type}"))
        bound.append(replace(node, params=tuple(params)))
    return BoundGraph(replace(graph, nodes=tuple(bound)), tuple(diagnostics))


def with_stored_shapes(net: NetDef, files: Sequence[WeightsFile]) -> NetDef:
    """The net with what the weights files hold for each layer; the last file that has a layer counts, as in `bind`."""
    stored: dict[str, Shapes] = {}
    for file in files:
        stored |= {layer.name: [blob.shape for blob in layer.blobs if blob is not None] for layer in file.layers}
    layers = (
        replace(layer, stored_shapes=stored[layer.name]) if layer.name in stored else layer for layer in net.layers
    )
    return replace(net, layers=tuple(layers))


def at_fillers(graph: Graph) -> str:
    """How many of a bound graph's parameters no file fills, as a sentence; empty where every one has its values."""
    params = [(node, param) for node in graph.nodes for param in node.params]
    unfilled = [(node.name, param) for node, param in params if isinstance(param.values, FillerValues)]
    if not unfilled:
        return ""
    number, layers = len(unfilled), len({layer for layer, _ in unfilled})
    what = f"all {number}" if number == len(params) else f"{number} of {len(params)}"
    of = "1 layer" if layers == 1 else f"{layers} layers"
    return f"{what} parameters of {of} are at their fillers"


def copied_from(file: WeightsFile, graph: Graph) -> tuple[dict[tuple[str, str], ParamValues], tuple[Diagnostic, ...]]:
    """The values that a further file gives to a bound graph's parameters, by the layer and parameter that own them; and
    what is to be said about it (errors: what did not fit).
    """
    diagnostics: list[Diagnostic] = []
    by_name = {node.name: node for node in reversed(graph.nodes)}
    values_of = {}
    for (layer, index), (values, _) in _copy_from(file, graph.nodes, diagnostics).items():
        param = by_name[layer].params[index]
        values_of[param.key_in(layer)] = values
    return values_of, tuple(diagnostics)


def _remarks(nodes: Sequence[Node]) -> Iterable[Diagnostic]:
    """What layers say of where they stand."""
    made_by: dict[str, Node] = {}
    for node in nodes:
        sources = [made_by.get(value) for value in node.bottoms]
        yield from node.layer.lint(node, sources)
        maker = sources[0] if node.layer.repeats_bottom(node) else None
        made_by.update((top, maker or node) for top in node.tops)


# -- sharing -----------------------------------------------------------------------------------------------------------


ParamIndex = tuple[str, int]
"""A parameter: its layer's name and its index there."""
FileParams = dict[ParamIndex, tuple[ParamValues, str]]
"""What a parameter is given: its values, and where they come from."""


def _share(nodes: Iterable[Node], diagnostics: list[Diagnostic]) -> tuple[list[Node], dict[ParamIndex, ParamIndex]]:
    """Marks parameters whose `param { name }` an earlier one has as shared; gives every parameter's owner too."""
    first: dict[str, tuple[Node, int]] = {}
    owners: dict[ParamIndex, ParamIndex] = {}
    shared = []
    for node in nodes:
        params = []
        for i, param in enumerate(node.params):
            specs = node.definition.param_specs
            name = specs[i].name if i < len(specs) else ""
            owner, j = first.setdefault(name, (node, i)) if name else (node, i)
            owners[node.name, i] = owner.name, j
            if owner is node and i == j:
                params.append(param)
            else:
                diagnostics += _sharing_problems(node, i, owner, j, name)
                params.append(replace(param, owner=(owner.name, owner.params[j].name)))
        shared.append(replace(node, params=tuple(params)))
    return shared, owners


def _sharing_problems(node: Node, i: int, owner: Node, j: int, name: str) -> Iterable[Diagnostic]:
    mine, theirs = node.params[i].shape, owner.params[j].shape
    spec, owner_spec = node.definition.param_specs[i], owner.definition.param_specs[j]
    where = node.definition.where
    if "PERMISSIVE" in (spec.share_mode, owner_spec.share_mode):
        if count(mine) != count(theirs):
            yield Diagnostic(
                "error", where,
                f"Cannot share param '{name}' owned by layer '{owner.name}' with layer '{node.name}'; count mismatch.  "
                f"Owner layer param shape is {shape_string(theirs)}; sharing layer shape is {shape_string(mine)}",
                layer=node.name,
            )  # fmt: skip
    elif mine != theirs:
        yield Diagnostic(
            "error", where,
            f"Cannot share param '{name}' owned by layer '{owner.name}' with layer '{node.name}'; shape mismatch.  "
            f"Owner layer param shape is {shape_string(theirs)}; sharing layer expects shape {shape_string(mine)}",
            "`share_mode: PERMISSIVE` takes the same numbers in another shape (it does not transpose).", node.name,
        )  # fmt: skip
    factors = {
        "lr_mult": (spec.lr_mult, owner_spec.lr_mult), "decay_mult": (spec.decay_mult, owner_spec.decay_mult),
    }  # fmt: skip
    for field, (a, b) in factors.items():
        if a is not None and b is not None and a != b:
            message = f"Shared param '{name}' has mismatched {field}: {a:g} here, {b:g} in '{owner.name}'."
            yield Diagnostic("error", where, message)


# -- from files --------------------------------------------------------------------------------------------------------


def _copy_from(file: WeightsFile, nodes: Sequence[Node], diagnostics: list[Diagnostic]) -> FileParams:
    params: FileParams = {}
    by_name = {node.name: node for node in reversed(nodes)}  # caffe: the first layer of a name
    for layer in file.layers:
        node = by_name.get(layer.name)
        if node is None:
            if layer.blobs:
                message = (
                    f"layer '{layer.name}' of the file is not in the net; its {len(layer.blobs)} blobs are ignored"
                )
                diagnostics.append(Diagnostic("warning", str(file.path), message, layer=layer.name))
            continue
        fits, problems = _fit(node, layer, file)
        diagnostics += problems
        params.update({(node.name, i): (FileValues(file.path, blob), str(file.path)) for i, blob in fits})
    return params


def _fit(node: Node, layer: StoredLayer, file: WeightsFile) -> tuple[list[tuple[int, Blob]], list[Diagnostic]]:
    where = f"{node.definition.where} in {file.path}"
    blobs = layer.blobs
    if layer.may_leave_out and len(blobs) < len(node.params):
        blobs = (*blobs, *([None] * (len(node.params) - len(blobs))))
    left_out = any(blob is None and not param.owner for blob, param in zip(blobs, node.params, strict=False))
    if len(blobs) != len(node.params) or left_out:
        names = ", ".join(f"{param.name} {shape_string(param.shape)}" for param in node.params) or "none"
        message = (
            f"Incompatible number of blobs for layer {node.name}: the file has {len(layer.blobs)}, "
            f"the net needs {len(node.params)} ({names})"
        )
        return [], [Diagnostic("error", where, message, _blob_count_hint(node, layer), node.name)]
    fits, problems = [], []
    for i, (param, blob) in enumerate(zip(node.params, blobs, strict=True)):
        if blob is None:
            continue
        if not _fits(node, param.shape, blob):
            line = (
                hdf5_line(blob, param.shape) if layer.may_leave_out else mismatch_line(node.name, i, blob, param.shape)
            )
            problems.append(Diagnostic("error", where, line, layer=node.name))
        elif blob.count != count(param.shape):
            message = (
                f"param {i} ({param.name}) holds {blob.count} values where its shape {shape_string(blob.shape)} "
                f"needs {count(param.shape)} (count_ == proto.data_size())"
            )
            problems.append(
                Diagnostic("error", where, message, "The file is damaged; copy or download it again.", node.name)
            )
        else:
            fits.append((i, blob))
    return fits, problems


def _blob_count_hint(node: Node, layer: StoredLayer) -> str:
    if len(layer.blobs) == len(node.params) + 1:
        return "The file has a bias that the net lacks? Set `bias_term: true`."
    if len(layer.blobs) + 1 == len(node.params):
        return "The file lacks a bias that the net has? Set `bias_term: false`."
    return RENAME


def mismatch_line(layer: str, index: int, blob: Blob, target: Shape) -> str:
    """The sentence in which Caffe says that a parameter does not fit (people search the web for it)."""
    return (
        f"Cannot copy param {index} weights from layer '{layer}'; shape mismatch.  "
        f"Source param shape is {shape_string(blob.shape)}; target param shape is {shape_string(target)}. {RENAME}"
    )


def hdf5_line(blob: Blob, target: Shape) -> str:
    """The sentence in which Caffe says the same of a file in HDF5."""
    return (
        f"Cannot load blob from hdf5; shape mismatch. Source shape is {shape_string(blob.shape)} "
        f"target shape is {shape_string(target)}"
    )


def _fits(node: Node, shape: Shape, blob: Blob) -> bool:
    # DeepLab: without strict_dim the number of values counts alone
    is_loose = not node.definition.proto.strict_dim and blob.count == count(shape)
    return is_loose or shape_fits(shape, blob, any_vector=node.layer.takes_any_vector)


def shape_fits(target: Shape, blob: Blob, *, any_vector: bool = False) -> bool:
    """Caffe's rule (Blob::ShapeEquals): old four-number shapes are held against the target padded with ones in front.

    So are C3D 1.0's, of five numbers. Beyond Caffe a parameter of one axis takes as many values whatever axes of size 1
    they have (1×C×1×1, as NVIDIA's files have them); with `any_vector`, one of several axes too.
    """
    takes_vector = is_vector(target) if any_vector else len(target) == 1
    if takes_vector and is_vector(blob.shape) and count(target) == count(blob.shape):
        return True
    if not blob.legacy:
        return blob.shape == target
    axes = len(blob.shape)
    return len(target) <= axes and blob.shape == (1,) * (axes - len(target)) + target


def is_vector(shape: Shape) -> bool:
    """Whether at most one axis has a size other than 1."""
    return sum(size != 1 for size in shape) <= 1


def _left_alone(nodes: Sequence[Node], files: Sequence[WeightsFile]) -> Iterable[Diagnostic]:
    named = {layer.name for file in files for layer in file.layers}
    for node in nodes:
        if node.params and node.name not in named and not all(param.owner for param in node.params):
            yield Diagnostic(
                "warning", node.definition.where,
                f"no weights file has a layer '{node.name}'; its parameters stay at their fillers", layer=node.name,
            )  # fmt: skip


def _inline_blobs(nodes: Sequence[Node], diagnostics: list[Diagnostic]) -> FileParams:
    """Blobs written in the prototxt itself."""
    params: FileParams = {}
    for node in nodes:
        for i, (param, blob) in enumerate(zip(node.params, node.definition.inline_blobs, strict=False)):
            if _fits(node, param.shape, blob) and blob.count == count(param.shape):
                params[node.name, i] = (ArrayValues(blob.array()), "the prototxt")
            elif blob.count:
                where = f"{node.definition.where} in its own blobs"
                diagnostics.append(
                    Diagnostic("error", where, mismatch_line(node.name, i, blob, param.shape), layer=node.name)
                )
    return params


# -- values ------------------------------------------------------------------------------------------------------------


def _filled(filler: Filler, node: Node, index: int, seed: int) -> FillerValues:
    # a seed of its own for each parameter, so that no other layer changes what it draws
    own_seed = zlib.crc32(f"{node.name}/{node.params[index].name}".encode())
    shape = node.params[index].shape
    return FillerValues(lambda: filler.fill(shape, np.random.default_rng((seed, own_seed))))


def for_built_layers(draft: PartialGraph, bound: BoundGraph) -> tuple[Diagnostic, ...]:
    """What is to be said of a net's weights, but for layers that could not be built: the file may well have these."""
    unbuilt = {layer.name for layer in draft.unbuilt}
    return tuple(d for d in bound.diagnostics if d.layer not in unbuilt)
