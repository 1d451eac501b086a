"""Nets in which several layers stand in the place of one: the recipe for what Caffe's layer refuses to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from google.protobuf import text_format

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.errors import LayerError, close_names
from caffeconv.inspection.diagnose.edit import LAYERS_INSTEAD, Edit
from caffeconv.inspection.diagnose.search import Cure
from caffeconv.inspection.diagnose.trial_net import TrialNet
from caffeconv.ir.definition import LayerDef, NetDef
from caffeconv.ir.layer import Setting
from caffeconv.layers import LAYERS
from caffeconv.tensor.shape import unique_name


@dataclass(frozen=True)
class Rewriting:
    """A trial net with some layers replaced by others."""

    trial: TrialNet
    edits: tuple[Edit, ...] = ()
    layer_counts: Mapping[int, int] = field(default_factory=dict)
    """Index in the net as it was → how many layers now stand there."""

    def cure(self, cure: Cure | None = None) -> Cure:
        """The replacing as a cure, along with another one of the net that it leads to."""
        if cure is None:
            return Cure(self.edits, self.trial.net, 0.0, layer_counts=self.layer_counts)
        return replace(cure, edits=(*self.edits, *cure.edits), layer_counts=self.layer_counts or cure.layer_counts)


def missing_bottoms(net: NetDef) -> list[tuple[int, int]]:
    """The bottoms that no layer above makes: (layer, bottom)."""
    values: set[str] = set()
    bottoms = []
    for i, layer in enumerate(net.layers):
        bottoms += [(i, j) for j, value in enumerate(layer.bottom_values) if value not in values]
        values.update(layer.top_values)
    return bottoms


def with_bottoms(trial: TrialNet) -> Rewriting:
    """The trial with every bottom that no layer makes taken to be the blob above of the likest name, or taken out where
    the layer's type has one bottom less: a Softmax with the label of the loss that it replaced."""
    layers = list(trial.net.layers)
    edits = []
    shortened: set[int] = set()
    for i, j in missing_bottoms(trial.net):
        layer = layers[i]
        if i in shortened:  # its bottoms have other places now; the next round sees to them
            continue
        if _is_one_too_many(layer) and layer is trial.net.layers[i]:
            layers[i], edit = _without_bottom(i, layer, j)
            shortened.add(i)
            edits.append(edit)
            continue
        values_by_name = {
            top: value for other in layers[:i] for top, value in zip(other.tops, other.top_values, strict=True)
        }
        matches = close_names(layer.bottoms[j], list(values_by_name))
        if not matches:
            continue
        proto = LayerParameter()
        proto.CopyFrom(layer.proto)
        proto.bottom[j] = matches[0]
        values = (*layer.bottom_values[:j], values_by_name[matches[0]], *layer.bottom_values[j + 1 :])
        layers[i] = replace(layer.with_proto(proto), bottoms=tuple(proto.bottom), bottom_values=values)
        edits.append(Edit(layer.name, i, {"bottom": layer.bottoms[j]}, {"bottom": matches[0]}))
    if not edits:
        return Rewriting(trial)
    return Rewriting(TrialNet.of(replace(trial.net, layers=tuple(layers)), trial.context), tuple(edits))


def _is_one_too_many(layer: LayerDef) -> bool:
    """Whether the layer has one bottom more than its type takes."""
    kind, number = LAYERS.get(layer.type), len(layer.bottoms)
    return kind is not None and number > 1 and not kind.bottoms.fits(number) and kind.bottoms.fits(number - 1)


def _without_bottom(index: int, layer: LayerDef, position: int) -> tuple[LayerDef, Edit]:
    """The layer with one bottom less, and with a top of its own name where it has none but needs one, as no loss does."""
    proto = LayerParameter()
    proto.CopyFrom(layer.proto)
    del proto.bottom[position]
    values = (*layer.bottom_values[:position], *layer.bottom_values[position + 1 :])
    after = replace(layer.with_proto(proto), bottoms=tuple(proto.bottom), bottom_values=values)
    was: dict[str, Setting | str] = {"bottom": layer.bottoms[position]}
    now: dict[str, Setting | str] = {"bottom": ()}
    if not layer.tops and not LAYERS[layer.type].tops.fits(0):
        proto.top.append(layer.name)
        after = replace(after.with_proto(proto), tops=(layer.name,), top_values=(layer.name,))
        was, now = {**was, "top": ()}, {**now, "top": layer.name}
    return after, Edit(layer.name, index, was, now)


def with_recipes(before: Rewriting) -> Rewriting:
    """The trial with every refused layer replaced for which its class knows a recipe."""
    trial = before.trial
    recipes = {}
    for i in trial.misfits:
        protos = _recipe(trial, i)
        if protos:
            recipes[i] = protos
    if not recipes:
        return before
    after = rewritten(trial, recipes)
    return replace(after, edits=(*before.edits, *after.edits))


def with_labels_made_over(before: Rewriting) -> Rewriting | None:
    """The net with layers that make the labels of its losses into what these take; None where that mends not all of it."""
    trial = before.trial
    recipes = {i: _label_recipe(trial, i) for i in trial.misfits}
    if before.edits or not recipes or not all(recipes.values()):
        return None
    after = rewritten(trial, recipes)
    return None if after.trial.misfits else after


def _label_recipe(trial: TrialNet, index: int) -> Sequence[LayerParameter]:
    definition, bottoms = trial.net.layers[index], trial.bottoms(index)
    kind = LAYERS.get(definition.type)
    if kind is None or not bottoms or trial.misfits[index].stored or not kind.bottoms.fits(len(bottoms)):
        return ()
    try:
        return kind.with_labels_made_over(definition, bottoms)
    except LayerError:
        return ()


def _recipe(trial: TrialNet, index: int) -> Sequence[LayerParameter]:
    definition, bottoms = trial.net.layers[index], trial.bottoms(index)
    kind = LAYERS.get(definition.type)
    if kind is None or not bottoms or trial.misfits[index].stored or not kind.bottoms.fits(len(bottoms)):
        return ()
    try:
        return kind.in_place_of(definition, bottoms)
    except LayerError:
        return ()


def rewritten(trial: TrialNet, recipes: Mapping[int, Sequence[LayerParameter]]) -> Rewriting:
    """The trial of the net with other layers in the place of some: index → the layers there."""
    layers: list[LayerDef] = []
    names = {value for layer in trial.net.layers for value in layer.top_values}
    new_values: dict[str, str] = {}
    for i, layer in enumerate(trial.net.layers):
        layers += _in_place(layer, recipes[i], names, new_values) if i in recipes else [layer]
    net: NetDef = replace(trial.net, layers=tuple(layers))
    edits = tuple(_edit(i, trial.net.layers[i], recipes[i]) for i in sorted(recipes))
    return Rewriting(TrialNet.of(net, trial.context), edits, {i: len(protos) for i, protos in recipes.items()})


def without_followers(trial: TrialNet, chains: Iterable[Sequence[int]]) -> Rewriting:
    """The net where the first layer of each chain makes what the last one made, without the others."""
    layers: dict[int, LayerDef] = {}
    edits: list[Edit] = []
    for maker, *followers in chains:
        layer, last = trial.net.layers[maker], trial.net.layers[followers[-1]]
        proto = LayerParameter()
        proto.CopyFrom(layer.proto)
        proto.top[:] = last.tops
        layers[maker] = replace(layer.with_proto(proto), tops=last.tops, top_values=last.top_values)
        if layer.tops != last.tops:
            edits.append(Edit(layer.name, maker, {"top": layer.tops[0]}, {"top": last.tops[0]}))
        for i in followers:
            text = layers_text([trial.net.layers[i].proto])
            edits.append(Edit(trial.net.layers[i].name, i, {LAYERS_INSTEAD: text}, {LAYERS_INSTEAD: ""}))
    removed = {edit.index: 0 for edit in edits if LAYERS_INSTEAD in edit.after}
    kept = tuple(layers.get(i, layer) for i, layer in enumerate(trial.net.layers) if i not in removed)
    return Rewriting(TrialNet.of(replace(trial.net, layers=kept), trial.context), tuple(edits), removed)


def _edit(index: int, layer: LayerDef, protos: Sequence[LayerParameter]) -> Edit:
    changes = [(a, b) for a, b in zip(layer.bottoms, protos[0].bottom, strict=False) if a != b] if protos else []
    if len(protos) == 1 and len(changes) == 1 and protos[0].type == layer.type:
        return Edit(layer.name, index, {"bottom": changes[0][0]}, {"bottom": changes[0][1]})
    was, now = layers_text([layer.proto]), layers_text(protos)
    return Edit(layer.name, index, {LAYERS_INSTEAD: was}, {LAYERS_INSTEAD: now})


def _in_place(
    layer: LayerDef, protos: Sequence[LayerParameter], names: set[str], new_values: dict[str, str]
) -> Iterator[LayerDef]:
    """The layers, whose first ones read what the layer read, and whose last ones make what it made.

    `new_values`: blobs that such layers made before, and the values that they hold; those made here are added.
    """
    current = {**new_values, **dict(zip(layer.bottoms, layer.bottom_values, strict=True))}
    last = {top: i for i, proto in enumerate(protos) for top in proto.top}
    own = dict(zip(layer.tops, layer.top_values, strict=True))
    for i, proto in enumerate(protos):
        bottoms = tuple(current[bottom] for bottom in proto.bottom)
        tops = tuple(own[top] if top in own and last[top] == i else unique_name(top, names, "/") for top in proto.top)
        current.update(zip(proto.top, tops, strict=True))
        new_values.update((top, value) for top, value in zip(proto.top, tops, strict=True) if top not in own)
        yield replace(
            layer.with_proto(proto), name=proto.name, bottoms=tuple(proto.bottom), tops=tuple(proto.top),
            bottom_values=bottoms, top_values=tops,
        )  # fmt: skip


def layers_text(protos: Iterable[LayerParameter]) -> str:
    """The layers as prototxt, one a line."""
    return "\n".join(f"       layer {{ {text_format.MessageToString(proto, as_one_line=True)} }}" for proto in protos)
