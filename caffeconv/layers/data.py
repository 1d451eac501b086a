"""Where values come from: Input, DummyData, Parameter, and the data layers, whose tops become graph inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from caffeconv.ir import LayerDef, Node, Shape, Shapes
from caffeconv.layers.base import Arity, Layer, LayerError, at_least, exactly
from caffeconv.layers.filler import Filler

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.emit.onnx_builder import OnnxBuilder


@dataclass(frozen=True)
class Input(Layer):
    """Tops that the caller fills (caffe: input_layer.cpp); one shape for all of them, or one for each."""

    bottoms: ClassVar[Arity] = exactly(0)
    tops: ClassVar[Arity] = at_least(1)
    is_input: ClassVar[bool] = True

    shapes: tuple[Shape, ...]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        shapes = tuple(tuple(shape.dim) for shape in layer.proto.input_param.shape)
        if len(shapes) not in (0, 1, len(layer.tops)):
            raise LayerError(f"{len(shapes)} shapes for {len(layer.tops)} tops; Must specify 'shape' once, once per top, or not at all")
        if not shapes:
            raise LayerError("no shape is given; add `input_param { shape { dim: … } }`, or name it: --shape BLOB=1,3,224,224")
        return cls(shapes if len(shapes) == len(layer.tops) else shapes * len(layer.tops))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return self.shapes

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        return


@dataclass(frozen=True)
class DummyData(Layer):
    """Tops that a filler fills: constant ones once, random ones anew for each pass (caffe: dummy_data_layer.cpp)."""

    bottoms: ClassVar[Arity] = exactly(0)
    tops: ClassVar[Arity] = at_least(1)

    shapes: tuple[Shape, ...]
    data_fillers: tuple[Filler, ...]

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.dummy_data_param
        number = len(layer.tops)
        if p.shape:
            shapes = [tuple(shape.dim) for shape in p.shape]
        else:
            legacy = (p.num, p.channels, p.height, p.width)
            if any(len(dims) not in (1, number) for dims in legacy):
                raise LayerError("num, channels, height and width must each be given once, or once per top; or use `shape`")
            shapes = [tuple(dims[i] if len(dims) > 1 else dims[0] for dims in legacy) for i in range(number)]
        if len(shapes) not in (1, number):
            raise LayerError(f"{len(shapes)} shapes for {number} tops; one, or one for each, was needed")
        if len(p.data_filler) not in (0, 1, number):
            raise LayerError(f"{len(p.data_filler)} data_filler for {number} tops; none, one, or one for each, was needed")
        fillers = [Filler.parse(filler) for filler in p.data_filler] or [Filler()]
        return cls(
            tuple(shapes if len(shapes) == number else shapes * number),
            tuple(fillers if len(fillers) == number else fillers * number),
        )

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return self.shapes

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        for i, (shape, filler, top) in enumerate(zip(self.shapes, self.data_fillers, node.tops, strict=True)):
            if filler.type == "uniform":
                onnx.emit("RandomUniform", [], [top], shape=shape, low=filler.low, high=filler.high)
            elif filler.type == "gaussian" and filler.sparse < 0:
                onnx.emit("RandomNormal", [], [top], shape=shape, mean=filler.mean, scale=filler.std)
            elif filler.is_random:
                raise LayerError(f"a data_filler of type {filler.type}; constant, uniform or gaussian was needed")
            else:
                import numpy as np

                values = filler.fill(shape, np.random.default_rng(0))
                onnx.emit("Identity", [onnx.floats(f"data{i}", values)], [top])


@dataclass(frozen=True)
class Parameter(Layer):
    """A parameter as a blob (caffe: parameter_layer.hpp)."""

    bottoms: ClassVar[Arity] = exactly(0)

    shape: Shape

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        return cls(tuple(layer.proto.parameter_param.shape.dim))

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return [self.shape]

    def weight_shapes(self, bottoms: Shapes) -> Mapping[str, Shape]:
        return {"value": self.shape}

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        onnx.emit("Identity", [onnx.weight("value")], node.tops)


@dataclass(frozen=True)
class MemoryData(Layer):
    """Data and labels that the caller hands over (caffe: memory_data_layer.cpp)."""

    bottoms: ClassVar[Arity] = exactly(0)
    tops: ClassVar[Arity] = exactly(2)
    is_input: ClassVar[bool] = True

    shape: Shape

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.memory_data_param
        shape = (p.batch_size, p.channels, p.height, p.width)
        if min(shape) < 1:
            raise LayerError("batch_size, channels, height, and width must be specified and positive in memory_data_param")
        return cls(shape)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        return [self.shape, self.shape[:1]]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        return
