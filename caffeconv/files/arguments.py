"""What callers hand over from Python, checked: the error names the argument as they write it."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from caffeconv.errors import CaffeconvError


def one_of(argument: str, value: object, choices: Sequence[str]) -> str:
    """The choice that `value` names, in upper or lower case; CaffeconvError for anything else."""
    by_lower_case = {choice.lower(): choice for choice in choices}
    if isinstance(value, str) and value.lower() in by_lower_case:
        return by_lower_case[value.lower()]
    *first, last = map(repr, choices)
    raise CaffeconvError(f"`{argument}={value!r}`: {', '.join(first)} or {last} was needed")


def whole_number(argument: str, value: object, least: int = 0) -> int:
    """`value` as an int; CaffeconvError for anything that is no whole number, or that is below `least`."""
    try:
        number = operator.index(value)  # type: ignore[arg-type] # what is none raises
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise CaffeconvError(f"`{argument}={value!r}`: a whole number, at least {least}, was needed")
    return number


def truth(argument: str, value: object) -> bool:
    """`value` as a bool; CaffeconvError for anything but True and False, such as 'yes', which Python takes for true."""
    if value is True or value is False:
        return value
    raise CaffeconvError(f"`{argument}={value!r}`: True or False was needed")


def names(argument: str, value: object) -> tuple[str, ...]:
    """Several names, or one that stands alone; CaffeconvError for anything else."""
    if isinstance(value, str):
        return (value,)
    items = tuple(value) if isinstance(value, (Sequence, set, frozenset)) or hasattr(value, "__iter__") else (None,)
    if not all(isinstance(item, str) for item in items):
        raise CaffeconvError(f"`{argument}={value!r}`: a name or a list of names was needed")
    return items


def path(argument: str, value: object) -> Path:
    """`value` as a path; CaffeconvError for what is none."""
    if not isinstance(value, (str, os.PathLike)):
        raise CaffeconvError(f"`{argument}={value!r}`: a path was needed")
    return Path(os.fspath(value))


def shapes(argument: str, value: object) -> dict[str, tuple[int, ...]]:
    """Blob → sizes; CaffeconvError where a shape is no list of whole numbers."""
    if not isinstance(value, Mapping):
        raise CaffeconvError(
            f"`{argument}={value!r}`: a dict of blobs and shapes was needed, such as {{'data': (1, 3, 224, 224)}}"
        )
    sizes: dict[str, tuple[int, ...]] = {}
    for blob, shape in value.items():
        try:
            sizes[blob] = tuple(operator.index(size) for size in shape)
        except TypeError:
            raise CaffeconvError(
                f"`{argument}={ {blob: shape} }`: sizes as whole numbers were needed, such as (1, 3, 224, 224)"
            ) from None
    return sizes
