"""All window arithmetic: kernel, stride, pad and dilation of convolution, pooling and im2col.

caffe: BaseConvolutionLayer::LayerSetUp, ConvolutionLayer::compute_output_shape, PoolingLayer::Reshape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from caffeconv.errors import LayerError
from caffeconv.tensor.shape import Shape

INT_MAX = (1 << 31) - 1


class SidePadding(Protocol):
    """The fields of Synopsys' messages that pad each side for itself."""

    @property
    def pad_type(self) -> int: ...
    @property
    def pad_l(self) -> int: ...
    @property
    def pad_r(self) -> int: ...
    @property
    def pad_t(self) -> int: ...
    @property
    def pad_b(self) -> int: ...


Sides = tuple[tuple[int, int], ...]
"""Before and after, for each spatial axis."""


@dataclass(frozen=True)
class Window:
    """A window over n spatial axes (order: as the blob's, so height before width)."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]
    end_pad: tuple[int, ...] | None = None
    """The padding at each axis's end where it is not that of the start, which `pad` is then."""

    @property
    def ends(self) -> tuple[int, ...]:
        """The padding at each axis's end."""
        return self.pad if self.end_pad is None else self.end_pad

    @property
    def pads(self) -> tuple[int, ...]:
        """The padding as ONNX wants it: all starts, then all ends."""
        return (*self.pad, *self.ends)

    def pads_over(self, spatial: Sequence[int | None]) -> tuple[int, ...]:
        """As `pads`, with as much more at the end as a window needs that is larger than its input.

        Caffe has one output then, where the division truncates to 0; ONNX wants windows that fit. None: a size that is
        not known, and taken to be large enough.
        """
        ends = [
            end if size is None else max(end, self.extent(axis) - size - self.pad[axis])
            for axis, (size, end) in enumerate(zip(spatial, self.ends, strict=True))
        ]
        return (*self.pad, *ends)

    @property
    def axes_at_dilation_0(self) -> tuple[int, ...]:
        """The axes along which a dilation of 0 lays all elements upon one place."""
        return tuple(axis for axis, dilation in enumerate(self.dilation) if dilation == 0)

    @property
    def apart(self) -> Window:
        """The window with one element for those that a dilation of 0 lays upon one place: ONNX knows no such dilation."""
        if not self.axes_at_dilation_0:
            return self
        kernel = tuple(size if dilation else 1 for size, dilation in zip(self.kernel, self.dilation, strict=True))
        return replace(self, kernel=kernel, dilation=tuple(dilation or 1 for dilation in self.dilation))

    def padded(self, size: int, axis: int) -> int:
        """The size of a spatial axis with its padding."""
        return size + self.pad[axis] + self.ends[axis]

    def extent(self, axis: int) -> int:
        """How many input positions the window spans along a spatial axis."""
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1

    def conv_size(self, spatial: Shape) -> Shape:
        """Output sizes of a convolution, rounded down. May be ≤ 0; the caller refuses that."""
        return tuple(
            _truncated_division(self.padded(size, i) - self.extent(i), self.stride[i]) + 1
            for i, size in enumerate(spatial)
        )

    def deconv_size(self, spatial: Shape) -> Shape:
        """Output sizes of a deconvolution. May be ≤ 0; the caller refuses that."""
        return tuple(
            self.stride[i] * (size - 1) + self.extent(i) - self.pad[i] - self.ends[i] for i, size in enumerate(spatial)
        )

    def pool_size(self, spatial: Shape, *, ceil: bool = True) -> Shape:
        """Output sizes of pooling: rounded up, then the last window dropped where it would start beyond the input.

        Caffe looks for such windows only where there is padding, and padding on either axis makes it look on both.
        """
        sizes = []
        for i, size in enumerate(spatial):
            span = self.padded(size, i) - self.extent(i)
            # caffe: ceil and floor of a float, which do not truncate
            steps = -(-span // self.stride[i]) if ceil else span // self.stride[i]
            pooled = steps + 1
            if any(self.pads) and (pooled - 1) * self.stride[i] >= size + self.pad[i]:
                pooled -= 1
            sizes.append(pooled)
        return tuple(sizes)

    def overhang(self, positions: Shape, spatial: Shape) -> tuple[int, ...]:
        """By how much the last window goes beyond each axis's end; negative: input places never reached."""
        return tuple(
            self.stride[i] * (positions[i] - 1) + self.extent(i) - self.pad[i] - size for i, size in enumerate(spatial)
        )

    def pool_end_padding(self, spatial: Shape, pooled: Shape) -> tuple[int, ...]:
        """What must be added at each axis's end so that windows fit exactly; negative: positions never reached."""
        return self.overhang(pooled, spatial)

    def conv_formula(self, axis: int, size: int) -> str:
        """``(7 + 2·1 − 1)/1 + 1 = 9``: how `conv_size` comes about on a spatial axis."""
        result = self.conv_size((size,) * len(self.kernel))[axis]
        span = self.padded(size, axis) - self.extent(axis)
        rounded = ", rounded down" if span % self.stride[axis] else ""
        return f"({size} + {self._pad_words(axis)} − {self._extent_words(axis)})/{self.stride[axis]} + 1 = {result}{rounded}"

    def deconv_formula(self, axis: int, size: int) -> str:
        """``2·(7 − 1) + 4 − 2·1 = 14``: how `deconv_size` comes about on a spatial axis."""
        result = self.deconv_size((size,) * len(self.kernel))[axis]
        pads = self._pad_words(axis).replace(" + ", " − ")
        return f"{self.stride[axis]}·({size} − 1) + {self._extent_words(axis)} − {pads} = {result}"

    def pool_formula(self, axis: int, spatial: Shape, *, ceil: bool) -> str:
        """``(112 + 2·0 − 3)/2 + 1 = 56, rounded up``: how `pool_size` comes about on a spatial axis."""
        size, result = spatial[axis], self.pool_size(spatial, ceil=ceil)[axis]
        span = self.padded(size, axis) - self.extent(axis)
        rounded = (", rounded up" if ceil else ", rounded down") if span % self.stride[axis] else ""
        whole = -(-span // self.stride[axis]) + 1 if ceil else span // self.stride[axis] + 1
        if whole > result:
            rounded += ", less the window that would start beyond the input"
        return f"({size} + {self._pad_words(axis)} − {self._extent_words(axis)})/{self.stride[axis]} + 1 = {result}{rounded}"

    def _pad_words(self, axis: int) -> str:
        before, after = self.pad[axis], self.ends[axis]
        return f"2·{before}" if before == after else f"{before} + {after}"

    def _extent_words(self, axis: int) -> str:
        kernel, dilation = self.kernel[axis], self.dilation[axis]
        return str(kernel) if dilation == 1 else f"({dilation}·({kernel} − 1) + 1)"


def same_size(window: Window, spatial: Shape) -> Shape:
    """Output sizes of a window with TensorFlow's SAME padding."""
    return tuple(-(-size // stride) for size, stride in zip(spatial, window.stride, strict=True))


def same_window(window: Window, spatial: Shape) -> Window:
    """The window with the padding of Synopsys' `pad_type: 1` over axes of these sizes: TensorFlow's SAME.

    The smaller half comes first. Dilation is left out of account there, as in the fork's im2col.
    """
    if len(spatial) != 2:
        raise LayerError(f"pad_type can only be used for 2D convolution; there are {len(spatial)} axes")
    kernels = zip(window.kernel, window.stride, spatial, strict=True)
    before = tuple(max(kernel - (size % stride or stride), 0) // 2 for kernel, stride, size in kernels)
    padded = replace(window, pad=before, end_pad=None)
    beyond = padded.overhang(same_size(window, spatial), spatial)
    return replace(padded, end_pad=tuple(max(size, 0) for size in beyond))


def parse_sides(p: SidePadding, fields: Sequence[str]) -> Sides | None:
    """pad_t, pad_b, pad_l and pad_r, before and after height and width; None where all are 0 (Synopsys).

    fields: those for padding that the prototxt has besides. Raises LayerError where it says padding in two ways.
    """
    sides = ((p.pad_t, p.pad_b), (p.pad_l, p.pad_r))
    ways = [*fields, *(["pad_type"] if p.pad_type else []), *(["pad_l/r/t/b"] if any(map(any, sides)) else [])]
    if len(ways) > 1 and ways[-1] in ("pad_type", "pad_l/r/t/b"):
        raise LayerError(f"Either {ways[0]} or {ways[-1]} should be specified; not both.")
    if p.pad_type > 1:
        raise LayerError(f"pad_type is {p.pad_type}; 0, or 1 for TensorFlow's SAME, was needed")
    if min(map(min, sides)) < 0:
        raise LayerError(f"pad_l/r/t/b are {p.pad_l}, {p.pad_r}, {p.pad_t}, {p.pad_b}; at least 0 was needed")
    return sides if any(map(any, sides)) else None


@dataclass(frozen=True)
class WindowSetting:
    """One field of a window as the prototxt gives it: a number for all axes, a number for each, or height and width."""

    name: str
    values: tuple[int, ...] = ()
    height_width: tuple[int, int] | None = None
    """From the fields ``…_h`` and ``…_w``; None where the prototxt has neither."""
    default: int | None = None
    """The number for all axes where there are no values; None where there have to be some."""
    fault: str = ""
    """Why these fields do not go together, whatever the axes."""

    def over(self, axes: int) -> tuple[int, ...]:
        """A number for each axis; raises LayerError as Caffe does."""
        if self.fault:
            raise LayerError(self.fault)
        if self.height_width is not None:
            return self._height_width(self.height_width, axes)
        if len(self.values) not in (1, axes) and (self.values or self.default is None):
            raise LayerError(
                f"{self.name} must be specified once, or once per spatial dimension "
                f"({self.name} specified {len(self.values)} times; {axes} spatial dims)."
            )
        if self.default is not None and not self.values:
            return (self.default,) * axes
        return self.values if len(self.values) == axes else self.values * axes

    def _height_width(self, sizes: tuple[int, int], axes: int) -> tuple[int, int]:
        short = self.name.removesuffix("_size")
        if axes != 2:
            raise LayerError(f"{short}_h & {short}_w can only be used for 2D convolution; there are {axes} axes")
        if self.values:
            raise LayerError(f"Either {self.name} or {short}_h/w should be specified; not both.")
        return sizes


@dataclass(frozen=True)
class WindowSpec:
    """A window as the prototxt gives it, before the number of axes is known that it lies over."""

    kernel: WindowSetting
    stride: WindowSetting
    pad: WindowSetting
    dilation: WindowSetting
    fault: str = ""
    """What else the prototxt says of a window that cannot be followed."""
    sides: Sides | None = None
    """Padding before and after height and width, where each side has its own (Synopsys)."""

    def over(self, axes: int) -> Window:
        """The window over that many spatial axes; raises LayerError as Caffe does."""
        kernel, stride, pad = self.kernel.over(axes), self.stride.over(axes), self.pad.over(axes)
        dilation = self.dilation.over(axes)
        if self.fault:
            raise LayerError(self.fault)
        for name, values in (("kernel_size", kernel), ("stride", stride)):
            if not all(1 <= value <= INT_MAX for value in values):
                raise LayerError(f"{name} is {list(values)}; each must be at least 1, and fit an int")
        for name, values in (("pad", pad), ("dilation", dilation)):  # caffe: a dilation of 0 is not refused
            if any(value > INT_MAX for value in values):
                raise LayerError(f"{name} is {list(values)}; each must fit an int")
        if self.sides is None:
            return Window(kernel, stride, pad, dilation)
        if axes != len(self.sides):
            raise LayerError(f"pad_l, pad_r, pad_t & pad_b can only be used for 2D convolution; there are {axes} axes")
        before, after = zip(*self.sides, strict=True)
        return Window(kernel, stride, before, dilation, after)


@dataclass(frozen=True)
class Padding:
    """What a window needs beyond its input at one size of that, held against TensorFlow's SAME and VALID.

    Padding the input by `pads` (with 0, or with the lowest number) and VALID is what Caffe does, but for `factors`.
    Of a transposed convolution, `pads` is what is to be cut off VALID's result.
    """

    window: Window
    pads: Sides
    same: bool
    """Whether SAME, without anything else, gives what Caffe gives."""
    valid: bool
    """Whether VALID, without anything else, gives what Caffe gives."""
    same_pads: Sides
    """What SAME would pad, or cut off."""
    same_size: Shape
    """What SAME would make of the spatial axes."""
    fill: Literal["zero", "lowest"] = "zero"
    crops: bool = False
    """Whether `pads` are cut off the result, and not added to the input."""
    factors: tuple[tuple[float, ...], ...] = ()
    """By what the averages of VALID have to be multiplied along each spatial axis; empty: by nothing."""


def conv_padding(window: Window, spatial: Shape, sizes: Shape) -> Padding:
    """What a convolution needs beyond its input; `sizes` are its output's."""
    pads = tuple((pad, max(0, over)) for pad, over in zip(window.pad, window.overhang(sizes, spatial), strict=True))
    sizes_of_same = same_size(window, spatial)
    beyond = replace(window, pad=(0,) * len(window.pad), end_pad=None).overhang(sizes_of_same, spatial)
    # tensorflow: what cannot be halved goes to the end
    same_pads = tuple((max(0, total) // 2, max(0, total) - max(0, total) // 2) for total in beyond)
    same = pads == same_pads and sizes == sizes_of_same
    return Padding(window, pads, same, not any(map(any, pads)), same_pads, sizes_of_same)


def greatest_padding(window: Window, spatial: Shape, sizes: Shape) -> Padding:
    """As `conv_padding`, for the greatest value of each window."""
    return replace(conv_padding(window, spatial, sizes), fill="lowest")


def average_padding(window: Window, spatial: Shape, sizes: Shape, factors: tuple[tuple[float, ...], ...]) -> Padding:
    """As `conv_padding`, for averages; `factors`: kernel size ÷ how many places Caffe counts, along each axis."""
    padding = conv_padding(window, spatial, sizes)
    # tensorflow's SAME averages over the input alone; Caffe counts its padding, but nothing beyond that
    counts_alike = not any(window.pads)
    corrected = factors if any(factor != 1 for axis in factors for factor in axis) else ()
    return replace(padding, same=padding.same and counts_alike, factors=corrected)


def deconv_padding(window: Window, spatial: Shape) -> Padding:
    """What is to be cut off a transposed convolution."""
    extents = [window.extent(axis) for axis in range(len(spatial))]
    # keras: VALID's result is stride·in + max(extent − stride, 0), which is more than there are values where extent < stride
    crops = tuple(
        (before, after + max(0, stride - extent))
        for before, after, stride, extent in zip(window.pad, window.ends, window.stride, extents, strict=True)
    )
    sizes_of_same = tuple(size * stride for size, stride in zip(spatial, window.stride, strict=True))
    beyond = [max(0, extent - stride) for extent, stride in zip(extents, window.stride, strict=True)]
    same_crops = tuple((total // 2, total - total // 2) for total in beyond)
    same = window.deconv_size(spatial) == sizes_of_same and all(
        crop[0] == pad for crop, pad in zip(same_crops, window.pad, strict=True)
    )
    return Padding(window, crops, same, not any(map(any, crops)), same_crops, sizes_of_same, crops=True)


def _truncated_division(numerator: int, denominator: int) -> int:
    """C's integer division, which rounds toward zero."""
    quotient = abs(numerator) // denominator
    return quotient if numerator >= 0 else -quotient
