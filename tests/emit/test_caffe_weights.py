"""Weights as Caffe saves them: what comes back of both forms, and what Caffe itself had written."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from support.golden_cases import GOLDENS, Array, Case, cases
from support.program import environment, program
from support.small_nets import blob, write_net

import caffeconv
from caffeconv.caffe_format.caffemodel import StoredLayer, read_caffemodel
from caffeconv.caffe_format.hdf5 import HDF5Blob, read_hdf5_weights
from caffeconv.caffe_pb2 import LayerParameter, NetParameter
from caffeconv.cli import main
from caffeconv.conversion.load import load
from caffeconv.emit.weights import caffe_weights
from caffeconv.emit.weights.caffe_weights import save_caffemodel, save_weights
from caffeconv.frontend.open_files import read_weights
from caffeconv.frontend.options import NetOptions

SAVED = [case for case in cases("layers", "nets") if case.weights and "Python" not in case.types]
SUFFIXES = (".caffemodel", ".caffemodel.h5")


def convert(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


def values(layers: tuple[StoredLayer, ...]) -> dict[tuple[str, int], Array]:
    return {
        (layer.name, i): stored.array().reshape(stored.shape)
        for layer in layers for i, stored in enumerate(layer.blobs) if stored is not None
    }  # fmt: skip


def same(a: dict[tuple[str, int], Array], b: dict[tuple[str, int], Array]) -> bool:
    return a.keys() == b.keys() and all(
        a[key].tobytes() == b[key].tobytes() and a[key].shape == b[key].shape for key in a
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("case", SAVED, ids=lambda case: case.name)
def test_parameters_come_back(case: Case, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.folder)
    state = NetOptions(**case.state)
    graph = load(case.net, case.weights, state).graph
    if suffix.endswith(".h5") and any("/" in node.name for node in graph.nodes):
        pytest.skip("HDF5 takes no such names")
    out = tmp_path / f"w{suffix}"
    save_weights(out, graph)
    again = load(case.net, out, state).graph
    for before, after in zip(graph.nodes, again.nodes, strict=True):
        for old, new in zip(before.params, after.params, strict=True):
            assert old.array().tobytes() == new.array().tobytes()
            assert new.source == str(out)


@pytest.mark.parametrize("name", ["weights_hdf5", "weights_hdf5_shared"])
def test_hdf5_is_what_caffe_wrote(name: str, tmp_path: Path) -> None:
    """The same groups and datasets, of the same types, shapes, layout and values, shared parameters included."""
    folder = GOLDENS / "layers" / name
    recorded = folder / "weights.caffemodel.h5"
    out = tmp_path / "w.caffemodel.h5"
    assert convert(folder / "net.prototxt", recorded, "-o", out).exit_code == 0

    def told(path: Path) -> dict[str, object]:
        found: dict[str, object] = {}

        def visit(key: str, item: h5py.Group | h5py.Dataset) -> None:
            is_data = isinstance(item, h5py.Dataset)
            found[key] = (item.shape, item.dtype.str, item.chunks, item[()].tobytes()) if is_data else "group"

        with h5py.File(path) as file:
            file.visititems(visit)
        return found

    want = {key: item for key, item in told(recorded).items() if "_split" not in key}
    assert told(out) == want


def test_a_shared_parameter_stands_in_every_layer_of_a_caffemodel(tmp_path: Path) -> None:
    folder = GOLDENS / "layers" / "weights_hdf5_shared"
    out = tmp_path / "w.caffemodel"
    assert convert(folder / "net.prototxt", folder / "weights.caffemodel.h5", "-o", out).exit_code == 0
    found = values(read_caffemodel(out).layers)
    assert np.array_equal(found["ip_a", 0], found["ip_b", 0])
    assert np.array_equal(found["ip_a", 1], found["ip_b", 1])


def test_protobuf_reads_the_caffemodel_with_its_net(tmp_path: Path) -> None:
    folder = GOLDENS / "layers" / "weights_hdf5"
    out = tmp_path / "w.caffemodel"
    convert(folder / "net.prototxt", folder / "weights.caffemodel.h5", "-o", out)
    net = NetParameter.FromString(out.read_bytes())
    want = values(read_hdf5_weights(folder / "weights.caffemodel.h5").layers)
    for (layer, i), array in want.items():
        stored = next(it for it in net.layer if it.name == layer).blobs[i]
        assert tuple(stored.shape.dim) == array.shape
        assert np.array_equal(np.array(stored.data, "f4"), array.ravel())
    assert convert(out, "-o", tmp_path / "m.onnx").exit_code == 0
    assert caffeconv.convert(out).graph == caffeconv.convert(folder / "net.prototxt", out).graph


FLOATS = st.floats(width=32)
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 7))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.lists(SHAPES, min_size=1, max_size=4), st.permutations(SUFFIXES))
def test_there_and_back(tmp_path: Path, data: st.DataObject, shapes: list[tuple[int, int]], order: list[str]) -> None:
    """Any values, NaN and infinity included, through one form and the other, bit by bit."""
    text, stored = "", []
    for i, (rows, columns) in enumerate(shapes):
        text += f'layer {{ name: "ip{i}" type: "InnerProduct" bottom: "x{i}" top: "y{i}" '
        text += f"inner_product_param {{ num_output: {rows} }} }}\n"
        blobs = [data.draw(arrays("f4", shape, elements=FLOATS)) for shape in ((rows, columns), (rows,))]
        stored.append(LayerParameter(name=f"ip{i}", blobs=[blob(array) for array in blobs]))
    net = write_net(tmp_path, {f"x{i}": (1, columns) for i, (_, columns) in enumerate(shapes)}, text)
    first = tmp_path / "first.caffemodel"
    first.write_bytes(NetParameter(layer=stored).SerializeToString())
    second, third = tmp_path / f"second{order[0]}", tmp_path / f"third{order[1]}"
    save_weights(second, load(net, first).graph)
    save_weights(third, load(net, second).graph)
    found = [values(read_weights(path).layers) for path in (first, second, third)]
    assert same(found[0], found[1])
    assert same(found[0], found[2])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays("f4", array_shapes(min_dims=0, max_dims=4, max_side=9, min_side=0), elements=FLOATS), st.integers(1, 50))
def test_blocks_are_the_array(tmp_path: Path, array: Array, size: int) -> None:
    """Of every shape, whatever the size of a block."""
    with h5py.File(tmp_path / "w.h5", "w", userblock_size=512) as file:
        file.create_dataset("data/a/0", data=array)
        file.create_dataset("data/a/1", data=array.astype("f8"))
    protobuf = tmp_path / "w.caffemodel"
    protobuf.write_bytes(
        NetParameter(name="n", layer=[LayerParameter(name="a", blobs=[blob(array)])]).SerializeToString()
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("caffeconv.caffe_format.hdf5.BLOCK", size)
        patch.setattr("caffeconv.caffe_format.caffemodel.BLOCK", size)
        stored = [*read_hdf5_weights(tmp_path / "w.h5").layers[0].blobs, *read_caffemodel(protobuf).layers[0].blobs]
        for found in stored:
            assert found is not None
            blocks = list(found.blocks())
            assert all(block.size <= size for block in blocks)
            assert np.concatenate([np.empty(0, "f4"), *blocks]).tobytes() == array.tobytes()


def test_where_values_lie_in_hdf5(tmp_path: Path) -> None:
    """An offset is given only where the bytes there are the values."""
    array = np.arange(12, dtype="<f4").reshape(3, 4)
    path = tmp_path / "w.h5"
    with h5py.File(path, "w", userblock_size=1024) as file:
        group = file.create_group("data/a")
        group["0"] = array
        group["1"] = array.astype(">f4")
        group["2"] = array.astype("<f8")
        group.create_dataset("3", data=array, chunks=(1, 4))
        group.create_dataset("4", (3, 4), "<f4")  # never written: HDF5 keeps no room
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((3, 4))
        compact = h5py.h5d.create(group.id, b"5", h5py.h5t.IEEE_F32LE, space, properties)
        compact.write(h5py.h5s.ALL, h5py.h5s.ALL, array)
    blobs = read_hdf5_weights(path).layers[0].blobs
    offsets = [stored.offset for stored in blobs if isinstance(stored, HDF5Blob)]
    assert offsets[0] is not None
    assert offsets[1:] == [None] * 5
    assert path.read_bytes()[offsets[0] :][:48] == array.tobytes()


# -- refused -----------------------------------------------------------------------------------------------------------


NET = GOLDENS / "layers" / "weights_hdf5" / "net.prototxt"
WEIGHTS = NET.with_name("weights.caffemodel.h5")


@pytest.mark.parametrize("option", [("--weights", "link"), ("--output", "prob"), ("--opset", "17")])
def test_options_of_models(option: tuple[str, str], tmp_path: Path) -> None:
    result = convert(NET, WEIGHTS, "-o", tmp_path / "w.caffemodel", *option)
    assert result.exit_code == 2
    assert f"{option[0]} is for ONNX models, and w.caffemodel holds weights as Caffe saves them" in result.stderr


def test_no_weights(tmp_path: Path) -> None:
    """Forgotten, they would be written over with fillers."""
    out = tmp_path / "w.caffemodel"
    out.write_bytes(b"precious")
    result = convert(NET, "-o", out)
    assert result.exit_code == 1
    assert "no weights were given, so there are none to save" in result.stderr
    assert out.read_bytes() == b"precious"


def test_other_names(tmp_path: Path) -> None:
    result = convert(NET, WEIGHTS, "-o", tmp_path / "w.bin")
    assert (
        "a name that ends in .onnx was needed for a model; in .safetensors, .npz or .h5 for weights alone; in .caffemodel"
        in result.stderr
    )


def test_names_that_hdf5_takes_for_paths(tmp_path: Path) -> None:
    layers = 'layer { name: "a/b" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 } }'
    net = write_net(tmp_path, {"x": (1, 3)}, layers)
    weights = tmp_path / "w.caffemodel"
    save_caffemodel(weights, load(net).graph)
    result = convert(net, weights, "-o", tmp_path / "w.caffemodel.h5")
    assert result.exit_code == 1
    assert "layer 'a/b' cannot be a group in HDF5" in result.stderr
    assert not (tmp_path / "w.caffemodel.h5").exists()


def test_too_large_for_caffe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caffe_weights, "MOST_BYTES", 1000)
    result = convert(NET, WEIGHTS, "-o", tmp_path / "w.caffemodel")
    assert result.exit_code == 1
    assert "Write HDF5: a name that ends in .caffemodel.h5" in result.stderr
    assert not (tmp_path / "w.caffemodel").exists()
    assert convert(NET, WEIGHTS, "-o", tmp_path / "w.caffemodel.h5").exit_code == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk(suffix: str, tmp_path: Path) -> None:
    import shlex
    import subprocess

    layers = 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 1000 } }'
    net = write_net(tmp_path, {"x": (1, 1000)}, layers)
    save_weights(tmp_path / "w.caffemodel", load(net).graph)
    out = tmp_path / f"out{suffix}"
    out.write_bytes(b"before")
    command = f"ulimit -f 512; exec {shlex.join(program())} convert {net} {tmp_path}/w.caffemodel -o {out}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 1
    assert done.stderr == f"caffeconv: error: {out}: could not be written whole: File too large. Nothing was kept.\n"
    assert out.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.prototxt", f"out{suffix}", "w.caffemodel"]
