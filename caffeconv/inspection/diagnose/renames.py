"""Layers that the file calls otherwise: `conv1_1` in the net, `conv1-1` in the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from caffeconv.inspection.diagnose.edit import with_name
from caffeconv.inspection.diagnose.trial_net import SearchContext, TrialNet
from caffeconv.ir.definition import LayerDef

NEAR = 0.7


def renamed(world: TrialNet) -> dict[int, LayerDef]:
    """Layers whose parameters the file has under a name that is nearly theirs: index → the layer under that name."""
    used = {layer.name for layer in world.net.layers}
    spare = [name for name, layer in world.given.stored.items() if layer.blobs and name not in used]
    lacking = [
        i for i, layer in enumerate(world.net.layers)
        if layer.name not in world.given.stored and i not in world.troubles and _has_params(world, i)
    ]  # fmt: skip
    found: dict[int, LayerDef] = {}
    for match in (_same_letters, _nearest):
        for i in lacking:
            name = match(world.net.layers[i].name, spare) if i not in found else None
            if name is not None and _fits(world, i, name):
                found[i] = with_name(world.net.layers[i], name)
                spare.remove(name)
    return found


def _has_params(world: TrialNet, index: int) -> bool:
    layer, bottoms = world.layers[index], world.bottoms(index)
    return layer is not None and bottoms is not None and bool(layer.weight_shapes(bottoms))


def _fits(world: TrialNet, index: int, name: str) -> bool:
    definition = with_name(world.net.layers[index], name)
    return world.evaluate(index, definition, world.layers[index], {})[2] is None


def _letters(name: str) -> str:
    return re.sub(r"[^0-9a-z]", "", name.lower())


def _same_letters(name: str, spare: Iterable[str]) -> str | None:
    return next((other for other in spare if _letters(other) == _letters(name)), None)


def _nearest(name: str, spare: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(name, list(spare), 1, NEAR)
    return near[0] if near else None


def without_weights(world: TrialNet, names: Mapping[int, str]) -> dict[int, LayerDef]:
    """Layers under names that no file has, so that they keep what their fillers give."""
    return {i: with_name(world.net.layers[i], name) for i, name in names.items()}


def free_name(name: str, given: SearchContext, taken: Iterable[str]) -> str:
    """A name like this one that neither the net nor the file has."""
    known = {*given.stored, *taken}
    candidate, number = f"{name}_new", 1
    while candidate in known:
        number += 1
        candidate = f"{name}_new{number}"
    return candidate
