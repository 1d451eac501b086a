"""`caffeconv run --profile`: time per layer, as a table, as JSON, or as a trace for chrome://tracing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from caffeconv.cli.show.elision import Elided
from caffeconv.errors import CaffeconvError
from caffeconv.inspection.layer_facts import LayerFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from caffeconv.runtime.profiler import Profile

TRACE = ".trace.json"


def check_profile_output(path: Path | None) -> None:
    """Raises CaffeconvError for a name that no profile can be written to."""
    if path is not None and path.suffix.lower() != ".json":
        raise CaffeconvError(
            f"{path}: a profile is written as .json, or as {TRACE} for chrome://tracing and Perfetto; the suffix chooses"
        )


def noise_for(inputs: Mapping[str, Sequence[int | str]], batch: int) -> dict[str, NDArray[np.float32]]:
    """Values for inputs that none were given for: noise from 0 to 255 for blobs of 3 axes or more, else zeros (labels)."""
    import numpy as np

    random = np.random.default_rng(0)
    feeds = {}
    for name, dims in inputs.items():
        unknown = [dim for dim in dims[1:] if not isinstance(dim, int)]
        if unknown:
            raise CaffeconvError(f"input '{name}' is open in {', '.join(map(str, unknown))}; give --input {name}=FILE")
        shape = tuple(dim if isinstance(dim, int) else batch for dim in dims)
        noise = random.uniform(0, 255, shape) if len(shape) > 2 else np.zeros(shape)
        feeds[name] = noise.astype(np.float32)
    return feeds


def profile_table(profile: Profile, facts: Sequence[LayerFacts]) -> Table:
    """A row for each layer, in order."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("layer")
    table.add_column("type")
    for heading in ("ms", "share", "mult-adds", "GFLOP/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    times, total_ms = profile.layer_ms, _total_ms(profile)
    for layer in facts:
        ms, work = times.get(layer.name), layer.multiply_adds
        table.add_row(
            Elided(layer.name),
            Elided(layer.type),
            "" if ms is None else f"{ms:.3f}",
            "" if ms is None else f"{ms / total_ms:.1%}",
            f"{work:,}" if work else "",
            f"{_gflops(work, ms):.1f}" if work and ms else "",
        )
    return table


def profile_lines(profile: Profile, facts: Sequence[LayerFacts]) -> list[str]:
    """What stands under the table."""
    times = profile.layer_ms
    lines = [
        f"{profile.passes} passes: {profile.pass_ms:.3f} ms a pass, {sum(times.values()):.3f} ms of it in layers"
        f" (forward only, after a warm-up)"
    ]
    if profile.unattributed_ms:
        nodes = ", ".join(profile.unattributed)
        share = profile.unattributed_ms / _total_ms(profile)
        lines.append(f"{profile.unattributed_ms:.3f} ms ({share:.1%}) belong to no layer ({nodes})")
    if any(layer.name not in times for layer in facts):
        lines.append("layers without a time are computed within another one (folded, fused), or not needed")
    if any(run.provider.startswith("CUDA") for run in profile.runs):
        lines.append("on CUDA, onnxruntime measures until a kernel is started, not until it is done")
    return lines


def profile_bytes(path: Path, profile: Profile, facts: Sequence[LayerFacts]) -> bytes:
    """The profile as JSON, or as a trace, as the suffix says."""
    content = _trace(profile, facts) if path.name.lower().endswith(TRACE) else _summary(profile, facts)
    return json.dumps(content, indent=1).encode() + b"\n"


def _summary(profile: Profile, facts: Sequence[LayerFacts]) -> object:
    times, total_ms = profile.layer_ms, _total_ms(profile)
    layers = [
        {
            "layer": layer.name,
            "type": layer.type,
            "ms": times.get(layer.name),
            "share": None if layer.name not in times else times[layer.name] / total_ms,
            "multiply_adds": layer.multiply_adds,
            "nodes": sorted({run.node for run in profile.runs if run.layer == layer.name}),
        }
        for layer in facts
    ]
    return {
        "passes": profile.passes,
        "pass_ms": profile.pass_ms,
        "layers": layers,
        "unattributed_ms": profile.unattributed_ms,
        "unattributed": list(profile.unattributed),
    }


def _trace(profile: Profile, facts: Sequence[LayerFacts]) -> object:
    # https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU: complete events
    types = {layer.name: layer.type for layer in facts}
    events = [
        {
            "name": run.layer or run.node,
            "cat": types.get(run.layer or "", run.op_type),
            "ph": "X",
            "ts": run.start_us,
            "dur": run.duration_us,
            "pid": 1,
            "tid": run.thread,
            "args": {"node": run.node, "operator": run.op_type, "provider": run.provider},
        }
        for run in profile.runs
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _total_ms(profile: Profile) -> float:
    return sum(profile.layer_ms.values()) + profile.unattributed_ms or 1.0


def _gflops(multiply_adds: int, ms: float) -> float:
    return 2 * multiply_adds / ms / 1e6
