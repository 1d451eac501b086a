"""What a random net is compared with: every form that caffeconv gives it, and its gradients with differences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

import caffeconv
from caffeconv.emit.metadata import layouts
from caffeconv.frontend.build import parse_layer
from caffeconv.ir.onnx_builder import NeedsFixedBatchError
from support.golden_cases import forward
from support.random_fork_layers import FORK_KINDS, ITEMS_APART
from support.random_nets import DrawnNet
from support.small_nets import Array, run_model

RTOL, ATOL = 2e-3, 2e-4
"""Of a blob, against its greatest value: float32 sums in other orders, through at most a dozen layers; MVN and BatchNorm
divide by deviations that may be small, which is what makes this more than a few units in the last place."""
GRADIENT_TOLERANCE = 2e-2
"""Against the greatest of the two numbers: what rounding in float32 leaves of a gradient through a dozen layers."""
MOST = 1e6
"""Values beyond this leave nothing of differences in float64 (the maximum of an empty window is Caffe's -FLT_MAX)."""
RANDOM = {"Dropout", "Insanity", "ScaleFilter"}
LOSSES = ("EuclideanLoss", "SigmoidCrossEntropyLoss", "SoftmaxWithLoss", "MultinomialLogisticLoss", "HingeLoss",
          "InfogainLoss", "ContrastiveLoss", "SmoothL1Loss")  # fmt: skip
MIXING = {
    "BatchNorm", "Reduction", "Softmax", "Reshape", "Scale", "Bias", "Convolution", "Deconvolution", "PReLU", "Accuracy",
    "LSTM", "RNN", "LSTMUnit", "BatchReindex", "Filter", "Parameter", "DummyData", "Embed", "Crop", "ArgMax", *LOSSES,
    *(FORK_KINDS.keys() - ITEMS_APART),
}  # fmt: skip
"""Types that may mix items, or whose parameters may lie along them; a batch of 1 is another net then."""
NOT_THE_DERIVATIVE = {
    "MVN", "Threshold", "ArgMax", "SigmoidCrossEntropyLoss", "MultinomialLogisticLoss", "Sparsify", "L2Norm", "GRN",
    "Normalize", "Cosine", "FixedNeuron", "ConvolutionFixed", "InnerProductFixed", "Upsample", "Unpooling",
    "ChannelScale", "Gram",
}  # fmt: skip
"""Types whose gradient in Caffe is no derivative (eps left out, none for targets, a clamp that is passed over, more added,
values that another one in their place has replaced), or is 0 where the function jumps."""
TRUE_IN_PLACE = {"ReLU", "PReLU", "ELU", "Bias", "Scale", "BatchNorm", "Dropout", "Sigmoid", "TanH"}
UNTOUCHED_BELOW = {"Convolution", "Deconvolution", "InnerProduct", "Bias", "BatchNorm", "Tile"}
"""In place Caffe's gradient is the derivative where the layer is one of the former, and the only one in its blob, and what
made the blob, one of the latter, does not look at what it made."""


class DisagreementError(AssertionError):
    """Two forms of one net differ."""


def check_net(net: DrawnNet, folder: Path, *, all_forms: bool = True) -> list[str]:
    """Raises DisagreementError where two forms of the net differ; returns which comparisons were made.

    all_forms: every form; else one of them, or the gradient, by the net's seed.
    """
    try:
        return _checked(net, folder, all_forms=all_forms)
    except NeedsFixedBatchError:  # in words: a layer needs a size that values decide
        return ["refused"]


def _checked(net: DrawnNet, folder: Path, *, all_forms: bool) -> list[str]:
    path = folder / "net.prototxt"
    path.write_text(net.text)
    random = np.random.default_rng(net.seed)
    feeds = {name: drawn_input.values(random) for name, drawn_input in net.inputs.items()}
    made = caffeconv.Net(path, phase=net.phase, dialect=net.dialect)
    weights = folder / "weights.caffemodel"
    _set_statistics(made)
    made.save(weights)
    again = caffeconv.Net(path, weights, phase=net.phase, dialect=net.dialect)
    is_random = net.phase == "TRAIN" and bool(net.kinds & RANDOM)
    for layer, params in made.params.items():
        for mine, read in zip(params, again.params[layer], strict=True):
            _compare(f"parameter of {layer}", mine.data, read.data, exact=True)
    if is_random:
        return ["written and read back"]
    return ["written and read back", *_compare_models(net, again, weights, feeds, all_forms=all_forms)]


def _compare_models(
    net: DrawnNet, made: caffeconv.Net, weights: Path, feeds: dict[str, Array], *, all_forms: bool
) -> list[str]:  # fmt: skip
    blobs = {name: array.copy() for name, array in forward(made, feeds).items()}
    if not blobs or not all(np.isfinite(array).all() for array in blobs.values()):
        return []
    turn = net.seed % (len(FORMS) + 1)  # the last turn is the gradient's
    chosen = list(FORMS) if all_forms else list(FORMS)[turn : turn + 1]
    compared = []
    for form in chosen:
        values = FORMS[form](net, weights, feeds)
        for name in blobs.keys() & values.keys():  # what is written over an input goes by another name
            _compare(f"{form}: {name}", blobs[name], values[name])
        compared += [form] if values else []
    return compared + (_check_gradient(net, made, weights, feeds) if all_forms or not chosen else [])


def _convert(
    net: DrawnNet, weights: Path, *, batch: Literal["dynamic", "keep"] = "keep", fold: bool = True
) -> ModelProto:
    path = weights.with_name("net.prototxt")
    return caffeconv.convert(path, weights, phase=net.phase, batch=batch, fold=fold, dialect=net.dialect)


def _folded(net: DrawnNet, weights: Path, feeds: dict[str, Array]) -> dict[str, Array]:
    return run_model(_convert(net, weights), feeds)


def _unfolded(net: DrawnNet, weights: Path, feeds: dict[str, Array]) -> dict[str, Array]:
    return run_model(_convert(net, weights, fold=False), feeds)


def _one_by_one(net: DrawnNet, weights: Path, feeds: dict[str, Array]) -> dict[str, Array]:
    """With a batch of any size; each item by itself, where items do not meet."""
    model = _convert(net, weights, batch="dynamic")
    if not _items_are_apart(net, model):
        return run_model(model, feeds)
    single = [run_model(model, {name: x[i : i + 1] for name, x in feeds.items()}) for i in range(len(feeds["x"]))]
    return {name: np.concatenate([values[name] for values in single]) for name in single[0]}


def _items_are_apart(net: DrawnNet, model: ModelProto) -> bool:
    dims = [output.type.tensor_type.shape.dim for output in model.graph.output]
    return not net.kinds & MIXING and all(len(dim) and dim[0].dim_param == "batch" for dim in dims)


def _with_library(net: DrawnNet, weights: Path, feeds: dict[str, Array]) -> dict[str, Array]:
    model = _convert(net, weights)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.register_custom_ops_library(str(caffeconv.ops.library_path()))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    used = {i.name: feeds[i.name] for i in session.get_inputs()}
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, used), strict=True))


def _by_reference(net: DrawnNet, weights: Path, feeds: dict[str, Array]) -> dict[str, Array]:
    model = _convert(net, weights)
    names = [value.name for value in model.graph.input]
    try:
        results = ReferenceEvaluator(model).run(None, {name: feeds[name] for name in names})
    except (NotImplementedError, RuntimeError, ValueError, TypeError, IndexError):
        return {}  # its operators have gaps of their own: pooling and convolution over 1 or 3 axes, say
    assert isinstance(results, list)
    # its AveragePool and MaxPool take windows otherwise at the ends
    pools = {"AveragePool", "MaxPool", "ConvTranspose"} & {node.op_type for node in model.graph.node}
    return {} if pools else dict(zip([o.name for o in model.graph.output], map(np.asarray, results), strict=True))


def _channels_last(net: DrawnNet, weights: Path, feeds: dict[str, Array]) -> dict[str, Array]:
    path = weights.with_name("net.prototxt")
    model = caffeconv.convert(path, weights, phase=net.phase, batch="keep", layout="nhwc", dialect=net.dialect)
    turned = layouts({entry.key: entry.value for entry in model.metadata_props})
    values = run_model(model, {name: np.moveaxis(x, 1, -1) if name in turned else x for name, x in feeds.items()})
    return {name: np.moveaxis(y, -1, 1) if name in turned else y for name, y in values.items()}


FORMS: dict[str, Callable[[DrawnNet, Path, dict[str, Array]], dict[str, Array]]] = {
    "folded": _folded, "unfolded": _unfolded, "one by one": _one_by_one, "our kernels": _with_library,
    "reference evaluator": _by_reference, "channels last": _channels_last,
}  # fmt: skip


# -- gradients ---------------------------------------------------------------------------------------------------------


def _check_gradient(net: DrawnNet, made: caffeconv.Net, weights: Path, feeds: dict[str, Array]) -> list[str]:
    """The gradient of a random sum of the outputs along a random direction, against differences in float64."""
    read = {blob for layer in net.layers for blob in layer.bottoms}
    weighted = {blob for layer in net.layers if layer.kind in LOSSES for blob in layer.tops}
    if not net.has_gradient or read & weighted or net.kinds & NOT_THE_DERIVATIVE or not _is_true_in_place(net):
        return []
    random = np.random.default_rng(net.seed + 1)
    seeds = {blob: random.normal(0, 1, made.blobs[blob].shape).astype(np.float32) for blob in made.outputs}
    learned = [name for name in ("x", "z") if name in feeds]  # Caffe has no gradients for labels and H
    direction = {
        name: random.normal(0, 1, feeds[name].shape) if name in learned else np.zeros(feeds[name].shape)
        for name in net.inputs
    }
    if any(np.abs(made.blobs[blob].data).max(initial=0) > MOST for blob in made.outputs):
        return []
    try:
        diffs = made.backward(None, None, None, **seeds)
    except caffeconv.CaffeconvError:
        return []  # a gradient that Caffe refuses, or nothing that goes backward
    want = sum(float((diffs[name].astype(np.float64) * direction[name]).sum()) for name in learned)
    model = _convert(net, weights, fold=False)
    if any(node.op_type == "ConvTranspose" and len(node.input) > 2 for node in model.graph.node):
        return []  # of several groups the evaluator gives all the first one's bias
    double = ReferenceEvaluator(_in_float64(model))
    names = {value.name for value in model.graph.input}

    def value(step: float) -> float:
        moved = {name: feeds[name].astype(np.float64) + step * direction[name] for name in names}
        results = double.run(None, moved)
        assert isinstance(results, list)
        return sum(
            float((np.asarray(y) * seeds[o.name]).sum()) for o, y in zip(model.graph.output, results, strict=True)
        )

    try:
        slopes = [(value(step) - value(-step)) / (2 * step) for step in (1e-4, 1e-5)]
    except (NotImplementedError, RuntimeError, ValueError, TypeError, IndexError, KeyError):
        return []
    size = max(abs(want), abs(slopes[1]), 1e-2)
    if abs(slopes[0] - slopes[1]) > 1e-3 * size:  # a kink lies between
        return []
    if abs(want - slopes[1]) > GRADIENT_TOLERANCE * size:
        raise DisagreementError(f"gradient {want:g}, differences {slopes[1]:g}")
    return ["gradient"]


def _is_true_in_place(net: DrawnNet) -> bool:
    writers: dict[str, list[str]] = {}
    for layer in net.layers:
        for blob in layer.tops:
            writers.setdefault(blob, []).append(layer.kind)
    chains = [kinds for kinds in writers.values() if len(kinds) > 1]
    true = all(len(kinds) == 2 and kinds[0] in UNTOUCHED_BELOW and kinds[1] in TRUE_IN_PLACE for kinds in chains)
    return not chains or (true and not net.kinds & {"Flatten", "Reshape", "Split", "Concat", "Slice"})


def _in_float64(model: ModelProto) -> ModelProto:
    """The model with double in place of float everywhere."""
    double = ModelProto()
    double.CopyFrom(model)
    for graph in (double.graph,):
        for i, tensor in enumerate(graph.initializer):
            if tensor.data_type == TensorProto.FLOAT:
                graph.initializer[i].CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(tensor).astype("f8"), tensor.name)
                )
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                value.type.tensor_type.elem_type = TensorProto.DOUBLE
        for node in graph.node:
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.DOUBLE
                if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
                    attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype("f8")))
    return double


STATISTICS = {"mean": (-0.5, 0.5), "variance": (0.5, 1.5), "factor": (2, 2), "operand": (0.5, 2), "position": (3, 3)}
"""Parameters that start as 0, and what trained nets have there: from the first value to the last."""


def _set_statistics(net: caffeconv.Net) -> None:
    for name, params in net.params.items():
        definition = net.definition_of(name)
        shapes = [net.blobs[blob].shape for blob in definition.bottoms]
        for param, values in zip(parse_layer(definition, {})[1].weight_shapes(shapes), params, strict=True):
            ends = STATISTICS.get(param.partition("_")[0])
            if ends is not None:
                values.data[...] = np.linspace(*ends, values.count).reshape(values.data.shape)


def _compare(what: str, want: Array, got: Array, *, exact: bool = False) -> None:
    if want.shape != got.shape:
        raise DisagreementError(f"{what}: shapes {want.shape} and {got.shape}")
    size = float(np.abs(want).max(initial=1))
    if not (np.array_equal(want, got) if exact else np.allclose(want, got, RTOL, ATOL * size, equal_nan=True)):
        worst = float(np.abs(want.astype("f8") - got).max())
        raise DisagreementError(f"{what}: differs by up to {worst:g} of {size:g}")
