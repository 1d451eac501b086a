"""caffeconv train"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import click

from caffeconv.caffe_format.prototxt import NetSource
from caffeconv.cli.options.net import checked_provider, note, talk_options
from caffeconv.cli.show.console import echo
from caffeconv.cli.show.training import CaffeLog, FirstNonFinite, Format, Print, Table, progress_bar
from caffeconv.files.atomic import PathLike, refuse_input_as_output
from caffeconv.frontend.options import NetOptions
from caffeconv.net.net import Net
from caffeconv.runtime.providers import ComputeOptions
from caffeconv.training.events import Event, LogLine, Note, Snapshot
from caffeconv.training.learning_rate import check_policy
from caffeconv.training.metrics_log import Rows, RowWriter, check_suffix, columns_of, open_log
from caffeconv.training.plot import Curves, check_plot
from caffeconv.training.solver import Action, Solver
from caffeconv.training.solver_file import SolverFile, check_snapshots, read_solver, refuse_replaced_inputs

INTERRUPTED = 130


@dataclass(frozen=True)
class Outputs:
    """Where a training's numbers go."""

    form: Format
    log: Path | None
    plot: Path | None
    quiet: bool
    goes_on: bool
    """Whether the log goes on where an earlier run ended."""


@click.command("train")
@click.argument("solver", type=click.Path(path_type=Path))
@click.option(
    "--weights",
    multiple=True,
    metavar="FILE[,FILE…]",
    help="Fine-tune: weights to begin with, instead of those that the solver's file names. May be repeated.",
)
@click.option(
    "--snapshot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Continue from a .solverstate or .solverstate.h5.",
)
@click.option(
    "--resume-data",
    is_flag=True,
    help="With --snapshot: continue data and random numbers too, so that the run equals one without a break. "
    "Caffe starts its data over.",
)
@click.option("--iterations", type=click.IntRange(0), metavar="N", help="The last iteration, instead of max_iter.")
@click.option(
    "--provider",
    metavar="auto|cpu|cuda[:N]",
    callback=lambda _, __, value: value and checked_provider(value),
    help="Where to compute. By default the CPU where solver_mode says so, else a GPU where onnxruntime has CUDA.",
)
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of onnxruntime.")
@click.option("--seed", type=int, help="For fillers, dropout and random crops, instead of random_seed; 0 by default.")
@click.option(
    "--allow-python",
    is_flag=True,
    help='Import and run the modules of `type: "Python"` layers: code that you have to trust.',
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Let the solver's file place snapshots in this folder or below; without it, in the current folder, its own, or "
    "below. HDF5Output layers write there alone.",
)
@click.option("--level", type=int, help="NetState level of the training net, instead of train_state's.")
@click.option("--stage", "stages", multiple=True, metavar="NAME", help="Further NetState stage of the training net.")
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    metavar="FILE.csv|.jsonl",
    help="Write losses, rates and test outputs, a row for each iteration that is displayed or tested.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE.png|.svg",
    help="Draw losses and test outputs over iterations (needs matplotlib).",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["caffe", "table"], case_sensitive=False),
    default="caffe",
    show_default=True,
    help="Lines as Caffe's log has them, on stderr; or a table, on stdout.",
)
@talk_options
def train_command(
    *, solver: Path, weights: tuple[str, ...], snapshot: Path | None, resume_data: bool, iterations: int | None,
    provider: str | None, threads: int | None, seed: int | None, allow_python: bool,
    output_dir: Path | None, level: int | None, stages: tuple[str, ...], log: Path | None, plot: Path | None, form: Format,
    quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Trains the net that SOLVER (Caffe's solver.prototxt) names, with Caffe's own solver, tests and snapshots.

    Prints the names of the snapshots that it writes. Ctrl-C ends after the iteration with a snapshot, a second Ctrl-C at
    once. Example, from the project's folder:

    \b
        caffeconv train fixtures/digits/solver.prototxt --iterations 20
    """
    if weights and snapshot is not None:
        raise click.UsageError("Give a snapshot to resume training or weights to finetune but not both.")
    if resume_data and snapshot is None:
        raise click.UsageError("--resume-data: there is no --snapshot to continue from")
    for path, check in ((log, check_suffix), (plot, check_plot)):
        if path is not None:
            check(path)
    file = _with_options(read_solver(solver), weights, snapshot, level, stages)
    check_policy(file)
    ends_at = file.max_iter if iterations is None else iterations
    check_snapshots(file, output_dir)
    kind = provider or ("cpu" if file.computes_on_cpu else "auto")
    compute = ComputeOptions(kind, threads, nhwc=False, half=False)
    file_seed = file.random_seed if file.random_seed >= 0 else 0

    def make_net(source: NetSource, options: NetOptions) -> Net:
        own_seed = file_seed if seed is None else seed
        own = replace(options, allow_python=allow_python, seed=own_seed, output_dir=output_dir)
        net = Net.of_source(source, own, compute)
        for diagnostic in net.diagnostics if verbose else ():
            note(str(diagnostic), quiet=quiet)
        return net

    run = _Run(file, make_net, snapshot, ends_at, resume_data=resume_data)
    for output in (log, plot):
        if output is not None:
            refuse_input_as_output(output, run.inputs)
    if run.train(Outputs(form, log, plot, quiet, goes_on=snapshot is not None)):
        raise SystemExit(INTERRUPTED)


def _with_options(
    file: SolverFile, weights: tuple[str, ...], snapshot: Path | None, level: int | None, stages: tuple[str, ...]
) -> SolverFile:  # fmt: skip
    net = file.train_net
    net = replace(net, level=net.level if level is None else level, stages=(*net.stages, *stages))
    if weights:
        file = replace(file, weights=tuple(name.strip() for names in weights for name in names.split(",")))
    return replace(file, train_net=net, weights=() if snapshot is not None else file.weights)


class _Run:
    """One training, from the options to its end."""

    def __init__(
        self, file: SolverFile, make_net: Callable[[NetSource, NetOptions], Net], snapshot: Path | None,
        last: int, *, resume_data: bool,
    ) -> None:  # fmt: skip
        self._file = file
        self._make_net = make_net
        self._snapshot = snapshot
        self.inputs: tuple[PathLike, ...] = (file.path, *file.weights, *([snapshot] if snapshot is not None else []))
        self._last = last
        self._resume_data = resume_data
        self._observers: list[Callable[[Event], None]] = []

    def _report(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)

    def train(self, outputs: Outputs) -> bool:
        """Trains; whether somebody has stopped it."""
        self._observers = [_print_snapshots]
        with ExitStack() as stack, _requests() as next_action:
            move, above = stack.enter_context(progress_bar(0, self._last, quiet=outputs.quiet))
            self._observers += [
                move,
                *_lines(outputs, above),
                FirstNonFinite(functools.partial(note, quiet=outputs.quiet)).report,
            ]
            self._say(f"Use {'CPU' if self._file.computes_on_cpu else 'what onnxruntime has'}.")
            solver = Solver(self._file, self._make_net, self._report, next_action)
            if self._snapshot is not None:
                self._say(f"Resuming from {self._snapshot}")
                solver.restore(self._snapshot)
            refuse_replaced_inputs(self._file, self.inputs, solver.iter, self._last)
            if self._resume_data:
                solver.seek_data()
            for output in (outputs.log, outputs.plot):
                if output is not None:
                    refuse_input_as_output(output, _data_files(solver))
            self._observers.append(_metrics(outputs, solver, stack))
            self._say("Starting Optimization")
            solver.solve(last=self._last)
            self._say("Optimization Done.")
        return solver.stopped

    def _say(self, text: str) -> None:
        self._report(Note(LogLine("caffe.cpp:1", text)))


def _lines(outputs: Outputs, above: Print) -> list[Callable[[Event], None]]:
    if outputs.quiet:
        return []
    if outputs.form == "caffe":
        return [CaffeLog(above).report]
    return [Table(echo).report]


def _metrics(outputs: Outputs, solver: Solver[Net], stack: ExitStack) -> Callable[[Event], None]:
    """What writes the log, and draws the plot when all is over, however it ends."""
    writers: list[RowWriter] = []
    if outputs.plot is not None:
        curves = Curves()
        writers.append(curves)
        stack.callback(curves.draw, outputs.plot)
    if outputs.log is not None:
        columns = columns_of([_counts(net) for net in (solver.net, *solver.test_nets)])
        writers.append(stack.enter_context(open_log(outputs.log, columns, goes_on=outputs.goes_on)))
    rows = Rows(writers)
    stack.callback(rows.flush)
    return rows.report


def _data_files(solver: Solver[Net]) -> Iterator[Path]:
    for net in (solver.net, *solver.test_nets):
        for source in net.sources.values():
            yield from (Path(source.name), *source.files)


def _counts(net: Net) -> dict[str, int]:
    return {name: net.blobs[name].count for name in net.outputs}


def _print_snapshots(event: Event) -> None:
    if isinstance(event, Snapshot):
        echo(event.weights)
        echo(event.state)


@contextmanager
def _requests() -> Iterator[Callable[[], Action | None]]:
    """Yields what tells of signals: Ctrl-C requests a stop (the second one ends at once), SIGHUP a snapshot, as in Caffe."""
    requested: list[Action] = []

    def stop(signal_number: int, frame: FrameType | None) -> None:
        requested.append("stop")
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def snapshot(signal_number: int, frame: FrameType | None) -> None:
        requested.append("snapshot")

    handlers: Sequence[tuple[str, Callable[[int, FrameType | None], None]]] = (("SIGINT", stop), ("SIGHUP", snapshot))
    before = {
        number: signal.signal(number, handler)
        for name, handler in handlers
        if (number := getattr(signal, name, None)) is not None and signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield lambda: requested.pop(0) if requested else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
