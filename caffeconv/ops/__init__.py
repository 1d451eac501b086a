"""The custom-op library: fused kernels for the operators of domain ``caffeconv``.

Pass :func:`library_path` to ``onnxruntime.SessionOptions.register_custom_ops_library``. Models run without it too: each
carries the operators it uses as model-local functions in standard ONNX (``functions.py``).
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from caffeconv.errors import CaffeconvError

__all__ = ["cuda_library_path", "has_training_ops", "library_path"]

_PREFIX, _SUFFIX = {"win32": ("", ".dll"), "darwin": ("lib", ".dylib")}.get(sys.platform, ("lib", ".so"))


def _find(name: str) -> Path | None:
    # An editable install has two folders: the sources, and site-packages with the library.
    candidates = (Path(folder) / f"{_PREFIX}{name}{_SUFFIX}" for folder in __path__)
    return next((path.resolve() for path in candidates if path.is_file()), None)


def library_path() -> str:
    """Absolute path of the library with the CPU kernels; needs onnxruntime 1.17 or later.

    Raises CaffeconvError where it was not built, as in a source tree that was never installed.
    """
    path = _find("caffeconv_ops")
    if path is None:
        raise CaffeconvError(
            f"the custom-op library {_PREFIX}caffeconv_ops{_SUFFIX} is not in {', '.join(__path__)}; it is built when "
            "caffeconv is installed. Run `pip install .` in the source tree, and start Python from another folder"
        )
    return str(path)


def has_training_ops() -> bool:
    """Whether the library is there and has the operators of training.h."""
    path = _find("caffeconv_ops")
    version = None if path is None else getattr(ctypes.CDLL(str(path)), "caffeconv_has_training_ops", None)
    return version is not None and version() >= 2


def cuda_library_path() -> str | None:
    """Absolute path of the library with CPU and CUDA kernels, or None where no CUDA toolkit was found at build time.

    A session registers this one instead of :func:`library_path`, not both.
    """
    path = _find("caffeconv_ops_cuda")
    return None if path is None else str(path)
