"""The offsets of Crop layers that look for them themselves: FCN's old CROP, HED's Crop, RCF's AutoCrop.

Caffe's Crop has them as a field (the FCN branch of 2015: CropLayer::LayerSetUp, and coord_map of the layers). The rule
walks back from both bottoms to the blob where they part, and keeps, for each axis, which place there a place of the
bottom looks at: x = scale·y + shift. The offset makes both look at the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from caffeconv.caffe_pb2 import ConvolutionParameter, LayerParameter, PoolingParameter
from caffeconv.errors import CaffeconvError

_SAME_PLACE = frozenset(
    ("AbsVal", "BNLL", "BatchNorm", "Bias", "Concat", "Dropout", "ELU", "Eltwise", "Exp", "LRN", "Log", "MVN", "PReLU",
     "Power", "ReLU", "Scale", "Sigmoid", "Softmax", "Split", "TanH", "Threshold")
)  # fmt: skip
"""Layer types whose output is about the same places as their input."""
SELF_ALIGNING = "AutoCrop"
"""The type of RCF's layer, which never has an offset as a field."""


KIN_OF_HED = (SELF_ALIGNING, "ImageLabelmapData", "MultiStageMeanfield")
"""Types that only forks have whose Crop looks for its offset: HED, RCF, CRF as RNN."""


class CannotAlignError(CaffeconvError):
    """Why no offset follows from the net."""


@dataclass(frozen=True)
class Places:
    """x = scale·y + shift: the place x of an earlier blob that the place y of a later one looks at, on one axis."""

    scale: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)

    def then(self, earlier: Places) -> Places:
        """The places of a blob that is still earlier: `earlier` says where the one that `self` looks at looks."""
        return Places(earlier.scale * self.scale, earlier.scale * self.shift + earlier.shift)

    def inverse(self) -> Places:
        return Places(1 / self.scale, -self.shift / self.scale)


MOST_SCALE = 1 << 31
"""Beyond it, or below its inverse, a place looks at no place of any blob's."""
Views = tuple[Places, Places]
"""Height and width."""
NO_CHANGE: Views = (Places(), Places())


class BlobPlaces:
    """Which places of earlier blobs those of later ones look at, as a net's layers are added one after another.

    inputs: blobs that are there before all layers. A blob written in place counts as the first layer's that makes it, and
    in-place layers change no place.
    """

    def __init__(self, inputs: Iterable[str] = ()) -> None:
        self._makers: dict[str, LayerParameter] = {}
        self._origins: dict[str, tuple[str, Views]] = {}
        """Blob → the earliest blob that only layers of known places lie between, and its places that the blob looks at."""
        self._inputs = frozenset(inputs)

    def add(self, layer: LayerParameter) -> None:
        for top in layer.top:
            if top in self._makers or top in self._inputs:
                continue
            self._makers[top] = layer
            if layer.bottom and layer.bottom[0] != top:
                self._origins[top] = self._origin_through(layer, top)

    def _origin_through(self, layer: LayerParameter, top: str) -> tuple[str, Views]:
        try:
            own = _layer_view(layer)
        except CannotAlignError:
            return top, NO_CHANGE
        origin, views = self._origin(layer.bottom[0])
        height, width = own[0].then(views[0]), own[1].then(views[1])
        is_far = any(max(abs(view.scale.numerator), view.scale.denominator) > MOST_SCALE for view in (height, width))
        return (top, NO_CHANGE) if is_far else (origin, (height, width))

    def _origin(self, blob: str) -> tuple[str, Views]:
        return self._origins.get(blob, (blob, NO_CHANGE))

    def offset(self, crop: LayerParameter) -> list[int]:
        """Height and width to leave out of a Crop layer's first bottom; CannotAlignError where no offset follows."""
        if len(crop.bottom) != 2:
            raise CannotAlignError(
                f"{len(crop.bottom)} bottoms; the blob to crop and the blob of the wanted size were needed"
            )
        origins = [self._origin(blob) for blob in crop.bottom]
        if origins[0][0] != origins[1][0]:
            raise self._no_common_blob(crop)
        offsets = []
        for axis in range(2):
            first, second = (views[axis] for _, views in origins)
            offset = (second.shift - first.shift) / first.scale
            if first.scale != second.scale:
                raise CannotAlignError(
                    f"'{crop.bottom[0]}' and '{crop.bottom[1]}' differ in scale by {float(second.scale / first.scale):g}"
                )
            if offset < 0 or offset.denominator != 1:
                raise CannotAlignError(f"the offset would be {float(offset):g}; a whole number from 0 on was needed")
            offsets.append(int(offset))
        return offsets

    def _no_common_blob(self, crop: LayerParameter) -> CannotAlignError:
        """Which layer stands between two bottoms and the blob where they part, or that there is no such blob."""
        paths = [self._path(blob) for blob in crop.bottom]
        meeting = next((blob for blob in paths[1] if blob in paths[0]), None)
        if meeting is None:
            return CannotAlignError(
                f"Cannot align apparently disconnected blobs. ('{crop.bottom[0]}', '{crop.bottom[1]}')"
            )
        for path in paths:
            for blob in path:
                if blob == meeting:
                    break
                try:
                    _layer_view(self._makers[blob])
                except CannotAlignError as error:
                    return error
        return CannotAlignError(f"'{crop.bottom[0]}' and '{crop.bottom[1]}' lie further apart than any blob is wide")

    def _path(self, blob: str) -> dict[str, None]:
        """A blob, the first bottom of its layer, and so on to an input, in order."""
        path = {blob: None}
        while blob in self._makers and self._makers[blob].bottom:
            blob = self._makers[blob].bottom[0]
            if blob in path:
                break
            path[blob] = None
        return path


@dataclass(frozen=True)
class UndecidedCrop:
    """A Crop that two forks read differently, and nothing in the net tells whose it is."""

    offset: Sequence[int]
    """Height and width that HED's rule leaves out, and Caffe 1.0's does not."""

    def __str__(self) -> str:
        return (
            "Crop without crop_param: Caffe 1.0 cuts at offset 0 (`dialect='bvlc'`), HED's and FCN's forks at "
            f"{', '.join(map(str, self.offset))}, where both bottoms look at the same places (`dialect='hed'`). Choose one, "
            "or write `crop_param { axis: 2 offset: … }`"
        )


def align_crops(
    layers: Sequence[LayerParameter], dialect: str | None
) -> Mapping[int, LayerParameter | UndecidedCrop | str]:
    """For each Crop that looks for its offset, by its index: the layer with the offset, or why there is none.

    AutoCrop always does, and with the dialect "hed" every Crop without a crop_param. Without a dialect such a Crop is
    HED's in a net that has layers of its kin alone, and BVLC's, of offset 0, where the other rule has no offset or the
    same one; else the net does not tell.
    """
    if dialect is None and any(layer.type in KIN_OF_HED for layer in layers):
        dialect = "hed"
    if not any(_looks_for_offset(layer, dialect) for layer in layers):
        return {}
    aligned: dict[int, LayerParameter | UndecidedCrop | str] = {}
    places = BlobPlaces()
    for i, layer in enumerate(layers):
        result = _aligned(layer, places, dialect)
        if result is not None:
            aligned[i] = result
        places.add(result if isinstance(result, LayerParameter) else layer)
    return aligned


def _looks_for_offset(layer: LayerParameter, dialect: str | None) -> bool:
    has_rule = layer.type == SELF_ALIGNING or (layer.type == "Crop" and dialect in (None, "hed"))
    return has_rule and not layer.HasField("crop_param")


def _aligned(
    layer: LayerParameter, places: BlobPlaces, dialect: str | None
) -> LayerParameter | UndecidedCrop | str | None:
    if not _looks_for_offset(layer, dialect):
        return None
    is_own_type = layer.type == SELF_ALIGNING
    try:
        offset = places.offset(layer)
    except CannotAlignError as error:
        is_needed = is_own_type or dialect == "hed"
        return f"{error}. `crop_param {{ offset: … }}` says the offset itself" if is_needed else None
    if not is_own_type and dialect is None:
        return UndecidedCrop(offset) if any(offset) else None
    result = LayerParameter()
    result.CopyFrom(layer)
    result.crop_param.offset.extend(offset)
    return result


def _layer_view(layer: LayerParameter) -> Views:
    if layer.type in _SAME_PLACE:
        return NO_CHANGE
    if layer.type == "Convolution":
        return _window_view(layer.convolution_param)
    if layer.type == "Deconvolution":
        height, width = _window_view(layer.convolution_param)
        return height.inverse(), width.inverse()
    if layer.type == "Pooling" and not layer.pooling_param.global_pooling:
        return _window_view(layer.pooling_param)
    if layer.type in ("Crop", SELF_ALIGNING):
        offsets = list(layer.crop_param.offset) or [0]
        top, left = offsets[0], offsets[-1]
        return Places(shift=Fraction(top)), Places(shift=Fraction(left))
    raise CannotAlignError(f"it is not known which places layer '{layer.name}' ({layer.type}) looks at")


def _window_view(param: ConvolutionParameter | PoolingParameter) -> Views:
    height, width = (
        _one_window(*(_size(param, name, letter, axis) for name in ("kernel_size", "stride", "pad")))
        for axis, letter in enumerate("hw")
    )
    return height, width


def _one_window(kernel: int, stride: int, pad: int) -> Places:
    """The middle of the window; the dilation does not count (caffe: FilterMap)."""
    return Places(Fraction(stride), Fraction(kernel - 1, 2) - pad)


def _size(param: ConvolutionParameter | PoolingParameter, name: str, letter: str, axis: int) -> int:
    """kernel_size, stride or pad on one axis: `kernel_h`, or one of `kernel_size`, or the default."""
    single = f"{name.removesuffix('_size')}_{letter}"
    default = 0 if name == "pad" else 1
    fields = param.DESCRIPTOR.fields_by_name
    if single in fields and param.HasField(single):
        return int(getattr(param, single))
    if name not in fields:
        return default
    value = getattr(param, name)
    if isinstance(value, int):
        return value if param.HasField(name) else default
    return int(value[min(axis, len(value) - 1)]) if value else default
