"""Layers that the user wrote in Python (caffe: python_layer.hpp)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caffeconv.errors import Diagnostic, LayerError, OutsideError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, at_least
from caffeconv.python_layers.host import PythonLayer, PythonLayerError, PythonModuleError, PythonParam
from caffeconv.tensor.shape import Dims, FloatArray, Shape, Shapes

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.data.hdf5_sink import DataSink
    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class FromSetup(Filler):
    """The values that the layer's own `setup` puts into a parameter."""

    type: str = "of its setup"
    values: FloatArray = field(default_factory=lambda: np.zeros((), np.float32), compare=False)

    @property
    def is_random(self) -> bool:
        return False

    def fill(self, shape: Shape, rng: np.random.Generator) -> FloatArray:
        values: FloatArray = self.values.reshape(shape)
        return values


@dataclass(frozen=True)
class Python(Layer):
    """A class of the user's, imported and run only where the caller allows it; any bottoms, tops and parameters.

    In ONNX a node `Python` of our domain, which a session of caffeconv runs: inputs the bottoms, then the parameters;
    outputs the tops; attributes `name`, `module`, `layer`, `param_str`, and `top_shapes` as `reshape` says them.
    """

    bottoms: ClassVar[Arity] = at_least(0)
    tops: ClassVar[Arity] = at_least(0)
    has_dynamic_shapes: ClassVar[bool] = True
    computes_in_float32: ClassVar[bool] = True

    param: PythonParam
    user: PythonLayer | None = field(default=None, compare=False)
    """The layer itself; None where its code is not to be run."""
    requested: tuple[Shape, ...] | None = None
    """The tops' shapes where the caller asks for them."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.python_param
        if not p.module or not p.layer:
            raise LayerError(
                "no module or no layer is given; python_param { module: 'file' layer: 'Class' } was needed"
            )
        in_place = tuple(layer.bottoms.index(top) if top in layer.bottoms else None for top in layer.tops)
        param = PythonParam(p.module, p.layer, p.param_str, layer.phase, in_place)
        code = layer.python_host
        return cls(param, None if code is None else code.layer(layer.name, layer.where, layer.top_values, param))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if self.requested is not None and self.user is None:
            return self.requested
        shapes = self._allowed(bottoms)
        return shapes if self.requested is None else self.requested

    def _allowed(self, bottoms: Shapes) -> tuple[Shape, ...]:
        if self.user is None:
            raise OutsideError(
                f"the layer is Python code (class '{self.param.layer}' of module '{self.param.module}'), and code is "
                "imported and run only where that is allowed: `allow_python=True`. Allow it for code that "
                "you trust, for it can do whatever you can. Without it, convert and inspect need the shape of each of "
                "its tops (`shapes={TOP: (N, …)}`)"
            )
        try:
            return self.user.top_shapes(bottoms)
        except PythonModuleError as error:
            raise OutsideError(str(error)) from error
        except PythonLayerError as error:
            raise LayerError(str(error)) from error

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        if self.user is None:
            return {}
        shapes = self.user.param_shapes()
        if shapes and not self.param.in_place:
            raise LayerError("the layer has parameters but no top; a Python layer with parameters needs a top")
        return {f"blob{i}": shape for i, shape in enumerate(shapes)}

    def fillers(self) -> Mapping[str, Filler]:
        if self.user is None:
            return {}
        number = len(self.user.param_shapes())
        return {f"blob{i}": FromSetup(values=self.user.first_values(i)) for i in range(number)}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if not node.tops:
            return
        shapes = " ".join(_text_of(onnx.dims(top)) for top in node.tops)
        inputs = [*node.bottoms, *(onnx.weight(param.name) for param in node.params)]
        onnx.library_op("Python", inputs, node.tops, top_shapes=shapes, **self._attributes(node))

    def _attributes(self, node: Node) -> dict[str, str]:
        key = self.user.key if self.user is not None else node.name
        return {"name": key, "module": self.param.module, "layer": self.param.layer, "param_str": self.param.param_str}

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        """The user's `backward`; it finds its blobs as the forward pass left them, so that has to come first."""
        diffs = onnx.library_values(
            "PythonGrad", [*top_diffs, *node.tops], len(node.bottoms) + len(node.params), what="backward",
            propagate_down=[int(wanted) for wanted in propagate_down], **self._attributes(node),
        )  # fmt: skip
        bottoms = [diff if wanted else None for diff, wanted in zip(diffs, propagate_down, strict=False)]
        names = [param.name for param in node.params]
        return Gradients(bottoms, dict(zip(names, diffs[len(node.bottoms) :], strict=True)))

    def lint(self, node: Node, sources: Sequence[Node | None]) -> Sequence[Diagnostic]:
        message = (
            "in ONNX this is a node caffeconv.Python, which only caffeconv runs, from the prototxt: "
            "`caffeconv.Net(allow_python=True)`"
        )
        return [Diagnostic("note", node.definition.where, message, layer=node.name)]

    @property
    def open_axis(self) -> int | None:
        return self.user.open_axis if self.user is not None else 0

    def with_tops(self, tops: Sequence[str], shapes: Mapping[str, Shape]) -> Self:
        if not tops or not all(top in shapes for top in tops):
            return self
        return replace(self, requested=tuple(shapes[top] for top in tops))

    @property
    def user_object(self) -> object | None:
        return self.user.object if self.user is not None else None

    def float32_values(self, node: Node) -> frozenset[str]:
        return frozenset((*node.bottoms, *node.tops))  # what they mean only the user knows

    @property
    def mixes_positions(self) -> bool:
        return True

    def data_sink(self) -> DataSink | None:
        return self.user if not self.param.in_place else None


def _text_of(dims: Dims) -> str:
    """``6x3``, ``?x3`` where the number of rows varies, ``scalar``."""
    return "x".join("?" if dim is None else str(dim) for dim in dims) or "scalar"
