"""Says where weights have gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caffeconv.errors import Diagnostic

if TYPE_CHECKING:
    from caffeconv.emit.onnx_writer import Tensor, Written
    from caffeconv.ir.graph import Graph


def report_lines(written: Written, *, automatic: bool, verbose: bool) -> Iterator[str]:
    """What a user should know: always which other files the model needs, and on `-v` which tensors lie where."""
    if written.data is not None:
        why = "; one ONNX file holds at most 2 GiB" if automatic else ""
        yield f"{written.data.location} ({written.data.bytes / 1e6:.2f} MB) belongs to the model: keep both together{why}"
    if written.linked:
        paths = ", ".join(sorted({str(t.stored.path) for t in written.linked if t.stored is not None}))
        yield f"{_sum(written.linked)} in {paths} belong to the model: leave that in its place, and as it is"
    elif written.storage == "link":
        yield "nothing to link to: no weights are stored as ONNX wants them"
    if verbose:
        yield from _tensor_lines("beside the model", written.apart)
        if written.linked:
            yield from _tensor_lines("copied into the model", written.inside)


def saved_summary(graph: Graph) -> str:
    """How many parameters of how many layers were saved."""
    layers = [node for node in graph.nodes if node.params]
    return f"{sum(len(node.params) for node in layers)} parameters of {len(layers)} layers"


def non_finite_remarks(path: Path, numbers: Mapping[str, int]) -> Iterator[Diagnostic]:
    """That what was written holds values that are no numbers, once for all tensors (name → how many)."""
    if not numbers:
        return
    first, *others = numbers
    also = f" and {len(others)} other tensors" if others else ""
    text = f"{first}{also}: {sum(numbers.values())} values are NaN or infinite, and so is what comes of them"
    yield Diagnostic("warning", str(path), text, "The training diverged, or the weights file is damaged.")


def _sum(tensors: Sequence[Tensor]) -> str:
    return f"{len(tensors)} tensors, {sum(tensor.bytes for tensor in tensors) / 1e6:.2f} MB,"


def _tensor_lines(where: str, tensors: Sequence[Tensor]) -> Iterator[str]:
    for source in dict.fromkeys(tensor.source for tensor in tensors):
        group = [tensor for tensor in tensors if tensor.source == source]
        yield f"{where} ({source}): {_sum(group)} {' '.join(tensor.proto.name for tensor in group)}"
