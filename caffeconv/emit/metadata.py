"""A model's metadata: its layout, its precision, its preprocessing of images. Needs no onnx."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from caffeconv.errors import CaffeconvError, shortened
from caffeconv.files import arguments
from caffeconv.files.foreign_json import MALFORMED
from caffeconv.tensor.shape import FloatArray

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from onnx import ModelProto

Layout = Literal["nchw", "nhwc"]


Folding = Literal["all", "order", "none"]
"""What the first convolution may take over of preprocessing: everything, the order of the channels only, nothing."""
ChannelOrder = Literal["rgb", "bgr"]


LAYOUT_KEY = "caffe.layout"
"""Metadata: {input or output: its axis order}, where that is not Caffe's."""


HALF_KEY = "caffeconv.precision"
"""Metadata: ``float16`` in a model of half precision."""


PREPROCESS_KEY = "caffe.preprocess"
"""Metadata: what the model does to its pictures, see `ImagePreprocessing`."""


@dataclass(frozen=True)
class Preprocess:
    """From uint8 pictures to what a net was trained on: (centre crop(picture) - mean) · scale, in the net's order.

    mean: C values, or C×H×W for pictures of just that size, in the order of the net's channels (float32). size: height
    and width of the pictures before the crop; None: the mean's, or what the net takes. rgb: whether the net wants red
    first; Caffe's want blue first. pictures, layout: how the pictures come, ``rgb`` as from PIL or ``bgr`` as from cv2,
    with their channels last (``nhwc``) or first. input: which input of the net; None: the first that takes pictures.
    """

    mean: FloatArray | None = None
    scale: float = 1.0
    size: tuple[int, int] | None = None
    rgb: bool = False
    pictures: ChannelOrder = "rgb"
    layout: Layout = "nhwc"
    input: str | None = None

    def __post_init__(self) -> None:
        """Raises CaffeconvError for what means nothing; takes a mean that is a list or a number, and choices in any case."""
        checked: dict[str, object] = {
            "scale": arguments.number("scale", self.scale),
            "rgb": arguments.truth("rgb", self.rgb),
            "pictures": arguments.one_of("pictures", self.pictures, get_args(ChannelOrder)),
            "layout": arguments.one_of("layout", self.layout, get_args(Layout)),
        }
        if self.mean is not None:
            checked["mean"] = _mean_array(self.mean)
        if self.size is not None:
            checked["size"] = _two_sizes(self.size)
        if self.input is not None:
            arguments.name("input", self.input)
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def _mean_array(mean: ArrayLike) -> FloatArray:
    try:
        array = np.atleast_1d(np.asarray(mean, np.float32))
    except (TypeError, ValueError):
        array = np.zeros(0, np.float32)
    if not array.size:
        raise CaffeconvError(f"`mean={shortened(repr(mean))}`: a number for each channel, or C×H×W of them, was needed")
    return array


def _two_sizes(size: object) -> tuple[int, int]:
    sizes = tuple(size) if isinstance(size, Sequence) and not isinstance(size, (str, bytes)) else ()
    if len(sizes) != 2:
        raise CaffeconvError(f"`size={size!r}`: height and width were needed, such as (256, 256)")
    return arguments.whole_number("size", sizes[0], 1), arguments.whole_number("size", sizes[1], 1)


@dataclass(frozen=True)
class ImagePreprocessing:
    """The preprocessing that a model does itself, as its metadata has it."""

    input: str
    order: str
    """``RGB``, ``BGR``, or ``grey``: the channels of the pictures that it is given."""
    net_order: str
    """The channels that the net itself wants."""
    size: tuple[int, int]
    """Height and width of the pictures."""
    crop: tuple[int, int]
    """Height and width of what is cut out of their middle."""
    mean: tuple[float, ...] | str
    """Values, or ``C×H×W`` for a picture."""
    scale: float
    folded: tuple[str, ...]
    """What the first layer's weights do: order, scale, mean."""

    def __str__(self) -> str:
        parts = [] if self.crop == self.size else [f"cropped to {self.crop[0]}×{self.crop[1]}"]
        mean = self.mean if isinstance(self.mean, str) else ", ".join(f"{value:g}" for value in self.mean)
        parts += [f"less the mean {mean}"] if mean else []
        parts += [f"times {self.scale:g}"] if self.scale != 1 else []
        parts += [f"turned to {self.net_order}"] if self.order != self.net_order else []
        steps = f" ({', '.join(parts)})" if parts else ""
        return f"{self.order} pictures of {self.size[0]}×{self.size[1]}, uint8{steps}"


def layouts(metadata: Mapping[str, str]) -> dict[str, str]:
    """Input or output → ``NHWC``, ``NDHWC``, …, for those that are not in Caffe's order."""
    try:
        entries = json.loads(metadata.get(LAYOUT_KEY, "{}"))
    except MALFORMED:
        return {}
    return {str(name): str(order) for name, order in entries.items()} if isinstance(entries, dict) else {}


def metadata_of(model: ModelProto) -> dict[str, str]:
    """A model's metadata as a dict."""
    return {entry.key: entry.value for entry in model.metadata_props}


def is_half(metadata: Mapping[str, str]) -> bool:
    """Whether a model computes in half precision."""
    return metadata.get(HALF_KEY) == "float16"


def image_preprocessing(metadata: Mapping[str, str]) -> ImagePreprocessing | None:
    """The preprocessing that a model does itself; None where its metadata has none, or cannot be read."""
    try:
        entries = json.loads(metadata[PREPROCESS_KEY])
        mean = entries["mean"] if isinstance(entries["mean"], str) else tuple(float(value) for value in entries["mean"])
        size, crop = ((int(entries[key][0]), int(entries[key][1])) for key in ("size", "crop"))
        names = (str(entries["input"]), str(entries["order"]), str(entries["net_order"]))
        return ImagePreprocessing(*names, size, crop, mean, float(entries["scale"]), tuple(map(str, entries["folded"])))
    except MALFORMED:
        return None
