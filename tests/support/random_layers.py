"""What a random net's layers are drawn from: Caffe's own types, each with its parameter space; `random_fork_layers` has
those of forks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from numpy.typing import NDArray

from caffeconv.tensor.shape import Shape
from support.small_nets import Array

FILLER = 'weight_filler { type: "gaussian" std: 0.4 } bias_filler { type: "uniform" min: -0.5 max: 0.5 }'
UNIFORM = '{ type: "uniform" min: -1 max: 1 }'
POSITIVE = '{ type: "uniform" min: 0.5 max: 2 }'
BOTH = ("true", "false")
Value = float | str | None
"""Of a field; None leaves the field out."""


@dataclass(frozen=True)
class DrawnLayer:
    """A layer: its fields as text, besides name, type, bottoms and tops."""

    kind: str
    fields: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: tuple[str, ...] = ()
    """Names of its parameters; layers with the same names share them."""


def _regions(random: np.random.Generator, shape: Shape, most: int) -> NDArray[np.float64]:
    """Rows (picture, x1, y1, x2, y2), and what may follow; pictures below `most`."""
    rows = shape[0]
    ends = np.sort(random.uniform(-2, 14, (rows, 2, 2)), axis=1)
    values = np.concatenate([random.integers(0, most, (rows, 1)), ends.reshape(rows, 4)], axis=1)
    return np.concatenate([values, random.uniform(0, 1, (rows, shape[1] - 5))], axis=1)


def _priors(random: np.random.Generator, shape: Shape, most: int) -> NDArray[np.float64]:
    boxes = np.sort(random.uniform(0, 1, (shape[2] // 4, 2, 2)), axis=1)
    return np.stack([boxes.ravel(), np.full(shape[2], 0.1)])[None]


def _starts(random: np.random.Generator, shape: Shape, most: int) -> NDArray[np.int64]:
    """Whether a sequence goes on: none at the first step."""
    values = random.integers(0, 2, shape)
    values[0] = 0
    return values


AnyNumbers = NDArray[np.float64] | NDArray[np.int64]
CONTENTS: dict[str, Callable[[np.random.Generator, Shape, int], AnyNumbers]] = {
    "normal": lambda random, shape, most: random.normal(0, 1, shape),
    "whole": lambda random, shape, most: random.integers(0, most, shape),
    # apart from each other, so that no order hangs on how a sum is rounded
    "scores": lambda random, shape, most: (random.permutation(int(np.prod(shape))).reshape(shape) + 0.5) / np.prod(shape),
    "picture size": lambda random, shape, most: np.tile([24.0, 32, 1, 1][: shape[-1]], (*shape[:-1], 1)),
    "regions": _regions, "priors": _priors, "starts": _starts,
}  # fmt: skip


@dataclass(frozen=True)
class DrawnInput:
    """An input of the net, and what it holds: one of CONTENTS, and the number that this goes by."""

    shape: Shape
    content: str = "normal"
    most: int = 1

    def values(self, random: np.random.Generator) -> Array:
        return np.asarray(CONTENTS[self.content](random, self.shape, self.most), np.float32)


@dataclass
class Sketch:
    """What a layer is drawn with: the blobs that it may read, and the inputs that it adds to the net."""

    draw: DrawFn
    blobs: dict[str, Shape]
    step: int
    phase: str = "TEST"
    inputs: dict[str, DrawnInput] = field(default_factory=dict)

    def few(self, *values: Value) -> Value:
        return self.draw(st.sampled_from(values))

    def number(self, least: int, most: int) -> int:
        return self.draw(st.integers(least, most))

    def chance(self) -> bool:
        return self.draw(st.booleans())

    def items(self) -> int:
        return self.blobs["x"][0]

    def shape(self, blob: str) -> Shape:
        return self.blobs[blob]

    def blob(self, axes: int | None = None) -> str:
        """A blob of so many axes; a new input where there is none."""
        names = [name for name, shape in self.blobs.items() if axes is None or len(shape) == axes][::-1]
        if not names:
            shape = self.items(), *(self.number(1, 4) for _ in range((axes or 4) - 1))
            return self.input(shape)
        return self.draw(st.sampled_from(names))

    def like(self, shape: Shape, content: str = "normal", most: int = 1) -> str:
        """A blob of that shape, where values of any kind will do; else a new input."""
        names = [name for name, other in self.blobs.items() if other == shape][::-1]
        if content == "normal" and names and self.chance():
            return self.draw(st.sampled_from(names))
        return self.input(shape, content, most)

    def input(self, shape: Shape, content: str = "normal", most: int = 1) -> str:
        name = f"i{self.step}_{len(self.inputs)}"
        self.inputs[name] = DrawnInput(shape, content, most)
        self.blobs[name] = shape
        return name

    def axis(self, shape: Shape, least: int = 0) -> int:
        return self.number(least, len(shape) - 1) if len(shape) > least else least

    def fields(self, message: str, **choices: Value | tuple[Value, ...]) -> str:
        """Fields of a message, each drawn from what is given for it."""
        chosen = {name: self.few(*values) if isinstance(values, tuple) else values for name, values in choices.items()}
        text = " ".join(f"{name}: {value}" if not str(value).startswith("{") else f"{name} {value}"
                        for name, value in chosen.items() if value is not None)  # fmt: skip
        return f"{message} {{ {text} }}"


def times(name: str, values: Sequence[object]) -> str:
    """A repeated field."""
    return " ".join(f"{name}: {value}" for value in values)


Layout = tuple[str, Sequence[str], int]
"""Fields, bottoms, and how many tops."""
Kind = Callable[[Sketch], Layout]


def window(sketch: Sketch, axes: int, *, dilates: bool = True, padded: bool = True) -> str:
    """kernel_size, stride, pad and dilation over so many axes, in one of their spellings."""
    if axes == 2 and sketch.chance():
        names = ("kernel", "stride", "pad") if padded else ("kernel", "stride")
        return " ".join(
            f"{name}_{side}: {sketch.number(0 if name == 'pad' else 1, 3)}" for name in names for side in "hw"
        )
    if axes > 1 and dilates and sketch.number(0, 3) == 0:
        ranges = {"kernel_size": (1, 3), "stride": (1, 2), "pad": (0, 2), "dilation": (1, 2)}
        return " ".join(
            times(name, [sketch.number(*least_and_most) for _ in range(axes)])
            for name, least_and_most in ranges.items()
        )
    dilation = f"dilation: {sketch.number(0, 2)}" if dilates and sketch.chance() else ""
    pad = f"pad: {sketch.number(0, 2)}" if padded else ""
    return f"kernel_size: {sketch.number(1, 4)} stride: {sketch.number(1, 3)} {pad} {dilation}"


def forks_window(sketch: Sketch, axes: int) -> str:
    """At times the fields of forks besides: holes, pads of each side, a pad that keeps the size."""
    turn = sketch.number(0, 9) if axes == 2 else 9
    if turn == 0:
        return " ".join(f"pad_{side}: {sketch.number(0, 2)}" for side in "lrtb")
    return f"hole: {sketch.number(1, 2)}" if turn == 1 else "pad_type: 1" if turn == 2 else ""


def convolution(sketch: Sketch) -> Layout:
    x = sketch.blob()
    shape = sketch.shape(x)
    start = sketch.number(1, 2) if len(shape) > 3 and sketch.number(0, 5) == 0 else 1
    channels = shape[start] if start < len(shape) else 1
    group = int(sketch.few(*(g for g in (1, 1, 2, 3, channels) if channels % g == 0)) or 1)
    axes = len(shape) - start - 1
    fields = sketch.fields(
        "convolution_param", num_output=group * sketch.number(1, 3), group=group, axis=start, bias_term=(None, "false"),
        force_nd_im2col=(None, None, "true"),
    )  # fmt: skip
    extra = forks_window(sketch, axes)
    pads = "pad_" not in extra
    text = f"{fields[:-1]} {window(sketch, axes, dilates='hole' not in extra, padded=pads)} {extra} {FILLER} }}"
    bottoms = [x, *([sketch.like(shape)] if sketch.number(0, 9) == 0 else [])]
    return text, bottoms, len(bottoms)


def _pooling(sketch: Sketch) -> Layout:
    x = sketch.blob()
    method = sketch.few("MAX", "AVE", "MAX", "AVE", "AVE_EXC_PAD")
    tops = 2 if method == "MAX" and sketch.number(0, 4) == 0 else 1
    if sketch.number(0, 4) == 0:
        return f"pooling_param {{ pool: {method} global_pooling: true }}", [x], tops
    extra = forks_window(sketch, 2).replace("hole: 1", "ceil_mode: false").replace("hole: 2", "ceil_mode: true")
    rounding = sketch.few("", "round_mode: FLOOR") if "ceil" not in extra else ""
    sizes = window(sketch, 2, dilates=False, padded="pad_" not in extra)
    return f"pooling_param {{ pool: {method} {sizes} {rounding} {extra} }}", [x], tops


def _inner_product(sketch: Sketch) -> Layout:
    x = sketch.blob()
    fields = sketch.fields(
        "inner_product_param", num_output=(1, 2, 4, 6), axis=sketch.axis(sketch.shape(x), 1), bias_term=(None, "false"),
        transpose=(None, "true"), normalize=(None, None, None, "true"),
    )  # fmt: skip
    return f"{fields[:-1]} {FILLER} }}", [x], 1


def _reshape(sketch: Sketch) -> Layout:
    x = sketch.blob()
    axes, first = len(sketch.shape(x)), sketch.few(0, 0, -1)
    sizes = (1, 2, 3) if first == -1 else (-1, 1, 2, 3)
    dims = [sketch.few(*sizes) for _ in range(sketch.number(1, 3))]
    if sketch.number(0, 3):
        return f"reshape_param {{ shape {{ {times('dim', [first, *dims])} }} }}", [x], 1
    start = sketch.axis(sketch.shape(x), 1)
    part = f"axis: {start} num_axes: {sketch.number(-1, max(0, axes - start))}"
    return f"reshape_param {{ {part} shape {{ {times('dim', dims)} }} }}", [x], 1


def _slice(sketch: Sketch) -> Layout:
    x = sketch.blob()
    where = sketch.axis(sketch.shape(x), 1)
    size = sketch.shape(x)[where] if where < len(sketch.shape(x)) else 1
    tops = int(sketch.few(*(n for n in (1, 2, 3, size) if size % n == 0 and n < 5)) or 1)
    points = sorted({sketch.number(1, max(1, size - 1)) for _ in range(tops - 1)}) if sketch.chance() else []
    return f"slice_param {{ axis: {where} {times('slice_point', points)} }}", [x], len(points) + 1 if points else tops


def _several(sketch: Sketch, *, most: int = 3) -> list[str]:
    """A blob, and others of its shape where there are such."""
    first = sketch.blob()
    others = [name for name, shape in sketch.blobs.items() if shape == sketch.shape(first) and name != first][::-1]
    others = others or [*sketch.blobs]
    return [first, *(sketch.draw(st.sampled_from(others)) for _ in range(sketch.number(1, most - 1)))]


def _eltwise(sketch: Sketch) -> Layout:
    blobs, operation = _several(sketch), sketch.few("SUM", "PROD", "MAX")
    weights = times("coeff", [sketch.few(1, -1, 0.5) for _ in blobs]) if operation == "SUM" and sketch.chance() else ""
    stable = sketch.few("", "stable_prod_grad: false") if operation == "PROD" else ""
    return f"eltwise_param {{ operation: {operation} {weights} {stable} }}", blobs, 1


def _concat(sketch: Sketch) -> Layout:
    blobs = _several(sketch)
    return sketch.fields("concat_param", axis=sketch.axis(sketch.shape(blobs[0]), 1)), blobs, 1


def _scale(sketch: Sketch) -> Layout:
    x = sketch.blob()
    start = sketch.axis(sketch.shape(x))
    number_of_axes = sketch.number(0, len(sketch.shape(x)) - start) if sketch.chance() else 1
    second = [] if sketch.number(0, 4) else [sketch.like(sketch.shape(x)[start : start + number_of_axes])]
    bias = sketch.few("", f"bias_term: true bias_filler {UNIFORM}")
    return f"scale_param {{ axis: {start} num_axes: {number_of_axes} filler {POSITIVE} {bias} }}", [x, *second], 1


def _bias(sketch: Sketch) -> Layout:
    x = sketch.blob()
    start, number_of_axes = sketch.axis(sketch.shape(x)), sketch.number(0, 2)
    second = [] if sketch.number(0, 4) else [sketch.like(sketch.shape(x)[start : start + number_of_axes])]
    return sketch.fields("bias_param", axis=start, num_axes=number_of_axes, filler=UNIFORM), [x, *second], 1


def _im2col(sketch: Sketch) -> Layout:
    x = sketch.blob()
    return f"convolution_param {{ {window(sketch, len(sketch.shape(x)) - 2)} }}", [x], 1


def _softmax(sketch: Sketch) -> Layout:
    x = sketch.blob()
    return sketch.fields("softmax_param", axis=(None, sketch.axis(sketch.shape(x)))), [x], 1


def _flatten(sketch: Sketch) -> Layout:
    x = sketch.blob()
    start = sketch.axis(sketch.shape(x), 1)
    end = sketch.number(start, max(start, len(sketch.shape(x)) - 1))
    return sketch.fields("flatten_param", axis=start, end_axis=(None, end)), [x], 1


def _crop(sketch: Sketch) -> Layout:
    x = sketch.blob()
    shape = sketch.shape(x)
    start = sketch.axis(shape, 1)
    offsets = [sketch.number(0, 1) for _ in range(int(sketch.few(1, max(1, len(shape) - start)) or 1))]
    all_offsets = offsets * (len(shape) - start) if len(offsets) == 1 else offsets
    cut = (max(1, size - offset) for size, offset in zip(shape[start:], all_offsets, strict=True))
    like = sketch.like((*shape[:start], *cut)) if len(shape) > start else x
    if sketch.number(0, 4) == 0:  # offset 0 in Caffe; in HED's dialect what the net says
        return "", [x, sketch.blob(len(shape))], 1
    return f"crop_param {{ axis: {start} {times('offset', offsets)} }}", [x, like], 1


def one(message: str = "", *, axes: int | None = None, tops: int = 1, **choices: tuple[Value, ...]) -> Kind:
    """A layer over any blob, or one of so many axes; ``"axis"`` stands for an axis, ``"item axis"`` for one behind the
    batch's."""

    def drawn(sketch: Sketch) -> Layout:
        x = sketch.blob(axes)
        places = {"axis": sketch.axis(sketch.shape(x)), "item axis": sketch.axis(sketch.shape(x), 1)}
        chosen = {name: tuple(places.get(str(value), value) for value in values) for name, values in choices.items()}
        return (sketch.fields(message, **chosen) if message else ""), [x], tops

    return drawn


def two(message: str = "", **choices: tuple[Value, ...]) -> Kind:
    """A layer over two blobs, of one shape where there are such."""
    return lambda sketch: (sketch.fields(message, **choices) if message else "", _several(sketch, most=2), 1)


def labelled(message: str = "", *, scores: int = 1, classes: int = 0, axes: int | None = None, per_place: bool = False,
             **choices: tuple[Value, ...]) -> Kind:  # fmt: skip
    """A layer whose last bottom is an input of labels, below `classes`, or the number of the first bottom's channels.

    scores: how many bottoms go before it. per_place: a label for each place, else one for each item.
    """

    def drawn(sketch: Sketch) -> Layout:
        first = sketch.blob(axes)
        shape = sketch.shape(first)
        fitting = [name for name in sketch.blobs if sketch.blobs[name] == shape]
        chosen = [first, *(sketch.draw(st.sampled_from(fitting)) for _ in range(scores - 1))]
        label = (*shape[:1], *shape[2:]) if per_place else shape[:1]
        numbers = classes or (shape[1] if len(shape) > 1 else 1)
        fields = sketch.fields(message, **choices) if message else ""
        return fields, [*chosen, sketch.input(label, "whole", numbers)], 1

    return drawn


def _infogain(sketch: Sketch) -> Layout:
    fields, bottoms, tops = labelled(
        "loss_param", per_place=True, normalization=("FULL", "VALID", "BATCH_SIZE", "NONE")
    )(sketch)
    channels = (*sketch.shape(bottoms[0]), 1, 1)[1]
    return fields, [*bottoms, sketch.input((1, 1, channels, channels))], tops


def _recurrent(sketch: Sketch) -> Layout:
    x = sketch.blob()
    shape = sketch.shape(x)
    static = [sketch.like((shape[1], 2))] if len(shape) > 1 and sketch.number(0, 3) == 0 else []
    fields = sketch.fields("recurrent_param", num_output=(1, 3), weight_filler=UNIFORM, bias_filler=UNIFORM)
    return fields, [x, sketch.input(shape[:2], "whole", 2), *static], 1


def _lstm_unit(sketch: Sketch) -> Layout:
    streams, size = sketch.number(1, 3), sketch.number(1, 3)
    blobs = [sketch.like((1, streams, size)), sketch.like((1, streams, 4 * size))]
    return "", [*blobs, sketch.input((1, streams), "whole", 2)], 2


def _embed(sketch: Sketch) -> Layout:
    rows = sketch.number(1, 5)
    shape = sketch.items(), *(sketch.number(1, 3) for _ in range(sketch.number(0, 2)))
    fields = sketch.fields("embed_param", num_output=(1, 3), input_dim=rows, bias_term=(None, "false"))
    return f"{fields[:-1]} {FILLER} }}", [sketch.input(shape, "whole", rows)], 1


def _batch_reindex(sketch: Sketch) -> Layout:
    x = sketch.blob()
    return "", [x, sketch.input((sketch.number(1, 4),), "whole", sketch.shape(x)[0] if sketch.shape(x) else 1)], 1


def _filter(sketch: Sketch) -> Layout:
    x = sketch.blob()
    items = (*sketch.shape(x), 1)[0]
    selector = (items, 1, 1)[: sketch.number(1, 3)]
    return "", [x, sketch.input(selector, "whole", 2)], 1


def _parameter(sketch: Sketch) -> Layout:
    dims = times("dim", [sketch.number(1, 4) for _ in range(sketch.number(0, 4))])
    return f"parameter_param {{ shape {{ {dims} }} filler {UNIFORM} }}", [], 1


def _dummy_data(sketch: Sketch) -> Layout:
    dims = times("dim", [sketch.number(1, 4) for _ in range(sketch.number(0, 4))])
    return f"dummy_data_param {{ shape {{ {dims} }} data_filler {{ value: {sketch.few(0, 0.5)} }} }}", [], 1


NORMALIZATIONS = ("FULL", "VALID", "BATCH_SIZE", "NONE")
OWN_KINDS: dict[str, Kind] = {
    "AbsVal": one(), "BNLL": one(), "Sigmoid": one(), "TanH": one(),
    "Swish": one("swish_param", beta=(1, 0.5, 2)),
    "ELU": one("elu_param", alpha=(1, 0.5, 0)),
    "ReLU": one("relu_param", negative_slope=(None, 0, 0.1), relu6=(None, None, None, "true")),
    "PReLU": one("prelu_param", channel_shared=BOTH, filler=(None, UNIFORM)),
    "Exp": one("exp_param", base=(-1, 2), scale=(0.25, -0.5), shift=(0, 0.5)),
    "Log": one("log_param", base=(-1, 2, 10), scale=(0.25, -0.1), shift=(4, 6)),
    "Power": one("power_param", power=(0, 1, 2, 3), scale=(1, 0.5, 0), shift=(0, 1)),
    "Threshold": one("threshold_param", threshold=(0, 0.3)),
    "Clip": one("clip_param", min=(-1, 0.5), max=(0, 1)),
    "Dropout": one("dropout_param", dropout_ratio=(0, 0.5, 1), scale_train=(None, None, "false")),
    "BatchNorm": one("batch_norm_param", use_global_stats=(*BOTH, None), eps=(0.1, 1e-5)),
    "MVN": one("mvn_param", normalize_variance=BOTH, across_channels=BOTH, eps=(None, 0.01),
               add_eps_before_sqrt=(None, "true")),
    "Bias": _bias, "Scale": _scale,
    "LRN": one("lrn_param", axes=4, local_size=(1, 3, 5), alpha=(0.3,), beta=(0.75, 0.5, 1.25), k=(1, 2),
               norm_region=("ACROSS_CHANNELS", "WITHIN_CHANNEL")),
    "Convolution": convolution, "Deconvolution": convolution, "Pooling": _pooling, "Im2col": _im2col,
    "InnerProduct": _inner_product,
    "SPP": one("spp_param", pyramid_height=(1, 2, 3), pool=("MAX", "AVE")),
    "Flatten": _flatten, "Reshape": _reshape, "Split": one(tops=2), "Slice": _slice, "Concat": _concat,
    "Tile": one("tile_param", axis=("item axis",), tiles=(1, 2, 3)),
    "Crop": _crop, "Eltwise": _eltwise, "Softmax": _softmax,
    "Reduction": one("reduction_param", operation=("SUM", "ASUM", "SUMSQ", "MEAN"), axis=("axis",), coeff=(1, 0.5, -2)),
    "ArgMax": one("argmax_param", out_max_val=BOTH, axis=(None, "item axis"), top_k=(None, 1, 2)),
    "Silence": one(tops=0), "Parameter": _parameter, "DummyData": _dummy_data,
    "EuclideanLoss": two(), "SigmoidCrossEntropyLoss": two("loss_param", normalization=(None, *NORMALIZATIONS)),
    "SoftmaxWithLoss": labelled("loss_param", per_place=True, normalization=NORMALIZATIONS, ignore_label=(None, 0)),
    "MultinomialLogisticLoss": labelled(),
    "HingeLoss": labelled("hinge_loss_param", norm=("L1", "L2")),
    "InfogainLoss": _infogain,
    "ContrastiveLoss": labelled("contrastive_loss_param", scores=2, classes=2, axes=2, margin=(1, 3), legacy_version=BOTH),
    "Accuracy": labelled("accuracy_param", per_place=True, top_k=(1, 2), ignore_label=(None, 0)),
    "LSTM": _recurrent, "RNN": _recurrent, "LSTMUnit": _lstm_unit,
    "Embed": _embed, "BatchReindex": _batch_reindex, "Filter": _filter,
}  # fmt: skip
OFTEN = ("Convolution",) * 8 + 3 * (
    "Deconvolution",
    "Pooling",
    "InnerProduct",
    "Eltwise",
    "Concat",
    "Scale",
    "BatchNorm",
)
"""Types with much to draw, so that these come more often."""
IN_PLACE = ("ReLU", "ELU", "Sigmoid", "TanH", "BNLL", "Power", "Exp", "Dropout", "PReLU", "Scale", "Bias", "BatchNorm", "MVN",
            "Swish", "Clip", "Threshold", "Softmax", "Eltwise", "Concat", "Tile", "Convolution", "LRN", "Log")  # fmt: skip
