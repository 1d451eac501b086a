"""A layer's parameters as a net that keeps channels last wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from caffeconv.tensor.shape import FloatArray, Shape

Fact = int | float | str | bool | list[int]


SPATIAL = {1: "W", 2: "H×W", 3: "D×H×W"}
"""What the spatial axes are called, by their number."""


@dataclass(frozen=True)
class Source:
    """A parameter blob of the caffemodel: whose it is, and what it is."""

    layer: str
    index: int
    name: str
    shape: Shape
    origin: str
    """The weights file, or the filler that made the values."""


@dataclass(frozen=True)
class WeightArray:
    """One array.

    parts: arrays or views whose values, each in C order, one after the other, are those of the array. They are made
    when they are asked for, so that nothing of a large file lies in memory for longer than it takes to write it.
    """

    name: str
    shape: Shape
    sources: tuple[Source, ...]
    transposition: str
    """What was done to Caffe's blob, as axes or sizes: ``O×I×H×W → H×W×I×O``."""
    parts: Callable[[], Iterable[FloatArray]]
    part_of: str = ""
    """Where Keras has two layers for Caffe's one: what the second one's name ends in."""


@dataclass(frozen=True)
class WeightArrays:
    """All arrays of a layer, in the order in which Keras keeps them, and what else whoever loads them has to know."""

    arrays: tuple[WeightArray, ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
