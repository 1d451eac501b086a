"""caffeconv: Caffe models in, ONNX and Caffe's own numbers out."""

from __future__ import annotations

from caffeconv.convert import convert
from caffeconv.errors import CaffeconvError, Diagnostic, InvalidNetError
from caffeconv.version import __version__

__all__ = ["CaffeconvError", "Diagnostic", "InvalidNetError", "__version__", "convert"]
