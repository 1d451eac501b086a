"""caffeconv convert … -o OUT.onnx: an ONNX model."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from caffeconv.cli.options.int8 import Int8Options
from caffeconv.cli.options.model_form import FormOptions
from caffeconv.cli.options.net import note, tell_problems
from caffeconv.cli.show.console import echo
from caffeconv.errors import CaffeconvError, Diagnostic
from caffeconv.frontend.options import NetOptions

if TYPE_CHECKING:
    from caffeconv.conversion.load import Loaded
    from caffeconv.emit.lazy_model import LazyModel
    from caffeconv.emit.model_options import ModelOptions
    from caffeconv.emit.onnx_writer import Storage
    from caffeconv.verify import Verification


@dataclass(frozen=True)
class ModelRequest:
    """What to convert, and how."""

    net: Path
    weights: tuple[Path, ...]
    out: Path
    outputs: tuple[str, ...]
    batch: int | Literal["dynamic", "keep"]
    storage: Storage | None
    opset: int | None
    fold: bool
    forms: FormOptions
    int8: Int8Options | None
    options: NetOptions


def convert_model(request: ModelRequest, *, quiet: bool, verbose: bool) -> None:
    """Writes the model, and prints a summary and the notes on it."""
    from caffeconv.cli.show.written_files import non_finite_remarks, report_lines
    from caffeconv.conversion.load import load_cropped, source_metadata
    from caffeconv.emit.onnx_writer import choose_storage, write_model
    from caffeconv.files.sha256 import hashing
    from caffeconv.frontend.open_files import weights_files

    notes: list[Diagnostic] = []
    with hashing(weights_files(request.net, request.weights)) as hashes:
        loaded = load_cropped(request.net, request.weights, request.options, request.forms.crop_size)
        model, verification = _build_model(request, loaded, notes, quiet=quiet)
        storage = choose_storage(model, request.storage)
        own = _verified(verification) if verification is not None else {}

        def metadata() -> dict[str, str]:
            return {**source_metadata(loaded, hashes), **own}

        written = write_model(model, request.out, storage, hashes, metadata)
    remarks = [
        *loaded.remarks,
        *_of_training(loaded, request),
        *notes,
        *non_finite_remarks(written.model, written.non_finite),
    ]
    tell_problems(loaded.dropped, remarks, quiet=quiet, verbose=verbose)
    for line in report_lines(written, automatic=storage != (request.storage or "embed"), verbose=verbose):
        note(line, quiet=quiet)
    if not quiet:
        graph = model.model.graph
        inputs = " ".join(_describe(value) for value in graph.input)
        results = " ".join(_describe(value) for value in graph.output)
        size = f"{len(graph.node)} nodes, {written.bytes / 1e6:.2f} MB"
        echo(f"{request.out}: {size}; {inputs or 'no input'} → {results}")


def _build_model(
    request: ModelRequest, loaded: Loaded, notes: list[Diagnostic], *, quiet: bool
) -> tuple[LazyModel, Verification | None]:
    """The model in its form, verified where the options want that."""
    from caffeconv.conversion.convert import refuse_changed_links
    from caffeconv.conversion.to_onnx import choose_outputs, to_onnx
    from caffeconv.emit.lazy_model import LazyModel

    forms, net, options = request.forms, request.net, request.options
    model_options = forms.model_options(net, options, notes, fold=request.fold)
    refuse_changed_links(model_options, request.storage, int8=request.int8 is not None)
    values = choose_outputs(loaded.graph, "all" if request.outputs == ("all",) else request.outputs or None)
    lazy_model = to_onnx(
        loaded, values, batch=request.batch, opset=request.opset, fold=request.fold, link=request.storage == "link",
        notes=notes, any_size=options.fully_convolutional,
    )  # fmt: skip
    if model_options.is_plain and not forms.wants_verification and request.int8 is None:
        return lazy_model, None
    if request.int8 is not None:
        from caffeconv.cli.commands.convert_int8 import quantized_model
        from caffeconv.inference.request import NetFiles

        files = NetFiles(net=net, weights=request.weights)
        lazy_model = quantized_model(lazy_model, files, options, forms, request.int8, quiet=quiet)
    from caffeconv.emit.passes.pipeline import run_onnx_passes

    plain_model = lazy_model.materialize()
    model = run_onnx_passes(plain_model, model_options, notes)
    verification = None
    if forms.wants_verification:
        verification = _verify(request, loaded, LazyModel(model, {}), model_options, quiet=quiet)
    elif model_options.half and not quiet:
        from caffeconv.cli.show.verification import report_half
        from caffeconv.verify import deviations

        report_half(functools.partial(deviations, loaded, plain_model, model, model_options))
    return lazy_model if model_options.is_plain else LazyModel(model, {}), verification


def _verify(
    request: ModelRequest, loaded: Loaded, model: LazyModel, model_options: ModelOptions, *, quiet: bool
) -> Verification:
    """How the model compares; shown, and written where a report is wanted. Raises CaffeconvError where it is not right."""
    from caffeconv.cli.show.verification import not_right, show_verification, write_report
    from caffeconv.verify import verify

    forms, options = request.forms, request.options
    typical = forms.typical(request.net, options)
    verification = verify(loaded, model.model, model_options, options, typical=typical, engine=forms.verify_with)
    show_verification(verification, quiet=quiet)
    if forms.verify_report is not None:
        write_report(verification, forms.verify_report, (request.net, *request.weights), request.out)
    if not verification.ok:
        raise CaffeconvError(not_right(verification, request.out))
    return verification


def _verified(verification: Verification) -> dict[str, str]:
    from caffeconv.cli.show.verification import verified_metadata

    return verified_metadata(verification)


def _of_training(loaded: Loaded, request: ModelRequest) -> Iterator[Diagnostic]:
    """That the model computes a loss or an accuracy, from labels, where nobody asked for that."""
    inputs = {top for node in loaded.graph.nodes if node.layer.is_input for top in node.tops}
    labels, results = dict[str, None](), dict[str, None]()
    for node in loaded.graph.nodes:
        kinds = zip(node.tops, node.layer.top_kinds, strict=False)
        results |= dict.fromkeys(top for top, kind in kinds if kind in ("loss", "accuracy"))
        read = (node.bottoms[i] for i in node.layer.label_bottoms if i < len(node.bottoms))
        labels |= dict.fromkeys(label for label in read if label in inputs)
    if labels and results and not request.outputs:
        text = f"a net for training: the model takes {', '.join(labels)} and gives {', '.join(results)}"
        yield Diagnostic("warning", str(request.net), text, "To keep its predictions alone: `deploy=True`.")


def _describe(value: object) -> str:
    dims = value.type.tensor_type.shape.dim  # type: ignore[attr-defined]
    return f"{value.name}[{','.join(d.dim_param or str(d.dim_value) for d in dims)}]"  # type: ignore[attr-defined]
