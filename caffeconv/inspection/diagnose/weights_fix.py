"""The weights file in another form, with which the net is whole as it is: names, axes and blobs as the net has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from caffeconv.caffe_format.caffemodel import StoredLayer, WeightsFile
from caffeconv.inspection.diagnose.trial_net import Misfit, TrialNet, stored_shape
from caffeconv.ir.definition import LayerDef
from caffeconv.layers import LAYERS
from caffeconv.tensor.param_values import Blob
from caffeconv.tensor.shape import FloatArray, Shape, count, format_shape

_STATISTICS = ("mean", "variance", "scale_factor")
_AFFINE = ("scale", "bias")
_NVIDIA = (*_STATISTICS, *_AFFINE)
_NVIDIA_015 = (*_AFFINE, "mean", "variance", "counter")


@dataclass(frozen=True)
class WeightsFix:
    """Weights that fit the net as it is, and what was done to those of the file."""

    changes: tuple[str, ...]
    """One line each: ``fc6: 1×1×4×6 written as 4×6``."""
    file: WeightsFile
    """The layers in the new form, under the path of the old file."""
    keeps_numbers: bool = True
    """Whether the net computes with them what the file was trained to; False for another number of input channels."""


@dataclass(frozen=True, eq=False)
class ComputedBlob:
    """A blob that is worked out of others when its values are asked for."""

    shape: Shape
    compute: Callable[[], FloatArray]
    """The values, float32, of that shape or flat."""
    legacy: bool = False
    offset: int | None = None

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    def array(self) -> FloatArray:
        """The values, 1-D float32."""
        return np.ascontiguousarray(self.compute(), np.float32).ravel()

    def blocks(self) -> Iterator[FloatArray]:
        """All values as one block."""
        yield self.array()


@dataclass(frozen=True)
class _Change:
    """What became of one layer of the file: the layers that stand in its place, and what was done."""

    layers: tuple[StoredLayer, ...]
    text: str
    keeps_numbers: bool = True


def find_weights_fix(trial: TrialNet, file: WeightsFile, renames: Mapping[int, LayerDef]) -> WeightsFix | None:
    """The file in the form that the net asks for; None where nothing that is known to be the same does that.

    `renames`: layers of the net under the names that the file has for them.
    """
    own_names = {renamed.name: trial.net.layers[i].name for i, renamed in renames.items()}
    misfits = {trial.net.layers[i].name: misfit for i, misfit in trial.misfits.items()}
    if any(not misfit.stored for misfit in misfits.values()) or not (misfits or own_names):
        return None
    used: set[str] = set()
    layers: list[StoredLayer] = []
    changes: list[str] = []
    keeps_numbers = True
    for layer in file.layers:
        if layer.name in used:
            continue
        if layer.name in own_names:
            layers.append(replace(layer, name=own_names[layer.name]))
            changes.append(f"'{layer.name}' named '{own_names[layer.name]}'")
        elif layer.name in misfits:
            change = _fitted(trial, misfits[layer.name], layer, file)
            if change is None:
                return None
            layers += change.layers
            used |= {each.name for each in change.layers} | _consumed(trial, misfits[layer.name], layer, file)
            changes.append(f"{layer.name}: {change.text}")
            keeps_numbers &= change.keeps_numbers
        else:
            layers.append(layer)
    return WeightsFix(tuple(changes), replace(file, layers=tuple(layers), net_bytes=b""), keeps_numbers)


def _target(trial: TrialNet, index: int) -> Mapping[str, Shape]:
    layer, bottoms = trial.layers[index], trial.bottoms(index)
    return layer.weight_shapes(bottoms) if layer is not None and bottoms is not None else {}


def _fitted(trial: TrialNet, misfit: Misfit, layer: StoredLayer, file: WeightsFile) -> _Change | None:
    target = _target(trial, misfit.index)
    blobs = [blob for blob in layer.blobs if blob is not None]
    if {"mean", "variance"} <= target.keys():
        return _normalization(trial, misfit, layer, file)
    if len(blobs) == len(target) - 1 and list(target)[-1] == "bias":
        shape = target["bias"]
        blobs.append(ComputedBlob(shape, lambda: np.zeros(shape, np.float32)))
    if len(blobs) != len(target):
        return None
    texts, fitted, keeps_numbers = [], [], True
    group = _group(trial, misfit.index)
    for shape, blob in zip(target.values(), blobs, strict=True):
        outcome = _reshaped(shape, blob, group, is_first=not _has_weights_before(trial, misfit.index))
        if outcome is None:
            return None
        new, text, is_same = outcome
        fitted.append(new)
        texts += [text] if text else []
        keeps_numbers &= is_same
    if len(layer.blobs) < len(blobs):
        texts.append("a bias of zeros added")
    return _Change((replace(layer, blobs=tuple(fitted)),), ", ".join(texts), keeps_numbers)


def _group(trial: TrialNet, index: int) -> int:
    return int(getattr(trial.layers[index], "group", 1))


def _has_weights_before(trial: TrialNet, index: int) -> bool:
    return any(_target(trial, i) for i in trial.ancestors(trial.net.layers[index].bottom_values))


# -- one blob ----------------------------------------------------------------------------------------------------------


def _reshaped(shape: Shape, blob: Blob, group: int, *, is_first: bool) -> tuple[Blob, str, bool] | None:
    """The blob in that shape, what was done, and whether the layer computes the same with it; None where nothing does."""
    old = stored_shape(blob.shape, legacy=blob.legacy)
    if old == shape:
        return ComputedBlob(shape, blob.array), "", True
    if len(old) != len(shape) and count(old) == count(shape) and _bare(old)[:1] == _bare(shape)[:1]:
        return ComputedBlob(shape, blob.array), f"{format_shape(old)} written as {format_shape(shape)}", True
    if len(old) == len(shape) == 2 and old == shape[::-1]:
        text = f"{format_shape(old)} transposed to {format_shape(shape)}"
        return ComputedBlob(shape, lambda: blob.array().reshape(old).T), text, True
    if old in ((), (1,)) and len(shape) == 1:
        return (
            ComputedBlob(shape, lambda: np.full(shape, blob.array()[0], np.float32)),
            "one number for all channels",
            True,
        )
    if len(old) != len(shape) or len(shape) < 3 or old[0] != shape[0] or old[2:] != shape[2:]:
        return None
    if is_first and group == 1 and {old[1], shape[1]} == {1, 3}:
        return _other_channels(shape, old, blob)
    if group == 1 and shape[1] % old[1] == 0 and old[0] % (shape[1] // old[1]) == 0:
        groups = shape[1] // old[1]
        text = f"filters of {groups} groups filled up with zeros: {format_shape(old)} to {format_shape(shape)}"
        return ComputedBlob(shape, lambda: _dense(blob.array().reshape(old), groups)), text, True
    return None


def _bare(shape: Shape) -> Shape:
    """The shape without ones in front."""
    return shape[next((i for i, size in enumerate(shape) if size != 1), len(shape)) :]


def _other_channels(shape: Shape, old: Shape, blob: Blob) -> tuple[Blob, str, bool]:
    """Filters for grey pictures of those for colour: their sum over the channels; the reverse: a third for each."""
    if shape[1] == 1:
        text = "the filters' three channels added up, as if all three were the grey picture"
        return ComputedBlob(shape, lambda: blob.array().reshape(old).sum(axis=1, keepdims=True)), text, False
    text = "a third of the grey filter for each channel, as if the mean of the three were the grey picture"
    return ComputedBlob(shape, lambda: np.repeat(blob.array().reshape(old) / 3, 3, axis=1)), text, False


def _dense(weight: FloatArray, groups: int) -> FloatArray:
    """N×C/G×… → N×C×…, zero where a filter of one group meets the channels of another."""
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    dense = np.zeros((weight.shape[0], inputs * groups, *weight.shape[2:]), np.float32)
    for g in range(groups):
        rows = slice(g * outputs, (g + 1) * outputs)
        dense[rows, g * inputs : (g + 1) * inputs] = weight[rows]
    return dense


# -- normalization -----------------------------------------------------------------------------------------------------


def _normalization(trial: TrialNet, misfit: Misfit, layer: StoredLayer, file: WeightsFile) -> _Change | None:
    """Statistics with scale and bias in one layer, as NVIDIA has them, against a Scale layer of its own, as BVLC has."""
    target, blobs = _target(trial, misfit.index), [blob for blob in layer.blobs if blob is not None]
    if len(blobs) == len(_STATISTICS) and tuple(target) in (_NVIDIA, _NVIDIA_015):
        affine = _affine_layer(trial, misfit.index, file)
        if affine is None:
            return None
        sources = {**_unscaled(blobs), **dict(zip(_AFFINE, affine.blobs, strict=False))}
        return _Change((_assembled(layer, target, sources),), f"scale and bias of '{affine.name}' put into it")
    if len(blobs) == len(_NVIDIA) and tuple(target) == _STATISTICS:
        follower = _follower(trial, misfit.index)
        if follower is None:
            return None
        names = _NVIDIA_015 if _is_scale_first(blobs) else _NVIDIA
        sources = dict(zip(names, blobs, strict=True))
        sources["scale_factor"] = ComputedBlob((1,), lambda: np.ones(1, np.float32))
        own = _target(trial, follower)
        if not own or len(own) > 2:
            return None
        scale = StoredLayer(trial.net.layers[follower].name, trial.net.layers[follower].type, ())
        scale = _assembled(scale, own, dict(zip(own, (sources[name] for name in _AFFINE), strict=False)))
        return _Change((_assembled(layer, target, sources), scale), f"scale and bias written as layer '{scale.name}'")
    return None


def _is_scale_first(blobs: Sequence[Blob]) -> bool:
    """Whether five blobs are in the order of NVIDIA's 0.15, whose counter of one number stands last."""
    return blobs[-1].count == 1 and blobs[2].count != 1


def _unscaled(blobs: Sequence[Blob]) -> dict[str, Blob]:
    """BVLC's mean and variance divided by their factor, which NVIDIA's rule leaves alone."""

    def divided(blob: Blob) -> Blob:
        def compute() -> FloatArray:
            factor = blobs[2].array()[0]
            # caffe: scale factor 0 means "no statistics yet"
            values: FloatArray = blob.array() * (np.float32(0) if factor == 0 else np.float32(1) / factor)
            return values

        return ComputedBlob(blob.shape, compute)

    one = ComputedBlob((1,), lambda: np.ones(1, np.float32))
    return {"mean": divided(blobs[0]), "variance": divided(blobs[1]), "scale_factor": one, "counter": one}


def _assembled(layer: StoredLayer, target: Mapping[str, Shape], sources: Mapping[str, Blob | None]) -> StoredLayer:
    """The layer with its blobs by name, zeros where the sources lack one."""
    blobs = []
    for name, shape in target.items():
        source = sources.get(name)
        blobs.append(ComputedBlob(shape, source.array if source is not None else _zeros(shape)))
    return replace(layer, blobs=tuple(blobs))


def _zeros(shape: Shape) -> Callable[[], FloatArray]:
    return lambda: np.zeros(shape, np.float32)


def _affine_layer(trial: TrialNet, index: int, file: WeightsFile) -> StoredLayer | None:
    """The Scale layer that follows a BatchNorm in the file, and that the net does not have."""
    own_names = {layer.name for layer in trial.net.layers}
    name, channels = trial.net.layers[index].name, _target(trial, index).get("mean", ())
    learning = [layer for layer in file.layers if any(blob is not None for blob in layer.blobs)]
    position = next((i for i, layer in enumerate(learning) if layer.name == name), len(learning))
    kind = LAYERS[LAYERS[trial.net.layers[index].type].completed_by]
    for layer in learning[position + 1 : position + 2]:
        blobs = [blob for blob in layer.blobs if blob is not None]
        fits = 1 <= len(blobs) <= 2 and all(blob.count == count(channels) for blob in blobs)
        if layer.name not in own_names and fits and LAYERS.get(layer.type, kind) is kind:
            return layer
    return None


def _consumed(trial: TrialNet, misfit: Misfit, layer: StoredLayer, file: WeightsFile) -> set[str]:
    """The file's layer that went into another one."""
    if len(layer.blobs) != len(_STATISTICS) or "scale" not in _target(trial, misfit.index):
        return set()
    affine = _affine_layer(trial, misfit.index, file)
    return {affine.name} if affine is not None else set()


def _follower(trial: TrialNet, index: int) -> int | None:
    """The layer that completes a BatchNorm in the net and takes no weights of the file."""
    definition = trial.net.layers[index]
    for value in definition.top_values:
        for i in trial.readers.get(value, ()):
            reader = trial.net.layers[i]
            if reader.type == LAYERS[definition.type].completed_by and reader.name not in trial.context.stored:
                return i
    return None
