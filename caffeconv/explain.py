"""Explains one layer: what its blobs are, how its sizes come about, how fast it learns, what TensorFlow does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from caffeconv.costs import ReceptiveField, receptive_fields
from caffeconv.diagnose.meaning import described
from caffeconv.ir import Node, Shape, by_x
from caffeconv.layers.window import Window


def explain(nodes: Sequence[Node], name: str) -> list[str]:
    """Lines about the layer of that name; KeyError where there is none among the nodes."""
    node = next((node for node in nodes if node.name == name), None)
    if node is None:
        raise KeyError(name)
    fields = receptive_fields(nodes)
    return [f"{node.definition.where}: {described(node.definition)}", *_sizes(node), *_params(node),
            *_sight(node, fields), *_same_padding(node), *_channels_last(node)]  # fmt: skip


# -- sizes -------------------------------------------------------------------------------------------------------------


def _sizes(node: Node) -> Iterator[str]:
    names = (*node.definition.tops, *node.tops[len(node.definition.tops) :])
    reads = ", ".join(f"{name} {by_x(s)}" for name, s in zip(node.definition.bottoms, node.bottom_shapes, strict=True))
    makes = ", ".join(f"{name} {by_x(shape)}" for name, shape in zip(names, node.top_shapes, strict=True))
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
    specs = list(node.definition.proto.param)[: len(node.params)]
    for i, (param, spec) in enumerate(zip_longest(node.params, specs)):
        meaning = _meaning(node, param.name, param.shape)
        shared = f", shared: it belongs to '{param.owner[0]}'" if param.owner else ""
        yield f"  blob {i} ({param.name}) {by_x(param.shape)}{': ' + meaning if meaning else ''}{shared}"
        lr = spec.lr_mult if spec is not None else 1.0
        decay = spec.decay_mult if spec is not None else 1.0
        given = "" if spec is not None else " (not given: the defaults)"
        learns = "it does not learn" if lr == 0 else f"it learns at {lr:g} × the solver's base_lr"
        decays = "without weight decay" if decay == 0 else f"with {decay:g} × its weight_decay"
        yield f"    lr_mult {lr:g}, decay_mult {decay:g}{given}: {learns}, {decays}; once blobs_lr and weight_decay"
    if not node.params:
        yield "  no parameters"


def _meaning(node: Node, name: str, shape: Shape) -> str:
    axes = node.layer.param_axes.get(name, "")
    if len(shape) > 2 and axes.startswith("num_output"):
        channels = node.bottom_shapes[0][1]
        seen = "all" if shape[1] == channels else f"{shape[1]} of the"
        return f"{shape[0]} filters, each over {seen} {channels} channels, {by_x(shape[2:])} ({axes})"
    if len(shape) == 2 and axes == "num_output × inputs":
        bottom = node.bottom_shapes[0]
        inputs = f"{by_x(bottom[1:])} = " if len(bottom) > 2 else ""
        turned = getattr(node.layer, "transpose", False)
        rows, columns = shape[::-1] if turned else shape
        return f"{rows} outputs, each from {inputs}{columns} inputs ({'inputs × num_output' if turned else axes})"
    if len(shape) == 1 and axes == "num_output":
        return f"{shape[0]} biases, one for each output"
    if len(shape) == 1 and axes == "channels":
        return f"{shape[0]} values, one for each channel"
    return axes


# -- what a place sees -------------------------------------------------------------------------------------------------


def _sight(node: Node, fields: dict[str, ReceptiveField]) -> Iterator[str]:
    for top in node.tops[:1]:
        if top in fields:
            yield f"  each place sees {fields[top]} in the input (height×width)"
        elif node.bottoms and len(node.top_shapes[0]) < 3 and not node.layer.makes_shapes:
            yield "  each value sees the whole input"


# -- TensorFlow --------------------------------------------------------------------------------------------------------


def _same_padding(node: Node) -> Iterator[str]:
    if not node.bottom_shapes or len(node.bottom_shapes[0]) != 4 or node.layer.transposed:
        return
    window = node.layer.window_over(node.bottom_shapes[0])
    if window is None or not any(size > 1 for size in window.kernel):
        return
    spatial, made = node.bottom_shapes[0][2:], node.top_shapes[0][2:]
    if window.kernel == spatial and made == (1, 1):
        return
    here = [_caffe_padding(window, i, size, made[i]) for i, size in enumerate(spatial)]
    same = [_tensorflow_padding(window, i, size) for i, size in enumerate(spatial)]
    pads = f"[[0, 0], [{here[0][0]}, {here[0][1]}], [{here[1][0]}, {here[1][1]}], [0, 0]]"
    if here == same:
        yield f"  TensorFlow: padding='SAME' pads as Caffe does here ({_sides(here)})"
        return
    if here == [(0, 0), (0, 0)]:
        yield "  TensorFlow: padding='VALID' does the same"
        return
    sizes = tuple(-(-size // window.stride[i]) for i, size in enumerate(spatial))
    yield f"  TensorFlow: padding='SAME' would pad {_sides(same)} and make {by_x(sizes)}; Caffe pads {_sides(here)}:"
    yield f"    tf.pad(x, {pads}), then padding='VALID' (NHWC)"


def _sides(pads: Sequence[tuple[int, int]]) -> str:
    return f"top {pads[0][0]}, bottom {pads[0][1]}, left {pads[1][0]}, right {pads[1][1]}"


def _caffe_padding(window: Window, axis: int, size: int, made: int) -> tuple[int, int]:
    """What lies before and after, as far as windows reach: pooling that rounds up reaches beyond Caffe's pad."""
    reach = (made - 1) * window.stride[axis] + window.extent(axis)
    return window.pad[axis], max(0, reach - size - window.pad[axis])


def _tensorflow_padding(window: Window, axis: int, size: int) -> tuple[int, int]:
    made = -(-size // window.stride[axis])
    total = max(0, (made - 1) * window.stride[axis] + window.extent(axis) - size)
    return total // 2, total - total // 2


def _channels_last(node: Node) -> Iterator[str]:
    shapes = [*node.bottom_shapes[:1], *node.top_shapes[:1]]
    if not all(len(shape) == 4 for shape in shapes) or not shapes:
        return
    words = [by_x((shape[0], *shape[2:], shape[1])) for shape in shapes]
    kernel = next((param.shape for param in node.params if param.name == "weight" and len(param.shape) == 4), None)
    tail = f", kernel {by_x((*kernel[2:], kernel[1], kernel[0]))} (height × width × in × out)" if kernel else ""
    yield f"  in NHWC: {' → '.join(words)}{tail}"
