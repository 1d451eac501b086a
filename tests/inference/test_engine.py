"""What makes the passes of a run, from its start or from the middle on."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.data_nets import write_data_net
from support.databases import refused

from caffeconv import Net
from caffeconv.inference.engine import OpenedRun, Start, check_engine, running
from caffeconv.inference.open_runner import open_net_run
from caffeconv.inference.request import DataOptions, EngineOptions, NetFiles, RunRequest
from caffeconv.runtime.providers import ComputeOptions


def silent(line: str) -> None:
    return


def opened(folder: Path, data: DataOptions) -> tuple[OpenedRun, RunRequest]:
    request = RunRequest(
        files=NetFiles(net=write_data_net(folder, 11, 4)), compute=ComputeOptions("cpu", 1, nhwc=False, half=False), data=data
    )  # fmt: skip
    return open_net_run(request, silent), request


@pytest.mark.parametrize("decoders", [0, 2, None])
def test_from_the_middle_on(tmp_path: Path, decoders: int | None) -> None:
    run, request = opened(tmp_path, DataOptions(decoders=decoders))
    with running(run, request, silent) as runner:
        whole = [(batch.number, {name: np.array(values) for name, values in batch.blobs.items()}) for batch in runner]
    with running(run, request, silent, Start({"data": 4}, 1)) as runner:
        rest = [(batch.number, {name: np.array(values) for name, values in batch.blobs.items()}) for batch in runner]
    assert [number for number, _ in rest] == [1, 2]
    for (_, expected), (_, blobs) in zip(whole[1:], rest, strict=True):
        for name, values in blobs.items():
            np.testing.assert_array_equal(values, expected[name])


def test_passes_that_are_asked_for(tmp_path: Path) -> None:
    run, request = opened(tmp_path, DataOptions(passes=5))
    with running(run, request, silent) as runner:
        assert len(list(runner)) == 5
    assert run.bytes_of(run.blobs) > 0
    assert run.identify()["passes"] == "5"


def test_what_is_run_elsewhere_is_the_same(tmp_path: Path) -> None:
    run, request = opened(tmp_path, DataOptions())
    with running(replace(run, dataset=run.open_elsewhere("cpu", 1)), request, silent) as other:
        elsewhere = [np.array(batch.blobs["loss"]) for batch in other]
    with running(run, request, silent) as runner:
        np.testing.assert_array_equal(elsewhere, [batch.blobs["loss"] for batch in runner])


def test_ray_is_missed_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    net = Net(write_data_net(tmp_path, 4, 2))
    check_engine(EngineOptions(), net)
    with refused("`engine='ray'`: Ray cannot be imported"):
        check_engine(EngineOptions(name="ray"), net)
