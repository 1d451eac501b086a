"""A net as the prototxt says it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from caffeconv.caffe_format.terms import ExtraValue, Phase
from caffeconv.errors import CaffeconvError

if TYPE_CHECKING:
    from caffeconv.caffe_pb2 import LayerParameter
    from caffeconv.python_layers.host import PythonLayerHost


Infogain = Literal["logits", "probabilities"]
"""What InfogainLoss layers are given: scores, as in Caffe 1.0, or probabilities, as in Caffe before April 2017."""


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
    python_host: PythonLayerHost | None = field(default=None, compare=False, repr=False)
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
