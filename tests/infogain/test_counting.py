"""Labels counted wherever they are kept, and what is refused, with its place."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import plyvel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from support.databases import encoded, file_content, raw, refused, write_hdf5, write_list, write_lmdb, write_pictures

from caffeconv.caffe_pb2 import Datum
from caffeconv.infogain.balance import class_weights
from caffeconv.infogain.counting import count_labels

Map = NDArray[np.uint8]
LABELS = [2, 0, 2, 3, 0, 2]
COUNTS = [2, 0, 3, 1]
PIXEL = np.zeros((1, 1, 1), np.uint8)


def palette_png(labels: Map, bits: int) -> bytes:
    """A PNG with a palette of wild colours."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = labels.shape
    digits = ["".join(f"{value:0{bits}b}" for value in row) for row in labels.tolist()]
    rows = [int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8), "big") for row in digits]
    colours = np.random.default_rng(0).integers(0, 256, (1 << bits, 3), np.uint8).tobytes()
    return b"".join((
        b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 3, 0, 0, 0)),
        chunk(b"PLTE", colours), chunk(b"tRNS", b"\0"),
        chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), chunk(b"IEND", b""),
    ))  # fmt: skip


# -- one label for each item -------------------------------------------------------------------------------------------


def test_lmdb(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", {f"{i}": raw(PIXEL, label) for i, label in enumerate(LABELS)})
    counts = count_labels(tmp_path / "db")
    assert counts.labels.tolist() == COUNTS
    assert (counts.items, counts.ignored) == (6, 0)
    assert counts.around.tolist() == [6, 0, 6, 6]
    assert count_labels(tmp_path / "db", classes=6).labels.tolist() == [*COUNTS, 0, 0]


def test_leveldb(tmp_path: Path) -> None:
    with plyvel.DB(str(tmp_path / "db"), create_if_missing=True) as database:
        for i, label in enumerate(LABELS):
            database.put(b"%d" % i, raw(PIXEL, label))
    assert count_labels(tmp_path / "db").labels.tolist() == COUNTS


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 1, 1, 1)])
def test_hdf5(tmp_path: Path, shape: tuple[int, ...]) -> None:
    labels = np.array(LABELS, np.float32).reshape(shape)
    write_hdf5(tmp_path / "a.h5", data=np.zeros((6, 3)), label=labels)
    write_hdf5(tmp_path / "b.h5", other=labels)
    write_list(tmp_path / "list.txt", ["a.h5", "b.h5"])
    assert count_labels(tmp_path / "a.h5").labels.tolist() == COUNTS
    both = count_labels(tmp_path / "list.txt")
    assert both.labels.tolist() == [2 * n for n in COUNTS]
    assert both.around.tolist() == [12, 0, 12, 12]
    assert count_labels(tmp_path / "b.h5", dataset="other").labels.tolist() == COUNTS


def test_listed_files_beside_what_the_list_is_in(tmp_path: Path) -> None:
    """A prototxt's folder, from which a list's names are often seen."""
    (tmp_path / "data").mkdir()
    write_hdf5(tmp_path / "data" / "a.h5", label=LABELS)
    write_list(tmp_path / "data" / "list.txt", ["data/a.h5"])
    assert count_labels(tmp_path / "data" / "list.txt").labels.tolist() == COUNTS


def test_array(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.array(LABELS))
    assert count_labels(tmp_path / "labels.npy").labels.tolist() == COUNTS


def test_list_of_pictures(tmp_path: Path) -> None:
    """The pictures themselves are not looked at."""
    write_list(tmp_path / "list.txt", [f"with spaces/picture {i}.jpg {label}" for i, label in enumerate(LABELS)])
    assert count_labels(tmp_path / "list.txt").labels.tolist() == COUNTS


def test_many_items(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 7, 5000)
    write_list(tmp_path / "list.txt", [f"{i}.png {label}" for i, label in enumerate(labels)])
    write_lmdb(tmp_path / "db", {f"{i:08}": raw(PIXEL, int(label)) for i, label in enumerate(labels)})
    write_hdf5(tmp_path / "a.h5", label=labels)
    for name in ("list.txt", "db", "a.h5"):
        counts = count_labels(tmp_path / name)
        assert counts.labels.tolist() == np.bincount(labels).tolist()
        assert counts.items == 5000


def test_numbers_are_cut_off_as_caffe_does(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", label=[1.99, -0.5, 0.0, 1.0])
    assert count_labels(tmp_path / "a.h5").labels.tolist() == [2, 2]


# -- maps of labels ----------------------------------------------------------------------------------------------------

MAPS = st.lists(
    arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.integers(0, 5)),
    min_size=1,
    max_size=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(MAPS)
def test_every_source_counts_the_same(tmp_path_factory: pytest.TempPathFactory, maps: list[Map]) -> None:
    """Label 5 is ignored; a class's pixels are held against those of the pictures that it is in."""
    folder = tmp_path_factory.mktemp("maps")
    (folder / "pictures").mkdir()
    write_pictures(folder / "pictures", {f"{i}.png": labels for i, labels in enumerate(maps)})
    (folder / "palette").mkdir()
    for i, labels in enumerate(maps):
        (folder / "palette" / f"{i}.png").write_bytes(palette_png(labels, (4, 8)[i % 2]))
    write_list(folder / "two.txt", [f"absent.jpg pictures/{i}.png" for i in range(len(maps))])
    write_list(folder / "one.txt", [f"palette/{i}.png" for i in range(len(maps))])
    write_lmdb(folder / "raw", {f"{i}": raw(labels[None]) for i, labels in enumerate(maps)})
    write_lmdb(folder / "encoded", {f"{i}": encoded(labels) for i, labels in enumerate(maps)})
    kept = [labels[labels != 5] for labels in maps]
    expected = np.sum([np.bincount(labels, minlength=5) for labels in kept], axis=0)
    around = [sum(labels.size for labels in kept if c in labels) for c in range(5)]
    places = [
        folder / name for name in ("pictures", "pictures/*.png", "palette", "two.txt", "one.txt", "raw", "encoded")
    ]
    if not expected.any():
        with refused("pictures: all .* labels are ignored; at least one that is a class was needed"):
            count_labels(places[0], ignore_label=5)
        return
    for place in places:
        counts = count_labels(place, classes=5, ignore_label=5, label_maps=place.name in ("one.txt", "raw", "encoded"))
        assert counts.labels.tolist() == expected.tolist(), place
        assert counts.ignored == sum((labels == 5).sum() for labels in maps)
        assert counts.items == len(maps)
        if max(labels.size for labels in maps) > 1:
            assert counts.around.tolist() == around


def test_maps_in_hdf5(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).integers(0, 3, (5, 1, 4, 6))
    write_hdf5(tmp_path / "a.h5", label=maps)
    assert count_labels(tmp_path / "a.h5").labels.tolist() == np.bincount(maps.ravel()).tolist()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes(tmp_path: Path, bits: int) -> None:
    labels = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7 % min(1 << bits, 255)
    (tmp_path / "a.png").write_bytes(palette_png(labels, bits))
    assert count_labels(tmp_path / "a.png").labels.tolist() == np.bincount(labels.ravel()).tolist()


def test_grey_stored_as_colour(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [2, 2]], np.uint8)
    (tmp_path / "a.png").write_bytes(file_content(np.stack([labels] * 3, axis=2)))
    assert count_labels(tmp_path / "a.png").labels.tolist() == [1, 1, 2]


def test_median_frequency_of_label_maps(tmp_path: Path) -> None:
    """Counted and weighted: median(f)/f, f being a class's share of the pictures that it is in."""
    for name, row in (("a.png", [0, 0, 0, 1]), ("b.png", [0, 2]), ("c.png", [0, 0])):
        write_pictures(tmp_path, {name: np.array([row], np.uint8)})
    frequencies = np.array([6 / 8, 1 / 4, 1 / 2])
    np.testing.assert_allclose(class_weights(count_labels(tmp_path)), 0.5 / frequencies)


# -- refused -----------------------------------------------------------------------------------------------------------


def test_labels_that_are_no_class(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", {"a": raw(PIXEL, 1), "b": raw(PIXEL, 7)})
    with refused(r"db, record 'b': label 7; 0 to 4 were needed. If it means no class: `ignore_label=7`"):
        count_labels(tmp_path / "db", classes=5)
    assert count_labels(tmp_path / "db", classes=5, ignore_label=7).labels.tolist() == [0, 1, 0, 0, 0]
    write_list(tmp_path / "list.txt", ["a.png 0", "b.png -1"])
    with refused(r"list\.txt, line 2 \(b\.png\): label -1; 0 to 16383 were needed"):
        count_labels(tmp_path / "list.txt")
    assert count_labels(tmp_path / "list.txt", ignore_label=-1).ignored == 1
    (tmp_path / "p").mkdir()
    write_pictures(tmp_path / "p", {"a.png": np.array([[0, 1, 2], [3, 4, 255]], np.uint8)})
    with refused(r"p/a\.png, row 1, column 2: label 255; 0 to 4 were needed"):
        count_labels(tmp_path / "p", classes=5)
    write_hdf5(tmp_path / "a.h5", label=np.array([[[0, 1]], [[2, 9]]]))
    with refused(r"a\.h5, dataset label, item 1, at 0, 1: label 9; 0 to 2 were needed"):
        count_labels(tmp_path / "a.h5", classes=3)
    write_lmdb(tmp_path / "maps", {"x": raw(np.array([[[0], [6]]], np.uint8))})
    with refused(r"maps, record 'x', row 1, column 0: label 6"):
        count_labels(tmp_path / "maps", classes=3, label_maps=True)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "item 1: label nan; 0 to 16383 were needed$"),
        (np.inf, "item 1: label inf; 0 to 16383 were needed$"),
        (1e30, r"item 1: label 1e\+30; 0 to 16383"),
        (-1e30, r"item 1: label -1e\+30; 0 to 16383"),
        (20000, "item 1: label 20000; 0 to 16383"),
        (-1, "item 1: label -1; 0 to 16383"),
    ],
)
def test_wild_numbers(tmp_path: Path, value: float, message: str) -> None:
    write_hdf5(tmp_path / "a.h5", label=[0, value])
    with refused(message):
        count_labels(tmp_path / "a.h5")


def test_unsigned_numbers_of_eight_bytes(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", label=np.array([0, 2**64 - 1], np.uint64))
    with refused("item 1: label 1.84467e"):
        count_labels(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"", r"a\.png: not a readable picture"),
        ("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", r"a\.png: the picture is cut off"),
        ("a.png", palette_png(np.zeros((3, 3), np.uint8), 8)[:60], r"a\.png: the picture is cut off"),
        (
            "a.png",
            file_content(np.array([[[1, 2, 3]]], np.uint8)),
            r"a\.png: a picture in colour; one chan",
        ),
        ("a.png", file_content(np.zeros((2, 2), np.uint8), ".jpg"), r"a\.png: a JPEG, which changes the values"),
        ("a.h5", b"x", r"a\.h5: not readable as HDF5"),
        ("a.npy", b"x", r"a\.npy: not a readable array file"),
        ("a.txt", b"", r"a\.txt: the list is empty; an LMDB or LevelDB"),
        ("a.txt", b"a.png x\n", r"a\.txt, line 1: 'a\.png x'; a picture's name, a space, and its label"),
        ("a.txt", b"a.png b.png\n", r"a\.txt, line 1 \(b\.png\): b\.png cannot be read: No such file"),
        ("a.txt", b"b.h5\n", r"b\.h5: no such file; an HDF5 file with labels was needed"),
    ],
)
def test_hostile_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with refused(message):
        count_labels(tmp_path / name)


def test_hostile_databases(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "noise", {"x": b"\xff\xff"})
    for label_maps in (False, True):
        with refused(r"noise, record 'x': 2 bytes that are no Datum; a whole Datum was needed"):
            count_labels(tmp_path / "noise", label_maps=label_maps)
    write_lmdb(tmp_path / "colour", {"x": raw(np.zeros((3, 2, 2), np.uint8))})
    with refused(r"colour, record 'x': 3×2×2 values; one channel of labels was needed"):
        count_labels(tmp_path / "colour", label_maps=True)
    write_lmdb(tmp_path / "empty", {})
    with refused("empty: no labels to count; at least one that is a class was needed"):
        count_labels(tmp_path / "empty")
    write_lmdb(tmp_path / "bare", {"x": Datum(channels=1, height=1, width=1, data=b"0").SerializeToString()})
    assert count_labels(tmp_path / "bare").labels.tolist() == [1]


@pytest.mark.parametrize("name", ["nowhere", "nowhere.h5", "nowhere.npy", "nowhere.txt", "nowhere.png", "nowhere*.png"])
def test_nothing_there(tmp_path: Path, name: str) -> None:
    with refused(r"nowhere.*: (no such file|no file matches)|Failed to open source file"):
        count_labels(tmp_path / name)


def test_wrong_calls(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", a=[0], b=[0], c=3)
    with refused("no dataset of numbers called 'label'; it has a, b, c"):
        count_labels(tmp_path / "a.h5")
    with refused("dataset c: a single number; an axis of items was needed"):
        count_labels(tmp_path / "a.h5", dataset="c")
    for classes in (0, 1 << 20):
        with refused(f"`classes={classes}`: 1 to 16384 were needed"):
            count_labels(tmp_path / "a.h5", dataset="a", classes=classes)
    (tmp_path / "empty").mkdir()
    with refused("empty: no picture in this folder"):
        count_labels(tmp_path / "empty")
