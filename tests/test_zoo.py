"""Published models, where they are at hand ($CAFFECONV_ZOO, ../shared/zoo by default): Caffe's recorded blobs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from support.golden_cases import ROOT, Case, cases, difference, part, runnable

import caffeconv

ZOO = Path(os.environ.get("CAFFECONV_ZOO", ROOT.parent / "shared" / "zoo"))
MODELS = [case for case in cases(root=ZOO) if runnable(case)] if ZOO.is_dir() else []
pytestmark = pytest.mark.skipif(not MODELS, reason=f"no models in {ZOO}")


def _run(case: Case, batch: str) -> None:
    for record in case.records():
        feeds = part(record, "in/")
        shapes = {name: values.shape for name, values in feeds.items()}
        want = {name: values for name, values in part(record, "blob/").items() if name not in feeds}
        model = caffeconv.convert(
            case.folder / case.net, case.folder / str(case.weights), outputs=list(want), shapes=shapes,
            batch="keep" if batch == "keep" else "dynamic",
        )  # fmt: skip
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        results = dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))
        problems = [difference(case, name, results[name], values) for name, values in want.items()]
        assert [problem for problem in problems if problem] == []


@pytest.mark.parametrize("batch", ["keep", "dynamic"])
@pytest.mark.parametrize("case", MODELS, ids=lambda c: c.name)
def test_recorded_blobs(case: Case, batch: str) -> None:
    _run(case, batch)


@pytest.mark.parametrize("case", MODELS, ids=lambda c: c.name)
def test_dynamic_batch_gives_the_same_rows(case: Case) -> None:
    record = next(case.records())
    (name, values), *_ = part(record, "in/").items()
    items = np.concatenate(
        [values[:1], values[:1][:, :, ::-1], np.random.default_rng(0).normal(size=(5, *values.shape[1:]))]
    )
    items = np.ascontiguousarray(items, np.float32)
    model = caffeconv.convert(case.folder / case.net, case.folder / str(case.weights), shapes={name: values[:1].shape})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    one_by_one = [session.run(None, {name: items[i : i + 1]}) for i in range(7)]
    for size in (2, 7):
        together = session.run(None, {name: items[:size]})
        for index, output in enumerate(session.get_outputs()):
            single = [results[index] for results in one_by_one[:size]]
            if case.about.get("detections"):
                rows = together[index].reshape(-1, 7)
                for i, alone in enumerate(single):
                    mine = rows[rows[:, 0] == i]
                    mine[:, 0] = 0
                    assert difference(case, output.name, mine, alone) is None
            else:
                np.testing.assert_allclose(together[index], np.concatenate(single), rtol=1e-3, atol=2e-5)
