"""Layers that do half of what their name says, and whose other half only the file has: BatchNorm without its Scale; and
the reverse, a Scale whose numbers the file has in the BatchNorm."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.inspection.diagnose.edit import with_settings
from caffeconv.inspection.diagnose.insertions import Rewriting, rewritten, without_followers
from caffeconv.inspection.diagnose.trial_net import TrialNet, stored_shapes
from caffeconv.ir.definition import LayerDef
from caffeconv.layers import LAYERS

_WORDS = re.compile(r"batch_?norm|scale|norm|bias|bn|sc", re.IGNORECASE)


@dataclass(frozen=True)
class Companion:
    """A layer of the file that completes one of the net, and how it would read there."""

    index: int
    """The net's layer that it completes."""
    name: str
    proto: LayerParameter
    why: str


def missing_companions(trial: TrialNet, reference: TrialNet | None) -> list[Companion]:
    """What the file has of layers that only together do what is meant, where the net has but the first of the two."""
    used = {layer.name for layer in trial.net.layers}
    spare = [name for name, layer in trial.context.stored.items() if layer.blobs and name not in used]
    companions = []
    for i, layer in enumerate(trial.net.layers):
        kind = LAYERS.get(layer.type)
        if not spare or kind is None or not kind.completed_by or i in trial.misfits or _is_completed(trial, layer):
            continue
        options = {name: proto for name in spare if (proto := _fitting(trial, i, name)) is not None}
        name = _of_reference(reference, layer, options) or _by_name(trial, layer.name, options)
        if name is None:
            continue
        spare.remove(name)
        where = "In the file's net it follows" if reference else "By its blobs and its place in the file it follows"
        why = f"{where} '{layer.name}' ({layer.type}), which only normalizes; without it results differ."
        companions.append(Companion(i, name, options[name], why))
    return companions


def completed(trial: TrialNet, companions: Sequence[Companion]) -> Rewriting:
    """The net with the missing companions, as a trial."""
    return rewritten(trial, {each.index: (trial.net.layers[each.index].proto, each.proto) for each in companions})


def without_superfluous(trial: TrialNet) -> Rewriting:
    """The net without the layers that complete one which, as the file has it, is complete by itself.

    The completed layer then makes what the other one made: NVIDIA's BatchNorm in place of BatchNorm and Scale.
    """
    chains = []
    for i, layer in enumerate(trial.net.layers):
        follower = _sole_reader(trial, layer)
        if follower is None or layer.name not in trial.context.stored or not _is_complete(trial, i):
            continue
        other = trial.net.layers[follower]
        if other.type != LAYERS[layer.type].completed_by or other.name in trial.context.stored:
            continue
        chains.append((i, follower))
    return without_followers(trial, chains)


def _sole_reader(trial: TrialNet, layer: LayerDef) -> int | None:
    readers = [i for value in layer.top_values for i in trial.readers.get(value, ())]
    return readers[0] if len(readers) == 1 and len(layer.tops) == 1 else None


def _is_complete(trial: TrialNet, index: int) -> bool:
    """Whether a layer that others of its type need another one for has all that is meant."""
    kind = LAYERS.get(trial.net.layers[index].type)
    layer, bottoms = trial.layers[index], trial.bottoms(index)
    if kind is None or not kind.completed_by or index in trial.misfits or layer is None or bottoms is None:
        return False
    return "scale" in layer.weight_shapes(bottoms)


def _is_completed(trial: TrialNet, layer: LayerDef) -> bool:
    readers = {trial.net.layers[i].type for value in layer.top_values for i in trial.readers.get(value, ())}
    return LAYERS[layer.type].completed_by in readers


def _fitting(trial: TrialNet, index: int, name: str) -> LayerParameter | None:
    """The completing layer under a name of the file's, where its blobs there fit it after layer `index`."""
    layer, stored = trial.net.layers[index], stored_shapes(trial.context.stored[name])
    shape = trial.shapes.get(layer.top_values[0]) if len(layer.top_values) == 1 else None
    if shape is None:
        return None
    kind, top = LAYERS[LAYERS[layer.type].completed_by], layer.tops[0]
    proto = LayerParameter(name=name, type=LAYERS[layer.type].completed_by, bottom=[top], top=[top])
    companion = _after(layer, proto)
    for settings in kind.implied_settings(companion, [shape], stored):
        companion = with_settings(companion, settings)
    _, _, trouble = trial.evaluate(index, companion, None, {})
    return companion.proto if trouble is None and len(stored) > 0 else None


def _after(layer: LayerDef, proto: LayerParameter) -> LayerDef:
    """A layer that reads and overwrites what another one makes."""
    tops, values = layer.tops, layer.top_values
    return LayerDef(
        proto.name, proto.type, tops, tops, values, values, proto, layer.phase, layer.folders, extended=layer.extended
    )


def _of_reference(reference: TrialNet | None, norm: LayerDef, options: Mapping[str, LayerParameter]) -> str | None:
    """Which of the file's layers reads, in the file's own net, what the layer of this name makes there."""
    if reference is None:
        return None
    layers = {layer.name: layer for layer in reference.net.layers}
    theirs = layers.get(norm.name)
    for value in theirs.top_values if theirs is not None else ():
        for i in reference.readers.get(value, ()):
            reader = reference.net.layers[i]
            if reader.name in options and reader.type == options[reader.name].type:
                return reader.name
    return None


def _by_name(trial: TrialNet, norm: str, options: Mapping[str, LayerParameter]) -> str | None:
    """The layer of a name that differs in words like `bn` and `scale` only; else the one that follows in the file."""
    alike = [name for name in options if _bare(name) == _bare(norm)]
    return alike[0] if len(alike) == 1 else next((name for name in _next(trial, norm) if name in options), None)


def _bare(name: str) -> str:
    return re.sub(r"[^0-9a-z]", "", _WORDS.sub("", name.lower()))


def _next(trial: TrialNet, name: str) -> Iterator[str]:
    """The layer with blobs that comes next in the file."""
    names = [other for other, layer in trial.context.stored.items() if layer.blobs]
    if name in names:
        yield from names[names.index(name) + 1 :][:1]
