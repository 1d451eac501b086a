"""Data layers in nets: batches in Caffe's order, shapes with and without the source, and what is said about faults."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.databases import (
    Pixels,
    encoded,
    pixels,
    raw,
    refused,
    write_hdf5,
    write_list,
    write_lmdb,
    write_mean,
    write_pictures,
)  # fmt: skip
from support.golden_cases import Array, forward

import caffeconv
import caffeconv.pycaffe as caffe
from caffeconv import Net
from caffeconv.data.datum import Item, read_datum


def net_of(folder: Path, kind: str, params: str, tops: Sequence[str] = ("data", "label"), rest: str = "") -> Path:
    path = folder / "net.prototxt"
    names = " ".join(f'top: "{top}"' for top in tops)
    path.write_text(f'layer {{ name: "source" type: "{kind}" {names}\n{params} }}\n{rest}')
    return path


def data_param(source: str = "db", batch: int = 2) -> str:
    return f'data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }}'


def batches(net: Net, number: int, blob: str = "data") -> list[Array]:
    return [net.forward(blobs=[blob])[blob].copy() for _ in range(number)]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def items(tmp_path: Path) -> list[Pixels]:
    """Five items of 2×3×4 in the database db, labels 10 to 14."""
    values = [pixels(2, 3, 4, seed=i) for i in range(5)]
    write_lmdb(tmp_path / "db", {f"{i:08}": raw(item, 10 + i) for i, item in enumerate(values)})
    return values


# -- Data --------------------------------------------------------------------------------------------------------------


def test_goes_round(tmp_path: Path, items: list[Pixels]) -> None:
    net = Net(net_of(tmp_path, "Data", data_param()))
    assert net.inputs == []
    assert net.blobs["data"].shape == (2, 2, 3, 4)
    for step in range(6):
        got = net.forward(blobs=["data", "label"])
        rows = [2 * step % 5, (2 * step + 1) % 5]
        np.testing.assert_array_equal(got["data"], [items[row] for row in rows])
        np.testing.assert_array_equal(got["label"], [10 + row for row in rows])


def test_each_layer_has_its_own_cursor(tmp_path: Path, items: list[Pixels]) -> None:
    second = 'layer { name: "again" type: "Data" top: "other" ' + data_param(batch=3) + " }"
    net = Net(net_of(tmp_path, "Data", data_param(), rest=second))
    net.forward()
    got = net.forward(blobs=["data", "other"])
    np.testing.assert_array_equal(got["data"], [items[2], items[3]])
    np.testing.assert_array_equal(got["other"], [items[3], items[4], items[0]])


def test_varying_sizes(tmp_path: Path) -> None:
    sizes = [(3, 4), (5, 2), (6, 6)]
    write_lmdb(tmp_path / "db", {str(i): raw(pixels(1, *size)) for i, size in enumerate(sizes)})
    half = 'layer { name: "half" type: "Power" bottom: "data" top: "half" power_param { scale: 0.5 } }'
    net = Net(net_of(tmp_path, "Data", data_param(batch=1), ["data"], half))
    for size in [*sizes, sizes[0]]:
        np.testing.assert_array_equal(net.forward()["half"], pixels(1, 1, *size) / 2)
        assert net.blobs["half"].shape == (1, 1, *size)
    net = Net(net_of(tmp_path, "Data", data_param(batch=2), ["data"]))
    with refused(r"source \(Data\), line 1: db, record '1': the item is 1×5×2, .* 1×3×4; one size"):
        net.forward(blobs=["data"])


def test_constant_source_is_read_once(tmp_path: Path, items: list[Pixels], monkeypatch: pytest.MonkeyPatch) -> None:
    write_lmdb(tmp_path / "one", {"H": raw(pixels(1, 4, 4), 3)})
    once = 'layer { name: "h" type: "Data" top: "H" ' + data_param("one", 1) + " }"
    net = Net(net_of(tmp_path, "Data", data_param(), rest=once))
    read: list[str] = []

    def counted(content: bytes, where: str, *, force_color: bool, force_gray: bool) -> Item:
        read.append(where.split(",")[0])
        return read_datum(content, where, force_color=force_color, force_gray=force_gray)

    monkeypatch.setattr("caffeconv.data.database.read_datum", counted)
    for step in range(4):
        got = net.forward(blobs=["data", "H"])
        np.testing.assert_array_equal(got["H"][0], pixels(1, 4, 4))
        np.testing.assert_array_equal(got["data"][0], items[2 * step % 5])
        got["H"][...] = 0  # what the caller does to a blob does not come back
    assert read.count("one") == 1
    assert read.count("db") == 8


def test_crop_mean_scale_and_colour(tmp_path: Path) -> None:
    pictures = [pixels(8, 9, 3, seed=i) for i in range(2)]
    write_lmdb(tmp_path / "db", {str(i): encoded(picture, i) for i, picture in enumerate(pictures)})
    mean = np.random.default_rng(0).uniform(0, 255, (3, 8, 9)).astype(np.float32)
    write_mean(tmp_path / "mean.binaryproto", mean)
    transform = 'transform_param { crop_size: 4 mean_file: "mean.binaryproto" scale: 0.5 }'
    net = Net(net_of(tmp_path, "Data", data_param() + transform))
    want = [(picture.transpose(2, 0, 1) - mean)[:, 2:6, 2:6] * np.float32(0.5) for picture in pictures]
    np.testing.assert_array_equal(net.forward(blobs=["data"])["data"], want)


def test_train_is_random_but_seeded(tmp_path: Path, items: list[Pixels]) -> None:
    path = net_of(tmp_path, "Data", data_param(batch=5) + "transform_param { crop_size: 2 mirror: true }", ["data"])
    first, second = batches(Net(path, phase="TRAIN", seed=1), 2)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(batches(Net(path, phase="TRAIN", seed=1), 2), [first, second])
    assert not np.array_equal(batches(Net(path, phase="TRAIN", seed=2), 1)[0], first)
    # caffe: in TEST the crop is the middle one, but mirroring goes on
    middle = np.array([item[:, :2, 1:3] for item in items], np.float32)
    for item, want in zip(batches(Net(path), 1)[0], middle, strict=True):
        assert np.array_equal(item, want) or np.array_equal(item, want[..., ::-1])


def test_found_beside_the_prototxt(tmp_path: Path, items: list[Pixels], monkeypatch: pytest.MonkeyPatch) -> None:
    path = net_of(tmp_path, "Data", data_param())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    net = Net(path)
    np.testing.assert_array_equal(net.forward(blobs=["data"])["data"], items[:2])
    assert [str(note) for note in net.diagnostics] == [
        "source (Data), line 1: db is not there as seen from the current folder; "
        f"{tmp_path / 'db'}, beside the prototxt, is taken"
    ]


CONV = (
    'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"'
    " convolution_param { num_output: 2 kernel_size: 3 } }\n"
    'layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 4 } }\n'
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }\n'
)


def test_without_the_database(tmp_path: Path) -> None:
    path = net_of(tmp_path, "Data", data_param("gone") + "transform_param { crop_size: 7 }", rest=CONV)
    assert caffeconv.inspect(path).blobs["data"] == (2, 3, 7, 7)
    model = caffeconv.convert(path)
    assert [value.name for value in model.graph.input] == ["data", "label"]
    assert model.graph.input[1].type.tensor_type.shape.dim[0].dim_param == "batch"
    net = Net(path)
    assert "gone is not there; 'data' is taken to be 2×3×7×7" in [note.message for note in net.diagnostics]
    with refused(r"source \(Data\), line 1: gone: No such file .*net.forward\(data=…, label=…\)"):
        net.forward()
    data = np.ones((2, 3, 7, 7), np.float32)
    with refused("gone: No such file"):  # the loss needs the label too
        net.forward(data=data)
    assert net.forward(data=data, end="fc")["fc"].shape == (2, 4)
    assert net.forward(data=data, label=[0, 3])["loss"].shape == ()


def test_shape_that_cannot_be_known(tmp_path: Path) -> None:
    path = net_of(tmp_path, "Data", data_param("gone"), rest=CONV)
    with refused(r"source \(Data\), line 1: gone: No such file .*Without it, name the shape"):
        caffeconv.convert(path)
    report = caffeconv.inspect(path, shapes={"data": (5, 3, 9, 9)})
    assert report.ok
    assert report.blobs["label"] == (5,)


@pytest.mark.usefixtures("items")
def test_handing_over_what_a_database_would_give(tmp_path: Path) -> None:
    net = Net(net_of(tmp_path, "Data", data_param()))
    ones = np.ones((2, 2, 3, 4), np.float32)
    got = net.forward(blobs=["data", "label"], data=ones)
    np.testing.assert_array_equal(got["data"], ones)
    np.testing.assert_array_equal(got["label"], [10, 11])
    with refused("input 'data': the array is 2×2×9×9, the net needs 2×2×3×4"):
        net.forward(data=np.ones((2, 2, 9, 9), np.float32))


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ('data_param { source: "db" backend: LMDB }', "batch_size is 0; Positive batch size required"),
        (data_param() + "transform_param { crop_size: 4 }", r"db, record '00000000': 3×4 pixels; crop_size 4 needs"),
        (data_param() + 'transform_param { mean_value: 1 mean_file: "m" }', "Cannot specify mean_file and mean_value"),
        (data_param() + 'transform_param { mean_file: "m" }', r"m: File not found; the mean image"),
        (data_param() + "transform_param { mean_value: [1, 2, 3] }", "3 mean_value; Specify either 1"),
        (data_param() + "transform_param { resize_param { height: 9 width: 9 } }", "resize_param belongs to a fork"),
        (
            'data_param { source: "db" batch_size: 1 backend: LMDB shuffle_buffer_size: 9 }',
            "shuffle_buffer_size belongs to a fork",
        ),
        ('data_param { source: "db" batch_size: 1 }', r"It is an LMDB: write `backend: LMDB`"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("items")
def test_faulty_data(tmp_path: Path, params: str, said: str) -> None:
    with refused(rf"source \(Data\), line 1: .*{said}"):
        Net(net_of(tmp_path, "Data", params)).forward()


def test_damaged_record_is_named(tmp_path: Path) -> None:
    good = encoded(pixels(32, 32, 3), suffix=".jpg")
    write_lmdb(tmp_path / "db", {"a.jpg": good, "b.jpg": good[:-200] + bytes(200), "c.jpg": good})
    net = Net(net_of(tmp_path, "Data", data_param(batch=1), ["data"]))
    net.forward(blobs=["data"])
    with refused(r"source \(Data\), line 1: db, record 'b.jpg': "):
        net.forward(blobs=["data"])


# -- ImageData ---------------------------------------------------------------------------------------------------------


def image_param(more: str = "batch_size: 2") -> str:
    return f'image_data_param {{ source: "list.txt" {more} }}'


def test_hashnets_labels_have_a_second_axis() -> None:
    report = caffeconv.inspect(
        net_of(Path(), "ImageData", "image_data_param { batch_size: 4 label_dim: 3 }"), shapes={"data": (4, 3, 8, 8)}
    )
    assert report.blobs["label"] == (4, 3)


def test_pictures_of_a_list(tmp_path: Path) -> None:
    pictures = {"a b.png": pixels(4, 5, 3), "c.png": pixels(4, 5), "d.png": pixels(4, 5, 4)}
    write_pictures(tmp_path, pictures)
    write_list(tmp_path / "list.txt", ["a b.png 7", "c.png -2", "d.png 1.9"])
    net = Net(net_of(tmp_path, "ImageData", image_param("batch_size: 3")))
    got = net.forward(blobs=["data", "label"])
    want = [pictures["a b.png"], np.stack([pictures["c.png"]] * 3, -1), pictures["d.png"][..., :3]]
    np.testing.assert_array_equal(got["data"], np.stack(want).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(got["label"], [7, -2, 1])


def test_grey_and_resized(tmp_path: Path) -> None:
    picture = pixels(10, 12, 3)
    write_pictures(tmp_path, {"a.png": picture})
    write_list(tmp_path / "list.txt", ["a.png 0"])
    path = net_of(tmp_path, "ImageData", image_param("batch_size: 1 is_color: false new_height: 5 new_width: 6"))
    read = cv2.imread("a.png", cv2.IMREAD_GRAYSCALE)
    assert read is not None
    grey = cv2.resize(read, (6, 5))
    np.testing.assert_array_equal(Net(path).forward(blobs=["data"])["data"][0, 0], grey)


def test_root_folder_is_put_before_the_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_pictures(tmp_path / "in", {"x.png": pixels(2, 2, 3)})
    write_list(tmp_path / "list.txt", [".png 1"])
    net = Net(net_of(tmp_path, "ImageData", image_param('batch_size: 1 root_folder: "in/x"')))
    assert net.forward(blobs=["label"])["label"] == 1


def test_shuffled_rounds(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"a.png": pixels(2, 2, 3)})
    write_list(tmp_path / "list.txt", [f"a.png {i}" for i in range(8)])
    net = Net(net_of(tmp_path, "ImageData", image_param("batch_size: 8 shuffle: true")))
    rounds = batches(net, 3, "label")
    assert all(sorted(labels) == list(range(8)) for labels in rounds)
    assert len({tuple(labels) for labels in rounds}) == 3
    net = Net(net_of(tmp_path, "ImageData", image_param("batch_size: 8 rand_skip: 5")))
    first = batches(net, 1, "label")[0]
    assert first[0] < 5
    np.testing.assert_array_equal(first, (first[0] + np.arange(8)) % 8)


def test_list_without_labels(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"12.png": pixels(2, 2, 3), "a.png": pixels(2, 2, 3)})
    write_list(tmp_path / "list.txt", ["12.png", "a.png"])
    # caffe: atoi of the whole line
    np.testing.assert_array_equal(batches(Net(net_of(tmp_path, "ImageData", image_param())), 1, "label")[0], [12, 0])


def test_a_list_that_a_fork_reads_without_labels(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"a.png": pixels(2, 2, 3)})
    write_list(tmp_path / "list.txt", ["a.png"])
    path = net_of(tmp_path, "ImageData", image_param("batch_size: 1 label: false"))
    assert caffeconv.inspect(path).blobs["data"] == (1, 3, 2, 2)
    with refused("label belongs to a fork of Caffe and is not followed"):
        Net(path).forward()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "list.txt: File is empty"),
        (["a.png 1", "", "a.png 2"], "list.txt, line 2: ''; a picture's name, a space, and its label"),
        (["a.png 1", "a.png"], "list.txt, line 2: 'a.png'; "),
        (["a.png 1", "a.png cat"], "list.txt, line 2: 'a.png cat'; "),
        (["a.png 1", " 3"], "list.txt, line 2: ' 3'; "),
        (["a.png 1", "none.png 2"], r"list.txt, line 2 \(none.png\): Could not open or find file none.png; .*root"),
        (["a.png 1", "text.png 2"], r"list.txt, line 2 \(text.png\): not a readable picture"),
        (["a.png 1", "small.png 2"], r"list.txt, line 2 \(small.png\): the item is 3×2×2, the first .* 3×4×5"),
        (["none.png 2"], r"list.txt, line 1 \(none.png\): Could not open"),
    ],
)
def test_faulty_list(tmp_path: Path, lines: list[str], said: str) -> None:
    write_pictures(tmp_path, {"a.png": pixels(4, 5, 3), "small.png": pixels(2, 2, 3)})
    (tmp_path / "text.png").write_text("no picture")
    write_list(tmp_path / "list.txt", lines)
    with refused(rf"source \(ImageData\), line 1: {said}"):
        Net(net_of(tmp_path, "ImageData", image_param())).forward(blobs=["data"])


def test_image_data_without_the_list(tmp_path: Path) -> None:
    with refused("Failed to open source file: list.txt.*Without it, name the shape"):
        Net(net_of(tmp_path, "ImageData", image_param()))
    for more, shape in {
        "is_color: false new_height: 3 new_width: 4": (1, 1, 3, 4), "} transform_param { crop_size: 5": (1, 3, 5, 5)
    }.items():  # fmt: skip
        path = net_of(tmp_path, "ImageData", image_param(more))
        assert caffeconv.inspect(path).blobs == {"data": shape, "label": (1,)}
        with refused("Failed to open source file: list.txt"):
            Net(path).forward()
    with refused("new_height 3, new_width 0; .*set at the same time"):
        Net(net_of(tmp_path, "ImageData", image_param("new_height: 3")))


# -- HDF5Data ----------------------------------------------------------------------------------------------------------


def hdf5_param(batch: int, more: str = "") -> str:
    return f'hdf5_data_param {{ source: "list.txt" batch_size: {batch} {more} }}'


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 7, 16])
def test_rows_of_several_files(tmp_path: Path, batch: int) -> None:
    rows = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    for i, part in enumerate((rows[:3], rows[3:4], rows[4:])):
        write_hdf5(tmp_path / f"{i}.h5", data=part.astype(np.float64), label=np.arange(len(part)) + 10 * i)
    (tmp_path / "list.txt").write_text("0.h5 1.h5\n2.h5\n")
    net = Net(net_of(tmp_path, "HDF5Data", hdf5_param(batch), ["label", "data"]))
    assert net.blobs["data"].shape == (batch, 2, 3)
    labels = np.array([0, 1, 2, 10, 20, 21, 22])
    for step in range(5):
        got = net.forward(blobs=["data", "label"])
        at = (np.arange(batch) + step * batch) % 7
        np.testing.assert_array_equal(got["data"], rows[at])
        np.testing.assert_array_equal(got["label"], labels[at])


def test_hdf5_shuffled(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "0.h5", x=np.arange(4))
    write_hdf5(tmp_path / "1.h5", x=np.arange(4, 9))
    write_list(tmp_path / "list.txt", ["0.h5", "1.h5"])
    rounds = batches(Net(net_of(tmp_path, "HDF5Data", hdf5_param(9, "shuffle: true"), ["x"])), 6, "x")
    assert all(sorted(values) == list(range(9)) for values in rounds)
    assert len({tuple(values) for values in rounds}) > 3
    assert {values[0] < 4 for values in map(tuple, rounds)} == {True, False}  # the files are shuffled too


def test_hdf5_rows_of_another_shape(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "0.h5", x=np.zeros((1, 2, 3)))
    write_hdf5(tmp_path / "1.h5", x=np.arange(6).reshape(1, 6))
    write_hdf5(tmp_path / "2.h5", x=np.zeros((1, 7)))
    write_list(tmp_path / "list.txt", ["0.h5", "1.h5", "2.h5"])
    net = Net(net_of(tmp_path, "HDF5Data", hdf5_param(1), ["x"]))
    # caffe: as many values are copied as they are, of whatever shape
    np.testing.assert_array_equal(batches(net, 2, "x")[1], [[[0, 1, 2], [3, 4, 5]]])
    with refused(r"2.h5 \(of list.txt\): dataset x has rows of 7; 2×3 was needed"):
        net.forward(blobs=["x"])


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ({"label": [1]}, "Failed to find HDF5 dataset data; .*It has label"),
        ({"data": [1, 2], "label": [1]}, "rows data: 2, label: 1; the same number"),
        ({"data": np.zeros((0, 2)), "label": np.zeros(0)}, "rows data: 0, label: 0"),
        ({"data": 3.0, "label": [1]}, "dataset data has no axes; Input must have at least 1 axis."),
        ({"data": [True], "label": [1]}, "dataset data holds bool; floats or integers were needed"),
        ({"data": ["text"], "label": [1]}, "dataset data holds object; floats or integers"),
    ],
)
def test_faulty_hdf5(tmp_path: Path, sets: dict[str, object], said: str) -> None:
    write_hdf5(tmp_path / "0.h5", **sets)  # type: ignore[arg-type]
    write_list(tmp_path / "list.txt", ["0.h5"])
    with refused(rf"source \(HDF5Data\), line 1: 0.h5 \(of list.txt\): .*{said}"):
        Net(net_of(tmp_path, "HDF5Data", hdf5_param(1)))


def test_hdf5_files_that_are_none(tmp_path: Path) -> None:
    path = net_of(tmp_path, "HDF5Data", hdf5_param(1))
    with refused("Failed to open source file: list.txt"):
        Net(path)
    write_list(tmp_path / "list.txt", [])
    with refused("list.txt: Must have at least 1 HDF5 filename"):
        Net(path)
    write_list(tmp_path / "list.txt", ["gone.h5"])
    with refused(r"gone.h5 \(of list.txt\): Failed opening HDF5 file: No such file"):
        Net(path)
    assert caffeconv.inspect(path, shapes={"data": (1, 2), "label": (1,)}).ok
    (tmp_path / "gone.h5").write_text("no HDF5")
    with refused(r"gone.h5 \(of list.txt\): Failed opening HDF5 file"):
        Net(path)
    with refused("HDF5Data does not transform data"):
        Net(net_of(tmp_path, "HDF5Data", hdf5_param(1) + "transform_param { scale: 2 }"))


def test_a_file_that_comes_later_is_missing_only_then(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "0.h5", x=[1, 2])
    write_list(tmp_path / "list.txt", ["0.h5", "1.h5"])
    net = Net(net_of(tmp_path, "HDF5Data", hdf5_param(2), ["x"]))
    assert batches(net, 1, "x")[0].tolist() == [1, 2]
    with refused(r"1.h5 \(of list.txt\): Failed opening"):
        net.forward(blobs=["x"])
    write_hdf5(tmp_path / "1.h5", x=[3, 4])
    assert batches(net, 2, "x")[0].tolist() == [3, 4]


# -- MemoryData --------------------------------------------------------------------------------------------------------


@pytest.fixture
def memory(tmp_path: Path) -> Net:
    return Net(net_of(tmp_path, "MemoryData", "memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 }"))


def test_memory_goes_on_where_it_was(memory: Net) -> None:
    assert memory.inputs == []
    assert memory.blobs["label"].shape == (2,)
    data = np.arange(18, dtype=np.float32).reshape(6, 1, 1, 3)
    labels = np.arange(6, dtype=np.float32)
    for step in range(4):
        got = forward(memory, {"data": data, "label": labels} if step < 2 else {}, ["data", "label"])
        at = np.array([0, 1]) + 2 * (step % 3)
        np.testing.assert_array_equal(got["data"], data[at])
        np.testing.assert_array_equal(got["label"], labels[at].reshape(2, 1, 1, 1))
    other = forward(memory, {"data": data + 1, "label": labels}, ["data"])
    np.testing.assert_array_equal(other["data"], data[:2] + 1)


def test_memory_that_is_wrong(memory: Net) -> None:
    data, labels = np.zeros((2, 1, 1, 3), np.float32), np.zeros(2, np.float32)
    with refused(r"source \(MemoryData\), line 1: no data yet; .*net.forward\(data=…, label=…\)"):
        memory.forward()
    with refused("'label' is missing; data and labels are handed over together"):
        memory.forward(blobs=["label"], data=data)
    with refused(r"'data' is 3×1×1×3; N×1×1×3 was needed, N must be a multiple of batch size 2"):
        memory.forward(data=np.zeros((3, 1, 1, 3)), label=np.zeros(3))
    with refused(r"'data' is 2×3; N×1×1×3 was needed"):
        memory.forward(data=np.zeros((2, 3)), label=labels)
    with refused(r"'label' is 2×2; 2 labels, one an item, were needed"):
        memory.forward(data=data, label=np.zeros((2, 2)))


# -- HDF5Output --------------------------------------------------------------------------------------------------------

OUTPUT = (
    'layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 2 dim: 3 } } }\n'
    'layer { name: "b" type: "Input" top: "b" input_param { shape { dim: 2 } } }\n'
    'layer { name: "twice" type: "Power" bottom: "a" top: "twice" power_param { scale: 2 } }\n'
    'layer { name: "out" type: "HDF5Output" bottom: "twice" bottom: "b" hdf5_output_param { file_name: "out.h5" } }\n'
)


def test_output_is_written_and_added_to(tmp_path: Path) -> None:
    import h5py

    (tmp_path / "net.prototxt").write_text(OUTPUT)
    net = Net("net.prototxt", output_dir=".")
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([4, 5], np.float32)
    net.forward(a=a, b=b, end="twice")
    assert not (tmp_path / "out.h5").exists()
    for passes in (1, 2):
        net.forward(a=a, b=b)
        with h5py.File("out.h5") as file:
            assert file["data"].dtype == file["label"].dtype == np.float32
            np.testing.assert_array_equal(file["data"], np.concatenate([2 * a.reshape(2, 3, 1, 1)] * passes))
            np.testing.assert_array_equal(file["label"], np.concatenate([b.reshape(2, 1, 1, 1)] * passes))
    Net("net.prototxt", output_dir=".").forward(a=a, b=b)  # another net begins anew
    with h5py.File("out.h5") as file:
        assert file["data"].shape == (2, 3, 1, 1)


@pytest.mark.parametrize(
    ("kind", "folder", "written"),
    [
        ("data", None, []),
        ("data", "out", ["out/out.h5"]),
        ("code", None, ["out.h5"]),
        ("code", "out", ["out/out.h5"]),
        ("pycaffe", None, ["out.h5"]),
        ("pycaffe", "out", ["out/out.h5"]),
    ],
)
def test_where_output_goes(kind: str, folder: str | None, written: list[str], tmp_path: Path) -> None:
    """A net that is data alone writes nowhere unless a folder is named; one whose code may run, in the current folder."""
    (tmp_path / "net.prototxt").write_text(OUTPUT)
    (tmp_path / "out").mkdir()
    net: Net
    if kind == "pycaffe":
        net = caffe.Net("net.prototxt", caffe.TEST, output_dir=folder)
    else:
        net = Net("net.prototxt", allow_python=kind == "code", output_dir=folder)
    with nullcontext() if written else refused("nothing that a net names is written"):
        net.forward()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.h5")] == written


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(OUTPUT.replace("out.h5", "none/out.h5"))
    with refused(r"out \(HDF5Output\), line 4: none/out.h5: Failed to open HDF5 file"):
        Net("net.prototxt", output_dir=".").forward()
    (tmp_path / "net.prototxt").write_text(OUTPUT.replace("dim: 2 } }", "dim: 3 } }"))
    with refused("must have the same batch size"):
        Net("net.prototxt")


def test_a_mean_of_another_size_than_the_pictures_is_told(tmp_path: Path) -> None:
    write_mean(tmp_path / "mean.binaryproto", np.zeros((3, 6, 8), np.float32))
    net = tmp_path / "net.prototxt"
    net.write_text(
        'layer { name: "data" type: "ImageData" top: "data" top: "label" transform_param { mean_file: "mean.binaryproto" } '
        'image_data_param { source: "a.txt" batch_size: 2 new_height: 5 new_width: 5 } }'
    )
    (warning,) = (d for d in caffeconv.inspect(net).diagnostics if d.severity == "warning")
    assert warning.message == "the mean image is 6×8, the pictures are 5×5"
    assert "`new_height: 6 new_width: 8`" in warning.hint
