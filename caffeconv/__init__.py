"""caffeconv: Caffe models in, ONNX and Caffe's own numbers out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from caffeconv import ops
from caffeconv.conversion.convert import convert, convert_to
from caffeconv.emit.metadata import Preprocess
from caffeconv.errors import CaffeconvError, CaffeconvWarning, Diagnostic, InvalidNetError
from caffeconv.infogain.writing import make_h
from caffeconv.layers import register_layer
from caffeconv.version import __version__

if TYPE_CHECKING:
    from caffeconv.inspection.report import Report, inspect
    from caffeconv.net.net import Net

__all__ = [
    "CaffeconvError", "CaffeconvWarning", "Diagnostic", "InvalidNetError", "Net", "Preprocess", "Report", "__version__",
    "convert", "convert_to", "inspect", "make_h", "ops", "register_layer",
]  # fmt: skip

_LATER = {
    "Net": "caffeconv.net.net",
    "Report": "caffeconv.inspection.report",
    "inspect": "caffeconv.inspection.report",
}


def __getattr__(name: str) -> object:
    """Imports what converting does not need when it is asked for: that is a tenth of a conversion's time."""
    if name not in _LATER:
        raise AttributeError(f"module 'caffeconv' has no attribute '{name}'")
    return getattr(importlib.import_module(_LATER[name]), name)
