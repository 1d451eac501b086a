"""Which items ranges are measured on: pictures, arrays, databases, the net's own data; with their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.golden_cases import ROOT

import caffeconv
from caffeconv.errors import CaffeconvError
from caffeconv.frontend.options import NetOptions
from caffeconv.inference.calibration_items import CalibrationItems, read_calibration_items
from caffeconv.inference.request import NetFiles, RunRequest
from caffeconv.runtime.providers import ComputeOptions
from caffeconv.runtime.session import Session

DIGITS = ROOT / "fixtures" / "digits"
COMPUTE = ComputeOptions("cpu", 1, nhwc=False, half=False)


def read(
    *sources: str, net: str = "deploy", most: int = 100, phase: str = "TEST", batch: str | int = "dynamic"
) -> CalibrationItems:
    path = DIGITS / f"{net}.prototxt"
    model = caffeconv.convert(path, deploy=net != "deploy", batch=batch, phase=phase)  # type: ignore[arg-type]
    options = NetOptions(phase=phase, deploy=net != "deploy")  # type: ignore[arg-type]
    request = RunRequest(files=NetFiles(net=path), inputs=sources, net=options, compute=COMPUTE)
    return read_calibration_items(Session(model, "cpu"), request, most, lambda line: None)


@pytest.fixture(autouse=True)
def _at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_a_list_with_classes() -> None:
    items = read(str(DIGITS / "pictures.txt"))
    assert [len(batch["data"]) for batch in items.batches] == [8, 2]
    assert items.labels is not None
    np.testing.assert_array_equal(items.labels, np.arange(10))


def test_an_array_has_no_labels(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((5, 1, 28, 28)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    items = read(str(tmp_path / "x.npy"), most=3)
    (batch,) = items.batches
    np.testing.assert_array_equal(batch["data"], values[:3])
    assert items.labels is None


@pytest.mark.parametrize(("phase", "most", "count"), [("TEST", 100, 10), ("TRAIN", 40, 40)])
def test_the_nets_own_data_layer(phase: str, most: int, count: int) -> None:
    items = read(net="train_val", phase=phase, most=most)
    assert sum(len(batch["data"]) for batch in items.batches) == count
    assert items.labels is not None
    assert len(items.labels) == count
    assert set(items.labels) <= set(range(10))


def test_a_database_for_a_deploy_net(tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    from caffeconv.caffe_pb2 import Datum

    with lmdb.open(str(tmp_path / "db"), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        for i in range(3):
            datum = Datum(channels=1, height=28, width=28, data=bytes([i]) * 784, label=i)
            transaction.put(b"%d" % i, datum.SerializeToString())
    items = read(str(tmp_path / "db"))
    (batch,) = items.batches
    np.testing.assert_array_equal(batch["data"][:, 0, 0, 0], [0, 1, 2])


@pytest.mark.parametrize(("most", "sizes"), [(10, [4, 4]), (3, [4])])
def test_a_fixed_batch_is_filled(most: int, sizes: list[int]) -> None:
    items = read(str(DIGITS / "pictures.txt"), batch=4, most=most)
    assert [len(batch["data"]) for batch in items.batches] == sizes


def test_a_net_without_data_asks_for_them() -> None:
    with pytest.raises(CaffeconvError, match=r"`calibrate=…` with pictures"):
        read()
