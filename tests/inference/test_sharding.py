"""Runs that are shared out give what one net alone gives, whoever makes the shards."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.data_nets import LAYERS, data_layer, write_data_net
from support.databases import pixels, raw, refused, write_hdf5, write_list, write_lmdb
from support.small_nets import write_net

from caffeconv import Net, convert
from caffeconv.data.input_items import ArraySource
from caffeconv.data.records import open_records
from caffeconv.inference.data_passes import Dataset, DatasetRunner, own_data
from caffeconv.inference.output_batches import OutputBatch
from caffeconv.inference.ray_workers import share
from caffeconv.inference.sharding import (
    RunnerBuild,
    Shard,
    ShardedRunner,
    ShardResult,
    bytes_of_net,
    passes_a_shard,
    refuse_order,
)
from caffeconv.runtime.session import Session

Job = TypeVar("Job")
Result = TypeVar("Result")
BLOBS = ["ip", "loss"]


@dataclass
class Here(Generic[Job, Result]):
    """Does the jobs in this process, as soon as they are asked for, some ahead, as workers elsewhere would."""

    do: Callable[[Job], Result]
    count: int
    done: list[Job] = field(default_factory=list)

    def in_order(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Result], None, None]:
        waiting: list[tuple[Job, Result]] = []
        for job in jobs:
            self.done.append(job)
            waiting.append((job, self.do(job)))
            if len(waiting) > 2 * self.count:
                yield waiting.pop(0)
        yield from waiting


def sharded(
    net: Path, count: int, *, passes: int | None = None, begin: dict[str, int] | None = None, first: int = 0,
    skip_bad: bool = False,
) -> tuple[ShardedRunner, Here[Shard, ShardResult]]:  # fmt: skip
    known = DatasetRunner(own_data(Net(net)), BLOBS, passes=passes, skip_bad=skip_bad)
    build = RunnerBuild(lambda threads: own_data(Net(net, threads=threads)), BLOBS, known.items, passes, None, skip_bad)
    workers, driver = Here(build(1), count), Net(net)
    return ShardedRunner(
        own_data(driver), BLOBS, workers, bytes_of_net(driver, BLOBS), passes=passes, begin=begin, first=first,
        skip_bad=skip_bad,
    ), workers  # fmt: skip


def kept(passes: Iterable[OutputBatch]) -> list[tuple[object, ...]]:
    """All that a pass says, as things that can be compared."""
    return [
        (
            one.number, one.first_item, {name: values.tobytes() for name, values in one.blobs.items()},
            one.counted.tolist(), dict(one.positions), list(one.skipped),
        )
        for one in passes
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("items", [1, 16, 30, 97])
def test_the_same_passes(tmp_path: Path, items: int, count: int) -> None:
    net = write_data_net(tmp_path, items, 4)
    runner, workers = sharded(net, count)
    assert kept(runner) == kept(DatasetRunner(own_data(Net(net)), BLOBS))
    assert len(workers.done) == len({shard.first for shard in workers.done})
    assert sum(shard.passes for shard in workers.done) >= math.ceil(items / 4)


def test_as_many_passes_as_are_asked_for(tmp_path: Path) -> None:
    net = write_data_net(tmp_path, 10, 4)
    assert kept(sharded(net, 2, passes=7)[0]) == kept(DatasetRunner(own_data(Net(net)), BLOBS, passes=7))


@pytest.mark.parametrize("items", [1, 7, 8, 600])
@pytest.mark.parametrize("begin", [0, 1])
def test_items_that_are_handed_over_are_shared_out_too(tmp_path: Path, items: int, begin: int) -> None:
    net = write_net(tmp_path, {"x": (4, 3)}, 'layer { name: "ip" type: "Power" bottom: "x" top: "ip" }\n')
    values = np.random.default_rng(0).normal(size=(items, 3)).astype(np.float32)

    def dataset(threads: int = 1) -> Dataset:
        return Dataset(Session(convert(net)), {"x": ArraySource("x", tmp_path / "x.npy", values, 4)})

    start = {"x": min(4 * begin, items)}
    workers = Here(RunnerBuild(dataset, ["ip"], {"x": items}, None, 0, False)(1), 2)
    runner = ShardedRunner(dataset(), ["ip"], workers, 48, begin=start, first=begin)
    results = kept(runner)
    assert results == kept(DatasetRunner(dataset(), ["ip"], begin=start, first=begin))
    assert len(results) == math.ceil((items - start["x"]) / 4)
    assert len(workers.done) == len({shard.first for shard in workers.done})


def test_going_on_in_the_middle(tmp_path: Path) -> None:
    net = write_data_net(tmp_path, 50, 4)
    whole = kept(DatasetRunner(own_data(Net(net)), BLOBS))
    assert kept(sharded(net, 2, begin={"data": 20}, first=5)[0]) == whole[5:]


@pytest.mark.parametrize("damaged", [{0}, {7, 8, 9, 30}, {59}, set(range(20, 40))], ids=str)
def test_what_is_damaged_is_passed_over_alike(tmp_path: Path, damaged: set[int]) -> None:
    net = write_data_net(tmp_path, 60, 4, damaged)
    alone = kept(DatasetRunner(own_data(Net(net)), BLOBS, skip_bad=True))
    assert kept(sharded(net, 2, skip_bad=True)[0]) == alone
    assert len({text for *_, skipped in alone if isinstance(skipped, list) for text in skipped}) == len(damaged)


def test_an_item_that_is_damaged_ends_it_where_it_would_end_alone(tmp_path: Path) -> None:
    net = write_data_net(tmp_path, 60, 4, {41})
    alone, shared = DatasetRunner(own_data(Net(net)), BLOBS), sharded(net, 2)[0]
    found: list[tuple[list[tuple[object, ...]], str]] = []
    for runner in (alone, shared):
        made: list[OutputBatch] = []
        with refused("record '00041'") as caught:
            for one in runner:
                made.append(OutputBatch(**{**vars(one), "blobs": {name: v.copy() for name, v in one.blobs.items()}}))
        found.append((kept(made), str(caught.value)))
    assert found[0] == found[1]
    assert len(found[0][0]) == 10


def test_a_source_of_one_item_beside_a_database(tmp_path: Path) -> None:
    one = write_lmdb(tmp_path / "one", {"0": raw(pixels(1, 2, 2))})
    layers = LAYERS + (
        f'layer {{ name: "h" type: "Data" top: "h" data_param {{ source: "{one}" backend: LMDB batch_size: 1 }} }}\n'
        'layer { name: "out" type: "Power" bottom: "h" top: "out" }\n'
    )
    net = write_data_net(tmp_path, 64, 4, layers=layers)
    runner, workers = sharded(net, 2)
    assert kept(runner) == kept(DatasetRunner(own_data(Net(net)), BLOBS))
    assert len(workers.done) == len({shard.first for shard in workers.done})  # nothing was made twice


def test_a_shard_reads_nothing_beyond_it(tmp_path: Path) -> None:
    net = Net(write_data_net(tmp_path, 60, 4, {9}))
    runner = DatasetRunner(own_data(net), BLOBS, begin={"data": 4}, first=1, most=3, threads=2, skip_bad=True)
    assert [one.positions["data"] for one in runner] == [8, 13, 17]
    assert net.sources["data"].position == 17


def test_another_number_of_items_elsewhere(tmp_path: Path) -> None:
    net = write_data_net(tmp_path, 8, 4)
    build = RunnerBuild(lambda threads: own_data(Net(net)), BLOBS, {"data": 9}, None, None, False)
    with refused("db: 8 items where the worker is, 9 where the run was started"):
        build(1)(Shard(0, 1, {"data": 0}))


# -- what cannot be shared out -------------------------------------------------------------------------------------------


def test_nets_that_need_their_order_are_refused(tmp_path: Path) -> None:
    listed = write_list(
        tmp_path / "list.txt", [str(write_hdf5(tmp_path / "a.h5", data=np.ones((4, 1)), cont=np.ones((4, 1))))]
    )
    recurrent = tmp_path / "recurrent.prototxt"
    recurrent.write_text(
        'layer { name: "data" type: "HDF5Data" top: "data" top: "cont" '
        f'hdf5_data_param {{ source: "{listed}" batch_size: 2 }} }}\n'
        'layer { name: "reshape" type: "Reshape" bottom: "data" top: "x" reshape_param { shape { dim: 2 dim: 1 dim: 1 } } }\n'
        'layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "y" recurrent_param { num_output: 2 } }\n'
    )
    with refused(r"lstm \(LSTM\), line 3: it keeps its state from one pass to the next.*leave `engine='ray'` out"):
        refuse_order(Net(recurrent))
    written = write_data_net(
        tmp_path, 4, 2,
        layers='layer { name: "sink" type: "HDF5Output" bottom: "data" bottom: "label" '
        f'hdf5_output_param {{ file_name: "{tmp_path / "out.h5"}" }} }}',
    )  # fmt: skip
    with refused(r"sink \(HDF5Output\), line 3: it writes what it is given to a file"):
        refuse_order(Net(written))


def test_python_layers_that_make_data_are_refused(tmp_path: Path) -> None:
    (tmp_path / "own_layers.py").write_text(
        "import caffe\n"
        "class Same(caffe.Layer):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(*(bottom[0].shape if bottom else (4, 1)))\n"
        "    def forward(self, bottom, top): top[0].data[...] = bottom[0].data if bottom else 1\n"
    )
    layer = 'layer { name: "own" type: "Python" top: "own" python_param { module: "own_layers" layer: "Same" } %s }\n'
    following = Net(write_data_net(tmp_path, 4, 2, layers=layer % 'bottom: "data"'), allow_python=True)
    refuse_order(following)
    assert following.user_layers == ["own"]
    (tmp_path / "making.prototxt").write_text(data_layer(tmp_path / "db", 2) + layer % "")
    with refused(r"own \(Python\), line 3: it is the user's code and makes data of its own"):
        refuse_order(Net(tmp_path / "making.prototxt", allow_python=True))


def test_a_net_that_reads_nothing_is_refused(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text('layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 1 } } }')
    with refused("the net reads no data that could be shared out"):
        refuse_order(Net(net))


# -- how much at a time --------------------------------------------------------------------------------------------------


@given(st.integers(1, 1000), st.integers(0, 1 << 40), st.integers(1, 10**6), st.integers(1, 500))
def test_shards_are_bounded(batch: int, size: int, passes: int, workers: int) -> None:
    each = passes_a_shard(batch, size, passes, workers)
    assert each == 1 or (each * size <= 32 << 20 and (each - 1) * batch < 256)
    assert each == 1 or each * workers * 3 < passes + workers * 4


@given(st.lists(st.integers(1, 64), min_size=1, max_size=8), st.integers(1, 200))
def test_every_worker_finds_a_machine(sizes: list[int], count: int) -> None:
    each = share(sizes, count)
    assert sum(int(size / each + 1e-9) for size in sizes) >= count
    assert each < 1 or sum(size // (each + 1) for size in sizes) < count


# -- going to the middle of a database -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
def test_going_to_any_record_in_any_order(tmp_path: Path, backend: str) -> None:
    keys = [b"%03d" % i for i in range(50)]
    if backend == "LMDB":
        write_lmdb(tmp_path / "db", {key.decode(): b"x" for key in keys})
        records = open_records(tmp_path / "db", "LMDB")
    else:
        plyvel = pytest.importorskip("plyvel")
        with plyvel.DB(str(tmp_path / "db"), create_if_missing=True) as database:
            for key in keys:
                database.put(key, b"x")
        records = open_records(tmp_path / "db", "LEVELDB")
    for index in [*range(0, 50, 7), 3, 49, 0, 25, 25, 26, 50]:
        assert [key for key, _ in records.starting_at(index)] == keys[index:]
    assert records.count() == 50


def test_a_database_that_grew_before_the_record_last_gone_to(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "db", {f"{i:03d}": b"x" for i in range(10, 20)}, keep_lock=True)
    records = open_records(path, "LMDB")
    assert next(records.starting_at(5))[0] == b"015"
    write_more = "import lmdb, sys\nwith lmdb.open(sys.argv[1]) as e, e.begin(write=True) as t: t.put(b'000', b'y')"
    subprocess.run([sys.executable, "-c", write_more, str(path)], check=True)
    assert next(records.starting_at(5))[0] == b"014"
