"""JSON that may be anybody's: in a model's metadata, a journal, a hierarchy of classes."""

from __future__ import annotations

MALFORMED = (ValueError, TypeError, LookupError, OverflowError, RecursionError)
"""What reading it, and taking from it what should be there, raises where it is something else: no JSON, other types, members
that are not there, numbers beyond all sizes, nesting without end."""
