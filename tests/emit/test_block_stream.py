"""Transposed arrays put in order, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffeconv.emit.weights import block_stream
from caffeconv.emit.weights.block_stream import blocks, in_order, stream
from caffeconv.tensor.shape import FloatArray

SHAPES = st.lists(st.integers(0, 6), max_size=4)


def view(shape: list[int], seed: int) -> FloatArray:
    """An array of any strides: axes permuted, some of them backwards."""
    random = np.random.default_rng(seed)
    axes = random.permutation(len(shape))
    base = random.normal(size=[shape[axis] for axis in axes]).astype(np.float32)
    turned = base.transpose(np.argsort(axes)) if shape else base
    return turned[tuple(slice(None, None, step) for step in random.choice([1, -1], len(shape)))]


@given(SHAPES, st.integers(0, 9), st.integers(4, 40), st.integers(1, 9))
def test_any_array_in_blocks_and_tiles_of_any_size(shape: list[int], seed: int, block: int, tile: int) -> None:
    values = view(shape, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_stream, "BLOCK", block)
        patch.setattr(block_stream, "TILE", tile)
        parts = list(stream([values, values]))
    assert all(part.nbytes <= block and part.flags.c_contiguous and part.dtype == "<f4" for part in parts)
    expected = np.concatenate([values.ravel(), values.ravel()])
    np.testing.assert_array_equal(np.concatenate([np.zeros(0), *(part.ravel() for part in parts)]), expected)


def test_blocks_are_as_large_as_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_stream, "BLOCK", 24)
    values = np.zeros((5, 3), np.float32)
    assert [block.shape for block in blocks(values)] == [(2, 3), (2, 3), (1, 3)]
    assert [block.shape for block in blocks(np.zeros((2, 7), np.float32))] == [(6,), (1,), (6,), (1,)]
    assert all(np.shares_memory(block, values) for block in blocks(values))


def test_what_is_in_order_is_not_copied() -> None:
    values = np.zeros((5, 3), np.float32)
    assert in_order(values) is values
    assert in_order(values.T) is not values.T
    assert in_order(values.astype(">f4")).dtype == np.dtype("<f4")


def test_parts_are_made_one_after_another() -> None:
    steps: list[str] = []

    def parts() -> Iterator[FloatArray]:
        for i in range(6):
            steps.append(f"made {i}")
            yield np.full(2, i, np.float32)

    for block in stream(parts()):
        steps.append(f"got {block[0]:g}")
    assert steps[-1] == "got 5"
    assert steps.index("got 0") < steps.index("made 5")
