"""Solver files: Caffe's defaults, its old fields, and what it refuses, all at once and with its words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from caffeconv.errors import CaffeconvError, InvalidNetError
from caffeconv.training.learning_rate import check_policy
from caffeconv.training.solver_file import open_net, read_solver

CASES = Path(__file__).parents[2] / "fixtures" / "solvers"
REFUSED = [
    path.parent.name
    for path in sorted(CASES.glob("error_*/case.json"))
    if json.loads(path.read_text())["error"] and not path.parent.name.endswith("_missing")
]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "solver.prototxt"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_carry_caffes_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES / name)
    words = (CASES / name / "error.txt").read_text().strip()
    with pytest.raises(InvalidNetError) as error:
        check_policy(read_solver("solver.prototxt"))
    assert words in str(error.value)


def test_everything_wrong_is_reported_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, 'type: "AdaGrad"\nmomentum: 0.5\naverage_loss: 0\ntest_iter: 1\nlr_policy: "no"')
    with pytest.raises(InvalidNetError) as error:
        read_solver(path)
    lines = str(error.value).splitlines()
    assert [re.findall(r", line (\d)", line) for line in lines] == [["2"], [], ["4"], ["4"], ["3"], ["5"]]
    assert "Momentum cannot be used with AdaGrad" in lines[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('net: "n" type: "Sgd"', r"Unknown solver type: Sgd \(known types: AdaDelta, .*\)\. Did you mean SGD"),
        ('net: "n" type: "SGD" solver_type: ADAM', "old solver_type field .* cannot be both specified"),
        ('net: "n" regularization_type: "L3" weight_decay: 1', "Unknown regularization type: L3"),
        ('net: "n" bas_lr: 1', "SolverParameter has no field named `bas_lr`; did you mean `base_lr`"),
        ('layer { name: "x" type: "ReLU" }', "this is a net; the solver's file that names it"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CaffeconvError, match=message):
        read_solver(written(tmp_path, text))


def test_old_types_and_defaults(tmp_path: Path) -> None:
    file = read_solver(written(tmp_path, 'net: "n.prototxt" solver_type: ADAGRAD'))
    assert file.type == "AdaGrad"
    assert (file.max_iter, file.iter_size, file.average_loss, file.clip) == (0, 1, 1, -1)
    assert file.snapshot_prefix == str(tmp_path / "solver")
    assert file.snapshot_name(3, ".caffemodel") == tmp_path / "solver_iter_3.caffemodel"
    assert read_solver(written(tmp_path, f'net: "n" snapshot_prefix: "{tmp_path}"')).snapshot_prefix == str(
        tmp_path / "solver"
    )


def test_test_nets_in_their_order(tmp_path: Path) -> None:
    text = 'net: "g.prototxt" test_net: "t.prototxt" test_iter: [3, 5] test_interval: 1 test_state {} test_state { stage: "s" }'
    first, second = read_solver(written(tmp_path, text)).test_nets
    assert (first.file, first.passes, first.stages) == ("t.prototxt", 3, ())
    assert (second.file, second.passes, second.stages) == ("g.prototxt", 5, ("s",))


def test_the_solvers_state_goes_before_the_nets_own(tmp_path: Path) -> None:
    (tmp_path / "n.prototxt").write_text('state { level: 3 stage: "own" }')
    file = read_solver(written(tmp_path, 'net: "n.prototxt" train_state { stage: "more" }'))
    _, options = open_net(file.train_net, file.path)
    assert (options.phase, options.level, options.stages) == ("TRAIN", 3, ("more",))


def test_a_net_within_the_solvers_file(tmp_path: Path) -> None:
    file = read_solver(written(tmp_path, 'net_param { name: "own" layer { name: "x" type: "Input" top: "x" } }'))
    source, _ = open_net(file.train_net, file.path)
    assert source.net.name == "own"
    assert source.directory == tmp_path
