"""Loads the net that a command line names."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from caffeconv.cli.options.net import NetOptions
from caffeconv.errors import CaffeconvError

if TYPE_CHECKING:
    from caffeconv.conversion.load import Loaded


def load_net(
    net: Path, weights: tuple[Path, ...], options: NetOptions, *, seed: int = 0, fully_convolutional: bool = False,
    crop: tuple[int, int] | None = None,
) -> Loaded:  # fmt: skip
    """The net with its weights; crop: height and width for its first input that takes pictures.

    Raises CaffeconvError as `caffeconv.convert.load`, and where no input takes pictures.
    """
    from caffeconv.conversion.load import load
    from caffeconv.frontend.reshape import input_shapes

    read = functools.partial(
        load, net, weights, state=options.state, seed=seed, ignore_unknown_fields=options.ignore_unknown_fields,
        fully_convolutional=fully_convolutional,
    )  # fmt: skip
    loaded = read(shapes=options.shapes)
    if crop is None:
        return loaded
    for name, shape in input_shapes(loaded.graph).items():
        if len(shape) == 4:
            return read(shapes={**options.shapes, name: (*shape[:2], *crop)})
    raise CaffeconvError("--crop: the net has no input of 4 axes")
