"""Real Caffe's numbers: every recorded case, converted and run by a plain onnxruntime, by our library, and by Net."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import onnxruntime
import pytest
from support.golden_cases import Array, Case, cases, difference, forward, part, runnable, runs_in_a_net

import caffeconv

RUN = [case for case in cases("layers", "nets", "fork") if runnable(case)]
STATELESS = [case for case in RUN if not case.steps]
IN_NETS = [case for case in cases("layers", "nets", "fork") if runs_in_a_net(case)]
ERRORS = [case for case in cases("errors") if "weights_described" not in case.about]


@pytest.fixture
def inside(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Case:
    """The case, with its folder as the current one: paths in a prototxt are relative to it. A copy, where files matter."""
    case = request.param
    assert isinstance(case, Case)
    if not runnable(case):
        case = replace(case, folder=Path(shutil.copytree(case.folder, tmp_path / case.folder.name)))
    monkeypatch.chdir(case.folder)
    return case


def _compare(case: Case, got: dict[str, Array], want: dict[str, Array]) -> None:
    problems = [difference(case, name, got[name], values) for name, values in want.items()]
    assert [problem for problem in problems if problem] == []


@pytest.mark.parametrize("inside", STATELESS, ids=lambda c: c.name, indirect=True)
def test_converted(inside: Case) -> None:
    _converted(inside, library=False)


@pytest.mark.parametrize(
    "inside", [c for c in STATELESS if "InfogainLoss" in c.types], ids=lambda c: c.name, indirect=True
)
def test_converted_with_the_library(inside: Case) -> None:
    _converted(inside, library=True)


def _converted(inside: Case, *, library: bool) -> None:
    compared = 0
    for record in inside.records():
        feeds = part(record, "in/")
        shapes = {name: values.shape for name, values in feeds.items()} if inside.reshaped else None
        model = caffeconv.convert(
            inside.net, inside.weights, outputs="all", batch="keep", shapes=shapes, **inside.state
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if library:
            assert any(node.domain == "caffeconv" for node in model.graph.node)
            options.register_custom_ops_library(caffeconv.ops.library_path())
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        inputs = {i.name for i in session.get_inputs()}
        results = session.run(names, {name: feeds[name].astype("f4") for name in inputs})
        want = {name: values for name, values in part(record, "blob/").items() if name not in inputs}
        _compare(inside, dict(zip(names, results, strict=True)), want)
        compared += 1
    assert compared


@pytest.mark.parametrize("inside", IN_NETS, ids=lambda c: c.name, indirect=True)
def test_net(inside: Case) -> None:
    for record in inside.records():
        net = caffeconv.Net(inside.net, inside.weights, allow_python=True, **inside.state)
        feeds = part(record, "in/")
        for name, values in feeds.items() if inside.reshaped else ():
            net.blobs[name].reshape(*values.shape)
        for step in range(inside.steps or 1):
            want = part(record, f"step{step}/" if inside.steps else "blob/")
            _compare(inside, forward(net, feeds, list(want)), want)
        written = part(record, "h5/")
        if written:
            with h5py.File(str(inside.about["hdf5_output"])) as file:
                _compare(inside, {name: np.asarray(file[name]) for name in file}, written)


@pytest.mark.parametrize("case", ERRORS, ids=lambda c: c.name)
def test_error(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(case.folder, tmp_path / "case"))
    monkeypatch.chdir(folder)
    with pytest.raises(caffeconv.CaffeconvError) as caught:  # noqa: PT012 - Caffe refuses some at set-up, some when run
        net = caffeconv.Net(case.net, case.weights, allow_python=True, **case.state)
        rng = np.random.default_rng(0)
        feeds: dict[str, Array] = {name: rng.random(net.blobs[name].shape, "f4") for name in net.inputs}
        for record in case.records():
            feeds = part(record, "in/")
        forward(net, feeds)
    assert len(str(caught.value)) > 20
