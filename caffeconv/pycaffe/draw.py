"""Drawings of nets: layers and blobs as a graph, by pydot and Graphviz (caffe: python/caffe/draw.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from caffeconv.caffe_pb2 import LayerParameter, NetParameter, PoolingParameter
from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import PathLike, whole_file

if TYPE_CHECKING:
    import pydot

Direction = Literal["LR", "TB", "BT", "RL"]
"""Where a drawing begins and ends: left, right, top, bottom."""
_COLOURS = {
    "Convolution": "#FF5050", "Deconvolution": "#FF5050", "Pooling": "#FF9900", "InnerProduct": "#CC33FF",
}  # fmt: skip
_OTHER_COLOUR, _IN_PLACE_COLOUR, _BLOB_COLOUR = "#6495ED", "#90EE90", "#E0E0E0"


def draw_net(
    caffe_net: NetParameter, rankdir: Direction = "LR", ext: str = "png", phase: int | None = None,
    display_lrm: bool = False,
) -> bytes:  # fmt: skip
    """The drawing, in the format `ext` that Graphviz knows; arguments as of `get_pydot_graph`.

    Raises CaffeconvError where Graphviz is not installed or refuses.
    """
    graph = get_pydot_graph(caffe_net, rankdir, phase=phase, display_lrm=display_lrm)
    try:
        image: bytes = graph.create(format=ext)
    except (OSError, AssertionError) as error:
        raise CaffeconvError(
            f"drawing '{caffe_net.name}' as {ext}: Graphviz's `dot` cannot be run, or refuses: {error}. Install graphviz, "
            "or draw to a file that ends in .raw, which is Graphviz's own text"
        ) from error
    return image


def draw_net_to_file(
    caffe_net: NetParameter, filename: PathLike, rankdir: Direction = "LR", phase: int | None = None,
    display_lrm: bool = False,
) -> None:  # fmt: skip
    """Writes the drawing in the format that the name's suffix says; ``.raw``: Graphviz's text, without Graphviz."""
    path = Path(filename)
    kind = path.suffix.removeprefix(".")
    if not kind:
        raise CaffeconvError(f"{path}: a suffix that says the format was needed: .png, .svg, .pdf, .raw")
    if kind == "raw":
        image = get_pydot_graph(caffe_net, rankdir, phase=phase, display_lrm=display_lrm).to_string().encode()
    else:
        image = draw_net(caffe_net, rankdir, kind, phase, display_lrm)
    with whole_file(path) as file:
        file.write(image)


def get_pydot_graph(
    caffe_net: NetParameter, rankdir: Direction, label_edges: bool = True,
    phase: int | None = None, display_lrm: bool = False,
) -> pydot.Dot:  # fmt: skip
    """Layers, coloured by type, and the blobs between them.

    Args:
        rankdir: which way it goes.
        label_edges: whether edges from layers tell how many channels, or items, a layer makes.
        phase: caffe.TRAIN or caffe.TEST, whose layers alone are drawn; None: all.
        display_lrm: whether layers that learn tell their lr_mult.

    Raises CaffeconvError where pydot is not installed, or a layer has both include and exclude.
    """
    try:
        import pydot
    except ImportError:
        raise CaffeconvError(
            "caffe.draw: pydot is not installed; pip install pydot, and Graphviz for pictures"
        ) from None
    graph = pydot.Dot(caffe_net.name or "Net", graph_type="digraph", rankdir=rankdir)
    nodes: dict[str, pydot.Node] = {}
    edges: list[tuple[str, str, str]] = []
    for layer in caffe_net.layer:
        if not _is_drawn(layer, phase):
            continue
        name = f"{layer.name}_{layer.type}"
        in_place = len(layer.bottom) == 1 and list(layer.bottom) == list(layer.top)
        colour = _IN_PLACE_COLOUR if in_place else _COLOURS.get(layer.type, _OTHER_COLOUR)
        label = get_layer_label(layer, rankdir, display_lrm)
        nodes[name] = pydot.Node(_quoted(name), label=label, shape="record", fillcolor=_quoted(colour), style="filled")
        for blob in (*layer.bottom, *layer.top):
            nodes[f"{blob}_blob"] = pydot.Node(
                _quoted(f"{blob}_blob"),
                label=_quoted(blob),
                shape="octagon",
                fillcolor=_quoted(_BLOB_COLOUR),
                style="filled",
            )
        edges += [(f"{blob}_blob", name, "") for blob in layer.bottom]
        edges += [(name, f"{blob}_blob", get_edge_label(layer) if label_edges else "") for blob in layer.top]
    for node in nodes.values():
        graph.add_node(node)
    for source, target, label in edges:
        graph.add_edge(pydot.Edge(nodes[source], nodes[target], label=_quoted(label)))
    return graph


def _is_drawn(layer: LayerParameter, phase: int | None) -> bool:
    if layer.include and layer.exclude:
        raise CaffeconvError(f"layer '{layer.name}' has both include and exclude; one of them was needed")
    if phase is None:
        return True
    if layer.include:
        return any(rule.phase == phase for rule in layer.include)
    return not any(rule.phase == phase for rule in layer.exclude)


def get_edge_label(layer: LayerParameter) -> str:
    """How many channels a layer makes, or items; empty where it is not one of those that tell."""
    words = _EDGE_LABELS.get(layer.type)
    return words(layer) if words else ""


def get_layer_label(layer: LayerParameter, rankdir: Direction, display_lrm: bool = False) -> str:
    """What stands in a layer's box: its name, type, window, and with `display_lrm` its lr_mult."""
    words = _WINDOWS.get(layer.type)
    lines = [layer.name, f"({layer.type})", *(words(layer) if words else ())]
    if display_lrm and _LEARNS.get(layer.type, False):
        weight, bias = (*(spec.lr_mult for spec in layer.param), 1.0, 1.0)[:2]
        lines += [f"lr mult: {weight:.1f}, {bias:.1f}"] if weight or bias else []
    if words is _pooling_words:
        lines[1:2] = []
    # what lies side by side has little room across, and what is stacked little room up and down
    return _quoted((" " if rankdir in ("TB", "BT") else r"\n").join(lines))


def _convolution_words(layer: LayerParameter) -> list[str]:
    p = layer.convolution_param
    return _window_words((*p.kernel_size, 1)[0], (*p.stride, 1)[0], (*p.pad, 0)[0])


def _pooling_words(layer: LayerParameter) -> list[str]:
    p = layer.pooling_param
    method = PoolingParameter.PoolMethod.Name(p.pool)
    return [f"({layer.type} {method})", *_window_words((*p.kernel_size, 0)[0], (*p.stride, 1)[0], (*p.pad, 0)[0])]


def _window_words(kernel: int, stride: int, pad: int) -> list[str]:
    return [f"kernel size: {kernel}", f"stride: {stride}", f"pad: {pad}"]


_WINDOWS = {"Convolution": _convolution_words, "Deconvolution": _convolution_words, "Pooling": _pooling_words}
_EDGE_LABELS: dict[str, Callable[[LayerParameter], str]] = {
    "Data": lambda layer: f"Batch {layer.data_param.batch_size}",
    "Convolution": lambda layer: str(layer.convolution_param.num_output),
    "Deconvolution": lambda layer: str(layer.convolution_param.num_output),
    "InnerProduct": lambda layer: str(layer.inner_product_param.num_output),
}
_LEARNS = {"Convolution": True, "Deconvolution": True, "InnerProduct": True}


def _quoted(text: str) -> str:
    """As Graphviz wants names that may hold colons, bars or quotes."""
    return '"{}"'.format(text.replace('"', r"\""))
