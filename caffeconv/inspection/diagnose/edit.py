"""Edits of a net: fields of its layers given other values, and how these read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, TypeGuard, cast

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from caffeconv.caffe_format.prototxt import is_repeated
from caffeconv.caffe_pb2 import BlobShape, LayerParameter, ReshapeParameter
from caffeconv.ir.definition import LayerDef, NetDef
from caffeconv.ir.layer import Setting
from caffeconv.layers import LAYERS
from caffeconv.layers.place_distance import ReadsPlaces
from caffeconv.tensor.shape import Shape, format_shape

_WINDOW = {"kernel_size": "kernel", "stride": "stride", "pad": "pad", "dilation": "dilation"}
"""Fields that may be given once, per axis, or by height and width: name → what stands before ``_h`` and ``_w``."""
_DEFAULTS: dict[str, tuple[int, ...]] = {"stride": (1,), "pad": (0,), "dilation": (1,)}
DIM = "dim"
"""The sizes of a message's `shape`, which stand for a field of their own."""
_COUNTED_NUMBERS = frozenset(("aspect_ratio", "min_size", "max_size", "scale"))
"""Fields of fractions that decide shapes by how many there are; edited where all are whole numbers."""
_NO_MATTER = frozenset(("engine", "force_nd_im2col", "cudnn_math_override", "pool"))
NAME, SHAPE, TYPE, PARAM_STR, SCALE, BOTTOM = "name", "shape", "type", "param_str", "spatial_scale", "bottom"
LAYERS_INSTEAD = "layers"
"""What stands for a layer in whose place several come."""


@dataclass(frozen=True)
class Edit:
    """One layer's fields before and after: ``reduce { pad: 1 → 0, num_output: 128 → 512 }``."""

    layer: str
    index: int
    """Which of the net's layers."""
    before: Mapping[str, Setting | str]
    after: Mapping[str, Setting | str]

    def __str__(self) -> str:
        was, now = self.before, self.after
        if LAYERS_INSTEAD in now:
            before, after = str(was[LAYERS_INSTEAD]), str(now[LAYERS_INSTEAD])
            if after.startswith(f"{before}\n"):
                return f"after layer '{self.layer}':\n{after.removeprefix(before)[1:]}"
            if not after:
                return f"without layer '{self.layer}'"
            return f"in place of layer '{self.layer}':\n{after}"
        changes = ", ".join(f"{name}: {field_text(name, was[name])} → {field_text(name, now[name])}" for name in now)
        return f"{self.layer} {{ {changes} }}"


def field_text(name: str, value: Setting | str) -> str:
    """A field's value as an edit shows it."""
    if isinstance(value, str):
        return (
            value
            if name in (TYPE, SCALE, LAYERS_INSTEAD)
            else '"' + value.replace("\n", "\\n").replace("\t", "\\t") + '"'
        )
    if isinstance(value, bool):
        return "true" if value else "false"
    if name == "round_mode":
        return ("CEIL", "FLOOR")[value if isinstance(value, int) else 0]
    if name == DIM:
        return str(list(value)) if isinstance(value, tuple) else ""
    if isinstance(value, tuple) and value and name in ("slice_point", "offset", "order", *_COUNTED_NUMBERS):
        return str(list(value))
    if isinstance(value, tuple):
        return format_shape(value) if value else "not given"
    return str(value)


def settings_of(definition: LayerDef) -> dict[str, Setting]:
    """The fields of a layer that may decide shapes, with defaults; windows as a number per axis, or one for all."""
    kind = LAYERS.get(definition.type)
    if kind is None:
        return {}
    source = getattr(definition.proto, kind.source_settings) if kind.source_settings else None
    settings: dict[str, Setting] = {name: getattr(source, name) for name in kind.picture_settings}
    if not kind.settings:
        return settings
    message: Message = getattr(definition.proto, kind.settings)
    if _has_shape(message):
        settings[DIM] = tuple(message.shape.dim)
    for name, form in _forms(cast("Descriptor", message.DESCRIPTOR)):
        if form == "window":
            settings[name] = _window_value(message, name)
        elif form == "number":
            settings[name] = getattr(message, name)
        elif form == "numbers":
            settings[name] = tuple(getattr(message, name))
        elif all(float(value).is_integer() for value in getattr(message, name)):
            settings[name] = tuple(map(round, getattr(message, name)))
    return settings


_Form = Literal["window", "number", "numbers", "fractions"]


@cache
def _forms(descriptor: Descriptor) -> Sequence[tuple[str, _Form]]:
    """The fields of a message that may decide shapes, and how each is read."""
    forms: list[tuple[str, _Form]] = []
    for name, field in _fields_of(descriptor).items():
        if name in _WINDOW:
            forms.append((name, "window"))
        elif name in _COUNTED_NUMBERS and is_repeated(field):
            forms.append((name, "fractions"))
        elif name[:-2] not in _WINDOW.values() and name not in _NO_MATTER and _is_number(field):
            forms.append((name, "numbers" if is_repeated(field) else "number"))
    return forms


def written_fields(definition: LayerDef) -> frozenset[str]:
    """Those fields of the message that `settings_of` reads which the prototxt itself gives."""
    kind = LAYERS.get(definition.type)
    names = (kind.settings, kind.source_settings) if kind is not None else ()
    messages: list[Message] = [getattr(definition.proto, name) for name in names if name]
    return frozenset(field.name for message in messages for field, _ in message.ListFields())


def _has_shape(message: Message) -> TypeGuard[ReshapeParameter]:
    field = _fields(message).get("shape")
    return field is not None and not is_repeated(field) and field.message_type is not None


def _is_number(field: FieldDescriptor) -> bool:
    other_types = (field.CPPTYPE_MESSAGE, field.CPPTYPE_STRING, field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE)
    return field.cpp_type not in other_types


def _fields(message: Message) -> Mapping[str, FieldDescriptor]:
    return _fields_of(cast("Descriptor", message.DESCRIPTOR))


@cache
def _fields_of(descriptor: Descriptor) -> Mapping[str, FieldDescriptor]:
    return {field.name: field for field in descriptor.fields}


def _window_value(message: Message, name: str) -> tuple[int, ...]:
    short = _WINDOW[name]
    names = _fields(message)
    if f"{short}_h" in names and (message.HasField(f"{short}_h") or message.HasField(f"{short}_w")):
        return collapsed((getattr(message, f"{short}_h"), getattr(message, f"{short}_w")))
    if is_repeated(names[name]):
        return collapsed(tuple(getattr(message, name)) or _DEFAULTS.get(name, ()))
    return (getattr(message, name),) if message.HasField(name) else _DEFAULTS.get(name, ())


def collapsed(values: tuple[int, ...]) -> tuple[int, ...]:
    """One number where all are the same."""
    return values[:1] if len(set(values)) == 1 else values


def _fits_field(value: Setting) -> bool:
    numbers = value if isinstance(value, tuple) else (value,)
    return all(not isinstance(number, int) or abs(number) < 1 << 31 for number in numbers)


def with_settings(definition: LayerDef, settings: Mapping[str, Setting]) -> LayerDef:
    """The layer with these fields in place of its own."""
    proto = LayerParameter()
    proto.CopyFrom(definition.proto)
    kind = LAYERS[definition.type]
    for name, value in settings.items():
        message: Message = getattr(proto, kind.source_settings if name in kind.picture_settings else kind.settings)
        if not _fits_field(value):  # what no prototxt can say mends nothing
            continue
        if name in _WINDOW and isinstance(value, tuple):
            _set_window(message, name, value)
        elif name == DIM and isinstance(value, tuple) and _has_shape(message):
            message.shape.dim[:] = value
        elif isinstance(value, tuple):
            del getattr(message, name)[:]
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    return replace(definition, proto=proto)


def _set_window(message: Message, name: str, value: tuple[int, ...]) -> None:
    short, value = _WINDOW[name], collapsed(value)
    names = _fields(message)
    if not value:
        return
    by_axis = f"{short}_h" in names and (message.HasField(f"{short}_h") or message.HasField(f"{short}_w"))
    for other in (name, f"{short}_h", f"{short}_w"):
        if other in names:
            message.ClearField(other)
    if f"{short}_h" in names and (by_axis or (len(value) == 2 and not is_repeated(names[name]))):
        setattr(message, f"{short}_h", value[0])
        setattr(message, f"{short}_w", value[-1])
    elif is_repeated(names[name]):
        getattr(message, name).extend(value)
    else:
        setattr(message, name, value[0])


def input_shapes(definition: LayerDef) -> list[Shape]:
    """The shapes that an Input or DummyData layer gives its blobs; none for layers that say these in another way."""
    kind = LAYERS.get(definition.type)
    if kind is None or not kind.shapes_message:
        return []
    message = getattr(definition.proto, kind.shapes_message)
    if message.shape or "num" not in _fields(message):
        return [tuple(shape.dim) for shape in message.shape]
    dims = (message.num, message.channels, message.height, message.width)  # caffe: one of each, or one for each top
    number = max(map(len, dims))
    return [tuple(dim[i % len(dim)] for dim in dims) for i in range(number)] if all(dims) else []


def with_shapes(definition: LayerDef, shapes: Sequence[Sequence[int]]) -> LayerDef:
    """An Input or DummyData layer with these shapes."""
    proto = LayerParameter()
    proto.CopyFrom(definition.proto)
    message = getattr(proto, LAYERS[definition.type].shapes_message)
    for name in ("shape", "num", "channels", "height", "width"):
        if name in _fields(message):
            message.ClearField(name)
    message.shape.extend(BlobShape(dim=shape) for shape in shapes)
    return replace(definition, proto=proto)


def resized(definition: LayerDef, height: int, width: int) -> LayerDef | None:
    """An input layer that makes pictures of another size, as far as its fields can say so; None where they cannot.

    Of several shapes those change that are of the first one's size.
    """
    kind, size = LAYERS.get(definition.type), image_size(definition)
    if kind is None or size is None or (height, width) == size:
        return None
    if kind.shapes_message:
        shapes = [(*s[:2], height, width) if len(s) == 4 and s[2:] == size else s for s in input_shapes(definition)]
        return with_shapes(definition, shapes)
    settings, fields, mean = settings_of(definition), kind.picture_settings[1:], kind.mean_size(definition)
    is_cropped = kind.crop_setting and (settings[kind.crop_setting] or mean not in (None, (height, width)))
    if not is_cropped:
        return with_settings(definition, dict(zip(fields, (height, width), strict=False)))
    # a crop is square, and no larger than the pictures that it is taken from, which are as large as their mean
    if height != width or (mean is not None and height > min(mean)):
        return None
    small = [name for name in fields if 0 < int(str(settings[name])) < height]
    return with_settings(definition, {kind.crop_setting: height, **dict.fromkeys(small, height)})


def as_large_as_mean(definition: LayerDef) -> LayerDef | None:
    """A data layer that brings its pictures to the size of its mean image, and crops them to the size that they had; None
    where they have that size, or are not brought to any."""
    kind = LAYERS.get(definition.type)
    mean = kind.mean_size(definition) if kind is not None and kind.crop_setting and kind.picture_settings else None
    if kind is None or mean is None:
        return None
    settings, fields = settings_of(definition), kind.picture_settings[1:]
    height, width = (int(str(settings[name])) for name in fields)
    if min(height, width) == 0 or (height, width) == mean:
        return None
    crop = {} if settings[kind.crop_setting] or height != width else {kind.crop_setting: height}
    return with_settings(definition, {**dict(zip(fields, mean, strict=True)), **crop})


def image_size(definition: LayerDef) -> tuple[int, int] | None:
    """Height and width of the pictures that an input layer makes, where its fields say so."""
    kind = LAYERS.get(definition.type)
    if kind is None:
        return None
    if kind.shapes_message:
        return next(((s[2], s[3]) for s in input_shapes(definition) if len(s) == 4 and min(s[2:]) > 0), None)
    settings = settings_of(definition)
    crop = settings.get(kind.crop_setting) if kind.crop_setting else 0
    if isinstance(crop, int) and crop > 0:
        return crop, crop
    height, width = (settings[name] for name in kind.picture_settings[1:]) if kind.picture_settings else (0, 0)
    if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0:
        return height, width
    return kind.mean_size(definition)


def with_picture_channels(definition: LayerDef, channels: int, current: int) -> LayerDef | None:
    """An input layer that makes pictures of `channels` channels instead of `current`; None where its fields cannot."""
    kind = LAYERS.get(definition.type)
    if kind is None:
        return None
    if kind.shapes_message:
        shapes = input_shapes(definition)
        changed = [(*s[:1], channels, *s[2:]) if len(s) > 1 and s[1] == current else s for s in shapes]
        return with_shapes(definition, changed) if changed != shapes else None
    if not kind.picture_settings:
        return None
    name, value = kind.picture_settings[0], settings_of(definition)[kind.picture_settings[0]]
    if isinstance(value, bool):  # whether in colour
        fits = {channels, current} == {1, 3} and value == (current == 3)
        return with_settings(definition, {name: not value}) if fits else None
    return with_settings(definition, {name: channels}) if value == current else None


def with_name(definition: LayerDef, name: str) -> LayerDef:
    """The layer under another name."""
    proto = LayerParameter()
    proto.CopyFrom(definition.proto)
    proto.name = name
    return replace(definition, proto=proto, name=name)


def with_swapped(definition: LayerDef, first: int, second: int) -> LayerDef:
    """The layer with two of its bottoms in each other's place."""
    order = list(range(len(definition.bottoms)))
    order[first], order[second] = second, first
    proto = LayerParameter()
    proto.CopyFrom(definition.proto)
    proto.bottom[:] = [definition.proto.bottom[i] for i in order]
    bottoms, values = (tuple(each[i] for i in order) for each in (definition.bottoms, definition.bottom_values))
    return replace(definition.with_proto(proto), bottoms=bottoms, bottom_values=values)


def edited(net: NetDef, definitions: Mapping[int, LayerDef]) -> NetDef:
    """The net with some layers replaced: index → definition."""
    return replace(net, layers=tuple(definitions.get(i, layer) for i, layer in enumerate(net.layers)))


def type_words(definition: LayerDef) -> str:
    """``"InnerProduct" inner_product_param { num_output: 10 }``; fillers and the like are left out."""
    kind = LAYERS[definition.type]
    if not kind.settings:
        return f'"{definition.type}"'
    message: Message = getattr(definition.proto, kind.settings)
    copy = type(message)()
    copy.CopyFrom(message)
    for field, _ in message.ListFields():
        if not _is_number(field):
            copy.ClearField(field.name)
    if not copy.ListFields():
        return f'"{definition.type}"'
    return f'"{definition.type}" {kind.settings} {{ {text_format.MessageToString(copy, as_one_line=True)} }}'


def _window_position(name: str) -> int:
    return list(_WINDOW).index(name) if name in _WINDOW else len(_WINDOW)


def edit_between(index: int, before: LayerDef, after: LayerDef) -> Edit:
    """What differs between two forms of one layer."""
    if before.type != after.type:
        return Edit(before.name, index, {TYPE: type_words(before)}, {TYPE: type_words(after)})
    old, new = settings_of(before), settings_of(after)
    names = [name for name in sorted(new, key=_window_position) if old.get(name) != new[name]]
    written = written_fields(before)
    was: dict[str, Setting | str] = {
        name: () if old[name] == 0 and not isinstance(old[name], bool) and name not in written else old[name]
        for name in names
    }
    now: dict[str, Setting | str] = {name: new[name] for name in names}
    old_shapes, new_shapes = input_shapes(before), input_shapes(after)
    for i, (a, b) in enumerate(zip(old_shapes, new_shapes, strict=False)):
        if a != b:
            key = SHAPE if len(new_shapes) == 1 else f"{SHAPE}[{i}]"
            was[key], now[key] = a, b
    texts = [each.proto.python_param.param_str for each in (before, after)]
    if texts[0] != texts[1]:
        was[PARAM_STR], now[PARAM_STR] = texts
    scales = [_scale_of(each) for each in (before, after)]
    if scales[0] != scales[1]:
        was[SCALE], now[SCALE] = scales
    if before.bottoms != after.bottoms:
        was[BOTTOM], now[BOTTOM] = (" ".join(each.bottoms) for each in (before, after))
    if before.name != after.name:
        return Edit(before.name, index, {**was, NAME: before.name}, {**now, NAME: after.name})
    return Edit(before.name, index, was, now)


def _scale_of(definition: LayerDef) -> str:
    """`spatial_scale` of a layer that has one; otherwise empty."""
    kind = LAYERS.get(definition.type)
    if kind is None or not issubclass(kind, ReadsPlaces) or kind.distance_field != SCALE:
        return ""
    return f"{getattr(definition.proto, kind.settings).spatial_scale:g}"
