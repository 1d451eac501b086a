"""CUDA on this machine: its driver and GPUs, and the libraries that onnxruntime's CUDA provider loads."""

from __future__ import annotations

import ctypes
import io
import sys
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from types import ModuleType

_WINDOWS = sys.platform == "win32"
_DRIVER = "nvcuda.dll" if _WINDOWS else "libcuda.so.1"
_PROVIDER = "onnxruntime_providers_cuda.dll" if _WINDOWS else "libonnxruntime_providers_cuda.so"
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


def missing_gpu(index: int | None) -> str:
    """Why nothing can be computed on the GPU of that number (None: on any), in words; empty where nothing is missing.

    Asks the driver itself, since onnxruntime says so only on standard error, after it has begun.
    """
    try:
        driver = ctypes.CDLL(_DRIVER)
        status = driver.cuInit(0)
        count = ctypes.c_int(0)
        status = status or driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return f"this machine has no NVIDIA driver ({_DRIVER} is not there)"
    if status == _NO_DEVICE or (not status and count.value == 0):
        return "the NVIDIA driver finds no GPU (does nvidia-smi list one, and does CUDA_VISIBLE_DEVICES hide it?)"
    if status:
        return f"the NVIDIA driver does not start (CUDA error {status}); see what nvidia-smi says"
    if index is not None and index >= count.value:
        return f"there is no GPU {index}: the driver finds {count.value}, counted from 0"
    return ""


@cache
def load_libraries(ort: ModuleType) -> None:
    """Loads CUDA and cuDNN from the pip packages that hold them, where they are; onnxruntime does not look there itself.

    Once is enough for all sessions.
    """
    if hasattr(ort, "preload_dlls"):  # onnxruntime 1.21
        with redirect_stdout(io.StringIO()):  # what it misses there may lie elsewhere
            ort.preload_dlls()


def why_not_started(ort: ModuleType) -> str:
    """Which library is missing, after onnxruntime could not start CUDA on a GPU that is there."""
    try:
        # not before onnxruntime has tried: it must be the one that loads this library first
        ctypes.CDLL(str(Path(ort.__file__ or "").parent / "capi" / _PROVIDER))
    except OSError as error:
        return (
            f"{error}. Its version of CUDA and cuDNN is needed, from pip: "
            "pip install 'onnxruntime-gpu[cuda,cudnn]', or from the system, on the library path"
        )
    return "see that the driver (nvidia-smi), CUDA and cuDNN are of the versions that onnxruntime-gpu needs"
