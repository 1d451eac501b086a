"""Where the pixels of one top lie in another, and the Crop layer that aligns the two (caffe: python/caffe/coord_map.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from caffeconv.errors import CaffeconvError
from caffeconv.pycaffe.errors import PycaffeAssertionError, PycaffeRuntimeError
from caffeconv.pycaffe.net_spec import Function, Top

PASS_THROUGH_LAYERS = (
    "AbsVal", "BatchNorm", "Bias", "BNLL", "Dropout", "Eltwise", "ELU", "Log", "LRN", "Exp", "MVN", "Power", "ReLU", "PReLU",
    "Scale", "Sigmoid", "Split", "TanH", "Threshold",
)  # fmt: skip
_PER_AXIS = frozenset(("pad_h", "pad_w", "kernel_h", "kernel_w", "stride_h", "stride_w"))
Doubles = NDArray[np.float64]


class UndefinedMapException(CaffeconvError):  # noqa: N818 - pycaffe's name
    """A layer type for which no map is known."""


class AxisMismatchException(CaffeconvError):  # noqa: N818 - pycaffe's name
    """Two maps that concern other axes."""


class CoordMap(NamedTuple):
    """Pixel x of one blob lies at scale·x + shift of another, along the axes after `axis`; None: along any.

    pycaffe's tuple: ``axis, a, b = coord_map_from_to(…)``.
    """

    axis: int | None = None
    scale: Doubles = np.ones(1)
    shift: Doubles = np.zeros(1)

    def then(self, other: CoordMap) -> CoordMap:
        """This map of what `other` gives; AxisMismatchException where they concern other axes."""
        if None not in (self.axis, other.axis) and self.axis != other.axis:
            raise AxisMismatchException(f"maps over axis {self.axis} and axis {other.axis} do not go together")
        axis = other.axis if self.axis is None else self.axis
        return CoordMap(axis, self.scale * other.scale, self.scale * other.shift + self.shift)

    def inverse(self) -> CoordMap:
        """The map of the other direction."""
        return CoordMap(self.axis, 1 / self.scale, -self.shift / self.scale)


def coord_map(fn: Function) -> CoordMap:
    """Where a layer's top lies in its bottom; UndefinedMapException for a type that has no such map."""
    if fn.type_name in ("Convolution", "Pooling", "Im2col"):
        axis, stride, kernel, pad = _window(fn)
        return CoordMap(axis, 1 / stride, (pad - (kernel - 1) / 2) / stride)
    if fn.type_name == "Deconvolution":
        axis, stride, kernel, pad = _window(fn)
        return CoordMap(axis, stride, (kernel - 1) / 2 - pad)
    if fn.type_name in PASS_THROUGH_LAYERS:
        return CoordMap()
    if fn.type_name == "Crop":
        fields = _fields(fn, "crop_param")
        # the first axis that is cropped is the one after those that maps leave alone
        return CoordMap(int(_numbers(fields, "axis", 2)[0]) - 1, np.ones(1), -_numbers(fields, "offset", 0))
    raise UndefinedMapException(f"{fn.type_name}: it is not known where the pixels of its top lie in its bottom")


def _window(fn: Function) -> tuple[int, Doubles, Doubles, Doubles]:
    """Axis, stride, kernel (as dilated) and pad."""
    fields = _fields(fn, "convolution_param")
    per_axis_fields = _PER_AXIS.intersection(fields)
    if per_axis_fields or "kernel_size" not in fields:
        what = f"{', '.join(sorted(per_axis_fields))}" if per_axis_fields else "no kernel_size"
        raise PycaffeAssertionError(
            f"{fn.type_name}: {what}; a map needs kernel_size, and stride and pad where they are not 1 and 0"
        )
    kernel = (_numbers(fields, "kernel_size", 1) - 1) * _numbers(fields, "dilation", 1) + 1
    return int(_numbers(fields, "axis", 1)[0]), _numbers(fields, "stride", 1), kernel, _numbers(fields, "pad", 0)


def _fields(fn: Function, message: str) -> Mapping[str, object]:
    inner = fn.params.get(message)
    return inner if isinstance(inner, Mapping) else fn.params


def _numbers(fields: Mapping[str, object], name: str, default: float) -> Doubles:
    return np.array(fields.get(name, default), np.float64, ndmin=1)


def coord_map_from_to(top_from: Top, top_to: Top) -> CoordMap:
    """Where the pixels of `top_to` lie in `top_from`, over a blob that both come from.

    Raises CaffeconvError, a RuntimeError, where there is none, or layers between of which nothing is known.
    """
    from_maps = dict(_maps_down(top_from))
    for top, to_map in _maps_down(top_to):
        if top in from_maps:
            return to_map.then(from_maps[top].inverse())
    raise PycaffeRuntimeError("Could not compute map between tops; are they connected by spatial layers?")


def _maps_down(top: Top) -> Iterator[tuple[Top, CoordMap]]:
    """A top and everything below it, with the map to each, as far as maps are known."""
    maps = {top: CoordMap()}
    frontier = [top]
    while frontier:
        current = frontier.pop(0)
        yield current, maps[current]
        try:
            step = coord_map(current.fn)
        except UndefinedMapException:
            continue
        # the second bottom of a Crop says how large its top is, not where it lies
        for bottom in current.fn.inputs[:1] if current.fn.type_name == "Crop" else current.fn.inputs:
            if bottom not in maps:
                maps[bottom] = maps[current].then(step)
                frontier.append(bottom)


def crop(top_from: Top, top_to: Top) -> Top:
    """A Crop layer's top: `top_from` cropped to where `top_to` lies in it.

    Raises CaffeconvError, an AssertionError, where the two differ in scale, or by less than whole pixels.
    """
    mapping = coord_map_from_to(top_from, top_to)
    if not (mapping.scale == 1).all():
        raise PycaffeAssertionError(f"scale mismatch on crop (a = {mapping.scale})")
    if not (mapping.shift <= 0).all():
        raise PycaffeAssertionError(f"cannot crop negative offset (b = {mapping.shift})")
    if not (np.round(mapping.shift) == mapping.shift).all():
        raise PycaffeAssertionError(f"cannot crop noninteger offset (b = {mapping.shift})")
    param = {"axis": (mapping.axis or 0) + 1, "offset": [int(-shift) for shift in mapping.shift]}
    return Function("Crop", (top_from, top_to), {"crop_param": param}).tops[0]
