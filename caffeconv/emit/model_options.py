"""The form of a model besides what its net defines: layout, precision, preprocessing of images.

What is here needs no onnx, so that the options of a command can be read without it.
"""

from __future__ import annotations

from dataclasses import dataclass

from caffeconv.emit.metadata import Layout, Preprocess


@dataclass(frozen=True)
class ModelOptions:
    """As the arguments of `caffeconv.convert`."""

    layout: Layout = "nchw"
    half: bool = False
    keep_io: bool = False
    preprocess: Preprocess | None = None
    fold: bool = True
    """Whether the first layer's weights may take over what `preprocess` does."""

    @property
    def is_plain(self) -> bool:
        return self.layout == "nchw" and not self.half and self.preprocess is None
