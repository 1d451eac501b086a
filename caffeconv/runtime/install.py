"""The onnxruntime that is installed: which one, what it can do, and what it lacks."""

from __future__ import annotations

import importlib.metadata
import warnings
from dataclasses import replace
from types import ModuleType

from caffeconv.errors import CaffeconvError, CaffeconvWarning
from caffeconv.runtime.cuda import missing_gpu
from caffeconv.runtime.providers import (
    CPU,
    CUDA,
    OPENVINO,
    ComputeOptions,
    Provider,
    parse_provider,
)  # fmt: skip

DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
"""The builds of onnxruntime, all of which are the module `onnxruntime`."""


def import_onnxruntime() -> ModuleType:
    """The module; CaffeconvError says how to install it where it is missing, or where two copies broke each other."""
    try:
        import onnxruntime
    except ImportError as error:
        raise CaffeconvError(
            f"onnxruntime cannot be imported ({error}); it is needed to run nets. "
            "Install one: pip install 'caffeconv[cpu]', or for an NVIDIA GPU: pip install 'caffeconv[gpu]', or with OpenVINO: "
            "pip install 'caffeconv[openvino]'"
        ) from None
    if not hasattr(onnxruntime, "InferenceSession"):
        raise CaffeconvError(f"onnxruntime is broken.{both_installed() or ' Install it again.'}")
    if both := both_installed():
        warnings.warn(both.strip(), CaffeconvWarning, stacklevel=2)
    module: ModuleType = onnxruntime
    return module


def both_installed() -> str:
    """What to do where several builds of onnxruntime, which overwrite each other's files, are installed."""
    installed = list(_installed())
    if len(installed) < 2:
        return ""
    names = f"{', '.join(installed[:-1])} and {installed[-1]}"
    return (
        f" {names} are {'both' if len(installed) == 2 else 'all'} installed and overwrite each other's files. Keep one: "
        f"pip uninstall -y {' '.join(installed)} && pip install {installed[-1]} (or {' or '.join(installed[:-1])})"
    )


def _installed() -> dict[str, str]:
    """The builds of onnxruntime that are installed → their versions."""
    return {name: version for name in DISTRIBUTIONS if (version := _version(name))}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def choose_providers(provider: Provider, ort: ModuleType) -> list[str]:
    """onnxruntime's provider names, first choice first; CaffeconvError where one is requested and missing."""
    device = parse_provider(provider)
    if device.kind == "cpu":
        return [CPU]
    if device.kind == "openvino":
        if not _has(ort, OPENVINO):
            raise CaffeconvError(f"`provider={provider!r}`: {_missing(ort, 'OpenVINO', 'openvino')}")
        return [OPENVINO, CPU]
    reason = missing_cuda(ort, device.index)
    if reason and device.kind == "cuda":
        raise CaffeconvError(f"`provider={provider!r}`: {reason}")
    if not reason:
        return [CUDA, CPU]
    return [OPENVINO, CPU] if _has(ort, OPENVINO) else [CPU]


def for_gradients(compute: ComputeOptions) -> ComputeOptions:
    """How models with gradients compute: in float32, and with onnxruntime's own kernels in place of OpenVINO."""
    uses_openvino = choose_providers(compute.provider, import_onnxruntime())[0] == OPENVINO
    return replace(compute, half=False, provider="cpu" if uses_openvino else compute.provider)


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
    return _missing(ort, "CUDA", "gpu")


def has_cuda(ort: ModuleType) -> bool:
    return _has(ort, CUDA)


def _has(ort: ModuleType, name: str) -> bool:
    return name in ort.get_available_providers()


def _missing(ort: ModuleType, title: str, extra: str) -> str:
    """That this onnxruntime lacks a provider, and how to install the build that has it."""
    installed = _installed() or {"onnxruntime": ""}
    return (
        f"this onnxruntime {next(iter(installed.values()))} has no {title} provider "
        f"(it has {', '.join(ort.get_available_providers())}).{both_installed()} Install the build that has it: "
        f"pip uninstall -y {' '.join(installed)} && pip install 'caffeconv[{extra}]'"
    )
