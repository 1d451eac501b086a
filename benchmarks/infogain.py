"""InfogainLoss: the fused kernel beside onnxruntime's standard operators, numpy and torch, in one run.

    python benchmarks/infogain.py [--few-classes] [--rounds 15] [--threads 2]

Every round times every candidate once; a ratio is the median of the rounds' ratios, so that whatever else the machine
does strikes all of them alike. torch is left out where it is not installed. Forward + backward is one operator, the
gradient with the loss beside it. "exp pass" is the fastest exp over the scores into memory that is already there; "of
bandwidth" is the scores' bytes, read once (forward) or read and written once (forward + backward), over the time, as a
share of what the same threads can read.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from caffeconv.layers.infogain_functions import infogain_attributes, infogain_loss_function, infogain_loss_grad_function
from caffeconv.ops import library_path

Array = NDArray[np.float32]
SHAPES = [(256, 1000), (1, 21, 512, 512), (8, 19, 256, 512)]
FEW_CLASSES = [(1_000_000, 2), (200_000, 10), (65_536, 21), (50_000, 40), (100_000, 64), (20_000, 100)]
OURS = "caffeconv"


@dataclass(frozen=True)
class Case:
    """Scores N×C×…, labels N×…, H C×C."""

    scores: Array
    labels: Array
    h: Array


def case_of(shape: tuple[int, ...]) -> Case:
    random = np.random.default_rng(0)
    scores = random.standard_normal(shape, np.float32)
    labels = random.integers(0, shape[1], (shape[0], *shape[2:])).astype(np.float32)
    return Case(scores, labels, random.random((shape[1], shape[1]), np.float32))


def truth_of(case: Case) -> float:
    """The averaged loss in float64."""
    total = 0.0
    for scores, labels in zip(case.scores, case.labels, strict=True):
        rows = np.moveaxis(scores.reshape(scores.shape[0], -1), 0, -1).astype(np.float64)
        log_p = rows - rows.max(1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
        total -= float((case.h.astype(np.float64)[labels.astype(int).reshape(-1)] * log_p).sum())
    return total / case.labels.size


# ---- Candidates: functions of no argument that return the loss -------------------------------------------------------
Candidate = Callable[[], float]


def onnx_candidate(case: Case, *, backward: bool, library: bool, threads: int) -> Candidate:
    """A model of one node, the loss or the gradient with the loss; in standard operators where `library` is false."""
    attributes = infogain_attributes(axis=1, normalization="VALID", ignore_label=None, probabilities=False)
    inputs = [("scores", case.scores), ("labels", case.labels), ("H", case.h), ("loss_diff", np.array(1, np.float32))]
    outputs = [helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])]
    if backward:
        function = _grad_function(case)
        outputs.insert(0, helper.make_tensor_value_info("scores_diff", TensorProto.FLOAT, list(case.scores.shape)))
    else:
        function = _loss_function(case)
        inputs.pop()
    names = [name for name, _ in inputs]
    node = helper.make_node(function.name, names, [o.name for o in outputs], domain="caffeconv", overload="here")
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    model = helper.make_model(
        helper.make_graph(
            [node],
            "infogain",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(value.shape)) for name, value in inputs],
            outputs,
        ),
        functions=[function],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("caffeconv", 1)],
        ir_version=10,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if library:
        options.register_custom_ops_library(library_path())
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    feeds = dict(inputs)
    return lambda: float(session.run(None, feeds)[-1])


def _loss_function(case: Case) -> onnx.FunctionProto:
    return infogain_loss_function(
        "here",
        rank=case.scores.ndim,
        axis=1,
        normalization="VALID",
        ignore_label=None,
        num_classes=case.h.shape[0],
        probabilities=False,
        with_prob=False,
        opset=17,
    )


def _grad_function(case: Case) -> onnx.FunctionProto:
    return infogain_loss_grad_function(
        "here",
        rank=case.scores.ndim,
        axis=1,
        normalization="VALID",
        ignore_label=None,
        num_classes=case.h.shape[0],
        probabilities=False,
        opset=17,
        with_loss=True,
    )


def numpy_candidate(case: Case, *, backward: bool) -> Candidate:
    """Planes at a time, in place where it can be: no transposed copy, no N×H×W×C rows of H."""
    scores, h = case.scores, case.h
    labels = case.labels.astype(np.intp)
    row_sums = h.sum(1)

    def run() -> float:
        d = scores - scores.max(1, keepdims=True)
        e = np.exp(d)
        z = e.sum(1)
        total = float((np.log(z) * row_sums[labels]).sum(dtype=np.float64))
        if scores.ndim == 2:
            total -= float((h[labels] * d).sum(dtype=np.float64))
        else:
            for l in range(scores.shape[1]):  # noqa: E741
                total -= float((h[:, l][labels] * d[:, l]).sum(dtype=np.float64))
        if backward:
            e *= (row_sums[labels] / z / labels.size)[:, None]
            if scores.ndim == 2:
                e -= h[labels] / labels.size
            else:
                for l in range(scores.shape[1]):  # noqa: E741
                    e[:, l] -= (h[:, l] / labels.size)[labels]
        return total / labels.size

    return run


def torch_candidate(case: Case, *, backward: bool) -> Candidate:
    """What a user of torch writes; log_softmax is torch's own fused kernel."""
    import torch

    scores = torch.from_numpy(case.scores.copy()).requires_grad_(backward)
    labels, h = torch.from_numpy(case.labels).long(), torch.from_numpy(case.h)

    def run() -> float:
        with torch.set_grad_enabled(backward):
            scores.grad = None
            log_p = torch.log_softmax(scores, 1).clamp(min=float(np.log(1e-20)))
            loss = -(torch.movedim(h[labels], -1, 1) * log_p).sum() / labels.numel()
            if backward:
                loss.backward()
            return float(loss.detach())

    return run


def exp_candidates(case: Case, threads: int) -> list[Candidate]:
    """exp over the scores into memory that is there: numpy on all threads, torch."""
    out = np.empty_like(case.scores)
    pool = ThreadPoolExecutor(threads)
    parts = list(zip(np.array_split(case.scores.ravel(), threads), np.array_split(out.ravel(), threads), strict=True))

    def numpy_exp() -> float:
        list(pool.map(lambda part: np.exp(part[0], out=part[1]), parts))
        return 0

    candidates: list[Candidate] = [numpy_exp]
    if has_torch():
        import torch

        x, y = torch.from_numpy(case.scores), torch.from_numpy(out)

        def torch_exp() -> float:
            torch.exp(x, out=y)
            return 0

        candidates.append(torch_exp)
    return candidates


def has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


# ---- Measuring -------------------------------------------------------------------------------------------------------
def seconds(candidate: Candidate) -> float:
    """One call, or as many as fill two milliseconds, after one that does not count."""
    # Thread pools go on spinning for a while after their work is done; on few cores they are in the next one's way.
    time.sleep(0.02)
    candidate()
    calls, spent = 0, 0.0
    while spent < 2e-3:
        start = time.perf_counter()
        candidate()
        spent += time.perf_counter() - start
        calls += 1
    return spent / calls


def read_bandwidth(threads: int) -> float:
    """Bytes per second that the threads together can read, from an array that no cache holds."""
    array = np.ones(128 << 20, np.float32)
    parts = np.array_split(array, threads)
    with ThreadPoolExecutor(threads) as pool:
        best = min(seconds(lambda: float(sum(pool.map(lambda a: float(np.dot(a, a)), parts)))) for _ in range(10))
    return array.nbytes / best


@dataclass
class Timings:
    """Seconds by candidate, one for each round, and the losses."""

    rounds: dict[str, list[float]] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def ratio(self, name: str) -> float:
        """How many times our time the candidate takes, median of the rounds."""
        pairs = zip(self.rounds[name], self.rounds[OURS], strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)


def measure(case: Case, *, backward: bool, rounds: int, threads: int) -> Timings:
    candidates: dict[str, Candidate] = {
        OURS: onnx_candidate(case, backward=backward, library=True, threads=threads),
        "onnxruntime": onnx_candidate(case, backward=backward, library=False, threads=threads),
        "numpy": numpy_candidate(case, backward=backward),
    }
    if has_torch():
        candidates["torch"] = torch_candidate(case, backward=backward)
    exps = exp_candidates(case, threads)
    timings = Timings({name: [] for name in (*candidates, "exp")})
    for candidate in (*candidates.values(), *exps):  # warm up
        candidate()
        candidate()
    gc.disable()
    for _ in range(rounds):
        for name, candidate in candidates.items():
            timings.rounds[name].append(seconds(candidate))
        timings.rounds["exp"].append(min(seconds(exp) for exp in exps))
    gc.enable()
    timings.losses = {name: candidate() for name, candidate in candidates.items()}
    return timings


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--few-classes", action="store_true", help="many items of few classes, which lie side by side")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    threads: int = arguments.threads
    rivals = ["onnxruntime", "numpy"]
    if has_torch():
        import torch

        torch.set_num_threads(threads)
        rivals.append("torch")
    bandwidth = read_bandwidth(threads)
    print(f"{threads} threads, {arguments.rounds} rounds, {bandwidth / 1e9:.0f} GB/s read from memory; milliseconds\n")
    columns = ["scores", "pass", OURS, *rivals, "exp pass", "best rival / ours", *(["torch / ours"] * has_torch())]
    columns += ["ours / exp pass", "of bandwidth", "loss error"]
    print("| " + " | ".join(columns) + " |")
    print("|" + "|".join(["---"] * 2 + ["---:"] * (len(columns) - 2)) + "|")
    for shape in FEW_CLASSES if arguments.few_classes else SHAPES:
        case = case_of(shape)
        truth = truth_of(case)
        for backward in (False, True):
            timings = measure(case, backward=backward, rounds=arguments.rounds, threads=threads)
            moved = case.scores.nbytes * (2 if backward else 1)
            cells = ["×".join(map(str, shape)), "forward + backward" if backward else "forward"]
            cells += [f"{timings.median(name) * 1e3:.2f}" for name in (OURS, *rivals, "exp")]
            cells.append(f"{min(timings.ratio(name) for name in rivals):.1f}×")
            if has_torch():
                cells.append(f"{timings.ratio('torch'):.1f}×")
            cells.append(f"{1 / timings.ratio('exp'):.2f}")
            cells.append(f"{moved / timings.median(OURS) / bandwidth:.0%}")
            cells.append(f"{abs(timings.losses[OURS] / truth - 1):.0e}")
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
