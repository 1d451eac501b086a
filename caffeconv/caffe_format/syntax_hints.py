"""What was probably meant where a prototxt does not parse, or has a field where no such field belongs."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from caffeconv.caffe_pb2 import LayerParameter, NetStateRule, ParamSpec, SolverParameter, V1LayerParameter
from caffeconv.errors import near_name

_CURLY = "\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb"
_TEMPLATE = re.compile(r"\$\{?\w*|\{\{|\{%|%\(|%[ds]|<[A-Z_]+>|@\w+@")
_TRANSFORM = "transform_param"
_LINE_NUMBER = re.compile(r"\d+(?=[:.|)\s])")
_PLACE_HOLDER = "which has to be filled in first"
_TOKENS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("//", "/*", "<!--"), "a comment begins with `#`"),
    (('"', "'"), "the quote that opens here is not closed in this line"),
    (("<<<<<<<", "=======", ">>>>>>>"), "a mark of a merge that was not resolved"),
    (("--- ", "+++ ", "@@ ", "diff "), "this is a patch, to be applied to a prototxt"),
    (("=",), "a value stands behind `:`, not behind `=`"),
    (("(", ")"), "blocks stand in `{ … }`"),
    (("...", "…"), "something was left out here"),
)
"""How a text begins that can be no token there → what it looks like."""
_OLD_FIELDS = {"blobs_lr": "lr_mult", "weight_decay": "decay_mult"}
"""Fields of the old form's layers → what a `param` block calls them today."""
_NUMBERS = (
    FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT64, FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE,
)  # fmt: skip
_SIDES = ("_d", "_h", "_w")
MOST_LOOKED_AT = 100
"""Letters of a text that tell what it looks like."""
_LAYER = re.compile(r"\blayers?\s*:?\s*\{")


def next_layer(text: str, position: int) -> int | None:
    """Where the next ``layer {`` begins from a position on; None where there is none."""
    match = _LAYER.search(text, position)
    return match.start() if match else None


def token_hint(text: str, start: int) -> str:
    """What the text at a position looks like, where it can be no token or no such token: ``; comments begin with #``."""
    rest = text[start : start + MOST_LOOKED_AT]
    if rest[:1] and rest[0] in _CURLY:
        return '; these are curly quotes of a word processor, straight ones (") were needed'
    for beginnings, what in _TOKENS:
        if rest.startswith(beginnings):
            return f"; {what}"
    if _LINE_NUMBER.match(rest) and not text[text.rfind("\n", 0, start) + 1 : start].strip():
        return "; these seem to be the line numbers of a listing"
    if _TEMPLATE.match(rest):
        return f"; this is a template's place holder, {_PLACE_HOLDER}"
    plain = unicodedata.normalize("NFKC", rest[:1])
    if plain != rest[:1] and plain.isascii():
        return f"; `{plain}` was needed, which looks alike"
    return ""


def block_hint(field: FieldDescriptor) -> str:
    """How the fields of a block are written, where something else stands in its place: ``shape: [1, 3]``, ``include: TEST``."""
    if field.message_type is None:
        return ""
    first = next(iter(_fields_of(field.message_type)), "")
    return f"; `{field.name}` is a block with fields of its own: `{field.name} {{ {first}: … }}`"


def values_hint(kind: str, previous: str) -> str:
    """How several values are written, where a token of some kind stands that no field's name is, behind `previous`."""
    if kind != "number" or not re.fullmatch(r",|[\d.]+", previous):
        return ""
    otherwise = "a fraction with a point" if previous == "," else "or each behind the field's name"
    return f"; several values are given as `[1, 2]`, {otherwise}"


def meant_field(name: str, fields: Iterable[str]) -> str:
    """The field that a name is meant for; empty where none is near. One of a side, `kernel_h`, only for a name that has one."""
    whole = [field for field in fields if name[-2:] in _SIDES or field[-2:] not in _SIDES]
    longer = [field for field in whole if field.startswith(f"{name}_")]
    return min(longer, key=len) if longer else near_name(name, whole)


def value_hint(field: FieldDescriptor, kind: str, token: str, previous: str) -> str:
    """What was probably meant by a value of the wrong kind; `kind`: that of the token, `previous`: what stands before it."""
    bare = token.strip("\"'")
    if field.enum_type is not None and field.enum_type.name == "LayerType" and kind == "string":
        known = _enum_of(bare)
        form = f", or the old form's {known} without quotes" if known else ""
        return f"; `layers {{` is the old form of `layer {{`: write `layer` in line {{line}}{form}"
    if field.enum_type is not None and kind == "string" and bare in field.enum_type.values_by_name:
        return f"; write {bare} without quotes"
    if kind == "string" and re.fullmatch(r"-?[\d.]+(e-?\d+)?|true|false", bare):
        return f"; write {bare} without quotes"
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and kind == "name":
        return (
            f'; write "{_type_of(token) or token}" in quotes'
            if field.name == "type"
            else f'; write "{token}" in quotes'
        )
    if kind == "number" and re.fullmatch(r"\d+\.0*", token):
        return f"; write {token.partition('.')[0]}"
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL and bare.lower() in ("true", "false", "yes", "no", "on", "off"):
        return f"; write {'true' if bare.lower() in ('true', 'yes', 'on') else 'false'}"
    if field.name.startswith("pad") and bare.lower() in ("same", "valid"):
        return "; Caffe pads by numbers: 0 is `valid`, and (kernel_size - 1) / 2 of an odd kernel keeps the size at stride 1"
    if kind == "name" and previous == ":" and field.cpp_type in _NUMBERS:
        return f"; this looks like a template's place holder, {_PLACE_HOLDER}"
    if _TEMPLATE.match(token):
        return f"; this is a template's place holder, {_PLACE_HOLDER}"
    return ""


def _types() -> Iterator[tuple[str, str]]:
    """Names of the old form's types and what they look like today: CONVOLUTION, convolution."""
    for name in V1LayerParameter.LayerType.DESCRIPTOR.values_by_name:
        yield name, name.replace("_", "").lower()


def _enum_of(kind: str) -> str:
    """``InnerProduct`` → ``INNER_PRODUCT``; empty where the old form has no such type."""
    return next((name for name, bare in _types() if bare == kind.replace("_", "").lower()), "")


def _type_of(name: str) -> str:
    """``INNER_PRODUCT`` → ``InnerProduct``; empty for what is no type of the old form."""
    if not _enum_of(name):
        return ""
    fields = [
        field
        for field in _layer_fields()
        if field.replace("_param", "").replace("_", "") == name.replace("_", "").lower()
    ]
    words = (fields[0].removesuffix("_param") if fields else name.lower()).split("_")
    special = {
        "relu": "ReLU",
        "lrn": "LRN",
        "tanh": "TanH",
        "bnll": "BNLL",
        "mvn": "MVN",
        "absval": "AbsVal",
        "hdf5": "HDF5",
    }
    return "".join(special.get(word, word.capitalize()) for word in words)


@functools.cache
def _layer_fields() -> dict[str, FieldDescriptor]:
    return {name: field for name, field in _fields_of(LayerParameter.DESCRIPTOR).items() if name.endswith("_param")}


@functools.cache
def _blocks_by_field() -> dict[str, list[tuple[str, FieldDescriptor]]]:
    """Name of a field → the blocks of a layer that have one, each with its name."""
    blocks = defaultdict[str, list[tuple[str, FieldDescriptor]]](list)
    for name, block in _layer_fields().items():
        for field in _fields_of(block.message_type) if block.message_type is not None else ():
            blocks[field].append((name, block))
    return dict(blocks)


def blocks_with(field: str) -> dict[str, str]:
    """The blocks of a layer that have a field of this name, by the type that each is for: convolution → convolution_param."""
    fields = _blocks_by_field().get(field, ())
    # forks added fields to the block of every data layer, which nobody means who misplaces a layer's own
    ordered = sorted(fields, key=lambda each: (each[0] == _TRANSFORM, each[1].number))
    return {name.removesuffix("_param").replace("_", ""): name for name, _ in ordered}


def place_hint(message: str, field: str, layer_type: str) -> str:
    """Where a field belongs that stands in the layer itself, or in the block of another type; empty where nowhere."""
    if message == "NetParameter":
        return _hint_in_net(field)
    if message not in ("LayerParameter", "V1LayerParameter") and not message.endswith("Parameter"):
        return ""
    inner = _inner_block(message, field)
    if inner:
        return inner
    blocks = blocks_with(field)
    if not blocks:
        return ""
    own = blocks.get(layer_type.lower()) or _block_of_family(blocks, layer_type)
    if own and message in ("LayerParameter", "V1LayerParameter"):
        return f"; it belongs in `{own} {{ … }}`"
    names = [*blocks.values()][:3]
    if own and len(blocks) > 1:
        names = [own, *(name for name in names if name != own)][:3]
    return f"; it is a field of {', '.join(names)}"


def _hint_in_net(field: str) -> str:
    """Where a field belongs that stands in no layer."""
    if field in _fields_of(SolverParameter.DESCRIPTOR):
        return "; it is a field of a solver's file, not of a net"
    is_layers = field in _fields_of(LayerParameter.DESCRIPTOR) or blocks_with(field)
    return "; it belongs in a `layer { … }`" if is_layers else ""


def _inner_block(message: str, field: str) -> str:
    """The block of a layer that every type has, or the filler, that a field belongs in; empty where none."""
    if message != "LayerParameter":
        block = LayerParameter.DESCRIPTOR.file.message_types_by_name.get(message)
        fields = _fields_of(block).items() if block is not None else ()
        fillers = [n for n, f in fields if f.message_type is not None and field in f.message_type.fields_by_name]
        return f"; it belongs in `{fillers[0]} {{ … }}`" if fillers else ""
    today = _OLD_FIELDS.get(field, field)
    if today in _fields_of(ParamSpec.DESCRIPTOR):
        old = f"the old form's {field} is {today} today, and" if today != field else "it"
        return f"; {old} belongs in `param {{ … }}`, one for each parameter"
    return "; it belongs in `include { … }`" if field in _fields_of(NetStateRule.DESCRIPTOR) else ""


@functools.cache
def _fields_of(descriptor: object) -> dict[str, FieldDescriptor]:
    """A message's fields by name."""
    assert isinstance(descriptor, Descriptor)
    return {field.name: field for field in descriptor.fields}


def _block_of_family(blocks: dict[str, str], layer_type: str) -> str:
    """The block of types that share one: Deconvolution has convolution_param."""
    kind = layer_type.lower()
    return next((name for word, name in blocks.items() if word and kind.endswith(word)), "")
