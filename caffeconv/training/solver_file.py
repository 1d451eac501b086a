"""A solver's file as Caffe reads it, and what is wrong with it (caffe: solver.cpp, sgd_solvers.hpp, upgrade_proto.cpp)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from caffeconv.caffe_format.prototxt import NetSource, SolverSource, read_solver_prototxt, refuse_unknown_fields
from caffeconv.caffe_format.terms import Phase
from caffeconv.caffe_pb2 import NetParameter, NetState, SolverParameter
from caffeconv.errors import CaffeconvError, Diagnostic, InvalidNetError, near_name
from caffeconv.files.atomic import PathLike, refuse_input_as_output
from caffeconv.frontend.open_files import read_net
from caffeconv.frontend.options import NetOptions

TRAIN_NET_FIELDS = "net, net_param, train_net, train_net_param"
TYPES = ("AdaDelta", "AdaGrad", "Adam", "Nesterov", "RMSProp", "SGD")
"""Caffe's types of solvers."""
POLICIES = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")
"""Caffe's policies for the learning rate."""
_OLD_TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
"""By the numbers of the old enum `solver_type`."""


@dataclass(frozen=True)
class SolverNet:
    """A net that a solver trains or tests, and the NetState that it gets."""

    words: str
    """As Caffe's log calls it: ``net file: train_val.prototxt``."""
    file: str | None
    message: NetParameter | None
    """The net itself, where the solver's file holds it."""
    phase: Phase
    level: int | None = None
    """None: the net's own."""
    stages: tuple[str, ...] = ()
    passes: int = 0
    """Of a test (test_iter)."""


@dataclass(frozen=True)
class SolverFile:
    """What a solver's file says, in Caffe's terms; what it leaves out has Caffe's default."""

    path: Path
    type: str
    train_net: SolverNet
    test_nets: tuple[SolverNet, ...]
    base_lr: float
    lr_policy: str
    gamma: float
    power: float
    stepsize: int
    stepvalues: tuple[int, ...]
    max_iter: int
    momentum: float
    momentum2: float
    rms_decay: float
    delta: float
    weight_decay: float
    regularization: Literal["L1", "L2"]
    clip: float
    iter_size: int
    display: int
    average_loss: int
    snapshot: int
    """Iterations between two snapshots; 0: none."""
    snapshot_prefix: str
    snapshot_hdf5: bool
    snapshot_diff: bool
    snapshot_after_train: bool
    test_interval: int
    test_initialization: bool
    test_compute_loss: bool
    random_seed: int
    """-1: none."""
    computes_on_cpu: bool
    """Whether solver_mode says so."""
    weights: tuple[str, ...]
    debug_info: bool
    layer_wise_reduce: bool
    lines: Mapping[str, tuple[int, ...]] = field(default_factory=dict, compare=False, repr=False)

    def where(self, name: str, index: int = 0) -> str:
        """The file, with the line of a field."""
        lines = self.lines.get(name, ())
        return f"{self.path}, line {lines[min(index, len(lines) - 1)]}" if lines else str(self.path)

    def snapshot_name(self, iteration: int, suffix: str) -> Path:
        """A snapshot's file (caffe: Solver::SnapshotFilename)."""
        return Path(f"{self.snapshot_prefix}_iter_{iteration}{suffix}")


def read_solver(path: PathLike, *, kind: str | None = None) -> SolverFile:
    """A solver's file.

    kind: the type to take instead of the file's.

    Raises:
        CaffeconvError: a file that is none, or with fields that the schema lacks.
        InvalidNetError: everything that Caffe refuses when the solver is made, with line numbers and its words.
    """
    source = read_solver_prototxt(Path(path))
    upgraded, problems = _upgraded(source)
    if kind is not None:
        upgraded.type = kind
    problems += _problems(upgraded, source)
    if problems:  # as all is told at once, also what Caffe finds only when it trains
        problems += [_problem(source, name, message) for name, message in policy_faults(upgraded)]
        raise InvalidNetError(problems)
    return _solver_file(upgraded, source)


def _solver_file(p: SolverParameter, source: SolverSource) -> SolverFile:
    on_cpu = p.HasField("solver_mode") and p.solver_mode == p.CPU
    return SolverFile(
        source.path, p.type, _train_net(p), tuple(_test_nets(p)), p.base_lr, p.lr_policy, p.gamma, p.power,
        p.stepsize, tuple(p.stepvalue), p.max_iter, p.momentum, p.momentum2, p.rms_decay, p.delta, p.weight_decay,
        "L1" if p.regularization_type == "L1" else "L2", p.clip_gradients, p.iter_size, p.display, p.average_loss,
        p.snapshot, _snapshot_prefix(p, source.path), p.snapshot_format == p.HDF5, p.snapshot_diff,
        p.snapshot_after_train, p.test_interval, p.test_initialization, p.test_compute_loss, p.random_seed, on_cpu,
        tuple(name.strip() for names in p.weights for name in names.split(",")), p.debug_info, p.layer_wise_reduce,
        source.lines,
    )  # fmt: skip


def _upgraded(source: SolverSource) -> tuple[SolverParameter, list[Diagnostic]]:
    """The message with `type` in place of the old `solver_type` (caffe: UpgradeSolverType)."""
    upgraded = SolverParameter()
    upgraded.CopyFrom(source.solver)
    if not upgraded.HasField("solver_type"):
        return upgraded, []
    if upgraded.HasField("type"):
        message = (
            "solver_type and type are both given; one was needed. Caffe: Failed to upgrade solver: old solver_type field "
            "(enum) and new type field (string) cannot be both specified in solver proto text."
        )
        return upgraded, [_problem(source, "solver_type", message)]
    upgraded.type = _OLD_TYPES[upgraded.solver_type]
    upgraded.ClearField("solver_type")
    return upgraded, []


def _snapshot_prefix(p: SolverParameter, path: Path) -> str:
    # caffe: UpgradeSnapshotPrefixProperty
    if not p.HasField("snapshot_prefix"):
        return str(path.with_suffix(""))
    return str(Path(p.snapshot_prefix) / path.stem) if Path(p.snapshot_prefix).is_dir() else p.snapshot_prefix


# -- the nets ----------------------------------------------------------------------------------------------------------


def _train_net(p: SolverParameter) -> SolverNet:
    if p.HasField("train_net_param"):
        net = SolverNet("training net specified in train_net_param.", None, p.train_net_param, "TRAIN")
    elif p.HasField("train_net"):
        net = SolverNet(f"training net from train_net file: {p.train_net}", p.train_net, None, "TRAIN")
    elif p.HasField("net_param"):
        net = SolverNet("training net specified in net_param.", None, p.net_param, "TRAIN")
    else:
        net = SolverNet(f"training net from net file: {p.net}", p.net, None, "TRAIN")
    return _in_state(net, p.train_state)


def _test_nets(p: SolverParameter) -> Iterator[SolverNet]:
    """Those of `test_net_param`, then of `test_net`, then the generic net for each further `test_iter`."""
    nets = [SolverNet("test_net_param", None, message, "TEST") for message in p.test_net_param]
    nets += [SolverNet(f"test_net file: {name}", name, None, "TEST") for name in p.test_net]
    generic = (
        SolverNet("net_param", None, p.net_param, "TEST")
        if p.HasField("net_param")
        else SolverNet(f"net file: {p.net}", p.net, None, "TEST")
    )
    nets += [generic] * (len(p.test_iter) - len(nets))
    for i, (net, passes) in enumerate(zip(nets, p.test_iter, strict=True)):
        net = _in_state(net, p.test_state[i]) if p.test_state else net
        yield replace(net, passes=passes)


def _in_state(net: SolverNet, state: NetState) -> SolverNet:
    phases: tuple[Phase, Phase] = ("TRAIN", "TEST")
    phase = phases[state.phase] if state.HasField("phase") else net.phase
    return replace(
        net, phase=phase, level=state.level if state.HasField("level") else None, stages=tuple(state.stage)
    )  # fmt: skip


def open_net(net: SolverNet, solver: Path) -> tuple[NetSource, NetOptions]:
    """A net as read, and the options of its NetState; the solver's state counts before the net's own.

    A file is looked for from the current folder, as in Caffe, and then beside the solver's. Raises CaffeconvError.
    """
    if net.message is not None:
        source = NetSource(net.message, (0,) * len(net.message.layer or net.message.layers), solver, solver.parent)
    else:
        path = Path(net.file or "")
        beside = solver.parent / path
        if not path.exists() and not beside.exists():
            raise CaffeconvError(
                f"{solver}: File not found: {net.file}, neither from here nor beside the solver's file"
            )
        source = read_net(path if path.exists() else beside, is_built=True)
        refuse_unknown_fields(source.dropped, source.path)
    own = source.net.state
    level = net.level if net.level is not None else own.level
    return source, NetOptions(net.phase, level, net.stages)


def check_snapshots(file: SolverFile, output_dir: Path | None = None) -> None:
    """Raises CaffeconvError where a snapshot could not, or may not, be written, which Caffe notices only then, or never.

    output_dir: the folder in which, or below which, snapshots may lie; None: the current folder, and the file's own.
    """
    if not file.snapshot_after_train and not file.snapshot:
        return
    folder = Path(file.snapshot_prefix).parent
    if not folder.is_dir():
        raise CaffeconvError(f"{file.where('snapshot_prefix')}: {_no_folder(folder, file.snapshot_prefix)}")
    allowed = (Path(), file.path.parent) if output_dir is None else (output_dir,)
    if not any(folder.resolve().is_relative_to(place.resolve()) for place in allowed):
        places = "the current folder and the solver's" if output_dir is None else f"`output_dir={str(output_dir)!r}`"
        raise CaffeconvError(
            f"{file.where('snapshot_prefix')}: snapshot_prefix '{file.snapshot_prefix}' leads outside of {places}, where a "
            f"file of somebody else's is not to write. `output_dir={str(folder)!r}` allows it"
        )


def refuse_replaced_inputs(file: SolverFile, inputs: Sequence[PathLike], first: int, last: int) -> None:
    """Raises CaffeconvError where a snapshot behind iteration `first`, up to `last`, would replace one of `inputs`."""
    for path in inputs:
        match = re.fullmatch(r".*_iter_([0-9]{1,10})(\.(?:caffemodel|solverstate)(?:\.h5)?)", Path(path).resolve().name)
        if match is None:
            continue
        iteration = int(match[1])
        is_due = iteration == last or (file.snapshot and iteration % file.snapshot == 0)
        if not first < iteration <= last or not is_due or match[2].endswith(".h5") != file.snapshot_hdf5:
            continue
        refuse_input_as_output(file.snapshot_name(iteration, match[2]), [path])


def _no_folder(folder: Path, prefix: str) -> str:
    return (
        f"there is no folder {folder}. Cannot write to snapshot prefix '{prefix}'.  Make sure that the directory exists "
        "and is writable."
    )


# -- what is wrong -----------------------------------------------------------------------------------------------------


def _problem(source: SolverSource, name: str, message: str, index: int = 0) -> Diagnostic:
    lines = source.lines.get(name, ())
    line = f", line {lines[min(index, len(lines) - 1)]}" if lines else ""
    return Diagnostic("error", f"{source.path}{line}", message)


def _problems(p: SolverParameter, source: SolverSource) -> list[Diagnostic]:
    """What Caffe refuses when it makes the solver."""
    checks: Sequence[Iterator[tuple[str, str]]] = (
        _type_faults(p), _train_net_faults(p), _test_net_faults(p), _number_faults(p), _snapshot_faults(p)
    )  # fmt: skip
    return [_problem(source, name, message) for faults in checks for name, message in faults]


def _type_faults(p: SolverParameter) -> Iterator[tuple[str, str]]:
    kind = p.type
    if kind not in TYPES:
        near = near_name(p.type, TYPES)
        hint = f" Did you mean {near}?" if near else ""
        yield "type", f"Unknown solver type: {p.type} (known types: {', '.join(TYPES)}).{hint}"
    if kind in ("AdaGrad", "RMSProp") and p.momentum:
        yield "momentum", f"momentum is {p.momentum:g}; Momentum cannot be used with {p.type}. Leave it out, or take 0"
    if kind == "RMSProp" and not 0 <= p.rms_decay < 1:
        sign, bound = ("<", 1) if p.rms_decay >= 1 else (">=", 0)
        yield (
            "rms_decay",
            (
                f"rms_decay is {p.rms_decay:g}; at least 0 and less than 1 was needed. Caffe: Check failed: "
                f"this->param_.rms_decay() {sign} {bound} ({p.rms_decay:g} vs. {bound}) rms_decay should lie between 0 and 1."
            ),
        )


def _train_net_faults(p: SolverParameter) -> Iterator[tuple[str, str]]:
    given = [name for name in TRAIN_NET_FIELDS.split(", ") if p.HasField(name)]
    if not given:
        yield (
            "",
            (
                "no net; Caffe: Check failed: num_train_nets >= 1 (0 vs. 1) SolverParameter must specify a train net using one "
                f"of these fields: {TRAIN_NET_FIELDS}"
            ),
        )
    if len(given) > 1:
        yield (
            given[1],
            (
                f"{' and '.join(given)} are both given; Caffe: Check failed: num_train_nets <= 1 ({len(given)} vs. 1) "
                "SolverParameter must not contain more than one of these fields specifying a train_net: "
                f"{TRAIN_NET_FIELDS}"
            ),
        )


def _test_net_faults(p: SolverParameter) -> Iterator[tuple[str, str]]:
    tests, named = len(p.test_iter), len(p.test_net_param) + len(p.test_net)
    is_generic = p.HasField("net") or p.HasField("net_param")
    if tests < named or (tests != named and not is_generic):
        sign = ">=" if is_generic else "=="
        yield (
            "test_iter",
            (
                f"test_iter is given {tests} times, and there are {named} test nets; Caffe: Check failed: "
                f"param_.test_iter_size() {sign} num_test_nets ({tests} vs. {named}) test_iter must be specified for each test "
                "network."
            ),
        )
    if p.test_state and len(p.test_state) != tests:
        yield (
            "test_state",
            (
                f"test_state is given {len(p.test_state)} times, and there are {tests} tests; Caffe: Check failed: "
                f"param_.test_state_size() == num_test_net_instances ({len(p.test_state)} vs. {tests}) test_state must be "
                "unspecified or specified once per test net."
            ),
        )
    if tests and p.test_interval <= 0:
        yield (
            ("test_interval" if p.HasField("test_interval") else "test_iter"),
            (
                f"test_interval is {p.test_interval}; with test_iter a number of iterations above 0 was needed. Caffe: Check "
                f"failed: param_.test_interval() > 0 ({p.test_interval} vs. 0)"
            ),
        )


def _number_faults(p: SolverParameter) -> Iterator[tuple[str, str]]:
    if p.average_loss < 1:
        yield (
            "average_loss",
            (
                f"average_loss is {p.average_loss}; at least 1 was needed. Caffe: Check failed: param_.average_loss() >= 1 "
                f"({p.average_loss} vs. 1) average_loss should be non-negative."
            ),
        )
    if p.regularization_type not in ("L1", "L2") and p.weight_decay:
        yield "regularization_type", f"Unknown regularization type: {p.regularization_type}; L1 or L2 was needed"
    for name in ("iter_size", "max_iter", "display", "snapshot"):
        value = getattr(p, name)
        if value < 0:
            yield name, f"{name} is {value}; a number from 0 on was needed"


def _snapshot_faults(p: SolverParameter) -> Iterator[tuple[str, str]]:
    if "\0" in p.snapshot_prefix:
        yield "snapshot_prefix", f"snapshot_prefix is '{p.snapshot_prefix}', with a NUL in it, which no file's name has"
        return
    # caffe: Solver::CheckSnapshotWritePermissions
    if not p.snapshot or not p.HasField("snapshot_prefix"):
        return
    folder = Path(p.snapshot_prefix) if Path(p.snapshot_prefix).is_dir() else Path(p.snapshot_prefix).parent
    if not folder.is_dir():
        yield "snapshot_prefix", _no_folder(folder, p.snapshot_prefix)


def policy_faults(solver: SolverFile | SolverParameter) -> Iterator[tuple[str, str]]:
    """What Caffe refuses when it first asks for a learning rate: each fault's field, and what is wrong."""
    policy = solver.lr_policy
    if policy not in POLICIES:
        near = near_name(policy, POLICIES)
        hint = f" Did you mean {near}?" if near else ""
        yield "lr_policy", f"Unknown learning rate policy: {policy}; one of {', '.join(POLICIES)} was needed.{hint}"
        return
    if policy in ("step", "sigmoid") and solver.stepsize <= 0:
        yield (
            "stepsize" if solver.stepsize else "lr_policy",
            (
                f"stepsize is {solver.stepsize}; policy {policy} needs a number of iterations above 0. Caffe: Check failed: "
                f"this->param_.stepsize() > 0 ({solver.stepsize} vs. 0)"
            ),
        )
    if policy in ("step", "exp", "inv", "multistep", "sigmoid") and solver.gamma < 0:
        yield (
            "gamma",
            (
                f"gamma is {solver.gamma:g}; at least 0 was needed. Caffe: Check failed: this->param_.gamma() >= 0 "
                f"({solver.gamma:g} vs. 0)"
            ),
        )
