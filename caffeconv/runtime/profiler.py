"""Time per Caffe layer, from what onnxruntime records of its own nodes (caffe: tools/caffe.cpp, `caffe time`)."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caffeconv.errors import CaffeconvError
from caffeconv.runtime.providers import layer_of
from caffeconv.runtime.session import OPTIMIZED, Session
from caffeconv.tensor.shape import FloatArray

_KERNEL = "_kernel_time"


@dataclass(frozen=True)
class NodeRun:
    """One node in one pass; times in microseconds since the session was made."""

    node: str
    op_type: str
    provider: str
    layer: str | None
    """The Caffe layer; None where the node belongs to none that is known."""
    start_us: int
    duration_us: int
    thread: int


@dataclass(frozen=True)
class Profile:
    """What was measured."""

    passes: int
    pass_ms: float
    """One pass from outside, averaged."""
    runs: tuple[NodeRun, ...]

    @property
    def layer_ms(self) -> dict[str, float]:
        """Layer → milliseconds in one pass, averaged; layers that have no node of their own are left out."""
        total: dict[str, float] = {}
        for run in self.runs:
            if run.layer is not None:
                total[run.layer] = total.get(run.layer, 0.0) + run.duration_us / 1e3 / self.passes
        return total

    @property
    def unattributed_ms(self) -> float:
        """Milliseconds in one pass of nodes that belong to no layer."""
        return sum(run.duration_us for run in self.runs if run.layer is None) / 1e3 / self.passes

    @property
    def unattributed(self) -> tuple[str, ...]:
        """Those nodes' operators."""
        return tuple(sorted({run.op_type for run in self.runs if run.layer is None}))


def profile_passes(
    session: Session, feeds: Mapping[str, FloatArray], layers: Collection[str], *, passes: int, warm_up: int = 2
) -> Profile:
    """Runs a session that was made with `profile_to`, and ends its recording.

    Raises CaffeconvError where onnxruntime could not record all passes.
    """
    for _ in range(warm_up):
        session.run(feeds)
    start = time.perf_counter()
    for _ in range(passes):
        session.run(feeds)
    pass_ms = (time.perf_counter() - start) * 1e3 / passes
    record = session.end_profiling()
    events = json.loads(record.read_text())
    runs = sorted(event["ts"] for event in events if event.get("cat") == "Session" and event["name"] == "model_run")
    if len(runs) != warm_up + passes:
        raise CaffeconvError(
            f"`passes={passes}`: onnxruntime recorded {max(0, len(runs) - warm_up)} of these passes; "
            "it holds about a million nodes: ask for fewer"
        )
    node_events = [event for event in events if event.get("cat") == "Node" and event["ts"] >= runs[warm_up]]
    owners = _owners(record.with_name(OPTIMIZED), layers)
    return Profile(passes, pass_ms, tuple(_node_runs(node_events, owners, layers)))


Event = Mapping[str, object]


def _node_runs(events: Sequence[Event], owners: Mapping[str, str], layers: Collection[str]) -> Iterator[NodeRun]:
    """The nodes that ran, without those inside a Loop, Scan or If, whose time is that of the node around them."""
    ends: dict[object, int] = {}
    for event in sorted(events, key=lambda event: (_as_int(event["ts"]), -_as_int(event["dur"]))):
        arguments = event["args"]
        name, start, duration = str(event["name"]), _as_int(event["ts"]), _as_int(event["dur"])
        if not name.endswith(_KERNEL) or not isinstance(arguments, dict) or start < ends.get(event["tid"], -1):
            continue
        ends[event["tid"]] = start + duration
        node = name.removesuffix(_KERNEL)
        layer = layer_of(node, layers) or owners.get(node)
        op_type, provider = str(arguments.get("op_name", "")), str(arguments.get("provider", ""))
        yield NodeRun(node, op_type, provider, layer, start, duration, _as_int(event["tid"]))


def _as_int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _owners(optimized: Path, layers: Collection[str]) -> dict[str, str]:
    """Node → layer, for the nodes too that onnxruntime puts between layers: copies, and changes of memory layout.

    A change to a kernel's own layout (ReorderInput) belongs to what reads it, all others to what made their input.
    """
    import onnx

    nodes = onnx.load(optimized, load_external_data=False).graph.node
    readers = {value: node.name for node in reversed(nodes) for value in node.input}
    makers = {value: node.name for node in nodes for value in node.output}
    owners = {node.name: layer for node in nodes if (layer := layer_of(node.name, layers)) is not None}
    inserted = [node for node in nodes if node.name not in owners]
    inserted_before_readers = [node for node in inserted if node.op_type != "ReorderInput"]
    for node in inserted_before_readers:
        _assign_owner(owners, node.name, [makers.get(value, "") for value in node.input])
    for node in reversed(inserted):
        _assign_owner(owners, node.name, [readers.get(value, "") for value in node.output])
    return owners


def _assign_owner(owners: dict[str, str], node: str, neighbours: Sequence[str]) -> None:
    layer = next((owners[name] for name in neighbours if name in owners), None)
    if layer is not None and node not in owners:
        owners[node] = layer
