"""Nets written in Python: `layers`, `params` and `NetSpec` (caffe: python/caffe/net_spec.py)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from google.protobuf.message import Message

import caffeconv.caffe_pb2 as caffe_pb2
from caffeconv.caffe_pb2 import LayerParameter, NetParameter
from caffeconv.errors import CaffeconvError
from caffeconv.pycaffe.errors import PycaffeTypeError

Value = object
"""What a field is given: a number, a string, a dict for a message, a list for a field that is repeated."""


def param_name_dict() -> dict[str, str]:
    """Layer type → the name of its message: ``{"Convolution": "convolution", …}``."""
    names: dict[str, str] = {}
    for field in LayerParameter.DESCRIPTOR.fields:
        if field.name.endswith("_param") and field.message_type is not None:
            # forks use a message of Caffe's for types of their own; Caffe's comes first
            names.setdefault(field.message_type.name.removesuffix("Parameter"), field.name.removesuffix("_param"))
    return names


def assign_proto(proto: Message, name: str, val: Value) -> None:
    """Sets a field: a dict fills a message, a list a repeated field, and one value alone is a list of one there."""
    field = getattr(proto, name)
    if hasattr(field, "extend") and not isinstance(val, (list, tuple)):
        val = [val]
    if isinstance(val, Mapping):
        for key, value in val.items():
            assign_proto(field, key, value)
    elif not isinstance(val, (list, tuple)):
        setattr(proto, name, val)
    elif val and isinstance(val[0], Mapping):
        for item in val:
            item_message = field.add()
            for key, value in item.items():
                assign_proto(item_message, key, value)
    else:
        field.extend(val)


def to_proto(*tops: Top) -> NetParameter:
    """The net that makes these tops; blobs and layers are named after their types."""
    naming = _Naming({})
    for top in tops:
        top.fn.write(naming)
    return naming.net()


class Top:
    """One top of a layer: what other layers take as a bottom."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn = fn
        self.n = n

    def to_proto(self) -> NetParameter:
        """The net that makes this top."""
        return to_proto(self)


class Function:
    """A layer: its type, its bottoms, and its fields; `tops` are what it makes.

    `ntop` (1) and `in_place` (False) among the params are no fields.
    """

    def __init__(self, type_name: str, inputs: tuple[object, ...], params: dict[str, Value]) -> None:
        for index, bottom in enumerate(inputs):
            if not isinstance(bottom, Top):
                raise PycaffeTypeError(f"{type_name} input {index} is not a Top (type is {type(bottom)})")
        self.type_name = type_name
        self.inputs = tuple(bottom for bottom in inputs if isinstance(bottom, Top))
        self.params = dict(params)
        ntop = self.params.pop("ntop", 1)
        if not isinstance(ntop, int) or ntop < 0:
            raise PycaffeTypeError(f"{type_name}: ntop is {ntop!r}; a number of tops was needed")
        self.ntop = ntop
        self.in_place = bool(self.params.pop("in_place", False))
        self.tops = tuple(Top(self, n) for n in range(ntop))

    def write(self, naming: _Naming) -> None:
        """Adds this layer, after those that it depends on."""
        if self in naming.layers:
            return
        for bottom in self.inputs:
            bottom.fn.write(naming)
        layer = LayerParameter(type=self.type_name)
        layer.bottom.extend(naming.layers[bottom.fn].top[bottom.n] for bottom in self.inputs)
        layer.top.extend(layer.bottom if self.in_place else [naming.of_top(top) for top in self.tops])
        layer.name = naming.of_layer(self)
        for name, value in self.params.items():
            self._assign(layer, name, value)
        naming.layers[self] = layer

    def _assign(self, layer: LayerParameter, name: str, value: Value) -> None:
        own = f"{_PARAM_NAMES.get(self.type_name, '')}_param"
        # caffe: whatever ends in "param" is the layer's own field, anything else first its message's
        proto: Message = layer
        if not name.endswith("param") and own in layer.DESCRIPTOR.fields_by_name:
            message: Message = getattr(layer, own)
            proto = message if name in message.DESCRIPTOR.fields_by_name else layer
        if name not in proto.DESCRIPTOR.fields_by_name:
            where = f"{own} and the layer itself have" if own != "_param" else "the layer has"
            raise CaffeconvError(f"{self.type_name}: {where} no field named '{name}'")
        try:
            assign_proto(proto, name, value)
        except (AttributeError, TypeError, ValueError) as error:
            raise PycaffeTypeError(f"{self.type_name}: {name}={value!r}: {error}") from None


LayerResult = Top | tuple[Top, ...] | Function
"""What a layer gives: its only top, its tops, or the layer itself where it has none."""


class _Naming:
    """The layers of a net in the making, and the names of its blobs and layers."""

    def __init__(self, names: Mapping[object, str]) -> None:
        self.layers: dict[Function, LayerParameter] = {}
        self._names: dict[object, str] = dict(names)
        self._numbers: Counter[str] = Counter()

    def of_top(self, top: Top) -> str:
        if top not in self._names:
            self._names[top] = self._next(top.fn.type_name)
        return self._names[top]

    def of_layer(self, layer: Function) -> str:
        if layer not in self._names:
            self._names[layer] = self.of_top(layer.tops[0]) if layer.tops else self._next(layer.type_name)
        return self._names[layer]

    def _next(self, type_name: str) -> str:
        self._numbers[type_name] += 1
        return f"{type_name}{self._numbers[type_name]}"

    def net(self) -> NetParameter:
        return NetParameter(layer=self.layers.values())


class NetSpec:
    """A net whose blobs are named as they are assigned: ``n.conv1 = L.Convolution(n.data, kernel_size=5, …)``."""

    tops: dict[str, Top | Function]

    def __init__(self) -> None:
        super().__setattr__("tops", {})

    def __setattr__(self, name: str, value: LayerResult) -> None:
        self[name] = value

    def __getattr__(self, name: str) -> Top | Function:
        if name == "tops" or name.startswith("__"):  # copy asks before there is anything
            raise AttributeError(name)
        if name not in self.tops:
            raise AttributeError(f"the net has no blob '{name}' yet; it has {', '.join(self.tops) or 'none'}")
        return self.tops[name]

    def __setitem__(self, name: str, value: LayerResult) -> None:
        if isinstance(value, tuple):
            raise PycaffeTypeError(f"{name}: {len(value)} tops; a name for each was needed: n.a, n.b = …")
        self.tops[name] = value

    def __getitem__(self, name: str) -> Top | Function:
        return self.tops[name]

    def __delitem__(self, name: str) -> None:
        del self.tops[name]

    def __delattr__(self, name: str) -> None:
        del self.tops[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tops)

    def keys(self) -> list[str]:
        """The names of the blobs."""
        return list(self.tops)

    def vals(self) -> list[Top | Function]:
        """The blobs."""
        return list(self.tops.values())

    def update(self, name: str, params: Mapping[str, Value]) -> None:
        """Sets further fields of the layer that makes a blob."""
        _layer_of(self.tops[name]).params.update(params)

    def to_proto(self) -> NetParameter:
        """The net that makes all blobs assigned, as a message; ``str()`` of it is the prototxt."""
        naming = _Naming({top: name for name, top in self.tops.items()})
        for top in self.tops.values():
            _layer_of(top).write(naming)
        return naming.net()


def _layer_of(top: Top | Function) -> Function:
    return top if isinstance(top, Function) else top.fn


class Layers:
    """Layer types by name: ``layers.Convolution(bottom, …, field=value, …)`` gives the layer's top.

    A tuple of tops with `ntop=2` or more, the layer itself with `ntop=0`.
    """

    def __getattr__(self, name: str) -> Callable[..., LayerResult]:
        if name.startswith("__"):
            raise AttributeError(name)

        def layer(*bottoms: Top, **params: Value) -> LayerResult:
            function = Function(name, bottoms, params)
            return function if not function.tops else function.tops[0] if function.ntop == 1 else function.tops

        return layer


class _Enums:
    """The values that a message's fields may have."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, value: str) -> int:
        message = getattr(caffe_pb2, f"{self._name}Parameter", None)
        if message is None or not hasattr(message, value):
            raise AttributeError(f"params.{self._name}.{value}: Caffe's schema has no such value")
        return int(getattr(message, value))


class Parameters:
    """Values of enums by layer type: ``params.Pooling.MAX``."""

    def __getattr__(self, name: str) -> _Enums:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Enums(name)


_PARAM_NAMES = param_name_dict()
layers = Layers()
params = Parameters()
