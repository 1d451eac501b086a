"""Several labels in one blob, each for a loss of its own: a Slice gives every loss the one that it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.inspection.diagnose.insertions import Rewriting, rewritten
from caffeconv.inspection.diagnose.trial_net import TrialNet
from caffeconv.layers import LAYERS
from caffeconv.tensor.shape import unique_name

LABELS = 1
"""The bottom that a loss or an accuracy reads its labels from, and the axis along which these lie beside each other."""


def with_labels_sliced(before: Rewriting) -> Rewriting | None:
    """The net with a Slice before losses that all refuse one blob of labels, which has one for each of them; None where
    that mends not all of it."""
    trial = before.trial
    if before.edits:
        return None
    recipes: dict[int, Sequence[LayerParameter]] = {}
    for value, readers in _refused_labels(trial).items():
        scores = list(dict.fromkeys(trial.net.layers[i].bottom_values[0] for i in readers))
        if len(scores) == trial.shapes[value][LABELS] > 1:
            recipes.update(_sliced(trial, readers, scores))
    if not recipes:
        return None
    after = rewritten(trial, recipes)
    return None if after.trial.misfits else after


def _refused_labels(trial: TrialNet) -> Mapping[str, list[int]]:
    """Value → the layers that refuse it as their labels, in the net's order."""
    readers: dict[str, list[int]] = {}
    for i, misfit in sorted(trial.misfits.items()):
        layer, kind = trial.net.layers[i], LAYERS.get(trial.net.layers[i].type)
        takes_labels = kind is not None and LABELS in kind.label_bottoms and len(layer.bottoms) > LABELS
        if takes_labels and not misfit.stored and len(trial.shapes.get(layer.bottom_values[LABELS], ())) > LABELS:
            readers.setdefault(layer.bottom_values[LABELS], []).append(i)
    return readers


def _sliced(
    trial: TrialNet, readers: Sequence[int], scores: Sequence[str]
) -> Iterator[tuple[int, Sequence[LayerParameter]]]:
    """The layers in the place of each reader: the Slice before the first one, and the layer with a label of its own."""
    label = trial.net.layers[readers[0]].bottoms[LABELS]
    blobs = {top for layer in trial.net.layers for top in layer.tops}
    tops = [unique_name(f"{label}_{i}", blobs) for i in range(1, len(scores) + 1)]
    name = unique_name(f"slice_{label}", {layer.name for layer in trial.net.layers})
    piece = LayerParameter(name=name, type="Slice", bottom=[label], top=tops)
    piece.slice_param.axis = LABELS
    for i in readers:
        layer, proto = trial.net.layers[i], LayerParameter()
        proto.CopyFrom(layer.proto)
        proto.bottom[LABELS] = tops[scores.index(layer.bottom_values[0])]
        yield i, (piece, proto) if i == readers[0] else (proto,)
