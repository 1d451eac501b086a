"""What is said about where values lie, against arrays that are really moved."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from caffeconv.tensor.axis_order import (
    AxisOrder,
    Segment,
    as_caffe,
    channels_last,
    concatenated,
    flat,
    reshaped,
    same_places,
    sliced,
)

Places = NDArray[np.int64]
sizes = st.integers(1, 4)


def places(shape: Sequence[int]) -> Places:
    """Every value is its own place in Caffe's order."""
    return np.arange(math.prod(shape)).reshape(shape)


def held(values: Places, how: AxisOrder) -> Places:
    """The values as a net that keeps channels last holds them."""
    assert values.shape == how.shape
    if len(how.item) > 1:
        return np.moveaxis(values, how.lead, -1)
    if not how.pieces:
        return values
    parts, start = [], 0
    for piece in how.pieces:
        part = values[..., start : start + piece.size]
        image = part.reshape(*how.shape[:-1], *piece.shape)
        parts.append(np.moveaxis(image, len(how.shape) - 1 + piece.lead, -1).reshape(part.shape))
        start += piece.size
    assert start == how.shape[-1]
    return np.concatenate(parts, axis=-1)


@st.composite
def images(draw: st.DrawFn) -> AxisOrder:
    shape = tuple(draw(st.lists(sizes, min_size=2, max_size=5)))
    return channels_last(shape, draw(st.integers(1, len(shape) - 1)))


@st.composite
def flattenings(draw: st.DrawFn) -> AxisOrder:
    pieces = [
        Segment(tuple(shape))
        for shape in draw(st.lists(st.lists(sizes, min_size=1, max_size=3), min_size=1, max_size=3))
    ]
    front = tuple(draw(st.lists(sizes, min_size=1, max_size=2)))
    return flat((*front, sum(piece.size for piece in pieces)), pieces)


arrangements = st.one_of(images(), flattenings())


@st.composite
def shapes_of(draw: st.DrawFn, total: int) -> tuple[int, ...]:
    """Any shape of so many values, of up to five axes."""
    shape = []
    for _ in range(draw(st.integers(0, 4))):
        size = draw(st.sampled_from([n for n in range(1, total + 1) if total % n == 0]))
        shape.append(size)
        total //= size
    return (*shape, total)


@given(arrangements, st.data())
def test_a_reshape_that_is_allowed_moves_nothing(bottom: AxisOrder, data: st.DataObject) -> None:
    shape = data.draw(shapes_of(math.prod(bottom.shape)))
    top = reshaped(bottom, shape)
    assume(top is not None)
    assert top is not None
    assert top.shape == shape
    values = places(bottom.shape)
    np.testing.assert_array_equal(held(values.reshape(shape), top), held(values, bottom).reshape(top.held_shape))


@given(images())
def test_flattening_items_is_allowed(bottom: AxisOrder) -> None:
    front = bottom.shape[: bottom.lead]
    top = reshaped(bottom, (*front, math.prod(bottom.item)))
    assert top is not None
    assert top.moves == bottom.moves
    back = reshaped(top, bottom.shape)
    assert back == bottom or not bottom.moves


@given(arrangements, st.data())
def test_what_lies_along_axes(how: AxisOrder, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(how.shape)))
    pieces = how.along(axis)
    assert sum(piece.size for piece in pieces) == math.prod(how.shape[axis:])
    if axis > how.lead:  # the rest is in Caffe's order already
        assert all(piece.stays for piece in pieces)
        return
    run = np.arange(math.prod(how.shape[axis:]))
    moved, start = [], 0
    for piece in pieces:
        moved.append(run[start : start + piece.size].reshape(piece.shape).transpose(piece.axes).ravel())
        start += piece.size
    whole = held(places(how.shape), how)
    np.testing.assert_array_equal(np.concatenate(moved), whole.reshape(-1, len(run))[0])


@given(st.lists(arrangements, min_size=1, max_size=3), st.data())
def test_concat(bottoms: list[AxisOrder], data: st.DataObject) -> None:
    first = bottoms[0]
    axis = data.draw(st.integers(0, len(first.shape) - 1))
    alike = [b for b in bottoms if len(b.shape) == len(first.shape)]
    alike = [b for b in alike if b.shape[:axis] + b.shape[axis + 1 :] == first.shape[:axis] + first.shape[axis + 1 :]]
    alike = [*alike[:2], first]
    values = [places(bottom.shape) + 1000 * i for i, bottom in enumerate(alike)]
    whole = np.concatenate(values, axis)
    top = concatenated(alike, axis, whole.shape)
    assume(top is not None)
    assert top is not None
    if any(bottom.lead != first.lead for bottom in alike):  # no value moves: each lies as Caffe has it
        np.testing.assert_array_equal(held(whole, top), whole)
        return
    parts = [held(part, bottom) for part, bottom in zip(values, alike, strict=True)]
    np.testing.assert_array_equal(held(whole, top), np.concatenate(parts, first.axes.index(axis)))


def test_concat_of_blobs_whose_values_stay() -> None:
    """An image of one pixel and a flat blob of the same shape: both as Caffe has them, under two names."""
    pixel, flat_one = AxisOrder((1, 2, 1), lead=1), as_caffe((1, 2, 1))
    assert concatenated([pixel, flat_one], 0, (2, 2, 1)) == as_caffe((2, 2, 1))
    assert concatenated([AxisOrder((1, 2, 3), lead=1), as_caffe((1, 2, 3))], 0, (2, 2, 3)) is None


@given(arrangements, st.data())
def test_slice(bottom: AxisOrder, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(bottom.shape) - 1))
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, bottom.shape[axis] - 1)), max_size=2)))
    assume(all(cut < bottom.shape[axis] for cut in cuts))
    values = places(bottom.shape)
    parts = np.split(values, cuts, axis)
    tops = sliced(bottom, axis, [part.shape for part in parts])
    assume(tops is not None)
    assert tops is not None
    whole = np.split(held(values, bottom), cuts, bottom.axes.index(axis))
    for part, top, want in zip(parts, tops, whole, strict=True):
        np.testing.assert_array_equal(held(part, top), want)


def test_a_cut_through_a_flattened_image_is_not_known() -> None:
    bottom = flat((2, 30), [Segment((3, 2, 4)), Segment((6,))])
    assert sliced(bottom, 1, [(2, 12), (2, 18)]) is None
    assert sliced(bottom, 1, [(2, 24), (2, 6)]) == [flat((2, 24), [Segment((3, 2, 4))]), as_caffe((2, 6))]


def test_values_that_belong_together_must_meet() -> None:
    flattened, vector = flat((2, 24), [Segment((3, 2, 4))]), as_caffe((2, 24))
    assert same_places([flattened, flattened], 1) == [flattened]
    assert same_places([flattened, vector], 1) is None
    assert same_places([vector, flattened], 1) is None
    assert concatenated([flattened, vector], 0, (4, 24)) is None


def test_mixing_channels_and_rows_is_not_known() -> None:
    assert reshaped(channels_last((1, 6, 4, 5)), (1, 12, 2, 5)) is None
    assert reshaped(channels_last((1, 6, 4, 5)), (1, 6, 20)) == channels_last((1, 6, 20))
    assert reshaped(channels_last((4, 6, 3, 5)), (2, 2, 6, 3, 5)) == channels_last((2, 2, 6, 3, 5), 2)
