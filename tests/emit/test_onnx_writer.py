"""A model's weights inside it, beside it, and left in the weights file: the same model, and never half of it."""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal

import h5py
import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from support.golden_cases import Array, Case, cases, difference, part, runnable
from support.program import environment, program, script
from support.small_nets import blob, write_net, write_weights

import caffeconv
from caffeconv.caffe_pb2 import BlobProto, LayerParameter, NetParameter
from caffeconv.cli import main
from caffeconv.conversion.load import load
from caffeconv.conversion.to_onnx import to_onnx
from caffeconv.emit import onnx_writer
from caffeconv.emit.lazy_model import LazyModel
from caffeconv.emit.onnx_writer import Storage, Written, write_model
from caffeconv.files.onnx_records import FILES_KEY, FileRecord, recorded_files
from caffeconv.files.sha256 import Hashes, digest_of, hashing
from caffeconv.tensor.param import Param
from caffeconv.tensor.param_values import ArrayValues

STORAGES: tuple[Storage, ...] = ("embed", "external", "link")
RUN = [case for case in cases("layers", "nets") if case.weights and runnable(case) and not case.steps]
Form = Literal["packed", "unpacked", "double", "hdf5", "hdf5_chunked"]
every_storage = pytest.mark.parametrize("storage", STORAGES)


def convert(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


def make_net(folder: Path, form: Form = "packed", rows: int = 300, name: str = "w") -> tuple[Path, Path, Array, Array]:
    """A net of one InnerProduct, its weights in a form, and these."""
    layers = (
        f'layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param {{ num_output: {rows} }} }}'
    )
    net = write_net(folder, {"x": (1, 70)}, layers)
    rng = np.random.default_rng(rows)
    weight, bias = rng.standard_normal((rows, 70)).astype("f4"), rng.standard_normal(rows).astype("f4")
    path = folder / f"{name}.caffemodel"
    if form.startswith("hdf5"):
        path = folder / f"{name}.caffemodel.h5"
        with h5py.File(path, "w") as file:
            chunks = (7, 7) if form == "hdf5_chunked" else None
            file.create_dataset("data/ip/0", data=weight, chunks=chunks)
            file.create_dataset("data/ip/1", data=bias)
        return net, path, weight, bias
    blobs = [blob(weight), blob(bias)]
    if form == "double":
        blobs = [BlobProto(shape=b.shape, double_data=list(b.data)) for b in blobs]
    content = NetParameter(layer=[LayerParameter(name="ip", blobs=blobs)]).SerializeToString()
    if form == "unpacked":
        content = unpacked([weight, bias])
    path.write_bytes(content)
    return net, path, weight, bias


def unpacked(arrays: list[Array]) -> bytes:
    """A caffemodel whose floats have a tag each, as protobuf wrote them where `packed` was not said."""

    def field(number: int, body: bytes) -> bytes:
        length, out = len(body), bytearray()
        while length >= 128:
            out.append(length & 127 | 128)
            length >>= 7
        return field_tag(number) + bytes([*out, length]) + body

    def field_tag(number: int) -> bytes:
        return (
            bytes([number << 3 | 2]) if number < 16 else bytes([(number << 3 | 2) & 127 | 128, (number << 3 | 2) >> 7])
        )

    blobs = []
    for array in arrays:
        values = b"".join(b"\x2d" + value.tobytes() for value in array.ravel())
        blobs.append(field(7, values + field(7, BlobProto(shape=blob(array).shape).shape.SerializeToString())))
    return field(100, field(1, b"ip") + b"".join(blobs))


def run(path: Path, feeds: dict[str, Array]) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    used = {i.name: feeds[i.name].astype("f4") for i in session.get_inputs()}
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, used), strict=True))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# -- the same model ----------------------------------------------------------------------------------------------------


@every_storage
@pytest.mark.parametrize("case", RUN, ids=lambda case: case.name)
def test_gives_caffes_numbers(case: Case, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.folder)
    record = next(case.records())
    shapes = {name: values.shape for name, values in part(record, "in/").items()} if case.reshaped else None
    assert case.weights is not None
    weights = tmp_path / case.weights
    weights.write_bytes(Path(case.weights).read_bytes())
    out = tmp_path / "m.onnx"
    written = caffeconv.convert_to(out, case.net, weights, storage=storage, shapes=shapes, **case.state)
    onnx.checker.check_model(str(out), full_check=True)
    assert written.bytes == out.stat().st_size
    want = part(record, "blob/")
    results = run(out, part(record, "in/"))
    problems = [difference(case, name, values, want[name]) for name, values in results.items() if name in want]
    assert [problem for problem in problems if problem] == []
    assert results


@pytest.mark.parametrize("form", ["packed", "unpacked", "double", "hdf5", "hdf5_chunked"])
@every_storage
def test_every_form_of_weights(form: Form, storage: Storage, tmp_path: Path) -> None:
    net, weights, weight, bias = make_net(tmp_path, form)
    written = caffeconv.convert_to(tmp_path / "m.onnx", net, weights, storage=storage)
    model = onnx.load(tmp_path / "m.onnx")
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert np.array_equal(found["ip/weight"], weight)
    assert np.array_equal(found["ip/bias"], bias)
    linked = {tensor.proto.name for tensor in written.linked}
    if storage == "link":
        in_place = {"packed": {"ip/weight", "ip/bias"}, "hdf5": {"ip/weight", "ip/bias"}, "hdf5_chunked": {"ip/bias"}}
        assert linked == in_place.get(form, set())
    assert (storage == "external") <= (written.data is not None)


@every_storage
def test_values_that_are_no_numbers_are_counted(storage: Storage, tmp_path: Path) -> None:
    net, weights, weight, bias = make_net(tmp_path)
    weight[0, :3], bias[-1] = (np.nan, np.inf, -np.inf), np.nan
    write_weights(weights, "ip", [weight, bias])
    written = caffeconv.convert_to(tmp_path / "m.onnx", net, weights, storage=storage)
    assert written.non_finite == ({} if storage == "link" else {"ip/weight": 3, "ip/bias": 1})
    result = convert(net, weights, "-o", tmp_path / "n.onnx", "--weights", storage)
    told = "ip/weight and 1 other tensors: 4 values are NaN or infinite" in " ".join(result.stderr.split())
    assert told == (storage != "link")


def test_embedding_gives_the_model_of_convert(tmp_path: Path) -> None:
    net, weights, *_ = make_net(tmp_path)
    caffeconv.convert_to(tmp_path / "m.onnx", net, weights)
    assert onnx.load(tmp_path / "m.onnx") == caffeconv.convert(net, weights)


@every_storage
def test_same_bytes_each_time(storage: Storage, tmp_path: Path) -> None:
    net, weights, *_ = make_net(tmp_path)
    caffeconv.convert_to(tmp_path / "m.onnx", net, weights, storage=storage)
    before = files(tmp_path)
    caffeconv.convert_to(tmp_path / "m.onnx", net, weights, storage=storage)
    assert files(tmp_path) == before


def test_a_folded_net_is_unfolded_where_weights_are_linked(tmp_path: Path) -> None:
    conv = "convolution_param { num_output: 4 kernel_size: 3 }"
    layers = (
        f'layer {{ name: "conv" type: "Convolution" bottom: "x" top: "y" {conv} }}'
        'layer { name: "bn" type: "BatchNorm" bottom: "y" top: "y" } layer { name: "scale" type: "Scale" bottom: "y" top: "y" }'
    )
    net = write_net(tmp_path, {"x": (1, 3, 5, 5)}, layers)
    rng = np.random.default_rng(0)
    shapes: dict[str, list[tuple[int, ...]]] = {"conv": [(4, 3, 3, 3), (4,)], "bn": [(4,), (4,), (1,)], "scale": [(4,)]}
    blobs: dict[str, list[Array]] = {
        name: [rng.uniform(0.5, 1, shape).astype("f4") for shape in found] for name, found in shapes.items()
    }
    stored = [LayerParameter(name=name, blobs=[blob(values) for values in found]) for name, found in blobs.items()]
    weights = tmp_path / "w.caffemodel"
    weights.write_bytes(NetParameter(layer=stored).SerializeToString())
    result = convert(net, weights, "-o", tmp_path / "m.onnx", "--weights", "link", "-v")
    assert result.exit_code == 0
    assert "not folded into the weights before them, because these stay as they are: bn, scale\n" in result.stderr
    assert "folded)" not in result.stderr
    assert convert(net, weights, "-o", tmp_path / "f.onnx").exit_code == 0
    x = {"x": rng.standard_normal((1, 3, 5, 5)).astype("f4")}
    assert np.allclose(run(tmp_path / "m.onnx", x)["y"], run(tmp_path / "f.onnx", x)["y"], atol=1e-5)


# -- where things lie --------------------------------------------------------------------------------------------------


def external(model: onnx.ModelProto) -> dict[str, dict[str, str]]:
    return {t.name: {e.key: e.value for e in t.external_data} for t in model.graph.initializer if t.external_data}


def test_linked_tensors_lie_where_the_model_says(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    net, weights, weight, bias = make_net(tmp_path / "below")
    out = tmp_path / "m.onnx"
    caffeconv.convert_to(out, net, weights, storage="link")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["below", "m.onnx"]
    places = external(onnx.load(out, load_external_data=False))
    assert {place["location"] for place in places.values()} == {"below/w.caffemodel"}
    content = weights.read_bytes()
    for name, values in (("ip/weight", weight), ("ip/bias", bias)):
        start = int(places[name]["offset"])
        assert content[start : start + int(places[name]["length"])] == values.tobytes()
    digest = digest_of(weights)
    assert recorded_files(out) == (FileRecord("below/w.caffemodel", digest.bytes, digest.sha256),)


def test_data_beside_the_model(tmp_path: Path) -> None:
    net, weights, *_ = make_net(tmp_path, rows=5000)
    out = tmp_path / "m.onnx"
    written = caffeconv.convert_to(out, net, weights, storage="external")
    assert written.data is not None
    data = tmp_path / written.data.location
    assert data.name == f"m.onnx.{digest_of(data).sha256[:12]}.data"
    assert recorded_files(out) == (written.data,)
    assert written.data.bytes == data.stat().st_size
    places = external(onnx.load(out, load_external_data=False))
    assert int(places["ip/weight"]["offset"]) % 65536 == 0
    assert int(places["ip/bias"]["offset"]) % 64 == 0
    metadata = {prop.key: prop.value for prop in onnx.load(out, load_external_data=False).metadata_props}
    source = digest_of(weights)
    assert (metadata["caffe.weights.bytes"], metadata["caffe.weights.sha256"]) == (str(source.bytes), source.sha256)


def test_small_tensors_stay_inside(tmp_path: Path) -> None:
    net, weights, *_ = make_net(tmp_path, rows=2)
    written = caffeconv.convert_to(tmp_path / "m.onnx", net, weights, storage="external")
    assert written.data is None
    assert [tensor.proto.name for tensor in written.inside] == ["ip/weight", "ip/bias"]


def test_an_older_models_data_goes_with_it(tmp_path: Path) -> None:
    net, weights, *_ = make_net(tmp_path)
    _, other, *_ = make_net(tmp_path, rows=300, name="other")
    content = bytearray(other.read_bytes())
    content[5000] ^= 1
    other.write_bytes(content)
    stranger = tmp_path / "m.onnx.data"
    stranger.write_bytes(b"not ours")
    out = tmp_path / "m.onnx"
    first = caffeconv.convert_to(out, net, weights, storage="external").data
    second = caffeconv.convert_to(out, net, other, storage="external").data
    assert first is not None
    assert second is not None
    assert first != second
    assert set(files(tmp_path)) == {"net.prototxt", weights.name, other.name, "m.onnx", second.location, stranger.name}
    caffeconv.convert_to(out, net, other)
    assert set(files(tmp_path)) == {"net.prototxt", weights.name, other.name, "m.onnx", stranger.name}


def test_a_model_that_is_a_link(tmp_path: Path) -> None:
    net, weights, weight, bias = make_net(tmp_path)
    (tmp_path / "real.onnx").touch()
    (tmp_path / "m.onnx").symlink_to("real.onnx")
    written = caffeconv.convert_to(tmp_path / "m.onnx", net, weights, storage="external")
    assert written.data is not None
    assert written.data.location.startswith("real.onnx.")
    assert (tmp_path / "m.onnx").is_symlink()
    x = np.ones((1, 70), "f4")
    assert np.allclose(run(tmp_path / "m.onnx", {"x": x})["y"], x @ weight.T + bias, atol=1e-4)


def test_a_model_that_is_a_link_into_another_folder(tmp_path: Path) -> None:
    net, weights, *_ = make_net(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "m.onnx").symlink_to(tmp_path / "real" / "m.onnx")
    for storage in ("external", "link"):
        result = convert(net, weights, "-o", tmp_path / "m.onnx", "--weights", storage)
        assert result.exit_code == 1
        assert f"this is a link to {tmp_path / 'real' / 'm.onnx'}" in result.stderr
    assert convert(net, weights, "-o", tmp_path / "m.onnx", "--weights", "embed").exit_code == 0
    assert set(files(tmp_path / "real")) == {"m.onnx"}


@pytest.mark.parametrize("elsewhere", ["folder", "symlink"])
def test_weights_elsewhere_cannot_be_linked(tmp_path: Path, elsewhere: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    net, weights, *_ = make_net(tmp_path / "a")
    if elsewhere == "symlink":  # onnxruntime looks where the link leads
        (tmp_path / "b" / "w.caffemodel").symlink_to(weights)
        weights = tmp_path / "b" / "w.caffemodel"
    result = convert(net, weights, "-o", tmp_path / "b" / "m.onnx", "--weights", "link")
    assert result.exit_code == 1
    assert "onnxruntime reads linked weights only from the model's own folder or below it" in result.stderr
    assert f"Write the model to {tmp_path / 'a' / 'm.onnx'}, or take --weights external" in result.stderr
    assert "m.onnx" not in files(tmp_path / "b")


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    net, weights, *_ = make_net(tmp_path)
    (tmp_path / "l.caffemodel").symlink_to(weights)
    caffeconv.convert_to(tmp_path / "m.onnx", net, tmp_path / "l.caffemodel", storage="link")
    assert [record.location for record in recorded_files(tmp_path / "m.onnx")] == ["w.caffemodel"]
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)


def test_what_is_in_memory_goes_the_same_ways(tmp_path: Path) -> None:
    values = np.arange(3000, dtype="f4").reshape(30, 100)
    half = numpy_helper.from_array(values.astype(np.float16), "half")
    graph = helper.make_graph(
        [helper.make_node("Cast", ["half"], ["w"], to=1), helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", 1, [1, 30])], [helper.make_tensor_value_info("y", 1, [1, 100])], [half],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for storage in STORAGES:
        with hashing([]) as hashes:
            written = write_model(LazyModel(model, {}), tmp_path / "m.onnx", storage, hashes, dict)
        assert len(written.apart) == (storage == "external")
        x = np.ones((1, 30), "f4")
        assert np.array_equal(run(tmp_path / "m.onnx", {"x": x})["y"], x @ values.astype(np.float16).astype("f4"))


@every_storage
def test_values_are_cast_to_the_type_of_their_initializer(storage: Storage, tmp_path: Path) -> None:
    """So that a step which makes a model half as large needs no values in memory."""
    net, weights, weight, bias = make_net(tmp_path)
    loaded = load(net, weights)
    outline = to_onnx(loaded, loaded.graph.outputs, link=storage == "link")
    for tensor in outline.model.graph.initializer:
        tensor.data_type = TensorProto.FLOAT16 if tensor.name == "ip/weight" else tensor.data_type
    with hashing([]) as hashes:
        written = write_model(outline, tmp_path / "m.onnx", storage, hashes, dict)
    assert [tensor.proto.name for tensor in written.linked] == (["ip/bias"] if storage == "link" else [])
    found = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert found["ip/weight"].tobytes() == weight.astype("<f2").tobytes()
    assert found["ip/bias"].tobytes() == bias.tobytes()
    inside = {t.name: numpy_helper.to_array(t) for t in outline.materialize().graph.initializer}
    assert all(np.array_equal(values, inside[name]) for name, values in found.items())
    assert outline.bytes == pytest.approx(outline.materialize().ByteSize(), abs=100)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=6), st.data())
def test_any_tensors_come_back(tmp_path: Path, sizes: list[int], data: st.DataObject) -> None:
    """Whatever sizes tensors have, and wherever they come from, the model read back holds their values."""
    model, params, wanted = onnx.ModelProto(ir_version=8, producer_name="é"), {}, {}
    for i, size in enumerate(sizes):
        values = np.random.default_rng(i).standard_normal(size).astype("f4")
        wanted[f"t{i}"] = values
        tensor = numpy_helper.from_array(values, f"t{i}")
        if data.draw(st.booleans()):
            params[f"t{i}"] = Param("w", (size,), ArrayValues(values))
            tensor = TensorProto(name=f"t{i}", data_type=1, dims=[size])
        model.graph.initializer.append(tensor)
    storage = data.draw(st.sampled_from(STORAGES))
    with hashing([]) as hashes:
        written = write_model(LazyModel(model, params), tmp_path / "m.onnx", storage, hashes, lambda: {"key": "value"})
    back = onnx.load(tmp_path / "m.onnx")
    assert {t.name: numpy_helper.to_array(t).tobytes() for t in back.graph.initializer} == {
        name: values.tobytes() for name, values in wanted.items()
    }
    assert {"key": "value"}.items() <= {p.key: p.value for p in back.metadata_props}.items()
    assert written.bytes == (tmp_path / "m.onnx").stat().st_size


# -- too large for one file --------------------------------------------------------------------------------------------


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if one ONNX file held 10 kB."""
    monkeypatch.setattr(onnx_writer, "MOST_BYTES", 10_000)
    monkeypatch.setattr("caffeconv.emit.lazy_model.MOST_BYTES", 10_000)


@pytest.mark.usefixtures("small_files")
def test_a_large_model_has_its_weights_beside_it(tmp_path: Path) -> None:
    net, weights, *_ = make_net(tmp_path)
    result = convert(net, weights, "-o", tmp_path / "m.onnx")
    assert result.exit_code == 0
    (data,) = tmp_path.glob("m.onnx.*.data")
    assert (
        f"{data.name} (0.09 MB) belongs to the model: keep both together; one ONNX file holds at most 2 GiB"
        in result.stderr
    )


@pytest.mark.usefixtures("small_files")
def test_a_large_model_cannot_hold_its_weights(tmp_path: Path) -> None:
    net, weights, *_ = make_net(tmp_path)
    result = convert(net, weights, "-o", tmp_path / "m.onnx", "--weights", "embed")
    assert result.exit_code == 1
    assert "Write it with its weights beside it" in result.stderr
    with pytest.raises(caffeconv.CaffeconvError, match="convert_to"):
        caffeconv.convert(net, weights)
    assert "m.onnx" not in files(tmp_path)


# -- whole or not at all -----------------------------------------------------------------------------------------------


class Faulty:
    """A file that fails at its n-th write, of all files of this kind."""

    def __init__(self, file: BinaryIO, fail: Callable[[], None]) -> None:
        self.file = file
        self.fail = fail

    def write(self, content: bytes) -> int:
        self.fail()
        return self.file.write(content)

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)

    def __enter__(self) -> Faulty:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def failing_at(monkeypatch: pytest.MonkeyPatch, number: int, problem: Callable[[], None]) -> list[int]:
    """Lets the write of that number to any part of an output fail; what is returned counts them."""
    from caffeconv.files import atomic

    count = [0]

    def fail() -> None:
        count[0] += 1
        if count[0] == number:
            problem()

    whole = atomic._Part.__init__

    def start(self: atomic._Part, path: Path) -> None:
        whole(self, path)
        self.file = Faulty(self.file, fail)  # type: ignore[assignment]

    monkeypatch.setattr(atomic._Part, "__init__", start)
    return count


def no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def killed() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("problem", [no_space, killed, interrupted])
@pytest.mark.parametrize("before", [False, True])
@every_storage
def test_a_failed_write_changes_nothing(
    storage: Storage, before: bool, problem: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, weights, *_ = make_net(tmp_path)
    _, old, *_ = make_net(tmp_path, rows=300, name="old")
    old.write_bytes(old.read_bytes() + b"\x0a\x01x")
    if before:
        assert convert(net, old, "-o", tmp_path / "m.onnx", "--weights", storage).exit_code == 0
    there = files(tmp_path)
    number, writes = 0, [1]
    while number < writes[0]:  # until the last write has had its turn
        number += 1
        with monkeypatch.context() as patch:
            writes = failing_at(patch, number, problem)
            result = convert(net, weights, "-o", tmp_path / "m.onnx", "--weights", storage)
        if writes[0] < number:
            break
        assert result.exit_code == {no_space: 1, killed: 143, interrupted: 130}[problem]
        assert files(tmp_path) == there
        writes = [number + 1]
    assert number >= 2
    assert result.exit_code == 0


@pytest.mark.parametrize("at", [1, 2])
def test_a_failed_rename_leaves_the_old_pair(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, weights, *_ = make_net(tmp_path)
    _, old, *_ = make_net(tmp_path, rows=300, name="old")
    content = bytearray(old.read_bytes())
    content[5000] ^= 1
    old.write_bytes(content)
    caffeconv.convert_to(tmp_path / "m.onnx", net, old, storage="external")
    there = files(tmp_path)
    renames, real = [0], Path.replace

    def replace_or_fail(self: Path, target: Path) -> Path:
        renames[0] += 1
        if renames[0] == at:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace_or_fail)
    with pytest.raises(KeyboardInterrupt):
        caffeconv.convert_to(tmp_path / "m.onnx", net, weights, storage="external")
    assert files(tmp_path) == there


def test_a_stop_between_the_renames_leaves_the_old_model_with_its_own_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the machine goes down: no clean-up runs."""
    net, weights, *_ = make_net(tmp_path)
    _, old, *_ = make_net(tmp_path, rows=300, name="old")
    content = bytearray(old.read_bytes())
    content[5000] ^= 1
    old.write_bytes(content)
    caffeconv.convert_to(tmp_path / "m.onnx", net, old, storage="external")
    x = np.ones((1, 70), "f4")
    before = run(tmp_path / "m.onnx", {"x": x})["y"]
    code = (
        "import os, sys, caffeconv; from pathlib import Path; real, left = Path.replace, [1]\n"
        "def stop(self, target):\n    left[0] -= 1\n    return real(self, target) if left[0] >= 0 else os._exit(9)\n"
        "Path.replace = stop; caffeconv.convert_to(sys.argv[1], sys.argv[2], sys.argv[3], storage='external')"
    )
    command = [*script(tmp_path, code), str(tmp_path / "m.onnx"), str(net), str(weights)]
    assert subprocess.run(command, check=False, env=environment()).returncode == 9
    assert len(list(tmp_path.glob("m.onnx.*.data"))) == 2
    assert np.array_equal(run(tmp_path / "m.onnx", {"x": x})["y"], before)


@every_storage
def test_a_disk_that_is_full_for_the_real_program(storage: Storage, tmp_path: Path) -> None:
    """A limit on the size of files does what a full disk would; only a linked model is smaller than that."""
    net, weights, *_ = make_net(tmp_path, rows=5000)
    command = f"ulimit -f 512; exec {shlex.join(program())} convert {net} {weights} -o {tmp_path}/m.onnx"
    done = subprocess.run(
        ["bash", "-c", f"{command} --weights {storage}"], capture_output=True, text=True, check=False, env=environment()
    )
    if storage == "link":
        assert done.returncode == 0
        return
    assert done.returncode == 1
    assert "m.onnx: could not be written whole: File too large. Nothing was kept." in done.stderr
    assert set(files(tmp_path)) == {"net.prototxt", "w.caffemodel"}


def test_no_second_file_beside_a_device(tmp_path: Path) -> None:
    net, weights, *_ = make_net(tmp_path)
    with pytest.raises(caffeconv.CaffeconvError, match="no plain file"):
        caffeconv.convert_to(os.devnull, net, weights, storage="external")
    with pytest.raises(caffeconv.CaffeconvError, match="this is the input"):
        caffeconv.convert_to(weights, net, weights)


# -- hashes ------------------------------------------------------------------------------------------------------------


def test_hashes(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "x"
    path.write_bytes(os.urandom(100_000))
    with hashing([path]) as hashes:
        assert hashes.of(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert hashes.of(path).bytes == 100_000
    with hashing([tmp_path / "no"]) as hashes, pytest.raises(FileNotFoundError):
        hashes.of(tmp_path / "no")


def test_hashes_that_are_given_up() -> None:
    """Where a conversion fails at once, nobody waits for the rest of a large file."""
    hashes = Hashes([Path("/dev/zero")])
    hashes._digests = {Path("/dev/zero"): __import__("concurrent.futures").futures.Future()}
    hashes.start()
    hashes.stop()
    with pytest.raises(InterruptedError):
        hashes.of(Path("/dev/zero"))


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xff", b"\x72\x05\x0a\x03abc", b"\x72\xff\xff\x01", json.dumps([1]).encode(), b'{"a"'],
)
def test_files_that_say_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert recorded_files(path) == ()


@pytest.mark.parametrize("text", ["[", "[1]", "{}", '[{"location": "a"}]', "[" * 100_000, '[{"bytes": "x"}]', "7"])
def test_records_that_are_none(tmp_path: Path, text: str) -> None:
    model = onnx.ModelProto()
    model.metadata_props.add(key=FILES_KEY, value=text)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert recorded_files(path) == ()


def test_written_is_plain_data(tmp_path: Path) -> None:
    net, weights, *_ = make_net(tmp_path)
    written = caffeconv.convert_to(tmp_path / "m.onnx", net, weights)
    assert isinstance(written, Written)
    assert replace(written, bytes=0).model == tmp_path / "m.onnx"
