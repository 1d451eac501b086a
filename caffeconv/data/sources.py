"""What fills the tops of a data layer: a batch for each pass, from a cursor of its own (caffe: base_data_layer.cpp)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from caffeconv.data.datum import Values
from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.transform import Transformer
from caffeconv.errors import CaffeconvError
from caffeconv.ir import FloatArray, Shape, by_x

Blobs = dict[str, FloatArray]


class DataSource(ABC):
    """What fills the tops of one data layer. Nothing is opened before it is needed."""

    def __init__(self, tops: Sequence[str]) -> None:
        self.tops = tuple(tops)
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

    @property
    @abstractmethod
    def at_start(self) -> bool:
        """Whether the next item is the first of a round."""

    @property
    def is_random(self) -> bool:
        """Whether the same items come out otherwise another time."""
        return False

    @abstractmethod
    def count_items(self) -> int:
        """The number of items that make one round."""

    @abstractmethod
    def _read(self) -> Sequence[FloatArray]:
        """The next batch, a value for each top."""


class Batch:
    """A batch in the making: its first item decides about the size (caffe: load_batch)."""

    def __init__(self, size: int, transformer: Transformer) -> None:
        self._transformer = transformer
        self._size = size
        self._data: FloatArray | None = None
        self._labels = np.zeros(size, np.float32)

    def put(self, i: int, item: Values, label: int, where: str) -> None:
        """Transforms an item (C×H×W) and takes it as the batch's i-th; CaffeconvError where it does not fit."""
        shape = self._transformer.transform.shape(item.shape, where)
        if self._data is None:
            self._data = np.empty((self._size, *shape), np.float32)
        if self._data.shape[1:] != shape:
            raise CaffeconvError(
                f"{where}: the item is {by_x(shape)}, the first of its batch {by_x(self._data.shape[1:])}; "
                "one size was needed for all. Items of different sizes need batch_size 1, or a crop_size"
            )
        self._transformer.apply(item, where, self._data[i])
        self._labels[i] = label

    def blobs(self, tops: Sequence[str]) -> Sequence[FloatArray]:
        """Data N×C×H×W and labels N, or only the data where there is one top."""
        assert self._data is not None
        return (self._data, self._labels)[: len(tops)]


class MemorySource(DataSource):
    """MemoryData: arrays that the caller hands over, cut into batches, over and over (caffe: memory_data_layer.cpp).

    Handing over the same values again goes on where the last batch ended; other values begin anew.
    """

    def __init__(self, tops: Sequence[str], shape: Shape) -> None:
        super().__init__(tops)
        self._shape = shape
        """N×C×H×W of a batch."""
        self._held: tuple[FloatArray, FloatArray] | None = None
        self._next = 0

    @property
    def at_start(self) -> bool:
        return self._next == 0

    def count_items(self) -> int:
        return 0 if self._held is None else len(self._held[0])

    def next_batch(self, handed: Mapping[str, FloatArray], needed: Collection[str]) -> Blobs:
        """As DataSource.next_batch, with `handed` holding any multiple of the batch size."""
        if handed:
            self._hand_over(handed, needed)
        return dict(zip(self.tops, self._read(), strict=True))

    def set_arrays(self, data: FloatArray, labels: FloatArray) -> None:
        self._held = None
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
                f"'{data_top}' is {by_x(data.shape)}; N×{by_x(self._shape[1:])} was needed, "
                f"N must be a multiple of batch size {self._shape[0]}"
            )
        labels = handed.get(label_top, np.zeros(number, np.float32))
        if labels.size != number or labels.shape[:1] != (number,):
            raise CaffeconvError(f"'{label_top}' is {by_x(labels.shape)}; {number} labels, one an item, were needed")
        labels = labels.reshape(number, 1, 1, 1)
        held = self._held
        if held is None or not (np.array_equal(held[0], data) and np.array_equal(held[1], labels)):
            self._held = data.copy(), labels.copy()
            self._next = 0

    @property
    def _example(self) -> str:
        return f"net.forward({', '.join(f'{top}=…' for top in self.tops)})"

    def _read(self) -> Sequence[FloatArray]:
        if self._held is None:
            raise CaffeconvError(
                "no data yet; MemoryDataLayer needs to be initialized by calling Reset. "
                f"Hand data and labels over: {self._example}"
            )
        data, labels = self._held
        batch = slice(self._next, self._next + self._shape[0])
        self._next = batch.stop % len(data)
        # caffe: labels have one axis when the layer is set up, but four in every pass
        return data[batch].copy(), labels[batch].copy()
