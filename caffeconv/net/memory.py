"""Whether the machine has the memory that a pass of a net takes, before anything is allocated."""

from __future__ import annotations

from pathlib import Path

from caffeconv.errors import CaffeconvError
from caffeconv.inspection.costs import session_bytes
from caffeconv.ir.graph import Graph

_MEMINFO = Path("/proc/meminfo")


def session_size(graph: Graph, *, with_diffs: bool = False) -> int:
    """About the bytes that a session for the graph holds; raises CaffeconvError where these are more than are free."""
    size = session_bytes(graph) * (2 if with_diffs else 1)
    free = free_bytes()
    if free is not None and size > free:
        what = "blobs, their diffs" if with_diffs else "blobs"
        raise CaffeconvError(
            f"the {what} and parameters take {size / 1e9:.1f} GB at once; {free / 1e9:.1f} GB of memory are free. Try smaller "
            "inputs with `shapes=…`, or a smaller batch_size in the net"
        )
    return size


def free_bytes() -> int | None:
    """Memory and swap that nobody uses, as Linux says it; None elsewhere."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return sum(1024 * int(lines[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
    except (OSError, ValueError, KeyError, IndexError):
        return None
