"""ENet's dropout of whole channels, a layer in Python, by the rule of its published code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Gradients, Layer, Node
from caffeconv.layers.gradient_ops import times
from caffeconv.tensor.shape import Shapes, format_shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

_ENTRY = re.compile(r"""['"](\w+)['"]\s*:\s*['"]?([\w.]+)['"]?""")


@dataclass(frozen=True)
class PythonSpatialDropout(Layer):
    """y = x / (1 - p); with `'phase': 'TRAIN'` in its param_str only of channels that chance keeps, 0 of the others.

    Each channel of each item N×C×… is kept with probability 1 - p. The phase is the one that param_str says, whatever the
    net's is; what is not dropped grows in TEST too, a slip of the code (TimoSaemann/ENet: spatial_dropout.py).
    """

    is_pointwise: ClassVar[bool] = True

    ratio: float
    drops: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        text = layer.proto.python_param.param_str
        said = dict(_ENTRY.findall(text))
        try:
            ratio = float(said["p"])
        except (KeyError, ValueError):
            raise LayerError(f"param_str is {text!r}; {{'phase': 'TEST', 'p': '0.1'}} was needed") from None
        if "phase" not in said or not 0 < ratio < 1:
            raise LayerError(f"param_str is {text!r}; a phase and a p between 0 and 1 were needed")
        return cls(ratio, said["phase"] == "TRAIN")

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        if len(bottoms[0]) < 2:
            raise LayerError(f"the bottom is {format_shape(bottoms[0])}; N×C×… was needed")
        return [bottoms[0]]

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        x = node.bottoms[0]
        if not self.drops:
            onnx.emit("Mul", [x, onnx.floats("growth", 1 / (1 - self.ratio))], node.tops)
            return
        size = onnx.op("Slice", [onnx.op("Shape", [x]), onnx.ints("first", [0]), onnx.ints("second", [2])], what="size")
        places = onnx.ints("one_place", [1] * (len(node.bottom_shapes[0]) - 2))
        shape = onnx.op("Concat", [size, places], axis=0, what="channels")
        ones = onnx.op("Expand", [onnx.floats("one", 1), shape], what="ones")
        inputs = [ones, onnx.floats("ratio", self.ratio), onnx.bools("training", True)]
        # without its mask onnxruntime takes the Dropout out
        _, kept = onnx.ops("Dropout", inputs, 2, what="kept")
        grown = onnx.op("Mul", [x, onnx.floats("growth", 1 / (1 - self.ratio))], what="grown")
        onnx.emit("Where", [kept, grown, onnx.floats("dropped", 0)], node.tops)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        if self.drops:
            return super().lower_gradient(node, onnx, top_diffs, propagate_down)
        return Gradients((times(onnx, top_diffs[0], 1 / (1 - self.ratio), "bottom_diff"),))

    def is_spatially_uniform(self, node: Node) -> bool:
        return True

    @property
    def is_random(self) -> bool:
        return self.drops
