"""The data that flows through the stages: layer definitions, nodes with shapes, graphs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from caffeconv.caffe_pb2 import LayerParameter
    from caffeconv.layers.base import Layer
    from caffeconv.user_code import UserCode

Shape = tuple[int, ...]
Shapes = Sequence[Shape]
Dims = tuple[int | None, ...]
"""A shape in which an axis that varies with the batch, or follows from values, is None."""
BATCH = "batch"
"""The name of the first input's batch axis."""
Phase = Literal["TRAIN", "TEST"]
Infogain = Literal["logits", "probabilities"]
"""What InfogainLoss layers are given: scores, as in Caffe 1.0, or probabilities, as in Caffe before April 2017."""
AllowPython = bool | Literal["path"]
"""Whether the modules of Python layers, which are the user's code, may be imported and run; "path": only those that
Python itself finds, on sys.path, as in Caffe."""
ExtraValue = int | float | str | list["ExtraValue"] | dict[str, "ExtraValue"]
"""A field that the schema lacks: a number, a word or string, a message, or a list where it is given several times."""
FloatArray = NDArray[np.float32]


def count(shape: Sequence[int], start: int = 0, end: int | None = None) -> int:
    """The number of elements over the axes start…end (caffe: Blob::count)."""
    return math.prod(shape[start:end])


def shape_string(shape: Sequence[int]) -> str:
    """A shape as Caffe prints it: ``2 3 4 (24)`` (caffe: Blob::shape_string)."""
    return "".join(f"{dim} " for dim in shape) + f"({math.prod(shape)})"


def by_x(shape: Sequence[int]) -> str:
    """A shape as people write it: ``2×3×4``; ``scalar`` for a blob without axes."""
    return "×".join(str(dim) for dim in shape) or "scalar"


def untaken(name: str, taken: set[str], between: str = "_") -> str:
    """The name, or the first of name_2, name_3, … (`between` before the number) that is not taken, which it then is."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}{between}{number}"
    taken.add(free)
    return free


@dataclass(frozen=True)
class LayerDef:
    """One layer as the prototxt says it. ``bottom_values``/``top_values`` name each write of a blob once (SSA)."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    bottom_values: tuple[str, ...]
    top_values: tuple[str, ...]
    proto: LayerParameter
    phase: Phase
    directory: Path
    line: int | None = None
    force_backward: bool = False
    extended: bool = False
    """Whether the caller asks for more than Caffe allows (5-D pooling)."""
    extra: Mapping[str, ExtraValue] = field(default_factory=dict)
    """Fields of the prototxt that the schema lacks and the layer's class knows (`Layer.extra_fields`), as written."""
    infogain: Infogain | None = None
    """What the caller says that InfogainLoss layers are given; None: nothing, so scores."""
    user_code: UserCode | None = field(default=None, compare=False, repr=False)
    """Runs the user's Python layers; None where the caller does not allow that."""

    @property
    def where(self) -> str:
        """``conv2 (Convolution), line 12``."""
        return f"{self.name} ({self.type})" + (f", line {self.line}" if self.line else "")

    def find_file(self, source: str) -> Path:
        """A file that the layer names: as Caffe looks it up (from here), else beside the prototxt."""
        path = Path(source)
        beside = self.directory / source
        return beside if not path.exists() and beside.exists() else path


@dataclass(frozen=True)
class NetDef:
    """The layers that a NetState keeps, in order, with in-place writes named apart."""

    name: str
    layers: tuple[LayerDef, ...]
    phase: Phase
    directory: Path
    source: Path | None
    last_value: Mapping[str, str]
    """Caffe's blob name → the value that holds its last write."""
    user_code: UserCode | None = field(default=None, compare=False, repr=False)
    """Runs the net's Python layers; None where the caller does not allow that."""

    def blob_order(self) -> Iterator[str]:
        """Blob names in the order in which Caffe makes them."""
        return iter(dict.fromkeys(top for layer in self.layers for top in layer.tops))


@dataclass(frozen=True)
class Param:
    """One parameter blob of a layer: its shape and, once bound, its values."""

    name: str
    shape: Shape
    values: Callable[[], FloatArray] | None = None
    owner: tuple[str, str] | None = None
    """(layer, parameter) that owns a shared blob, None for a blob of the layer's own."""
    shared: bool = False
    """Whether another layer uses this blob too."""
    source: str = ""
    """Where the values come from: a file's name, or the filler."""

    def array(self) -> FloatArray:
        """The values, float32, shaped as `shape`."""
        if self.values is None:
            raise RuntimeError(f"parameter {self.name} has not been bound")
        return self.values().reshape(self.shape)


@dataclass(frozen=True)
class Node:
    """A layer in its place: which values it reads and writes, and all their shapes."""

    definition: LayerDef
    layer: Layer
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    bottom_shapes: tuple[Shape, ...]
    top_shapes: tuple[Shape, ...]
    params: tuple[Param, ...] = ()

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def type(self) -> str:
        return self.definition.type

    def param(self, name: str) -> Param:
        """The parameter of that name; KeyError when the layer has none."""
        for param in self.params:
            if param.name == name:
                return param
        raise KeyError(name)

    def has_param(self, name: str) -> bool:
        return any(param.name == name for param in self.params)


@dataclass(frozen=True)
class Graph:
    """Nodes in order; every value has a shape. Input nodes are nodes like any other: their tops are `inputs`."""

    net: NetDef
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: Mapping[str, Shape]
    dims: Mapping[str, Dims] = field(default_factory=dict)
    """As `shapes`, with None for an axis that varies with the batch or follows from values; filled before emission."""
    symbols: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """(value, axis) → name, for those axes among them that are an input's batch axis."""
