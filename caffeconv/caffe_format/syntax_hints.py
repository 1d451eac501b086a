"""What was probably meant where a prototxt does not parse, or has a field where no such field belongs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from caffeconv.caffe_pb2 import LayerParameter, V1LayerParameter

_CURLY = "\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb"
_TEMPLATE = re.compile(r"\$\{?\w*|\{\{|\{%|%\(|%[ds]|<[A-Z_]+>|@\w+@")
_TRANSFORM = "transform_param"
_LAYER = re.compile(r"\blayers?\s*:?\s*\{")


def next_layer(text: str, position: int) -> int | None:
    """Where the next ``layer {`` begins from a position on; None where there is none."""
    match = _LAYER.search(text, position)
    return match.start() if match else None


def token_hint(text: str, start: int) -> str:
    """What the text at a position looks like, where it can be no token or no such token: ``; comments begin with #``."""
    rest = text[start:]
    if rest[:1] and rest[0] in _CURLY:
        return '; these are curly quotes of a word processor, straight ones (") were needed'
    if rest.startswith(("//", "/*")):
        return "; a comment begins with `#`"
    if rest[:1] in ('"', "'"):
        return "; the quote that opens here is not closed in this line"
    if rest.startswith("="):
        return "; a value stands behind `:`, not behind `=`"
    if rest.startswith(("<<<<<<<", "=======", ">>>>>>>")):
        return "; a mark of a merge that was not resolved"
    if _TEMPLATE.match(rest):
        return "; this is a template's place holder, which has to be filled in first"
    return ""


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
    if kind == "name" and re.search(r"\d", token) and previous == ":":
        return "; this looks like a template's place holder, which has to be filled in first"
    if _TEMPLATE.match(token):
        return "; this is a template's place holder, which has to be filled in first"
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


def _layer_fields() -> dict[str, FieldDescriptor]:
    descriptor: Descriptor = LayerParameter.DESCRIPTOR  # type: ignore[assignment]
    return {field.name: field for field in descriptor.fields if field.name.endswith("_param")}


def blocks_with(field: str) -> dict[str, str]:
    """The blocks of a layer that have a field of this name, by the type that each is for: convolution → convolution_param."""
    fields = (
        (name, block)
        for name, block in _layer_fields().items()
        if block.message_type is not None and field in block.message_type.fields_by_name
    )
    # forks added fields to the block of every data layer, which nobody means who misplaces a layer's own
    ordered = sorted(fields, key=lambda each: (each[0] == _TRANSFORM, each[1].number))
    return {name.removesuffix("_param").replace("_", ""): name for name, _ in ordered}


def place_hint(message: str, field: str, layer_type: str) -> str:
    """Where a field belongs that stands in the layer itself, or in the block of another type; empty where nowhere."""
    blocks = blocks_with(field)
    if message not in ("LayerParameter", "V1LayerParameter") and not message.endswith("Parameter"):
        return ""
    if message == "NetParameter" or not blocks:
        return ""
    own = blocks.get(layer_type.lower()) or _block_of_family(blocks, layer_type)
    if own and message in ("LayerParameter", "V1LayerParameter"):
        return f"; it belongs in `{own} {{ … }}`"
    names = [*blocks.values()][:3]
    if own and len(blocks) > 1:
        names = [own, *(name for name in names if name != own)][:3]
    return f"; it is a field of {', '.join(names)}"


def _block_of_family(blocks: dict[str, str], layer_type: str) -> str:
    """The block of types that share one: Deconvolution has convolution_param."""
    kind = layer_type.lower()
    return next((name for word, name in blocks.items() if word and kind.endswith(word)), "")
