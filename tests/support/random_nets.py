"""Legal nets drawn at random by hypothesis, which shrinks those that disagree; `random_net_checks` says with what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from google.protobuf import text_format
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from caffeconv.caffe_format.terms import Phase
from caffeconv.caffe_pb2 import LayerParameter
from caffeconv.errors import LayerError
from caffeconv.files.net_folders import NetFolders
from caffeconv.ir.definition import LayerDef
from caffeconv.layers import LAYERS
from caffeconv.tensor.shape import Shape, count
from support.small_nets import input_layer

MOST_VALUES = 3000
"""Of one blob: small nets are as good, and many of them better."""
TRIES = 4
"""At a layer that Caffe takes."""
FILLER = 'weight_filler { type: "gaussian" std: 0.4 } bias_filler { type: "uniform" min: -0.5 max: 0.5 }'
V1_NAMES = {
    "AbsVal": "ABSVAL", "BNLL": "BNLL", "Concat": "CONCAT", "Convolution": "CONVOLUTION", "Deconvolution": "DECONVOLUTION",
    "Dropout": "DROPOUT", "Eltwise": "ELTWISE", "Exp": "EXP", "Im2col": "IM2COL",
    "InnerProduct": "INNER_PRODUCT", "LRN": "LRN", "MVN": "MVN", "Pooling": "POOLING", "Power": "POWER", "ReLU": "RELU",
    "Sigmoid": "SIGMOID", "Silence": "SILENCE", "Slice": "SLICE", "Softmax": "SOFTMAX", "Split": "SPLIT", "TanH": "TANH",
    "Threshold": "THRESHOLD",
}  # fmt: skip


@dataclass(frozen=True)
class DrawnLayer:
    """A layer: its fields as text, besides name, type, bottoms and tops."""

    kind: str
    fields: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: tuple[str, ...] = ()
    """Names of its parameters; layers with the same names share them."""


@dataclass(frozen=True)
class DrawnNet:
    """A net and what decides which comparisons make sense of it."""

    inputs: dict[str, Shape]
    layers: tuple[DrawnLayer, ...]
    phase: Phase
    seed: int
    is_v1: bool
    whole_numbers: Mapping[str, int] = field(default_factory=dict)
    """Inputs that hold whole numbers → how many: labels, and whether a sequence goes on."""

    @property
    def text(self) -> str:
        lines = [input_layer(name, shape) for name, shape in self.inputs.items()] if not self.is_v1 else []
        for name, shape in self.inputs.items() if self.is_v1 else ():
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


Fields = Callable[[DrawFn, Sequence[Shape]], str]


def few(draw: DrawFn, *values: float | str) -> float | str:
    return draw(st.sampled_from(values))


def number(draw: DrawFn, least: int, most: int) -> int:
    return draw(st.integers(least, most))


def axis(draw: DrawFn, shape: Shape, least: int = 0) -> int:
    return draw(st.integers(least, len(shape) - 1)) if len(shape) > least else least


def _window(draw: DrawFn, axes: int, *, dilates: bool = True) -> str:
    if axes == 2 and draw(st.booleans()):
        sides = [f"{name}_{side}: {number(draw, 0 if name == 'pad' else 1, 3)}" for name in ("kernel", "stride", "pad")
                 for side in "hw"]  # fmt: skip
        return " ".join(sides)
    dilation = f"dilation: {number(draw, 0, 2)}" if dilates and draw(st.booleans()) else ""
    return f"kernel_size: {number(draw, 1, 4)} stride: {number(draw, 1, 3)} pad: {number(draw, 0, 2)} {dilation}"


def _convolution(draw: DrawFn, shapes: Sequence[Shape]) -> str:
    start = number(draw, 1, 2) if len(shapes[0]) > 3 and number(draw, 0, 5) == 0 else 1
    channels = shapes[0][start] if start < len(shapes[0]) else 1
    group = draw(st.sampled_from([g for g in (1, 1, 2, 3, channels) if channels % g == 0]))
    outputs = group * number(draw, 1, 3)
    bias = "" if draw(st.booleans()) else "bias_term: false"
    window = _window(draw, len(shapes[0]) - start - 1)
    return f"convolution_param {{ num_output: {outputs} group: {group} axis: {start} {window} {bias} {FILLER} }}"


def _pooling(draw: DrawFn, shapes: Sequence[Shape]) -> str:
    method, rounding = few(draw, "MAX", "AVE"), few(draw, "", "round_mode: FLOOR")
    if number(draw, 0, 4) == 0:
        return f"pooling_param {{ pool: {method} global_pooling: true }}"
    return f"pooling_param {{ pool: {method} {_window(draw, 2, dilates=False)} {rounding} }}"


def _inner_product(draw: DrawFn, shapes: Sequence[Shape]) -> str:
    bias, transpose = few(draw, "", "bias_term: false"), few(draw, "", "transpose: true")
    start = axis(draw, shapes[0], 1)
    return f"inner_product_param {{ num_output: {number(draw, 1, 6)} axis: {start} {bias} {transpose} {FILLER} }}"


def _lrn(draw: DrawFn, shapes: Sequence[Shape]) -> str:
    region = few(draw, "ACROSS_CHANNELS", "WITHIN_CHANNEL")
    beta, k = few(draw, 0.75, 0.5, 1.25), few(draw, 1, 2)
    return f"lrn_param {{ local_size: {few(draw, 1, 3, 5)} alpha: 0.3 beta: {beta} k: {k} norm_region: {region} }}"


def _reshape(draw: DrawFn, shapes: Sequence[Shape]) -> str:
    first = draw(st.sampled_from([0, 0, -1]))
    dims = [
        first,
        *draw(st.lists(st.sampled_from([1, 2, 3] if first == -1 else [-1, 1, 2, 3]), min_size=1, max_size=3)),
    ]
    return f"reshape_param {{ shape {{ {' '.join(f'dim: {dim}' for dim in dims)} }} }}"


def _slice(draw: DrawFn, shapes: Sequence[Shape]) -> str:
    where = axis(draw, shapes[0], 1)
    size = shapes[0][where] if where < len(shapes[0]) else 1
    points = f"slice_point: {number(draw, 1, max(1, size - 1))}" if draw(st.booleans()) else ""
    return f"slice_param {{ axis: {where} {points} }}"


def _eltwise(draw: DrawFn, shapes: Sequence[Shape]) -> str:
    operation = few(draw, "SUM", "PROD", "MAX")
    weights = (
        " ".join(f"coeff: {few(draw, 1, -1, 0.5)}" for _ in shapes)
        if operation == "SUM" and draw(st.booleans())
        else ""
    )
    stable = few(draw, "", "stable_prod_grad: false") if operation == "PROD" else ""
    return f"eltwise_param {{ operation: {operation} {weights} {stable} }}"


def _scale(draw: DrawFn, shapes: Sequence[Shape]) -> str:
    start = axis(draw, shapes[0])
    number_of_axes = number(draw, 0, len(shapes[0]) - start) if draw(st.booleans()) else 1
    bias = few(draw, "", 'bias_term: true bias_filler { type: "uniform" min: -1 max: 1 }')
    return f'scale_param {{ axis: {start} num_axes: {number_of_axes} filler {{ type: "uniform" min: 0.5 max: 2 }} {bias} }}'


def _reduction(draw: DrawFn, shapes: Sequence[Shape]) -> str:
    operation, factor = few(draw, "SUM", "ASUM", "SUMSQ", "MEAN"), few(draw, 1, 0.5, -2)
    return f"reduction_param {{ operation: {operation} axis: {axis(draw, shapes[0])} coeff: {factor} }}"


def choice(message: str = "", **choices: tuple[float | str, ...]) -> Fields:
    """Fields of a message, each drawn from what is given for it; ``"axis"`` stands for an axis, ``"item axis"`` for one
    behind the batch's."""

    def draw_fields(draw: DrawFn, shapes: Sequence[Shape]) -> str:
        chosen = {name: few(draw, *values) for name, values in choices.items()}
        axes = {"axis": axis(draw, shapes[0]), "item axis": axis(draw, shapes[0], 1)}
        text = " ".join(f"{name}: {axes.get(str(value), value)}" for name, value in chosen.items())
        return f"{message} {{ {text} }}" if message else ""

    return draw_fields


BOTH = ("true", "false")
UNIFORM = '{ type: "uniform" min: -1 max: 1 }'
KINDS: dict[str, tuple[int, int, Fields]] = {
    "AbsVal": (1, 1, choice()), "BNLL": (1, 1, choice()), "Sigmoid": (1, 1, choice()), "TanH": (1, 1, choice()),
    "Swish": (1, 1, choice("swish_param", beta=(1, 0.5, 2))),
    "ELU": (1, 1, choice("elu_param", alpha=(1, 0.5, 0))),
    "ReLU": (1, 1, choice("relu_param", negative_slope=(0, 0.1))),
    "PReLU": (1, 1, choice("prelu_param", channel_shared=BOTH)),
    "Exp": (1, 1, choice("exp_param", base=(-1, 2), scale=(0.25, -0.5), shift=(0, 0.5))),
    "Power": (1, 1, choice("power_param", power=(0, 1, 2, 3), scale=(1, 0.5, 0), shift=(0, 1))),
    "Threshold": (1, 1, choice("threshold_param", threshold=(0, 0.3))),
    "Clip": (1, 1, choice("clip_param", min=(-1, 0.5), max=(0, 1))),
    "Dropout": (1, 1, choice("dropout_param", dropout_ratio=(0, 0.5, 1))),
    "BatchNorm": (1, 1, choice("batch_norm_param", use_global_stats=BOTH, eps=(0.1, 1e-5))),
    "MVN": (1, 1, choice("mvn_param", normalize_variance=BOTH, across_channels=BOTH)),
    "Bias": (1, 1, choice("bias_param", axis=("axis",), filler=(UNIFORM,))),
    "Scale": (1, 1, _scale),
    "LRN": (1, 1, _lrn),
    "Convolution": (1, 1, _convolution), "Deconvolution": (1, 1, _convolution), "Pooling": (1, 1, _pooling),
    "Im2col": (1, 1, lambda draw, shapes: f"convolution_param {{ {_window(draw, len(shapes[0]) - 2)} }}"),
    "InnerProduct": (1, 1, _inner_product),
    "SPP": (1, 1, choice("spp_param", pyramid_height=(1, 2, 3), pool=("MAX", "AVE"))),
    "Flatten": (1, 1, choice("flatten_param", axis=("item axis",))),
    "Reshape": (1, 1, _reshape), "Split": (1, 2, choice()), "Slice": (1, 2, _slice),
    "Concat": (2, 1, choice("concat_param", axis=("item axis",))),
    "Tile": (1, 1, choice("tile_param", axis=("item axis",), tiles=(1, 2, 3))),
    "Crop": (2, 1, choice("crop_param", axis=("item axis",), offset=(0, 1))),
    "Eltwise": (2, 1, _eltwise),
    "Softmax": (1, 1, choice("softmax_param", axis=("axis",))),
    "Reduction": (1, 1, _reduction),
    "ArgMax": (1, 1, choice("argmax_param", out_max_val=BOTH, axis=("item axis",))),
    "Silence": (1, 0, choice()),
    "EuclideanLoss": (2, 1, choice()), "SigmoidCrossEntropyLoss": (2, 1, choice()),
}  # fmt: skip
LABELLED: dict[str, tuple[int, Fields]] = {
    "SoftmaxWithLoss": (1, choice("loss_param", normalization=("FULL", "VALID", "BATCH_SIZE", "NONE"))),
    "MultinomialLogisticLoss": (1, choice()),
    "HingeLoss": (1, choice("hinge_loss_param", norm=("L1", "L2"))),
    "InfogainLoss": (1, choice("loss_param", normalization=("FULL", "VALID", "BATCH_SIZE", "NONE"))),
    "ContrastiveLoss": (2, choice("contrastive_loss_param", margin=(1, 3), legacy_version=BOTH)),
    "Accuracy": (1, choice("accuracy_param", top_k=(1, 2))),
    "LSTM": (1, choice("recurrent_param", num_output=(1, 3), weight_filler=(UNIFORM,), bias_filler=(UNIFORM,))),
    "RNN": (1, choice("recurrent_param", num_output=(1, 3), weight_filler=(UNIFORM,), bias_filler=(UNIFORM,))),
}
"""Types whose last bottom is an input of whole numbers; the number of bottoms before it."""
LOSSES = ("EuclideanLoss", "SigmoidCrossEntropyLoss", "SoftmaxWithLoss", "MultinomialLogisticLoss", "HingeLoss",
          "InfogainLoss", "ContrastiveLoss")  # fmt: skip
OFTEN = ("Convolution",) * 8 + (
    "Deconvolution",
    "Pooling",
    "InnerProduct",
    "Eltwise",
    "Concat",
    "Scale",
    "BatchNorm",
) * 3
"""Types with much to draw, so that these come more often."""
IN_PLACE = ("ReLU", "ELU", "Sigmoid", "TanH", "BNLL", "Power", "Exp", "Dropout", "PReLU", "Scale", "Bias", "BatchNorm", "MVN",
            "Swish", "Clip", "Threshold", "Softmax", "Eltwise", "Concat", "Tile", "Convolution", "LRN")  # fmt: skip


@st.composite
def nets(draw: DrawFn, most_layers: int = 12) -> DrawnNet:
    """Nets of 1 to that many layers over one or two inputs; what Caffe refuses is left out as it is drawn."""
    phase: Phase = draw(st.sampled_from(["TEST", "TEST", "TRAIN"]))
    rank = draw(st.sampled_from([4, 4, 4, 2, 3, 5]))
    shape = (number(draw, 1, 3), draw(st.sampled_from([1, 2, 3, 4])), *(number(draw, 1, 7) for _ in range(rank - 2)))
    blobs = {"x": shape, "z": shape}
    written_over: set[str] = {"x", "z"}
    layers: list[DrawnLayer] = []
    sharing: dict[str, tuple[DrawnLayer, tuple[Shape, ...]]] = {}
    inputs, whole_numbers = {"x": shape, "z": shape}, dict[str, int]()
    for step in range(draw(st.integers(min(4, most_layers), most_layers))):
        for _ in range(TRIES):
            extra: dict[str, Shape] = {}
            if number(draw, 0, 7) == 0:
                layer, extra = draw(_labelled_layers(blobs, step))
            else:
                layer = draw(_layers(blobs, written_over, step))
            built = _built(layer, [(blobs | extra)[blob] for blob in layer.bottoms], phase)
            if built is not None:
                break
        else:
            continue
        tops, weights = built
        layer = draw(_with_shared_params(layer, weights, sharing))
        inputs |= extra
        whole_numbers |= {name: _numbers_of(layer, blobs) for name in extra if not name.startswith("H")}
        layers.append(layer)
        written_over |= set(layer.bottoms) - set(layer.tops)
        blobs |= dict(zip(layer.tops, tops, strict=True))
    is_v1 = bool(layers) and all(layer.kind in V1_NAMES for layer in layers) and draw(st.booleans())
    return DrawnNet(inputs, tuple(layers), phase, draw(st.integers(0, 2**16)), is_v1, whole_numbers)


def _numbers_of(layer: DrawnLayer, blobs: Mapping[str, Shape]) -> int:
    """How many whole numbers the layer's labels may be."""
    scores = blobs[layer.bottoms[0]]
    return 2 if layer.kind in ("LSTM", "RNN", "ContrastiveLoss") else scores[1] if len(scores) > 1 else 1


@st.composite
def _labelled_layers(draw: DrawFn, blobs: dict[str, Shape], step: int) -> tuple[DrawnLayer, dict[str, Shape]]:
    """A layer that takes labels, and the inputs that hold these."""
    kind = draw(st.sampled_from([*LABELLED]))
    bottoms, fields = LABELLED[kind]
    first = draw(st.sampled_from([*blobs][::-1]))
    shape = blobs[first]
    fitting = [name for name in blobs if blobs[name] == shape]
    chosen = (first, *(draw(st.sampled_from(fitting)) for _ in range(bottoms - 1)))
    label = (*shape[:1], *shape[2:]) if kind in ("SoftmaxWithLoss", "InfogainLoss", "Accuracy") else shape[:1]
    extra = {f"n{step}": shape[:2] if kind in ("LSTM", "RNN") else label}
    if kind == "InfogainLoss" and len(shape) > 1:
        extra[f"H{step}"] = (1, 1, shape[1], shape[1])
    return DrawnLayer(kind, fields(draw, [shape]), (*chosen, *extra), (f"b{step}_0",)), extra


@st.composite
def _with_shared_params(
    draw: DrawFn, layer: DrawnLayer, weights: tuple[Shape, ...],
    sharing: dict[str, tuple[DrawnLayer, tuple[Shape, ...]]],
) -> DrawnLayer:  # fmt: skip
    """The layer, at times with names for its parameters: those of an earlier layer whose parameters have the same shapes."""
    if not weights or layer.kind == "BatchNorm" or number(draw, 0, 2):
        return layer
    owners = [owner for owner, shapes in sharing.values() if shapes == weights]
    if owners:
        return replace(layer, params=draw(st.sampled_from(owners)).params)
    named = replace(layer, params=tuple(f"{layer.tops[0]}_{i}" for i in range(len(weights))))
    sharing[layer.tops[0]] = named, weights
    return named


@st.composite
def _layers(draw: DrawFn, blobs: dict[str, Shape], read: set[str], step: int) -> DrawnLayer:
    kind = draw(st.sampled_from([*KINDS, *OFTEN]))
    bottoms, tops, fields = KINDS[kind]
    names = list(blobs)[::-1]
    first = draw(st.sampled_from(names))
    # a second bottom of the same shape, where there is one, is what most types want
    fitting = [name for name in names if blobs[name] == blobs[first] and name != first] or names
    chosen = (first, *(draw(st.sampled_from(fitting)) for _ in range(bottoms - 1)))
    text = fields(draw, [blobs[name] for name in chosen])
    in_place = kind in IN_PLACE and first not in read and chosen.count(first) == 1 and draw(st.booleans())
    return DrawnLayer(kind, text, chosen, (first,) if in_place else tuple(f"b{step}_{i}" for i in range(tops)))


def _built(layer: DrawnLayer, bottoms: Sequence[Shape], phase: Phase) -> tuple[list[Shape], tuple[Shape, ...]] | None:
    """The shapes of its tops and of its parameters; None where Caffe refuses the layer, or a blob would be empty or large."""
    proto = text_format.Parse(layer.fields, LayerParameter(type=layer.kind, bottom=layer.bottoms, top=layer.tops))
    definition = LayerDef(
        "l", layer.kind, layer.bottoms, layer.tops, (), (), proto, phase, NetFolders(Path())
    ).with_proto(proto)
    try:
        parsed = LAYERS[layer.kind].parse(definition)
        tops = [tuple(shape) for shape in parsed.top_shapes(bottoms)]
        params = tuple(tuple(shape) for shape in parsed.weight_shapes(bottoms).values())
        if definition.is_in_place and parsed.in_place_fault(bottoms, tops):
            return None
    except LayerError:
        return None
    sizes = [count(shape) for shape in (*tops, *params)]
    if len(tops) != len(layer.tops) or any(not 0 < size <= MOST_VALUES for size in sizes):
        return None
    return tops, params


def drawn(most_layers: int = 12) -> SearchStrategy[DrawnNet]:
    """Nets with at least one layer."""
    return nets(most_layers).filter(lambda net: bool(net.layers))
