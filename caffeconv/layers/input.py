"""Layers whose tops come from no file: from the caller, from fillers, from a parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from caffeconv.caffe_pb2 import BlobShape, LayerParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.filler import Filler
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, at_least, exactly
from caffeconv.layers.weight_layouts import all_as_stored
from caffeconv.tensor.axis_order import AxisOrder, as_caffe
from caffeconv.tensor.shape import Shape, Shapes
from caffeconv.tensor.weight_array import WeightArrays

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Input(Layer):
    """Tops that the caller fills (caffe: input_layer.cpp); one shape for all of them, or one for each."""

    bottoms: ClassVar[Arity] = exactly(0)
    tops: ClassVar[Arity] = at_least(1)
    is_input: ClassVar[bool] = True
    shapes_message: ClassVar[str] = "input_param"

    shapes: tuple[Shape, ...]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        shapes = tuple(tuple(shape.dim) for shape in layer.proto.input_param.shape)
        if len(shapes) not in (0, 1, len(layer.tops)):
            raise LayerError(
                f"{len(shapes)} shapes for {len(layer.tops)} tops; "
                "Must specify 'shape' once, once per top, or not at all"
            )
        if not shapes:
            raise LayerError(
                "no shape is given; add `input_param { shape { dim: … } }`, or name it: `shapes={BLOB: (1, 3, 224, 224)}`"
            )
        return cls(shapes if len(shapes) == len(layer.tops) else shapes * len(layer.tops))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return self.shapes

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        return

    @classmethod
    def with_requested_shapes(cls, layer: LayerDef, shapes: Mapping[str, Shape]) -> LayerDef:
        if not all(top in shapes for top in layer.tops):
            return layer
        proto = LayerParameter()
        proto.CopyFrom(layer.proto)
        del proto.input_param.shape[:]
        proto.input_param.shape.extend(BlobShape(dim=shapes[top]) for top in layer.tops)
        return replace(layer, proto=proto)

    @classmethod
    def label_tops(cls, layer: LayerDef) -> tuple[str, ...]:
        return ()

    @classmethod
    def deploy_shape(cls, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True)
class DummyData(Layer):
    """Tops that a filler fills: constant ones once, random ones anew for each pass (caffe: dummy_data_layer.cpp)."""

    bottoms: ClassVar[Arity] = exactly(0)
    tops: ClassVar[Arity] = at_least(1)
    shapes_message: ClassVar[str] = "dummy_data_param"

    shapes: tuple[Shape, ...]
    data_fillers: tuple[Filler, ...]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.dummy_data_param
        number = len(layer.tops)
        if p.shape and any((p.num, p.channels, p.height, p.width)):
            raise LayerError("Both shape and legacy fields were specified; shape, or num, channels, height and width")
        if p.shape:
            shapes = [tuple(shape.dim) for shape in p.shape]
        else:
            legacy = (p.num, p.channels, p.height, p.width)
            if any(len(dims) not in (1, number) for dims in legacy):
                raise LayerError(
                    "num, channels, height and width must each be given once, or once per top; or use `shape`"
                )
            shapes = [tuple(dims[i] if len(dims) > 1 else dims[0] for dims in legacy) for i in range(number)]
        if len(shapes) not in (1, number):
            raise LayerError(f"{len(shapes)} shapes for {number} tops; one, or one for each, was needed")
        if len(p.data_filler) not in (0, 1, number):
            raise LayerError(
                f"{len(p.data_filler)} data_filler for {number} tops; none, one, or one for each, was needed"
            )
        fillers = [Filler.parse(filler) for filler in p.data_filler] or [Filler()]
        return cls(
            tuple(shapes if len(shapes) == number else shapes * number),
            tuple(fillers if len(fillers) == number else fillers * number),
        )

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return self.shapes

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        for shape, filler, top in zip(self.shapes, self.data_fillers, node.tops, strict=True):
            filler.lower(onnx, shape, top)

    @property
    def is_random(self) -> bool:
        return any(filler.is_random for filler in self.data_fillers)


@dataclass(frozen=True)
class Parameter(Layer):
    """A parameter as a blob (caffe: parameter_layer.hpp).

    It begins as 0, or as the `filler` of openvinotoolkit's training_toolbox_caffe says.
    """

    bottoms: ClassVar[Arity] = exactly(0)

    shape: Shape
    filler: Filler

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.parameter_param
        return cls(tuple(p.shape.dim), Filler.parse(p.filler))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return [self.shape]

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        return {"value": self.shape}

    def fillers(self) -> Mapping[str, Filler]:
        return {"value": self.filler}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Identity", [onnx.weight("value")], node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        return Gradients((), {"value": top_diffs[0]})

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        return [as_caffe(self.shape)]

    def weight_arrays(self, node: Node, bottoms: Sequence[AxisOrder], follower: Node | None) -> WeightArrays:
        return WeightArrays(all_as_stored(node))
