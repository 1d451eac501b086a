"""The kernels of a net's first convolution as a picture: edges and blobs of colour in a net that has learnt."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from caffeconv.ir.layer import Node
from caffeconv.tensor.shape import FloatArray

MOST_KERNELS = 256
SIDE = 28
"""Pixels of a kernel's side, at least."""
PAPER = 255


def first_kernels(nodes: Sequence[Node]) -> tuple[str, str]:
    """Layer and picture (a data URI) of the first convolution over grey or coloured pictures; empty where there is none."""
    for node in nodes:
        has_window = bool(node.bottom_shapes) and node.layer.window_over(node.bottom_shapes[0]) is not None
        if not has_window or not node.params:
            continue
        weight = node.params[0]
        if len(weight.shape) != 4 or weight.shape[1] not in (1, 3) or min(weight.shape[2:]) < 2:
            return "", ""
        if weight.values is None or weight.is_filled:
            return "", ""
        values = np.concatenate([block.ravel() for block in weight.blocks()])
        if values.size != math.prod(weight.shape) or not np.isfinite(values).all():
            return "", ""
        return node.name, _as_uri(sheet(values.reshape(weight.shape)[:MOST_KERNELS]))
    return "", ""


def sheet(kernels: FloatArray) -> NDArray[np.uint8]:
    """A sheet of kernels, N×C×H×W → rows × columns × C, each from its least value to its greatest; blue first."""
    number, channels, height, width = kernels.shape
    factor = math.ceil(SIDE / max(height, width))
    columns = math.ceil(math.sqrt(number))
    rows = math.ceil(number / columns)
    tall, wide = height * factor + 2, width * factor + 2
    picture = np.full((rows * tall, columns * wide, channels), PAPER, np.uint8)
    for i, kernel in enumerate(kernels):
        low, high = float(kernel.min()), float(kernel.max())
        shade = ((kernel - low) / ((high - low) or 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
        top, left = (i // columns) * tall, (i % columns) * wide
        picture[top : top + tall - 2, left : left + wide - 2] = shade.repeat(factor, 0).repeat(factor, 1)
    return picture


def _as_uri(picture: NDArray[np.uint8]) -> str:
    import cv2

    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", picture)[1].tobytes()).decode()
