"""A loaded net as an ONNX model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from caffeconv.conversion.load import Loaded
from caffeconv.errors import CaffeconvError, Diagnostic, InvalidNetError, close_names
from caffeconv.files import arguments
from caffeconv.frontend.open_axes import dynamic_candidates, fixed_dims, values_decide
from caffeconv.frontend.reshape import for_any_batch, grown, input_shapes, reshape_graph, with_batch
from caffeconv.ir.graph import Graph
from caffeconv.passes.pipeline import LINKING_PASSES, PASSES, run_passes

if TYPE_CHECKING:
    from caffeconv.emit.lazy_model import LazyModel


def to_onnx(
    loaded: Loaded, outputs: Sequence[str], *, batch: int | Literal["dynamic", "keep"] = "dynamic",
    opset: int | None = None, fold: bool = True, link: bool = False, metadata: Mapping[str, str] | None = None,
    notes: list[Diagnostic] | None = None, stateful: bool = False, any_size: bool = False,
) -> LazyModel:  # fmt: skip
    """The ONNX model of a loaded net, checked by onnx.checker; parameters get their values when it is written.

    Args:
        outputs: values of its graph (`choose_outputs`).
        batch, opset, fold: as for `convert`.
        link: the model shall point to parameters in the weights file; those that it can point to stay as they are.
        metadata: what a file says of its sources (`source_metadata`); a model that only runs here needs none.
        notes: notes worth saying go to it.
        stateful: see `emit_lazy`.
        any_size: with a dynamic batch, height and width are open too, where layers allow it.

    Raises:
        CaffeconvError: an opset or a batch that cannot be, a layer that cannot be written.
    """
    from caffeconv.emit.check import check_model
    from caffeconv.emit.model import DEFAULT_OPSET, emit_lazy
    from caffeconv.ir.onnx_builder import NeedsFixedBatchError

    opset = _checked_opset(opset or DEFAULT_OPSET)
    graph = loaded.graph if not isinstance(batch, int) else with_batch(loaded.graph, batch)
    graph = for_any_batch(graph) if batch == "dynamic" else graph
    lean = replace(graph, outputs=tuple(outputs))
    if fold:
        lean, unfolded = run_passes(lean, LINKING_PASSES if link else PASSES, notes), lean
        if link and notes is not None:
            notes.extend(_left_by_linking(lean, unfolded))
    if batch == "dynamic" and any_size:
        model = _of_any_size(graph, lean, outputs, opset=opset, metadata=metadata, notes=notes)
        if model is not None:
            return check_model(model)
    if batch == "dynamic":
        for dims, symbols, which in dynamic_candidates(graph):
            try:
                varying = replace(lean, dims=dims, symbols=symbols)
                model = emit_lazy(varying, outputs, opset=opset, metadata=metadata, stateful=stateful)
            except NeedsFixedBatchError as reason:
                if notes is not None:
                    notes.append(Diagnostic("note", "", f"{which} cannot have a dynamic batch: {reason}"))
                continue
            return check_model(model)
        if notes is not None:
            notes.append(Diagnostic("note", "", "the batch size is fixed"))
    fixed = replace(lean, dims=fixed_dims(graph))
    try:
        model = emit_lazy(fixed, outputs, opset=opset, metadata=metadata, stateful=stateful)
    except NeedsFixedBatchError:
        if values_decide(graph):
            raise
        # what the user's code makes is planned for as it was; a Net plans anew where it comes out otherwise
        fixed = replace(lean, dims=graph.shapes)
        model = emit_lazy(fixed, outputs, opset=opset, metadata=metadata, stateful=stateful)
    return check_model(model)


def _left_by_linking(lean: Graph, unfolded: Graph) -> Iterator[Diagnostic]:
    """Says which layers would have been folded into weights, were these not linked."""
    folded = {node.name for node in run_passes(unfolded).nodes}
    names = [node.name for node in lean.nodes if node.name not in folded]
    if names:
        message = f"not folded into the weights before them, because these stay as they are: {', '.join(names)}"
        yield Diagnostic("note", "", message)


def _of_any_size(
    graph: Graph, lean: Graph, outputs: Sequence[str], *, opset: int, metadata: Mapping[str, str] | None,
    notes: list[Diagnostic] | None,
) -> LazyModel | None:  # fmt: skip
    """The model with open batch, height and width; None, with a note that says why, where a layer needs to know these."""
    from caffeconv.emit.model import differing_layer, emit_lazy
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
                return emit_lazy(varying, outputs, opset=opset, metadata=metadata)
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
        raise CaffeconvError(f"`opset={opset}`: {LEAST_OPSET} to {newest} can be written")
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
    wanted = arguments.names("outputs", outputs)
    missing = [name for name in wanted if name not in last]
    if missing:
        matches = close_names(missing[0], list(last), 3)
        hint = f" Did you mean {' or '.join(matches)}?" if matches else f" Blobs: {', '.join(list(last)[:20])}"
        raise CaffeconvError(f"the net has no blob '{missing[0]}'.{hint}")
    values = dict.fromkeys(last[name] for name in wanted)
    if inputs.intersection(values):
        raise CaffeconvError(
            f"'{next(iter(inputs.intersection(values)))}' is an input of the net; a blob that a layer makes was needed"
        )
    return tuple(values)
