"""What goes wrong, as the exceptions that pycaffe raises: scripts catch these."""

from __future__ import annotations

from caffeconv.errors import CaffeconvError, InvalidNetError


class PycaffeValueError(CaffeconvError, ValueError):
    """Where pycaffe raises ValueError."""


class PycaffeRuntimeError(CaffeconvError, RuntimeError):
    """Where pycaffe raises RuntimeError."""


class PycaffeTypeError(CaffeconvError, TypeError):
    """Where pycaffe raises TypeError, or Boost's ArgumentError, which is one."""


class PycaffeAssertionError(CaffeconvError, AssertionError):
    """Where pycaffe raises AssertionError."""


class PycaffeNetError(InvalidNetError, RuntimeError):
    """A net that cannot be made. Caffe ends the process there, but for a Python layer's own errors: RuntimeError."""


class TrainingError(CaffeconvError, NotImplementedError):
    """Training is asked for."""
