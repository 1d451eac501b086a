"""What is handed over for the inputs of a model: which source fills which input, and how it is made to fit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffeconv.data.array_files import read_array
from caffeconv.data.image_transform import Size
from caffeconv.data.input_images import ImageFiles, find_images, image_transform
from caffeconv.data.input_items import (
    ARRAYS,
    ArraySource,
    ImageSource,
    InputSource,
    check_counts,
    constants_among,
    fit_array,
)
from caffeconv.emit.metadata import ImagePreprocessing, image_preprocessing, layouts
from caffeconv.errors import CaffeconvError, close_names
from caffeconv.inference.engine import Say
from caffeconv.inference.request import ImageOptions
from caffeconv.runtime.session import Session
from caffeconv.tensor.shape import FloatArray

Dims = Sequence[int | str]
"""Sizes of an input, a symbol where one is open."""


@dataclass(frozen=True)
class Binding:
    """A source for an input, as the user names both."""

    blob: str
    path: Path
    text: str


@dataclass(frozen=True)
class OpenedInputs:
    """What fills a session's inputs."""

    sources: Mapping[str, InputSource]
    """For the inputs that have items."""
    constants: Mapping[str, FloatArray]
    """For those that every batch takes whole."""
    sources_by_input: Mapping[str, InputSource]
    """All of them, as they were named."""


def open_inputs(
    session: Session, inputs: Sequence[str], images: ImageOptions, faults: list[str] | None = None,
    own: Callable[[Mapping[str, InputSource]], Mapping[str, InputSource]] | None = None,
) -> OpenedInputs:  # fmt: skip
    """Opens what is handed over, ``BLOB=SOURCE`` or a source for the only input; the session holds constants from now on.

    Several sources for one input follow one another.

    own: what the net itself reads for inputs that none of the sources is for. faults: takes what is wrong with lines of
    lists, which are left out then. Raises CaffeconvError for what is not there, does not fit, or is not a source.
    """
    opener = _Opener(session, images, faults)
    bindings_by_input: dict[str, list[Binding]] = {}
    for binding in bindings(inputs, session.inputs):
        bindings_by_input.setdefault(binding.blob, []).append(binding)
    sources_by_input = {blob: opener.open(group) for blob, group in bindings_by_input.items()}
    if own is not None:
        sources_by_input |= own(sources_by_input)
    constants = constants_among(sources_by_input, session.inputs)
    session.bind_constants(constants)
    return OpenedInputs(
        {blob: source for blob, source in sources_by_input.items() if blob not in constants},
        constants,
        sources_by_input,
    )


def set_batch_size(inputs: OpenedInputs, session: Session, size: int) -> None:
    """Lets all sources go in batches of `size`; CaffeconvError where they do not go together."""
    check_counts(inputs.sources, list(session.inputs))
    for source in inputs.sources.values():
        source.batch_size = size


def bindings(values: Sequence[str], inputs: Mapping[str, Dims]) -> Iterator[Binding]:
    """Which input each value is for; CaffeconvError for one that the model lacks."""
    for value in values:
        blob, equals, place = value.partition("=")
        if not equals or (blob not in inputs and Path(value).exists()):
            if len(inputs) != 1:
                raise CaffeconvError(
                    f"`input={value}`: the net has several inputs; name one: `input=BLOB={value}` ({', '.join(inputs)})"
                )
            blob, place = next(iter(inputs)), value
        if blob not in inputs:
            near = close_names(blob, list(inputs))
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise CaffeconvError(f"`input={value}`: the net has no input '{blob}'; {hint}inputs: {', '.join(inputs)}")
        if not place:
            raise CaffeconvError(f"`input={value}`: nothing after the `=`; a picture, a list or an array was needed")
        yield Binding(blob, Path(place), value)


class _Opener:
    """Opens sources for the inputs of a session."""

    def __init__(self, session: Session, images: ImageOptions, faults: list[str] | None) -> None:
        self._session = session
        self._images = images
        self._faults = faults
        self._mean = images.mean.load() if images.mean is not None else None
        self._preprocessing = image_preprocessing(session.metadata)
        if self._preprocessing is not None and (images.mean is not None or images.scale != 1 or images.rgb):
            raise CaffeconvError(
                f"the model prepares its pictures itself: it takes {self._preprocessing}. Leave `mean=…`, `scale=…` and "
                "`rgb=True` out"
            )

    def open(self, group: Sequence[Binding]) -> InputSource:
        """One source of the items of all bindings of one input."""
        binding = group[0]
        dims, blob = self._session.inputs[binding.blob], binding.blob
        are_arrays = [other.path.suffix.lower() in ARRAYS for other in group]
        if all(are_arrays):
            arrays = [fit_array(read_array(other.path, blob), list(dims), blob) for other in group]
            return ArraySource(blob, binding.path, arrays[0] if len(arrays) == 1 else np.concatenate(arrays))
        if any(are_arrays):
            texts = " and ".join(f"`input={other.text}`" for other in group[:2])
            raise CaffeconvError(f"{texts}: input '{blob}' takes pictures or arrays, not both in one run")
        files = functools.reduce(ImageFiles.followed_by, (find_images(other.path, self._faults) for other in group))
        channels_last = layouts(self._session.metadata).get(blob) == "NHWC"
        channels, size = input_size(binding, dims, self._images.resize, channels_last=channels_last)
        transform = image_transform(
            channels, size, resize=self._images.resize, mean=self._mean, scale=self._images.scale,
            rgb=red_first(self._preprocessing, blob, rgb=self._images.rgb),
        )  # fmt: skip
        return ImageSource(blob, binding.path, files, transform, color=channels == 3, channels_last=channels_last)


def input_size(binding: Binding, dims: Dims, resize: Size | None, *, channels_last: bool) -> tuple[int, Size]:
    """Channels, and height and width, of an input that takes images; an open height or width is that of `resize`.

    Raises CaffeconvError for an input that takes no images, or whose size nobody says.
    """
    sizes: list[int | str] = list(dims)
    if resize is not None and len(dims) == 4:
        sizes = [size if isinstance(size, int) else resize[i - 2] for i, size in enumerate(dims)]
    if len(sizes) == 4 and isinstance(sizes[1], int) and not all(isinstance(size, int) for size in sizes[2:]):
        raise CaffeconvError(
            f"`input={binding.text}`: input '{binding.blob}' takes any height and width; say to what pictures are to be "
            "resized: `resize=480x640`"
        )
    known_sizes = [size for size in sizes[1:] if isinstance(size, int)]
    if len(sizes) != 4 or len(known_sizes) != 3:
        raise CaffeconvError(
            f"`input={binding.text}`: input '{binding.blob}' is {list(dims)}; a picture needs four axes. Give an array (.npy)"
        )
    first, second, third = known_sizes
    return (third, (first, second)) if channels_last else (first, (second, third))


def red_first(preprocessing: ImagePreprocessing | None, blob: str, *, rgb: bool) -> bool:
    """Whether the input's channels are red, green, blue: as a model that prepares its images says, or as is asked for."""
    return preprocessing.order == "RGB" if preprocessing is not None and preprocessing.input == blob else rgb


def oversampled(sources: Mapping[str, InputSource], say: Say) -> dict[str, InputSource]:
    """Ten crops of every image; CaffeconvError where there are other things than images."""
    crops: dict[str, InputSource] = {}
    for blob, source in sources.items():
        if not isinstance(source, ImageSource):
            raise CaffeconvError(f"`oversample=True`: input '{blob}' is an array; crops are taken of pictures")
        if source.transform.resize == source.transform.crop:
            say("`oversample=True` without `resize=…`: the ten crops are the whole picture, and its mirror image")
        crops[blob] = source.ten_crops()
    return crops
