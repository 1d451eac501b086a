"""All window arithmetic: kernel, stride, pad and dilation of convolution, pooling and im2col.

caffe: BaseConvolutionLayer::LayerSetUp, ConvolutionLayer::compute_output_shape, PoolingLayer::Reshape.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from caffeconv.errors import LayerError
from caffeconv.tensor.shape import Shape

INT_MAX = (1 << 31) - 1


Sides = tuple[tuple[int, int], ...]
"""Before and after, for each spatial axis."""


@dataclass(frozen=True)
class Window:
    """A window over n spatial axes (order: as the blob's, so height before width)."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]

    def extent(self, axis: int) -> int:
        """How many input positions the window spans along a spatial axis."""
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1

    def conv_size(self, spatial: Shape) -> Shape:
        """Output sizes of a convolution, rounded down. May be ≤ 0; the caller refuses that."""
        return tuple(
            _truncated_division(size + 2 * self.pad[i] - self.extent(i), self.stride[i]) + 1
            for i, size in enumerate(spatial)
        )

    def deconv_size(self, spatial: Shape) -> Shape:
        """Output sizes of a deconvolution. May be ≤ 0; the caller refuses that."""
        return tuple(self.stride[i] * (size - 1) + self.extent(i) - 2 * self.pad[i] for i, size in enumerate(spatial))

    def pool_size(self, spatial: Shape, *, ceil: bool = True) -> Shape:
        """Output sizes of pooling: rounded up, then the last window dropped where it would start beyond the input.

        Caffe looks for such windows only where there is padding, and padding on either axis makes it look on both.
        """
        sizes = []
        for i, size in enumerate(spatial):
            span = size + 2 * self.pad[i] - self.kernel[i]
            steps = -(-span // self.stride[i]) if ceil else _truncated_division(span, self.stride[i])
            pooled = steps + 1
            if any(self.pad) and (pooled - 1) * self.stride[i] >= size + self.pad[i]:
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
        span = size + 2 * self.pad[axis] - self.extent(axis)
        rounded = ", rounded down" if span % self.stride[axis] else ""
        return f"({size} + 2·{self.pad[axis]} − {self._extent_words(axis)})/{self.stride[axis]} + 1 = {result}{rounded}"

    def deconv_formula(self, axis: int, size: int) -> str:
        """``2·(7 − 1) + 4 − 2·1 = 14``: how `deconv_size` comes about on a spatial axis."""
        result = self.deconv_size((size,) * len(self.kernel))[axis]
        return f"{self.stride[axis]}·({size} − 1) + {self._extent_words(axis)} − 2·{self.pad[axis]} = {result}"

    def pool_formula(self, axis: int, spatial: Shape, *, ceil: bool) -> str:
        """``(112 + 2·0 − 3)/2 + 1 = 56, rounded up``: how `pool_size` comes about on a spatial axis."""
        size, result = spatial[axis], self.pool_size(spatial, ceil=ceil)[axis]
        span = size + 2 * self.pad[axis] - self.kernel[axis]
        rounded = (", rounded up" if ceil else ", rounded down") if span % self.stride[axis] else ""
        whole = -(-span // self.stride[axis]) + 1 if ceil else span // self.stride[axis] + 1
        if whole > result:
            rounded += ", less the window that would start beyond the input"
        return f"({size} + 2·{self.pad[axis]} − {self.kernel[axis]})/{self.stride[axis]} + 1 = {result}{rounded}"

    def _extent_words(self, axis: int) -> str:
        kernel, dilation = self.kernel[axis], self.dilation[axis]
        return str(kernel) if dilation == 1 else f"({dilation}·({kernel} − 1) + 1)"


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

    def over(self, axes: int) -> Window:
        """The window over that many spatial axes; raises LayerError as Caffe does."""
        kernel, stride, pad = self.kernel.over(axes), self.stride.over(axes), self.pad.over(axes)
        dilation = self.dilation.over(axes)
        if self.fault:
            raise LayerError(self.fault)
        for name, values in (("kernel_size", kernel), ("stride", stride), ("dilation", dilation)):
            if not all(1 <= value <= INT_MAX for value in values):
                raise LayerError(f"{name} is {list(values)}; each must be at least 1, and fit an int")
        if any(value > INT_MAX for value in pad):
            raise LayerError(f"pad is {list(pad)}; each must fit an int")
        return Window(kernel, stride, pad, dilation)


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
    same_size = tuple(-(-size // stride) for size, stride in zip(spatial, window.stride, strict=True))
    beyond = replace(window, pad=(0,) * len(window.pad)).overhang(same_size, spatial)
    # tensorflow: what cannot be halved goes to the end
    same_pads = tuple((max(0, total) // 2, max(0, total) - max(0, total) // 2) for total in beyond)
    same = pads == same_pads and sizes == same_size
    return Padding(window, pads, same, not any(map(any, pads)), same_pads, same_size)


def greatest_padding(window: Window, spatial: Shape, sizes: Shape) -> Padding:
    """As `conv_padding`, for the greatest value of each window."""
    return replace(conv_padding(window, spatial, sizes), fill="lowest")


def average_padding(window: Window, spatial: Shape, sizes: Shape, factors: tuple[tuple[float, ...], ...]) -> Padding:
    """As `conv_padding`, for averages; `factors`: kernel size ÷ how many places Caffe counts, along each axis."""
    padding = conv_padding(window, spatial, sizes)
    # tensorflow's SAME averages over the input alone; Caffe counts its padding, but nothing beyond that
    counts_alike = not any(window.pad)
    corrected = factors if any(factor != 1 for axis in factors for factor in axis) else ()
    return replace(padding, same=padding.same and counts_alike, factors=corrected)


def deconv_padding(window: Window, spatial: Shape) -> Padding:
    """What is to be cut off a transposed convolution."""
    extents = [window.extent(axis) for axis in range(len(spatial))]
    # keras: VALID's result is stride·in + max(extent − stride, 0), which is more than there are values where extent < stride
    crops = tuple(
        (pad, pad + max(0, stride - extent))
        for pad, stride, extent in zip(window.pad, window.stride, extents, strict=True)
    )
    same_size = tuple(size * stride for size, stride in zip(spatial, window.stride, strict=True))
    beyond = [max(0, extent - stride) for extent, stride in zip(extents, window.stride, strict=True)]
    same_crops = tuple((total // 2, total - total // 2) for total in beyond)
    same = window.deconv_size(spatial) == same_size and all(
        crop[0] == pad for crop, pad in zip(same_crops, window.pad, strict=True)
    )
    return Padding(window, crops, same, not any(map(any, crops)), same_crops, same_size, crops=True)


def _truncated_division(numerator: int, denominator: int) -> int:
    """C's integer division, which rounds toward zero."""
    quotient = abs(numerator) // denominator
    return quotient if numerator >= 0 else -quotient
