"""Legal nets drawn at random by hypothesis, which shrinks those that disagree; `random_net_checks` says with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from google.protobuf import text_format
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from caffeconv.caffe_format.crop_offset import align_crops
from caffeconv.caffe_format.terms import Phase
from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.errors import LayerError
from caffeconv.files.net_folders import NetFolders
from caffeconv.frontend.build import parse_layer
from caffeconv.ir.definition import LayerDef
from caffeconv.tensor.shape import Shape, count
from support.random_fork_layers import BY_DIALECT, FORK_KINDS
from support.random_layers import IN_PLACE, OFTEN, OWN_KINDS, DrawnInput, DrawnLayer, Kind, Sketch
from support.small_nets import input_layer

MOST_VALUES = 3000
"""Of one blob: small nets are as good, and many of them better."""
TRIES = 4
"""At a layer that Caffe takes."""
KINDS: dict[str, Kind] = {**OWN_KINDS, **FORK_KINDS}
V1_NAMES = {
    "AbsVal": "ABSVAL", "Accuracy": "ACCURACY", "ArgMax": "ARGMAX", "BNLL": "BNLL", "Concat": "CONCAT",
    "ContrastiveLoss": "CONTRASTIVE_LOSS", "Convolution": "CONVOLUTION", "Deconvolution": "DECONVOLUTION",
    "Dropout": "DROPOUT", "Eltwise": "ELTWISE", "EuclideanLoss": "EUCLIDEAN_LOSS", "Exp": "EXP",
    "HingeLoss": "HINGE_LOSS", "Im2col": "IM2COL", "InfogainLoss": "INFOGAIN_LOSS", "InnerProduct": "INNER_PRODUCT",
    "LRN": "LRN", "MVN": "MVN", "MultinomialLogisticLoss": "MULTINOMIAL_LOGISTIC_LOSS", "Pooling": "POOLING",
    "Power": "POWER", "ReLU": "RELU", "Sigmoid": "SIGMOID", "SigmoidCrossEntropyLoss": "SIGMOID_CROSS_ENTROPY_LOSS",
    "Silence": "SILENCE", "Slice": "SLICE", "Softmax": "SOFTMAX", "SoftmaxWithLoss": "SOFTMAX_LOSS", "Split": "SPLIT",
    "TanH": "TANH", "Threshold": "THRESHOLD",
}  # fmt: skip


@dataclass(frozen=True)
class DrawnNet:
    """A net and what decides which comparisons make sense of it."""

    inputs: dict[str, DrawnInput]
    layers: tuple[DrawnLayer, ...]
    phase: Phase
    seed: int
    is_v1: bool = False
    dialect: str | None = None

    @property
    def text(self) -> str:
        shapes = {name: drawn_input.shape for name, drawn_input in self.inputs.items()}
        lines = [input_layer(name, shape) for name, shape in shapes.items()] if not self.is_v1 else []
        for name, shape in shapes.items() if self.is_v1 else ():
            lines.append(f'input: "{name}" input_shape {{ {" ".join(f"dim: {dim}" for dim in shape)} }}\n')
        for i, layer in enumerate(self.layers):
            blobs = " ".join(
                [*(f'bottom: "{blob}"' for blob in layer.bottoms), *(f'top: "{blob}"' for blob in layer.tops)]
            )
            names = "param: {}" if self.is_v1 else "param {{ name: {} }}"
            blobs += " " + " ".join(names.format(f'"{name}"') for name in layer.params)
            word, kind = ("layers", V1_NAMES[layer.kind]) if self.is_v1 else ("layer", f'"{layer.kind}"')
            lines.append(f'{word} {{ name: "l{i}" type: {kind} {blobs} {layer.fields} }}\n')
        return ("force_backward: true\n" if self.has_gradient else "") + "".join(lines)

    @property
    def has_gradient(self) -> bool:
        """Whether every layer takes `force_backward`, which InfogainLoss does not for an H that is a bottom."""
        return "InfogainLoss" not in self.kinds

    @property
    def kinds(self) -> set[str]:
        return {layer.kind for layer in self.layers}


@st.composite
def nets(draw: DrawFn, most_layers: int = 12) -> DrawnNet:
    """Nets of 1 to that many layers over two inputs and what layers ask for; what Caffe refuses is left out as it is drawn."""
    phase: Phase = draw(st.sampled_from(["TEST", "TEST", "TRAIN"]))
    dialect = draw(st.sampled_from([None, *BY_DIALECT, "bvlc"])) if draw(st.booleans()) else None
    rank = draw(st.sampled_from([4, 4, 4, 2, 3, 5]))
    sides = (draw(st.integers(1, 7)) for _ in range(rank - 2))
    shape = (draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3, 4])), *sides)
    inputs = {"x": DrawnInput(shape), "z": DrawnInput(shape)}
    blobs, read = {"x": shape, "z": shape}, {"x", "z"}
    others = dict(blobs)
    """Shapes with more places along each axis whose size follows from values."""
    kinds = [
        *OWN_KINDS,
        *OFTEN,
        *([*FORK_KINDS] if draw(st.integers(0, 2)) else []),
        *[BY_DIALECT.get(dialect or "", "ReLU")] * 9,
    ]
    layers: list[DrawnLayer] = []
    sharing: dict[str, tuple[DrawnLayer, Sequence[Shape]]] = {}
    for step in range(draw(st.integers(min(4, most_layers), most_layers))):
        for _ in range(TRIES):
            sketch = Sketch(draw, dict(blobs), step)
            layer = draw(_layers(sketch, kinds, read))
            extra = {name: drawn_input.shape for name, drawn_input in sketch.inputs.items()}
            shapes = [[sizes[blob] for blob in layer.bottoms] for sizes in (blobs | extra, others | extra)]
            is_open = shapes[0] != shapes[1]  # what indices an input may hold then, values say
            is_uncertain = is_open and (
                bool(sketch.inputs) or "batch_size" in layer.fields
            )  # whose multiple rows may not be
            built = None if is_uncertain else _built(layer, shapes, phase, dialect, layers)
            if built is not None:
                break
        else:
            continue
        tops, other_tops, weights = built
        layer = draw(_with_shared_params(layer, weights, sharing))
        layers.append(layer)
        read |= set(layer.bottoms) - set(layer.tops)
        inputs |= sketch.inputs
        blobs |= extra | dict(zip(layer.tops, tops, strict=True))
        others |= extra | dict(zip(layer.tops, other_tops, strict=True))
    is_v1 = bool(layers) and all(layer.kind in V1_NAMES for layer in layers) and draw(st.booleans())
    return DrawnNet(inputs, tuple(layers), phase, draw(st.integers(0, 2**16)), is_v1, dialect)


@st.composite
def _layers(draw: DrawFn, sketch: Sketch, kinds: Sequence[str], read: set[str]) -> DrawnLayer:
    kind = draw(st.sampled_from(kinds))
    fields, bottoms, tops = KINDS[kind](sketch)
    in_place = kind in IN_PLACE and bottoms[0] not in read and bottoms.count(bottoms[0]) == 1 and draw(st.booleans())
    names = (bottoms[0],) if in_place else tuple(f"b{sketch.step}_{i}" for i in range(tops))
    return DrawnLayer(kind, fields, tuple(bottoms), names)


@st.composite
def _with_shared_params(
    draw: DrawFn, layer: DrawnLayer, weights: Sequence[Shape], sharing: dict[str, tuple[DrawnLayer, Sequence[Shape]]],
) -> DrawnLayer:  # fmt: skip
    """The layer, at times with names for its parameters: those of an earlier layer whose parameters have the same shapes."""
    if not weights or layer.kind == "BatchNorm" or draw(st.integers(0, 2)):
        return layer
    owners = [owner for owner, shapes in sharing.values() if shapes == weights]
    if owners:
        return replace(layer, params=draw(st.sampled_from(owners)).params)
    named = replace(layer, params=tuple(f"p{len(sharing)}_{i}" for i in range(len(weights))))
    sharing[named.params[0]] = named, weights
    return named


def _built(
    layer: DrawnLayer,
    shapes: Sequence[Sequence[Shape]],
    phase: Phase,
    dialect: str | None,
    before: Sequence[DrawnLayer],
) -> tuple[Sequence[Shape], Sequence[Shape], Sequence[Shape]] | None:
    """The shapes of its tops, what they are where values lead to larger bottoms, and those of its parameters.

    None where Caffe refuses the layer, or a blob would be empty or large. shapes: of the bottoms, in either case; before:
    the layers so far.
    """
    bottoms, _ = shapes
    proto = _aligned(layer, before, dialect)
    if proto is None:
        return None
    definition = LayerDef(
        "l", layer.kind, layer.bottoms, layer.tops, (), (), proto, phase, NetFolders(Path()), dialect=dialect
    ).with_proto(proto)  # fmt: skip
    try:
        _, parsed = parse_layer(definition, {})
        tops, others = ([tuple(shape) for shape in parsed.top_shapes(sizes)] for sizes in shapes)
        params, other_params = ([tuple(shape) for shape in parsed.weight_shapes(sizes).values()] for sizes in shapes)
        if (
            params != other_params
            or parsed.undecided(bottoms)
            or (definition.is_in_place and parsed.in_place_fault(bottoms, tops))
        ):
            return None
    except LayerError:
        return None
    axis = parsed.open_axis
    if axis is not None:
        more = 1 + len(before)  # another number for each layer, as values need not lead to equal sizes
        others = [(*shape[:axis], shape[axis] + more, *shape[axis + 1 :]) for shape in others]
    sizes = [count(shape) for shape in (*tops, *params)]
    if len(tops) != len(layer.tops) or any(not 0 < size <= MOST_VALUES for size in sizes):
        return None
    return tops, others, params


def _aligned(layer: DrawnLayer, before: Sequence[DrawnLayer], dialect: str | None) -> LayerParameter | None:
    """The layer's definition, with the offset that a crop which looks for it finds; None where it finds none."""
    protos = [
        text_format.Parse(one.fields, LayerParameter(type=one.kind, bottom=one.bottoms, top=one.tops))
        for one in (*before, layer)
    ]
    crop = align_crops(protos, dialect).get(len(before), protos[-1])
    return crop if isinstance(crop, LayerParameter) else None


def drawn(most_layers: int = 12) -> SearchStrategy[DrawnNet]:
    """Nets with at least one layer."""
    return nets(most_layers).filter(lambda net: bool(net.layers))
