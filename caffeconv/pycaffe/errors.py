"""What goes wrong, as the exceptions that pycaffe raises: scripts catch these."""

from __future__ import annotations

from caffeconv.errors import CaffeconvError


class PycaffeValueError(CaffeconvError, ValueError):
    """Where pycaffe raises ValueError."""


class PycaffeRuntimeError(CaffeconvError, RuntimeError):
    """Where pycaffe raises RuntimeError."""


class PycaffeTypeError(CaffeconvError, TypeError):
    """Where pycaffe raises TypeError, or Boost's ArgumentError, which is one."""


class TrainingError(CaffeconvError, NotImplementedError):
    """Training is asked for."""
