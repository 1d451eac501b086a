"""Models that were just converted, on onnxruntime as the caller wants them to compute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from caffeconv.runtime.install import check_half
from caffeconv.runtime.providers import ComputeOptions
from caffeconv.runtime.session import Session, SessionModel

if TYPE_CHECKING:
    from caffeconv.emit.lazy_model import LazyModel
    from caffeconv.python_layers.host import PythonLayerHost


def open_session(
    model: LazyModel | Path, compute: ComputeOptions, *, python_host: PythonLayerHost | None = None,
    profile_to: Path | None = None,
) -> Session:  # fmt: skip
    """A session of a model, or of an ONNX file; a LazyModel's parameters stay where they lie in memory, of any size.

    python_host, profile_to: see Session. Raises CaffeconvError as Session does, and for half precision on the CPU.
    """
    return Session(
        finish_model(model, compute), compute.provider, compute.threads, python_host=python_host, nhwc=compute.nhwc,
        needs_cuda=compute.half, profile_to=profile_to,
    )  # fmt: skip


def finish_model(model: LazyModel | Path, compute: ComputeOptions) -> SessionModel:
    """The model as a session takes it, in half precision where that is wanted.

    Raises CaffeconvError for half precision on the CPU.
    """
    if compute.half:
        from caffeconv.conversion.half_precision import to_half_precision

        check_half(compute.provider)
        return to_half_precision(model)
    if isinstance(model, Path):
        return model
    from caffeconv.runtime.shared_initializers import share_initializers

    return share_initializers(model)
