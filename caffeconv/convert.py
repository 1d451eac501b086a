"""prototxt + weights → ONNX model: runs the stages in order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from caffeconv.batch import (
    checked_shapes,
    dynamic_candidates,
    fixed_dims,
    for_any_batch,
    grown,
    input_shapes,
    reshape_graph,
    with_batch,
)  # fmt: skip
from caffeconv.bind import Bound, bind
from caffeconv.build import Draft, draft_graph, finish
from caffeconv.caffe_format.caffemodel import WeightsFile, read_caffemodel
from caffeconv.caffe_format.hdf5 import is_hdf5, read_hdf5_weights
from caffeconv.caffe_format.prototxt import NetSource, UnknownField, read_prototxt
from caffeconv.caffe_format.terms import Phase
from caffeconv.deploy import UnknownSizeError, to_deploy
from caffeconv.emit.form import Form, Layout, Preprocess, take_form
from caffeconv.errors import CaffeconvError, Diagnostic, InvalidNetError
from caffeconv.files.sha256 import Hashes, digest_of, hashing
from caffeconv.fully_convolutional import fully_convolutional as to_fully_convolutional
from caffeconv.ir.definition import Infogain, NetDef
from caffeconv.ir.graph import Graph
from caffeconv.layers import LAYERS
from caffeconv.passes import LINKING_PASSES, PASSES, run_passes
from caffeconv.preprocess import own_preprocess
from caffeconv.read.netdef import State, define_net

if TYPE_CHECKING:
    from onnx import ModelProto

    from caffeconv.emit.outline import Outline
    from caffeconv.emit.store import Storage, Written

PathLike = str | os.PathLike[str]
Weights = PathLike | Sequence[PathLike] | None


@dataclass(frozen=True)
class Loaded:
    """A net with its weights, and what is to be said about them."""

    net: NetDef
    bound: Bound
    files: tuple[Path, ...]
    dropped: tuple[UnknownField, ...] = ()

    @property
    def graph(self) -> Graph:
        return self.bound.graph


def weight_paths(weights: Weights) -> tuple[Path, ...]:
    """One path, several or none, as a tuple."""
    if weights is None:
        return ()
    if isinstance(weights, (str, os.PathLike)):
        return (Path(weights),)
    return tuple(Path(path) for path in weights)


def weights_files(net: PathLike, weights: Weights) -> tuple[Path, ...]:
    """The files that a net's weights come from: those given, or the net itself where it is a caffemodel."""
    given = weight_paths(weights)
    return given if given or Path(net).suffix != ".caffemodel" else (Path(net),)


def read_net(path: PathLike, *, ignore_unknown_fields: bool = False) -> NetSource:
    """The net definition of a prototxt, or the one that a caffemodel carries (by its suffix)."""
    path = Path(path)
    if path.suffix == ".caffemodel":
        net = read_caffemodel(path).net()
        if not any(layer.top for layer in net.layer) and not any(layer.top for layer in net.layers):
            raise CaffeconvError(
                f"{path}: this caffemodel holds weights, but no net around them; give the prototxt first, then the weights"
            )
        return NetSource(net, (0,) * len(net.layer or net.layers), path, path.parent)
    extra_fields = {name: kind.extra_fields for name, kind in LAYERS.items() if kind.extra_fields}
    return read_prototxt(path, ignore_unknown_fields=ignore_unknown_fields, extra_fields=extra_fields)


def read_weights(path: Path) -> WeightsFile:
    """A weights file of any kind: caffemodel or Caffe's HDF5."""
    return read_hdf5_weights(path) if is_hdf5(path) else read_caffemodel(path)


def read_definition(
    net: PathLike, state: State, shapes: Mapping[str, Sequence[int]] | None = None, *, ignore_unknown_fields: bool = False
) -> NetDef:  # fmt: skip
    """The layers of a net, none of them built: no shape is known, and no code of the user's is run. Raises as `load`."""
    return define_net(_read_for(net, state, shapes, ignore_unknown_fields=ignore_unknown_fields), state)


def _read_for(
    net: PathLike, state: State, shapes: Mapping[str, Sequence[int]] | None, *, ignore_unknown_fields: bool
) -> NetSource:  # fmt: skip
    source = read_net(net, ignore_unknown_fields=ignore_unknown_fields)
    return to_deploy(source, state, shapes) if state.deploy else source


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
    source = _read_for(net, state or State(), shapes, ignore_unknown_fields=ignore_unknown_fields)
    paths = weights_files(net, weights)
    files = [read_weights(path) for path in paths]
    definition = define_net(source, state or State())
    draft = draft_graph(definition, shapes)
    bound = bind(finish(definition, draft), files, seed=seed)
    errors = [d for d in (*draft.problems, *of_built(draft, bound)) if d.severity == "error"]
    if errors:
        from caffeconv.diagnose import QUICK, diagnose

        raise InvalidNetError(diagnose(definition, files, errors, shapes, effort=QUICK).with_advice)
    return Loaded(definition, bound, (Path(net), *paths), source.dropped)


def of_built(draft: Draft, bound: Bound) -> tuple[Diagnostic, ...]:
    """What is to be said of a net's weights, but for layers that could not be built: the file may well have these."""
    unbuilt = {layer.name for layer in draft.unbuilt}
    return tuple(d for d in bound.diagnostics if d.layer not in unbuilt)


def convert(
    net: PathLike, weights: Weights = None, *, phase: Phase = "TEST", level: int = 0, stages: Sequence[str] = (),
    outputs: Sequence[str] | Literal["all"] | None = None, batch: int | Literal["dynamic", "keep"] = "dynamic",
    shapes: Mapping[str, Sequence[int]] | None = None, layout: Layout = "nchw", half: bool = False,
    keep_io: bool = False, preprocess: Preprocess | bool = False, opset: int | None = None, fold: bool = True,
    deploy: bool = False, extended: bool = False, seed: int = 0, infogain: Infogain | None = None,
    allow_python: bool = False, ignore_unknown_fields: bool = False, fully_convolutional: bool = False,
) -> ModelProto:  # fmt: skip
    """The ONNX model of a Caffe net, checked by onnx.checker.

    Args:
        net: the prototxt, or a caffemodel that carries its own net.
        weights: caffemodel or Caffe's HDF5; several are applied in order. None: parameters stay at their fillers.
        phase, level, stages: Caffe's NetState.
        outputs: blobs that the model gives; "all": every blob; None: those that no layer reads.
        batch: "dynamic": any batch size where every layer allows it; "keep": the prototxt's; or a number.
        shapes: blob → shape of an input, instead of the prototxt's (axis order as in Caffe, NCHW).
        layout: axis order of the model's inputs and outputs of four axes and more; "nhwc": channels last.
        half: weights and computing in float16, but for losses and statistics; inputs and outputs too, unless keep_io.
        preprocess: what the model does to pictures, its input then being uint8; True: what the net's data layer does.
        opset: ONNX operator set, 17 where None.
        fold: take out layers that change nothing and fold BatchNorm, Scale and Bias into the layer before them.
        deploy: turn a training net into a deploy net first: no data layers, labels and losses, but predictions.
        extended: let layers do what Caffe refuses, where that has one clear meaning (pooling of 5-D blobs).
        seed: for fillers that draw at random.
        infogain: what InfogainLoss layers are given: "logits" (Caffe 1.0), or "probabilities" (before April 2017).
        allow_python: import and run the module of a `type: "Python"` layer, to learn its shapes and parameters.
        ignore_unknown_fields: go on without prototxt fields that the schema lacks.
        fully_convolutional: write InnerProduct layers as convolutions, whose windows are what the layers see at the
            net's own size; height and width are open where every layer allows it.

    Raises:
        CaffeconvError: whatever is wrong with the net, the weights or the arguments.
    """
    state = State(phase, level, tuple(stages), extended, deploy, infogain, allow_python)
    form = _form(net, state, Form(layout, half, keep_io, fold=fold), preprocess, ignore=ignore_unknown_fields)
    loaded = load(
        net, weights, state=state, shapes=shapes, seed=seed, ignore_unknown_fields=ignore_unknown_fields,
        fully_convolutional=fully_convolutional,
    )  # fmt: skip
    values = choose_outputs(loaded.graph, outputs)
    model = convert_loaded(
        loaded, values, batch=batch, opset=opset, fold=fold, metadata=source_metadata(loaded),
        any_size=fully_convolutional,
    )  # fmt: skip
    return take_form(model, form)


def convert_to(
    out: PathLike, net: PathLike, weights: Weights = None, *, storage: Storage | None = None, phase: Phase = "TEST",
    level: int = 0, stages: Sequence[str] = (), outputs: Sequence[str] | Literal["all"] | None = None,
    batch: int | Literal["dynamic", "keep"] = "dynamic", shapes: Mapping[str, Sequence[int]] | None = None,
    layout: Layout = "nchw", half: bool = False, keep_io: bool = False, preprocess: Preprocess | bool = False,
    opset: int | None = None, fold: bool = True, deploy: bool = False, extended: bool = False, seed: int = 0,
    infogain: Infogain | None = None, allow_python: bool = False, ignore_unknown_fields: bool = False,
    fully_convolutional: bool = False,
) -> Written:  # fmt: skip
    """Writes the ONNX model of a Caffe net to a file, of any size, in little memory.

    Args:
        out: the file to write.
        storage: where the weights go. "embed": into it; "external": beside it, ``OUT.<digits>.data``; "link": nowhere,
            the model points into the weights file, which must lie in its folder or below, and what layers would change
            in these weights stays as it is. None: "embed", or "external" where the model is too large for one file.
        net and all others: as `convert`. A model with another `layout`, `half` or `preprocess` is made in memory, and
            cannot be linked.

    Raises:
        CaffeconvError: as `convert`, and where `out` cannot be written.
    """
    from caffeconv.emit.outline import Outline
    from caffeconv.emit.store import choose_storage, write_model
    from caffeconv.files.atomic import refuse_input_as_output

    refuse_input_as_output(out, (net, *weight_paths(weights)))
    state = State(phase, level, tuple(stages), extended, deploy, infogain, allow_python)
    form = _form(net, state, Form(layout, half, keep_io, fold=fold), preprocess, ignore=ignore_unknown_fields)
    refuse_changed_links(form, storage)
    with hashing(weights_files(net, weights)) as hashes:
        loaded = load(
            net, weights, state=state, shapes=shapes, seed=seed, ignore_unknown_fields=ignore_unknown_fields,
            fully_convolutional=fully_convolutional,
        )  # fmt: skip
        values = choose_outputs(loaded.graph, outputs)
        outline = outline_loaded(
            loaded, values, batch=batch, opset=opset, fold=fold, link=storage == "link", any_size=fully_convolutional
        )
        if not form.is_plain:
            outline = Outline(take_form(outline.with_values(), form), {})
        metadata = partial(source_metadata, loaded, hashes)
        return write_model(outline, Path(out), choose_storage(outline, storage), hashes, metadata)


def _form(net: PathLike, state: State, form: Form, preprocess: Preprocess | bool, *, ignore: bool) -> Form:
    """`form` with what is to be done to pictures; CaffeconvError for what does not go together."""
    if form.layout not in ("nchw", "nhwc"):
        raise CaffeconvError(f"layout {form.layout!r}: 'nchw' or 'nhwc' was needed")
    if form.keep_io and not form.half:
        raise CaffeconvError(
            "keep_io without half: inputs and outputs are float32 as it is; give half=True, or leave it out"
        )
    if preprocess is True:
        preprocess = own_preprocess(read_net(net, ignore_unknown_fields=ignore), state)
    return replace(form, preprocess=preprocess or None)


def refuse_changed_links(form: Form, storage: Storage | None) -> None:
    """Raises CaffeconvError where a model shall point to weights that its form changes."""
    if storage == "link" and not form.is_plain:
        raise CaffeconvError(
            "linked weights stay as they are in their file, and half precision, preprocessing and channels last change them; "
            "external weights were needed, or a plain model"
        )


def convert_loaded(
    loaded: Loaded, outputs: Sequence[str], *, batch: int | Literal["dynamic", "keep"] = "dynamic",
    opset: int | None = None, fold: bool = True, metadata: Mapping[str, str] | None = None,
    notes: list[Diagnostic] | None = None, stateful: bool = False, any_size: bool = False,
) -> ModelProto:  # fmt: skip
    """As `convert`, from a net already loaded; `outputs` are values of its graph. Notes worth saying go to `notes`.

    metadata: what a file says of its sources (`source_metadata`); a model that only runs here needs none.
    stateful: see emit_model. any_size: with a dynamic batch, height and width are open too, where layers allow it.
    """
    outline = outline_loaded(
        loaded, outputs, batch=batch, opset=opset, fold=fold, metadata=metadata, notes=notes, stateful=stateful,
        any_size=any_size,
    )  # fmt: skip
    return outline.with_values()


def outline_loaded(
    loaded: Loaded, outputs: Sequence[str], *, batch: int | Literal["dynamic", "keep"] = "dynamic",
    opset: int | None = None, fold: bool = True, link: bool = False, metadata: Mapping[str, str] | None = None,
    notes: list[Diagnostic] | None = None, stateful: bool = False, any_size: bool = False,
) -> Outline:  # fmt: skip
    """As `convert_loaded`, without the parameters' values, for `emit.store` to write.

    link: the model shall point to them in the weights file, so that those which it can point to are left as they are.
    """
    from caffeconv.emit.check import check_model
    from caffeconv.emit.model import DEFAULT_OPSET, emit_outline
    from caffeconv.ir.onnx_builder import NeedsFixedBatchError

    opset = _checked_opset(opset or DEFAULT_OPSET)
    graph = loaded.graph if not isinstance(batch, int) else with_batch(loaded.graph, batch)
    graph = for_any_batch(graph) if batch == "dynamic" else graph
    lean = replace(graph, outputs=tuple(outputs))
    if fold:
        lean, unfolded = run_passes(lean, LINKING_PASSES if link else PASSES), lean
        if link and notes is not None:
            notes.extend(_left_by_linking(lean, unfolded))
    if batch == "dynamic" and any_size:
        outline = _of_any_size(graph, lean, outputs, opset=opset, metadata=metadata, notes=notes)
        if outline is not None:
            return check_model(outline)
    if batch == "dynamic":
        for dims, symbols, which in dynamic_candidates(graph):
            try:
                varying = replace(lean, dims=dims, symbols=symbols)
                outline = emit_outline(varying, outputs, opset=opset, metadata=metadata, stateful=stateful)
            except NeedsFixedBatchError as reason:
                if notes is not None:
                    notes.append(Diagnostic("note", "", f"{which} cannot have a dynamic batch: {reason}"))
                continue
            return check_model(outline)
        if notes is not None:
            notes.append(Diagnostic("note", "", "the batch size is fixed"))
    fixed = replace(lean, dims=fixed_dims(graph))
    try:
        outline = emit_outline(fixed, outputs, opset=opset, metadata=metadata, stateful=stateful)
    except NeedsFixedBatchError:
        if not all(node.layer.makes_shapes or node.layer.open_axis is None for node in graph.nodes):
            raise
        # what the user's code makes is planned for as it was; a Net plans anew where it comes out otherwise
        fixed = replace(lean, dims=graph.shapes)
        outline = emit_outline(fixed, outputs, opset=opset, metadata=metadata, stateful=stateful)
    return check_model(outline)


def _left_by_linking(lean: Graph, unfolded: Graph) -> Iterator[Diagnostic]:
    """Says which layers would have been folded into weights, were these not linked."""
    folded = {node.name for node in run_passes(unfolded).nodes}
    left = [node.name for node in lean.nodes if node.name not in folded]
    if left:
        message = f"not folded into the weights before them, because these stay as they are: {', '.join(left)}"
        yield Diagnostic("note", "", message)


def _of_any_size(
    graph: Graph, lean: Graph, outputs: Sequence[str], *, opset: int, metadata: Mapping[str, str] | None,
    notes: list[Diagnostic] | None,
) -> Outline | None:  # fmt: skip
    """The model with open batch, height and width; None, with a note that says why, where a layer needs to know these."""
    from caffeconv.emit.model import differing_layer, emit_outline
    from caffeconv.ir.onnx_builder import NeedsFixedBatchError

    reason = "the shapes do not go together at other sizes"
    for dims, symbols, _ in dynamic_candidates(graph, any_size=True):
        try:
            varying = replace(lean, dims=dims, symbols=symbols)
            others = [
                replace(reshape_graph(lean, grown(input_shapes(lean), pixels)), dims=dims, symbols=symbols)
                for pixels in (1, 32)
            ]
            layer = differing_layer([varying, *others], opset=opset)
            if layer is None:
                return emit_outline(varying, outputs, opset=opset, metadata=metadata)
            reason = f"{layer} is written otherwise for another size"
        except CaffeconvError as error:
            if not isinstance(error, (NeedsFixedBatchError, InvalidNetError)):
                raise
            reason = str(error)
    if notes is not None:
        notes.append(Diagnostic("note", "", f"height and width are fixed: {reason}"))
    return None


def _checked_opset(opset: int) -> int:
    import onnx

    from caffeconv.emit.model import LEAST_OPSET

    newest = onnx.defs.onnx_opset_version()
    if not LEAST_OPSET <= opset <= newest:
        raise CaffeconvError(f"opset {opset}: {LEAST_OPSET} to {newest} can be written")
    return opset


def choose_outputs(graph: Graph, outputs: Sequence[str] | Literal["all"] | None) -> tuple[str, ...]:
    """The values that become outputs; CaffeconvError names a blob that the net lacks."""
    last = dict(graph.net.last_value)
    for node in graph.nodes:
        for value in node.tops[len(node.definition.tops) :]:
            last[value] = value
    if outputs is None:
        return graph.outputs
    inputs = set(graph.inputs)
    if outputs == "all":
        return tuple(value for value in last.values() if value not in inputs)
    missing = [name for name in outputs if name not in last]
    if missing:
        import difflib

        near = difflib.get_close_matches(missing[0], last, 3)
        hint = f" Did you mean {' or '.join(near)}?" if near else f" Blobs: {', '.join(list(last)[:20])}"
        raise CaffeconvError(f"the net has no blob '{missing[0]}'.{hint}")
    chosen = dict.fromkeys(last[name] for name in outputs)
    if inputs.intersection(chosen):
        raise CaffeconvError(
            f"'{next(iter(inputs.intersection(chosen)))}' is an input of the net; a blob that a layer makes was needed"
        )
    return tuple(chosen)


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
