"""What is to be said of a layer in trouble: both sides, how the sizes came about, and the classic mistakes by name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from caffeconv.errors import Diagnostic, LayerError
from caffeconv.inspection.diagnose.candidates import ancestors
from caffeconv.inspection.diagnose.edit import picture_size, settings_of, type_words
from caffeconv.inspection.diagnose.search import Cure
from caffeconv.inspection.diagnose.size_trace import Link, Parting, chain, chain_lines, described, factorings, of_item
from caffeconv.inspection.diagnose.trial_net import Misfit, TrialNet
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Layer
from caffeconv.layers import LAYERS
from caffeconv.tensor.shape import Shape, count, format_shape

GREY_OR_COLOUR = {1: "1 channel (grey)", 3: "3 channels (colour)", 4: "4 channels (colour, alpha)"}


@dataclass(frozen=True)
class Comparison:
    """The net, the net inside the weights file where it carries one, and the cures that were found."""

    world: TrialNet
    reference: TrialNet | None
    cures: Sequence[Cure]


def misfit_words(sides: Comparison, trouble: Misfit) -> list[str]:
    """Both sides of a layer whose stored parameters do not fit, what that comes from, and what it is called."""
    world, definition = sides.world, sides.world.net.layers[trouble.index]
    layer, bottoms = world.layers[trouble.index], world.bottoms(trouble.index)
    if layer is None or bottoms is None or not bottoms:
        return []
    wanted = dict(layer.weight_shapes(bottoms))
    if trouble.stored == ((),):
        return []
    parting = _parting(sides, definition.bottom_values)
    links = chain(world, definition.bottom_values[0], parting.index if parting else None)
    theirs = _their_bottom(sides, definition.name)
    lines = list(_sides(layer, trouble.stored, wanted, bottoms[0], theirs, links))
    lines += _classics(sides, trouble, wanted, bottoms[0], theirs)
    if wanted and _depends_on_bottom(trouble, bottoms, wanted) and (len(links) > 1 or parting is not None):
        lines += ["how the net comes to it:", *chain_lines(links, parting, _remarks(sides, links))]
    return lines


def _their_bottom(sides: Comparison, name: str) -> Shape | None:
    """The shape that a layer of this name sees in the file's own net."""
    if sides.reference is None:
        return None
    for i, layer in enumerate(sides.reference.net.layers):
        if layer.name == name:
            bottoms = sides.reference.bottoms(i)
            return bottoms[0] if bottoms else None
    return None


def _depends_on_bottom(trouble: Misfit, bottoms: Sequence[Shape], wanted: dict[str, Shape]) -> bool:
    """Whether what differs is an axis that the bottom decides, rather than the layer's own fields."""
    for stored, shape in zip(trouble.stored, wanted.values(), strict=False):
        if len(stored) != len(shape):
            return False
        if len(shape) == 1 and stored != shape and bottoms[0][1:2] == shape and len(wanted) != 2:
            return True
        if len(shape) > 1 and stored[1] != shape[1] and stored != shape[::-1]:
            return True
    return False


# -- both sides --------------------------------------------------------------------------------------------------------


def _sides(
    layer: Layer, stored: Sequence[Shape], wanted: dict[str, Shape], bottom: Shape, theirs: Shape | None,
    links: list[Link],
) -> Iterator[str]:  # fmt: skip
    for i, (name, shape) in enumerate(wanted.items()):
        if i >= len(stored) or stored[i] == shape:
            continue
        axes = layer.param_axes.get(name, "")
        known = f" ({axes})" if axes else ""
        if len(shape) == 2 and len(stored[i]) == 2:
            column = 0 if getattr(layer, "transpose", False) else 1
            ours = f", {shape[column]} = {of_item(bottom)}" if len(bottom) > 2 else ""
            factors = _their_factors(stored[i][column], shape[column], bottom, theirs, links)
            yield f"file: {name} {format_shape(stored[i])}{known}{factors}"
            yield f"net:  {name} {format_shape(shape)}{ours}"
        elif len(shape) == len(stored[i]):
            yield f"file: {name} {format_shape(stored[i])}{known}"
            yield f"net:  {name} {format_shape(shape)}"
        else:
            yield f"file: {name} {format_shape(stored[i])}"
            yield f"net:  {name} {format_shape(shape)}{known}"
    for i in range(len(wanted), len(stored)):
        yield f"file: a blob more than the net has, {format_shape(stored[i])}"
    for name, shape in list(wanted.items())[len(stored) :]:
        yield f"net:  {name} {format_shape(shape)}, which the file does not have"


def _their_factors(number: int, ours: int, bottom: Shape, theirs: Shape | None, links: list[Link]) -> str:
    if theirs is not None and len(theirs) > 2 and count(theirs, 1) == number:
        return f", {number} = {of_item(theirs)} (channels × height × width) in the net that the file carries"
    if len(bottom) < 3 or number == ours:
        return ""
    possible = [format_shape(shape) for shape in factorings(number, links, bottom[1])]
    return f", {number} = {' or '.join(possible)} (channels × height × width)" if possible else f", {number} inputs"


# -- where the two nets part -------------------------------------------------------------------------------------------


def _remarks(sides: Comparison, links: list[Link]) -> dict[int, str]:
    """Of layers of the chain: all that they join, and that the file's net lacks them."""
    theirs = {layer.name for layer in sides.reference.net.layers} if sides.reference else None
    remarks = {}
    for link in links:
        facts = []
        if len(link.layer.bottoms) > 1:
            shapes = [sides.world.shapes[value] for value in link.layer.bottom_values]
            facts.append(
                "of " + ", ".join(f"{b} {of_item(s)}" for b, s in zip(link.layer.bottoms, shapes, strict=True))
            )
        if theirs is not None and link.layer.name not in theirs:
            facts.append("not in the file's net")
        if facts:
            remarks[link.index] = "; ".join(facts)
    return remarks


def _parting(sides: Comparison, values: Sequence[str]) -> Parting | None:
    """The first layer before these values that makes something else in the file's net; else the first that the cure
    edits."""
    world, reference = sides.world, sides.reference
    before = sorted(world.ancestors(values))
    theirs = {layer.name: layer for layer in reversed(reference.net.layers)} if reference else {}
    for i in before:
        other, mine = theirs.get(world.net.layers[i].name), _first_top(world, world.net.layers[i])
        shape = _first_top(reference, other) if reference is not None and other is not None else None
        if other is not None and shape is not None and mine is not None and shape[1:] != mine[1:]:
            return Parting(i, f"in the file's net {described(other)} makes {of_item(shape)}")
    edited = {edit.layer: edit for cure in sides.cures[:1] for edit in cure.edits}
    for i in before:
        layer = world.net.layers[i]
        if layer.name in edited:
            links = [link for link in chain(world, layer.top_values[0]) if link.index == i]
            by_size = edited[layer.name].after.keys() & {"kernel_size", "stride", "pad", "dilation", "round_mode"}
            return Parting(i, links[0].formula if by_size and links else f"mended by {edited[layer.name]}")
    return None


def _first_top(world: TrialNet, layer: LayerDef) -> Shape | None:
    return world.shapes.get(layer.top_values[0]) if layer.top_values else None


# -- the classics ------------------------------------------------------------------------------------------------------


def _classics(
    sides: Comparison, trouble: Misfit, wanted: dict[str, Shape], bottom: Shape, theirs: Shape | None
) -> Iterator[str]:
    definition = sides.world.net.layers[trouble.index]
    stored, shapes = trouble.stored, list(wanted.values())
    if len(stored) != len(shapes):
        yield from _count_words(definition.type, stored, shapes)
        return
    mine, other = shapes[0], stored[0]
    if len(other) > len(mine) and other == (1,) * (len(other) - len(mine)) + mine:
        yield (
            f"The same numbers, but the file gives their shape as {format_shape(other)}: ones in front were "
            "right in files of the "
            f"old form only (num, channels, height, width). Write the blob anew as {format_shape(mine)}; no prototxt mends it."
        )
    elif len(mine) == 2 and other == mine[::-1]:
        yield "The file's weight is the net's turned round, N×K against K×N: see `transpose`."
    elif len(mine) == 2 and len(other) == 2:
        yield from _product_words(mine, other, bottom, theirs, _resolution_words(sides))
    elif len(mine) >= 3 and len(other) == len(mine):
        yield from _convolution_words(sides, trouble, mine, other, bottom)
    elif len(mine) >= 3 and len(other) == 2:
        yield from _other_type_words(sides, trouble, "two axes", count(other) == count(mine))
    elif len(mine) == 2 and len(other) >= 3:
        yield from _other_type_words(sides, trouble, "more than two axes", count(other) == count(mine))
    elif len(mine) == len(other) == 1:
        yield f"The file's layer has {other[0]} channels, the net's {mine[0]}."


def _other_type_words(sides: Comparison, trouble: Misfit, axes: str, as_many: bool) -> Iterator[str]:
    """That the file's weight is one of another layer type, and how that layer would read."""
    definition, bottoms = sides.world.net.layers[trouble.index], sides.world.bottoms(trouble.index)
    kind = LAYERS[definition.type]
    for proto in kind.other_types(definition, bottoms or (), trouble.stored):
        same = " of as many numbers" if as_many else ""
        yield f"A weight{same} with {axes} is that of another layer type: {type_words(definition.with_proto(proto))}."


def _resolution_words(sides: Comparison) -> str:
    """That the weights want pictures of another size, where that is what mends the net; empty where it is not."""
    for cure in sides.cures[:1]:
        for edit in cure.edits if not cure.places else ():
            was, now = (picture_size(net.layers[edit.index]) for net in (sides.world.net, cure.net))
            if was and now and was != now:
                sizes = f"pictures of {format_shape(now)}, this net's are {format_shape(was)}: another input resolution"
                return f"The weights are for {sizes}." if cure.source else f"The weights would fit {sizes}, it seems."
    return ""


def _product_words(mine: Shape, other: Shape, bottom: Shape, theirs: Shape | None, resolution: str) -> Iterator[str]:
    if mine[1] == other[1]:
        yield (
            f"Only the number of outputs differs: {other[0]} in the file, {mine[0]} in the net. To fine-tune for "
            f"{mine[0]} classes, rename the layer; to use the file as it is, `num_output: {other[0]}`."
        )
    elif resolution:
        yield resolution
    elif theirs is not None and len(theirs) == len(bottom) == 4 and theirs[1] == bottom[1]:
        yield (
            f"As many channels ({bottom[1]}), but {format_shape(theirs[2:])} places there and {format_shape(bottom[2:])} here: "
            "a picture of another size, or another pad, stride or kernel_size before."
        )


def _convolution_words(sides: Comparison, trouble: Misfit, mine: Shape, other: Shape, bottom: Shape) -> Iterator[str]:
    definition = sides.world.net.layers[trouble.index]
    group = settings_of(definition).get("group", 1)
    transposed = LAYERS[definition.type].transposed
    if mine[2:] != other[2:]:
        yield f"The file's kernel is {format_shape(other[2:])}, the net's {format_shape(mine[2:])}."
    if mine[1] == other[1] or transposed:
        return
    channels = bottom[1]
    before = set(ancestors(sides.world, trouble.index))
    if before & sides.world.troubles.keys():
        yield f"The file's filters see {other[1]} channels each, the net's {mine[1]}; mend the layers before first."
        return
    if not _in_between(sides, trouble.index) and {other[1], mine[1]} <= GREY_OR_COLOUR.keys():
        yield f"The file's net takes pictures of {GREY_OR_COLOUR[other[1]]}, this net of {GREY_OR_COLOUR[mine[1]]}."
    elif (
        other[1]
        and channels
        and channels % other[1] == 0
        and isinstance(group, int)
        and other[0] % (channels // other[1]) == 0
    ):
        yield (
            f"The file's filters see {other[1]} of {channels} channels each, which is `group: {channels // other[1]}`; "
            f"the net has `group: {group}`."
        )
    else:
        needed = other[1] * (group if isinstance(group, int) else 1)
        yield f"The file's filters are for {needed} channels; the bottom has {channels}."


def _in_between(sides: Comparison, index: int) -> bool:
    """Whether a layer with parameters lies before this one."""
    links = chain(sides.world, sides.world.net.layers[index].bottom_values[0])
    return any(LAYERS[link.layer.type].channel_setting for link in links if link.layer.type in LAYERS)


def _count_words(kind: str, stored: Sequence[Shape], wanted: list[Shape]) -> Iterator[str]:
    if LAYERS[kind].param_axes.keys() >= {"mean", "scale"} and {len(stored), len(wanted)} == {3, 5}:
        more, less = ("file", "net") if len(stored) == 5 else ("net", "file")
        yield f"The {more}'s BatchNorm holds scale and bias too (NVIDIA's `scale_bias: true`), the {less}'s does not."
    elif len(stored) == len(wanted) + 1:
        yield "The file has a bias that the net lacks: `bias_term: true`."
    elif len(stored) + 1 == len(wanted):
        yield "The net has a bias that the file lacks: `bias_term: false`."


# -- shapes that do not go together ------------------------------------------------------------------------------------


def shape_words(sides: Comparison, trouble: Misfit) -> list[str]:
    """How the bottoms of a layer that cannot be built came to their sizes, where these do not agree."""
    world, definition = sides.world, sides.world.net.layers[trouble.index]
    bottoms = world.bottoms(trouble.index)
    kind = LAYERS.get(definition.type)
    if kind is not None and kind.fills_itself:
        return ["This is a net for training: `deploy=True` makes of it the net that is used afterwards."]
    return [*_refusal(world, trouble.index), *_how_bottoms_came(world, definition, bottoms or ())]


def _refusal(world: TrialNet, index: int) -> Sequence[str]:
    """What the layer itself says of bottoms that it refuses."""
    layer, bottoms = world.layers[index], world.bottoms(index)
    if layer is None or not bottoms or not layer.bottoms.fits(len(bottoms)):
        return ()
    try:
        return layer.why_refused(bottoms)
    except LayerError:
        return ()


def _how_bottoms_came(world: TrialNet, definition: LayerDef, bottoms: Sequence[Shape]) -> list[str]:
    """The layers that only one of the bottoms comes through, and what makes their sizes differ."""
    if definition.type not in LAYERS or len(bottoms) < 2 or len({bottom[1:] for bottom in bottoms}) < 2:
        return []
    chains = [chain(world, value) for value in definition.bottom_values]
    common = set.intersection(*({link.index for link in links} for links in chains))
    chains = [[link for link in links if link.index not in common] for links in chains]
    lines = []
    for blob, own in zip(definition.bottoms, chains, strict=True):
        if len(own) > 1 or (own and own[0].formula):
            lines += [f"how '{blob}' comes to {of_item(own[-1].shape)}:", *_formula_lines(own)]
    if len({bottom[2:] for bottom in bottoms}) > 1 and _nearly(bottoms):
        lines += _rounding_words(world, definition, chains)
    return lines


def _rounding_words(world: TrialNet, definition: LayerDef, chains: Sequence[list[Link]]) -> Iterator[str]:
    """Which branch was rounded up and which down; what coming down and up again does to a size."""
    up, down = (
        [blob for blob, own in zip(definition.bottoms, chains, strict=True) if any(word in i.formula for i in own)]
        for word in ("rounded up", "rounded down")
    )
    for blob, own in zip(definition.bottoms, chains, strict=True):
        steps = [link for link in own if link.formula]
        strides = [(max(_strides(link)), LAYERS[link.layer.type].transposed) for link in steps]
        into = next((link.index for link in steps), None)
        before = None if into is None else world.bottoms(into)
        shrunk = math.prod(stride for stride, upwards in strides if not upwards)
        if before and any(upwards for _, upwards in strides) and any(size % shrunk for size in before[0][2:]):
            yield (
                f"'{blob}' comes from {format_shape(before[0][2:])}, down by {shrunk} and up again: only sizes that {shrunk} "
                "divides come back as they were."
            )
            return
    if up and down:
        yield (
            f"'{up[0]}' was rounded up and '{down[0]}' down: Caffe's pooling rounds up, its convolution down, and sizes "
            "that a stride does not divide part there."
        )
    elif len({blob in (*up, *down) for blob in definition.bottoms}) > 1:
        yield "A size that does not divide evenly was rounded; sizes that divide at every stride avoid that."


def _strides(link: Link) -> tuple[int, ...]:
    stride = settings_of(link.layer).get("stride", ())
    return stride if isinstance(stride, tuple) and stride else (1,)


def _nearly(bottoms: Sequence[Shape]) -> bool:
    """Whether sizes differ by no more than roundings make them."""
    sizes = [bottom[2:] for bottom in bottoms]
    return all(max(axis) - min(axis) <= max(2, max(axis) // 8) for axis in zip(*sizes, strict=False))


# -- files of another net ----------------------------------------------------------------------------------------------


def other_types(world: TrialNet) -> Iterator[Diagnostic]:
    """Warnings of layers that take the weights of a layer of another type: Caffe looks at names and shapes only."""
    for i, layer in enumerate(world.net.layers):
        stored = world.given.stored.get(layer.name)
        if stored is None or not stored.blobs or i in world.troubles or stored.type not in LAYERS:
            continue
        if LAYERS[stored.type] is not LAYERS.get(layer.type):
            message = f"the weights are those of a {stored.type} in the file; Caffe goes by name and shapes only"
            yield Diagnostic("warning", layer.where, message, layer=layer.name)


def another_net(world: TrialNet, reference: TrialNet | None) -> str:
    """That the file seems to belong to another net: most of what the two have in common by name does not fit, or they
    have nothing in common."""
    misfits = sum(bool(trouble.stored) for trouble in world.troubles.values())
    common = sum(layer.name in world.given.stored for layer in world.net.layers if _may_learn(world, layer.name))
    name = f" ('{reference.net.name}')" if reference is not None and reference.net.name else ""
    if not common and _learns(world) and any(layer.blobs for layer in world.given.stored.values()):
        return f"no layer takes weights from the file: it seems to belong to another net{name}."
    if misfits < 3 or 2 * misfits <= common:
        return ""
    return f"{misfits} of {common} layers do not take their weights: the file seems to belong to another net{name}."


def _learns(world: TrialNet) -> bool:
    """Whether any layer has parameters."""
    known = ((layer, world.bottoms(i)) for i, layer in enumerate(world.layers) if i not in world.troubles)
    return any(layer.weight_shapes(bottoms) for layer, bottoms in known if layer is not None and bottoms)


def _may_learn(world: TrialNet, name: str) -> bool:
    stored = world.given.stored.get(name)
    return stored is not None and bool(stored.blobs)


def _formula_lines(links: list[Link]) -> Iterator[str]:
    shown = links[-5:]
    width = max(len(link.layer.name) for link in shown)
    wide = max(len(described(link.layer)) for link in shown)
    for link in shown:
        formula = f"  {link.formula}" if link.formula else ""
        yield f"    {link.layer.name:<{width}}  {described(link.layer):<{wide}}  {of_item(link.shape)}{formula}"
