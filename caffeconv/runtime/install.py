"""The onnxruntime that is installed: which one, what it can do, and what it lacks."""

from __future__ import annotations

import importlib.metadata
import warnings
from types import ModuleType

from caffeconv.errors import CaffeconvError, CaffeconvWarning
from caffeconv.runtime.cuda import missing_gpu
from caffeconv.runtime.providers import (
    CPU,
    CUDA,
    Provider,
    parse_provider,
)  # fmt: skip


def import_onnxruntime() -> ModuleType:
    """The module; CaffeconvError says how to install it where it is missing, or where two copies broke each other."""
    try:
        import onnxruntime
    except ImportError as error:
        raise CaffeconvError(
            f"onnxruntime cannot be imported ({error}); it is needed to run nets. "
            "Install one: pip install 'caffeconv[cpu]', or for an NVIDIA GPU: pip install 'caffeconv[gpu]'"
        ) from None
    if not hasattr(onnxruntime, "InferenceSession"):
        raise CaffeconvError(f"onnxruntime is broken.{both_installed() or ' Install it again.'}")
    if both := both_installed():
        warnings.warn(both.strip(), CaffeconvWarning, stacklevel=2)
    module: ModuleType = onnxruntime
    return module


def both_installed() -> str:
    """What to do where onnxruntime and onnxruntime-gpu, which overwrite each other's files, are both installed."""
    distributions = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if len(distributions) < 2:
        return ""
    return (
        " onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files. Keep one: "
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu (or onnxruntime)"
    )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def choose_providers(provider: Provider, ort: ModuleType) -> list[str]:
    """onnxruntime's provider names, first choice first; CaffeconvError where CUDA is requested and missing."""
    device = parse_provider(provider)
    if device.kind == "cpu":
        return [CPU]
    reason = missing_cuda(ort, device.index)
    if reason and device.kind == "cuda":
        raise CaffeconvError(f"`provider={provider!r}`: {reason}")
    return [CPU] if reason else [CUDA, CPU]


def check_half(provider: Provider) -> None:
    """Raises CaffeconvError where the CPU would compute, which does half precision by way of float32."""
    if choose_providers(provider, import_onnxruntime())[0] != CUDA:
        raise CaffeconvError(
            "`half=True` is for CUDA: on the CPU onnxruntime turns half precision into float32 and back, which is slower and "
            "no more exact. Leave `half=True` out, or see `caffeconv.convert(half=True)` for a model of half the size"
        )


def missing_cuda(ort: ModuleType, index: int | None) -> str:
    """What keeps a net from running on the GPU of that number, and what to do; empty where nothing is known to."""
    if has_cuda(ort):
        return missing_gpu(index)
    return (
        f"this onnxruntime {_version('onnxruntime') or _version('onnxruntime-gpu')} has no CUDA provider "
        f"(it has {', '.join(ort.get_available_providers())}).{both_installed()} Install the GPU build: "
        "pip uninstall -y onnxruntime && pip install 'caffeconv[gpu]'"
    )


def has_cuda(ort: ModuleType) -> bool:
    return CUDA in ort.get_available_providers()
