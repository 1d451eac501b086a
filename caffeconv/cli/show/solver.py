"""A solver's file, explained."""

from __future__ import annotations

import json
from collections.abc import Iterator

from caffeconv.training.explanation import DataPass, Explanation, NetSummary


def solver_lines(explanation: Explanation) -> Iterator[str]:
    """The explanation as lines."""
    file = explanation.file
    yield f"{file.path}: {file.type}, {file.max_iter} iterations"
    yield from _net_lines("trains", explanation.train, explanation.train.passes)
    for i, test in enumerate(explanation.tests):
        yield from _net_lines(f"test net #{i}", test, 1, "pass")
        yield f"  {test.passes} passes every {file.test_interval} iterations{_at_start(explanation)}"
    yield f"learning rate ({file.lr_policy}):"
    yield from (f"  from iteration {iteration}: {rate:g}" for iteration, rate in explanation.rates)
    yield f"momentum {file.momentum:g}, weight decay {file.weight_decay:g} ({file.regularization})" + (
        f", gradients clipped at {file.clip:g}" if file.clip >= 0 else ""
    )
    when = [f"every {file.snapshot} iterations"] if file.snapshot else []
    when += ["at the end"] if file.snapshot_after_train else []
    yield f"snapshots: {' and '.join(when) or 'none'}, as {file.snapshot_name(file.max_iter, '.caffemodel')}"
    if file.weights:
        yield f"begins with: {', '.join(file.weights)}"


def _at_start(explanation: Explanation) -> str:
    return ", at the start too" if explanation.file.test_initialization else ""


def _net_lines(what: str, net: NetSummary, passes: int, unit: str = "iteration") -> Iterator[str]:
    frozen = f", {net.frozen} are frozen" if net.frozen else ""
    yield f"{what}: {net.name or 'a net without a name'} ({net.words}): {net.layers} layers, {net.learned} values learn{frozen}"
    for data in net.data:
        yield f"  {_data_line(data, passes, unit)}"


def _data_line(data: DataPass, passes: int, unit: str) -> str:
    if data.items is None:
        return f"{data.layer}: {data.source}: {data.why}"
    each = data.batch * passes
    through = f"; once through in {data.items / each:.4g}" if each and data.items else ""
    of = f" × {passes}" if passes != 1 else ""
    return f"{data.layer}: {data.source}: {data.items} items, {data.batch}{of} in each {unit}{through}"


def to_json(explanation: Explanation) -> str:
    """The explanation as JSON."""
    file = explanation.file

    def net(summary: NetSummary) -> dict[str, object]:
        data = [
            {"layer": it.layer, "source": it.source, "batch": it.batch, "items": it.items, "error": it.why or None}
            for it in summary.data
        ]
        return {
            "name": summary.name, "from": summary.words, "layers": summary.layers, "learned": summary.learned,
            "frozen": summary.frozen, "passes": summary.passes, "data": data,
        }  # fmt: skip

    return json.dumps(
        {
            "solver": str(file.path), "type": file.type, "max_iter": file.max_iter, "train": net(explanation.train),
            "tests": [net(test) for test in explanation.tests], "test_interval": file.test_interval,
            "lr_policy": file.lr_policy,
            "rates": [{"iteration": iteration, "lr": rate} for iteration, rate in explanation.rates],
        },
        indent=2,
    )  # fmt: skip
