"""What a solver tells while it works, and the lines in which Caffe's log has it (caffe: solver.cpp, sgd_solver.cpp)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LogLine:
    """A line of Caffe's log."""

    source: str
    """Caffe's source file, and its line there: ``solver.cpp:218``."""
    text: str


@dataclass(frozen=True)
class Output:
    """One value of a net's output."""

    name: str
    value: float
    loss_weight: float = 0.0


@dataclass(frozen=True)
class Note:
    """Something that only the log has."""

    line: LogLine


@dataclass(frozen=True)
class Iteration:
    """An iteration that was made."""

    number: int
    loss: float
    smoothed_loss: float
    rate: float
    items: int
    """How many items its passes took."""
    is_shown: bool
    """Whether the log has it (display)."""
    per_second: float
    seconds: float
    """Iterations per second, and seconds, since the one that was shown before."""
    display: int
    outputs: Sequence[Output]
    step: int | None = None
    """The step of `multistep`, where it rose."""
    norm: float | None = None
    """The gradients' length, where it was over `clip`."""
    clip: float = 0.0


@dataclass(frozen=True)
class NetTest:
    """What a test net gave, on average over its passes."""

    iteration: int
    net: int
    outputs: Sequence[Output]
    loss: float | None
    """Where test_compute_loss asks for it."""


@dataclass(frozen=True)
class Snapshot:
    """Files that are written."""

    iteration: int
    weights: str
    state: str
    is_hdf5: bool


Event = Note | Iteration | NetTest | Snapshot


def log_lines(event: Event) -> Iterator[LogLine]:
    """The lines of Caffe's log for an event; the line that announces a test is a Note."""
    if isinstance(event, Note):
        yield event.line
    elif isinstance(event, Iteration):
        yield from _iteration_lines(event)
    elif isinstance(event, NetTest):
        if event.loss is not None:
            yield LogLine("solver.cpp:386", f"Test loss: {number(event.loss)}")
        yield from _output_lines("solver.cpp:397", "Test", event.outputs)


def _iteration_lines(event: Iteration) -> Iterator[LogLine]:
    if event.is_shown:
        yield LogLine(
            "solver.cpp:218",
            f"Iteration {event.number} ({number(event.per_second)} iter/s, {number(event.seconds)}s/{event.display} "
            f"iters), loss = {number(event.smoothed_loss)}",
        )
        yield from _output_lines("solver.cpp:237", "Train", event.outputs)
    if event.step is not None:
        yield LogLine("sgd_solver.cpp:46", f"MultiStep Status: Iteration {event.number}, step = {event.step}")
    if event.is_shown:
        yield LogLine("sgd_solver.cpp:105", f"Iteration {event.number}, lr = {number(event.rate)}")
    if event.norm is not None:
        yield LogLine(
            "sgd_solver.cpp:93",
            f"Gradient clipping: scaling down gradients (L2 norm {number(event.norm)} > {number(event.clip)}) by scale "
            f"factor {number(event.clip / event.norm)}",
        )


def _output_lines(source: str, which: str, outputs: Sequence[Output]) -> Iterator[LogLine]:
    for i, output in enumerate(outputs):
        weight = output.loss_weight
        loss = f" (* {number(weight)} = {number(weight * output.value)} loss)" if weight else ""
        yield LogLine(source, f"    {which} net output #{i}: {output.name} = {number(output.value)}{loss}")


def number(value: float) -> str:
    """As C++'s streams write it: six digits."""
    return f"{value:g}"
