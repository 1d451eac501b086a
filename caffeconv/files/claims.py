"""What a file says that it holds, against the bytes that it has for it."""

from __future__ import annotations

from caffeconv.errors import CaffeconvError

LARGE = 1 << 28
"""Bytes from which on values must not be packed more densely than DENSEST."""
DENSEST = 100


def refuse_bomb(claimed: int, stored: int, where: object) -> None:
    """Raises CaffeconvError for so many bytes of values out of so few bytes stored that only repetition can explain it."""
    if claimed > LARGE and claimed > DENSEST * stored:
        raise CaffeconvError(
            f"{where}: {claimed} bytes of values packed into {stored}; what is that large has to be stored in at least "
            f"{claimed // DENSEST}. Save it without compression"
        )
