"""What the rules of gradients share. A diff is shaped as its blob."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from caffeconv.errors import LayerError
from caffeconv.ir.layer import Gradients, Node
from caffeconv.tensor.shape import Dims, Shape, count
from caffeconv.tensor.window import INT_MAX, Window

if TYPE_CHECKING:
    from caffeconv.ir.onnx_builder import OnnxBuilder


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
    return onnx.op("Expand", [onnx.floats(what, number), onnx.shape(value)], what=what)


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


def added_rows(onnx: OnnxBuilder, like: str, index: str, updates: str, rank: int, what: str) -> str:
    """As `added_at`, whole items along axis 0 of blobs of `rank` axes: `index` has one entry for each of `updates`."""
    column = onnx.reshape(index, (-1, *([1] * (rank - 1))), what="item")
    spread = onnx.op("Expand", [column, onnx.op("Shape", [updates])], what="item_index")
    return added_at(onnx, like, spread, updates, 0, what)


def times(onnx: OnnxBuilder, a: str, b: str | float, what: str = "bottom_diff") -> str:
    """a · b; `a` itself where b is the number 1."""
    if b == 1:
        return a
    return onnx.op("Mul", [a, b if isinstance(b, str) else onnx.floats(f"{what}_factor", b)], what=what)


def squared(onnx: OnnxBuilder, slope: str) -> str:
    """What some of Caffe's layers leave as their bottom's diff in place: the slope goes over the top's, and meets itself."""
    return onnx.op("Mul", [slope, slope], what="bottom_diff")


# -- windows -----------------------------------------------------------------------------------------------------------


def spread_by_convolution(
    onnx: OnnxBuilder, places: str, weight: str, window: Window, group: int, *, positions: Shape, size: Shape, shape: Shape,
    what: str,
) -> str | None:  # fmt: skip
    """As `spread_windows`, of places that lie as close as the image: a convolution with every filter turned round.

    shape: the weight's. None where the windows lie further apart, or where the other form is faster, as the convolution would
    have more to do.
    """
    axes = len(window.kernel)
    pads = [d * (k - 1) - p for d, k, p in zip(window.dilation, window.kernel, window.pad, strict=True)]
    if any(s > 1 for s in window.stride) or any(p < 0 for p in pads):
        return None
    ends = [s - n + d * (k - 1) - p for s, n, d, k, p in zip(
        size, positions, window.dilation, window.kernel, pads, strict=True
    )]  # fmt: skip
    if any(end < 0 for end in ends):
        return None
    outputs, inside = shape[0] // group, shape[1]
    has_fewer_places = count(positions) < count(size)
    if onnx.training_ops and suits_library(window):
        useful = _useful_sums(inside, positions[1], size[1])
        if useful >= LEAST_USEFUL or (group > 1 and not has_fewer_places):
            fields = {**window_fields(window), "height": size[0], "width": size[1]}
            return onnx.library_values("ConvBottomGrad", [places, weight], 1, what=what, group=group, **fields)[0]
    if has_fewer_places or (group == 1 and 2 * inside < outputs):
        return None
    filters = weight
    if group > 1:
        filters = onnx.reshape(filters, (group, outputs, inside, *window.kernel), what="filters_by_group")
        spatial = range(3, axes + 3)
        filters = onnx.op("Transpose", [filters], what="filters_turned", perm=[0, 2, 1, *spatial])
        filters = onnx.reshape(filters, (group * inside, outputs, *window.kernel), what="filters_turned")
    else:
        filters = onnx.op("Transpose", [filters], what="filters_turned", perm=[1, 0, *range(2, axes + 2)])
    if count(window.kernel) > 1:
        backward, whole = onnx.ints("backward", [-1] * axes), onnx.ints("whole", [-INT_MAX] * axes)
        spatial_axes = onnx.ints("filter_axes", list(range(2, axes + 2)))
        filters = onnx.op("Slice", [filters, backward, whole, spatial_axes, backward], what="filters_reversed")
    return onnx.op(
        "Conv", [places, filters], what=what, kernel_shape=window.kernel, dilations=window.dilation, pads=[*pads, *ends],
        group=group,
    )  # fmt: skip


def suits_library(window: Window) -> bool:
    """Whether our library's operators know such a window, and are faster than products of matrices, as for one place."""
    return len(window.kernel) == 2 and (count(window.kernel) > 1 or max(window.stride) > 1)


SUMS_AT_ONCE, LEAST_USEFUL = 32, 0.4
"""Of our library's sums for a convolution's bottom, at least this share has to be useful: it makes so many channels' at a time,
and what windows see left and right of the places is zeros. With less, a ConvTranspose is faster."""


def _useful_sums(channels: int, positions: int, size: int) -> float:
    """The share of useful ones among the sums that ConvBottomGrad makes; the places' and the bottom's width."""
    return channels / (SUMS_AT_ONCE * -(-channels // SUMS_AT_ONCE)) * min(1.0, positions / size)


def window_fields(window: Window, names: Sequence[str] = ("kernel", "stride", "pad", "dilation")) -> dict[str, int]:
    """The attributes by which our library's operators know a window of two axes."""
    return {f"{name}_{axis}": size for name in names for axis, size in zip("hw", getattr(window, name), strict=True)}


def spread_windows(
    onnx: OnnxBuilder, places: str, weight: str, window: Window, group: int, *, positions: Shape, size: Shape, what: str
) -> str:
    """The transpose of a convolution: N×O×positions… → N×I×size…; weight O × I/group × kernel…."""
    overhang = window.overhang(positions, size)
    return onnx.op(
        "ConvTranspose", [places, weight], what=what, kernel_shape=window.kernel, strides=window.stride,
        dilations=window.dilation, pads=[*window.pad, *(max(end, 0) for end in overhang)],
        output_padding=[max(-end, 0) for end in overhang], group=group,
    )  # fmt: skip


LEAST_CHANNELS, MOST_TAPS = 24, 49
FEW_CHANNELS, FEW_TAPS = 8, 9
"""From so many channels on, and for so many elements of a window at most, a product for each of these is faster than one
convolution for all of them, whose matrices have no more columns than the window has elements. The second pair is for windows
of few elements: with these, each item's product by itself is faster still, as nothing has to be laid in another order."""


def filter_diff(
    onnx: OnnxBuilder, image: str, places: str, window: Window, group: int, *, image_dims: Dims, places_dims: Dims,
    what: str,
) -> str:  # fmt: skip
    """The diff of a convolution's weight, O × I/group × kernel…: Σ places[n, o, p] · image[n, i, stride·p + dilation·k].

    image N×I×size…, places N×O×positions…. It is a convolution whose filters are the places: items and channels change
    roles, and so do stride and dilation.
    """
    axes = len(window.kernel)
    if onnx.training_ops and suits_library(window):
        fields = window_fields(window)
        return onnx.library_values("ConvWeightGrad", [image, places], 1, what=what, group=group, **fields)[0]
    size, positions = image_dims[2:], places_dims[2:]
    positions = onnx.fixed(positions, "the gradient of a weight needs to know the sizes of the output")
    channels = onnx.fixed(image_dims[1:2], "a convolution's number of channels")[0] // group
    if None not in (image_dims[0], places_dims[1]):
        outputs = onnx.fixed(places_dims[1:2], "a convolution's number of outputs")[0]
        if group == 1 and _suits_items(window, channels, outputs, count(positions)):
            return _filter_diff_by_items(onnx, image, places, window, image_dims, places_dims, what)
        if channels >= LEAST_CHANNELS and count(window.kernel) <= MOST_TAPS:
            return _filter_diff_by_taps(onnx, image, places, window, group, image_dims, places_dims, what)
    items = None if image_dims[0] is None else image_dims[0] * group
    if group > 1:
        image = onnx.reshape(image, (image_dims[0], group, channels, *size), what="image_groups")
        image = onnx.op("Transpose", [image], what="image_by_channel", perm=[2, 1, 0, *range(3, axes + 3)])
        image = onnx.reshape(image, (channels, items, *size), what="image_items")
    else:
        image = onnx.op("Transpose", [image], what="image_items", perm=[1, 0, *range(2, axes + 2)])
    filters = onnx.op("Transpose", [places], what="filters", perm=[1, 0, *range(2, axes + 2)])
    overhang = window.overhang(positions, onnx.fixed(size, "the gradient of a weight needs to know the input's size"))
    taps = onnx.op(
        "Conv", [image, filters], what="filter_diffs", kernel_shape=positions, strides=window.dilation,
        dilations=window.stride, pads=[*window.pad, *(max(end, 0) for end in overhang)], group=group,
    )  # fmt: skip
    if min(overhang, default=0) < 0:  # the window never comes to the image's last rows or columns
        spatial = list(range(2, axes + 2))
        bounds = [onnx.ints("first_tap", [0] * axes), onnx.ints("taps", window.kernel), onnx.ints("spatial", spatial)]
        taps = onnx.op("Slice", [taps, *bounds], what="filter_taps")
    return onnx.op("Transpose", [taps], what=what, perm=[1, 0, *range(2, axes + 2)])


def _suits_items(window: Window, channels: int, outputs: int, positions: int) -> bool:
    """Whether the products of all items together are no larger than what would have to be laid in another order."""
    taps = count(window.kernel)
    is_small = channels * outputs <= (channels + outputs) * positions
    return is_small and (taps == 1 or (taps <= FEW_TAPS and FEW_CHANNELS <= channels < LEAST_CHANNELS))


def _filter_diff_by_items(
    onnx: OnnxBuilder, image: str, places: str, window: Window, image_dims: Dims, places_dims: Dims, what: str
) -> str:
    """As `filter_diff`: for each element of the window a product for each item, and the sum over these."""
    why = "the gradient of a weight needs to know all sizes"
    items, channels, *size = onnx.fixed(image_dims, why)
    _, outputs, *positions = onnx.fixed(places_dims, why)
    image = _padded(onnx, image, window, size, positions)
    rows = onnx.reshape(places, (items, outputs, count(positions)), what="place_rows")
    taps = []
    for seen in _taps(onnx, image, window, positions):
        columns = onnx.reshape(seen, (items, channels, count(positions)), what="tap_rows")
        columns = onnx.op("Transpose", [columns], what="tap_columns", perm=[0, 2, 1])
        product = onnx.op("MatMul", [rows, columns], what="tap_diffs")
        taps.append(onnx.reduce("ReduceSum", product, [0], keepdims=True, what="tap_diff"))
    return _filters_of(onnx, taps, (outputs, channels, *window.kernel), what)


def _padded(onnx: OnnxBuilder, image: str, window: Window, size: Sequence[int], positions: Sequence[int]) -> str:
    """The image with zeros wherever a window looks beyond it."""
    needed = [(p - 1) * s + (k - 1) * d + 1 for p, s, k, d in zip(
        positions, window.stride, window.kernel, window.dilation, strict=True
    )]  # fmt: skip
    ends = [max(n - s - p, 0) for n, s, p in zip(needed, size, window.pad, strict=True)]
    if not any((*window.pad, *ends)):
        return image
    return onnx.op("Pad", [image, onnx.ints("image_pads", [0, 0, *window.pad, 0, 0, *ends])], what="padded_image")


def _taps(onnx: OnnxBuilder, image: str, window: Window, positions: Sequence[int]) -> Iterator[str]:
    """For each element of the window what it sees of a padded image, at all positions."""
    axes = len(window.kernel)
    if count(window.kernel) == 1 and all(s == 1 for s in window.stride):
        yield image
        return
    spatial, steps = onnx.ints("spatial", list(range(2, axes + 2))), onnx.ints("steps", window.stride)
    for tap in np.ndindex(*window.kernel):
        starts = [t * d for t, d in zip(tap, window.dilation, strict=True)]
        stops = [start + (p - 1) * s + 1 for start, p, s in zip(starts, positions, window.stride, strict=True)]
        bounds = [onnx.ints("tap_start", starts), onnx.ints("tap_stop", stops), spatial, steps]
        yield onnx.op("Slice", [image, *bounds], what="tap")


def _filters_of(onnx: OnnxBuilder, taps: Sequence[str], shape: Shape, what: str) -> str:
    """The filters, O × I × kernel…, of one 1×O×I for each element of the window."""
    if len(taps) == 1:
        return onnx.reshape(taps[0], shape, what=what)
    stacked = onnx.op("Concat", taps, what="tap_diffs", axis=0)
    return onnx.reshape(onnx.op("Transpose", [stacked], what="taps_last", perm=[1, 2, 0]), shape, what=what)


def _filter_diff_by_taps(
    onnx: OnnxBuilder, image: str, places: str, window: Window, group: int, image_dims: Dims, places_dims: Dims, what: str
) -> str:  # fmt: skip
    """As `filter_diff`: for each element of the window, a product of the places and of what it saw of the image."""
    axes, why = len(window.kernel), "the gradient of a weight needs to know all sizes"
    items, channels, *size = onnx.fixed(image_dims, why)
    _, outputs, *positions = onnx.fixed(places_dims, why)
    swapped = [1, 0, *range(2, axes + 2)]
    image = _padded(onnx, image, window, size, positions)
    image = onnx.op("Transpose", [image], what="image_by_channel", perm=swapped)
    flat = items * count(positions)
    rows = onnx.op("Transpose", [places], what="places_by_output", perm=swapped)
    rows = onnx.reshape(rows, (group, outputs // group, flat), what="place_rows")
    taps = []
    for seen in _taps(onnx, image, window, positions):
        columns = onnx.reshape(seen, (group, channels // group, flat), what="tap_rows")
        columns = onnx.op("Transpose", [columns], what="tap_columns", perm=[0, 2, 1])
        product = onnx.op("MatMul", [rows, columns], what="tap_diff")
        taps.append(onnx.reshape(product, (1, outputs, channels // group), what="tap_diff"))
    return _filters_of(onnx, taps, (outputs, channels // group, *window.kernel), what)
