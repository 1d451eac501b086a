"""Which size of its pictures a net asks for where its data layers do not say it: the one over which all layers fit.

Upsampling to a size that is written out, priors that are counted, grids of so many places: such nets take one size only. A
net that takes several says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from caffeconv.frontend.data_sizes import MOST_LENGTH, SIZES, stated_sizes
from caffeconv.ir.definition import LayerDef

Size = tuple[int, int]
"""Height and width."""
PROBES = (224, 300, 512)
"""Tried first, as a net that takes several sizes takes these."""
_PROBED = [(probe, probe) for probe in PROBES]
OBLONG = (
    (360, 480), (480, 640), (240, 320), (512, 1024), (1024, 2048), (720, 960), (256, 512), (600, 1000), (288, 384),
    (368, 656), (384, 1248), (540, 960), (720, 1280), (32, 100), (112, 96),
)  # fmt: skip
"""Pictures wider than high, and faces, as people choose them."""
_FACTORS = (1, 2, 4, 8, 16, 32, 64)
"""How much larger than a blob inside the net the pictures may be."""
_STRIDE = 32
"""Of the last blob of a usual net."""
_MOST_LAYERS = 30_000
"""That are built for the sizes of a list."""


def candidates(layers: Sequence[LayerDef]) -> Iterator[list[Size]]:
    """Sizes worth a try, in lists: the probes, those that lead to what layers say of their blobs, and the usual ones.

    Where one size of a list fits alone, it is the net's; those of a later list are worth trying where none of an earlier
    one fits.
    """
    yield _PROBED
    most = _MOST_LAYERS // max(len(layers), 1)
    stated = dict.fromkeys(size for layer in layers for size in stated_sizes(layer))
    multiples = [(h * f, w * f) for h, w in stated for f in _FACTORS if max(h, w) * f <= MOST_LENGTH]
    yield [size for size in dict.fromkeys(multiples) if size not in _PROBED][:most]
    yield [size for size in (*((size, size) for size in SIZES), *OBLONG) if size not in _PROBED][:most]


def without_rest(sizes: list[Size]) -> list[Size]:
    """Of sizes that all fit where no probe does, the one that windows divide without rest, where there is just one: 448, not
    473 or 500."""
    exact = [size for size in sizes if not (size[0] % _STRIDE or size[1] % _STRIDE)]
    return exact if len(exact) == 1 and not set(sizes) & set(_PROBED) else sizes
