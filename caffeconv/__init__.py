"""caffeconv: Caffe models in, ONNX and Caffe's own numbers out."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # typing's, which takes a while to import: until `__main__` is there, Ctrl-C ends in a traceback

if TYPE_CHECKING:
    import caffeconv.ops as ops
    from caffeconv.conversion.convert import convert, convert_to
    from caffeconv.emit.metadata import Preprocess
    from caffeconv.errors import CaffeconvError, CaffeconvWarning, Diagnostic, InvalidNetError
    from caffeconv.infogain.writing import make_h
    from caffeconv.inspection.report import Report, inspect
    from caffeconv.layers import register_layer
    from caffeconv.net.net import Net
    from caffeconv.quantization.int8 import quantize
    from caffeconv.version import __version__

__all__ = [
    "CaffeconvError", "CaffeconvWarning", "Diagnostic", "InvalidNetError", "Net", "Preprocess", "Report", "__version__",
    "convert", "convert_to", "inspect", "make_h", "ops", "quantize", "register_layer",
]  # fmt: skip

_LATER = {
    **dict.fromkeys(("CaffeconvError", "CaffeconvWarning", "Diagnostic", "InvalidNetError"), "caffeconv.errors"),
    "Net": "caffeconv.net.net",
    "Preprocess": "caffeconv.emit.metadata",
    "Report": "caffeconv.inspection.report",
    "convert": "caffeconv.conversion.convert",
    "convert_to": "caffeconv.conversion.convert",
    "inspect": "caffeconv.inspection.report",
    "make_h": "caffeconv.infogain.writing",
    "quantize": "caffeconv.quantization.int8",
    "register_layer": "caffeconv.layers",
    "__version__": "caffeconv.version",
}
"""What is imported when it is asked for: all layers and messages are most of a short command's time."""
_DOORS = ("caffe_pb2", "infogain", "layers", "ops", "pycaffe")
"""Packages that users reach through this one."""


def __getattr__(name: str) -> object:
    if name in _LATER:
        value: object = getattr(importlib.import_module(_LATER[name]), name)
    elif name in _DOORS:
        value = importlib.import_module(f"caffeconv.{name}")
    else:
        raise AttributeError(f"module 'caffeconv' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_DOORS, *(name for name in globals() if name.startswith("__"))})
