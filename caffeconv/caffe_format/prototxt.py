"""Reads protobuf's text format into a message, with the line of every layer and every field that the schema lacks.

protobuf's own reader stops at the first unknown field and knows no layers; people with a net from a fork need the whole
list, with the layer and the nearest known name. The grammar is that of protobuf's TextFormat.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

import caffeconv.caffe_pb2 as caffe_pb2
from caffeconv.caffe_format.foreign_files import HEAD, decoded, may_be_caffemodel, refuse_foreign
from caffeconv.caffe_format.small_files import read_bytes
from caffeconv.caffe_format.syntax_hints import (
    block_hint,
    meant_field,
    next_layer,
    place_hint,
    token_hint,
    value_hint,
    values_hint,
)
from caffeconv.caffe_format.terms import ExtraValue
from caffeconv.errors import MOST_TOLD, CaffeconvError, near_name

MAX_DEPTH = 64
MOST_FAULTS = 10
"""Faults of syntax that are told at once."""
TOKEN = re.compile(
    r"""(?P<space>(?:\s+|\#[^\n]*)+)
      | (?P<name>[A-Za-z_][A-Za-z0-9_.]*)
      | (?P<number>(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)[fF]?)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<mark>[{}<>\[\]:;,\-/])""",
    re.VERBOSE,
)
"""A token of text format, its kind the name of its group."""
CLOSING = {"{": "}", "<": ">"}
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|(.))", re.DOTALL)
_ESCAPED = dict(zip(b"abfnrtv\\'\"?", b"\a\b\f\n\r\t\v\\'\"?", strict=True))
MOST_SUGGESTIONS = 100
_DIGITS = re.compile("[0-9]{1,10}")
_INT_RANGE = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}
_V1_TYPE = "caffe.V1LayerParameter.type"
_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_TRUTH = {"true": True, "True": True, "t": True, "1": True, "false": False, "False": False, "f": False, "0": False}
Scalar = int | float | bool | str | bytes


@dataclass(frozen=True)
class UnknownField:
    """A field that the schema lacks: its line, the layer it stands in and the nearest known name."""

    line: int
    layer: str
    message: str
    field: str
    nearest: str = ""
    layer_type: str = ""
    layer_line: int = 0
    """The line of the layer that it stands in; 0: in none."""

    def __str__(self) -> str:
        layer = f"layer '{self.layer}': " if self.layer else ""
        near = f"; did you mean `{self.nearest}`?" if self.nearest else ""
        hint = near or place_hint(self.message, self.field, self.layer_type)
        return f"line {self.line}: {layer}{self.message} has no field named `{self.field}`{hint}"


def unknown_field_lines(fields: Iterable[UnknownField]) -> list[str]:
    """A line for each message and field, with the first place and the number of all."""
    places: dict[tuple[str, str], list[UnknownField]] = {}
    for unknown in fields:
        places.setdefault((unknown.message, unknown.field), []).append(unknown)
    lines = [
        f"{first}" + (f"; the first of {len(more) + 1} places" if more else "") for first, *more in places.values()
    ]
    left_out = len(lines) - MOST_TOLD
    return [*lines[:MOST_TOLD], f"… and {left_out} more fields"] if left_out > 0 else lines


def refuse_unknown_fields(fields: Collection[UnknownField], path: Path | None, types: Collection[str] = ()) -> None:
    """Raises CaffeconvError that lists the fields, if there are any, and beside them `types` that are not known either."""
    if fields:
        lines = "\n  ".join(unknown_field_lines(fields))
        more = f"\n  Layer types that are not known either: {', '.join(types)}." if types else ""
        raise CaffeconvError(
            f"{path or 'net'}: fields that the schema does not have (a dropped field can change the result):\n  {lines}\n"
            f"  Correct them, or continue without them with `ignore_unknown_fields=True`.{more}"
        )


@dataclass(frozen=True)
class NetSource:
    """A net as read. ``lines`` gives the line of each ``layer`` (or old ``layers``) in order, 0 where unknown."""

    net: caffe_pb2.NetParameter
    lines: tuple[int, ...]
    path: Path | None
    directory: Path
    dropped: tuple[UnknownField, ...] = ()
    extra: Mapping[int, Mapping[str, ExtraValue]] = field(default_factory=dict)
    """Line of a layer → its fields that the schema lacks."""


def read_text(path: Path, what: str = "a net definition") -> str:
    """The text of a prototxt, a net definition or another; CaffeconvError where the file is something else."""
    content = read_bytes(path, f"{what} (prototxt)")
    refuse_foreign(path, content[:HEAD], f"{what} (prototxt)")
    text = decoded(content)
    if "\0" in text:
        is_model = may_be_caffemodel(content)
        advice = ": give the prototxt first, then the weights" if what == "a net definition" else ""
        hint = f" It looks like a caffemodel{advice}." if is_model else ""
        raise CaffeconvError(f"{path}: binary data; {what} in text form (prototxt) was needed.{hint}")
    if len(re.sub("#.*", "", text).split()) > 1 and not re.search("[{}:=<]", text):
        raise CaffeconvError(
            f"{path}: this is plain text; {what} (prototxt), made of `name: value` and `layer {{ … }}`, was needed"
        )
    return text


def read_prototxt(
    path: Path, *, ignore_unknown_fields: bool = False, extra_fields: Mapping[str, Collection[str]] | None = None,
    types: Collection[str] | None = None,
) -> NetSource:  # fmt: skip
    """Reads a net definition; raises CaffeconvError that lists every field the schema lacks.

    `extra_fields` (layer type → fields) are known to the caller, though the schema lacks them. `types`: the layer types
    whose fields count, where the caller builds the net: a layer of another type is refused itself, or not needed.
    """
    text = read_text(path)
    net = caffe_pb2.NetParameter()
    parser = _Parser(text, str(path))
    parser.read(net)
    _refuse_solver(text, net, parser, path)
    known_fields = extra_fields or {}
    unknown = [
        u for u in parser.unknown
        if (u.message != "LayerParameter" or u.field not in known_fields.get(u.layer_type, ()))
        and (types is None or not u.layer_type or u.layer_type in types)
    ]  # fmt: skip
    if not ignore_unknown_fields:
        refuse_unknown_fields(unknown, path)
    return NetSource(net, tuple(parser.layer_lines), path, path.parent, tuple(unknown), parser.extra)


_SOLVER_FIELDS = (
    "net", "train_net", "net_param", "train_net_param", "test_net", "base_lr", "lr_policy", "max_iter", "solver_mode"
)  # fmt: skip
"""Of these a solver's file has at least one, and a net none."""
_SOLVER_FIELD = re.compile(rf"(?<![\w\"'])(?:{'|'.join(_SOLVER_FIELDS)})\s*[:{{<]")


@dataclass(frozen=True)
class SolverSource:
    """A solver as read. ``lines``: field → the line of each of its values, in order."""

    solver: caffe_pb2.SolverParameter
    lines: Mapping[str, tuple[int, ...]]
    path: Path


def read_solver_prototxt(path: Path) -> SolverSource:
    """Reads a solver's file; raises CaffeconvError where it is none, and that lists every field the schema lacks."""
    text = read_text(path, "a solver's file")
    solver = caffe_pb2.SolverParameter()
    parser = _Parser(text, str(path))
    parser.read(solver)
    if parser.unknown and not solver.ListFields() and _is_net(text):
        raise CaffeconvError(f"{path}: this is a net; the solver's file that names it as its `net` was needed")
    if parser.unknown:
        lines = "\n  ".join(unknown_field_lines(parser.unknown))
        raise CaffeconvError(f"{path}: fields that the schema does not have:\n  {lines}")
    return SolverSource(solver, {name: tuple(lines) for name, lines in parser.field_lines.items()}, path)


def is_solver(path: Path) -> bool:
    """Whether a file is a solver's: text that has a solver's fields and no layers of a net."""
    solver = caffe_pb2.SolverParameter()
    try:
        text = read_text(path)
        if _SOLVER_FIELD.search(text) is None:  # a net, of any size, is parsed once, by whoever wants it
            return False
        parser = _Parser(text, str(path))
        parser.read(solver)
    except CaffeconvError:
        return False
    fields = {descriptor.name for descriptor, _ in solver.ListFields()}
    has_net_fields = any(unknown.field in ("layer", "layers", "input") for unknown in parser.unknown)
    return not has_net_fields and not fields.isdisjoint(_SOLVER_FIELDS)


def solver_nets(path: Path) -> list[str]:
    """The nets that a solver's file names, as written there; CaffeconvError where its text cannot be read."""
    _Parser(read_text(path), str(path)).read(solver := caffe_pb2.SolverParameter())
    return _net_names(solver)


def _net_names(solver: caffe_pb2.SolverParameter) -> list[str]:
    return [name for name in (solver.net or solver.train_net, *solver.test_net) if name]


def _is_net(text: str) -> bool:
    return re.search(r"^\s*layers?\s*\{", text, re.MULTILINE) is not None


def _refuse_solver(text: str, net: caffe_pb2.NetParameter, parser: _Parser, path: Path) -> None:
    """Raises CaffeconvError for a solver's file where a net was needed, and points to its net."""
    fields = caffe_pb2.SolverParameter.DESCRIPTOR.fields_by_name
    solver_fields = [u for u in parser.unknown if u.message == "NetParameter" and u.field in fields]
    if net.layer or net.layers or not solver_fields:
        return
    solver = caffe_pb2.SolverParameter()
    try:
        _Parser(text, str(path)).read(solver)
    except CaffeconvError:
        return
    names = " and ".join(_net_names(solver))
    where = f"it trains {names}: give that file instead" if names else "the net that it trains was needed"
    raise CaffeconvError(
        f"{path}: this is a solver's file, not a net; {where}. `caffeconv train` takes the solver's file itself, and "
        "`caffeconv inspect` explains it"
    )


def parse_text(text: str, message: Message, where: str) -> None:
    """Reads text format into `message`; raises CaffeconvError on any fault."""
    parser = _Parser(text, where)
    parser.read(message)
    if parser.unknown:
        raise CaffeconvError(f"{where}: " + "; ".join(str(unknown) for unknown in parser.unknown))


class _Parser:
    def __init__(self, text: str, where: str) -> None:
        self.text = text
        self.where = where
        self.unknown: list[UnknownField] = []
        self.layer_lines: list[int] = []
        self.field_lines: dict[str, list[int]] = {}
        """Field of the outermost message → the line of each of its values."""
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._position = 0
        self._kind = ""
        self._token = ""
        self._start = 0
        self.extra: dict[int, dict[str, ExtraValue]] = {}
        self._layer_unknown: list[tuple[int, str, str, str]] = []
        self._layer_extra: dict[str, ExtraValue] = {}
        self._open: list[tuple[str, int]] = []
        """The blocks that are open: name and line."""
        self._fault_start = -1
        self._previous = ""
        self._advance()

    def read(self, message: Message) -> None:
        """Reads the whole text; raises CaffeconvError with all faults of syntax, at most one for each layer."""
        faults: list[str] = []
        while True:
            try:
                self._message(message, "", 0)
                break
            except CaffeconvError as fault:
                faults.append(str(fault))
            if len(faults) == MOST_FAULTS or not self._go_to_next_layer():
                break
        if faults:
            raise CaffeconvError("\n  ".join(dict.fromkeys(faults)))
        missing: list[str] = message.FindInitializationErrors()  # type: ignore[attr-defined]
        if missing:
            raise CaffeconvError(f"{self.where}: required fields are missing: {', '.join(missing)}")

    def _go_to_next_layer(self) -> bool:
        """Goes on with the next layer after a fault; False where there is none, or the fault goes to the end."""
        position = next_layer(self.text, max(self._start, self._fault_start + 1))
        if position is None:
            return False
        self._position, self._fault_start = position, position
        self._open.clear()
        self._layer_unknown.clear()
        self._layer_extra = {}
        try:
            self._advance()
        except CaffeconvError:
            return False
        return True

    def _line(self, position: int) -> int:
        return bisect_right(self._line_starts, position)

    def _fail(self, what: str, hint: str = "") -> CaffeconvError:
        line = self._line(self._start)
        column = self._start - self._line_starts[line - 1] + 1
        sign = "-" if self._kind == "number" and self._previous == "-" else ""
        token = f"`{sign}{self._token[:40]}`" if self._token else "the end of the file"
        self._fault_start = self._start
        hint = hint or token_hint(self.text, self._start)
        return CaffeconvError(f"{self.where}:{line}:{column}: {what}, found {token}{hint}")

    def _fail_value(self, field: FieldDescriptor, what: str) -> CaffeconvError:
        """That a value is none for a field, with what was probably meant."""
        hint = value_hint(field, self._kind, self._token, self._previous)
        line = self._open[0][1] if self._open else 0
        return self._fail(f"{field.name}: {what}", hint.replace("{line}", str(line)))

    def _unclosed(self) -> str:
        """Which block was never closed."""
        if not self._open:
            return ""
        name, line = self._open[-1]
        return f"; the `{name} {{` of line {line} is not closed"

    def _advance(self) -> str:
        token = self._previous = self._token
        while True:
            match = TOKEN.match(self.text, self._position)
            if match is None:
                self._start = self._position
                self._token = self.text[self._position : self._position + 1]
                self._kind = "end"
                if self._token:
                    raise self._fail("this is not text format")
                return token
            self._start, self._position = match.span()
            self._kind = match.lastgroup or ""
            if self._kind != "space":
                self._token = match.group()
                return token

    def _expect(self, mark: str) -> None:
        if self._token != mark or self._kind != "mark":
            raise self._fail(f"expected `{mark}`")
        self._advance()

    def _take(self, mark: str) -> bool:
        if self._kind == "mark" and self._token == mark:
            self._advance()
            return True
        return False

    def _message(self, message: Message, closing: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self._fail(f"messages nested more than {MAX_DEPTH} deep")
        fields: Mapping[str, FieldDescriptor] = message.DESCRIPTOR.fields_by_name  # type: ignore[assignment]
        while not (self._kind == "end" if not closing else self._kind == "mark" and self._token == closing):
            if self._kind != "name":
                raise self._no_field(closing)
            if depth > 0 and self._token in ("layer", "layers") and self._token not in fields:
                raise self._fail("expected `}` before the next layer", self._unclosed())
            start, name = self._start, self._advance()
            descriptor = fields.get(name)
            if descriptor is None:
                self._note_unknown(message.DESCRIPTOR.name, fields, start, name, depth)
                value = self._any_value(depth)
                if depth == 1:
                    _add(self._layer_extra, name, value)
            else:
                self._field(message, descriptor, start, depth)
            if not self._take(";"):
                self._take(",")
        if closing:
            self._advance()

    def _no_field(self, closing: str) -> CaffeconvError:
        if closing:
            hint = self._unclosed() if self._kind == "end" else values_hint(self._kind, self._previous)
            return self._fail(f"expected a field name or `{closing}`", hint)
        hint = "; everything before it is closed, so there is one too many" if self._token == "}" else ""
        return self._fail("expected a field name", hint)

    def _note_unknown(self, message: str, fields: Iterable[str], start: int, name: str, depth: int) -> None:
        is_early = len(self.unknown) + len(self._layer_unknown) < MOST_SUGGESTIONS
        entry = (self._line(start), message, name, meant_field(name, fields) if is_early else "")
        if depth == 0:
            self.unknown.append(UnknownField(entry[0], "", *entry[1:]))
        else:
            self._layer_unknown.append(entry)

    def _field(self, message: Message, descriptor: FieldDescriptor, start: int, depth: int) -> None:
        name, repeated = descriptor.name, is_repeated(descriptor)
        if depth == 0:
            self.field_lines.setdefault(name, []).append(self._line(start))
        if not repeated and message.HasField(name):
            self._start = start
            self._token = name
            raise self._fail(f'Non-repeated field "{name}" is specified multiple times')
        if descriptor.message_type is not None:
            self._take(":")
            values = self._elements(repeated, lambda: self._child(message, descriptor, repeated, start, depth))
            return
        self._expect(":")
        values = self._elements(repeated, lambda: self._scalar(descriptor))
        try:
            if repeated:
                getattr(message, name).extend(values)
            else:
                setattr(message, name, values[0])
        except ValueError as error:  # protobuf's own limits
            raise self._fail(f"{name}: {error}") from None

    def _elements(self, repeated: bool, one: Callable[[], Scalar]) -> list[Scalar]:
        if not (repeated and self._take("[")):
            return [one()]
        values: list[Scalar] = []
        while not self._take("]"):
            values.append(one())
            if not (self._kind == "mark" and self._token == "]"):
                self._expect(",")
        return values

    def _child(self, message: Message, field: FieldDescriptor, repeated: bool, start: int, depth: int) -> Scalar:
        if self._token not in CLOSING or self._kind != "mark":
            raise self._fail("expected `{`", block_hint(field))
        closing = CLOSING[self._advance()]
        child = getattr(message, field.name)
        if repeated:
            child = child.add()
        else:
            child.SetInParent()
        is_layer = depth == 0 and field.name in ("layer", "layers")
        if is_layer:
            self.layer_lines.append(self._line(start))
        self._open.append((field.name, self._line(start)))
        self._message(child, closing, depth + 1)
        self._open.pop()
        if depth == 0:
            name = (child.name or child.layer.name if field.name == "layers" else child.name) if is_layer else ""
            kind = child.type if field.name == "layer" else ""
            self.unknown += [
                UnknownField(line, name, message, unknown, nearest, kind, self._line(start) if is_layer else 0)
                for line, message, unknown, nearest in self._layer_unknown
            ]
            self._layer_unknown.clear()
            if is_layer and self._layer_extra:
                self.extra[self._line(start)] = self._layer_extra
            self._layer_extra = {}
        return 0

    def _scalar(self, field: FieldDescriptor) -> Scalar:
        kind = field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_STRING:
            if self._kind != "string":
                hint = value_hint(field, self._kind, self._token, self._previous)
                raise self._fail('expected a string in quotes ("…")', hint)
            return self._string(as_bytes=field.type == FieldDescriptor.TYPE_BYTES)
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            if self._token not in _TRUTH:
                raise self._fail_value(field, "expected true or false")
            return _TRUTH[self._advance()]
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            return self._enum(field)
        sign = -1 if self._take("-") else 1
        return sign * self._float(field) if kind in _FLOATS else self._integer(field, sign)

    def _enum(self, field: FieldDescriptor) -> int:
        assert field.enum_type is not None
        values = field.enum_type.values_by_name
        if (
            self._kind == "number"
            and _DIGITS.fullmatch(self._token)
            and int(self._token) in field.enum_type.values_by_number
        ):
            return int(self._advance())
        if self._token not in values and self._kind == "name" and field.full_name == _V1_TYPE:
            self._layer_extra["type"] = self._advance()  # a fork's, which counts as a type that nobody knows
            return 0
        if self._token not in values:
            near = near_name(self._token, values)
            hint = f" (did you mean {near}?)" if near else ""
            listed = ", ".join(values) if len(values) <= 12 else f"a value of {field.enum_type.name}"
            raise self._fail_value(field, f"expected {listed}{hint}")
        return values[self._advance()].number

    def _integer(self, field: FieldDescriptor, sign: int) -> int:
        text = self._token
        base = 16 if text[:2] in ("0x", "0X") else 8 if len(text) > 1 and text[0] == "0" else 10
        try:
            value = sign * int(text, base)
        except ValueError:
            raise self._fail_value(field, "expected an integer") from None
        low, high = _INT_RANGE[field.cpp_type]
        if self._kind != "number" or not low <= value <= high:
            raise self._fail_value(field, f"expected an integer in {low}…{high}")
        self._advance()
        return value

    def _float(self, field: FieldDescriptor) -> float:
        text = self._token.lower()
        if self._kind == "name" and text in ("inf", "infinity", "nan", "inff", "nanf"):
            self._advance()
            return float(text.removesuffix("f") if text in ("inff", "nanf") else text)
        if self._kind != "number":
            raise self._fail_value(field, "expected a number")
        try:
            value = float(int(text, 16)) if text.startswith("0x") else float(text.removesuffix("f"))
        except (ValueError, OverflowError):
            raise self._fail_value(field, "expected a number") from None
        self._advance()
        return value

    def _string(self, *, as_bytes: bool) -> str | bytes:
        parts = []
        while self._kind == "string":
            parts.append(_ESCAPE.sub(_unescape, self._advance()[1:-1].encode()))
        raw = b"".join(parts)
        return raw if as_bytes else raw.decode("utf-8", "replace")

    def _any_value(self, depth: int) -> ExtraValue:
        """The value of a field that the schema lacks, whatever it is."""
        if depth > MAX_DEPTH:
            raise self._fail(f"messages nested more than {MAX_DEPTH} deep")
        had_colon = self._take(":")
        if self._kind == "mark" and self._token in CLOSING:
            return self._any_message(CLOSING[self._advance()], depth)
        if not had_colon:
            raise self._fail("expected `:` or `{`")
        if not self._take("["):
            return self._any_scalar()
        values: list[ExtraValue] = []
        while not self._take("]"):
            is_message = self._kind == "mark" and self._token in CLOSING
            values.append(self._any_message(CLOSING[self._advance()], depth) if is_message else self._any_scalar())
            if not (self._kind == "mark" and self._token == "]"):
                self._expect(",")
        return values

    def _any_message(self, closing: str, depth: int) -> dict[str, ExtraValue]:
        fields: dict[str, ExtraValue] = {}
        while not self._take(closing):
            if self._kind != "name":
                raise self._fail(f"expected a field name or `{closing}`")
            name = self._advance()
            _add(fields, name, self._any_value(depth + 1))
            if not self._take(";"):
                self._take(",")
        return fields

    def _any_scalar(self) -> ExtraValue:
        if self._kind == "string":
            return str(self._string(as_bytes=False))
        sign = -1 if self._take("-") else 1
        if self._kind == "name":
            word = self._advance()
            return word if sign == 1 else f"-{word}"
        if self._kind != "number":
            raise self._fail("expected a value")
        text = self._advance()
        try:
            return sign * int(text, 0)
        except ValueError:  # one with a point, or with more digits than Python takes
            return sign * float(text.rstrip("fF"))


def _add(fields: dict[str, ExtraValue], name: str, value: ExtraValue) -> None:
    """Adds a field; one given several times becomes a list."""
    if name not in fields:
        fields[name] = value
        return
    current = fields[name]
    more = value if isinstance(value, list) else [value]
    if isinstance(current, list):
        current += more
    else:
        fields[name] = [current, *more]


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether a field is repeated, on every protobuf runtime from 4 on (`label` goes away in newer ones)."""
    known = getattr(field, "is_repeated", None)
    return known if isinstance(known, bool) else field.label == FieldDescriptor.LABEL_REPEATED  # type: ignore[attr-defined]


def _unescape(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, letter = match.groups()
    if octal is not None:
        return bytes([int(octal, 8) & 0xFF])
    if hexadecimal is not None:
        return bytes([int(hexadecimal, 16)])
    return bytes([_ESCAPED.get(letter[0], letter[0])])
