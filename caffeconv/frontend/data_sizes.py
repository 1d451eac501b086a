"""How large the data is that layers of forks read, from what their fields say of it: one item, as a deploy net takes it.

Each fork has its own layer for videos, grids or segmentations, with fields of much the same names: a crop, else a size
that pictures are brought to. The rule is theirs: what is cropped has the size of the crop.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message

from caffeconv.ir.definition import LayerDef
from caffeconv.layers.training_only import clip_length
from caffeconv.tensor.shape import Shape

Field = object
SIZES = (
    224, 227, 299, 300, 256, 28, 32, 321, 112, 128, 96, 64, 513, 512, 48, 24, 12, 384, 320, 416, 448, 500, 231, 368, 473,
    713, 608, 600, 160, 192, 110, 144, 60, 40,
)  # fmt: skip
"""Heights and widths that people choose for pictures, likeliest first."""
MOST_LENGTH = 2048
"""Of a side of a picture."""
_SIZES = (
    ("crop_height", "crop_width"),
    ("crop_h", "crop_w"),
    ("crop_size_y", "crop_size_x"),
    ("crop_size", "crop_size"),
    ("image_size_y", "image_size_x"),
    ("new_height", "new_width"),
    ("resize_height", "resize_width"),
    ("height", "width"),
)
"""Fields that say height and width, what is done last first."""


def item_shape(layer: LayerDef) -> Shape | None:
    """The shape of the first top of a data layer, with one item: 1×C×H×W, or 1×C×frames×H×W for a video of C3D.

    None where the fields do not say the size. Three channels are taken where nothing tells their number.
    """
    fields = dict(_fields(layer))
    size = next(
        (
            (int(height), int(width))
            for names in _SIZES
            for height, width in [(fields.get(names[0]), fields.get(names[1]))]
            if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0
        ),
        None,
    )
    if size is None:
        return None
    channels = channels_of(layer)
    frames = clip_length(layer) or fields.get("new_length")
    if not isinstance(frames, int) or frames < 1:
        return (1, channels, *size)
    if "modality" in fields or "num_segments" in fields:  # yjxiong: the frames of a snippet are its channels
        segments = fields.get("num_segments", 1)
        number = frames * (segments if isinstance(segments, int) else 1)
        return (1, number * (2 if fields.get("modality", "FLOW") == "FLOW" else channels), *size)
    return (1, channels, frames, *size)


def stated_sizes(layer: LayerDef) -> Iterator[tuple[int, int]]:
    """Heights and widths that the layer's fields state, of a blob of its own or of a grid (`side`)."""
    fields = dict(_fields(layer))
    for names in (*_SIZES, ("upsample_h", "upsample_w"), ("side", "side")):
        height, width = (fields.get(name) for name in names)
        if isinstance(height, int) and isinstance(width, int) and min(height, width) > 1:
            yield height, width


def channels_of(layer: LayerDef) -> int:
    """How many channels a data layer's pictures have by its fields; 3 where nothing tells."""
    fields = dict(_fields(layer))
    if fields.get("is_color") is False or fields.get("force_gray") or fields.get("grayscale"):
        return 1
    means = fields.get("mean_value")
    return len(means) if isinstance(means, list) and len(means) > 1 else 3


def _fields(layer: LayerDef) -> Iterator[tuple[str, Field]]:
    """Name → value of every field of the layer's messages, and of those that the schema does not know."""
    for _, value in layer.proto.ListFields():
        if isinstance(value, Message):
            yield from _of_message(value)
    for value in layer.extra.values():
        if isinstance(value, dict):
            yield from value.items()


def _of_message(message: Message) -> Iterator[tuple[str, Field]]:
    for field, value in message.ListFields():
        if field.name == "resize_param":
            # with FIT_SMALL_SIZE the longer side is that of the picture (ssd: InferNewSize)
            sized = [resize for resize in value if resize.resize_mode != resize.FIT_SMALL_SIZE]
            yield from (entry for resize in sized for entry in _of_message(resize))
        elif field.enum_type is not None and isinstance(value, int):
            yield field.name, field.enum_type.values_by_number[value].name
        elif isinstance(value, (bool, int, float)):
            yield field.name, value
        elif not isinstance(value, (str, bytes, Message)):
            yield field.name, list(value)
