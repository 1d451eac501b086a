"""What is to be run, on what, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from caffeconv.data.image_transform import Size
from caffeconv.data.mean import Mean
from caffeconv.frontend.options import NetOptions
from caffeconv.inference.result_files import RecordFormat
from caffeconv.runtime.providers import ComputeOptions

EngineName = Literal["process", "ray"]


@dataclass(frozen=True, kw_only=True)
class NetFiles:
    """A prototxt (or a caffemodel that carries its own net) with its weights, in order; or an ONNX model."""

    net: Path
    weights: tuple[Path, ...] = ()

    @property
    def is_onnx(self) -> bool:
        return self.net.suffix.lower() == ".onnx"

    @property
    def all(self) -> tuple[Path, ...]:
        return (self.net, *self.weights)


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images are made to fit an input."""

    mean: Mean | None = None
    scale: float = 1.0
    resize: Size | None = None
    """Height and width before the crop."""
    crop: Size | None = None
    """Height and width that the net's input is given too; None: the net's."""
    rgb: bool = False
    oversample: bool = False
    """Whether the scores of ten crops of each image are averaged."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which items are run, and how they are read."""

    passes: int | None = None
    """None: as many as all items take."""
    batch_size: int | None = None
    input_db: str | None = None
    """``[BLOB=]PATH`` of an LMDB or LevelDB for an input, or instead of a Data layer's own."""
    decoders: int | None = None
    """Threads that read and decode; None: one for each core."""
    skip_bad: bool = False
    resume: bool = False


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where results go, and what is shown of them."""

    path: Path | None = None
    records: RecordFormat | None = None
    """How classes or boxes are written, where it is said that they are wanted; None: a table, or whole blobs."""
    format_is_asked: bool = False
    """Whether it was said by name, and not by the suffix of `path`."""
    per_batch: Path | None = None
    """Where the scores of every batch go too."""
    labels: Path | None = None
    top_k: int = 5
    threshold: float = 0.5
    draw: Path | None = None
    """The folder for pictures with what was found in them."""
    wants_classes: bool = False
    """Whether something was asked for that only makes sense for classes, or for boxes of classes."""
    wants_boxes: bool = False
    """Whether something was asked for that only makes sense for boxes."""

    @property
    def per_item(self) -> bool:
        return self.wants_classes or self.wants_boxes


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What makes the passes: this process, or the workers of a Ray cluster."""

    name: EngineName = "process"
    workers: int | None = None


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A run as the caller wants it."""

    files: NetFiles
    inputs: tuple[str, ...] = ()
    """``BLOB=SOURCE``, or a source for the only input."""
    stdin: Path | None = None
    """The file among these that holds what stdin gave."""
    blobs: tuple[str, ...] = ()
    """What to give besides the outputs; ``("all",)``: every blob."""
    images: ImageOptions = field(default_factory=ImageOptions)
    data: DataOptions = field(default_factory=DataOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    net: NetOptions = field(default_factory=NetOptions)
    compute: ComputeOptions
    engine: EngineOptions = field(default_factory=EngineOptions)
