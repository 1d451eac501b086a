"""Nets in which several layers stand in the place of one: the recipe for what Caffe's layer refuses to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from google.protobuf import text_format

from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.errors import LayerError
from caffeconv.inspection.diagnose.edit import LAYERS_INSTEAD, Edit
from caffeconv.inspection.diagnose.search import Cure
from caffeconv.inspection.diagnose.trial_net import TrialNet
from caffeconv.ir.definition import LayerDef, NetDef
from caffeconv.layers import LAYERS
from caffeconv.tensor.shape import unique_name


@dataclass(frozen=True)
class Rewriting:
    """A net's world with some layers replaced by others."""

    world: TrialNet
    edits: tuple[Edit, ...] = ()
    places: Mapping[int, int] = field(default_factory=dict)
    """Index in the net as it was → how many layers now stand there."""

    def cure(self, cure: Cure | None = None) -> Cure:
        """The replacing as a cure, along with another one of the net that it leads to."""
        if cure is None:
            return Cure(self.edits, self.world.net, 0.0, places=self.places)
        return replace(cure, edits=(*self.edits, *cure.edits), places=self.places)


def missing_bottoms(net: NetDef) -> list[tuple[int, int]]:
    """The bottoms that no layer above makes: (layer, bottom)."""
    values: set[str] = set()
    missing = []
    for i, layer in enumerate(net.layers):
        missing += [(i, j) for j, value in enumerate(layer.bottom_values) if value not in values]
        values.update(layer.top_values)
    return missing


def with_bottoms(world: TrialNet) -> Rewriting:
    """The world with every bottom that no layer makes taken to be the blob above of the likest name."""
    layers = list(world.net.layers)
    edits = []
    for i, j in missing_bottoms(world.net):
        layer = layers[i]
        known = {top: value for other in layers[:i] for top, value in zip(other.tops, other.top_values, strict=True)}
        near = difflib.get_close_matches(layer.bottoms[j], known, 1)
        if not near:
            continue
        proto = LayerParameter()
        proto.CopyFrom(layer.proto)
        proto.bottom[j] = near[0]
        values = (*layer.bottom_values[:j], known[near[0]], *layer.bottom_values[j + 1 :])
        layers[i] = replace(layer.with_proto(proto), bottoms=tuple(proto.bottom), bottom_values=values)
        edits.append(Edit(layer.name, i, {"bottom": layer.bottoms[j]}, {"bottom": near[0]}))
    if not edits:
        return Rewriting(world)
    return Rewriting(TrialNet.of(replace(world.net, layers=tuple(layers)), world.given), tuple(edits))


def with_recipes(before: Rewriting) -> Rewriting:
    """The world with every refused layer replaced for which its class knows a recipe."""
    world = before.world
    recipes = {}
    for i in world.troubles:
        protos = _recipe(world, i)
        if protos:
            recipes[i] = protos
    if not recipes:
        return before
    after = rewritten(world, recipes)
    return replace(after, edits=(*before.edits, *after.edits))


def _recipe(world: TrialNet, index: int) -> Sequence[LayerParameter]:
    definition, bottoms = world.net.layers[index], world.bottoms(index)
    kind = LAYERS.get(definition.type)
    if kind is None or not bottoms or world.troubles[index].stored or not kind.bottoms.fits(len(bottoms)):
        return ()
    try:
        return kind.in_place_of(definition, bottoms)
    except LayerError:
        return ()


def rewritten(world: TrialNet, recipes: Mapping[int, Sequence[LayerParameter]]) -> Rewriting:
    """The world of the net with other layers in the place of some: index → the layers there."""
    layers: list[LayerDef] = []
    taken = {value for layer in world.net.layers for value in layer.top_values}
    for i, layer in enumerate(world.net.layers):
        layers += _in_place(layer, recipes[i], taken) if i in recipes else [layer]
    net: NetDef = replace(world.net, layers=tuple(layers))
    names = {i: world.net.layers[i].name for i in recipes}
    edits = tuple(
        Edit(names[i], i, {LAYERS_INSTEAD: _text([world.net.layers[i].proto])}, {LAYERS_INSTEAD: _text(recipes[i])})
        for i in sorted(recipes)
    )
    return Rewriting(TrialNet.of(net, world.given), edits, {i: len(protos) for i, protos in recipes.items()})


def _in_place(layer: LayerDef, protos: Sequence[LayerParameter], taken: set[str]) -> Iterator[LayerDef]:
    """The layers, whose first ones read what the layer read, and whose last ones make what it made."""
    current = dict(zip(layer.bottoms, layer.bottom_values, strict=True))
    last = {top: i for i, proto in enumerate(protos) for top in proto.top}
    own = dict(zip(layer.tops, layer.top_values, strict=True))
    for i, proto in enumerate(protos):
        bottoms = tuple(current[bottom] for bottom in proto.bottom)
        tops = tuple(own[top] if top in own and last[top] == i else unique_name(top, taken, "/") for top in proto.top)
        current.update(zip(proto.top, tops, strict=True))
        yield replace(
            layer.with_proto(proto), name=proto.name, bottoms=tuple(proto.bottom), tops=tuple(proto.top),
            bottom_values=bottoms, top_values=tops,
        )  # fmt: skip


def _text(protos: Iterable[LayerParameter]) -> str:
    """The layers as prototxt, one a line."""
    return "\n".join(f"       layer {{ {text_format.MessageToString(proto, as_one_line=True)} }}" for proto in protos)
