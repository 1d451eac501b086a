"""Runs a model and another engine on the same inputs, and compares them blob by blob."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from caffeconv.conversion.load import Loaded
from caffeconv.emit.metadata import Preprocess, image_preprocessing, is_half, layouts, metadata_of
from caffeconv.emit.model_options import ModelOptions
from caffeconv.emit.passes.editor import with_outputs
from caffeconv.emit.precision import float32_values
from caffeconv.errors import CaffeconvError
from caffeconv.frontend.options import NetOptions
from caffeconv.frontend.reshape import for_any_batch, input_shapes, reshape_graph
from caffeconv.ir.graph import Graph
from caffeconv.tensor.shape import FloatArray, Shape
from caffeconv.verify.engines import Engine, EngineName, EngineUnfitError, Subject, engines
from caffeconv.verify.probe import SEED, Probe, probe

if TYPE_CHECKING:
    from onnx import ModelProto

    from caffeconv.runtime.session import Session


@dataclass(frozen=True)
class Tolerance:
    """A blob agrees where its greatest deviation is at most absolute + relative · its greatest magnitude."""

    relative: float
    absolute: float
    rounding: float
    """How much, relatively, one rounding may change a number."""

    def __str__(self) -> str:
        return f"{self.absolute:g} + {self.relative:g} of the blob's greatest magnitude"


SINGLE = Tolerance(1e-4, 1e-5, 2.0**-22)
HALF = Tolerance(5e-3, 1e-3, 2.0**-10)
STEEPNESS = 8
"""How many times what the net makes of rounded inputs a blob may deviate: many layers round after them."""


@dataclass(frozen=True)
class BlobCheck:
    """One blob of the model against the same one of the engine."""

    blob: str
    layer: str
    shape: Shape
    deviation: float
    """The greatest |model - engine|; infinite where one of them has no number and the other has."""
    magnitude: float
    """The greatest |engine|."""
    is_output: bool
    verdict: str
    """``ok``, ``ok: steep``, ``ok: other order``, ``differs``, or why it is not judged."""

    @property
    def relative(self) -> float:
        return self.deviation / self.magnitude if self.magnitude else float(self.deviation > 0)


@dataclass(frozen=True)
class Verification:
    """The result of a comparison."""

    engine: Engine
    tolerance: Tolerance
    blobs: tuple[BlobCheck, ...]
    unfit: tuple[tuple[str, str], ...] = ()
    """Engines that were tried before: (title, why not)."""
    absent: int = 0
    """Blobs of the net that the model no longer has: folded into others, or cut."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the programs that computed the engine's blobs, by their names."""

    @property
    def ok(self) -> bool:
        """Whether nothing differs, and every output was compared."""
        return all(blob.verdict != "differs" for blob in self.blobs) and any(blob.is_output for blob in self.blobs)

    @property
    def first_wrong(self) -> BlobCheck | None:
        """The first blob that differs: what comes after it follows from it."""
        return next((blob for blob in self.blobs if blob.verdict == "differs"), None)


def verify(
    loaded: Loaded, model: ModelProto, model_options: ModelOptions | None = None, options: NetOptions | None = None, *,
    typical: Preprocess | None = None, engine: EngineName | None = None,
) -> Verification:  # fmt: skip
    """Compares `model`, converted from `loaded` in that form, with the most independent engine that can run the net.

    typical: what the net's pictures go through, for inputs of a range such as it is used to. engine: this one and no
    other. Raises CaffeconvError where none can run the net.
    """
    model_options, options = model_options or ModelOptions(), options or NetOptions()
    graph = _graph_for_model(loaded, model, model_options)
    inputs = probe(graph, model_options.preprocess, typical=typical)
    subject = Subject(loaded, graph, options)
    unfit: list[tuple[str, str]] = []
    for candidate in engines(engine):
        try:
            computation = candidate.run(subject, inputs.net)
        except EngineUnfitError as error:
            unfit.append((candidate.title, str(error)))
            continue
        comparison = _compare(subject, model, inputs, computation.blobs)
        verification = replace(comparison, engine=candidate, unfit=tuple(unfit), versions=computation.versions)
        return verification if verification.ok else _second_look(verification, subject, inputs)
    raise CaffeconvError("`verify=True`: " + "; ".join(f"{title}: {why}" for title, why in unfit))


def deviations(
    loaded: Loaded, model: ModelProto, other: ModelProto, model_options: ModelOptions
) -> tuple[BlobCheck, ...]:
    """How far the outputs of `other`, which is `model` in that form, lie from the model's, on a probe input."""
    graph = _graph_for_model(loaded, other, model_options)
    inputs = probe(graph, model_options.preprocess)
    net_inputs = {name: values for name, values in inputs.net.items() if name in {i.name for i in model.graph.input}}
    expected = _session(model, loaded).run(net_inputs)
    return tuple(
        check
        for check in _compare(Subject(loaded, graph, NetOptions()), other, inputs, expected).blobs
        if check.is_output
    )


def _graph_for_model(loaded: Loaded, model: ModelProto, model_options: ModelOptions) -> Graph:
    """The net's graph with inputs of the shapes that the model takes; those of the prototxt where it takes any."""
    net_shapes = input_shapes(loaded.graph)
    shapes = dict(net_shapes)
    axis_orders = layouts(metadata_of(model))
    for value in model.graph.input:
        if value.name not in net_shapes:
            continue
        sizes = [size.dim_value if size.HasField("dim_value") else None for size in value.type.tensor_type.shape.dim]
        if value.name in axis_orders:
            sizes = [sizes[0], sizes[-1], *sizes[1:-1]]
        if (
            model_options.preprocess is not None
            and model_options.preprocess.input in (None, value.name)
            and _takes_images(model, value.name)
        ):
            sizes[2:] = net_shapes[value.name][2:]  # the model cuts the net's size out of larger pictures
        net_shape = net_shapes[value.name]
        shapes[value.name] = tuple(old if new is None else new for old, new in zip(net_shape, sizes, strict=True))
    return loaded.graph if shapes == net_shapes else reshape_graph(for_any_batch(loaded.graph), shapes)


def _takes_images(model: ModelProto, name: str) -> bool:
    preprocessing = image_preprocessing(metadata_of(model))
    return preprocessing is not None and preprocessing.input == name


def _compare(subject: Subject, model: ModelProto, inputs: Probe, expected: Mapping[str, FloatArray]) -> Verification:
    """Every blob that both have; the engine is filled in by the caller."""
    results = _results(subject.loaded, model, inputs, expected)
    outputs = {value.name for value in model.graph.output}
    half = is_half(metadata_of(model))
    tolerance = HALF if half else SINGLE
    unjudged = _unjudged(subject.graph, half=half)
    checks, absent = [], 0
    for node in subject.graph.nodes:
        for top in node.tops:
            if node.layer.is_input or top not in expected:
                continue
            if top not in results:
                absent += 1
                continue
            layer = f"{node.name} ({node.type})"
            check = _check(top, layer, results[top], expected[top], tolerance)
            if check.verdict == "differs" and "detections" in node.layer.top_kinds:
                check = _other_order(check, results[top], expected[top], tolerance)
            verdict = unjudged.get(top, check.verdict)
            checks.append(replace(check, is_output=top in outputs, verdict=verdict))
    return Verification(engines("self")[0], tolerance, tuple(checks), absent=absent)


def _results(
    loaded: Loaded, model: ModelProto, inputs: Probe, expected: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """What the model makes of the inputs, in Caffe's axis order: its outputs as it stands, and blobs on the way to them."""
    axis_orders = layouts(metadata_of(model))
    feeds = {value.name: inputs.model.get(value.name, inputs.net[value.name]) for value in model.graph.input}
    feeds = {name: np.moveaxis(values, 1, -1) if name in axis_orders else values for name, values in feeds.items()}
    model_outputs = _session(model, loaded).run(feeds)
    values = {name for node in model.graph.node for name in node.output}
    inner_values = [name for name in expected if name in values and name not in model_outputs]
    results = _session(with_outputs(model, inner_values), loaded).run(feeds, inner_values) if inner_values else {}
    outputs = {
        name: np.moveaxis(value, -1, 1) if name in axis_orders else value for name, value in model_outputs.items()
    }
    return {**results, **outputs}


def _session(model: ModelProto, loaded: Loaded) -> Session:
    from caffeconv.runtime.session import Session

    return Session(model, "cpu", python_host=loaded.net.python_host)


def _check(blob: str, layer: str, actual: FloatArray, expected: FloatArray, tolerance: Tolerance) -> BlobCheck:
    """Both as float64; not-a-number equals itself, and so does an infinity."""
    if actual.shape != expected.shape and _without_ones(actual.shape) == _without_ones(expected.shape):
        expected = expected.reshape(actual.shape)  # OpenCV leaves out axes of size 1
    if actual.shape != expected.shape:
        return BlobCheck(blob, layer, actual.shape, np.inf, 0.0, is_output=False, verdict="differs")
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b))
    difference[np.isnan(difference)] = np.inf
    finite = np.abs(b[np.isfinite(b)])
    deviation, magnitude = float(difference.max(initial=0)), float(finite.max(initial=0))
    agrees = deviation <= tolerance.absolute + tolerance.relative * magnitude
    return BlobCheck(
        blob, layer, actual.shape, deviation, magnitude, is_output=False, verdict="ok" if agrees else "differs"
    )


def _other_order(check: BlobCheck, actual: FloatArray, expected: FloatArray, tolerance: Tolerance) -> BlobCheck:
    """The check of detections, cleared where the other engine has the same rows in another order.

    Caffe puts the best `keep_top_k` in order of their labels, OpenCV in order of their scores.
    """
    again = _check(check.blob, check.layer, _by_label(actual), _by_label(expected), tolerance)
    return replace(again, shape=check.shape, verdict="ok: other order") if again.verdict == "ok" else check


def _by_label(detections: FloatArray) -> FloatArray:
    """Rows (picture, label, score, …) by picture, by label, the best first."""
    rows = detections.reshape(-1, detections.shape[-1])
    return rows[np.lexsort((-rows[:, 2], rows[:, 1], rows[:, 0]))] if rows.shape[1] > 2 else rows


def _without_ones(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _unjudged(graph: Graph, *, half: bool) -> dict[str, str]:
    """Blobs that may well differ → why: random ones, and in half precision choices between almost equal values."""
    verdicts: dict[str, str] = {}
    for node in graph.nodes:
        reasons = [verdicts[bottom] for bottom in node.bottoms if bottom in verdicts]
        if node.layer.is_random:
            reasons.append("not judged: random")
        if node.layer.is_discontinuous and half:
            reasons.append("not judged: jumps")
        verdicts.update(dict.fromkeys(node.tops, reasons[0]) if reasons else {})
    return verdicts


def _second_look(verification: Verification, subject: Subject, inputs: Probe) -> Verification:
    """Clears blobs that differ because the net is steep: it moves them about as far once its inputs are changed by no
    more than their rounding, as a Softmax of scores in the thousands does.
    """
    steep = _steepness(subject, inputs, verification.tolerance)
    blobs = (
        replace(check, verdict="ok: steep")
        if check.verdict == "differs" and check.deviation <= STEEPNESS * steep.get(check.blob, 0)
        else check
        for check in verification.blobs
    )
    return replace(verification, blobs=tuple(blobs))


def _steepness(subject: Subject, inputs: Probe, tolerance: Tolerance) -> dict[str, float]:
    """Blob → how far the net moves it when inputs that are no labels change by a rounding."""
    random, exact = np.random.default_rng(SEED), float32_values(subject.graph)
    perturbed = {
        name: values if name in exact else values * (1 + tolerance.rounding * random.choice((-1, 1), values.shape))
        for name, values in inputs.net.items()
    }
    (engine,) = engines("self")
    before = engine.run(subject, inputs.net).blobs
    after = engine.run(subject, {name: values.astype(np.float32) for name, values in perturbed.items()}).blobs
    same = (blob for blob in before if after[blob].shape == before[blob].shape)
    with np.errstate(invalid="ignore"):
        differences = {blob: np.abs(after[blob].astype(np.float64) - before[blob]) for blob in same}
    return {blob: float(values[np.isfinite(values)].max(initial=0)) for blob, values in differences.items()}
