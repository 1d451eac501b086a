"""What the rules of gradients share. A diff is shaped as its blob."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from caffeconv.ir import Dims, Node, Shape
from caffeconv.layers.base import Gradients, LayerError

if TYPE_CHECKING:
    from caffeconv.emit.onnx_builder import OnnxBuilder

INT64 = 7


def refuse_to(what: str, propagate_down: Sequence[bool], bottom: int) -> None:
    """Raises LayerError where a diff is asked of a bottom of which Caffe's layer makes none."""
    if bottom < len(propagate_down) and propagate_down[bottom]:
        raise LayerError(
            f"a gradient is asked of bottom[{bottom}]: the layer cannot backpropagate to {what}. It is asked for by "
            "`propagate_down: true`, by `force_backward: true`, or because a layer below learns; set `lr_mult: 0` there."
        )


def refuse_all(propagate_down: Sequence[bool]) -> Gradients:
    """No gradient; raises LayerError where one is asked for all the same."""
    if any(propagate_down):
        raise LayerError(
            "a gradient is asked for, and there is none (Caffe: Not Implemented Yet). Take the layer out from below the "
            "loss, or set `propagate_down: false` in the layer above."
        )
    return Gradients([None] * len(propagate_down))


def filled_like(onnx: OnnxBuilder, value: str, number: float, what: str) -> str:
    """A blob shaped as `value` that holds one number everywhere."""
    return onnx.op("Expand", [onnx.floats(what, number), onnx.op("Shape", [value])], what=what)


def like_bottom(onnx: OnnxBuilder, node: Node, diff: str, bottom: int = 0, *, shape: Shape | None = None) -> str:
    """`diff`, which has the tops' shape or `shape`, in the shape of a bottom."""
    have = node.top_shapes[0] if shape is None else shape
    if have == node.bottom_shapes[bottom]:
        return diff
    return onnx.reshape(diff, onnx.dims(node.bottoms[bottom]), what="bottom_diff")


def sum_over(onnx: OnnxBuilder, value: str, axes: Sequence[int], what: str) -> str:
    """The sum over some axes, which go; the value itself where there are none."""
    return onnx.reduce("ReduceSum", value, axes, keepdims=False, what=what) if axes else value


def class_sums(onnx: OnnxBuilder, value: str, rank: int, axis: int, what: str) -> str:
    """The sums over all axes but one."""
    return sum_over(onnx, value, [i for i in range(rank) if i != axis], what)


def added_at(onnx: OnnxBuilder, like: str, index: str, updates: str, axis: int, what: str) -> str:
    """Zeros shaped as `like`, to which `updates` are added at `index` (int64, of the updates' shape) along an axis."""
    zeros = filled_like(onnx, like, 0, "none")
    return onnx.op("ScatterElements", [zeros, index, updates], what=what, axis=axis, reduction="add")


def items_added_at(onnx: OnnxBuilder, like: str, index: str, updates: str, dims: Dims, what: str) -> str:
    """As `added_at`, whole items along axis 0: `index` (int64) has one entry for each item of `updates`; dims: like's."""
    column = onnx.reshape(index, (-1, *([1] * (len(dims) - 1))), what="item_column")
    spread = onnx.op("Expand", [column, onnx.op("Shape", [updates])], what="item_index")
    return added_at(onnx, like, spread, updates, 0, what)


def times(onnx: OnnxBuilder, a: str, b: str | float, what: str = "bottom_diff") -> str:
    """a · b; `a` itself where b is the number 1."""
    if b == 1:
        return a
    return onnx.op("Mul", [a, b if isinstance(b, str) else onnx.floats(f"{what}_factor", b)], what=what)
