"""Where nets that are made from now on compute, and what they draw at random from (caffe: common.cpp).

pycaffe says this once for the whole process, so it is kept for the whole process here too.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from caffeconv.errors import CaffeconvWarning

if TYPE_CHECKING:
    from caffeconv.runtime.providers import Provider


@dataclass(frozen=True)
class Mode:
    """What a net is made with."""

    kind: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, where a script says nothing: CUDA if onnxruntime has it, while Caffe needs `set_mode_gpu`."""
    device: int = 0
    """Which GPU, from 0."""
    seed: int = 0

    @property
    def provider(self) -> Provider:
        """As `caffeconv.Net` takes it."""
        return f"cuda:{self.device}" if self.kind == "cuda" and self.device else self.kind


class _Process:
    def __init__(self) -> None:
        self.mode = Mode()


_PROCESS = _Process()


def current() -> Mode:
    """What has been set last."""
    return _PROCESS.mode


def set_mode_cpu() -> None:
    """Nets made from now on compute on the CPU."""
    _PROCESS.mode = replace(_PROCESS.mode, kind="cpu")


def set_mode_gpu() -> None:
    """Nets made from now on compute with CUDA; where it is not to be had, on the CPU, with a CaffeconvWarning."""
    from caffeconv.runtime.install import import_onnxruntime, missing_cuda

    reason = missing_cuda(import_onnxruntime(), None)
    if reason:
        warnings.warn(f"set_mode_gpu(): nets compute on the CPU, as {reason}", CaffeconvWarning, stacklevel=2)
    _PROCESS.mode = replace(_PROCESS.mode, kind="cpu" if reason else "cuda")


def set_device(device_id: int) -> None:
    """Nets made from now on compute on that GPU, from 0, wherever they compute on one (see `set_mode_gpu`)."""
    _PROCESS.mode = replace(_PROCESS.mode, device=int(device_id))


def set_random_seed(seed: int) -> None:
    """Fillers and data layers of nets made from now on draw from this seed."""
    _PROCESS.mode = replace(_PROCESS.mode, seed=int(seed))
