"""Weights that a net holds itself, so that nothing happens to it when somebody replaces the files that they came from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from caffeconv.conversion.load import Loaded
from caffeconv.tensor.param import Param
from caffeconv.tensor.param_values import ArrayValues


def with_copied_weights(loaded: Loaded) -> Loaded:
    """The net with copies of the weights that lie in mapped files; what fillers make is still made when needed."""
    nodes = tuple(
        replace(node, params=tuple(with_copied_values(param) for param in node.params))
        for node in loaded.bound.graph.nodes
    )
    return replace(loaded, bound=replace(loaded.bound, graph=replace(loaded.bound.graph, nodes=nodes)))


def with_copied_values(param: Param) -> Param:
    """The parameter with a copy of what lies in a mapped file."""
    if param.values is None or param.is_filled:
        return param
    return replace(param, values=ArrayValues(np.array(param.values.array(), np.float32)))
