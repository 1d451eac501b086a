"""pycaffe's solvers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import caffeconv.pycaffe as caffe
from caffeconv.errors import CaffeconvError

CASES = Path(__file__).parents[2] / "fixtures" / "solvers"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(CASES / "test_net", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_solver_as_scripts_use_it(folder: Path) -> None:
    solver = caffe.get_solver("solver.prototxt")
    assert isinstance(solver, caffe.SGDSolver)
    assert (solver.iter, solver.param.max_iter, solver.max_iter) == (0, 10, 10)
    assert solver.lr == pytest.approx(0.1)
    solver.net.copy_from("init.caffemodel")
    solver.step(2)
    assert solver.iter == 2
    assert solver.net.blobs["loss"].data.size == 1
    loss = solver.test_nets[0].forward()["loss"]
    assert np.isfinite(loss)
    solver.solve()
    assert solver.iter == 10
    assert (folder / "snap_iter_10.solverstate").exists()
    other = caffe.get_solver("solver.prototxt")
    other.restore("snap_iter_10.solverstate")
    assert other.iter == 10
    for layer, blobs in solver.net.params.items():
        np.testing.assert_array_equal(other.net.params[layer][0].data, blobs[0].data)


def test_the_class_decides_about_the_type(folder: Path) -> None:
    trace = np.load(CASES / "test_net" / "trace.npz")
    first, second = caffe.SGDSolver("solver.prototxt"), caffe.NesterovSolver("solver.prototxt")
    for solver in (first, second):
        solver.net.copy_from("init.caffemodel")
        solver.step(1)
    layer = next(iter(first.net.params))
    np.testing.assert_allclose(first.net.params[layer][0].data, trace[f"param/{layer}/0"][1], 1e-4, 1e-6)
    assert not np.allclose(second.net.params[layer][0].data, first.net.params[layer][0].data)


def test_surgery_before_training(folder: Path) -> None:
    solver = caffe.SGDSolver("solver.prototxt")
    layer = next(iter(solver.net.params))
    solver.net.params[layer][0].data[...] = 0.25
    solver.net.save("surgery.caffemodel")
    other = caffe.SGDSolver("solver.prototxt")
    other.net.copy_from("surgery.caffemodel")
    assert (other.net.params[layer][0].data == 0.25).all()
    other.share_weights(solver.net)
    other.step(1)
    assert other.net.params[layer][0].data is solver.net.params[layer][0].data


def test_faults_are_reported(folder: Path) -> None:
    (folder / "solver.prototxt").write_text("base_lr: 1")
    with pytest.raises(CaffeconvError, match="SolverParameter must specify a train net"):
        caffe.get_solver("solver.prototxt")
