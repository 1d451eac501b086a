"""Pooling (caffe: pooling_layer.cpp) and SPP, the pyramid made of it (caffe: spp_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from caffeconv.caffe_pb2 import LayerParameter, PoolingParameter
from caffeconv.errors import LayerError
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Gradients, Layer, Node, Settings
from caffeconv.layers.gradient_ops import added_at, spread_windows, times, window_fields
from caffeconv.tensor.axis_order import AxisOrder, Segment, flat
from caffeconv.tensor.shape import FloatArray, Shape, Shapes, count, format_shape
from caffeconv.tensor.window import (
    INT_MAX,
    Padding,
    Window,
    average_padding,
    greatest_padding,
    parse_sides,
    same_size,
    same_window,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

Method = Literal["MAX", "AVE", "STOCHASTIC", "AVE_EXC_PAD"]
METHODS: tuple[Method, ...] = ("MAX", "AVE", "STOCHASTIC", "AVE_EXC_PAD")
AVERAGES = frozenset(("AVE", "AVE_EXC_PAD"))
LOWEST = float(np.finfo(np.float32).min)
ALL_AXES = "video-caffe"
"""The dialect whose poolings go over all axes after the channels."""
MOST_LEVELS = 16  # the last has 2^15 × 2^15 cells


@dataclass(frozen=True)
class Pooling(Layer):
    """The greatest value, or the average, of each window of N×C×H×W.

    A second top, for MAX, gets each winner's place in its H×W plane. Sizes round up unless `round_mode: FLOOR`
    (or a fork's `ceil_mode: false`). AVE divides by the part of the window that lies in the padded input, AVE_EXC_PAD by
    that which lies in the input itself (Synopsys, as are padding of each side by `pad_l`, `pad_r`, `pad_t`, `pad_b`, and
    `pad_type: 1`, TensorFlow's SAME).

    Beyond Caffe, where the caller asks for it (`extended`): N×C×D×H×W, with `kernel_size`, `stride` and `pad` for the
    depth too, and 1, 1 and 0 there where they are given as `…_h` and `…_w`; the rules are those of the other axes. So
    do the forks in which these fields have a value for each axis (video-caffe, OpenCL Caffe, Intel's): a net that gives
    several values anywhere is one of theirs. `dilation` spreads the window of MAX (OpenCL Caffe, on the GPU).
    """

    tops: ClassVar[Arity] = Arity(1, 2)
    in_place: ClassVar[bool] = False
    settings: ClassVar[str] = "pooling_param"
    size_settings: ClassVar[tuple[str, ...]] = ("kernel_size", "stride", "pad", "round_mode")

    method: Method
    kernel: tuple[int, int] | None
    """None: the whole plane."""
    stride: tuple[int, int]
    pad: tuple[int, int]
    ceil: bool
    mask: bool
    depth: Window | None
    """The window along the depth of a 5-D blob; None: such a blob is refused, as in Caffe."""
    end_pad: tuple[int, int] | None = None
    """The padding at the end of height and width where it is not that of the start."""
    same: bool = False
    """Whether the padding is that of TensorFlow's SAME."""
    dilation: tuple[int, int] = (1, 1)
    axes: int | None = None
    """How many axes the fields have values for; None: one for all."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.pooling_param
        if p.HasField("kernel_depth") or p.HasField("temporal_stride"):
            raise LayerError('kernel_depth and temporal_stride are fields of C3D\'s Pooling3D; use `type: "Pooling3D"`')
        if p.HasField("round_mode") and p.HasField("ceil_mode"):
            raise LayerError("round_mode and ceil_mode say the same in different forks; one of them was needed")
        if len(layer.tops) > 1 and p.pool != p.MAX:
            raise LayerError("a second top (the mask) is made by `pool: MAX` only")
        ceil = p.round_mode == p.CEIL if p.HasField("round_mode") else p.ceil_mode
        kernel, pad, stride = _pool_kernel(p), _stride_or_pad(p, "pad"), _stride_or_pad(p, "stride")
        pads = ["pad"] if p.pad else []
        sides = parse_sides(p, [*pads, *(name for name in ("pad_h", "pad_w") if p.HasField(name))])
        end_pad = None
        if sides is not None:
            (pad_top, pad_bottom), (pad_left, pad_right) = sides
            pad, end_pad = (pad_top, pad_left), (pad_bottom, pad_right)
        if kernel is None and (any(pad) or sides or p.pad_type or stride != (1, 1)):
            raise LayerError("With Global_pooling: true; only pad = 0 and stride = 1")
        if min(stride) < 1:
            raise LayerError(f"stride is {format_shape(stride)}; at least 1 was needed")
        if max(*stride, *pad, *(kernel or (1,))) > INT_MAX:
            raise LayerError("kernel, stride and pad must each fit an int")
        if sides is None and any(pad) and kernel is not None and (pad[0] >= kernel[0] or pad[1] >= kernel[1]):
            raise LayerError(
                f"pad {format_shape(pad)} must be smaller than kernel {format_shape(kernel)} (pad_h_ < kernel_h_)"
            )
        axes, dilation = _number_of_axes(p), _last_two(p.dilation or (1,))
        if min(dilation) < 1 or (dilation != (1, 1) and METHODS[p.pool] != "MAX"):
            raise LayerError(f"dilation is {format_shape(dilation)}; at least 1 was needed, and 1 unless `pool: MAX`")
        depth = _depth_window(p) if layer.extended or axes == 3 or layer.dialect == ALL_AXES else None
        return cls(
            METHODS[p.pool],
            kernel,
            stride,
            pad,
            ceil,
            len(layer.tops) > 1,
            depth,
            end_pad,
            p.pad_type == 1,
            dilation,
            axes,
        )

    @classmethod
    def dialect_of_net(cls, layer: LayerDef, layers: Sequence[LayerDef]) -> str | None:
        """Of the forks that pool all axes, where some layer has a value for each."""
        poolings = (other.proto.pooling_param for other in layers if other.type == layer.type)
        return ALL_AXES if any(len(p.kernel_size) > 1 or len(p.stride) > 1 for p in poolings) else None

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        bottom = bottoms[0]
        if len(bottom) != 4 and not (len(bottom) == 5 and self.depth is not None):
            raise LayerError(_not_4d(bottom))
        if self.axes not in (None, len(bottom) - 2):
            raise LayerError(
                f"kernel_size must be specified once, or once per spatial dimension (specified {self.axes} times; "
                f"{len(bottom) - 2} spatial dims)."
            )
        if len(bottom) == 5 and self.mask:
            raise LayerError("the mask of a 5-D blob has no meaning in Caffe; leave the second top out")
        if len(bottom) == 5 and (self.same or self.end_pad is not None):
            raise LayerError(f"the bottom is {format_shape(bottom)}; pad_type and pad_l/r/t/b are for 4 axes only")
        if 0 in self.window(bottom).kernel:
            raise LayerError(f"the bottom is {format_shape(bottom)}; Filter dimensions cannot be zero.")
        window = self.window(bottom)
        sizes = same_size(window, bottom[2:]) if self.same else window.pool_size(bottom[2:], ceil=self.ceil)
        if any(size < 0 for size in sizes):
            raise LayerError(f"the output would be {format_shape(sizes)}; use a larger input or a smaller kernel_size")
        return [(*bottom[:2], *sizes)] * (2 if self.mask else 1)

    @classmethod
    def repairs(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[Settings]:
        p = layer.proto.pooling_param
        repairs: list[Settings] = []
        if p.stride and (p.HasField("stride_h") or p.HasField("stride_w")):
            repairs.append({"stride": tuple(p.stride)})
        if p.HasField("pad_h") != p.HasField("pad_w") or (p.pad and p.HasField("pad_h")):
            repairs.append({"pad": tuple(p.pad) or (p.pad_h or p.pad_w,)})
        return repairs

    def window(self, bottom: Shape) -> Window:
        if self.kernel is None:
            axes = len(bottom) - 2
            return Window(bottom[2:], (1,) * axes, (0,) * axes, (1,) * axes)
        if len(bottom) == 4 or self.depth is None:
            window = Window(self.kernel, self.stride, self.pad, self.dilation, self.end_pad)
            return same_window(window, bottom[2:]) if self.same else window
        depth = self.depth
        dilation = (*depth.dilation, *self.dilation)
        return Window((*depth.kernel, *self.kernel), (*depth.stride, *self.stride), (*depth.pad, *self.pad), dilation)

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if self.method == "STOCHASTIC":
            raise LayerError("`pool: STOCHASTIC` has no CPU form in Caffe either (Not Implemented Yet); use MAX or AVE")
        if None in onnx.dims(node.bottoms[0])[2:]:
            self._lower_for_any_size(node, onnx)
            return
        bottom, top = node.bottom_shapes[0], node.top_shapes[0]
        lower_pooling(onnx, self.method, self.window(bottom), bottom, top[2:], node.bottoms[0], node.tops)

    def _lower_for_any_size(self, node: Node, onnx: OnnxBuilder) -> None:
        """Writes the pooling so that onnxruntime works out the sizes, where its rules give what Caffe's do."""
        average = self.method in AVERAGES
        if self.kernel is None and not self.mask:
            onnx.emit("GlobalAveragePool" if average else "GlobalMaxPool", node.bottoms, node.tops)
            return
        # Caffe and ONNX clip the last window alike, but ONNX does not count padding in one that is clipped
        clipped = any(pad and stride > 1 for pad, stride in zip(self.pad, self.stride, strict=True))
        skips = self.kernel is not None and any(s > k for s, k in zip(self.stride, self.kernel, strict=True))
        sided = self.same or self.end_pad is not None or self.dilation != (1, 1)
        if self.mask or skips or sided or (average and clipped) or self.kernel is None or self.depth is not None:
            onnx.fixed(onnx.dims(node.bottoms[0])[2:], "this pooling needs to know the sizes of its input")
        attributes: dict[str, Sequence[int] | int] = {
            "kernel_shape": self.kernel or (), "strides": self.stride, "pads": self.pad * 2, "ceil_mode": int(self.ceil),
        }  # fmt: skip
        if average:
            attributes["count_include_pad"] = int(self.method == "AVE" and any(self.pad))
        onnx.emit("AveragePool" if average else "MaxPool", node.bottoms, node.tops, **attributes)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        shape, pooled = node.bottom_shapes[0], node.top_shapes[0][2:]
        diff = pooling_diff(onnx, self.method, self.window(shape), shape, pooled, node.bottoms[0], top_diffs[0])
        return Gradients((diff,))

    def padding(self, node: Node) -> Padding | None:
        spatial, sizes = node.bottom_shapes[0][2:], node.top_shapes[0][2:]
        if self.kernel is None:
            return None
        return pool_padding(self.method, self.window(node.bottom_shapes[0]), spatial, sizes)

    def window_over(self, bottom: Shape) -> Window | None:
        return self.window(bottom)

    def size_formulas(self, bottom: Shape) -> tuple[str, ...]:
        if self.kernel is None:
            return ("the whole plane becomes one place",)
        window, spatial = self.window(bottom), bottom[2:]
        if self.same:
            pairs = zip(spatial, window.stride, same_size(window, spatial), strict=True)
            return tuple(f"{size}/{stride} = {places}, rounded up" for size, stride, places in pairs)
        return tuple(window.pool_formula(i, spatial, ceil=self.ceil) for i in range(len(spatial)))

    def multiply_adds(self, bottoms: Shapes, tops: Shapes) -> int:
        return count(tops[0]) * count(self.window(bottoms[0]).kernel)

    @classmethod
    def in_place_of(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[LayerParameter]:
        if len(bottoms[0]) != 5 or len(layer.tops) != 1:
            return ()
        _, c, d, h, w = bottoms[0]
        flat, pooled = f"{layer.name}_4d", f"{layer.name}_pooled"
        sizes = cls.parse(layer).top_shapes([(bottoms[0][0], c * d, h, w)])[0][2:]
        before = LayerParameter(name=flat, type="Reshape", bottom=layer.bottoms, top=[flat])
        before.reshape_param.shape.dim.extend((0, c * d, h, w))
        pool = LayerParameter()
        pool.CopyFrom(layer.proto)
        pool.bottom[:], pool.top[:] = [flat], [pooled]
        after = LayerParameter(name=f"{layer.name}_5d", type="Reshape", bottom=[pooled], top=layer.tops)
        after.reshape_param.shape.dim.extend((0, c, d, *sizes))
        for other in (before, after):
            other.include.extend(layer.proto.include)
            other.exclude.extend(layer.proto.exclude)
        return before, pool, after


def _pool_kernel(p: PoolingParameter) -> tuple[int, int] | None:
    by_axis = p.HasField("kernel_h") and p.HasField("kernel_w")
    if p.global_pooling:
        if p.kernel_size or p.HasField("kernel_h") or p.HasField("kernel_w"):
            raise LayerError("With Global_pooling: true Filter size cannot specified")
        return None
    if bool(p.kernel_size) == by_axis:
        raise LayerError("Filter size is kernel_size OR kernel_h and kernel_w; not both")
    kernel = (p.kernel_h, p.kernel_w) if by_axis else _last_two(p.kernel_size)
    if min(kernel) < 1:
        raise LayerError("Filter dimensions cannot be zero.")
    return kernel


def _number_of_axes(p: PoolingParameter) -> int | None:
    """For how many axes the fields have values; None where there is one for all."""
    numbers = {len(values) for values in (p.kernel_size, p.stride, p.pad, p.dilation) if len(values) > 1}
    if len(numbers) > 1 or not numbers <= {2, 3}:
        raise LayerError(
            f"kernel_size, stride and pad are specified {', '.join(map(str, sorted(numbers)))} times; each must be "
            "specified once, or once per spatial dimension, of which there are 2 or 3"
        )
    return numbers.pop() if numbers else None


def _last_two(values: Sequence[int]) -> tuple[int, int]:
    """Those of height and width, of one value for all axes or one for each."""
    return (values[-2], values[-1]) if len(values) > 1 else (values[0], values[0])


def _stride_or_pad(p: PoolingParameter, name: Literal["stride", "pad"]) -> tuple[int, int]:
    """`pad`, or `pad_h` and `pad_w`; the same for `stride`."""
    fields = ("stride_h", "stride_w") if name == "stride" else ("pad_h", "pad_w")
    values: Sequence[int] = p.stride if name == "stride" else p.pad
    by_axis = [p.HasField(field) for field in fields]
    if any(by_axis) and (values or not all(by_axis)):
        word = "Stride" if name == "stride" else "pad"
        raise LayerError(f"{word} is {name} OR {' and '.join(fields)} are required.")
    if any(by_axis):
        return (p.stride_h, p.stride_w) if name == "stride" else (p.pad_h, p.pad_w)
    return _last_two(values or ((1,) if name == "stride" else (0,)))


def _depth_window(p: PoolingParameter) -> Window:
    kernel, stride, pad = (*p.kernel_size, 1)[0], (*p.stride, 1)[0], (*p.pad, 0)[0]
    return Window((kernel,), (stride,), (pad,), ((*p.dilation, 1)[0],))


def _not_4d(bottom: Shape) -> str:
    remedy = ""
    if len(bottom) == 5:
        n, c, d, h, w = bottom
        remedy = (
            f" Reshape {format_shape(bottom)} to {format_shape((n, c * d, h, w))}, pool, and Reshape back, "
            f"which pools every one of the {d} planes by itself; or pool the depth too with `extended=True`."
        )
    return (
        f"the bottom is {format_shape(bottom)}; Input must have 4 axes, corresponding to (num, channels, height, width)."
        + remedy
    )


def lower_pooling(
    onnx: OnnxBuilder, method: Method, window: Window, shape: Shape, pooled: Shape, bottom: str, tops: tuple[str, ...]
) -> None:
    """Writes pooling of `bottom` (N×C×spatial…: `shape`) into tops[0], and the mask into tops[1] where there is one."""
    x, padded, attributes = _padded(onnx, method, window, shape, pooled, bottom)
    if method in AVERAGES:
        factor = divisor_correction(window, shape[2:], pooled, inside=method == "AVE_EXC_PAD")
        if padded != shape[2:]:
            # onnxruntime would fuse the Pad into the pooling, and then refuse it; a sign between them prevents that
            x, factor = onnx.op("Neg", [x], what="negative"), -factor
        if (factor == 1).all():
            onnx.emit("AveragePool", [x], tops[:1], count_include_pad=1, **attributes)
            return
        average = f"{tops[0]}/average"
        onnx.emit("AveragePool", [x], [average], count_include_pad=1, **attributes)
        onnx.emit("Mul", [average, onnx.floats("window_share", factor)], tops[:1])
    elif len(tops) == 1:
        onnx.emit("MaxPool", [x], tops, **attributes)
    else:
        indices = f"{tops[1]}/indices"
        onnx.emit("MaxPool", [x], [tops[0], indices], **attributes)
        onnx.emit("Cast", [_places(onnx, window, shape, padded, tops[0], indices)], [tops[1]], to=1)


def _padded(
    onnx: OnnxBuilder, method: Method, window: Window, shape: Shape, pooled: Shape, bottom: str
) -> tuple[str, Shape, dict[str, Sequence[int]]]:
    """What ONNX's pooling reads, that value's spatial sizes, and the pooling's attributes."""
    end = tuple(max(0, e) for e in window.pool_end_padding(shape[2:], pooled))
    pads = (*window.pad, *end)
    x = bottom
    padded = shape[2:]
    if any(pad >= kernel for pad, kernel in zip(pads, window.kernel * 2, strict=True)):
        # onnxruntime wants pads smaller than the kernel: a window that lies beyond the input needs a Pad of its own
        fill = LOWEST if method == "MAX" else 0.0
        x = onnx.op("Pad", [x, onnx.ints("pads", [0, 0, *window.pad, 0, 0, *end]), onnx.floats("fill", fill)])
        padded = tuple(before + size + after for before, size, after in zip(window.pad, padded, end, strict=True))
        pads = (0,) * len(pads)
    attributes: dict[str, Sequence[int]] = {"kernel_shape": window.kernel, "strides": window.stride, "pads": pads}
    if set(window.dilation) != {1}:
        attributes["dilations"] = window.dilation
    return x, padded, attributes


def _places(onnx: OnnxBuilder, window: Window, shape: Shape, padded: Shape, greatest: str, indices: str) -> str:
    """Each winner's index in its own plane, int64; ONNX's index runs over the whole (padded) blob."""
    place = onnx.op("Mod", [indices, onnx.ints("plane", count(padded))], what="place")
    if padded == shape[2:]:
        return place
    if len(padded) != 2:
        raise LayerError("a mask, or a gradient, of windows that lie beyond the input can be written for 2 axes only")
    row = onnx.op("Div", [place, onnx.ints("padded_width", padded[1])], what="row")
    column = onnx.op("Mod", [place, onnx.ints("padded_width", padded[1])], what="column")
    row = onnx.op("Sub", [row, onnx.ints("pad_h", window.pad[0])], what="row")
    column = onnx.op("Sub", [column, onnx.ints("pad_w", window.pad[1])], what="column")
    place = onnx.op("Mul", [row, onnx.ints("width", shape[3])], what="place")
    place = onnx.op("Add", [place, column], what="place")
    empty = onnx.op("Equal", [greatest, onnx.floats("lowest", LOWEST)], what="empty")
    # caffe: max_idx starts at -1, and an empty window leaves it there
    return onnx.op("Where", [empty, onnx.ints("none", -1), place], what="place")


def pooling_diff(
    onnx: OnnxBuilder, method: Method, window: Window, shape: Shape, pooled: Shape, bottom: str, top_diff: str
) -> str:
    """The diff of what `lower_pooling` pooled: to each window's first winner, or in equal shares to all its places."""
    if method in AVERAGES:
        share = divisor_correction(window, shape[2:], pooled, inside=method == "AVE_EXC_PAD") / np.float32(
            count(window.kernel)
        )
        share = np.where(np.isfinite(share), share, np.float32(0))  # an empty window has no place to give anything to
        shared = times(onnx, top_diff, onnx.floats("shares", share), "shared_diff")
        if count(pooled) == 1 and not any(window.pad) and window.kernel == shape[2:]:  # one window: the whole bottom
            like = [1, 1, *shape[2:]]
            return onnx.op("Expand", [shared, onnx.ints("whole_bottom", like)], what="bottom_diff")
        ones = onnx.floats("window_ones", np.ones((shape[1], 1, *window.kernel)))
        return spread_windows(
            onnx, shared, ones, window, shape[1], positions=pooled, size=shape[2:], what="bottom_diff"
        )
    if onnx.training_ops and window.dilation == (1, 1):
        fields = window_fields(window, ("kernel", "stride", "pad"))
        return onnx.library_values("MaxPoolGrad", [bottom, top_diff], 1, what="bottom_diff", **fields)[0]
    x, padded, attributes = _padded(onnx, method, window, shape, pooled, bottom)
    greatest, indices = onnx.ops("MaxPool", [x], 2, what="winner", **attributes)
    place = _places(onnx, window, shape, padded, greatest, indices)
    if padded != shape[2:]:
        has_place = onnx.op("Not", [onnx.op("Equal", [place, onnx.ints("none", -1)], what="nothing")], what="found")
        top_diff = onnx.op("Where", [has_place, top_diff, onnx.floats("zero", 0)], what="found_diff")
        place = onnx.op("Where", [has_place, place, onnx.ints("first_place", 0)], what="place")
    batch, *_ = onnx.dims(bottom)
    planes = onnx.reshape(bottom, (batch, shape[1], count(shape, 2)), what="planes")
    flat = (batch, shape[1], count(pooled))
    place, top_diff = onnx.reshape(place, flat, what="flat_place"), onnx.reshape(top_diff, flat, what="flat_diff")
    return onnx.reshape(added_at(onnx, planes, place, top_diff, 2, "plane_diff"), onnx.dims(bottom), what="bottom_diff")


def pool_padding(method: Method, window: Window, spatial: Shape, sizes: Shape) -> Padding:
    """What pooling needs beyond its input, in TensorFlow's words."""
    if method not in AVERAGES:
        return greatest_padding(window, spatial, sizes)
    inside = method == "AVE_EXC_PAD"
    factors = tuple(
        _axis_correction(window, axis, size, sizes[axis], inside=inside) for axis, size in enumerate(spatial)
    )
    return average_padding(window, spatial, sizes, tuple(tuple(factor.tolist()) for factor in factors))


def divisor_correction(window: Window, spatial: Shape, pooled: Shape, *, inside: bool = False) -> FloatArray:
    """kernel area ÷ Caffe's divisor for each output place, 1×1×spatial….

    Caffe divides by the window's part that ends at size + pad: padding counts, but nothing beyond it. inside: nor does
    padding, as with AVE_EXC_PAD.
    """
    divisor = np.ones((), np.float32)
    for i, size in enumerate(spatial):
        divisor = np.multiply.outer(divisor, _counted(window, i, size, pooled[i], inside=inside).astype(np.float32))
    with np.errstate(divide="ignore"):
        factor: FloatArray = np.float32(count(window.kernel)) / divisor
    return factor[None, None]


def _counted(window: Window, axis: int, size: int, pooled: int, *, inside: bool) -> NDArray[np.int64]:
    """How many places of an axis each window counts."""
    start = np.arange(pooled) * window.stride[axis] - window.pad[axis]
    end = np.minimum(start + window.kernel[axis], size + window.ends[axis])
    return np.minimum(end, size) - np.maximum(start, 0) if inside else end - start


def _axis_correction(window: Window, axis: int, size: int, pooled: int, *, inside: bool) -> FloatArray:
    with np.errstate(divide="ignore"):
        counted = _counted(window, axis, size, pooled, inside=inside).astype(np.float32)
        factor: FloatArray = np.float32(window.kernel[axis]) / counted
    return factor


@dataclass(frozen=True)
class SPP(Layer):
    """Spatial pyramid: level i pools N×C×H×W into 2^i × 2^i cells; all cells of all levels follow one another."""

    in_place: ClassVar[bool] = False
    settings: ClassVar[str] = "spp_param"

    method: Method
    pyramid_height: int

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.spp_param
        if not 1 <= p.pyramid_height <= MOST_LEVELS:
            raise LayerError(f"pyramid_height is {p.pyramid_height}; 1 to {MOST_LEVELS} was needed")
        return cls(METHODS[p.pool], p.pyramid_height)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        bottom = bottoms[0]
        if len(bottom) != 4:
            raise LayerError(_not_4d(bottom))
        for level in range(self.pyramid_height):
            window = self.level_window(level, bottom[2:])
            if any(window.pad) and any(pad >= size for pad, size in zip(window.pad, window.kernel, strict=True)):
                raise LayerError(
                    f"a pyramid of {self.pyramid_height} levels over {format_shape(bottom[2:])} places: level {level} has pad "
                    f"{format_shape(window.pad)}, which must be smaller than its kernel {format_shape(window.kernel)} "
                    "(pad_h_ < kernel_h_). Use a smaller pyramid_height"
                )
        if self.pyramid_height == 1:
            return [(*bottom[:2], *self.level_window(0, bottom[2:]).pool_size(bottom[2:]))]
        cells = sum(count(self.level_window(i, bottom[2:]).pool_size(bottom[2:])) for i in range(self.pyramid_height))
        return [(bottom[0], bottom[1] * cells)]

    @classmethod
    def repairs(cls, layer: LayerDef, bottoms: Shapes) -> Sequence[Settings]:
        p = layer.proto.spp_param
        for fewer in range(min(p.pyramid_height, MOST_LEVELS + 1) - 1, 0, -1):
            try:
                cls(METHODS[p.pool], fewer).top_shapes(bottoms)
            except LayerError:
                continue
            return [{"pyramid_height": fewer}]
        return ()

    def level_window(self, level: int, spatial: Shape) -> Window:
        bins = 2**level
        kernel = tuple(-(-size // bins) for size in spatial)
        pad = tuple((k * bins - size + 1) // 2 for k, size in zip(kernel, spatial, strict=True))
        return Window(kernel, kernel, pad, (1, 1))

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        if self.method == "STOCHASTIC":
            raise LayerError("`pool: STOCHASTIC` has no CPU form in Caffe either (Not Implemented Yet); use MAX or AVE")
        bottom, spatial = node.bottoms[0], node.bottom_shapes[0][2:]
        shape = node.bottom_shapes[0]
        windows = [self.level_window(i, spatial) for i in range(self.pyramid_height)]
        if self.pyramid_height == 1:
            pooled = windows[0].pool_size(spatial)
            lower_pooling(onnx, self.method, windows[0], shape, pooled, bottom, node.tops)
            return
        levels = []
        for i, window in enumerate(windows):
            level = f"{node.tops[0]}/level{i}"
            lower_pooling(onnx, self.method, window, shape, window.pool_size(spatial), bottom, (level,))
            levels.append(onnx.op("Flatten", [level], axis=1))
        onnx.emit("Concat", levels, node.tops, axis=1)

    def lower_gradient(
        self, node: Node, onnx: OnnxBuilder, top_diffs: Sequence[str], propagate_down: Sequence[bool]
    ) -> Gradients:
        bottom, shape = node.bottoms[0], node.bottom_shapes[0]
        windows = [self.level_window(i, shape[2:]) for i in range(self.pyramid_height)]
        pooled = [window.pool_size(shape[2:]) for window in windows]
        diffs: Sequence[str] = top_diffs
        if self.pyramid_height > 1:
            cells = onnx.ints("cells", [shape[1] * count(size) for size in pooled])
            diffs = onnx.ops("Split", [top_diffs[0], cells], len(windows), what="level_diff", axis=1)
            batch, *_ = onnx.dims(bottom)
            planes = [(batch, shape[1], *size) for size in pooled]
            diffs = [onnx.reshape(diff, dims, what="level_diff") for diff, dims in zip(diffs, planes, strict=True)]
        levels = [
            pooling_diff(onnx, self.method, window, shape, size, bottom, diff)
            for window, size, diff in zip(windows, pooled, diffs, strict=True)
        ]
        return Gradients((levels[0] if len(levels) == 1 else onnx.op("Sum", levels, what="bottom_diff"),))

    def axis_orders(self, node: Node, bottoms: Sequence[AxisOrder]) -> Sequence[AxisOrder] | None:
        if self.pyramid_height == 1:
            return super().axis_orders(node, bottoms)
        spatial, channels = node.bottom_shapes[0][2:], node.bottom_shapes[0][1]
        levels = (self.level_window(i, spatial).pool_size(spatial) for i in range(self.pyramid_height))
        return [flat(node.top_shapes[0], [Segment((channels, *cells)) for cells in levels])]

    @property
    def mixes_positions(self) -> bool:
        return True
