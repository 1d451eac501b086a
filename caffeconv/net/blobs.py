"""What a net shows of its blobs, parameters and layers, in pycaffe's manner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from caffeconv.errors import CaffeconvError, UnknownNameError, shortened
from caffeconv.tensor.shape import FloatArray, Shape, count, format_shape


class _Sized:
    """The sizes that a blob has by its shape."""

    @property
    def shape(self) -> Shape:
        raise NotImplementedError

    @property
    def count(self) -> int:
        return count(self.shape)

    @property
    def num(self) -> int:
        return _legacy_axis(self.shape, 0)

    @property
    def channels(self) -> int:
        return _legacy_axis(self.shape, 1)

    @property
    def height(self) -> int:
        return _legacy_axis(self.shape, 2)

    @property
    def width(self) -> int:
        return _legacy_axis(self.shape, 3)


def _legacy_axis(shape: Shape, axis: int) -> int:
    # caffe: Blob::LegacyShape — axes that a blob lacks count as 1
    return shape[axis] if axis < len(shape) else 1


def float_arrays(arrays: Mapping[str, ArrayLike]) -> dict[str, FloatArray]:
    """The arrays as float32; CaffeconvError for what is no array of numbers."""
    return {blob: _float_array(blob, values) for blob, values in arrays.items()}


def _float_array(blob: str, values: ArrayLike) -> FloatArray:
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CaffeconvError(f"{blob}={shortened(repr(values))}: an array of numbers was needed ({reason})") from None


class NamedBlobs(dict[str, "NetBlob"]):
    """A net's blobs by name, in the order in which Caffe makes them."""

    def __getitem__(self, name: str) -> NetBlob:
        return super().__getitem__(self.known(name))

    def known(self, name: str) -> str:
        """The name itself; UnknownNameError where no blob has it."""
        if not isinstance(name, str) or name not in self:
            raise UnknownNameError("blob", name, self)
        return name


def with_shapes(blobs: Sequence[str], shape_of: Callable[[str], Shape]) -> str:
    """Blobs and their shapes, for people."""
    return ", ".join(f"{blob} {format_shape(shape_of(blob))}" for blob in blobs) or "nothing"


class NetBlob(_Sized):
    """One blob of a net: `data`, `shape`, and for an input `reshape`.

    Args:
        name: the blob.
        shape_of, value_of, diff_of: blob → what is in it now.
        reshape_input: gives an input another shape.
    """

    def __init__(
        self, name: str, shape_of: Callable[[str], Shape], value_of: Callable[[str], FloatArray],
        diff_of: Callable[[str], FloatArray], reshape_input: Callable[[str, Sequence[int]], None],
    ) -> None:  # fmt: skip
        self.name = name
        self._shape_of = shape_of
        self._value_of = value_of
        self._diff_of = diff_of
        self._reshape_input = reshape_input

    @property
    def shape(self) -> Shape:
        return self._shape_of(self.name)

    @property
    def data(self) -> FloatArray:
        """The values, float32, to be assigned into (``blob.data[...] = x``); what no pass computed yet is when read."""
        return self._value_of(self.name)

    @property
    def diff(self) -> FloatArray:
        """The gradient that the last backward left, float32; 0 where none was computed, an output's loss weight.

        Assign into an output's, or a top's of the layer that `backward` starts at, to go backward from there.
        """
        return self._diff_of(self.name)

    def __repr__(self) -> str:
        return f"<blob {self.name} {format_shape(self.shape)}>"

    def _repr_html_(self) -> str:
        """As notebooks show it: where the values lie, which are computed where no pass has done so yet."""
        from caffeconv.inspection.notebook import array_html

        return array_html(repr(self), self.data)

    def reshape(self, *shape: int) -> None:
        """Gives an input another shape; the rest of the net follows at the next forward."""
        self._reshape_input(self.name, shape)


class ParamBlob(_Sized):
    """One parameter blob, float32: `data` may be assigned into (net surgery); `diff` is what backward passes added."""

    def __init__(
        self, values: FloatArray, diff: FloatArray, before_diff: Callable[[], None] | None = None
    ) -> None:  # fmt: skip
        """before_diff: called before the diff is handed out, which it may compute only then."""
        self._values = values
        self._diff = diff
        self._before_diff = before_diff

    def reshaped(self, shape: Shape) -> ParamBlob:
        """The same values and diff in another shape."""
        return ParamBlob(self._values.reshape(shape), self._diff.reshape(shape), self._before_diff)

    @property
    def data(self) -> FloatArray:
        return self._values

    @property
    def diff(self) -> FloatArray:
        if self._before_diff is not None:
            self._before_diff()
        return self._diff

    @property
    def shape(self) -> Shape:
        return self._values.shape

    def __repr__(self) -> str:
        return f"<parameter {format_shape(self.shape)}>"

    def _repr_html_(self) -> str:
        """As notebooks show it: where the values lie."""
        from caffeconv.inspection.notebook import array_html

        return array_html(repr(self), self.data)


@dataclass(frozen=True)
class NetLayer:
    """One layer of a net: its type and its parameter blobs, none for most types."""

    type: str
    blobs: Sequence[ParamBlob]
