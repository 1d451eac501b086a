"""How likely an edit is to be what was meant: what the file proves is cheap, what makes a layer odd is dear."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from caffeconv.frontend.data_sizes import SIZES
from caffeconv.inspection.diagnose.edit import NAME, SHAPE, Edit, settings_of
from caffeconv.ir.definition import LayerDef, NetDef
from caffeconv.ir.layer import Setting
from caffeconv.layers import LAYERS

_FLOOR = 0.3
"""Below this, a cost falls off more slowly, so that it stays above 0."""
MOST_TIMES = 8
"""How many times as many channels a layer may be meant to have."""
UNPADDED = 0.5
"""How much likelier than by its windows it is that a 1×1 convolution was not to be padded: nobody pads one on purpose."""
_UNUSUAL_BOXES = 0.6
"""What prior boxes without flipped ratios, or of squares alone, cost: SSD's layers have both."""
_UNCENTRED = 0.1
"""What a Crop at the edge costs more than one in the middle."""
_DISTANT = 0.25
"""What a picture costs that is e times as wide."""
_OBLONG = 0.5
"""What one costs that is no square any more."""
_WIDE = 0.05
"""What one costs more that is wider than high."""
PROVEN = 0.3
"""The cost of a field that the shapes in the file prove."""
_KERNELS = {1: 0.0, 3: 0.0, 2: 0.1, 5: 0.1, 7: 0.1, 4: 0.4, 11: 0.3}
_STRIDES = {1: 0.0, 2: 0.05, 4: 0.4, 8: 0.5, 16: 0.5}
_DEAR = {
    "kernel_size": 0.4, "group": 0.5, "dilation": 0.5, "transpose": 0.2, "round_mode": 0.4, "global_pooling": 0.3,
    "axis": 0.5, "offset": -0.3, "slice_point": -0.3, "dim": -0.3, "flip": -0.3, "min_size": -0.2, "max_size": -0.8,
    "order": -0.6, "pyramid_height": -0.6, "upsample_h": -0.7, "upsample_w": -0.7,
}  # fmt: skip

FieldCounts = tuple[str, Setting | None, Setting | None, Setting | None, Setting | None]
"""A layer's type, kernel, stride, pad and dilation."""


@dataclass(frozen=True)
class WindowStatistics:
    """How often the layers of a net have which window."""

    net: NetDef
    windows: Counter[FieldCounts]
    kernels: Counter[tuple[str, Setting | None]]

    @classmethod
    def of(cls, net: NetDef) -> WindowStatistics:
        windows = [_window_fields(layer, settings_of(layer)) for layer in net.layers]
        return cls(net, Counter(windows), Counter((window[0], window[1]) for window in windows))

    def like(self, index: int, definition: LayerDef, settings: Mapping[str, Setting]) -> float:
        """The share of the net's other layers of that type and kernel that have the same stride, pad and dilation."""
        window, layer = _window_fields(definition, settings), self.net.layers[index]
        layer_window = _window_fields(layer, settings_of(layer))
        same = self.windows[window] - (window == layer_window)
        peers = self.kernels[window[:2]] - (window[:2] == layer_window[:2])
        return same / peers if peers else 0.0


def _window_fields(definition: LayerDef, settings: Mapping[str, Setting]) -> FieldCounts:
    names = ("kernel_size", "stride", "pad", "dilation")
    return (definition.type, *(settings.get(name) for name in names))  # type: ignore[return-value]


def cost(statistics: WindowStatistics, edit: Edit, after: LayerDef, proven: frozenset[str]) -> float:
    """The cost of an edit of one layer, the less the likelier; `proven`: fields that follow from the file."""
    before = statistics.net.layers[edit.index]
    total = 0.0
    for name, value in edit.after.items():
        if name in proven:
            total += PROVEN
        elif name.startswith(SHAPE) or name == LAYERS[after.type].crop_setting:
            total += _shape_cost(edit.before[name], value)
        elif name in LAYERS[after.type].picture_settings:
            total += _shape_cost(edit.before[name], value) / len(edit.after)
        elif name != NAME:
            total += 1 + _DEAR.get(name, 0.0)
            total += _roundness(value) - _roundness(edit.before[name]) if name == "num_output" else 0
            total += _UNCENTRED if name == "offset" and not any(value if isinstance(value, tuple) else ()) else 0
            total += _UNUSUAL_BOXES if (name, value) in (("flip", False), ("aspect_ratio", ())) else 0
    if set(edit.after) - proven - {NAME}:
        total += oddness(statistics, edit.index, after) - oddness(statistics, edit.index, before)
    kernels = [settings_of(layer).get("kernel_size") for layer in (before, after)]
    if edit.after.get("pad") == (0,) and kernels == [(1,), (1,)]:
        total -= UNPADDED
    return total if total > _FLOOR else _FLOOR * math.exp(total / _FLOOR - 1)


def is_odd(edit: Edit) -> bool:
    """Whether no published net has the like: another window that fits with a strange number of channels only."""
    kernel, before, after = edit.after.get("kernel_size"), edit.before.get("num_output"), edit.after.get("num_output")
    if not isinstance(kernel, tuple) or not isinstance(before, int) or not isinstance(after, int):
        return False
    return any(size % 2 == 0 for size in kernel) or after > MOST_TIMES * before


def _shape_cost(before: Setting | str, value: Setting | str) -> float:
    """What another shape of an input costs: people take pictures of a usual size for those of another usual size."""
    old, new = ((side if isinstance(side, tuple) else (side,))[-2:] for side in (before or value, value))
    if not all(isinstance(n, int) and n > 0 for n in (*old, *new)) or len(old) != len(new):
        return 2.5
    if isinstance(before, tuple) and isinstance(value, tuple) and before[:-2] != value[:-2]:
        return 2.5
    distance = abs(math.log(math.prod(map(int, new)) / math.prod(map(int, old)))) / len(new)
    usual = [0.8 + 0.01 * SIZES.index(n) if n in SIZES else 1.15 if n % 16 == 0 else 1.45 for n in map(int, new)]
    return (
        _DISTANT * distance
        + sum(usual) / len(usual)
        + (_OBLONG if len(set(new)) > len(set(old)) else 0.0)
        + (_WIDE if int(new[0]) < int(new[-1]) else 0.0)
    )


def _roundness(value: Setting | str) -> float:
    """How unlike a number of filters that people choose a number is: 0 for a multiple of 16."""
    if not isinstance(value, int):
        return 0.0
    return next((price for divisor, price in ((16, 0.0), (8, 0.1), (4, 0.15), (2, 0.2)) if value % divisor == 0), 0.3)


def oddness(statistics: WindowStatistics, index: int, definition: LayerDef) -> float:
    """How unusual a layer's window is, by custom and by the net's other layers of its type."""
    settings = settings_of(definition)
    kernel = _first(settings, "kernel_size", 0)
    if not kernel:
        return 0.0
    stride, pad = _first(settings, "stride", 1), _first(settings, "pad", 0)
    span = _first(settings, "dilation", 1) * (kernel - 1) + 1
    total = _KERNELS.get(kernel, 0.6) + _STRIDES.get(stride, 0.8)
    total += 0.0 if pad == 0 and kernel <= 2 else 0.05 if 2 * pad + 1 == span else 0.15 if pad == 0 else 0.8
    total += 1.0 if pad >= span else 0.0
    total += 0.5 if kernel == 1 and not LAYERS[definition.type].channel_setting else 0.0
    total += 0.6 if pad and kernel > 5 and stride == 1 else 0.0
    total += 0.3 if span > kernel else 0.0
    total += 0.5 + 0.5 * math.log2(stride / kernel) if stride > kernel else 0.0
    return total - 0.5 * statistics.like(index, definition, settings)


def _first(settings: Mapping[str, Setting], name: str, default: int) -> int:
    value = settings.get(name, ())
    return value[0] if isinstance(value, tuple) and value else default
