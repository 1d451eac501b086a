"""What the two sides of a mismatch mean: sizes as channels × height × width, and the layers that made them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from caffeconv.errors import LayerError
from caffeconv.inspection.diagnose.edit import settings_of
from caffeconv.inspection.diagnose.trial_net import TrialNet
from caffeconv.ir.definition import LayerDef
from caffeconv.tensor.shape import Shape, count, format_shape

MOST_LINKS = 7
MOST_FACTORINGS = 3
MOST_CHANNELS = 1024


@dataclass(frozen=True)
class Link:
    """One layer of the chain that makes a size."""

    index: int
    layer: LayerDef
    shape: Shape
    """Of the top that the chain leads through."""
    formula: str


@dataclass(frozen=True)
class Parting:
    """The layer from which on a net makes other sizes than the file's net, and why."""

    index: int
    reason: str


def chain(trial: TrialNet, value: str, through: int | None = None) -> list[Link]:
    """The layers from an input to a value, by way of layer `through`, or else along first bottoms; those that leave the
    shape as it is are left out."""
    links: list[Link] = []
    while value in trial.makers and value in trial.shapes:
        index = trial.makers[value]
        definition = trial.net.layers[index]
        before = trial.shapes.get(definition.bottom_values[0]) if definition.bottom_values else None
        if before != trial.shapes[value] or index == through or len(definition.bottom_values) > 1:
            links.append(Link(index, definition, trial.shapes[value], _formula(trial, index, before)))
        if not definition.bottom_values:
            break
        values = [v for v in definition.bottom_values if through in trial.ancestors([v])]
        value = (values or definition.bottom_values)[0]
    return links[::-1]


def _formula(trial: TrialNet, index: int, before: Shape | None) -> str:
    layer = trial.layers[index]
    if layer is None or before is None:
        return ""
    try:
        formulas = layer.size_formulas(before)
    except (LayerError, IndexError):
        return ""
    return "; ".join(dict.fromkeys(formulas))


def describe_layer(definition: LayerDef) -> str:
    """A layer and its window: ``Convolution 1×1, pad 1``."""
    settings = settings_of(definition)
    kernel = settings.get("kernel_size", ())
    if settings.get("global_pooling"):
        return f"{definition.type} of the whole plane"
    if not isinstance(kernel, tuple) or not kernel:
        return definition.type
    words = [f"{definition.type} {format_shape(kernel * 2 if len(kernel) == 1 else kernel)}"]
    for name, usual in (("stride", (1,)), ("pad", (0,)), ("dilation", (1,))):
        value = settings.get(name, usual)
        if value != usual and isinstance(value, tuple):
            words.append(f"{name} {format_shape(value)}")
    return ", ".join(words)


def of_item(shape: Shape) -> str:
    """The shape of one item: ``512×7×7``; the number of values where there is one axis only."""
    return format_shape(shape[1:]) if len(shape) > 1 else format_shape(shape)


def chain_lines(links: list[Link], parting: Parting | None, notes: Mapping[int, str]) -> Iterator[str]:
    """The chain as a table, with the place where the two nets part; `notes`: layer → what else to say of it."""
    shown_links = links[-MOST_LINKS:]
    if parting is not None and all(link.index != parting.index for link in shown_links):
        shown_links = [link for link in links if link.index == parting.index] + shown_links
    if len(shown_links) < len(links):
        yield "    …"
    names = [link.layer.name for link in shown_links]
    kinds = [describe_layer(link.layer) for link in shown_links]
    shapes = [of_item(link.shape) for link in shown_links]
    for link, name, kind, shape in zip(shown_links, names, kinds, shapes, strict=True):
        line = f"    {name:<{max(map(len, names))}}  {kind:<{max(map(len, kinds))}}  {shape:<{max(map(len, shapes))}}"
        if link.index in notes:
            line += f"  ({notes[link.index]})"
        if parting is not None and link.index == parting.index:
            line += "  ← the two nets differ from here on" + (f": {parting.reason}" if parting.reason else "")
        yield line.rstrip()


def factorings(number: int, links: list[Link], channels: int) -> list[Shape]:
    """Channels × height × width that may stand behind a number, likeliest first: round channels, sizes that
    the chain passes through, squares."""
    chain_sizes = {link.shape[2:] for link in links if len(link.shape) == 4}
    squares: set[Shape] = {(size, size) for size in range(2, 65)}
    sizes = [size for size in sorted(chain_sizes | squares) if count(size) and number % count(size) == 0]
    shapes: list[Shape] = [(number // count(size), *size) for size in sizes]

    def doubt(shape: Shape) -> float:
        round_number = next((price for divisor, price in ((64, 0), (16, 1), (4, 2)) if shape[0] % divisor == 0), 3)
        return (
            round_number
            + 2 * (shape[1:] not in chain_sizes)
            + 2 * (shape[0] != channels)
            + 2 * (shape[0] > MOST_CHANNELS)
        )

    return sorted((shape for shape in shapes if shape[0] > 1), key=doubt)[:MOST_FACTORINGS]
