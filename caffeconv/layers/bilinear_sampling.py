"""Values between the places of planes, at coordinates that a net computes: FlowWarp, DeformableConvolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caffeconv.ir.element_types import INT64
from caffeconv.tensor.shape import Shape

if TYPE_CHECKING:
    from caffeconv.ir.onnx_builder import OnnxBuilder


def sampled(onnx: OnnxBuilder, planes: str, coordinates: tuple[str, str], size: Shape, *, outside: float) -> str:
    """The bilinear value of each plane at coordinates y, x; behind the last row or column as in that.

    planes: N×G×C×(H·W), of H×W = `size`; y, x: N×G×1×P, pixels; the result is N×G×C×P, `outside` where not
    0 ≤ y < H and 0 ≤ x < W.
    """
    y, x = coordinates
    inside, (low_y, high_y, share_y) = _axis(onnx, y, size[0], "y")
    inside_x, (low_x, high_x, share_x) = _axis(onnx, x, size[1], "x")
    inside = onnx.op("And", [inside, inside_x], what="inside")
    item, rest = onnx.op("Shape", [planes], what="planes_shape"), onnx.ints("one_channel", [1])
    channels = onnx.op("Slice", [item, onnx.ints("channel", [2]), onnx.ints("after_channel", [3])], what="channels")
    spread = onnx.op("Concat", [rest, rest, channels, rest], axis=0, what="per_channel")

    def corner(row: str, column: str) -> str:
        place = onnx.op("Add", [onnx.op("Mul", [row, onnx.ints("row_size", size[1])], what="row_start"), column])
        place = onnx.op("Expand", [place, spread], what="place")
        return onnx.op("GatherElements", [planes, place], axis=3, what="corner")

    def between(first: str, second: str, share: str) -> str:
        rest = onnx.op("Sub", [onnx.floats("whole", 1), share], what="rest")
        return onnx.op("Add", [onnx.op("Mul", [first, rest]), onnx.op("Mul", [second, share])], what="between")

    top = between(corner(low_y, low_x), corner(low_y, high_x), share_x)
    bottom = between(corner(high_y, low_x), corner(high_y, high_x), share_x)
    value = between(top, bottom, share_y)
    return onnx.op("Where", [inside, value, onnx.floats("outside", outside)], what="sampled")


def _axis(onnx: OnnxBuilder, position: str, size: int, name: str) -> tuple[str, tuple[str, str, str]]:
    """Whether a position lies in 0…size; the places before and behind it, int64, and its share of the latter."""
    zero, last = onnx.floats("zero", 0), onnx.floats(f"last_{name}", size - 1)
    start = onnx.op("GreaterOrEqual", [position, zero], what=f"{name}_start")
    end = onnx.op("Less", [position, onnx.floats(f"end_{name}", size)], what=f"{name}_end")
    inside = onnx.op("And", [start, end], what=f"{name}_inside")
    position = onnx.op("Where", [inside, position, zero], what=f"{name}_or_0")  # also in place of what is no number
    position = onnx.op("Min", [position, last], what=f"{name}_within")
    low = onnx.op("Floor", [position], what=f"{name}_low")
    share = onnx.op("Sub", [position, low], what=f"{name}_share")
    high = onnx.op("Min", [onnx.op("Add", [low, onnx.floats("whole", 1)]), last], what=f"{name}_high")
    low, high = (onnx.op("Cast", [place], to=INT64, what=f"{name}_place") for place in (low, high))
    return inside, (low, high, share)
