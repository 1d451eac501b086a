"""The models run unchanged in a runtime that is not onnxruntime: onnx's own reference evaluator."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from support.golden_cases import Case, cases, difference, part, runnable

import caffeconv

NETS = [case for case in cases("nets", "layers") if runnable(case) and not case.steps and not case.about.get("random")]
# one of each layer type, the smallest first, and every whole net of fewer than 30 layers
SAMPLE = {case.name: case for case in NETS if case.folder.parent.name == "nets"}
for kind in sorted({kind for case in NETS for kind in case.types}):
    SAMPLE.update(
        (case.name, case) for case in [c for c in NETS if kind in c.types and c.folder.parent.name == "layers"][:2]
    )


@pytest.mark.parametrize("case", SAMPLE.values(), ids=lambda c: c.name)
def test_reference_evaluator(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.folder)
    record = next(case.records())
    feeds = part(record, "in/")
    shapes = {name: values.shape for name, values in feeds.items()} if case.reshaped else None
    model = caffeconv.convert(case.net, case.weights, batch="keep", shapes=shapes, **case.state)
    evaluator = ReferenceEvaluator(model)
    with np.errstate(all="ignore"):
        results = evaluator.run(None, {name: feeds[name].astype("f4") for name in evaluator.input_names})
    want = part(record, "blob/")
    compared = [name for name in evaluator.output_names if name in want]
    got = dict(zip(evaluator.output_names, results, strict=True))
    problems = [difference(case, name, np.asarray(got[name]), want[name]) for name in compared]
    assert [problem for problem in problems if problem] == []
