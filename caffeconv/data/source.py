"""What fills the tops of a data layer: a batch for each pass, from a cursor of its own (caffe: base_data_layer.cpp)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffeconv.data.errors import SourceUnavailableError
from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import FloatArray, Shape, format_shape

Blobs = dict[str, FloatArray]


@dataclass(frozen=True)
class ItemBlock:
    """Consecutive items that were taken from a source and are not made yet."""

    position: int
    """How many items lay before the first of them since the source's beginning, all epochs counted."""
    count: int
    where: str
    """What to call them in a message."""
    make: Callable[[], Sequence[FloatArray]]
    """A value for each top, items along axis 0; may run in any thread. CaffeconvError: what is wrong with the item."""


class DataSource(ABC):
    """What fills the tops of one data layer. Nothing is opened before it is needed.

    Items come in epochs without end, unless the source `ends`, and what an item becomes follows from its position alone,
    random crops and mirrors included: who begins in the middle (`seek`) gets what others get there.
    """

    skips_bad: bool = False
    """Whether what is damaged is to be passed over; readers then name it instead of stopping."""
    ends: bool = False
    """Whether items come once, and the last batch may be short, instead of epoch after epoch."""

    def __init__(self, tops: Sequence[str], batch_size: int, random: np.random.Generator | None = None) -> None:
        self.tops = tuple(tops)
        self.batch_size = batch_size
        self.position = 0
        """How many items were taken since the source's beginning, all epochs counted."""
        self._seed = 0 if random is None else int(random.integers(1 << 62))
        self._same: tuple[FloatArray, ...] | None = None

    def next_batch(self, handed: Mapping[str, FloatArray], needed: Collection[str]) -> Blobs:
        """Blob → float32 values of the next batch.

        Args:
            handed: tops that the caller gives; these are taken instead of what the source holds.
            needed: tops whose values somebody will look at. Where all of them are handed over, nothing is read.

        Raises:
            SourceUnavailableError: the source is not there.
            CaffeconvError: it is damaged, or an item does not fit.
        """
        if handed and all(top in handed for top in needed if top in self.tops):
            return dict(handed)
        try:
            batch = self._batch()
        except SourceUnavailableError as error:
            example = ", ".join(f"{top}=…" for top in self.tops)
            raise SourceUnavailableError(f"{error}. Or hand the data over: net.forward({example})") from None
        return {**dict(zip(self.tops, batch, strict=True)), **handed}

    def set_arrays(self, data: FloatArray, labels: FloatArray) -> None:
        """Makes these the items, from the first one on; CaffeconvError for a source that has items of its own."""
        raise CaffeconvError("set_input_arrays may only be called if the first layer is a MemoryDataLayer")

    def _batch(self) -> Sequence[FloatArray]:
        # a source that one batch goes through whole, such as a single H, gives that batch for ever
        if self._same is None:
            whole = self.at_start
            batch = tuple(self._read())
            if not (whole and self.at_start) or self.is_random:
                return batch
            self._same = batch
        return [values.copy() for values in self._same]

    def _read(self) -> Sequence[FloatArray]:
        batch = BatchBuilder(self.batch_size)
        while not batch.full:
            block = self.take()
            batch.put(block, block.make())
        return batch.blobs

    def take(self) -> ItemBlock:
        """The next items, one or a whole batch, as the source finds best; the cursor moves on."""
        block = self._take()
        self.position += block.count
        return block

    def seek(self, position: int) -> None:
        """Goes to where `position` items are behind."""
        self._go_to(position)
        self.position = position

    def random_at(self, position: int) -> np.random.Generator:
        """The random numbers of an item, the same each time."""
        return np.random.default_rng((self._seed, 0, position))

    def random_of_epoch(self, *which: int) -> np.random.Generator:
        """The random numbers of an epoch, or of a part of it, the same each time."""
        return np.random.default_rng((self._seed, 1, *which))

    @property
    @abstractmethod
    def at_start(self) -> bool:
        """Whether the next item is the first of an epoch."""

    @property
    def exhausted(self) -> bool:
        """Whether no item is left."""
        return self.ends and self.position >= self.count_items()

    @property
    def is_random(self) -> bool:
        """Whether the same items come out otherwise another time."""
        return False

    @property
    @abstractmethod
    def name(self) -> str:
        """What is read: the path of a database, list or file."""

    @property
    def files(self) -> Sequence[Path]:
        """The files whose content it is: when they change, so do the items."""
        return [Path(self.name)]

    @abstractmethod
    def count_items(self) -> int:
        """The number of items that make one epoch."""

    def none_usable(self, first: str) -> CaffeconvError:
        """What to say where every item of an epoch is corrupt; `first`: what is wrong with the first."""
        return CaffeconvError(f"{self.name}: not one item of it can be used; the first: {first}")

    @abstractmethod
    def _take(self) -> ItemBlock: ...

    @abstractmethod
    def _go_to(self, position: int) -> None: ...


class BatchBuilder:
    """A batch in the making: its first item decides about the size (caffe: load_batch)."""

    def __init__(
        self, size: int, into: Sequence[FloatArray] = (), like: Sequence[FloatArray] | None = None
    ) -> None:  # fmt: skip
        """`into`: arrays of an earlier batch to be filled again, where they are of the right size. `like`: an item that
        decides about the size instead of the first."""
        self._size = size
        self._into = into
        self._like = like
        self.blobs: Sequence[FloatArray] = ()
        """A value for each top."""
        self.positions = np.zeros(size, np.int64)
        """The position of each item in its source."""
        self._filled = 0

    @property
    def full(self) -> bool:
        return self._filled == self._size

    def put(self, block: ItemBlock, values: Sequence[FloatArray]) -> None:
        """Takes what a block has become as the next items; CaffeconvError where it does not fit."""
        if not self.blobs:
            self.blobs = self._blobs(self._like or values)
        for blob, value in zip(self.blobs, values, strict=True):
            if blob.shape[1:] != value.shape[1:]:
                raise CaffeconvError(
                    f"{block.where}: the item is {format_shape(value.shape[1:])}, the first of its batch "
                    f"{format_shape(blob.shape[1:])}; "
                    "one size was needed for all. Items of different sizes need batch_size 1, or a crop_size"
                )
        rows = slice(self._filled, self._filled + block.count)
        for blob, value in zip(self.blobs, values, strict=True):
            blob[rows] = value
        self.positions[rows] = np.arange(block.position, block.position + block.count)
        self._filled = rows.stop

    def shorten(self) -> None:
        """Leaves off what was not filled: no item is left."""
        self.blobs = [blob[: self._filled] for blob in self.blobs]
        self.positions = self.positions[: self._filled]

    def _blobs(self, values: Sequence[FloatArray]) -> Sequence[FloatArray]:
        shapes = [(self._size, *value.shape[1:]) for value in values]
        if [into.shape for into in self._into] == shapes:
            return self._into
        return [np.empty(shape, np.float32) for shape in shapes]


class MemorySource(DataSource):
    """MemoryData: arrays that the caller hands over, cut into batches, over and over (caffe: memory_data_layer.cpp).

    Handing over the same values again goes on where the last batch ended; other values begin anew.
    """

    def __init__(self, tops: Sequence[str], shape: Shape) -> None:
        super().__init__(tops, shape[0])
        self._shape = shape
        """N×C×H×W of a batch."""
        self._arrays: tuple[FloatArray, FloatArray] | None = None
        self._next = 0

    @property
    def at_start(self) -> bool:
        return self._next == 0

    @property
    def name(self) -> str:
        return "the caller's memory"

    def count_items(self) -> int:
        return 0 if self._arrays is None else len(self._arrays[0])

    def next_batch(self, handed: Mapping[str, FloatArray], needed: Collection[str]) -> Blobs:
        """As DataSource.next_batch, with `handed` holding any multiple of the batch size."""
        if handed:
            self._hand_over(handed, needed)
        return dict(zip(self.tops, self._read(), strict=True))

    def set_arrays(self, data: FloatArray, labels: FloatArray) -> None:
        self._arrays = None
        self._hand_over(dict(zip(self.tops, (data, labels), strict=True)), self.tops)

    def _hand_over(self, handed: Mapping[str, FloatArray], needed: Collection[str]) -> None:
        data_top, label_top = self.tops
        if data_top not in handed or (label_top not in handed and label_top in needed):
            missing = data_top if data_top not in handed else label_top
            raise CaffeconvError(f"'{missing}' is missing; data and labels are handed over together, {self._example}")
        data = handed[data_top]
        number = data.shape[0] if data.ndim else 0
        if data.ndim != 4 or data.shape[1:] != self._shape[1:] or not number or number % self._shape[0]:
            raise CaffeconvError(
                f"'{data_top}' is {format_shape(data.shape)}; N×{format_shape(self._shape[1:])} was needed, "
                f"N must be a multiple of batch size {self._shape[0]}"
            )
        labels = handed.get(label_top, np.zeros(number, np.float32))
        if labels.size != number or labels.shape[:1] != (number,):
            raise CaffeconvError(
                f"'{label_top}' is {format_shape(labels.shape)}; {number} labels, one an item, were needed"
            )
        labels = labels.reshape(number, 1, 1, 1)
        arrays = self._arrays
        if arrays is None or not (np.array_equal(arrays[0], data) and np.array_equal(arrays[1], labels)):
            self._arrays = data.copy(), labels.copy()
            self._next = 0

    @property
    def _example(self) -> str:
        return f"net.forward({', '.join(f'{top}=…' for top in self.tops)})"

    def _take(self) -> ItemBlock:
        if self._arrays is None:
            raise CaffeconvError(
                "no data yet; MemoryDataLayer needs to be initialized by calling Reset. "
                f"Hand data and labels over: {self._example}"
            )
        data, labels = self._arrays
        batch = slice(self._next, self._next + self._shape[0])
        self._next = batch.stop % len(data)
        # caffe: labels have one axis when the layer is set up, but four in every pass
        values = data[batch].copy(), labels[batch].copy()
        return ItemBlock(self.position, self._shape[0], self.name, lambda: values)

    def _go_to(self, position: int) -> None:
        self._next = position % self.count_items() if self._arrays is not None else 0
