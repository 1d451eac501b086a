"""prototxt + weights → ONNX model: runs the stages in order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from caffeconv.batch import dynamic_candidates, fixed_dims, for_any_batch, with_batch
from caffeconv.bind import Bound, bind
from caffeconv.build import Draft, draft_graph, finish
from caffeconv.deploy import to_deploy
from caffeconv.diagnose import QUICK, diagnose
from caffeconv.emit.form import Form, Layout, Preprocess, take_form
from caffeconv.errors import CaffeconvError, Diagnostic, InvalidNetError
from caffeconv.ir import Graph, Infogain, NetDef, Phase
from caffeconv.layers import LAYERS
from caffeconv.passes import run_passes
from caffeconv.preprocess import own_preprocess
from caffeconv.read.caffemodel import WeightsFile, read_caffemodel
from caffeconv.read.hdf5 import is_hdf5, read_hdf5_weights
from caffeconv.read.netdef import State, define_net
from caffeconv.read.prototxt import NetSource, UnknownField, read_prototxt

if TYPE_CHECKING:
    from onnx import ModelProto

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


def load(
    net: PathLike, weights: Weights = None, *, state: State | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 0, ignore_unknown_fields: bool = False,
) -> Loaded:  # fmt: skip
    """Reads, builds and binds; raises CaffeconvError with every problem found."""
    source = read_net(net, ignore_unknown_fields=ignore_unknown_fields)
    paths = weight_paths(weights)
    if not paths and Path(net).suffix == ".caffemodel":
        paths = (Path(net),)
    files = [read_weights(path) for path in paths]
    state = state or State()
    if state.deploy:
        source = to_deploy(source, state, shapes)
    definition = define_net(source, state)
    draft = draft_graph(definition, shapes)
    bound = bind(finish(definition, draft), files, seed=seed)
    errors = [d for d in (*draft.problems, *of_built(draft, bound)) if d.severity == "error"]
    if errors:
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
    allow_python: bool = False, ignore_unknown_fields: bool = False,
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

    Raises:
        CaffeconvError: whatever is wrong with the net, the weights or the arguments.
    """
    if layout not in ("nchw", "nhwc"):
        raise CaffeconvError(f"layout {layout!r}: 'nchw' or 'nhwc' was needed")
    if keep_io and not half:
        raise CaffeconvError(
            "keep_io without half: inputs and outputs are float32 as it is; give half=True, or leave it out"
        )
    state = State(phase, level, tuple(stages), extended, deploy, infogain, allow_python)
    if preprocess is True:
        preprocess = own_preprocess(read_net(net, ignore_unknown_fields=ignore_unknown_fields), state)
    form = Form(layout, half, keep_io, preprocess or None, fold)
    loaded = load(net, weights, state=state, shapes=shapes, seed=seed, ignore_unknown_fields=ignore_unknown_fields)
    values = choose_outputs(loaded.graph, outputs)
    metadata = source_metadata(loaded)
    model = convert_loaded(loaded, values, batch=batch, opset=opset, fold=fold, metadata=metadata)
    return take_form(model, form)


def convert_loaded(
    loaded: Loaded, outputs: Sequence[str], *, batch: int | Literal["dynamic", "keep"] = "dynamic",
    opset: int | None = None, fold: bool = True, metadata: Mapping[str, str] | None = None,
    notes: list[Diagnostic] | None = None, stateful: bool = False,
) -> ModelProto:  # fmt: skip
    """As `convert`, from a net already loaded; `outputs` are values of its graph. Notes worth saying go to `notes`.

    metadata: what a file says of its sources (`source_metadata`); a model that only runs here needs none.
    stateful: see emit_model.
    """
    from caffeconv.emit.check import check_model
    from caffeconv.emit.model import DEFAULT_OPSET, emit_model
    from caffeconv.emit.onnx_builder import NeedsFixedBatchError

    opset = _checked_opset(opset or DEFAULT_OPSET)
    graph = loaded.graph if not isinstance(batch, int) else with_batch(loaded.graph, batch)
    graph = for_any_batch(graph) if batch == "dynamic" else graph
    lean = replace(graph, outputs=tuple(outputs))
    lean = run_passes(lean) if fold else lean
    if batch == "dynamic":
        for dims, symbols, which in dynamic_candidates(graph):
            try:
                varying = replace(lean, dims=dims, symbols=symbols)
                model = emit_model(varying, outputs, opset=opset, metadata=metadata, stateful=stateful)
            except NeedsFixedBatchError as reason:
                if notes is not None:
                    notes.append(Diagnostic("note", "", f"{which} cannot have a dynamic batch: {reason}"))
                continue
            return check_model(model)
        if notes is not None:
            notes.append(Diagnostic("note", "", "the batch size is fixed"))
    fixed = replace(lean, dims=fixed_dims(graph))
    try:
        model = emit_model(fixed, outputs, opset=opset, metadata=metadata, stateful=stateful)
    except NeedsFixedBatchError:
        if not all(node.layer.makes_shapes or node.layer.open_axis is None for node in graph.nodes):
            raise
        # what the user's code makes is planned for as it was; a Net plans anew where it comes out otherwise
        fixed = replace(lean, dims=graph.shapes)
        model = emit_model(fixed, outputs, opset=opset, metadata=metadata, stateful=stateful)
    return check_model(model)


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


def source_metadata(loaded: Loaded) -> dict[str, str]:
    """The NetState, and name and SHA-256 of every source file, each of which is read whole."""
    net = loaded.net
    metadata: dict[str, str] = {"caffe.phase": net.phase}
    for i, path in enumerate(loaded.files):
        kind = "prototxt" if i == 0 else "weights" if i == 1 else f"weights{i}"
        metadata[f"caffe.{kind}.name"] = path.name
        metadata[f"caffe.{kind}.sha256"] = _sha256(path)
    return metadata


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
