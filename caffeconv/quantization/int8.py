"""Eight-bit integers for the layers that take most of the time, as QuantizeLinear and DequantizeLinear around them.

onnxruntime's own tools measure the ranges and write the model; what is decided here is which layers stay float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from caffeconv.emit.lazy_model import LazyModel
from caffeconv.emit.metadata import is_half, metadata_of
from caffeconv.emit.passes.editor import with_outputs
from caffeconv.errors import CaffeconvError, shortened
from caffeconv.files import arguments
from caffeconv.net.open_session import open_session
from caffeconv.runtime.providers import ComputeOptions
from caffeconv.tensor.shape import FloatArray

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime.quantization.calibrate import TensorsData

    from caffeconv.runtime.session import Session

Feeds = Mapping[str, FloatArray]
"""Input of the model → a batch for it."""

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that take most of a net's time."""
CARRIERS = (
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Relu", "Reshape",
    "Squeeze", "Transpose",
)  # fmt: skip
"""Operators for which onnxruntime has eight-bit kernels too, so that values stay in eight bits from product to product."""
MOST_DEVIATION = 0.05
MOST_MEASURED = 16
"""Items on which layers are compared one by one."""
METADATA_KEY = "caffeconv.int8"


@dataclass(frozen=True)
class OutputChange:
    """What eight bits do to an output, over all items."""

    blob: str
    deviation: float
    """Root mean square of the difference, over that of the float32 values."""
    same_class: float | None = None
    """Share of items whose largest value is in the same place; None where the blob is not one row of scores an item."""
    accuracy: tuple[float, float] | None = None
    """Share of items whose largest value is at their label, in float32 and in eight bits; None without labels."""


@dataclass(frozen=True)
class Quantized:
    """A model in eight bits."""

    model: ModelProto
    layers: tuple[str, ...]
    """Nodes that compute in eight bits, of the kinds in PRODUCTS."""
    float_layers: Mapping[str, float]
    """Nodes of these kinds that stay float32 → the deviation that each alone would cause."""
    deviation: float
    """The largest of those that `outputs` would have before activations, NMS and the like: at the last products."""
    items: int
    outputs: tuple[OutputChange, ...]


def quantize(
    model: ModelProto, batches: Sequence[Feeds], *, labels: FloatArray | None = None,
    most_deviation: float = MOST_DEVIATION, reduce_range: bool = False, threads: int | None = None,
) -> Quantized:  # fmt: skip
    """The model with convolutions and products in eight bits: int8 weights, one scale a channel; uint8 activations.

    Layers stay float32 where the results of the net's last products would be further off than `most_deviation`: those
    first that do most harm alone.

    Args:
        model: a float32 model, as `caffeconv.convert` makes it.
        batches: what the ranges of the activations are measured on, and the results compared.
        labels: the class of each item, in the items' order.
        most_deviation: root mean square of the difference, over that of the float32 values.
        reduce_range: weights of seven bits, for processors without VNNI, whose sums of eight-bit products overflow.
        threads: of onnxruntime.

    Raises:
        CaffeconvError: no data, nothing to quantize, values that are no numbers, or a model of half precision.
    """
    from onnx import ModelProto

    if not isinstance(model, ModelProto):
        raise CaffeconvError(
            f"`model={shortened(repr(model))}`: an ONNX model was needed, as `caffeconv.convert` makes it"
        )
    _check_data(batches, labels)
    if arguments.number("most_deviation", most_deviation) < 0:
        raise CaffeconvError(f"`most_deviation={most_deviation!r}`: 0 or more was needed")
    arguments.truth("reduce_range", reduce_range)
    if is_half(metadata_of(model)):
        raise CaffeconvError("int8: the model is of half precision; one of float32 was needed, `half=False`")
    products = _products_with_weights(model)
    if not products:
        raise CaffeconvError("int8: the model has no convolution and no product with weights; there is nothing to gain")
    if not batches:
        raise CaffeconvError("int8: there are no items to measure ranges on; at least one was needed")
    compute = ComputeOptions("cpu", threads, nhwc=False, half=False)
    ways = _Ways.of(model, products)
    comparison = _Comparison(model, ways.last, batches, compute)
    with tempfile.TemporaryDirectory(prefix="caffeconv-int8-") as folder:
        ranges = _measure_ranges(model, batches, Path(folder))
    writer = _Writer(model, ranges, [*products, *ways.carriers], reduce_range=reduce_range)
    kept: list[str] = []
    harm: dict[str, float] = {}
    quantized = writer.write(kept)
    deviation = comparison.deviation(quantized)
    if deviation > most_deviation:
        harm = _harm(writer, products, comparison)
        kept = _kept_float(writer, harm, comparison, most_deviation)
        quantized = writer.write(kept)
        deviation = comparison.deviation(quantized)
    _note_in_metadata(quantized, len(products) - len(kept), comparison.items)
    return Quantized(
        quantized, tuple(name for name in products if name not in kept), {name: harm[name] for name in kept}, deviation,
        comparison.items, tuple(_output_changes(model, quantized, batches, labels, compute)),
    )  # fmt: skip


def _check_data(batches: object, labels: object) -> None:
    """Raises CaffeconvError for what holds no batches of arrays by the names of inputs, and for labels that are no numbers."""
    is_list = isinstance(batches, Sequence) and not isinstance(batches, (str, bytes))
    feeds = list(batches) if is_list and isinstance(batches, Sequence) else [None]
    if not all(isinstance(feed, Mapping) for feed in feeds):
        example = "[{'data': array}, …]"
        raise CaffeconvError(f"`batches={shortened(repr(batches))}`: a list of dicts of arrays was needed: {example}")
    if labels is not None and (not isinstance(labels, np.ndarray) or labels.dtype.kind not in "fiub"):
        raise CaffeconvError(f"`labels={shortened(repr(labels))}`: an array of class numbers was needed")


# -- which nodes -------------------------------------------------------------------------------------------------------


def _products_with_weights(model: ModelProto) -> list[str]:
    weights = {initializer.name for initializer in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type in PRODUCTS and node.input[1] in weights]


@dataclass(frozen=True)
class _Ways:
    """How products follow one another."""

    last: list[str]
    """The values of products that reach no other product: what outputs are made of."""
    carriers: list[str]
    """Nodes of the kinds in CARRIERS that lead to a product. What comes after the last product, such as the decoding of
    boxes, stays as it is."""

    @classmethod
    def of(cls, model: ModelProto, products: Collection[str]) -> _Ways:
        inner: set[str] = set()
        last, carriers = [], []
        for node in reversed(model.graph.node):
            leads_on = any(value in inner for value in node.output)
            is_product = node.name in products
            if is_product and not leads_on:
                last.append(node.output[0])
            if leads_on and node.op_type in CARRIERS:
                carriers.append(node.name)
            if is_product or leads_on:
                inner.update(node.input)
        return cls(last[::-1], carriers)


def _harm(writer: _Writer, products: Sequence[str], comparison: _Comparison) -> dict[str, float]:
    """Node → the deviation that it causes alone."""
    return {
        name: comparison.deviation(writer.write([other for other in products if other != name]), few=True)
        for name in products
    }


def _kept_float(
    writer: _Writer, harm: Mapping[str, float], comparison: _Comparison, most_deviation: float
) -> list[str]:
    """The fewest nodes, the most harmful first, without which the deviation is small enough."""
    order = sorted(harm, key=lambda name: -harm[name])
    enough, too_few = len(order), 0
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if comparison.deviation(writer.write(order[:middle])) <= most_deviation:
            enough = middle
        else:
            too_few = middle
    return order[:enough]


# -- ranges and models -------------------------------------------------------------------------------------------------


def _measure_ranges(model: ModelProto, batches: Sequence[Feeds], folder: Path) -> TensorsData:
    """The least and the greatest value of every activation."""
    import onnx
    from onnxruntime.quantization.calibrate import CalibrationDataReader, MinMaxCalibrater

    class Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types here
        def __init__(self) -> None:
            self._batches: Iterator[Feeds] = iter(batches)

        def get_next(self) -> Feeds | None:
            return next(self._batches, None)

    path = folder / "float.onnx"
    onnx.save(model, path)
    calibrater = MinMaxCalibrater(path, [*PRODUCTS, *CARRIERS], str(folder / "ranges.onnx"))
    calibrater.augment_graph()
    calibrater.create_inference_session()
    calibrater.collect_data(Reader())
    ranges: TensorsData = calibrater.compute_data()
    return ranges


class _Writer:
    """Writes the model with `nodes` in eight bits, or some of them."""

    def __init__(self, model: ModelProto, ranges: TensorsData, nodes: Sequence[str], *, reduce_range: bool) -> None:
        self._model = model
        self._ranges = ranges
        self._nodes = nodes
        self._reduce_range = reduce_range

    def write(self, kept: Collection[str]) -> ModelProto:
        """A model of its own; `kept` nodes compute in float32."""
        from onnx import ModelProto
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.quant_utils import QuantType

        copy = ModelProto()
        copy.CopyFrom(self._model)
        quantizer = QDQQuantizer(
            copy, per_channel=True, reduce_range=self._reduce_range, weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8, tensors_range=self._ranges,
            nodes_to_quantize=[name for name in self._nodes if name not in kept], nodes_to_exclude=[],
            op_types_to_quantize=[*PRODUCTS, *CARRIERS], extra_options={},
        )  # fmt: skip
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        quantized: ModelProto = quantizer.model.model
        del quantized.metadata_props[:]  # onnxruntime's tools leave a note of their own
        quantized.metadata_props.extend(self._model.metadata_props)
        return quantized


def _note_in_metadata(model: ModelProto, layers: int, items: int) -> None:
    entry = model.metadata_props.add()
    entry.key = METADATA_KEY
    entry.value = f"{layers} layers; weights int8, a scale a channel; activations uint8, ranges of {items} items"


# -- comparing ---------------------------------------------------------------------------------------------------------


class _Comparison:
    """How far models are from the float32 one, at some of its values; CaffeconvError where that has none that are finite."""

    def __init__(
        self, model: ModelProto, values: Sequence[str], batches: Sequence[Feeds], compute: ComputeOptions
    ) -> None:
        self._values = list(values)
        self._batches = batches
        self._compute = compute
        session = self._open(model)
        self._expected = [session.run(batch, self._values) for batch in batches]
        for name in self._values:
            if not all(np.isfinite(blobs[name]).all() for blobs in self._expected):
                raise CaffeconvError(
                    f"int8: '{name}' has values that are no finite numbers on these items; weights and items that the net was "
                    "trained for were needed"
                )
        self.items = sum(len(next(iter(batch.values()))) for batch in batches)

    def deviation(self, model: ModelProto, *, few: bool = False) -> float:
        """Root mean square of the difference over that of the float32 values, the largest of all values compared.

        few: on so many batches only as have MOST_MEASURED items.
        """
        session, items = self._open(model), 0
        sums = dict.fromkeys(self._values, (0.0, 0.0))
        for batch, expected in zip(self._batches, self._expected, strict=True):
            actual = session.run(batch, self._values)
            sums = {name: _added(sums[name], actual[name], expected[name]) for name in self._values}
            items += len(next(iter(batch.values())))
            if few and items >= MOST_MEASURED:
                break
        return max(_relative(*sums[name]) for name in self._values)

    def _open(self, model: ModelProto) -> Session:
        return open_session(LazyModel(with_outputs(model, self._values), {}), self._compute)


def _added(sums: tuple[float, float], actual: FloatArray, expected: FloatArray) -> tuple[float, float]:
    difference = (actual - expected).astype(np.float64)
    return sums[0] + float(np.square(difference).sum()), sums[1] + float(np.square(expected, dtype=np.float64).sum())


def _relative(difference: float, size: float) -> float:
    return float(np.sqrt(difference / size)) if size else float(difference > 0)


def _output_changes(
    model: ModelProto,
    quantized: ModelProto,
    batches: Sequence[Feeds],
    labels: FloatArray | None,
    compute: ComputeOptions,
) -> Iterator[OutputChange]:
    """What becomes of every output, but for boxes, of which there may be others."""
    before, after = (open_session(LazyModel(it, {}), compute) for it in (model, quantized))
    names = [value.name for value in model.graph.output]
    pairs = [(before.run(batch, names), after.run(batch, names)) for batch in batches]
    for name in names:
        if before.kind(name) == "detections" or any(old[name].shape != new[name].shape for old, new in pairs):
            continue
        old, new = (np.concatenate([np.atleast_1d(pair[i][name]) for pair in pairs]) for i in (0, 1))
        items = sum(len(next(iter(batch.values()))) for batch in batches)
        has_classes = labels is not None or before.kind(name) == "probabilities"
        classes = _classes(old, new, items, labels) if has_classes else (None, None)
        yield OutputChange(name, _relative(*_added((0, 0), new, old)), *classes)


def _classes(
    old: FloatArray, new: FloatArray, items: int, labels: FloatArray | None
) -> tuple[float | None, tuple[float, float] | None]:
    """Share of equal classes, and of right ones, where the values are a row of scores for each item."""
    if len(old) != items or old.size == items or old.shape[1] * items != old.size:
        return None, None
    classes = [values.reshape(items, -1).argmax(1) for values in (old, new)]
    same = float((classes[0] == classes[1]).mean())
    if labels is None:
        return same, None
    return same, (float((classes[0] == labels).mean()), float((classes[1] == labels).mean()))
