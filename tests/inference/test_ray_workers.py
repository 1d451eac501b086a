"""`--engine ray` on a Ray of this machine: the bytes of a run in one process, whatever happens to the workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.data_nets import LAYERS, data_layer, write_data_net
from support.databases import pixels, refused, write_pictures
from support.program import PACKAGES, environment, heed_ctrl_c, program, script

from caffeconv import CaffeconvError
from caffeconv.cli import main
from caffeconv.inference.ray_workers import RayWorkers, WorkerEnvironment, import_ray, standing_in

pytestmark = pytest.mark.ray

T = TypeVar("T")
ITEMS = 70


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[str]:
    """A Ray of two cores; its address."""
    try:
        ray = import_ray()
    except CaffeconvError as error:
        pytest.skip(str(error))
    with standing_in(PACKAGES):  # see ray_engine
        context = ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a net over a database."""
    monkeypatch.chdir(tmp_path)
    write_data_net(tmp_path, ITEMS, 4)
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["run", *map(str, arguments)])


def run_ray(*arguments: object) -> Result:
    return run(*arguments, "--engine", "ray", "--workers", 2)


def content(path: Path) -> dict[str, bytes]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {
        str(file.relative_to(path)): file.read_bytes() for file in files if file.is_file() and file.name != "lock.mdb"
    }


# -- the same bytes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".npy", ".lmdb"])
@pytest.mark.usefixtures("here")
def test_features_are_the_same(suffix: str) -> None:
    blobs = ["--blobs", "ip"] if suffix == ".npy" else ["--blobs", "ip", "--blobs", "conv"]
    alone, shared = run("net.prototxt", *blobs, "-o", f"a{suffix}"), run_ray("net.prototxt", *blobs, "-o", f"b{suffix}")
    assert (alone.exit_code, shared.exit_code) == (0, 0), shared.stderr
    assert content(Path(f"a{suffix}")) == content(Path(f"b{suffix}")) != {}
    assert "2 workers, 1 core each" in shared.stderr
    assert not Path(f"b{suffix}.partial").exists()


@pytest.mark.parametrize("passes", [(), ("--iterations", 30)], ids=["a round", "more than a round"])
@pytest.mark.usefixtures("here")
def test_scores_are_the_same(passes: tuple[object, ...]) -> None:
    alone, shared = (
        run("net.prototxt", *passes, "--per-batch", "a.csv"),
        run_ray("net.prototxt", *passes, "--per-batch", "b.csv"),
    )
    assert shared.exit_code == 0, shared.stderr
    assert shared.stdout == alone.stdout
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()
    assert shared.stdout.startswith("Loss: ")


@pytest.mark.parametrize("out", ["out.csv", "out.json", "out.h5", "out.npz", None])
def test_pictures_are_the_same(here: Path, out: str | None) -> None:
    (here / "deploy.prototxt").write_text(
        'input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }' + LAYERS[: LAYERS.index('layer { name: "loss"')]
    )
    (here / "pictures").mkdir()
    write_pictures(here / "pictures", {f"{i:02d}.png": pixels(8, 8, 3, seed=i) for i in range(41)})
    given = ["deploy.prototxt", "--input", "pictures", "--batch-size", 4]
    found = []
    for way in (run, run_ray):
        result = way(*given, *([] if out is None else ["-o", out]))
        assert result.exit_code == 0, result.stderr
        found.append((result.stdout, b"" if out is None else Path(out).read_bytes()))
    assert found[0] == found[1]
    assert found[0][0]


def test_a_database_for_an_input(here: Path) -> None:
    (here / "deploy.prototxt").write_text(
        'input: "data" input_shape { dim: 4 dim: 3 dim: 8 dim: 8 }' + LAYERS[: LAYERS.index('layer { name: "loss"')]
    )
    given = ["deploy.prototxt", "--input-db", "db", "--scale", "0.02", "--mean", "100,110,120"]
    assert run(*given, "-o", "a.npy").exit_code == 0
    shared = run_ray(*given, "-o", "b.npy")
    assert shared.exit_code == 0, shared.stderr
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()


def test_what_is_damaged_is_passed_over_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_data_net(tmp_path, ITEMS, 4, damaged={5, 6, 33})
    alone = run("net.prototxt", "--skip-bad", "--blobs", "ip", "-o", "a.npy")
    shared = run_ray("net.prototxt", "--skip-bad", "--blobs", "ip", "-o", "b.npy")
    assert shared.exit_code == 0, shared.stderr
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()
    assert np.load("b.npy").shape == (ITEMS - 3, 3)
    passed_over = alone.stderr[alone.stderr.index("caffeconv: 3 damaged items were passed over") :]
    assert passed_over.replace("a.npy", "b.npy") in shared.stderr
    assert "died" not in shared.stderr


# -- what goes wrong -----------------------------------------------------------------------------------------------------


def test_a_damaged_item_stops_it_and_resume_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_data_net(tmp_path, ITEMS, 4, damaged={45})
    given = ["net.prototxt", "--blobs", "ip"]
    alone, shared = run(*given, "-o", "a.npy"), run_ray(*given, "-o", "b.npy")
    assert (alone.exit_code, shared.exit_code) == (1, 1)
    error = alone.stderr[alone.stderr.index("caffeconv: error") :]
    assert "record '00045'" in error
    assert "Traceback" not in shared.stderr
    assert error in shared.stderr
    assert content(Path("a.npy.partial")) == {
        name: data.replace(b"b.npy", b"a.npy") for name, data in content(Path("b.npy.partial")).items()
    }
    # either goes on with what the other has begun; with the same damage both stop at the same place again
    Path("b.npy.partial").rename("c.npy.partial")
    again = run(*given, "-o", "c.npy", "--resume")
    assert "going on after 44 items" in again.stderr
    Path("c.npy.partial").rename("d.npy.partial")
    assert "going on after 44 items" in run_ray(*given, "-o", "d.npy", "--resume").stderr


def test_going_on_gives_the_same_file(here: Path) -> None:
    """A run that was stopped, here by a disk that is full for a while, is gone on with by workers."""
    given = ["net.prototxt", "--blobs", "conv"]
    assert run(*given, "-o", "whole.npy").exit_code == 0
    code = (
        "import resource, signal, sys; from caffeconv.cli import main; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); main(sys.argv[1:])"
    )
    stopped = subprocess.run(
        [*script(here, code), "run", *given, "-o", "b.npy"], capture_output=True, text=True, check=False,
        env=environment(),
    )  # fmt: skip
    assert stopped.returncode == 1, stopped.stderr
    assert "run the same command again with --resume" in stopped.stderr
    went_on = run_ray(*given, "-o", "b.npy", "--resume")
    assert went_on.exit_code == 0, went_on.stderr
    assert "going on after" in went_on.stderr
    assert "going on after 0 items" not in went_on.stderr
    assert Path("b.npy").read_bytes() == Path("whole.npy").read_bytes()


@pytest.mark.usefixtures("here")
def test_gpus_are_given_out_by_ray() -> None:
    result = run_ray("net.prototxt", "--provider", "cuda:1")
    assert result.exit_code == 2
    assert "--provider cuda:1 with --engine ray: Ray gives each worker a GPU of its own" in result.stderr


def test_wrong_use(here: Path) -> None:
    result = run("net.prototxt", "--workers", 2)
    assert result.exit_code == 2
    assert "--workers are Ray's: give --engine ray too" in result.stderr
    sink = 'layer { name: "sink" type: "HDF5Output" bottom: "data" bottom: "label" hdf5_output_param { file_name: "o.h5" } }'
    (here / "net.prototxt").write_text(data_layer(here / "db", 4) + sink)
    refusal = run_ray("net.prototxt", "--blobs", "data", "-o", "x.npy")
    assert refusal.exit_code == 1
    assert "sink (HDF5Output), line 3: it writes what it is given to a file" in refusal.stderr
    assert sorted(path.name for path in here.iterdir()) == ["db", "net.prototxt"]


@pytest.mark.usefixtures("here")
def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run("net.prototxt", "--engine", "ray", "--blobs", "ip", "-o", "x.npy")
    assert result.exit_code == 1
    assert "Install it on every machine: pip install 'caffeconv[ray]'" in result.stderr
    assert not Path("x.npy.partial").exists()


def test_surroundings_that_differ(here: Path) -> None:
    weights = here / "net.caffemodel"
    weights.write_bytes(b"first")
    started = WorkerEnvironment.here([weights])
    started.enter()
    weights.write_bytes(b"second")
    with refused(r"net.caffemodel: the worker on .* does not find the file that the run was started with"):
        started.enter()
    with refused("/nowhere: No such file or directory on .*every machine of the cluster needs it under the same path"):
        WorkerEnvironment("/nowhere", (), started.versions).enter()
    with refused("has caffeconv .*, the run was started with caffeconv 0.0; the same were needed"):
        WorkerEnvironment(str(here), (), "caffeconv 0.0").enter()


# -- workers that die ----------------------------------------------------------------------------------------------------


def slowly() -> Callable[[int], Callable[[int], tuple[int, int]]]:
    """What gives back each job, and the process in which it was done; made here, so that it travels whole."""

    def build(threads: int) -> Callable[[int], tuple[int, int]]:
        def do(job: int) -> tuple[int, int]:
            time.sleep(0.05)
            return job, os.getpid()

        return do

    return build


def test_order_and_bounds() -> None:
    begun: list[int] = []

    def jobs() -> Iterator[int]:
        while len(begun) < 40 or (len(pids) < 2 and len(begun) < 2000):
            begun.append(len(begun))
            yield begun[-1]

    pids: set[int] = set()
    with RayWorkers(slowly(), [], 2, lambda line: None) as workers:
        for at, (job, (done, pid)) in enumerate(workers.in_order(jobs())):
            assert (job, done) == (at, at)
            assert len(begun) <= at + 1 + 6, "no more than three jobs for each worker are under way"
            pids.add(pid)
    assert len(pids) == 2


def test_a_killed_workers_jobs_are_done_again() -> None:
    said: list[str] = []
    found: list[int] = []
    with RayWorkers(slowly(), [], 2, said.append) as workers:
        for _, (done, pid) in workers.in_order(range(40)):
            found.append(done)
            if done == 8:
                os.kill(pid, signal.SIGKILL)
    assert found == list(range(40))
    assert any("a worker died; done again: " in line for line in said)


def test_a_job_that_kills_every_worker() -> None:
    def build(threads: int) -> Callable[[int], int]:
        def do(job: int) -> int:
            if job == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return job

        return do

    found = []
    with (
        RayWorkers(build, [], 2, lambda line: None) as workers,
        refused("4 workers died, one after the other, over 3: .*try fewer `workers=…`"),
    ):
        for job, _ in workers.in_order(range(9)):
            found.append(job)
    assert found == [0, 1, 2]


def test_an_error_comes_in_its_place() -> None:
    def build(threads: int) -> Callable[[int], int]:
        def do(job: int) -> int:
            if job == 5:
                raise CaffeconvError("the fifth: is bad")
            time.sleep(0.02)
            return job

        return do

    found = []
    with RayWorkers(build, [], 2, lambda line: None) as workers, refused("^the fifth: is bad$"):
        for job, _ in workers.in_order(range(9)):
            found.append(job)
    assert found == list(range(5))


def test_what_cannot_be_built() -> None:
    def build(threads: int) -> Callable[[int], int]:
        raise CaffeconvError("no such net")

    with RayWorkers(build, [], 2, lambda line: None) as workers, refused("^no such net$"):
        next(workers.in_order([1]))


def test_dropping_what_is_begun() -> None:
    with RayWorkers(slowly(), [], 2, lambda line: None) as workers:
        first = workers.in_order(range(100))
        assert next(first)[0] == 0
        first.close()
        assert [job for job, _ in workers.in_order(range(200, 210))] == list(range(200, 210))


# -- the program itself --------------------------------------------------------------------------------------------------


def start(*arguments: object, address: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*program(), "run", *map(str, arguments), "--engine", "ray", "--workers", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=environment(RAY_ADDRESS=address), preexec_fn=heed_ctrl_c,  # noqa: PLW1509
    )  # fmt: skip


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def workers_of(starter: int) -> list[int]:
    """Our workers that are at a job, of the Ray that a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            title = (folder / "cmdline").read_bytes()
            if title.startswith(b"ray::_Worker.do") and parent_of(parent_of(int(folder.name))) == starter:
                found.append(int(folder.name))
    return found


def wait_for(condition: Callable[[], T], process: subprocess.Popen[str]) -> T:
    while process.poll() is None:
        if found := condition():
            return found
        time.sleep(0.005)
    pytest.fail(f"it ended before: {process.communicate()}")


def test_only_results_on_stdout(here: Path, cluster: str) -> None:
    """On a cluster that is there already, where a worker is killed at its work, of which Ray has something to say."""
    passes = ("--iterations", 2500)
    process = start("net.prototxt", *passes, address=cluster)
    os.kill(wait_for(lambda: workers_of(os.getpid()), process)[0], signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 0, stderr
    assert stdout == run("net.prototxt", *passes, "-q").stdout
    assert f"Ray at {cluster}: 2 workers" in stderr
    assert "a worker died; done again: batches" in stderr
    assert all(line.startswith("caffeconv: ") for line in stderr.splitlines()), stderr


def test_ctrl_c_leaves_what_can_be_gone_on_with(here: Path) -> None:
    """On a Ray of its own, which goes with it."""
    given = ("net.prototxt", "--blobs", "ip", "--iterations", 2500)
    process = start(*given, "-o", "f.npy", address="local")
    journal = here / "f.npy.partial" / "journal.json"
    wait_for(lambda: journal.exists() and json.loads(journal.read_text())["items"], process)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    assert "Traceback" not in stderr
    assert "items are in f.npy.partial; the same command with --resume continues" in stderr
    assert workers_of(process.pid) == []
    went_on = run_ray(*given, "-o", "f.npy", "--resume")
    assert went_on.exit_code == 0, went_on.stderr
    assert run(*given, "-o", "alone.npy").exit_code == 0
    assert Path("f.npy").read_bytes() == Path("alone.npy").read_bytes()


def test_an_address_where_nobody_answers(here: Path) -> None:
    process = start("net.prototxt", address="127.0.0.1:1")
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert "RAY_ADDRESS=127.0.0.1:1: no Ray cluster answers there" in stderr
