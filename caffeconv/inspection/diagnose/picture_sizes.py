"""Which other size the pictures of a net may be meant to have: what its weights or its branches ask for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from caffeconv.frontend.data_sizes import MOST_LENGTH, SIZES
from caffeconv.inspection.diagnose.edit import image_size, resized, settings_of
from caffeconv.inspection.diagnose.size_trace import chain
from caffeconv.inspection.diagnose.trial_net import MOST_STEPS, Misfit, TrialNet, fitting_bottoms, stored_shapes
from caffeconv.ir.definition import LayerDef
from caffeconv.layers import LAYERS
from caffeconv.tensor.shape import Shape, count

MOST_ASPECT = 4
"""How many times as wide as high, or the reverse, what a layer sees may be."""
MOST_TARGETS = 6
LARGE = 1024
"""What is taken for the other side of a picture: more than any window needs."""
BESIDE = 3
"""How near two lengths are that lead to the same: 224 and 227, 512 and 513."""
MOST_ALIKE = 3
"""Sizes of one size of features that are tried."""
Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class Target:
    """A blob, and the height and width that it would need."""

    value: str
    size: Size


def likely_sizes(trial: TrialNet, misfit: Misfit, inputs: Sequence[int]) -> Iterator[list[Size]]:
    """Sizes of the pictures that some inputs make with which a layer might fit, in lists: those of a later list are worth
    trying where none of an earlier one helps.

    What a product's weight has room for comes first, then the usual sizes, then what other bottoms of the layer ask for. Of
    sizes that lead to the same, those come first that the windows divide without rest.
    """
    pictures = _Pictures(trial, inputs)
    for _, targets in itertools.groupby(_products(pictures, misfit), key=lambda target: sorted(target.size)):
        yield from _sizes_of(pictures, list(targets))
    height, width = pictures.now
    bottoms = trial.net.layers[misfit.index].bottom_values
    rests = {n: max((_rests(pictures, value, n, 0) for value in bottoms), default=0) for n in SIZES}
    beside = {n for n in SIZES if any(abs(n - m) <= BESIDE and rests[m] < rests[n] for m in SIZES)}
    yield _of_one_shape([n for n in SIZES if n not in beside], height, width)
    yield _of_one_shape([n for n in SIZES if n in beside], height, width)
    for target in itertools.islice(_other_bottoms(trial, misfit), MOST_TARGETS):
        yield from _sizes_of(pictures, [target])
    yield _of_one_shape(_multiples(height), height, width)


def _of_one_shape(heights: Sequence[int], height: int, width: int) -> list[Size]:
    """Pictures of other heights, as wide for these as now."""
    return [(n, n * width // height) for n in heights if n * width % height == 0]


def resized_inputs(trial: TrialNet, inputs: Sequence[int], size: Size) -> dict[int, LayerDef]:
    """The input layers whose fields can say so, with pictures of that height and width: index → definition."""
    definitions = {j: resized(trial.net.layers[j], *size) for j in inputs}
    return {j: definition for j, definition in definitions.items() if definition is not None}


@dataclass(frozen=True)
class _Window:
    """How one layer changes a length."""

    span: int
    stride: int
    pad: int
    rounds_up: bool
    transposed: bool


@dataclass
class _Pictures:
    """What some inputs' pictures lead to, by their size."""

    trial: TrialNet
    inputs: Sequence[int]
    trials: dict[Size, TrialNet] = field(default_factory=dict)

    windows_of: dict[tuple[str, int], tuple[_Window, ...]] = field(default_factory=dict)

    def windows(self, value: str, axis: int) -> tuple[_Window, ...]:
        """The windows between the pictures and a blob, along one of its axes."""
        if (value, axis) not in self.windows_of:
            self.windows_of[value, axis] = tuple(_windows(self.over((LARGE, LARGE)), value, axis))
        return self.windows_of[value, axis]

    @property
    def now(self) -> Size:
        """The size that they have."""
        return image_size(self.trial.net.layers[self.inputs[0]]) or (1, 1)

    def over(self, size: Size) -> TrialNet:
        """The net over pictures of that size, or over square ones where the inputs make no others."""
        if size not in self.trials:
            square = (min(size), min(size))
            definitions = resized_inputs(self.trial, self.inputs, size)
            if definitions:
                self.trials[size] = self.trial.edited(definitions)
            elif size in (square, self.now):
                self.trials[size] = self.trial
            else:
                self.trials[size] = self.over(square)
        return self.trials[size]

    def length_of(self, value: str, axis: int, length: int) -> int:
        """Height (axis 0) or width (1) of a blob over pictures of that height or width; 0 where the net cannot make it."""
        shape = self.over((length, LARGE) if axis == 0 else (LARGE, length)).shapes.get(value, ())
        return shape[2 + axis] if len(shape) == 4 else 0

    def lengths(self, value: str, axis: int, wanted: int) -> range:
        """The lengths of pictures for which a blob's height or width is as wanted; a longer one never makes less."""
        low, high = self._least(value, axis, wanted), self._least(value, axis, wanted + 1)
        return range(low, high)

    def _least(self, value: str, axis: int, wanted: int) -> int:
        low, high = 1, MOST_LENGTH
        while low < high and not self.trial.context.budget.empty:
            middle = (low + high) // 2
            if self.length_of(value, axis, middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return low


def _other_bottoms(trial: TrialNet, misfit: Misfit) -> Iterator[Target]:
    """What some bottoms of a layer would have to be for the others."""
    definition, layer, bottoms = (
        trial.net.layers[misfit.index], trial.layers[misfit.index], trial.bottoms(misfit.index),
    )  # fmt: skip
    if misfit.stored or layer is None or not bottoms or not layer.bottoms.fits(len(bottoms)):
        return
    for wanted in fitting_bottoms(layer, bottoms):
        for i, shape in wanted.items():
            if len(shape) == len(bottoms[i]) == 4 and shape[:2] == bottoms[i][:2]:
                yield Target(definition.bottom_values[i], (shape[2], shape[3]))


def _products(pictures: _Pictures, misfit: Misfit) -> list[Target]:
    """What the layer would have to see for its stored weight, or the first product behind a layer that cannot be built."""
    trial = pictures.trial
    indices = [misfit.index] if misfit.stored else range(misfit.index, len(trial.net.layers))
    index, columns = next(((i, number) for i in indices if (number := _columns(trial, i)) is not None), (0, 0))
    if not columns:
        return []
    large = pictures.over((LARGE, LARGE))
    value = _last_planes(large, trial.net.layers[index].bottom_values[0])
    seen = large.shapes.get(value, ())
    if len(seen) != 4 or not seen[1] or columns % seen[1]:
        return []
    return [Target(value, size) for size in _factors(columns // seen[1], trial.shapes.get(value, seen))][:MOST_TARGETS]


def _last_planes(trial: TrialNet, value: str) -> str:
    """The blob N×C×H×W that a value is made of where layers only put its numbers in other places: Flatten, Permute, …"""
    for _ in range(MOST_STEPS):
        index = trial.makers.get(value)
        layer = trial.net.layers[index] if index is not None else None
        if index is None or layer is None or len(layer.bottom_values) != 1 or LAYERS[layer.type].channel_setting:
            return value
        shapes = [trial.shapes.get(v, ()) for v in (value, layer.bottom_values[0])]
        if count(shapes[0]) != count(shapes[1]) or not shapes[1] or shapes[0] == shapes[1]:
            return value
        value = layer.bottom_values[0]
    return value


def _columns(trial: TrialNet, index: int) -> int | None:
    """How many values of an item a layer's stored weight takes, for one that multiplies all of them by a matrix."""
    definition = trial.net.layers[index]
    kind = LAYERS.get(definition.type)
    stored = stored_shapes(trial.context.stored.get(definition.name))
    if kind is None or not definition.bottom_values or not kind.is_fully_connected or not stored or len(stored[0]) != 2:
        return None
    return stored[0][0 if settings_of(definition).get("transpose") else 1]


def _factors(places: int, seen: Shape) -> list[Size]:
    """Heights and widths of so many places, those first that are shaped as what is seen now."""
    sizes = [(h, places // h) for h in range(1, min(places, MOST_LENGTH) + 1) if places % h == 0]
    aspect = seen[3] / seen[2] if seen[2] and seen[3] else 1.0
    near = [size for size in sizes if max(size) <= MOST_ASPECT * min(size)] or sizes
    return sorted(near, key=lambda size: max(size[1] / size[0] / aspect, aspect * size[0] / size[1]))


def _sizes_of(pictures: _Pictures, targets: Sequence[Target]) -> Iterator[list[Size]]:
    """Sizes that lead to one of some targets: squares, those of one number of rests together; then oblong ones."""
    oblong = []
    for target in targets:
        heights, widths = (pictures.lengths(target.value, axis, target.size[axis]) for axis in (0, 1))
        if pictures.now[0] in heights and pictures.now[1] in widths:
            continue  # it is of that size already, and something else is wrong
        both = range(max(heights.start, widths.start), min(heights.stop, widths.stop))
        doubts = sorted((_doubt(pictures, target.value, n, 0), n) for n in both)
        for _, alike in itertools.groupby(doubts, key=lambda pair: pair[0][0]):
            yield [(n, n) for _, n in itertools.islice(alike, MOST_ALIKE)]
        if heights and widths:
            oblong.append((_best(pictures, target.value, heights, 0), _best(pictures, target.value, widths, 1)))
    yield oblong


def _best(pictures: _Pictures, value: str, lengths: range, axis: int) -> int:
    return min(lengths, key=lambda n: _doubt(pictures, value, n, axis))


def _doubt(pictures: _Pictures, value: str, length: int, axis: int) -> tuple[int, int]:
    """How many windows on the way to a blob leave a rest; how far a length is from those that people choose."""
    usual = SIZES.index(length) if length in SIZES else len(SIZES) + next(
        (i for i, divisor in enumerate((32, 16, 8, 4, 2)) if length % divisor == 0), 5
    )  # fmt: skip
    return _rests(pictures, value, length, axis), usual


def _rests(pictures: _Pictures, value: str, length: int, axis: int) -> int:
    """The windows between an input and a blob that a length does not divide: what is rounded there is nobody's choice.

    Of a length that the stride divides, windows may also leave just that part.
    """
    rests = 0
    for window in pictures.windows(value, axis):
        if window.transposed:
            length = window.stride * (length - 1) + window.span - 2 * window.pad
            continue
        steps, rest = divmod(length + 2 * window.pad - window.span, window.stride)
        after = steps + 1 + (window.rounds_up and bool(rest))
        rests += bool(rest) and after * window.stride != length
        length = after
    return rests


def _windows(trial: TrialNet, value: str, axis: int) -> Iterator[_Window]:
    for link in chain(trial, value):
        settings = settings_of(link.layer)
        kernel, stride, pad, dilation = (
            _of_axis(settings.get(name), axis, default)
            for name, default in (("kernel_size", 0), ("stride", 1), ("pad", 0), ("dilation", 1))
        )
        if kernel and stride > 0 and not settings.get("global_pooling"):
            span, rounds_up = dilation * (kernel - 1) + 1, settings.get("round_mode") == 0
            yield _Window(span, stride, pad, rounds_up, LAYERS[link.layer.type].transposed)


def _of_axis(value: object, axis: int, default: int) -> int:
    return int(value[min(axis, len(value) - 1)]) if isinstance(value, tuple) and value else default


def _multiples(height: int) -> list[int]:
    """Heights near one, round ones first."""
    multiples = (height // step * step + more for step in (32, 16, 8, 4, 2) for more in (0, step))
    lengths = (*multiples, *(range(1, 33) if height <= 64 else ()), height + 1, height - 1)
    return [n for n in dict.fromkeys(lengths) if n > 0 and n not in SIZES]
