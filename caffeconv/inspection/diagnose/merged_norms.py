"""BatchNorms that one side has and the other has merged into the convolution before them: weights for deployment in a net as
it was trained, and the reverse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.inspection.diagnose.insertions import Rewriting, rewritten, without_followers
from caffeconv.inspection.diagnose.trial_net import TrialNet, stored_shapes
from caffeconv.ir.definition import LayerDef
from caffeconv.layers import LAYERS

NORM = "BatchNorm"


def without_merged(trial: TrialNet) -> Rewriting:
    """The net without its BatchNorms, and the Scales after them, where the file has none of these: all, or none of them."""
    stored = trial.context.stored
    norms = [i for i, layer in enumerate(trial.net.layers) if _completed_by(layer.type)]
    chains = [_chain(trial, i) for i in norms]
    if not chains or not all(chains) or any(_completed_by(layer.type) for layer in stored.values()):
        return Rewriting(trial)
    return without_followers(trial, chains)


def _completed_by(layer_type: str) -> str:
    """The type that completes one that only normalizes; empty for any other."""
    kind = LAYERS.get(layer_type)
    return kind.completed_by if kind is not None else ""


def _chain(trial: TrialNet, norm: int) -> list[int]:
    """The layer with stored weights and a bias that a BatchNorm alone reads, the BatchNorm, and the Scale that alone reads it;
    empty where it is otherwise, or the file has one of the latter."""
    layer, stored = trial.net.layers[norm], trial.context.stored
    maker = trial.makers.get(layer.bottom_values[0]) if layer.bottom_values else None
    if maker is None or layer.name in stored or trial.readers.get(layer.bottom_values[0]) != (norm,):
        return []
    before = trial.net.layers[maker]
    if len(before.tops) != 1 or before.name not in stored or len(stored[before.name].blobs) < 2:
        return []
    readers = trial.readers.get(layer.top_values[0], ())
    is_scaled = len(readers) == 1 and _completed_by(layer.type) == trial.net.layers[readers[0]].type
    if is_scaled and trial.net.layers[readers[0]].name in stored:
        return []
    return [maker, norm, *(readers if is_scaled else ())]


def with_split(trial: TrialNet) -> Rewriting:
    """The net with the BatchNorms and Scales that only the file has, each behind what it follows there: all, or none."""
    names = {layer.name: i for i, layer in enumerate(trial.net.layers)}
    recipes: dict[int, list[LayerParameter]] = {}
    last: int | None = None
    for name, stored in trial.context.stored.items():
        if name in names or not stored.blobs:
            last = names.get(name, last)
            continue
        proto = _spare(trial, last, name, stored.type, recipes)
        if proto is None or last is None:
            return Rewriting(trial)
        recipes.setdefault(last, [trial.net.layers[last].proto]).append(proto)
    return rewritten(trial, recipes) if recipes else Rewriting(trial)


def _spare(
    trial: TrialNet, after: int | None, name: str, kind: str, recipes: dict[int, list[LayerParameter]]
) -> LayerParameter | None:
    """A BatchNorm of the file behind a layer with as many channels, or the Scale behind that BatchNorm; else None."""
    shapes = stored_shapes(trial.context.stored[name])
    layer = trial.net.layers[after] if after is not None else None
    channels = trial.shapes.get(layer.top_values[0], ())[1:2] if layer is not None and len(layer.tops) == 1 else ()
    is_first = after not in recipes
    if layer is None or not channels or any(_completed_by(reader.type) for reader in _readers(trial, layer)):
        return None
    wanted = NORM if is_first else _completed_by(NORM)
    if kind not in (wanted, ""):  # Caffe's HDF5 has no types
        return None
    proto = LayerParameter(name=name, type=wanted, bottom=[layer.tops[0]], top=[layer.tops[0]])
    if is_first and shapes == (channels, channels, (1,)):
        return proto
    if not is_first and shapes in ((channels,), (channels, channels)):
        proto.scale_param.bias_term = len(shapes) > 1
        return proto
    return None


def _readers(trial: TrialNet, layer: LayerDef) -> Iterator[LayerDef]:
    indices: Sequence[int] = trial.readers.get(layer.top_values[0], ())
    yield from (trial.net.layers[i] for i in indices)
