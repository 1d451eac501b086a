"""Edits of a prototxt in its own text: comments, order and spelling stay, only what changes is written anew.

Where the text says something in a way that is not foreseen here, there is no edited text, and the caller writes the whole
net; so whoever uses this reads the result again and compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from caffeconv.caffe_format.prototxt import CLOSING, TOKEN, is_repeated
from caffeconv.caffe_format.prototxt_writer import field_value, net_to_text
from caffeconv.caffe_pb2 import LayerParameter, NetParameter


@dataclass(frozen=True)
class LayerEdit:
    """One layer of the net as it was, and the layers in its place, all in today's form."""

    before: LayerParameter
    after: tuple[LayerParameter, ...]


class _NotForeseenError(Exception):
    """The text says it in another way."""


@dataclass(frozen=True)
class _Field:
    """A field in the text: positions of its whole, of its value, and of what is in its braces."""

    name: str
    start: int
    value: tuple[int, int]
    children: tuple[_Field, ...] = ()
    is_message: bool = False

    @property
    def end(self) -> int:
        return self.value[1]


@dataclass(frozen=True)
class _Replacement:
    start: int
    end: int
    text: str


def edited_text(text: str, edits: Sequence[LayerEdit]) -> str | None:
    """The text with these layers changed; None where it says them in a way that is not foreseen."""
    try:
        fields = _fields(text)
        replacements = [one for edit in edits for one in _layer_replacements(text, fields, edit)]
    except (_NotForeseenError, IndexError):
        return None
    parts, position = [], 0
    replacements.reverse()  # of several at one place the last one stands first
    for one in sorted(replacements, key=lambda replacement: replacement.start):
        parts += [text[position : one.start], one.text]
        position = max(position, one.end)
    return "".join([*parts, text[position:]])


# -- where what stands -------------------------------------------------------------------------------------------------


def _tokens(text: str) -> list[tuple[str, int, int]]:
    tokens, position = [], 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise _NotForeseenError
        if match.lastgroup != "space":
            tokens.append((match.group(), match.start(), match.end()))
        position = match.end()
    return tokens


def _fields(text: str) -> tuple[_Field, ...]:
    tokens = _tokens(text)
    fields, position = _message(tokens, 0, "")
    if position != len(tokens):
        raise _NotForeseenError
    return fields


def _message(tokens: Sequence[tuple[str, int, int]], position: int, closing: str) -> tuple[tuple[_Field, ...], int]:
    """The fields up to the closing brace, and the number of the token behind it."""
    fields = []
    while position < len(tokens) and tokens[position][0] != closing:
        name, start, _ = tokens[position]
        position += 1
        if tokens[position][0] == ":":
            position += 1
        first = tokens[position]
        if first[0] in CLOSING:
            children, after = _message(tokens, position + 1, CLOSING[first[0]])
            fields.append(_Field(name, start, (first[1], tokens[after - 1][2]), children, is_message=True))
        else:
            after = _after_scalar(tokens, position)
            fields.append(_Field(name, start, (first[1], tokens[after - 1][2])))
        position = after + (after < len(tokens) and tokens[after][0] in (",", ";"))
    return tuple(fields), position + bool(closing)


def _after_scalar(tokens: Sequence[tuple[str, int, int]], position: int) -> int:
    if tokens[position][0] == "[":
        while tokens[position][0] != "]":
            position += 1
    elif tokens[position][0] == "-":
        position += 1
    elif tokens[position][0][0] in "\"'":
        while position + 1 < len(tokens) and tokens[position + 1][0][0] in "\"'":
            position += 1
    return position + 1


# -- what changes ------------------------------------------------------------------------------------------------------


def _layer_replacements(text: str, fields: Sequence[_Field], edit: LayerEdit) -> Iterator[_Replacement]:
    blocks = [
        field for field in fields
        if field.name in ("layer", "layers") and _values(text, field.children, "name") == [f'"{edit.before.name}"']
    ]  # fmt: skip
    if not blocks and not edit.before.bottom:
        yield from _input_replacements(text, fields, edit)
        return
    if len(blocks) != 1:
        raise _NotForeseenError
    (block,) = blocks
    if not edit.after:
        yield _Replacement(_line_start(text, block.start), _line_end(text, block.end), "")
        return
    same = [
        i for i, layer in enumerate(edit.after) if layer.name == edit.before.name and layer.type == edit.before.type
    ]
    if not same and len(edit.after) > 1:
        yield _Replacement(block.start, block.end, _layers_text(edit.after).rstrip("\n"))
        return
    position = same[0] if same else 0
    yield from _changes(text, block, edit.before, edit.after[position])
    if edit.after[:position]:
        start = _line_start(text, block.start)
        yield _Replacement(start, start, _layers_text(edit.after[:position]))
    if edit.after[position + 1 :]:
        yield _Replacement(block.end, block.end, "\n" + _layers_text(edit.after[position + 1 :]).rstrip("\n"))


def _layers_text(layers: Sequence[LayerParameter]) -> str:
    return net_to_text(NetParameter(layer=layers))


def _values(text: str, fields: Sequence[_Field], name: str) -> list[str]:
    """What the text gives for a field, each in double quotes where it is a string."""
    values = [text[slice(*field.value)] for field in fields if field.name == name]
    return [f'"{value[1:-1]}"' if value[:1] == "'" else value for value in values]


def _changes(text: str, block: _Field, before: Message, after: Message) -> Iterator[_Replacement]:
    """The changes from one message to another in the block that has its fields."""
    names = dict.fromkeys(field.name for message in (before, after) for field, _ in message.ListFields())
    descriptor = cast("Descriptor", after.DESCRIPTOR)
    added = []
    for name in names:
        field = descriptor.fields_by_name[name]
        old, new = getattr(before, name), getattr(after, name)
        if name == "blobs" or (old == new and _has(before, field) == _has(after, field)):
            continue
        places = [child for child in block.children if child.name == name]
        if field.message_type is not None:
            pairs = list(zip(*((value if is_repeated(field) else [value]) for value in (old, new)), strict=False))
            if places and len(places) == len(pairs):
                for place, (one, other) in zip(places, pairs, strict=True):
                    yield from _changes(text, place, one, other)
            elif not places:
                added += [f"{name} {field_value(field, one)}" for one in (new if is_repeated(field) else [new])]
            else:
                raise _NotForeseenError
        elif not _has(after, field):
            yield from (_removal(text, place) for place in places)
        else:
            values = [field_value(field, value) for value in (new if is_repeated(field) else [new])]
            if not places:
                added += [f"{name}: {value}" for value in values]
            else:
                yield from _revalued(places, values, text)
    if added:
        yield _addition(text, block, added)


def _has(message: Message, field: FieldDescriptor) -> bool:
    return bool(getattr(message, field.name)) if is_repeated(field) else message.HasField(field.name)


def _revalued(places: Sequence[_Field], values: Sequence[str], text: str) -> Iterator[_Replacement]:
    """The values where the text has the old ones: one for each, or all at the first place."""
    if len(places) == 1 and text[places[0].value[0]] == "[":
        yield _Replacement(*places[0].value, f"[{', '.join(values)}]")
        return
    if any(text[place.value[0]] == "[" for place in places):
        raise _NotForeseenError
    for place, value in zip(places, values, strict=False):
        if text[slice(*place.value)] != value:
            more = "".join(f" {place.name}: {v}" for v in values[len(places) :]) if place is places[-1] else ""
            yield _Replacement(*place.value, value + more)
    if len(values) > len(places) and text[slice(*places[-1].value)] == values[len(places) - 1]:
        more = "".join(f" {places[-1].name}: {value}" for value in values[len(places) :])
        yield _Replacement(places[-1].end, places[-1].end, more)
    yield from (_removal(text, place) for place in places[len(values) :])


def _removal(text: str, field: _Field) -> _Replacement:
    """The field away, with its line where it stands alone there."""
    start, end = field.start, _blank_end(text, field.end)
    while start and text[start - 1] != "\n" and text[start - 1].isspace():
        start -= 1
    if (not start or text[start - 1] == "\n") and text[end : end + 1] in ("", "\n"):
        return _Replacement(start, min(end + 1, len(text)), "")
    return _Replacement(field.start, _blank_end(text, end + 1) if text[end : end + 1] in (",", ";") else end, "")


def _addition(text: str, block: _Field, lines: Sequence[str]) -> _Replacement:
    """Fields more before the closing brace: on lines of their own where the block's others are."""
    closing = block.end - 1
    start = _line_start(text, closing)
    if text[start:closing].strip() or not block.children:
        space = "" if text[closing - 1] in " \t\n" else " "
        return _Replacement(closing, closing, f"{space}{' '.join(lines)} ")
    first = block.children[-1].start
    indent = text[_line_start(text, first) : first]
    indent = indent if not indent.strip() else text[start:closing] + "  "
    return _Replacement(start, start, "".join(f"{indent}{line}\n" for line in lines))


def _blank_end(text: str, position: int) -> int:
    """Behind the white space of the line from there on; looks at no more of it, as a line may hold all of the text."""
    while position < len(text) and text[position] != "\n" and text[position].isspace():
        position += 1
    return position


def _line_start(text: str, position: int) -> int:
    return text.rfind("\n", 0, position) + 1


def _line_end(text: str, position: int) -> int:
    """Behind the end of the line."""
    end = text.find("\n", position)
    return len(text) if end < 0 else end + 1


# -- inputs of the old form --------------------------------------------------------------------------------------------


def _input_replacements(text: str, fields: Sequence[_Field], edit: LayerEdit) -> Iterator[_Replacement]:
    """New shapes in ``input_shape { … }`` or ``input_dim: …``, which became an Input layer."""
    if len(edit.after) != 1 or edit.after[0].top != edit.before.top:
        raise _NotForeseenError
    old = [list(shape.dim) for shape in edit.before.input_param.shape]
    new = [list(shape.dim) for shape in edit.after[0].input_param.shape]
    shapes = [field for field in fields if field.name == "input_shape"]
    dims = [field for field in fields if field.name == "input_dim"]
    if len(old) != len(new):
        raise _NotForeseenError
    if len(shapes) == len(new):
        for shape, before, after in zip(shapes, old, new, strict=True):
            places = [child for child in shape.children if child.name == "dim"]
            if before != after:
                yield from _revalued(places, [str(dim) for dim in after], text)
    elif dims and len(dims) == sum(map(len, new)):
        yield from _revalued(dims, [str(dim) for shape in new for dim in shape], text)
    else:
        raise _NotForeseenError
