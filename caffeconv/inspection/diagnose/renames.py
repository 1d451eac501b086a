"""Layers that the file calls otherwise: `conv1_1` in the net, `conv1-1` in the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from caffeconv.inspection.diagnose.edit import with_name
from caffeconv.inspection.diagnose.trial_net import SearchContext, TrialNet
from caffeconv.ir.definition import LayerDef

NEAR = 0.7


def find_renames(trial: TrialNet) -> dict[int, LayerDef]:
    """Layers whose parameters the file has under a name that is nearly theirs: index → the layer under that name."""
    names = {layer.name for layer in trial.net.layers}
    spare_names = [name for name, layer in trial.context.stored.items() if layer.blobs and name not in names]
    candidates = [
        i for i, layer in enumerate(trial.net.layers)
        if layer.name not in trial.context.stored and i not in trial.misfits and _has_params(trial, i)
    ]  # fmt: skip
    renames: dict[int, LayerDef] = {}
    for match in (_same_letters, _nearest):
        for i in candidates:
            name = match(trial.net.layers[i].name, spare_names) if i not in renames else None
            if name is not None and _fits(trial, i, name):
                renames[i] = with_name(trial.net.layers[i], name)
                spare_names.remove(name)
    return renames


def _has_params(trial: TrialNet, index: int) -> bool:
    layer, bottoms = trial.layers[index], trial.bottoms(index)
    return layer is not None and bottoms is not None and bool(layer.weight_shapes(bottoms))


def _fits(trial: TrialNet, index: int, name: str) -> bool:
    definition = with_name(trial.net.layers[index], name)
    return trial.evaluate(index, definition, trial.layers[index], {})[2] is None


def _letters(name: str) -> str:
    return re.sub(r"[^0-9a-z]", "", name.lower())


def _same_letters(name: str, names: Iterable[str]) -> str | None:
    return next((other for other in names if _letters(other) == _letters(name)), None)


def _nearest(name: str, names: Iterable[str]) -> str | None:
    matches = difflib.get_close_matches(name, list(names), 1, NEAR)
    return matches[0] if matches else None


def without_weights(trial: TrialNet, names: Mapping[int, str]) -> dict[int, LayerDef]:
    """Layers under names that no file has, so that they keep what their fillers give."""
    return {i: with_name(trial.net.layers[i], name) for i, name in names.items()}


def free_name(name: str, context: SearchContext, names: Iterable[str]) -> str:
    """A name like this one that neither the net nor the file has."""
    used_names = {*context.stored, *names}
    candidate, number = f"{name}_new", 1
    while candidate in used_names:
        number += 1
        candidate = f"{name}_new{number}"
    return candidate
