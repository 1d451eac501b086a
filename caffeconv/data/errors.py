"""What goes wrong with sources, where the difference matters to the caller."""

from __future__ import annotations

from caffeconv.errors import CaffeconvError


class SourceUnavailableError(CaffeconvError):
    """A source is not there, or what reads it is not installed: nothing can be said about its content."""
