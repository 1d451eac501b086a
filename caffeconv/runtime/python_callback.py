"""What onnxruntime calls, through our library, for the Python layers of a session (ops/python_layer.h)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caffeconv.errors import CaffeconvError, ShapesChangedError
from caffeconv.ir.onnx_builder import OUR_DOMAIN
from caffeconv.python_layers.host import PythonLayer, PythonLayerError, PythonLayerHost
from caffeconv.tensor.shape import FloatArray, Shape, format_shape

if TYPE_CHECKING:
    from onnx import ModelProto

PlannedShapes = tuple[tuple[int | None, ...], ...]


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.POINTER(ctypes.c_float)),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
        ("rank", ctypes.c_size_t),
    )


class _Call(ctypes.Structure):
    pass


_MakeOutput = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(_Call), ctypes.c_size_t, ctypes.POINTER(ctypes.c_int64), ctypes.c_size_t,
    ctypes.POINTER(ctypes.POINTER(ctypes.c_float)),
)  # fmt: skip
_Call._fields_ = (
    ("name", ctypes.c_char_p),
    ("backward", ctypes.c_int),
    ("inputs", ctypes.c_size_t),
    ("input", ctypes.POINTER(_Tensor)),
    ("outputs", ctypes.c_size_t),
    ("make_output", _MakeOutput),
)
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Call))


@dataclass(frozen=True)
class _PythonNode:
    """A Python layer in a model."""

    layer: PythonLayer
    planned_shapes: PlannedShapes
    """The tops' shapes for which the model was made; None where a size is open."""
    ancestors: frozenset[str]
    """Python layers on which this one depends."""
    propagate_down: tuple[bool, ...]


class PythonNodes:
    """The Python layers of one session, and the function that runs them."""

    def __init__(self, model: ModelProto, host: PythonLayerHost, library: str) -> None:
        self._host = host
        self._forward, self._backward = _python_nodes(model, host)
        self._library = ctypes.CDLL(library)
        self._library.caffeconv_set_python_callback.argtypes = [_Callback]
        self._library.caffeconv_set_python_callback.restype = None
        self._callback = _Callback(self._on_call)  # must live as long as the session's kernels
        self._error: BaseException | None = None
        self._shape_errors: dict[str, str] = {}

    @contextmanager
    def called_by_new_kernels(self) -> Iterator[None]:
        """Kernels that are made inside, in this thread, call these layers."""
        self._library.caffeconv_set_python_callback(self._callback)
        try:
            yield
        finally:
            self._library.caffeconv_set_python_callback(_Callback())

    def begin_run(self, *, same_pass: bool) -> None:
        self._error = None
        self._shape_errors = {}
        if not same_pass:
            self._host.begin_pass()

    def end_run(self) -> None:
        """Raises what went wrong in a layer, or ShapesChangedError."""
        error, self._error = self._error, None
        if error is not None and not isinstance(error, ShapesChangedError):
            raise error
        if self._shape_errors:
            raise ShapesChangedError(
                f"{next(iter(self._shape_errors.values()))}. caffeconv.Net adapts to what such a layer makes"
            )

    def _on_call(self, pointer: ctypes._Pointer[_Call]) -> int:
        try:
            self._run(pointer)
        except BaseException as error:  # no exception crosses into onnxruntime; `end_run` raises it
            self._error = error
            return 1
        return 0

    def _run(self, pointer: ctypes._Pointer[_Call]) -> None:
        call = pointer.contents
        name = call.name.decode()
        inputs = [_array(call.input[i]) for i in range(call.inputs)]
        if call.backward:
            node = self._backward[name]
            with _error_context(node.layer):
                diffs = node.layer.backward(inputs[: len(node.layer.tops)], node.propagate_down)
            _write_outputs(pointer, diffs)
            return
        node = self._forward[name]
        if node.ancestors & self._shape_errors.keys():
            raise ShapesChangedError(f"{node.layer.where}: its bottoms come from a model for other shapes")
        number = len(inputs) - len(node.layer.param_shapes())
        with _error_context(node.layer):
            tops = node.layer.forward(inputs[:number], inputs[number:])
        if not _fits([top.shape for top in tops], node.planned_shapes):
            shapes = ", ".join(format_shape(top.shape) for top in tops)
            self._shape_errors[name] = f"{node.layer.where}: its tops are {shapes}, other than its reshape had said"
        _write_outputs(pointer, tops)


def _python_nodes(model: ModelProto, host: PythonLayerHost) -> tuple[dict[str, _PythonNode], dict[str, _PythonNode]]:
    """The nodes Python and PythonGrad of a model, by the attribute `name`."""
    nodes: dict[bool, dict[str, _PythonNode]] = {False: {}, True: {}}
    ancestors: dict[str, frozenset[str]] = {}
    for proto in model.graph.node:
        node_ancestors = frozenset[str]().union(*(ancestors.get(value, ()) for value in proto.input))
        if proto.domain == OUR_DOMAIN and proto.op_type in ("Python", "PythonGrad"):
            attributes = {attribute.name: attribute for attribute in proto.attribute}
            name = attributes["name"].s.decode()
            if name not in host.layers:
                raise CaffeconvError(f"{name}: the model has a Python layer of another net")
            planned_shapes = _shapes_in(attributes["top_shapes"].s.decode()) if "top_shapes" in attributes else ()
            propagate_down = attributes["propagate_down"].ints if "propagate_down" in attributes else ()
            backward = proto.op_type == "PythonGrad"
            nodes[backward][name] = _PythonNode(
                host.layers[name], planned_shapes, node_ancestors, tuple(map(bool, propagate_down))
            )
            node_ancestors |= {name}
        ancestors.update(dict.fromkeys(proto.output, node_ancestors))
    return nodes[False], nodes[True]


def _shapes_in(text: str) -> PlannedShapes:
    """``6x3 ?x3 scalar`` as shapes."""
    return tuple(
        tuple(None if dim == "?" else int(dim) for dim in shape.split("x")) if shape != "scalar" else ()
        for shape in text.split()
    )


def _fits(shapes: Sequence[Shape], planned_shapes: PlannedShapes) -> bool:
    return all(
        len(shape) == len(planned_shape) and all(b in (a, None) for a, b in zip(shape, planned_shape, strict=True))
        for shape, planned_shape in zip(shapes, planned_shapes, strict=True)
    )


@contextmanager
def _error_context(layer: PythonLayer) -> Iterator[None]:
    """Names the layer in what goes wrong inside."""
    try:
        yield
    except PythonLayerError as error:
        raise PythonLayerError(f"{layer.where}: {error}") from error.__cause__


def _array(tensor: _Tensor) -> FloatArray:
    """The values of an input where they lie; they must not be kept."""
    shape = tuple(tensor.dims[i] for i in range(tensor.rank))
    if 0 in shape:
        return np.zeros(shape, np.float32)
    return np.ctypeslib.as_array(tensor.data, shape)


def _write_outputs(pointer: ctypes._Pointer[_Call], outputs: Sequence[FloatArray]) -> None:
    """Copies arrays into the node's outputs."""
    call = pointer.contents
    for index, values in enumerate(outputs):
        dims = (ctypes.c_int64 * max(values.ndim, 1))(*values.shape)
        memory = ctypes.POINTER(ctypes.c_float)()
        if call.make_output(pointer, index, dims, values.ndim, ctypes.byref(memory)):
            raise CaffeconvError(f"{call.name.decode()}: onnxruntime has no memory for {format_shape(values.shape)}")
        if values.size:
            np.ctypeslib.as_array(memory, values.shape)[...] = values
