"""Layers that the file calls otherwise: `conv1_1` in the net, `conv1-1` in the file; or a whole file under other names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher

from caffeconv.errors import close_names
from caffeconv.inspection.diagnose.edit import with_name
from caffeconv.inspection.diagnose.trial_net import SearchContext, TrialNet, stored_shapes
from caffeconv.ir.definition import LayerDef
from caffeconv.tensor.shape import Shape

NEAR = 0.7
MOST_COMPARED = 10_000
"""Pairs of names to compare letter by letter; beyond, order and shapes alone decide."""


def find_renames(trial: TrialNet) -> dict[int, LayerDef]:
    """Layers whose parameters the file has under another name: index → the layer under that name.

    Where no layer takes weights by its name, or as many are left on either side, all of them are matched together, by
    their letters, by a prefix or suffix that all have, or by shapes and order. Elsewhere, and where that fails, names that
    are nearly the same count.
    """
    names = {layer.name for layer in trial.net.layers}
    spare_names = [name for name, layer in trial.context.stored.items() if layer.blobs and name not in names]
    learning = [i for i in range(len(trial.net.layers)) if i not in trial.misfits and _has_params(trial, i)]
    candidates = [i for i in learning if trial.net.layers[i].name not in trial.context.stored]
    # all of them, or all that the two sides do not call alike
    if candidates and not trial.misfits and (candidates == learning or len(candidates) == len(spare_names)):
        matches = _whole_match(trial, candidates, spare_names)
        if matches:
            return {i: with_name(trial.net.layers[i], name) for i, name in matches.items()}
    renames: dict[int, LayerDef] = {}
    for match in (_same_letters, _nearest):
        for i in candidates:
            name = match(trial.net.layers[i].name, spare_names) if i not in renames else None
            if name is not None and _fits(trial, i, name):
                renames[i] = with_name(trial.net.layers[i], name)
                spare_names.remove(name)
    return renames


# -- a whole file under other names ------------------------------------------------------------------------------------


def _whole_match(trial: TrialNet, indices: Sequence[int], names: Sequence[str]) -> Mapping[int, str]:
    """A name of the file for every layer, so that all of them fit; empty where there is none."""
    if len(indices) > len(names):
        return {}
    own_names = {i: trial.net.layers[i].name for i in indices}
    for matches in (_by_letters(own_names, names), _by_affix(own_names, names)):
        if len(set(matches.values())) == len(indices) and all(_fits(trial, i, name) for i, name in matches.items()):
            return matches
    return _by_order(trial, own_names, names) if len(indices) > 1 or len(names) == 1 else {}


def _by_letters(own_names: Mapping[int, str], names: Sequence[str]) -> Mapping[int, str]:
    by_letters = {_letters(name): name for name in reversed(names)}
    return {i: by_letters[_letters(own)] for i, own in own_names.items() if _letters(own) in by_letters}


def _by_affix(own_names: Mapping[int, str], names: Sequence[str]) -> Mapping[int, str]:
    """Names that are the file's with the same prefix or suffix more, or less, for all."""
    first = next(iter(own_names.values()))
    known = set(names)
    for name in names:
        for longer, shorter, adds in ((first, name, True), (name, first, False)):
            for prefix, suffix in _affixes(longer, shorter):
                matches = {
                    i: other for i, own in own_names.items() if (other := _changed(own, prefix, suffix, adds)) in known
                }
                if len(matches) == len(own_names):
                    return matches
    return {}


def _affixes(longer: str, shorter: str) -> Iterator[tuple[str, str]]:
    if longer != shorter and longer.endswith(shorter):
        yield longer[: len(longer) - len(shorter)], ""
    if longer != shorter and longer.startswith(shorter):
        yield "", longer[len(shorter) :]


def _changed(name: str, prefix: str, suffix: str, taken_off: bool) -> str:
    if not taken_off:
        return f"{prefix}{name}{suffix}"
    return name[len(prefix) : len(name) - len(suffix)] if name.startswith(prefix) and name.endswith(suffix) else ""


def _by_order(trial: TrialNet, own_names: Mapping[int, str], names: Sequence[str]) -> Mapping[int, str]:
    """Names in the file's order that fit the layers in the net's order, of several ways the one with the likest names."""
    indices, fits = list(own_names), _fits_by_shapes(trial, names)
    rows, columns = len(indices), len(names)
    reads_names = rows * columns <= MOST_COMPARED
    best = [[0.0] * (columns + 1) if row == rows else [-math.inf] * (columns + 1) for row in range(rows + 1)]
    for row in reversed(range(rows)):
        for column in reversed(range(columns)):
            skipped = best[row][column + 1]
            rest = best[row + 1][column + 1]
            score = -math.inf
            if rest > -math.inf and fits(indices[row], names[column]):
                likeness = SequenceMatcher(None, own_names[indices[row]], names[column]).ratio() if reads_names else 0.0
                score = rest + likeness
            best[row][column] = max(skipped, score)
    if best[0][0] == -math.inf:
        return {}
    matches, row, column = {}, 0, 0
    while row < rows:
        if best[row][column] == best[row][column + 1]:
            column += 1
            continue
        matches[indices[row]] = names[column]
        row, column = row + 1, column + 1
    return matches


def _fits_by_shapes(trial: TrialNet, names: Sequence[str]) -> Callable[[int, str], bool]:
    """`_fits`, asked once for layers and names of the same shapes."""
    shapes_of_name = {name: stored_shapes(trial.context.stored[name]) for name in names}
    memo: dict[tuple[str, tuple[Shape, ...], tuple[Shape, ...]], bool] = {}

    def fits(index: int, name: str) -> bool:
        layer, bottoms = trial.layers[index], trial.bottoms(index)
        shapes = tuple(layer.weight_shapes(bottoms).values()) if layer is not None and bottoms is not None else ()
        key = (trial.net.layers[index].type, shapes, shapes_of_name[name])
        if key not in memo:
            memo[key] = _fits(trial, index, name)
        return memo[key]

    return fits


# -- names that are nearly the same ------------------------------------------------------------------------------------


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
    matches = close_names(name, list(names), 1, NEAR)
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
