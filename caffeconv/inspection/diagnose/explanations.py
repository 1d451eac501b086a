"""Explanations of a layer that does not fit: both sides, how the sizes came about, and the classic mistakes by name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from caffeconv.errors import Diagnostic, LayerError
from caffeconv.inspection.diagnose.candidates import ancestors, in_caffes_order
from caffeconv.inspection.diagnose.class_counts import anchor_words, class_words, explains_all, output_words
from caffeconv.inspection.diagnose.edit import image_size, input_shapes, resized, settings_of, type_words
from caffeconv.inspection.diagnose.prior_counts import prior_words
from caffeconv.inspection.diagnose.search import Cure
from caffeconv.inspection.diagnose.size_trace import (
    Link,
    Parting,
    chain,
    chain_lines,
    describe_layer,
    factorings,
    of_item,
)
from caffeconv.inspection.diagnose.trial_net import Misfit, TrialNet, fitting_bottoms
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Layer
from caffeconv.layers import LAYERS
from caffeconv.tensor.shape import Shape, count, format_shape

GREY_OR_COLOUR = {1: "1 channel (grey)", 3: "3 channels (colour)", 4: "4 channels (colour, alpha)"}
MOST_BESIDE = 32
"""Pixels more or fewer than the likeliest size of the pictures that are tried."""


@dataclass(frozen=True)
class Comparison:
    """The net, the net inside the weights file where it carries one, and the cures."""

    trial: TrialNet
    reference: TrialNet | None
    cures: Sequence[Cure]


def misfit_words(comparison: Comparison, misfit: Misfit) -> list[str]:
    """Both sides of a layer whose stored parameters do not fit, what that comes from, and what it is called."""
    trial, definition = comparison.trial, comparison.trial.net.layers[misfit.index]
    layer, bottoms = trial.layers[misfit.index], trial.bottoms(misfit.index)
    if layer is None or bottoms is None or not bottoms:
        return []
    weight_shapes = dict(layer.weight_shapes(bottoms))
    if misfit.stored == ((),):
        return []
    parting = _parting(comparison, definition.bottom_values)
    links = chain(trial, definition.bottom_values[0], parting.index if parting else None)
    reference_bottom = _reference_bottom(comparison, definition.name)
    lines = list(_sides(layer, misfit.stored, weight_shapes, bottoms[0], reference_bottom, links))
    lines += (*class_words(trial, misfit), *anchor_words(trial, misfit))
    lines += _classics(comparison, misfit, weight_shapes, bottoms[0], reference_bottom)
    if weight_shapes and _depends_on_bottom(misfit, bottoms, weight_shapes) and (len(links) > 1 or parting is not None):
        lines += ["how the net arrives at it:", *chain_lines(links, parting, _link_notes(comparison, links))]
    return lines


def _reference_bottom(comparison: Comparison, name: str) -> Shape | None:
    """The shape that a layer of this name sees in the file's own net."""
    if comparison.reference is None:
        return None
    for i, layer in enumerate(comparison.reference.net.layers):
        if layer.name == name:
            bottoms = comparison.reference.bottoms(i)
            return bottoms[0] if bottoms else None
    return None


def _depends_on_bottom(misfit: Misfit, bottoms: Sequence[Shape], weight_shapes: dict[str, Shape]) -> bool:
    """Whether what differs is an axis that the bottom decides, rather than the layer's own fields."""
    for stored, shape in zip(misfit.stored, weight_shapes.values(), strict=False):
        if len(stored) != len(shape):
            return False
        if len(shape) == 1 and stored != shape and bottoms[0][1:2] == shape and len(weight_shapes) != 2:
            return True
        if len(shape) > 1 and stored[1] != shape[1] and stored != shape[::-1]:
            return True
    return False


# -- both sides --------------------------------------------------------------------------------------------------------


def _sides(
    layer: Layer, stored: Sequence[Shape], weight_shapes: dict[str, Shape], bottom: Shape, reference_bottom: Shape | None,
    links: list[Link],
) -> Iterator[str]:  # fmt: skip
    for i, (name, shape) in enumerate(weight_shapes.items()):
        if i >= len(stored) or stored[i] == shape:
            continue
        axes = layer.param_axes.get(name, "")
        axes_text = f" ({axes})" if axes else ""
        if len(shape) == 2 and len(stored[i]) == 2 and i == 0:
            column = 0 if getattr(layer, "transpose", False) else 1
            net_factors = f", {shape[column]} = {of_item(bottom)}" if len(bottom) > 3 else ""
            factors = _factors_text(stored[i][column], shape[column], bottom, reference_bottom, links)
            yield f"file: {name} {format_shape(stored[i])}{axes_text}{factors}"
            yield f"net:  {name} {format_shape(shape)}{net_factors}"
        elif len(shape) == len(stored[i]):
            yield f"file: {name} {format_shape(stored[i])}{axes_text}"
            yield f"net:  {name} {format_shape(shape)}"
        else:
            yield f"file: {name} {format_shape(stored[i])}"
            yield f"net:  {name} {format_shape(shape)}{axes_text}"
    for i in range(len(weight_shapes), len(stored)):
        yield f"file: a blob more than the net has, {format_shape(stored[i])}"
    for name, shape in list(weight_shapes.items())[len(stored) :]:
        yield f"net:  {name} {format_shape(shape)}, which the file does not have"


def _factors_text(
    number: int, net_number: int, bottom: Shape, reference_bottom: Shape | None, links: list[Link]
) -> str:
    if reference_bottom is not None and len(reference_bottom) > 2 and count(reference_bottom, 1) == number:
        return f", {number} = {of_item(reference_bottom)} (channels × height × width) in the net that the file carries"
    if len(bottom) < 4 or number == net_number:
        return ""
    shapes = [format_shape(shape) for shape in factorings(number, links, bottom[1])]
    return f", {number} = {' or '.join(shapes)} (channels × height × width)" if shapes else f", {number} inputs"


# -- where the two nets part -------------------------------------------------------------------------------------------


def _link_notes(comparison: Comparison, links: list[Link]) -> dict[int, str]:
    """Of layers of the chain: all that they join, and that the file's net lacks them."""
    reference_names = {layer.name for layer in comparison.reference.net.layers} if comparison.reference else None
    notes = {}
    for link in links:
        parts = []
        if len(link.layer.bottoms) > 1:
            shapes = [comparison.trial.shapes[value] for value in link.layer.bottom_values]
            parts.append(
                "of " + ", ".join(f"{b} {of_item(s)}" for b, s in zip(link.layer.bottoms, shapes, strict=True))
            )
        if reference_names is not None and link.layer.name not in reference_names:
            parts.append("not in the file's net")
        if parts:
            notes[link.index] = "; ".join(parts)
    return notes


def _parting(comparison: Comparison, values: Sequence[str]) -> Parting | None:
    """The first layer before these values that makes something else in the file's net; else the first that the cure
    edits."""
    trial, reference = comparison.trial, comparison.reference
    indices = sorted(trial.ancestors(values))
    reference_layers = {layer.name: layer for layer in reversed(reference.net.layers)} if reference else {}
    for i in indices:
        other, own_shape = reference_layers.get(trial.net.layers[i].name), _first_top(trial, trial.net.layers[i])
        shape = _first_top(reference, other) if reference is not None and other is not None else None
        if other is not None and shape is not None and own_shape is not None and shape[1:] != own_shape[1:]:
            return Parting(i, f"in the file's net {describe_layer(other)} makes {of_item(shape)}")
    edits = {edit.layer: edit for cure in comparison.cures[:1] for edit in cure.edits}
    for i in indices:
        layer = trial.net.layers[i]
        if layer.name in edits:
            links = [link for link in chain(trial, layer.top_values[0]) if link.index == i]
            by_size = edits[layer.name].after.keys() & {"kernel_size", "stride", "pad", "dilation", "round_mode"}
            return Parting(i, links[0].formula if by_size and links else f"fixed by {edits[layer.name]}")
    return None


def _first_top(trial: TrialNet, layer: LayerDef) -> Shape | None:
    return trial.shapes.get(layer.top_values[0]) if layer.top_values else None


# -- the classics ------------------------------------------------------------------------------------------------------


def _classics(
    comparison: Comparison,
    misfit: Misfit,
    weight_shapes: dict[str, Shape],
    bottom: Shape,
    reference_bottom: Shape | None,
) -> Iterator[str]:
    definition = comparison.trial.net.layers[misfit.index]
    stored, shapes = misfit.stored, list(weight_shapes.values())
    if not shapes:
        yield from _no_parameter_words(comparison, misfit)
        return
    if len(stored) != len(shapes):
        yield from _count_words(definition.type, stored, shapes)
        return
    net_shape, file_shape = shapes[0], stored[0]
    if len(file_shape) > len(net_shape) and file_shape == (1,) * (len(file_shape) - len(net_shape)) + net_shape:
        yield (
            f"The same numbers, but the file gives their shape as {format_shape(file_shape)}: ones in front were "
            "right in files of the old form only (num, channels, height, width). Write the blob again as "
            f"{format_shape(net_shape)}; no edit of the prototxt fixes it."
        )
    elif len(net_shape) == 2 and file_shape == net_shape[::-1]:
        yield "The file's weight is the net's transposed, N×K against K×N: see `transpose`."
    elif len(net_shape) == 2 and len(file_shape) == 2:
        if net_shape[1] == file_shape[1]:
            yield from _output_words(comparison.trial, misfit, bottom, file_shape[0], net_shape[0])
        else:
            yield from _product_words(file_shape, bottom, reference_bottom, _resolution_words(comparison))
    elif len(net_shape) >= 3 and len(file_shape) == len(net_shape):
        yield from _convolution_words(comparison, misfit, net_shape, file_shape, bottom)
    elif len(net_shape) >= 3 and len(file_shape) == 2:
        yield from _other_type_words(comparison, misfit, "two axes", count(file_shape) == count(net_shape))
    elif len(net_shape) == 2 and len(file_shape) >= 3:
        yield from _other_type_words(comparison, misfit, "more than two axes", count(file_shape) == count(net_shape))
    elif len(net_shape) == len(file_shape) == 1:
        yield f"The file's layer has {file_shape[0]} channels, the net's {net_shape[0]}."


def _no_parameter_words(comparison: Comparison, misfit: Misfit) -> Iterator[str]:
    """That the file has parameters for a layer whose type has none."""
    definition, bottoms = comparison.trial.net.layers[misfit.index], comparison.trial.bottoms(misfit.index)
    blobs = " and ".join(map(format_shape, misfit.stored))
    protos = LAYERS[definition.type].other_types(definition, bottoms or (), misfit.stored)
    types = ", ".join(type_words(definition.with_proto(proto)) for proto in protos)
    meant = f" such as {types}" if types else ""
    yield f"{definition.type} has no parameters, and the file has {blobs} for it: those of another layer type{meant}."


def _other_type_words(comparison: Comparison, misfit: Misfit, axes: str, as_many: bool) -> Iterator[str]:
    """That the file's weight is one of another layer type, and how that layer would read."""
    definition, bottoms = comparison.trial.net.layers[misfit.index], comparison.trial.bottoms(misfit.index)
    kind = LAYERS[definition.type]
    for proto in kind.other_types(definition, bottoms or (), misfit.stored):
        same = " of as many numbers" if as_many else ""
        yield f"A weight{same} with {axes} is that of another layer type: {type_words(definition.with_proto(proto))}."


def _resolution_words(comparison: Comparison) -> str:
    """That the weights want pictures of another size, where that is what mends the net; empty where it is not."""
    axes = next(_axis_words(comparison), "")
    for cure in comparison.cures[:1] if not axes else ():
        for edit in cure.edits if not cure.layer_counts else ():
            was, now = (image_size(net.layers[edit.index]) for net in (comparison.trial.net, cure.net))
            if was and now and was != now:
                sizes = f"pictures of {format_shape(now)}, this net's are {format_shape(was)}: another input resolution"
                if cure.source:
                    return f"The weights are for {sizes}."
                return f"The weights would fit {sizes}, it seems.{_as_good_sizes(comparison.trial, cure, edit.index)}"
    return axes


def _as_good_sizes(trial: TrialNet, cure: Cure, index: int) -> str:
    """The other squares about the size that a cure gives the pictures, with which all fits too: windows round sizes down."""
    size = image_size(cure.net.layers[index])
    if size is None or size[0] != size[1] or len(cure.edits) > 1:
        return ""
    ends = []
    for step in (-1, 1):
        length = size[0]
        while abs(length + step - size[0]) <= MOST_BESIDE and _fits_at(trial, index, length + step):
            length += step
        ends.append(length)
    if ends[0] == ends[1]:
        return ""
    return f" So would all from {ends[0]}×{ends[0]} to {ends[1]}×{ends[1]}; {size[0]} is the likeliest."


def _fits_at(trial: TrialNet, index: int, length: int) -> bool:
    definition = resized(trial.net.layers[index], length, length)
    return definition is not None and trial.edited({index: definition}).first is None


def _output_words(trial: TrialNet, misfit: Misfit, bottom: Shape, file: int, net: int) -> Iterator[str]:
    """That a layer has another number of outputs; of LSTM's, each counts for four rows."""
    definition = trial.net.layers[misfit.index]
    implied = LAYERS[definition.type].implied_settings(definition, (bottom,), misfit.stored)
    outputs = next((settings.get("num_output") for settings in implied), None)
    own = settings_of(definition).get("num_output")
    if outputs == own:
        return  # another field tells the rows: the classes of an Embed
    if isinstance(outputs, int) and outputs != file:
        each = file // outputs
        rows = f"The file's {file} rows are {each} × {outputs}, the net's {net} are {each} × {net // each}"
        yield f"{rows}: `num_output: {outputs}`."
        return
    yield from list(output_words(trial, misfit)) or (
        f"Only the number of outputs differs: {file} in the file, {net} in the net. To fine-tune for "
        f"{net} classes, rename the layer; to use the file as it is, `num_output: {file}`.",
    )


def _product_words(file_shape: Shape, bottom: Shape, reference_bottom: Shape | None, resolution: str) -> Iterator[str]:
    if resolution:
        yield resolution
    elif (
        reference_bottom is not None and len(reference_bottom) == len(bottom) == 4 and reference_bottom[1] == bottom[1]
    ):
        yield (
            f"As many channels ({bottom[1]}), but {format_shape(reference_bottom[2:])} places there and "
            f"{format_shape(bottom[2:])} here: a picture of another size, or another pad, stride or kernel_size before."
        )


def _convolution_words(
    comparison: Comparison, misfit: Misfit, net_shape: Shape, file_shape: Shape, bottom: Shape
) -> Iterator[str]:
    definition = comparison.trial.net.layers[misfit.index]
    group = settings_of(definition).get("group", 1)
    transposed = LAYERS[definition.type].transposed
    if net_shape[2:] != file_shape[2:]:
        yield f"The file's kernel is {format_shape(file_shape[2:])}, the net's {format_shape(net_shape[2:])}."
    if net_shape[1:] == file_shape[1:] or transposed:
        yield from output_words(comparison.trial, misfit)
    if net_shape[1] == file_shape[1] or transposed:
        return
    channels = bottom[1]
    before = set(ancestors(comparison.trial, misfit.index))
    if before & comparison.trial.misfits.keys():
        yield f"The file's filters see {file_shape[1]} channels each, the net's {net_shape[1]}; fix the layers before it first."
        return
    if not _in_between(comparison, misfit.index) and {file_shape[1], net_shape[1]} <= GREY_OR_COLOUR.keys():
        yield f"The file's net takes pictures of {GREY_OR_COLOUR[file_shape[1]]}, this net of {GREY_OR_COLOUR[net_shape[1]]}."
    elif (
        file_shape[1]
        and channels
        and channels % file_shape[1] == 0
        and isinstance(group, int)
        and file_shape[0] % (channels // file_shape[1]) == 0
    ):
        yield (
            f"The file's filters see {file_shape[1]} of {channels} channels each, which is "
            f"`group: {channels // file_shape[1]}`; the net has `group: {group}`."
        )
    else:
        needed = file_shape[1] * (group if isinstance(group, int) else 1)
        yield f"The file's filters are for {needed} channels; the bottom has {channels}."


def _in_between(comparison: Comparison, index: int) -> bool:
    """Whether a layer with parameters lies before this one."""
    links = chain(comparison.trial, comparison.trial.net.layers[index].bottom_values[0])
    return any(LAYERS[link.layer.type].channel_setting for link in links if link.layer.type in LAYERS)


def _count_words(kind: str, stored: Sequence[Shape], weight_shapes: list[Shape]) -> Iterator[str]:
    if LAYERS[kind].param_axes.keys() >= {"mean", "scale"} and {len(stored), len(weight_shapes)} == {3, 5}:
        more, less = ("file", "net") if len(stored) == 5 else ("net", "file")
        yield f"The {more}'s BatchNorm holds scale and bias too (NVIDIA's `scale_bias: true`), the {less}'s does not."
    elif len(stored) == len(weight_shapes) + 1:
        yield "The file has a bias that the net lacks: `bias_term: true`."
    elif len(stored) + 1 == len(weight_shapes):
        yield "The net has a bias that the file lacks: `bias_term: false`."


# -- shapes that do not go together ------------------------------------------------------------------------------------


def shape_words(comparison: Comparison, misfit: Misfit) -> list[str]:
    """How the bottoms of a layer that cannot be built came to their sizes, where these do not agree."""
    trial, definition = comparison.trial, comparison.trial.net.layers[misfit.index]
    bottoms = trial.bottoms(misfit.index)
    kind = LAYERS.get(definition.type)
    if not misfit.is_curable:
        return []
    if kind is not None and kind.fills_itself:
        return ["This is a net for training: `deploy=True` makes of it the net that is used afterwards."]
    boxes = list(prior_words(trial, misfit))
    reasons = (*_axis_words(comparison), *_refusal(trial, misfit.index))
    return boxes or [*reasons, *_how_bottoms_came(trial, definition, bottoms or ())]


def _axis_words(comparison: Comparison) -> Iterator[str]:
    """That pictures come in another order of axes than Caffe's, where that is what fixes the net."""
    for edit in (edit for cure in comparison.cures[:1] for edit in cure.edits if not cure.layer_counts):
        before = input_shapes(comparison.trial.net.layers[edit.index])
        after = input_shapes(comparison.cures[0].net.layers[edit.index])
        for old, new in zip(before, after, strict=True):
            if old != new and in_caffes_order(old) == new:
                yield f"Caffe's pictures are N×C×H×W; those of '{edit.layer}' are {format_shape(old)}."
    yield from _caller_axis_words(comparison.trial)


def _caller_axis_words(trial: TrialNet) -> Iterator[str]:
    """The same of shapes that the caller gives."""
    for blob, shape in trial.context.input_shapes.items():
        ordered = in_caffes_order(shape)
        context = replace(
            trial.context, input_shapes={**trial.context.input_shapes, blob: ordered or ()}, evaluations={}
        )
        if ordered and TrialNet.of(trial.net, context).first is None:
            argument = f"`shapes={{{blob!r}: ({', '.join(map(str, ordered))})}}`"
            yield f"Caffe's pictures are N×C×H×W; {format_shape(shape)} was given for '{blob}': {argument}"


def _refusal(trial: TrialNet, index: int) -> Sequence[str]:
    """The layer's own reasons why it refuses its bottoms."""
    layer, bottoms = trial.layers[index], trial.bottoms(index)
    if layer is None or not bottoms or not layer.bottoms.fits(len(bottoms)):
        return ()
    try:
        return layer.why_refused(bottoms)
    except LayerError:
        return ()


def _how_bottoms_came(trial: TrialNet, definition: LayerDef, bottoms: Sequence[Shape]) -> list[str]:
    """The layers that only one of the bottoms comes through, and what makes their sizes differ."""
    if (
        definition.type not in LAYERS
        or len({bottom[1:] for bottom in bottoms}) < 2
        or _agree(trial, definition, bottoms)
    ):
        return []
    chains = [chain(trial, value) for value in definition.bottom_values]
    common = set.intersection(*({link.index for link in links} for links in chains))
    chains = [[link for link in links if link.index not in common] for links in chains]
    lines = []
    for blob, own in zip(definition.bottoms, chains, strict=True):
        if len(own) > 1 or (own and own[0].formula):
            lines += [f"how '{blob}' becomes {of_item(own[-1].shape)}:", *_formula_lines(own)]
    if len(set(map(len, bottoms))) == 1 and len({bottom[2:] for bottom in bottoms}) > 1 and _nearly(bottoms):
        lines += _rounding_words(trial, definition, chains)
    return lines


def _agree(trial: TrialNet, definition: LayerDef, bottoms: Sequence[Shape]) -> bool:
    """Whether the bottoms' planes are of one size, and nothing but these could be asked to be alike."""
    sizes = [bottom[2:] for bottom in bottoms if len(bottom) > 3]
    layer = next((trial.layers[i] for i, each in enumerate(trial.net.layers) if each is definition), None)
    joins = layer is not None and bool(fitting_bottoms(layer, tuple(bottoms)))
    return len(sizes) > 1 and len(set(sizes)) == 1 and not joins


def _rounding_words(trial: TrialNet, definition: LayerDef, chains: Sequence[list[Link]]) -> Iterator[str]:
    """Which branch was rounded up and which down; what coming down and up again does to a size."""
    up, down = (
        [blob for blob, own in zip(definition.bottoms, chains, strict=True) if any(word in i.formula for i in own)]
        for word in ("rounded up", "rounded down")
    )
    for blob, own in zip(definition.bottoms, chains, strict=True):
        steps = [link for link in own if link.formula]
        strides = [(max(_strides(link)), LAYERS[link.layer.type].transposed) for link in steps]
        into = next((link.index for link in steps), None)
        before = None if into is None else trial.bottoms(into)
        shrunk = math.prod(stride for stride, upwards in strides if not upwards)
        if before and any(upwards for _, upwards in strides) and any(size % shrunk for size in before[0][2:]):
            start = definition.bottom_values[definition.bottoms.index(blob)]
            whole = _shrunk(chain(trial, start))
            so = f", so height and width of the picture have to be divisible by {whole}" if whole > shrunk else ""
            yield (
                f"'{blob}' comes from {format_shape(before[0][2:])}, down by {shrunk} and up again: only sizes divisible by "
                f"{shrunk} come back as they were{so}."
            )
            return
    if up and down:
        yield (
            f"'{up[0]}' was rounded up and '{down[0]}' down: Caffe's pooling rounds up, its convolution down, and sizes "
            "that a stride does not divide part there."
        )
    elif len({blob in (*up, *down) for blob in definition.bottoms}) > 1:
        yield "A size that does not divide evenly was rounded; sizes that divide at every stride avoid that."


def _shrunk(links: Sequence[Link]) -> int:
    """By how much smaller the least plane on a way is than what it begins with."""
    least = scale = 1
    for link in links:
        stride = max(_strides(link))
        scale = scale // stride if LAYERS[link.layer.type].transposed else scale * stride
        least = max(least, scale)
    return least


def _strides(link: Link) -> tuple[int, ...]:
    stride = settings_of(link.layer).get("stride", ())
    return stride if isinstance(stride, tuple) and stride else (1,)


def _nearly(bottoms: Sequence[Shape]) -> bool:
    """Whether sizes differ by no more than roundings make them."""
    sizes = [bottom[2:] for bottom in bottoms]
    return all(max(axis) - min(axis) <= max(2, max(axis) // 8) for axis in zip(*sizes, strict=False))


# -- files of another net ----------------------------------------------------------------------------------------------


def other_types(trial: TrialNet) -> Iterator[Diagnostic]:
    """Warnings of layers that take the weights of a layer of another type: Caffe looks at names and shapes only."""
    for i, layer in enumerate(trial.net.layers):
        stored = trial.context.stored.get(layer.name)
        if stored is None or not stored.blobs or i in trial.misfits or stored.type not in LAYERS:
            continue
        if LAYERS[stored.type] is not LAYERS.get(layer.type):
            message = f"the weights are those of a {stored.type} in the file; Caffe goes by name and shapes only"
            yield Diagnostic("warning", layer.where, message, layer=layer.name)


def another_net(trial: TrialNet, reference: TrialNet | None) -> str:
    """That the file seems to belong to another net: most of what the two have in common by name does not fit, or they
    have nothing in common."""
    misfits = sum(bool(misfit.stored) for misfit in trial.misfits.values())
    common = sum(layer.name in trial.context.stored for layer in trial.net.layers if _may_learn(trial, layer.name))
    name = f" ('{reference.net.name}')" if reference is not None and reference.net.name else ""
    if not common and _learns(trial) and any(layer.blobs for layer in trial.context.stored.values()):
        return f"no layer takes weights from the file: it seems to belong to another net{name}."
    if misfits < 3 or 2 * misfits <= common or explains_all(trial):
        return ""
    return f"{misfits} of {common} layers do not take their weights: the file seems to belong to another net{name}."


def _learns(trial: TrialNet) -> bool:
    """Whether any layer has parameters."""
    pairs = ((layer, trial.bottoms(i)) for i, layer in enumerate(trial.layers) if i not in trial.misfits)
    return any(layer.weight_shapes(bottoms) for layer, bottoms in pairs if layer is not None and bottoms)


def _may_learn(trial: TrialNet, name: str) -> bool:
    stored = trial.context.stored.get(name)
    return stored is not None and bool(stored.blobs)


def _formula_lines(links: list[Link]) -> Iterator[str]:
    shown_links = links[-5:]
    width = max(len(link.layer.name) for link in shown_links)
    kind_width = max(len(describe_layer(link.layer)) for link in shown_links)
    for link in shown_links:
        formula = f"  {link.formula}" if link.formula else ""
        yield f"    {link.layer.name:<{width}}  {describe_layer(link.layer):<{kind_width}}  {of_item(link.shape)}{formula}"
