"""What callers hand over from Python, checked: the error names the argument as they write it."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from caffeconv.errors import CaffeconvError


def one_of(argument: str, value: object, choices: Sequence[str]) -> str:
    """The choice that `value` names, in upper or lower case; CaffeconvError for anything else."""
    by_lower_case = {choice.lower(): choice for choice in choices}
    if isinstance(value, str) and value.lower() in by_lower_case:
        return by_lower_case[value.lower()]
    *first, last = map(repr, choices)
    raise CaffeconvError(f"`{argument}={value!r}`: {', '.join(first)} or {last} was needed")


def whole_number(argument: str, value: object, least: int = 0, most: int = (1 << 63) - 1) -> int:
    """`value` as an int; CaffeconvError for anything that is no whole number, or outside `least` to `most`."""
    try:
        number = operator.index(value)  # type: ignore[arg-type] # what is none raises
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise CaffeconvError(f"`{argument}={value!r}`: a whole number, at least {least}, was needed")
    if number > most:
        raise CaffeconvError(f"`{argument}={value!r}`: a whole number, at most {most}, was needed")
    return number


def number(argument: str, value: object) -> float:
    """`value` as a float; CaffeconvError for what is no number, and for those that are not finite."""
    try:
        real = float(value) if not isinstance(value, (str, bytes)) else math.nan  # type: ignore[arg-type] # as above
    except (TypeError, ValueError, OverflowError):
        real = math.nan
    if not math.isfinite(real):
        raise CaffeconvError(f"`{argument}={value!r}`: a finite number was needed")
    return real


def truth(argument: str, value: object) -> bool:
    """`value` as a bool; CaffeconvError for anything but True and False, such as 'yes', which Python takes for true."""
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):  # numpy's too
        return bool(value)
    raise CaffeconvError(f"`{argument}={value!r}`: True or False was needed")


def names(argument: str, value: object) -> tuple[str, ...]:
    """Several names, or one that stands alone; CaffeconvError for anything else."""
    if isinstance(value, str):
        return (value,)
    items = tuple(value) if isinstance(value, Iterable) and not isinstance(value, Mapping) else (None,)
    if not all(isinstance(item, str) for item in items):
        raise CaffeconvError(f"`{argument}={value!r}`: a name or a list of names was needed")
    return items


def name(argument: str, value: object) -> str:
    """`value` as one name; CaffeconvError for anything but a string."""
    if not isinstance(value, str):
        raise CaffeconvError(f"`{argument}={value!r}`: a name was needed")
    return value


Function = TypeVar("Function", bound=Callable[..., object])


def function(argument: str, value: Function) -> Function:
    """`value` where it can be called; CaffeconvError for anything else."""
    if not callable(value):
        raise CaffeconvError(f"`{argument}={value!r}`: a function was needed")
    return value


def path(argument: str, value: object) -> Path:
    """`value` as a path; CaffeconvError for what is none."""
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else b""
    if not isinstance(text, str):
        raise CaffeconvError(f"`{argument}={value!r}`: a path was needed")
    return Path(text)


def shapes(argument: str, value: object) -> dict[str, tuple[int, ...]]:
    """Blob → sizes; CaffeconvError where a shape is no list of whole numbers."""
    if not isinstance(value, Mapping):
        raise CaffeconvError(
            f"`{argument}={value!r}`: a dict of blobs and shapes was needed, such as {{'data': (1, 3, 224, 224)}}"
        )
    sizes: dict[str, tuple[int, ...]] = {}
    for blob, shape in value.items():
        try:
            if isinstance(shape, (str, bytes, Mapping)):
                raise TypeError
            sizes[blob] = tuple(operator.index(size) for size in shape)
        except TypeError:
            raise CaffeconvError(
                f"`{argument}={ {blob: shape} }`: sizes as whole numbers were needed, such as (1, 3, 224, 224)"
            ) from None
    return sizes
