"""A net as the prototxt says it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from caffeconv.caffe_format.terms import ExtraValue, Phase
from caffeconv.errors import CaffeconvError, shortened
from caffeconv.files.net_folders import NetFolders
from caffeconv.tensor.shape import FloatArray, Shape, Shapes

if TYPE_CHECKING:
    from caffeconv.caffe_pb2 import BlobProto, LayerParameter
    from caffeconv.caffe_pb2 import ParamSpec as ParamSpecProto
    from caffeconv.python_layers.host import PythonLayerHost


Infogain = Literal["logits", "probabilities"]
"""What InfogainLoss layers are given: scores, as in Caffe 1.0, or probabilities, as in Caffe before April 2017."""


@dataclass(frozen=True)
class ParamSpec:
    """What the prototxt says of one of a layer's parameters; ``lr_mult`` and ``decay_mult`` None: nothing, so 1."""

    name: str = ""
    """Parameters of one name are one blob."""
    share_mode: Literal["STRICT", "PERMISSIVE"] = "STRICT"
    """Whether parameters that share a blob need one shape, or one number of values."""
    lr_mult: float | None = None
    decay_mult: float | None = None

    @classmethod
    def parse(cls, p: ParamSpecProto) -> ParamSpec:
        return cls(
            p.name, "PERMISSIVE" if p.share_mode == p.PERMISSIVE else "STRICT",
            p.lr_mult if p.HasField("lr_mult") else None, p.decay_mult if p.HasField("decay_mult") else None,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class InlineBlob:
    """A parameter blob that the prototxt itself holds; same face as a blob of a file."""

    shape: Shape
    legacy: bool
    """Whether it gives num/channels/height/width instead of a shape."""
    values: FloatArray
    """1-D float32."""

    @classmethod
    def parse(cls, p: BlobProto) -> InlineBlob:
        legacy = any(p.HasField(name) for name in ("num", "channels", "height", "width"))
        shape = (p.num, p.channels, p.height, p.width) if legacy else tuple(p.shape.dim)
        return cls(shape, legacy, np.array(p.double_data or p.data, np.float32))

    @property
    def count(self) -> int:
        return self.values.size

    @property
    def offset(self) -> int | None:
        return None

    def array(self) -> FloatArray:
        return self.values

    def blocks(self) -> Iterator[FloatArray]:
        """As `array`; a prototxt holds few values."""
        yield self.values


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
    """The whole message, for the class that parses its fields and for what writes nets."""
    phase: Phase
    folders: NetFolders
    line: int | None = None
    force_backward: bool = False
    extended: bool = False
    """Whether the caller asks for more than Caffe allows (5-D pooling)."""
    extra: Mapping[str, ExtraValue] = field(default_factory=dict)
    """Fields of the prototxt that the schema lacks and the layer's class knows (`Layer.extra_fields`), as written."""
    infogain: Infogain | None = None
    """What the caller says that InfogainLoss layers are given; None: nothing, so scores."""
    dialect: str | None = None
    """The fork whose rule a type follows where several forks have one of that name; None: the layer decides by evidence."""
    python_host: PythonLayerHost | None = field(default=None, compare=False, repr=False)
    """Runs the user's Python layers; None where the caller does not allow that."""
    param_specs: tuple[ParamSpec, ...] = ()
    """One for each of the first parameters; the layer may have more."""
    loss_weights: tuple[float, ...] = ()
    """One for each top, or none at all."""
    propagate_down: tuple[bool, ...] = ()
    """Whether a diff is wanted, for each bottom, or none at all."""
    inline_blobs: tuple[InlineBlob, ...] = field(default=(), compare=False, repr=False)
    undecided: str = ""
    """What only the caller can say of the layer, as nothing in the net does; what the layer makes has one shape anyway."""
    stored_shapes: Shapes | None = None
    """What the weights file has for the layer, by which some types tell their fork; None: it has no such layer."""

    def with_proto(self, proto: LayerParameter) -> LayerDef:
        """What another message says, in this layer's place: it has to have as many bottoms and tops."""
        return replace(
            self, type=proto.type, proto=proto, param_specs=tuple(map(ParamSpec.parse, proto.param)),
            loss_weights=tuple(proto.loss_weight), propagate_down=tuple(proto.propagate_down),
            inline_blobs=tuple(map(InlineBlob.parse, proto.blobs)),
        )  # fmt: skip

    @property
    def is_in_place(self) -> bool:
        """Whether the first top is the first bottom's blob."""
        return bool(self.bottoms) and self.bottoms[:1] == self.tops[:1]

    @property
    def where(self) -> str:
        """``conv2 (Convolution), line 12``."""
        return f"{shortened(self.name)} ({shortened(self.type)})" + (f", line {self.line}" if self.line else "")

    def find_file(self, source: str) -> Path:
        """A file that the layer names, which may be missing: as Caffe looks it up (from here), else beside the prototxt.

        Raises CaffeconvError where it may not be read (`NetFolders.find`).
        """
        return self.folders.find(source)


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
    python_host: PythonLayerHost | None = field(default=None, compare=False, repr=False)
    """Runs the net's Python layers; None where the caller does not allow that."""

    def blob_order(self) -> Iterator[str]:
        """Blob names in the order in which Caffe makes them."""
        return iter(dict.fromkeys(top for layer in self.layers for top in layer.tops))


@contextmanager
def error_context(definition: LayerDef) -> Iterator[None]:
    """Names the layer in what goes wrong inside."""
    try:
        yield
    except CaffeconvError as error:
        raise CaffeconvError(f"{definition.where}: {error}") from None
