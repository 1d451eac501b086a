"""The offsets of Crop layers that look for them themselves: FCN's old CROP, HED's Crop, RCF's AutoCrop.

Caffe's Crop has them as a field (the FCN branch of 2015: CropLayer::LayerSetUp, and coord_map of the layers). The rule
walks back from both bottoms to the blob where they part, and keeps, for each axis, which place there a place of the
bottom looks at: x = scale·y + shift. The offset makes both look at the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


Views = tuple[Places, Places]
"""Height and width."""
NO_CHANGE: Views = (Places(), Places())


def crop_offset(crop: LayerParameter, layers: Sequence[LayerParameter], inputs: Sequence[str]) -> list[int]:
    """Height and width to leave out of a Crop layer's first bottom, from the layers before it; or CannotAlignError."""
    if len(crop.bottom) != 2:
        raise CannotAlignError(
            f"{len(crop.bottom)} bottoms; the blob to crop and the blob of the wanted size were needed"
        )
    # a blob written in place counts as the first layer's that makes it, and in-place layers change no place
    makers = {top: layer for layer in reversed(layers) for top in layer.top}
    paths = [_walk_back(blob, makers, inputs) for blob in crop.bottom]
    meeting = next((blob for blob in paths[1] if blob in paths[0]), None)
    if meeting is None:
        raise CannotAlignError(f"Cannot align apparently disconnected blobs. ('{crop.bottom[0]}', '{crop.bottom[1]}')")
    offsets = []
    for axis in range(2):
        first, second = (_view(path, meeting, makers, axis) for path in paths)
        offset = (second.shift - first.shift) / first.scale
        if first.scale != second.scale:
            raise CannotAlignError(
                f"'{crop.bottom[0]}' and '{crop.bottom[1]}' differ in scale by {float(second.scale / first.scale):g}"
            )
        if offset < 0 or offset.denominator != 1:
            raise CannotAlignError(f"the offset would be {float(offset):g}; a whole number from 0 on was needed")
        offsets.append(int(offset))
    return offsets


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
    aligned: dict[int, LayerParameter | UndecidedCrop | str] = {}
    known = list(layers)
    for i, layer in enumerate(layers):
        is_own_type = layer.type == SELF_ALIGNING
        if layer.HasField("crop_param") or not (is_own_type or (layer.type == "Crop" and dialect in (None, "hed"))):
            continue
        try:
            offset = crop_offset(layer, known[:i], ())
        except CannotAlignError as error:
            if is_own_type or dialect == "hed":
                aligned[i] = f"{error}. `crop_param {{ offset: … }}` says the offset itself"
            continue
        if not is_own_type and dialect is None:
            if any(offset):
                aligned[i] = UndecidedCrop(offset)
            continue
        known[i] = LayerParameter()
        known[i].CopyFrom(layer)
        known[i].crop_param.offset.extend(offset)
        aligned[i] = known[i]
    return aligned


def _walk_back(blob: str, makers: Mapping[str, LayerParameter], inputs: Sequence[str]) -> list[str]:
    """A blob, the first bottom of its layer, and so on to an input."""
    path = [blob]
    while blob not in inputs and blob in makers and makers[blob].bottom:
        blob = makers[blob].bottom[0]
        if blob in path:
            break
        path.append(blob)
    return path


def _view(path: Sequence[str], meeting: str, makers: Mapping[str, LayerParameter], axis: int) -> Places:
    view = Places()
    for blob in path[: path.index(meeting)]:
        view = view.then(_layer_view(makers[blob])[axis])
    return view


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
