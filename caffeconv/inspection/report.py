"""What `inspect` finds: every layer's shapes, parameters and costs, and every problem."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from caffeconv.caffe_format.prototxt import NetSource, unknown_field_lines
from caffeconv.caffe_format.terms import Phase
from caffeconv.caffe_format.upgrade import upgrade_net
from caffeconv.caffe_pb2 import NetParameter
from caffeconv.errors import Diagnostic, InvalidNetError
from caffeconv.files import arguments
from caffeconv.files.atomic import PathLike
from caffeconv.frontend.bind import BoundGraph, bind, for_built_layers, with_stored_shapes
from caffeconv.frontend.build import PartialGraph, build_partial_graph, finish
from caffeconv.frontend.deploy import to_deploy
from caffeconv.frontend.netdef import draft_net
from caffeconv.frontend.open_files import Weights, read_net, read_weights, refuse_dropped, weight_paths
from caffeconv.frontend.options import NetOptions
from caffeconv.inspection.costs import FLOAT_BYTES, peak_bytes, receptive_fields
from caffeconv.inspection.diagnose import Cure, diagnose, reversed_channels
from caffeconv.inspection.diagnose.deploy_hint import deploy_options
from caffeconv.inspection.diagnose.weights_fix import WeightsFix
from caffeconv.inspection.fixed_net import fixed_text, with_edits
from caffeconv.inspection.layer_report import LayerReport, named_shapes
from caffeconv.inspection.report_json import VERSION, ReportJson, cure_json, diagnostic_json, layer_json
from caffeconv.inspection.weight_checks import check_values
from caffeconv.ir.definition import Infogain, NetDef
from caffeconv.ir.graph import Graph
from caffeconv.ir.layer import Node
from caffeconv.python_layers.host import AllowPython
from caffeconv.tensor.shape import Shape, count
from caffeconv.tensor.window import INT_MAX


@dataclass(frozen=True, repr=False)
class Report:
    """The result of `inspect`."""

    net: str
    """Its name."""
    layers: tuple[LayerReport, ...]
    """In the net's order: name, type, tops and parameters with their shapes, costs."""
    diagnostics: tuple[Diagnostic, ...]
    """Problems and remarks."""
    blobs: Mapping[str, Shape]
    """Blob → shape, in the order in which Caffe makes them."""
    params: Mapping[str, list[Shape]]
    """Layer → shapes of its parameters, for layers that have any."""
    inputs: Mapping[str, Shape] = field(default_factory=dict)
    """Blob → shape, of what the caller or a data layer fills."""
    outputs: Mapping[str, Shape] = field(default_factory=dict)
    """Blob → shape, of what no layer reads."""
    cures: tuple[Cure, ...] = ()
    """Edits after which the net is whole and takes all its weights, best first, at most three; each was checked."""
    peak_bytes: int = 0
    """The most that blobs take at once, float32, where each is freed after its last reader."""
    nodes: tuple[Node, ...] = ()
    """The layers as built, with their parameters bound."""
    fixed: NetParameter | None = None
    """The net with the edits of the first cure, in the current format."""
    fixed_text: str = ""
    """That as prototxt: the user's own text with what changes where possible, otherwise the net written anew."""
    advice: str = ""
    """The cures as text, with what else can be done."""
    weights_fix: WeightsFix | None = None
    """The weights in another form, with which the net is whole as it is."""
    has_weights: bool = False
    """Whether weights were given, or the net's file has its own."""

    def __repr__(self) -> str:
        errors = sum(diagnostic.severity == "error" for diagnostic in self.diagnostics)
        state = "ok" if self.ok else f"{errors} {'error' if errors == 1 else 'errors'}"
        return f"<Report of {self.net!r}: {state}, {len(self.layers)} layers, {self.parameter_count} parameters>"

    def _repr_html_(self) -> str:
        """As notebooks show it: the layers, the problems, and what would mend them."""
        from caffeconv.inspection.notebook import html_list, html_table

        rows = [
            (layer.name, layer.type, layer.bottoms, named_shapes(layer.tops), named_shapes(layer.params))
            for layer in self.layers
        ]
        return (
            f"<p><b>{html.escape(self.net or 'net')}</b>: {html.escape(self.verdict)}, {len(self.layers)} layers, "
            f"{self.parameter_count:,} parameters, {self.multiply_adds:,} multiply-adds</p>"
            + html_list("Problems", [f"{d.severity}: {d}" for d in self.diagnostics if d.severity != "note"])
            + html_list("Suggested fixes", [str(cure) for cure in self.cures])
            + html_table(("layer", "type", "bottoms", "tops", "parameters"), rows)
        )

    def to_json(self) -> str:
        """The report as JSON, as `caffeconv inspect --json` prints it; docs/inspect.md describes it."""
        return json.dumps({**self.as_json()}, indent=1)

    def as_json(self) -> ReportJson:
        """The report as what JSON knows: numbers, text, lists and objects."""
        fix = self.weights_fix
        return {
            "version": VERSION,
            "net": self.net,
            "ok": self.ok,
            "verdict": self.verdict,
            "unfilled": list(self.unfilled),
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "outputs": {name: list(shape) for name, shape in self.outputs.items()},
            "parameters": self.parameter_count,
            "multiply_adds": self.multiply_adds,
            "activation_bytes": self.activation_bytes,
            "peak_bytes": self.peak_bytes,
            "layers": [layer_json(layer) for layer in self.layers],
            "diagnostics": [diagnostic_json(diagnostic) for diagnostic in self.diagnostics],
            "cures": [cure_json(cure) for cure in self.cures],
            "weights_fix": None if fix is None else {"changes": list(fix.changes), "keeps_numbers": fix.keeps_numbers},
        }

    @property
    def ok(self) -> bool:
        """Whether the net can be built and the weights fit."""
        return not any(d.severity == "error" for d in self.diagnostics)

    @property
    def unfilled(self) -> tuple[str, ...]:
        """The layers with parameters that nothing but their fillers gives values."""
        return tuple(
            node.name for node in self.nodes
            if any(param.owner is None and param.is_filled for param in node.params)
        )  # fmt: skip

    @property
    def verdict(self) -> str:
        """In a few words whether the weights fit: ``fits``, ``does not fit``, ``no weights``, ``fits in part``."""
        if not self.ok:
            return "does not fit"
        if not self.has_weights:
            return "no weights"
        return "fits in part" if self.unfilled else "fits"

    @property
    def parameter_count(self) -> int:
        return sum(layer.parameter_count for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        return sum(layer.activation_bytes for layer in self.layers)


def inspect(
    net: PathLike, weights: Weights = None, *, phase: Phase = "TEST", level: int = 0, stages: Sequence[str] = (),
    shapes: Mapping[str, Sequence[int]] | None = None, deploy: bool = False, extended: bool = False,
    infogain: Infogain | None = None, ignore_unknown_fields: bool = False, batch: int | None = None,
    values: bool = False, allow_python: AllowPython = False, dialect: str | None = None,
    root: PathLike | None = None, swap_channels: bool = False,
) -> Report:  # fmt: skip
    """Checks every shape and parameter of a net, and whether the weights fit it.

    Problems of the net and of the weights are in the report (`ok`, `diagnostics`). Arguments as for `convert`, and:

    Args:
        batch: the batch size to compute costs for; None: the net's own.
        swap_channels: whether `weights_fix` is to be the weights for pictures with RGB in place of BGR, or the reverse.
        values: whether to look at the weights' values too (NaN, ∞, all zero); otherwise they are not read.

    Raises:
        CaffeconvError: a file that cannot be read at all.
    """
    options = NetOptions(
        phase, level, stages, {} if shapes is None else shapes, deploy, extended, infogain, allow_python, ignore_unknown_fields,
        dialect=dialect, root=root,
    )  # fmt: skip
    _check_arguments(batch, values, swap_channels)
    source, files = _read(net, options), [read_weights(path) for path in weight_paths(weights) or _own_weights(net)]
    dropped_warnings = _dropped_warnings(source, net)
    try:
        upgraded = to_deploy(source, options) if deploy else upgrade_net(source)
        definition, faults = draft_net(upgraded, options)
    except InvalidNetError as error:
        return Report(source.net.name, (), (*dropped_warnings, *error.diagnostics), {}, {})
    definition = with_stored_shapes(definition, files)
    shapes = shapes if batch is None else {**_with_batch(definition, shapes, batch), **(shapes or {})}
    partial_graph = build_partial_graph(definition, shapes)
    binding = bind(graph := finish(definition, partial_graph), files)
    problems = (*dropped_warnings, *faults, *_problems(partial_graph, binding))
    diagnosis = diagnose(definition, files, problems, shapes)
    fix = diagnosis.weights_fix
    fix = reversed_channels(definition, files, fix, shapes) if swap_channels else fix
    diagnostics = (*diagnosis.diagnostics, *(check_values(binding.graph.nodes) if values else ()))
    sized = replace(options, shapes=shapes or {})
    deploy_command = "" if deploy else deploy_options(upgraded, sized, partial_graph.unbuilt, files)
    fixed, text = _fixed(upgraded, definition, diagnosis.cures)
    return Report(
        net=definition.name,
        layers=_layer_reports(definition, partial_graph, binding.graph.nodes, diagnostics),
        diagnostics=diagnostics,
        blobs=_blobs(definition, partial_graph),
        params={node.name: [param.shape for param in node.params] for node in binding.graph.nodes if node.params},
        inputs=_named(definition, graph, graph.inputs),
        outputs=_named(definition, graph, graph.outputs),
        peak_bytes=peak_bytes(graph.nodes, graph.outputs),
        nodes=binding.graph.nodes,
        cures=diagnosis.cures,
        fixed=fixed,
        fixed_text=text,
        advice="\n".join(filter(None, (diagnosis.advice, _deploy_advice(deploy_command)))),
        weights_fix=fix,
        has_weights=bool(files),
    )  # fmt: skip


def _check_arguments(batch: object, values: object, swap_channels: object) -> None:
    arguments.truth("values", values)
    arguments.truth("swap_channels", swap_channels)
    if batch is not None:
        arguments.whole_number("batch", batch, 1, INT_MAX)


def _read(net: PathLike, options: NetOptions) -> NetSource:
    source = read_net(net, is_built=True)
    refuse_dropped(source, options)
    return source


def _named(definition: NetDef, graph: Graph, values: Iterable[str]) -> dict[str, Shape]:
    """Shapes of values by the blobs that hold them in the end."""
    last = {value: blob for blob, value in definition.last_value.items()}
    return {last.get(value, value): graph.shapes[value] for value in values}


def _problems(partial_graph: PartialGraph, binding: BoundGraph) -> Iterator[Diagnostic]:
    """What is wrong with the layers and with their weights."""
    yield from (replace(choice, severity="warning") for choice in partial_graph.undecided)
    yield from partial_graph.summary
    yield from for_built_layers(partial_graph, binding)


def _fixed(source: NetSource, definition: NetDef, cures: Sequence[Cure]) -> tuple[NetParameter | None, str]:
    """The net with the first cure, as a message and as text; None and empty where there is none."""
    if not cures:
        return None, ""
    fixed = with_edits(source, definition, cures[0])
    return fixed, fixed_text(source, definition, cures[0], fixed)


def _blobs(definition: NetDef, partial_graph: PartialGraph) -> dict[str, Shape]:
    """Blob → shape, of those whose shape is known, in the order in which Caffe makes them."""
    values = ((blob, definition.last_value[blob]) for blob in definition.blob_order())
    return {blob: partial_graph.shapes[value] for blob, value in values if value in partial_graph.shapes}


def _dropped_warnings(source: NetSource, net: PathLike) -> list[Diagnostic]:
    return [Diagnostic("warning", str(net), f"dropped: {line}") for line in unknown_field_lines(source.dropped)]


def _deploy_advice(command: str) -> str:
    return (
        f"to inspect the net that is used after training (checked: everything fits then): {command}" if command else ""
    )


def _with_batch(definition: NetDef, shapes: Mapping[str, Sequence[int]] | None, batch: int) -> dict[str, Sequence[int]]:
    """The shapes of those inputs that have the first one's batch size, with another one."""
    input_shapes = {
        blob: shape
        for node in build_partial_graph(definition, shapes).nodes if node.layer.is_input
        for blob, shape in zip(node.definition.tops, node.top_shapes, strict=True) if shape
    }  # fmt: skip
    batch_size = next((shape[0] for shape in input_shapes.values()), None)
    return {blob: (batch, *shape[1:]) for blob, shape in input_shapes.items() if shape[0] == batch_size}


def _own_weights(net: PathLike) -> tuple[Path, ...]:
    return (Path(net),) if Path(net).suffix == ".caffemodel" else ()


def _layer_reports(
    net: NetDef, partial_graph: PartialGraph, nodes: Sequence[Node], diagnostics: Sequence[Diagnostic]
) -> tuple[LayerReport, ...]:
    remaining_nodes, fields = iter(nodes), receptive_fields(nodes)
    unbuilt_ids = {id(layer) for layer in partial_graph.unbuilt}
    reports = []
    for definition in net.layers:
        node = None if id(definition) in unbuilt_ids else next(remaining_nodes)
        problems = tuple(d for d in diagnostics if d.layer == definition.name and d.severity == "error")
        common = (definition.name, definition.type, definition.line, definition.bottoms)
        if node is None:
            reports.append(LayerReport(*common, (), (), 0, 0, 0, problems, definition=definition))
            continue
        names = (*definition.tops, *node.tops[len(definition.tops) :])
        tops = tuple(zip(names, node.top_shapes, strict=True))
        output_count = sum(count(shape) for name, shape in tops if name not in definition.bottoms)
        own_count = sum(count(param.shape) for param in node.params if param.owner is None)
        cost = node.layer.multiply_adds(node.bottom_shapes, node.top_shapes)
        params = tuple((param.name, param.shape) for param in node.params)
        field = fields.get(node.tops[0]) if node.tops else None
        formulas = node.layer.size_formulas(node.bottom_shapes[0]) if node.bottom_shapes else ()
        costs = (own_count, cost, output_count * FLOAT_BYTES)
        reports.append(LayerReport(*common, tops, params, *costs, problems, field, definition, formulas))
    return tuple(reports)
