"""The offsets of the old CROP layer, which found them itself (caffe: CropLayer::LayerSetUp of the FCN branch, 2015).

Today's Crop has them as a field. The rule walks back from both bottoms to the blob where they part, and keeps, for each
axis, which place there a place of the bottom looks at: x = scale·y + shift. The offset makes both look at the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from caffeconv.caffe_pb2 import ConvolutionParameter, LayerParameter, PoolingParameter
from caffeconv.errors import CaffeconvError

_SAME_PLACE = frozenset(
    ("AbsVal", "BNLL", "Concat", "Dropout", "Eltwise", "Exp", "LRN", "MVN", "Power", "ReLU", "Sigmoid", "Softmax",
     "Split", "TanH", "Threshold")
)  # fmt: skip
"""Layer types of that time whose output is about the same places as their input."""


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
    if layer.type == "Crop":
        top, left = layer.crop_param.offset
        return Places(shift=Fraction(top)), Places(shift=Fraction(left))
    raise CannotAlignError(f"it is not known which places layer '{layer.name}' ({layer.type}) looks at")


def _window_view(param: ConvolutionParameter | PoolingParameter) -> Views:
    height, width = (
        _one_window(*(_size(param, name, letter, axis) for name in ("kernel_size", "stride", "pad", "dilation")))
        for axis, letter in enumerate("hw")
    )
    return height, width


def _one_window(kernel: int, stride: int, pad: int, dilation: int) -> Places:
    """The middle of the window (caffe: FilterMap)."""
    return Places(Fraction(stride), Fraction(dilation * (kernel - 1), 2) - pad)


def _size(param: ConvolutionParameter | PoolingParameter, name: str, letter: str, axis: int) -> int:
    """kernel_size, stride, pad or dilation on one axis: `kernel_h`, or one of `kernel_size`, or the default."""
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
