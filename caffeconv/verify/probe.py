"""Inputs to try a model with: drawn at random from a seed, but such as the net might be given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caffeconv.emit.metadata import Preprocess
from caffeconv.emit.precision import float32_values
from caffeconv.ir.graph import Graph
from caffeconv.tensor.shape import FloatArray, Shape

SEED = 20140619
PIXELS_A_BLOCK = 16


@dataclass(frozen=True)
class Probe:
    """The same inputs twice.

    net: what Caffe would be given, in its own axis order, float32. model: what the converted model is given instead of
    some of these: uint8 pictures, N×C×H×W, channels in the order that the model wants them.
    """

    net: Mapping[str, FloatArray]
    model: Mapping[str, NDArray[np.uint8]]


def probe(graph: Graph, preprocess: Preprocess | None = None, *, typical: Preprocess | None = None) -> Probe:
    """Inputs for a graph of fixed shapes, the same ones each time.

    Pictures (N×1×H×W, N×3×H×W) are coarse patches with noise, 0…255, of the size that `preprocess` takes and prepared as
    it says; as `typical` says, which is what the net's own data layer does, where the model itself does nothing. Labels
    are such as the layers that read them take; everything else is normally distributed.
    """
    random = np.random.default_rng(SEED)
    exact = float32_values(graph)
    net: dict[str, FloatArray] = {}
    model: dict[str, NDArray[np.uint8]] = {}
    for name in graph.inputs:
        shape = graph.shapes[name]
        values = _example_values(graph, name, random)
        if values is not None:
            net[name] = values
        elif name in exact:
            net[name] = random.integers(0, 2, shape).astype(np.float32)
        elif len(shape) != 4 or (shape[1] not in (1, 3) and (preprocess is None or preprocess.input != name)):
            net[name] = random.standard_normal(shape).astype(np.float32)
        else:
            preparation = next(
                (p for p in (preprocess, typical) if p is not None and p.input in (None, name)), Preprocess()
            )
            images = _random_images((shape[0], shape[1], *_size(preparation, shape)), random)
            net[name] = prepared(images, preparation, shape)
            if preparation is preprocess:
                model[name] = images
    return Probe(net, model)


def prepared(images: NDArray[np.uint8], preprocess: Preprocess, shape: Shape) -> FloatArray:
    """N×C×H×W of `shape`: (centre crop - mean) · scale, channels in the net's order (caffe: data_transformer.cpp)."""
    if shape[1] == 3 and (preprocess.pictures == "rgb") != preprocess.rgb:
        images = images[:, ::-1]
    top, left = ((size - crop_size) // 2 for size, crop_size in zip(images.shape[2:], shape[2:], strict=True))
    crop = np.s_[..., top : top + shape[2], left : left + shape[3]]
    values = images[crop].astype(np.float32)
    if preprocess.mean is not None:
        mean = preprocess.mean if preprocess.mean.ndim == 3 else preprocess.mean.reshape(-1, 1, 1)
        values = values - (mean if mean.shape[1:] == (1, 1) else mean[crop])
    return np.asarray(values * np.float32(preprocess.scale), np.float32)


def _size(preprocess: Preprocess, shape: Shape) -> tuple[int, int]:
    """Height and width of the pictures before the crop."""
    of_mean = preprocess.mean.shape[1:] if preprocess.mean is not None and preprocess.mean.ndim == 3 else (1, 1)
    return preprocess.size or ((of_mean[0], of_mean[1]) if of_mean != (1, 1) else (shape[2], shape[3]))


def _random_images(shape: Shape, random: np.random.Generator) -> NDArray[np.uint8]:
    number, channels, height, width = shape
    blocks = (-(-height // PIXELS_A_BLOCK), -(-width // PIXELS_A_BLOCK))
    coarse = random.integers(0, 256, (number, channels, *blocks))
    patches = coarse.repeat(PIXELS_A_BLOCK, axis=2).repeat(PIXELS_A_BLOCK, axis=3)[:, :, :height, :width]
    noise = random.integers(0, 256, shape)
    return ((3 * patches + noise) // 4).astype(np.uint8)


def _example_values(graph: Graph, value: str, random: np.random.Generator) -> FloatArray | None:
    """Values that the layers which read an input take, where they say so."""
    shape = graph.shapes[value]
    for node in graph.nodes:
        for rule in node.layer.label_rules(node):
            if node.bottoms[rule.bottom] == value:
                return random.integers(0, max(rule.classes, 1), shape).astype(np.float32)
        for i, bottom in enumerate(node.bottoms):
            example = node.layer.example(i, node.bottom_shapes, random) if bottom == value else None
            if example is not None:
                return example
    return None
