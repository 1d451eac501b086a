"""Explains one layer: what its blobs are, how its sizes come about, how fast it learns, what TensorFlow does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from caffeconv.inspection.costs import ReceptiveField, receptive_fields
from caffeconv.inspection.diagnose.size_trace import describe_layer
from caffeconv.ir.layer import Node
from caffeconv.tensor.shape import Shape, format_shape


def explain(nodes: Sequence[Node], name: str) -> list[str]:
    """Lines about the layer of that name; KeyError where there is none among the nodes."""
    node = next((node for node in nodes if node.name == name), None)
    if node is None:
        raise KeyError(name)
    fields = receptive_fields(nodes)
    return [f"{node.definition.where}: {describe_layer(node.definition)}", *_sizes(node), *_params(node),
            *_sight(node, fields), *_padding(node), *_channels_last(node)]  # fmt: skip


# -- sizes -------------------------------------------------------------------------------------------------------------


def _sizes(node: Node) -> Iterator[str]:
    names = (*node.definition.tops, *node.tops[len(node.definition.tops) :])
    reads = ", ".join(
        f"{name} {format_shape(s)}" for name, s in zip(node.definition.bottoms, node.bottom_shapes, strict=True)
    )
    makes = ", ".join(f"{name} {format_shape(shape)}" for name, shape in zip(names, node.top_shapes, strict=True))
    yield f"  reads {reads or 'nothing'}"
    yield f"  makes {makes or 'nothing'}"
    if not node.bottom_shapes:
        return
    formulas = node.layer.size_formulas(node.bottom_shapes[0])
    axes = ("height", "width") if len(formulas) == 2 else tuple(f"axis {i + 2}" for i in range(len(formulas)))
    general = "stride·(in − 1) + extent − 2·pad" if node.layer.transposed else "(in + 2·pad − extent)/stride + 1"
    if node.layer.window_over(node.bottom_shapes[0]) is not None and formulas:
        yield f"  size: {general}, where extent = dilation·(kernel − 1) + 1"
    for axis, formula in zip(axes, formulas, strict=True):
        yield f"    {axis}: {formula}"


# -- parameters --------------------------------------------------------------------------------------------------------


def _params(node: Node) -> Iterator[str]:
    specs = node.definition.param_specs[: len(node.params)]
    for i, (param, spec) in enumerate(zip_longest(node.params, specs)):
        meaning = _meaning(node, param.name, param.shape)
        shared = f", shared: it belongs to '{param.owner[0]}'" if param.owner else ""
        yield f"  blob {i} ({param.name}) {format_shape(param.shape)}{': ' + meaning if meaning else ''}{shared}"
        lr = spec.lr_mult if spec is not None and spec.lr_mult is not None else 1.0
        decay = spec.decay_mult if spec is not None and spec.decay_mult is not None else 1.0
        default_note = "" if spec is not None else " (not given: the defaults)"
        learns = "it does not learn" if lr == 0 else f"it learns at {lr:g} × the solver's base_lr"
        decays = "without weight decay" if decay == 0 else f"with {decay:g} × its weight_decay"
        yield f"    lr_mult {lr:g}, decay_mult {decay:g}{default_note}: {learns}, {decays}; once blobs_lr and weight_decay"
    if not node.params:
        yield "  no parameters"


def _meaning(node: Node, name: str, shape: Shape) -> str:
    axes = node.layer.param_axes.get(name, "")
    if len(shape) > 2 and axes.startswith("num_output"):
        channels = node.bottom_shapes[0][1]
        part = "all" if shape[1] == channels else f"{shape[1]} of the"
        return f"{shape[0]} filters, each over {part} {channels} channels, {format_shape(shape[2:])} ({axes})"
    if len(shape) == 2 and axes == "num_output × inputs":
        bottom = node.bottom_shapes[0]
        inputs = f"{format_shape(bottom[1:])} = " if len(bottom) > 2 else ""
        transposed = getattr(node.layer, "transpose", False)
        rows, columns = shape[::-1] if transposed else shape
        return f"{rows} outputs, each from {inputs}{columns} inputs ({'inputs × num_output' if transposed else axes})"
    if len(shape) == 1 and axes == "num_output":
        return f"{shape[0]} biases, one for each output"
    if len(shape) == 1 and axes == "channels":
        return f"{shape[0]} values, one for each channel"
    return axes


# -- what a place sees -------------------------------------------------------------------------------------------------


def _sight(node: Node, fields: dict[str, ReceptiveField]) -> Iterator[str]:
    for top in node.tops[:1]:
        if top in fields:
            yield f"  each place has a receptive field of {fields[top]} in the input (height×width)"
        elif node.bottoms and len(node.top_shapes[0]) < 3 and not node.layer.has_dynamic_shapes:
            yield "  each value depends on the whole input"


# -- TensorFlow --------------------------------------------------------------------------------------------------------


def _padding(node: Node) -> Iterator[str]:
    padding = node.layer.padding(node)
    if padding is None:
        return
    rank = len(padding.pads)
    pads = str([[0, 0], *(list(sides) for sides in padding.pads), [0, 0]])
    if padding.same:
        does = "cuts off what Caffe does here" if padding.crops else "pads as Caffe does here"
        yield f"  TensorFlow: padding='SAME' {does} ({_sides(padding.pads)})"
        return
    if padding.valid:
        yield "  TensorFlow: padding='VALID' does the same"
        return
    words = ("cut off", "cuts off") if padding.crops else ("pad", "pads")
    yield (
        f"  TensorFlow: padding='SAME' would {words[0]} {_sides(padding.same_pads)} and make "
        f"{format_shape(padding.same_size)}; Caffe {words[1]} {_sides(padding.pads)}:"
    )
    if padding.crops:
        slices = ", ".join(f"{before}:{f'-{after}' if after else ''}" for before, after in padding.pads)
        yield f"    padding='VALID', then y[:, {slices}, :] (channels last)"
        return
    lowest = ", constant_values=x.dtype.min" if padding.fill == "lowest" else ""
    layout = "NHWC" if rank == 2 else "channels last"
    yield f"    tf.pad(x, {pads}{lowest}), then padding='VALID' ({layout})"
    for axis, factors in enumerate(padding.factors):
        places = [f"{place} by {factor:g}" for place, factor in enumerate(factors) if factor != 1]
        if places:
            yield f"    then multiply, of axis {axis + 1}, place {', '.join(places)}: Caffe divides by fewer there"


def _sides(pads: Sequence[tuple[int, int]]) -> str:
    if len(pads) != 2:
        return ", ".join(f"{before} before and {after} after" for before, after in pads)
    return f"top {pads[0][0]}, bottom {pads[0][1]}, left {pads[1][0]}, right {pads[1][1]}"


def _channels_last(node: Node) -> Iterator[str]:
    shapes = [*node.bottom_shapes[:1], *node.top_shapes[:1]]
    if not all(len(shape) == 4 for shape in shapes) or not shapes:
        return
    words = [format_shape((shape[0], *shape[2:], shape[1])) for shape in shapes]
    kernel = next((param.shape for param in node.params if param.name == "weight" and len(param.shape) == 4), None)
    order = "out × in" if node.layer.transposed else "in × out"
    tail = f", kernel {format_shape((*kernel[2:], kernel[1], kernel[0]))} (height × width × {order})" if kernel else ""
    yield f"  in NHWC: {' → '.join(words)}{tail}"
