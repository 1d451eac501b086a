"""Batches: how they are put together, and MemoryData's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.databases import refused

from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.source import BatchBuilder, DataSource, ItemBlock, MemorySource
from caffeconv.tensor.shape import FloatArray

BOTH = ("data", "label")


class Counter(DataSource):
    """Items 0, 1, 2, each as large as it says."""

    def __init__(self, batch_size: int, sizes: tuple[int, ...] = (2, 2, 2)) -> None:
        super().__init__(BOTH, batch_size)
        self.sizes = sizes
        self.reads = 0

    @property
    def at_start(self) -> bool:
        return self.position % 3 == 0

    @property
    def name(self) -> str:
        return "counter"

    def count_items(self) -> int:
        return 3

    def _take(self) -> ItemBlock:
        self.reads += 1
        i = self.position % 3
        values = np.full((1, self.sizes[i]), i, np.float32), np.array([i], np.float32)
        return ItemBlock(self.position, 1, f"item {i}", lambda: values)

    def _go_to(self, position: int) -> None:
        pass


class Missing(Counter):
    """A source that is not there."""

    def _take(self) -> ItemBlock:
        raise SourceUnavailableError("db: No such file or directory")


def labels(source: DataSource, **handed: FloatArray) -> list[float]:
    return [float(value) for value in source.next_batch(handed, BOTH)["label"].ravel()]


def test_items_go_round() -> None:
    source = Counter(2)
    assert [labels(source) for _ in range(3)] == [[0, 1], [2, 0], [1, 2]]
    source.seek(4)
    assert labels(source) == [1, 2]


def test_a_batch_of_a_whole_epoch_is_read_once() -> None:
    source = Counter(3)
    first = source.next_batch({}, BOTH)
    first["data"][...] = 9  # what a caller does with its batch is its own affair
    assert source.next_batch({}, BOTH)["data"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert source.reads == 3


def test_what_is_handed_over_replaces_what_is_read() -> None:
    source, label = Counter(2), np.array([7, 8], np.float32)
    batch = source.next_batch({"label": label}, BOTH)
    assert batch["label"] is label
    assert batch["data"].tolist() == [[0, 0], [1, 1]]
    assert source.next_batch({"label": label}, ["label", "other"]) == {"label": label}
    assert source.reads == 2


def test_items_of_one_batch_have_one_size() -> None:
    with refused(
        "^item 1: the item is 3, the first of its batch 2; one size was needed for all. Items of different sizes"
    ):
        Counter(2, (2, 3, 2)).next_batch({}, BOTH)


def test_a_source_that_is_not_there_may_be_replaced_by_the_caller() -> None:
    message = r"^db: No such file or directory. Or hand the data over: net.forward\(data=…, label=…\)$"
    with pytest.raises(SourceUnavailableError, match=message):
        Missing(2).next_batch({}, BOTH)
    with refused("set_input_arrays may only be called if the first layer is a MemoryDataLayer"):
        Missing(2).set_arrays(np.zeros(2, np.float32), np.zeros(2, np.float32))
    assert Counter(2).files == [Path("counter")]


def test_batches_reuse_arrays_of_their_size_and_may_end_short() -> None:
    old = [np.empty((3, 2), np.float32)]
    batch = BatchBuilder(3, old)
    block = ItemBlock(5, 2, "items", lambda: [np.ones((2, 2), np.float32)])
    batch.put(block, block.make())
    assert (batch.blobs[0] is old[0], batch.full) == (True, False)
    batch.shorten()
    assert (batch.blobs[0].tolist(), batch.positions.tolist()) == ([[1, 1], [1, 1]], [5, 6])
    assert BatchBuilder(3, old, [np.ones((1, 4), np.float32)]).blobs == ()


def memory_batch(number: int) -> dict[str, FloatArray]:
    return {
        "data": np.arange(number, dtype=np.float32).reshape(number, 1, 1, 1),
        "label": np.arange(number, dtype=np.float32),
    }


def test_arrays_in_memory_are_cut_into_batches() -> None:
    source = MemorySource(BOTH, (2, 1, 1, 1))
    assert [labels(source, **memory_batch(4)), labels(source, **memory_batch(4)), labels(source)] == [
        [0, 1],
        [2, 3],
        [0, 1],
    ]
    assert labels(source, **memory_batch(6)) == [0, 1]  # other values begin anew
    assert source.next_batch({}, BOTH)["label"].shape == (2, 1, 1, 1)
    source.set_arrays(*memory_batch(2).values())
    assert (labels(source), source.count_items(), source.at_start) == ([0, 1], 2, True)


@pytest.mark.parametrize(
    ("handed", "message"),
    [
        ({}, "no data yet; MemoryDataLayer needs to be initialized by calling Reset"),
        ({"data": np.zeros((2, 1, 1, 1))}, r"'label' is missing; .* net.forward\(data=…, label=…\)"),
        ({"label": np.zeros(2)}, "'data' is missing"),
        ({**memory_batch(3)}, "'data' is 3×1×1×1; N×1×1×1 was needed, N must be a multiple of batch size 2"),
        ({**memory_batch(2), "label": np.zeros(3)}, "'label' is 3; 2 labels, one an item, were needed"),
    ],
)
def test_arrays_that_do_not_fit(handed: dict[str, FloatArray], message: str) -> None:
    with refused(f"^{message}"):
        MemorySource(BOTH, (2, 1, 1, 1)).next_batch(handed, BOTH)
