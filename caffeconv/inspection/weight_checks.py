"""Looks at the values of parameters: numbers that are none, infinite ones, parameters that are all zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from caffeconv.errors import Diagnostic
from caffeconv.ir.layer import Node
from caffeconv.tensor.param import Param

MAY_BE_ZERO = frozenset(("bias", "mean"))


def check_values(nodes: Sequence[Node]) -> Iterator[Diagnostic]:
    """What is odd about the values that weights files give: errors for NaN and ∞, warnings for what is all zero."""
    for node in nodes:
        for i, param in enumerate(node.params):
            if param.owner is None and param.values is not None and not param.is_filled:
                yield from _check(node, i, param)


def _check(node: Node, index: int, param: Param) -> Iterator[Diagnostic]:
    values = param.array()
    where = f"{node.definition.where} in {param.source}"
    finite = np.isfinite(values)
    if not finite.all():
        nan = int(np.isnan(values).sum())
        infinite = values.size - int(finite.sum()) - nan
        place = tuple(int(i) for i in np.argwhere(~finite)[0])
        message = (
            f"param {index} ({param.name}) holds {nan} NaN and {infinite} infinite values of {values.size}, "
            f"the first at {list(place)}"
        )
        hint = "The training diverged, or the file is damaged; nothing that comes after this layer means anything."
        yield Diagnostic("error", where, message, hint, node.name)
    elif values.size and not values.any() and param.name not in MAY_BE_ZERO:
        message = f"param {index} ({param.name}) is all zero"
        yield Diagnostic("warning", where, message, "Was this layer ever trained?", node.name)
    elif param.name == "variance" and values.size and float(values.min()) < 0:
        message = f"param {index} (variance) holds negative values, down to {float(values.min()):g}"
        yield Diagnostic("error", where, message, "A variance is at least 0; the file is damaged.", node.name)
