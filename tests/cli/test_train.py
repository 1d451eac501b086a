"""caffeconv train."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.program import environment, heed_ctrl_c, program

from caffeconv.cli import main

CASES = Path(__file__).parents[2] / "fixtures" / "solvers"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(CASES / "resume", tmp_path, dirs_exist_ok=True)
    for snapshot in tmp_path.glob("snap_iter_*"):
        snapshot.unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["train", "solver.prototxt", *arguments])


def test_a_run_goes_on_as_if_it_had_not_ended(folder: Path) -> None:
    whole = train("--weights", "init.caffemodel", "--log", "log.csv")
    assert whole.exit_code == 0, whole.output
    assert whole.stdout.splitlines()[-2:] == ["snap_iter_10.caffemodel", "snap_iter_10.solverstate"]
    assert re.search(
        r"^I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ solver\.cpp:218\] Iteration 3 \(.*, loss = ", whole.stderr, re.MULTILINE
    )
    assert "Iteration 3, lr = 0.05" in whole.stderr
    assert len((folder / "log.csv").read_text().splitlines()) == 11
    weights = (folder / "snap_iter_10.caffemodel").read_bytes()
    (folder / "snap_iter_10.caffemodel").unlink()
    resumed = train("--snapshot", "snap_iter_5.solverstate", "--resume-data", "-q")
    assert resumed.exit_code == 0, resumed.output
    assert resumed.stderr == ""
    assert (folder / "snap_iter_10.caffemodel").read_bytes() == weights


def test_the_table_and_an_earlier_end(folder: Path) -> None:
    result = train("--iterations", "2", "--format", "table", "--weights", "init.caffemodel", "--seed", "1")
    head, first, *_ = result.stdout.splitlines()
    assert head.split() == ["iteration", "net", "loss", "lr", "outputs"]
    assert first.split()[:2] == ["0", "train"]
    assert (folder / "snap_iter_2.solverstate").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("--weights", "a", "--snapshot", "b"),
            2,
            "Give a snapshot to resume training or weights to finetune but not both",
        ),
        (("--resume-data",), 2, "--resume-data: there is no --snapshot"),
        (("--log", "log.txt"), 1, "log.txt: a log's name ends in .csv or .jsonl"),
        (("--snapshot", "none.solverstate"), 1, "none.solverstate: no such file"),
        (("--weights", "none.caffemodel"), 1, "Couldn't open none.caffemodel"),
    ],
)
def test_what_is_refused(folder: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    result = train(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert not list(folder.glob("snap_*"))


def test_policies_and_folders_are_checked_before_anything_runs(folder: Path) -> None:
    text = (folder / "solver.prototxt").read_text()
    (folder / "solver.prototxt").write_text(text.replace("multistep", "cosine"))
    assert "Unknown learning rate policy: cosine" in train().stderr
    (folder / "solver.prototxt").write_text(text.replace('"snap"', '"nowhere/snap"').replace("snapshot: 5", ""))
    assert "Cannot write to snapshot prefix 'nowhere/snap'" in train().stderr


def test_ctrl_c_ends_with_a_snapshot(folder: Path) -> None:
    text = (folder / "solver.prototxt").read_text().replace("snapshot: 5", "")
    (folder / "solver.prototxt").write_text(text)
    run = subprocess.Popen(
        [*program(), "train", "solver.prototxt", "--iterations", "1000000"], cwd=folder, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_ctrl_c,  # noqa: PLW1509
    )  # fmt: skip
    assert run.stderr is not None
    while "Iteration 3," not in run.stderr.readline():
        assert run.poll() is None
    run.send_signal(signal.SIGINT)
    output, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    state = Path(output.splitlines()[-1])
    assert (folder / state).exists()
    assert "Optimization stopped early." in errors


@pytest.mark.parametrize("command", [["run"], ["convert", "-o", "net.onnx"]])
def test_a_solver_where_a_net_was_needed_points_to_its_net(folder: Path, command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "solver.prototxt"])
    assert result.exit_code == 1
    assert "solver.prototxt: this is a solver's file, not a net; it trains net.prototxt" in result.stderr


def changed(folder: Path, old: str, new: str) -> None:
    file = folder / "solver.prototxt"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_snapshots_lie_where_somebody_allows_it(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    changed(folder, 'snapshot_prefix: "snap"', f'snapshot_prefix: "{elsewhere}/snap"')
    refused = train("-q", "--iterations", "1")
    assert refused.exit_code == 1
    assert f"--output-dir {elsewhere} allows it" in " ".join(refused.stderr.split())
    assert not any(elsewhere.iterdir())
    allowed = train("-q", "--iterations", "1", "--output-dir", str(elsewhere))
    assert (allowed.exit_code, len([*elsewhere.iterdir()])) == (0, 2), allowed.output
    assert train("-q", "--iterations", "1", "--output-dir", str(folder)).exit_code == 1


def test_no_snapshot_replaces_what_is_read(folder: Path) -> None:
    (folder / "init.caffemodel").rename(folder / "snap_iter_10.caffemodel")
    before = (folder / "snap_iter_10.caffemodel").read_bytes()
    result = train("-q", "--weights", "snap_iter_10.caffemodel")
    assert result.exit_code == 1
    assert "snap_iter_10.caffemodel: this is the input, and is not overwritten" in result.stderr
    assert (folder / "snap_iter_10.caffemodel").read_bytes() == before
    assert train("-q", "--weights", "snap_iter_10.caffemodel", "--iterations", "9").exit_code == 0
    (folder / "w.csv").write_bytes(before)
    assert "this is the input" in train("-q", "--weights", "w.csv", "--log", "w.csv").stderr
    (folder / "log.csv").symlink_to("data.h5")
    assert "log.csv: this is the input" in train("-q", "--log", "log.csv").stderr
    assert (folder / "data.h5").read_bytes() == (CASES / "resume" / "data.h5").read_bytes()


@pytest.mark.parametrize("number", ["0", "-1"])
def test_tests_without_passes_give_nothing(folder: Path, number: str) -> None:
    with (folder / "solver.prototxt").open("a") as file:
        file.write(f"test_iter: {number} test_interval: 1\n")
    result = train("--iterations", "1", "--weights", "init.caffemodel")
    assert result.exit_code == 0, result.output
    assert "Testing net (#0)" in result.stderr
    assert "Test net output" not in result.stderr


def test_a_prefix_with_a_nul_is_refused(folder: Path) -> None:
    changed(folder, 'snapshot_prefix: "snap"', 'snapshot_prefix: "a\\000b"')
    result = train("--iterations", "1")
    assert result.exit_code == 1
    assert "with a NUL in it" in result.stderr


def test_a_loss_that_is_no_number_is_told_once(folder: Path) -> None:
    changed(folder, "base_lr: 0.1", "base_lr: nan")
    result = train("--weights", "init.caffemodel")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("warning: the loss is nan in iteration 1,") == 1
