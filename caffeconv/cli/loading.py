"""Loads the net that a command line names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from caffeconv.errors import CaffeconvError
from caffeconv.frontend.options import NetOptions

if TYPE_CHECKING:
    from caffeconv.conversion.load import Loaded


def load_net(
    net: Path, weights: tuple[Path, ...], options: NetOptions, *, crop: tuple[int, int] | None = None
) -> Loaded:
    """The net with its weights; crop: height and width for its first input that takes pictures.

    Raises CaffeconvError as `caffeconv.convert.load`, and where no input takes pictures.
    """
    from caffeconv.conversion.load import load
    from caffeconv.frontend.reshape import input_shapes

    loaded = load(net, weights, options)
    if crop is None:
        return loaded
    for name, shape in input_shapes(loaded.graph).items():
        if len(shape) == 4:
            return load(net, weights, replace(options, shapes={**options.shapes, name: (*shape[:2], *crop)}))
    raise CaffeconvError("--crop: the net has no input of 4 axes")
