"""Which size of its pictures a net asks for where its data layers do not say it: the one over which all layers fit.

Upsampling to a size that is written out, priors that are counted, grids of so many places: such nets take one size only. A
net that takes several says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from caffeconv.frontend.data_sizes import MOST_LENGTH, SIZES, stated_sizes
from caffeconv.ir.definition import LayerDef

Size = tuple[int, int]
"""Height and width."""
PROBES = (224, 300, 512)
"""Tried first, as a net that takes several sizes takes these."""
MOST_LAYERS = 20_000
"""That are built to find the size."""
OBLONG = (
    (360, 480), (480, 640), (240, 320), (512, 1024), (1024, 2048), (720, 960), (256, 512), (600, 1000), (288, 384),
    (368, 656), (384, 1248), (540, 960), (720, 1280), (32, 100), (112, 96),
)  # fmt: skip
"""Pictures wider than high, and faces, as people choose them."""
_FACTORS = (1, 2, 4, 8, 16, 32)
"""How much larger than a blob inside the net the pictures may be."""


def candidates(layers: Sequence[LayerDef]) -> Iterator[Size]:
    """Sizes worth a try: the probes, those that lead to what layers say of their blobs, and the usual ones; each once."""
    seen = dict.fromkeys((probe, probe) for probe in PROBES)
    yield from seen
    most = MOST_LAYERS // max(len(layers), 1)
    stated = dict.fromkeys(size for layer in layers for size in stated_sizes(layer))
    from_fields = [(h * f, w * f) for h, w in stated for f in _FACTORS if max(h, w) * f <= MOST_LENGTH]
    usual = [*((size, size) for size in SIZES), *OBLONG]
    yield from islice((size for size in dict.fromkeys([*from_fields, *usual]) if size not in seen), most)
