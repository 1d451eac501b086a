"""Where a run's inputs come from: arrays and pictures, item by item along the batch axis."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock

from caffeconv.data.image_transform import CROPS, ImageTransform
from caffeconv.data.images import Image, read_image
from caffeconv.data.input_images import ImageFiles
from caffeconv.data.source import DataSource, ItemBlock
from caffeconv.errors import CaffeconvError
from caffeconv.tensor.shape import FloatArray, format_shape

ARRAYS = (".npy", ".npz", ".binaryproto")


class InputSource(DataSource):
    """Items for one input of a model, which come once: from the first to the last, in batches of which the last is short."""

    ends = True

    @property
    def at_start(self) -> bool:
        return self.position == 0

    @abstractmethod
    def item_name(self, index: int) -> str:
        """What to call an item."""

    def _go_to(self, position: int) -> None:
        return  # an item is found by its position


class ArraySource(InputSource):
    """Rows of an array."""

    def __init__(self, blob: str, path: Path, array: FloatArray, batch_size: int = 1) -> None:
        super().__init__((blob,), batch_size)
        self.array = array
        """Items along axis 0, float32; of no axes where an input has none."""
        self._path = path

    @property
    def name(self) -> str:
        return str(self._path)

    def count_items(self) -> int:
        return self.array.shape[0] if self.array.ndim else 1

    def item_name(self, index: int) -> str:
        return f"{self._path.name}[{index}]"

    def _take(self) -> ItemBlock:
        first = self.position
        rows = self.array[first : first + self.batch_size]
        return ItemBlock(first, len(rows), self.name, lambda: (rows,))


class ImageSource(InputSource):
    """Image files, decoded and transformed."""

    def __init__(
        self, blob: str, path: Path, images: ImageFiles, transform: ImageTransform, batch_size: int = 1, *, color: bool,
        channels_last: bool = False,
    ) -> None:  # fmt: skip
        """path: what stands for the images. channels_last: whether the model takes N×H×W×C."""
        super().__init__((blob,), batch_size)
        self._path = path
        self.images = images
        self.transform = transform
        self._color = color
        self._channels_last = channels_last

    @property
    def name(self) -> str:
        return str(self._path)

    @property
    def files(self) -> Sequence[Path]:
        return self.images.paths

    def count_items(self) -> int:
        return len(self.images.paths)

    def item_name(self, index: int) -> str:
        return str(self.images.paths[index])

    def none_usable(self, first: str) -> CaffeconvError:
        return CaffeconvError(f"not one picture of `input=…` can be used; the first: {first}")

    def decode(self, index: int) -> Image:
        """H×W×C of an image as it is in its file; CaffeconvError where it cannot be read."""
        return read_image(self.images.paths[index], color=self._color)

    def ten_crops(self) -> TenCropSource:
        """The ten crops of every image instead of the images."""
        return TenCropSource(self)

    def laid_out(self, items: FloatArray) -> FloatArray:
        """N×C×H×W as the model takes it."""
        return items.transpose(0, 2, 3, 1) if self._channels_last else items

    def _take(self) -> ItemBlock:
        index = self.position

        def make() -> Sequence[FloatArray]:
            values = self.transform.apply(self.transform.planes(self.decode(index)), self.item_name(index))
            return (self.laid_out(values[None]),)

        return ItemBlock(index, 1, self.item_name(index), make)


class TenCropSource(InputSource):
    """The ten crops of every image, one after another: item 10·i + j is crop j of image i."""

    def __init__(self, images: ImageSource) -> None:
        super().__init__(images.tops, images.batch_size)
        self._images = images
        self._crops: tuple[int, Callable[[], FloatArray]] | None = None

    @property
    def name(self) -> str:
        return self._images.name

    @property
    def files(self) -> Sequence[Path]:
        return self._images.files

    def count_items(self) -> int:
        return CROPS * self._images.count_items()

    def item_name(self, index: int) -> str:
        return self._images.item_name(index // CROPS)

    def none_usable(self, first: str) -> CaffeconvError:
        return self._images.none_usable(first)

    def _take(self) -> ItemBlock:
        index, crop = divmod(self.position, CROPS)
        if self._crops is None or self._crops[0] != index:
            self._crops = index, once(lambda: self._make(index))
        crops = self._crops[1]
        return ItemBlock(
            self.position, 1, self.item_name(self.position), lambda: (self._images.laid_out(crops()[crop : crop + 1]),)
        )

    def _make(self, index: int) -> FloatArray:
        image = self._images.decode(index)
        return self._images.transform.ten_crops(image, self._images.item_name(index))


def once(make: Callable[[], FloatArray]) -> Callable[[], FloatArray]:
    """Makes something the first time that any thread asks for it, and gives the same, or raises again, ever after."""
    lock = Lock()
    results: list[FloatArray] = []

    def first_or_same() -> FloatArray:
        with lock:
            if not results:
                results.append(make())
        return results[0]

    return first_or_same


def constants_among(
    sources: Mapping[str, InputSource], shapes: Mapping[str, Sequence[int | str]]
) -> dict[str, FloatArray]:
    """Inputs that every batch takes whole, as InfogainLoss takes H: those without axes, and those whose batch axis is fixed
    and as long as the array, where the other inputs have another number of items."""
    whole = {
        name: source.array
        for name, source in sources.items()
        if isinstance(source, ArraySource) and (not shapes[name] or shapes[name][0] == source.count_items())
    }
    others = [source.count_items() for name, source in sources.items() if name not in whole]
    items = others or [source.count_items() for source in list(sources.values())[:1]]
    return {name: array for name, array in whole.items() if not array.ndim or len(array) not in items}


def check_counts(sources: Mapping[str, InputSource], inputs: Sequence[str]) -> None:
    """Raises CaffeconvError where an input has no source, or the sources do not go together."""
    missing = [name for name in inputs if name not in sources]
    if missing:
        raise CaffeconvError(
            f"input '{missing[0]}' has no source; give `input={missing[0]}=FILE` (.npy, .npz, .binaryproto or a picture)"
        )
    counts = {name: source.count_items() for name, source in sources.items()}
    if len(set(counts.values())) > 1:
        counts_text = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise CaffeconvError(
            f"the inputs have different numbers of items ({counts_text}); as many for each were needed"
        )
    if 0 in counts.values():
        raise CaffeconvError(f"input '{next(iter(counts))}' holds no item")


def fit_array(array: FloatArray, shape: list[int | str], name: str) -> FloatArray:
    """The array, given a batch axis, and axes of size 1 after it, where it lacks them.

    Raises CaffeconvError where it is of another shape than the input.
    """
    actual = format_shape(array.shape)
    missing = len(shape) - array.ndim
    if missing > 0 and all(size == 1 for size in shape[1:missing]):
        array = array.reshape((1,) * missing + array.shape)
    expected = format_shape([size if isinstance(size, int) else -1 for size in shape]).replace("-1", "N")
    mismatch = array.ndim != len(shape) or any(
        isinstance(size, int) and size != length for size, length in list(zip(shape, array.shape, strict=False))[1:]
    )
    if mismatch:
        hint = f". A net, unlike an ONNX model, can be given another size: `shapes={ {name: array.shape} }`"
        raise CaffeconvError(
            f"input '{name}': the array is {actual}; {expected} was needed{hint if len(shape) == 4 else ''}"
        )
    return array
