"""caffeconv: Caffe models in, ONNX and Caffe's own numbers out."""

from __future__ import annotations

from caffeconv import ops
from caffeconv.convert import convert
from caffeconv.emit.form import Preprocess
from caffeconv.errors import CaffeconvError, Diagnostic, InvalidNetError
from caffeconv.layers import register_layer
from caffeconv.make_h import make_h
from caffeconv.net import Net
from caffeconv.report import Report, inspect
from caffeconv.version import __version__

__all__ = [
    "CaffeconvError", "Diagnostic", "InvalidNetError", "Net", "Preprocess", "Report", "__version__", "convert", "inspect",
    "make_h", "ops", "register_layer",
]  # fmt: skip
