"""The weights of a net for pictures whose channels come in reverse order: RGB for BGR, and the reverse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from caffeconv.caffe_format.caffemodel import StoredLayer, WeightsFile
from caffeconv.errors import CaffeconvError
from caffeconv.inspection.diagnose.trial_net import TrialNet, stored_shape
from caffeconv.inspection.diagnose.weights_fix import ComputedBlob, WeightsFix
from caffeconv.layers import LAYERS
from caffeconv.tensor.param_values import Blob
from caffeconv.tensor.shape import FloatArray, Shape, count

COLOURS = 3


def with_reversed_channels(trial: TrialNet, fix: WeightsFix) -> WeightsFix:
    """The weights that make the net compute for pictures with channels in reverse order what it did for the others.

    The filters of the first layers are turned round, and what is kept for each channel before these. Raises
    CaffeconvError for a net that does something else with its pictures, or has none of three channels.
    """
    layers = {layer.name: layer for layer in fix.file.layers}
    ordered = _pictures(trial)
    changed: dict[str, StoredLayer] = {}
    changes = []
    for i, definition in enumerate(trial.net.layers):
        if not ordered & set(definition.bottom_values):
            continue
        stored = layers.get(definition.name)
        blobs = [blob for blob in stored.blobs if blob is not None] if stored is not None else []
        if stored is None or not blobs:
            if _keeps_channels(trial, i):
                ordered |= set(definition.top_values)
            elif definition.top_values:
                raise CaffeconvError(
                    f"{definition.where}: it takes the pictures apart, so that turning filters round does not turn the "
                    "channels round; turn the pictures themselves round"
                )
            continue
        is_each = all(count(blob.shape) in (1, COLOURS) for blob in blobs)
        if is_each:
            ordered |= set(definition.top_values)
        fitted = (
            [_reversed(trial, i, blob) for blob in blobs] if is_each else [_reversed(trial, i, blobs[0]), *blobs[1:]]
        )
        changed[definition.name] = replace(stored, blobs=tuple(fitted))
        what = "what it has for each channel" if is_each else "filters"
        changes.append(
            f"{definition.name}: {what} in reverse order of the picture's channels, RGB for BGR or the reverse"
        )
    if not changes:
        raise CaffeconvError(
            "no layer takes weights and reads pictures of three channels; there is no order to reverse"
        )
    file: WeightsFile = replace(
        fix.file, layers=tuple(changed.get(layer.name, layer) for layer in fix.file.layers), net_bytes=b""
    )
    return WeightsFix((*fix.changes, *changes), file, keeps_numbers=False)


def _pictures(trial: TrialNet) -> set[str]:
    """The values of inputs that are pictures of three channels."""
    inputs = (layer for layer in trial.net.layers if not layer.bottoms)
    shapes = {value: trial.shapes.get(value, ()) for layer in inputs for value in layer.top_values}
    return {value for value, shape in shapes.items() if len(shape) == 4 and shape[1] == COLOURS}


def _keeps_channels(trial: TrialNet, index: int) -> bool:
    """Whether a layer without weights leaves each channel where it is."""
    definition, layer = trial.net.layers[index], trial.layers[index]
    if layer is None or len(definition.bottom_values) != 1:
        return False
    shapes = [trial.shapes.get(value, ()) for value in definition.top_values]
    is_alike = all(len(shape) == 4 and shape[1] == COLOURS for shape in shapes)
    return is_alike and (layer.is_pointwise or bool(LAYERS[definition.type].size_settings) or not definition.top_values)


def _reversed(trial: TrialNet, index: int, blob: Blob) -> Blob:
    """A blob with the entries of the three channels in reverse order, wherever its layer has these."""
    shape = stored_shape(blob.shape, legacy=blob.legacy)
    view = _channels_apart(trial, index, shape)
    if view is None:
        raise CaffeconvError(
            f"{trial.net.layers[index].where}: its weight {shape} has no axis of three channels to reverse"
        )
    axis, apart = view
    return ComputedBlob(shape, _turned(blob, apart, axis))


def _channels_apart(trial: TrialNet, index: int, shape: Shape) -> tuple[int, Sequence[int]] | None:
    """The axis of the channels, and a shape of the same values that has it."""
    definition = trial.net.layers[index]
    kind = LAYERS[definition.type]
    if count(shape) in (1, COLOURS):
        return (0, shape) if shape == (COLOURS,) else (0, (count(shape),))
    if len(shape) > 2 and shape[1] == COLOURS and not kind.transposed:
        return 1, shape
    if (
        len(shape) == 2
        and kind.is_fully_connected
        and shape[1] % COLOURS == 0
        and not getattr(trial.layers[index], "transpose", False)
    ):
        return 1, (shape[0], COLOURS, shape[1] // COLOURS)
    return None


def _turned(blob: Blob, apart: Sequence[int], axis: int) -> Callable[[], FloatArray]:
    return lambda: np.flip(blob.array().reshape(apart), axis)
