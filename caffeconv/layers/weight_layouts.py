"""A layer's parameters as a net that keeps channels last wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffeconv.ir.layer import Node
from caffeconv.tensor.axis_order import AxisOrder, Segment
from caffeconv.tensor.param import Param
from caffeconv.tensor.shape import FloatArray, Shape, count, format_shape
from caffeconv.tensor.weight_array import SPATIAL, Source, WeightArray


def source_of(node: Node, param: Param) -> Source:
    """Where a parameter of the layer comes from."""
    origin = Path(param.source).name if param.source else ""
    return Source(node.name, node.params.index(param), param.name, param.shape, origin)


def as_stored(node: Node, param: Param) -> WeightArray:
    """The parameter as Caffe has it."""
    return WeightArray(param.name, param.shape, (source_of(node, param),), "none", lambda: [param.array()])


def all_as_stored(node: Node) -> tuple[WeightArray, ...]:
    return tuple(as_stored(node, param) for param in node.params)


def transposed(
    node: Node, param: Param, name: str, axes: Sequence[int], words: str, *, view: Shape | None = None,
    shape: Shape | None = None,
) -> WeightArray:  # fmt: skip
    """The parameter seen as `view`, its axes in another order, and that seen as `shape`."""
    view = view or param.shape
    shape = shape or tuple(view[axis] for axis in axes)
    return WeightArray(
        name, shape, (source_of(node, param),), words, lambda: [param.array().reshape(view).transpose(*axes)]
    )


def convolution_kernel(
    node: Node, param: Param, name: str = "kernel", outside: str = "O", inside: str = "I"
) -> WeightArray:
    """A kernel of two channel axes and spatial axes, `outside` × `inside` × …: … × `inside` × `outside`."""
    rank = len(param.shape)
    spatial = SPATIAL.get(rank - 2, "spatial axes") if rank > 2 else ""
    before = "×".join(filter(None, (outside, inside, spatial)))
    after = "×".join(filter(None, (spatial, inside, outside)))
    return transposed(node, param, name, (*range(2, rank), 1, 0), f"{before} → {after}")


def flattened(node: Node, param: Param, name: str) -> WeightArray:
    """The parameter with all its values along one axis."""
    words = "none" if len(param.shape) == 1 else f"{format_shape(param.shape)} → {count(param.shape)}"
    return WeightArray(name, (count(param.shape),), (source_of(node, param),), words, lambda: [param.array()])


def dense_kernel(
    node: Node, param: Param, name: str, rows: Sequence[Segment], *, rows_first: bool = False
) -> WeightArray:
    """A matrix outputs × inputs (inputs × outputs where `rows_first`) as inputs × outputs, the inputs being `rows`."""
    outputs = param.shape[1 if rows_first else 0]
    inputs = sum(piece.size for piece in rows)

    def parts() -> Iterable[FloatArray]:
        values, start = param.array(), 0
        for piece in rows:
            end = start + piece.size
            if rows_first:
                yield values[start:end].reshape(*piece.shape, outputs).transpose(*piece.axes, len(piece.shape))
            else:
                axes = (*(axis + 1 for axis in piece.axes), 0)
                # a view: cutting the inputs keeps each output's values together
                yield values[:, start:end].reshape(outputs, *piece.shape).transpose(axes)
            start = end

    before, after = _row_words(rows)
    words = f"{before}×{outputs} → {after}×{outputs}" if rows_first else f"{outputs}×{before} → {after}×{outputs}"
    plain = rows_first and all(piece.stays for piece in rows)
    return WeightArray(name, (inputs, outputs), (source_of(node, param),), "none" if plain else words, parts)


def _row_words(rows: Sequence[Segment]) -> tuple[str, str]:
    if all(piece.stays for piece in rows):
        return (str(sum(piece.size for piece in rows)),) * 2
    return f"({' + '.join(map(str, rows))})", f"({' + '.join(piece.moved for piece in rows)})"


def along(
    node: Node, param: Param, name: str, start: int, bottom: AxisOrder, shape: Shape | None = None
) -> WeightArray:
    """A parameter that lies along the bottom's axes from `start` on, so that it broadcasts over the bottom as held.

    shape: the parameter's, where it is not that of those axes. Ones stand for axes along which it is repeated, but for
    those in front.
    """
    laid = Laid.over(bottom, start, param.shape if shape is None else shape)
    return WeightArray(name, laid.shape, (source_of(node, param),), laid.words, lambda: laid.parts(param.array()))


@dataclass(frozen=True)
class PerChannel:
    """A value for each channel."""

    channels: int
    sources: tuple[Source, ...]
    done: str
    """What was done to Caffe's values; empty where nothing was."""
    values: Callable[[], FloatArray]

    @classmethod
    def of(cls, node: Node, name: str) -> PerChannel:
        param = node.param(name)
        return cls(count(param.shape), (source_of(node, param),), "", param.array)

    @classmethod
    def constant(cls, channels: int, value: float) -> PerChannel:
        return cls(
            channels, (), f"{value:g}s: Caffe has no such parameter", lambda: np.full(channels, value, np.float32)
        )

    def kernel(self, name: str, bottom: AxisOrder) -> WeightArray:
        """The values laid along the channels, axis 1, of the bottom as it is held."""
        axis = min(1, len(bottom.shape) - 1)
        laid = Laid.over(bottom, axis, (self.channels,))
        words = "; ".join(word for word in (self.done, laid.words) if word not in ("", "none")) or "none"
        return WeightArray(name, laid.shape, self.sources, words, lambda: laid.parts(self.values().reshape(-1)))


def batch_normalization(
    gamma: PerChannel | None, beta: PerChannel | None, mean: PerChannel, variance: PerChannel, bottom: AxisOrder
) -> tuple[WeightArray, ...]:
    """The four arrays of Keras's BatchNormalization; ones and zeros for gamma and beta where Caffe has none."""
    gamma = gamma or PerChannel.constant(mean.channels, 1)
    beta = beta or PerChannel.constant(mean.channels, 0)
    named = {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": variance}
    return tuple(values.kernel(name, bottom) for name, values in named.items())


@dataclass(frozen=True)
class Laid:
    """How values that lie along some of a blob's axes lie along the blob as it is held."""

    shape: Shape
    words: str
    view: Shape
    axes: tuple[int, ...]
    pieces: tuple[Segment, ...] = ()
    """Where the last axis is a flattening, what lies along it."""

    @classmethod
    def over(cls, bottom: AxisOrder, start: int, shape: Shape) -> Laid:
        if not shape:
            return cls((), "none", (), ())
        end = start + len(shape)
        view = (1,) * start + shape + (1,) * (len(bottom.shape) - end)
        covered = [place for place, axis in enumerate(bottom.axes) if start <= axis < end]
        view_in_order = tuple(view[axis] for axis in bottom.axes[covered[0] :])
        if bottom.is_flattening and end == len(bottom.shape):
            before, after = _row_words(bottom.pieces)
            return cls(view_in_order, f"{before} → {after}", view, bottom.axes, bottom.pieces)
        words = "none" if view_in_order == shape else f"{format_shape(shape)} → {format_shape(view_in_order)}"
        return cls(view_in_order, words, view, bottom.axes)

    def parts(self, values: FloatArray) -> Iterable[FloatArray]:
        """The parts of a `WeightArray`, given Caffe's values."""
        if not self.pieces:
            yield values.reshape(self.view).transpose(self.axes) if self.view else values
            return
        for row in values.reshape(-1, sum(piece.size for piece in self.pieces)):
            start = 0
            for piece in self.pieces:
                yield row[start : start + piece.size].reshape(piece.shape).transpose(piece.axes)
                start += piece.size
