"""Where values come from: Input, DummyData, Parameter, and the data layers, whose tops become graph inputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from caffeconv.caffe_pb2 import TransformationParameter
from caffeconv.data.database import DatabaseSource, first_shape
from caffeconv.data.errors import SourceUnavailableError
from caffeconv.data.hdf5 import HDF5Files, HDF5Source
from caffeconv.data.hdf5_sink import DataSink, HDF5Sink
from caffeconv.data.image_list import ImageList, ImageListSource
from caffeconv.data.source import DataSource, MemorySource
from caffeconv.data.transform import Preparation, Transform, read_mean
from caffeconv.data.windows import Sampling, WindowSource
from caffeconv.errors import CaffeconvError, Diagnostic, LayerError, OutsideError
from caffeconv.files.database_folders import Backend
from caffeconv.files.net_folders import NetFolders
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Arity, Layer, Node, at_least, exactly
from caffeconv.layers.label_ops import legacy_shape
from caffeconv.tensor.shape import Shape, Shapes, format_shape

if TYPE_CHECKING:
    from numpy.random import Generator
    from typing_extensions import Self

    from caffeconv.ir.onnx_builder import OnnxBuilder

_LAST_BVLC_TRANSFORM = 7
# NVIDIA's: how the work is done and shown, and what Caffe draws at random from
_TRANSFORM_WITHOUT_EFFECT = frozenset(("display", "num_labels", "use_gpu_transform", "random_seed"))
_FOREIGN_PICTURES = (
    "new_dim", "bicubic", "normalize", "new_length", "min_height", "min_width", "label_type", "label", "label_dim",
)  # fmt: skip
"""Fields of image_data_param in forks that would change what the layer reads."""
_CROP_SIDES = (("crop_height", "crop_width"), ("crop_h", "crop_w"))


@dataclass(frozen=True)
class DataLayer(Layer):
    """A layer that fills its tops itself: data, and labels where there is a second top.

    In a converted model the tops are inputs; a Net fills them from `data_source`.
    """

    bottoms: ClassVar[Arity] = exactly(0)
    tops: ClassVar[Arity] = exactly(2)
    is_input: ClassVar[bool] = True
    fills_itself: ClassVar[bool] = True

    number_of_tops: int
    batch_size: int

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        shapes: list[Shape] = [(self.batch_size, *self.item_shape()), (self.batch_size, *self.label_shape)]
        return shapes[: self.number_of_tops]

    @abstractmethod
    def item_shape(self) -> Shape:
        """The shape of one item of the first top; LayerError where it cannot be known."""

    @classmethod
    def mean_size(cls, layer: LayerDef) -> tuple[int, int] | None:
        mean = _mean_shape(layer)
        return None if mean is None else (mean[1], mean[2])

    @property
    def label_shape(self) -> Shape:
        """The shape of one item's labels."""
        return ()

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        return

    def input_shapes(self, tops: Sequence[str], shapes: Mapping[str, Shape]) -> Shapes:
        if tops[0] not in shapes:
            return super().input_shapes(tops, shapes)
        data = shapes[tops[0]]
        return [data, *(shapes.get(top, (*data[:1], *self.label_shape)) for top in tops[1:])]


def _mean_shape(layer: LayerDef) -> Shape | None:
    """C×H×W of a data layer's mean image; None where there is none that can be read."""
    p = layer.proto.transform_param
    try:
        return read_mean(layer.find_file(p.mean_file)).shape if p.HasField("mean_file") else None
    except CaffeconvError:
        return None


def _mean_remarks(
    node: Node, transform: Transform, channels: int | None = None, size: tuple[int, int] | None = None
) -> Iterator[Diagnostic]:
    """What keeps Caffe from taking the mean image off pictures of so many channels and of that size, as far as known.

    caffe: DataTransformer::Transform, which compares both with the mean's, and crops afterwards.
    """
    definition, mean = node.definition, _mean_shape(node.definition)
    if mean is None:
        return
    whole = "Caffe takes the mean off whole pictures, crops afterwards, and stops here"
    if channels is not None and channels != mean[0]:
        message = f"the mean image has {_channels(mean[0])}, the pictures {_channels(channels)}"
        hint = f"{whole}: a mean of such pictures was needed, or `mean_value`"
        yield Diagnostic("warning", definition.where, message, hint, definition.name)
    if size is not None and size != mean[1:]:
        message = f"the mean image is {format_shape(mean[1:])}, the pictures are {format_shape(size)}"
        names = type(node.layer).picture_settings[1:]
        fields = " ".join(f"{name}: {length}" for name, length in zip(names, mean[1:], strict=True))
        hint = f"{whole}: `{fields}`, and `crop_size` for smaller ones"
        yield Diagnostic("warning", definition.where, message, hint, definition.name)
    elif transform.crop is not None and (transform.crop[0] > mean[1] or transform.crop[1] > mean[2]):
        message = f"the mean image is {format_shape(mean[1:])}, the crop {format_shape(transform.crop)}"
        hint = f"{whole}: no crop can be larger than the mean"
        yield Diagnostic("warning", definition.where, message, hint, definition.name)


def _channels(number: int) -> str:
    return "1 channel" if number == 1 else f"{number} channels"


def _source_remarks(node: Node, written: str) -> Sequence[Diagnostic]:
    """Notes that a source is not there, or that it was found beside the prototxt."""
    definition = node.definition
    path = definition.find_file(written)
    if not path.exists():
        taken = f"{written} is not there; '{definition.tops[0]}' is taken to be {format_shape(node.top_shapes[0])}"
        return [Diagnostic("note", definition.where, taken, layer=definition.name)]
    if path != Path(written):
        beside = f"{written} is not there as seen from the current folder; {path}, beside the prototxt, is taken"
        return [Diagnostic("note", definition.where, beside, layer=definition.name)]
    return ()


def _batch_size(size: int) -> int:
    if size < 1:
        raise LayerError(f"batch_size is {size}; Positive batch size required")
    return size


def _transform(layer: LayerDef) -> Transform:
    """The layer's transform_param; LayerError for both a mean_file and a mean_value."""
    p: TransformationParameter = layer.proto.transform_param
    if p.HasField("mean_file") and p.mean_value:
        raise LayerError("Cannot specify mean_file and mean_value at the same time; take one out")
    foreign = tuple(
        field.name
        for field, _ in p.ListFields()
        if field.number > _LAST_BVLC_TRANSFORM
        and field.name not in _TRANSFORM_WITHOUT_EFFECT
        and not any(field.name in names for names in _CROP_SIDES)
    )
    sides = [(getattr(p, height), getattr(p, width)) for height, width in _CROP_SIDES]
    return Transform(
        p.scale, p.mirror, p.crop_size, layer.find_file(p.mean_file) if p.HasField("mean_file") else None,
        tuple(p.mean_value), p.force_color, p.force_gray, layer.phase, foreign,
        next((side for side in sides if min(side) > 0), None),
    )  # fmt: skip


_RESHAPE = "name the shape (`shapes={TOP: (N, C, H, W)}`), or give a crop_size in transform_param"


@dataclass(frozen=True)
class Data(DataLayer):
    """Items of an LMDB or LevelDB, in the order of their keys (caffe: data_layer.cpp).

    top[0]: N×C×H×W; top[1], where there is one: N labels. The first record decides about C, H and W; without the
    database these are guessed from transform_param.
    """

    tops: ClassVar[Arity] = Arity(1, 2)
    settings: ClassVar[str] = "transform_param"
    crop_setting: ClassVar[str] = "crop_size"

    source: Path
    backend: Backend
    transform: Transform

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p, transform = layer.proto.data_param, _transform(layer)
        # NVIDIA's, Cysu's and jolibrain's, which read the records in another order
        foreign = [name for name in ("shuffle", "shuffle_pool_size", "shuffle_buffer_size") if getattr(p, name)]
        transform = replace(transform, foreign=(*transform.foreign, *foreign))
        return cls(
            len(layer.tops), _batch_size(p.batch_size), layer.find_file(p.source),
            "LMDB" if p.backend == p.LMDB else "LEVELDB", transform,
        )  # fmt: skip

    def item_shape(self) -> Shape:
        try:
            return first_shape(self.source, self.backend, self.transform)
        except SourceUnavailableError as error:
            guess = self.transform.guess_shape()
            if guess is None:
                raise LayerError(f"{error}. Without it, {_RESHAPE}") from None
            return guess
        except CaffeconvError as error:
            raise OutsideError(str(error)) from None

    def lint(self, node: Node, sources: Sequence[Node | None]) -> Sequence[Diagnostic]:
        remarks = _source_remarks(node, node.definition.proto.data_param.source)
        return [*remarks, *_mean_remarks(node, self.transform)]

    def data_source(self, tops: Sequence[str], random: Generator) -> DataSource:
        return DatabaseSource(tops, self.source, self.backend, self.batch_size, self.transform, random)

    def preparation(self) -> Preparation:
        return Preparation(self.transform)


@dataclass(frozen=True)
class ImageData(DataLayer):
    """Pictures that a file lists, `name label` a line (caffe: image_data_layer.cpp).

    top[0]: N×C×H×W, C 3 (blue, green, red) or, with `is_color: false`, 1; top[1]: N labels, N×label_dim where HashNet's
    field of that name is given.
    """

    settings: ClassVar[str] = "transform_param"
    crop_setting: ClassVar[str] = "crop_size"
    source_settings: ClassVar[str] = "image_data_param"
    picture_settings: ClassVar[tuple[str, ...]] = ("is_color", "new_height", "new_width")

    pictures: ImageList
    transform: Transform
    shuffle: bool
    rand_skip: int
    label_dim: int | None = None

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.image_data_param
        if (p.new_height > 0) != (p.new_width > 0):
            raise LayerError(
                f"new_height {p.new_height}, new_width {p.new_width}; "
                "Current implementation requires new_height and new_width to be set at the same time."
            )
        size = (p.new_height, p.new_width) if p.new_height else None
        transform = _transform(layer)
        foreign = [name for name in _FOREIGN_PICTURES if p.HasField(name)]
        transform = replace(transform, foreign=(*transform.foreign, *foreign))
        pictures = ImageList(layer.find_file(p.source), p.root_folder, layer.folders, p.is_color, size)
        labels = p.label_dim if p.HasField("label_dim") else None
        return cls(len(layer.tops), _batch_size(p.batch_size), pictures, transform, p.shuffle, p.rand_skip, labels)

    @property
    def label_shape(self) -> Shape:
        return () if self.label_dim is None else (self.label_dim,)

    def item_shape(self) -> Shape:
        channels = 3 if self.pictures.color else 1
        try:
            if self.pictures.size is not None:
                return self.transform.shape((channels, *self.pictures.size), "transform_param")
            if self.transform.crop is not None:
                return channels, *self.transform.crop
            height, width = self.pictures.first_size()
        except SourceUnavailableError as error:
            guess = self.transform.guess_shape(channels)
            if guess is None:
                raise LayerError(f"{error}. Without it, {_RESHAPE}") from None
            return guess
        except CaffeconvError as error:
            raise OutsideError(str(error)) from None
        return channels, height, width

    def lint(self, node: Node, sources: Sequence[Node | None]) -> Sequence[Diagnostic]:
        remarks = _source_remarks(node, node.definition.proto.image_data_param.source)
        return [
            *remarks, *_mean_remarks(node, self.transform, 3 if self.pictures.color else 1, self.pictures.size)
        ]  # fmt: skip

    def data_source(self, tops: Sequence[str], random: Generator) -> DataSource:
        return ImageListSource(
            tops, self.pictures, self.batch_size, self.transform, random, shuffle=self.shuffle, rand_skip=self.rand_skip
        )

    def preparation(self) -> Preparation:
        return Preparation(self.transform, self.pictures.size)


@dataclass(frozen=True)
class WindowData(DataLayer):
    """Windows of pictures, drawn at random in either phase (caffe: window_data_layer.cpp).

    top[0]: N×3×crop_size×crop_size, background first, then objects; top[1]: N labels, 0 for background.
    """

    settings: ClassVar[str] = "transform_param"
    crop_setting: ClassVar[str] = "crop_size"

    sampling: Sampling
    transform: Transform

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p, transform = layer.proto.window_data_param, _transform(layer)
        transform = replace(transform, foreign=(*transform.foreign, *(["shuffle"] if p.HasField("shuffle") else [])))
        crop_size = transform.crop_size
        if crop_size < 1:
            raise LayerError("crop_size is 0; transform_param { crop_size } of at least 1 was needed")
        if 2 * p.context_pad >= crop_size:
            raise LayerError(f"context_pad {p.context_pad} fills a crop of {crop_size}; less than half was needed")
        batch_size = _batch_size(p.batch_size)
        sampling = Sampling(
            layer.find_file(p.source), p.root_folder, layer.folders, batch_size, crop_size, p.context_pad,
            "square" if p.crop_mode == "square" else "warp", p.fg_threshold, p.bg_threshold, p.fg_fraction, p.scale,
            p.cache_images,
        )  # fmt: skip
        return cls(len(layer.tops), batch_size, sampling, transform)

    def item_shape(self) -> Shape:
        return 3, self.sampling.crop_size, self.sampling.crop_size

    def lint(self, node: Node, sources: Sequence[Node | None]) -> Sequence[Diagnostic]:
        return _source_remarks(node, node.definition.proto.window_data_param.source)

    def data_source(self, tops: Sequence[str], random: Generator) -> DataSource:
        return WindowSource(tops, self.sampling, self.transform, random)

    def preparation(self) -> Preparation:
        return Preparation(self.transform)


@dataclass(frozen=True)
class MemoryData(DataLayer):
    """Data and labels that the caller hands over, any multiple of the batch (caffe: memory_data_layer.cpp).

    top[0]: N×C×H×W; top[1]: N labels, N×1×1×1 once values were handed over.
    """

    source_settings: ClassVar[str] = "memory_data_param"
    picture_settings: ClassVar[tuple[str, ...]] = ("channels", "height", "width")

    shape: Shape
    """C×H×W."""
    transform: Transform | None = None
    """What pictures go through that are handed over as such; arrays do not (caffe: MemoryDataLayer::Reset)."""

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.memory_data_param
        shape = (p.channels, p.height, p.width)
        if min(p.batch_size, *shape) < 1:
            sizes = "batch_size, channels, height, and width"
            raise LayerError(f"{sizes} must be specified and positive in memory_data_param")
        transform = _transform(layer) if layer.proto.HasField("transform_param") else None
        return cls(len(layer.tops), p.batch_size, shape, transform)

    def item_shape(self) -> Shape:
        return self.shape

    def lint(self, node: Node, sources: Sequence[Node | None]) -> Sequence[Diagnostic]:
        if self.transform is None:
            return ()
        size = None if self.transform.crop else (self.shape[1], self.shape[2])
        return list(_mean_remarks(node, self.transform, self.shape[0], size))

    def data_source(self, tops: Sequence[str], random: Generator) -> DataSource:
        return MemorySource(tops, (self.batch_size, *self.shape))

    def preparation(self) -> Preparation | None:
        return None if self.transform is None else Preparation(self.transform)


@dataclass(frozen=True)
class HDF5Data(Layer):
    """Rows of datasets in the files that a file lists (caffe: hdf5_data_layer.cpp).

    top[i]: N×…, the dataset called as the top is; the list's first file decides about the rest of the axes.
    """

    bottoms: ClassVar[Arity] = exactly(0)
    tops: ClassVar[Arity] = at_least(1)
    is_input: ClassVar[bool] = True
    fills_itself: ClassVar[bool] = True

    batch_size: int
    files: HDF5Files
    shuffle: bool

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.hdf5_data_param
        if layer.proto.HasField("transform_param"):
            raise LayerError("HDF5Data does not transform data; take transform_param out, and store what the net needs")
        files = HDF5Files(layer.find_file(p.source), layer.folders, layer.tops)
        return cls(_batch_size(p.batch_size), files, p.shuffle)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        try:
            return [(self.batch_size, *row) for row in self.files.row_shapes()]
        except SourceUnavailableError as error:
            raise LayerError(f"{error}. Without it, name the shape of each top (`shapes={{TOP: (N, …)}}`)") from None
        except CaffeconvError as error:
            raise OutsideError(str(error)) from None

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        return

    def lint(self, node: Node, sources: Sequence[Node | None]) -> Sequence[Diagnostic]:
        return _source_remarks(node, node.definition.proto.hdf5_data_param.source)

    def data_source(self, tops: Sequence[str], random: Generator) -> DataSource:
        return HDF5Source(self.files, self.batch_size, random, shuffle=self.shuffle)


@dataclass(frozen=True)
class HDF5Output(Layer):
    """Writes bottom[0] as `data` and bottom[1] as `label` into an HDF5 file (caffe: hdf5_output_layer.cpp).

    Only a Net does so; in a converted model the layer is nothing.
    """

    bottoms: ClassVar[Arity] = exactly(2)
    tops: ClassVar[Arity] = exactly(0)

    file_name: str
    folders: NetFolders

    @classmethod
    def parse(cls, layer: LayerDef) -> Self:
        p = layer.proto.hdf5_output_param
        if not p.file_name:
            raise LayerError("no file_name; hdf5_output_param { file_name } was needed")
        return cls(p.file_name, layer.folders)

    def top_shapes(self, bottoms: Shapes) -> Shapes:
        data, label = legacy_shape(bottoms[0], 0), legacy_shape(bottoms[1], 1)
        if data[0] != label[0]:
            raise LayerError(
                f"bottoms are {format_shape(bottoms[0])} and {format_shape(bottoms[1])}; "
                "data blob and label blob must have the same batch size"
            )
        return []

    def lower(self, node: Node, onnx: OnnxBuilder) -> None:
        return

    def data_sink(self) -> DataSink:
        return HDF5Sink(self.file_name, self.folders)
