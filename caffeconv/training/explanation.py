"""What a solver's file amounts to: its nets, its learning rates, and how often it goes through the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from caffeconv.conversion.load import load_source
from caffeconv.emit.training_step import learned_params
from caffeconv.errors import CaffeconvError
from caffeconv.ir.graph import Graph
from caffeconv.net.data_layers import DataLayers
from caffeconv.tensor.shape import count
from caffeconv.training.learning_rate import check_policy, rate_at
from caffeconv.training.solver_file import SolverFile, SolverNet, open_net, read_solver

MOST_STEPS = 20
"""Changes of the learning rate that are listed."""
SAMPLES = 5
"""Rates that are listed where the rate changes in each iteration."""


@dataclass(frozen=True)
class DataPass:
    """A source of data, and how many passes of its net take all of its items once."""

    layer: str
    source: str
    batch: int
    items: int | None
    """None where the source cannot be read."""
    why: str = ""
    """Why it cannot."""


@dataclass(frozen=True)
class NetSummary:
    """A net of the solver."""

    name: str
    words: str
    layers: int
    learned: int
    """Values that learn, and that are frozen (lr_mult 0)."""
    frozen: int
    data: Sequence[DataPass]
    passes: int
    """Of an iteration, or of a test."""


@dataclass(frozen=True)
class Explanation:
    """A solver in short."""

    file: SolverFile
    train: NetSummary
    tests: Sequence[NetSummary]
    rates: Sequence[tuple[int, float]]
    """(Iteration, learning rate from there on), or samples where it changes each time."""


def explain_solver(path: Path) -> Explanation:
    """Reads a solver and its nets; raises CaffeconvError with everything that is wrong with them."""
    file = read_solver(path)
    check_policy(file)
    train = _summary(file.train_net, file, file.iter_size)
    tests = [_summary(net, file, net.passes) for net in file.test_nets]
    return Explanation(file, train, tests, list(_rates(file)))


def _summary(net: SolverNet, file: SolverFile, passes: int) -> NetSummary:
    source, options = open_net(net, file.path)
    graph = load_source(source, (), options, source.path or file.path).graph
    sizes = {True: 0, False: 0}
    for param in learned_params(graph):
        sizes[param.lr_mult != 0] += count(param.shape)
    data = [*_data(graph)]
    return NetSummary(graph.net.name, net.words, len(graph.nodes), sizes[True], sizes[False], data, passes)


def _data(graph: Graph) -> Iterator[DataPass]:
    for layer, source in DataLayers(graph.nodes, 0).sources.items():
        try:
            yield DataPass(layer, source.name, source.batch_size, source.count_items())
        except CaffeconvError as error:
            yield DataPass(layer, source.name, source.batch_size, None, str(error))


def _rates(file: SolverFile) -> Iterator[tuple[int, float]]:
    if file.lr_policy in ("fixed", "step", "multistep"):
        places = sorted({0, *_changes(file)})
        step = 0
        for place in places[:MOST_STEPS]:
            rate = rate_at(file, place, step)
            step = rate.step
            yield place, rate.value
        return
    last = max(file.max_iter - 1, 0)
    for place in sorted({last * i // (SAMPLES - 1) for i in range(SAMPLES)}):
        yield place, rate_at(file, place, 0).value


def _changes(file: SolverFile) -> Iterator[int]:
    if file.lr_policy == "step":
        yield from range(0, file.max_iter, file.stepsize)
    elif file.lr_policy == "multistep":
        yield from (value for value in file.stepvalues if value < file.max_iter)
