"""caffeconv inspect, of files that are no nets: weights, databases, data in HDF5, blobs in binary form."""

from __future__ import annotations

from pathlib import Path

from caffeconv.cli.show.console import echo

WEIGHTS_SUFFIXES = (".caffemodel", ".h5", ".hdf5")
BLOB_SUFFIX = ".binaryproto"


def is_weights(path: Path) -> bool:
    """Whether a path is that of a weights file, by its suffix."""
    return path.suffix.lower() in WEIGHTS_SUFFIXES


def inspect_file(path: Path, *, values: bool, as_json: bool) -> bool:
    """Shows a file or folder that holds no net; False where it may hold one."""
    if path.is_dir():
        _database(path, as_json=as_json)
    elif path.suffix.lower() == BLOB_SUFFIX:
        _array(path, as_json=as_json)
    elif _is_data(path):
        _datasets(path)
    elif is_weights(path) and not _carries_net(path):
        _weights(path, values=values, as_json=as_json)
    else:
        return False
    return True


def compare_weights_files(a: Path, b: Path, *, as_json: bool) -> None:
    """Shows in what two weights files differ."""
    from caffeconv.cli.show.file_listings import print_weights_changes
    from caffeconv.frontend.open_files import read_weights
    from caffeconv.inspection.report_json import changes_to_json
    from caffeconv.inspection.weights_listing import compare_weights

    changes = compare_weights(read_weights(a), read_weights(b))
    if as_json:
        echo(changes_to_json(changes))
    else:
        print_weights_changes(changes)


def _is_data(path: Path) -> bool:
    """Whether a file is HDF5 of another kind than Caffe's weights: it has datasets at the top."""
    from caffeconv.files.hdf5 import is_hdf5
    from caffeconv.inspection.data_listing import list_hdf5_data

    return is_hdf5(path) and bool(list_hdf5_data(path))


def _carries_net(path: Path) -> bool:
    from caffeconv.files.hdf5 import is_hdf5
    from caffeconv.frontend.open_files import carries_net

    return not is_hdf5(path) and carries_net(path)


def _weights(path: Path, *, values: bool, as_json: bool) -> None:
    from caffeconv.cli.show.file_listings import print_weights, weights_to_json
    from caffeconv.frontend.open_files import read_weights
    from caffeconv.inspection.weights_listing import list_weights

    listing = list_weights(read_weights(path), values=values)
    if as_json:
        echo(weights_to_json(listing))
    else:
        print_weights(listing)


def _database(path: Path, *, as_json: bool) -> None:
    from caffeconv.cli.show.file_listings import listing_to_json, print_database
    from caffeconv.inspection.data_listing import list_database

    listing = list_database(path)
    if as_json:
        echo(listing_to_json(listing))
    else:
        print_database(listing)


def _array(path: Path, *, as_json: bool) -> None:
    from caffeconv.cli.show.file_listings import listing_to_json, print_array
    from caffeconv.inspection.data_listing import list_binaryproto

    listing = list_binaryproto(path)
    if as_json:
        echo(listing_to_json(listing))
    else:
        print_array(listing)


def _datasets(path: Path) -> None:
    from caffeconv.cli.show.file_listings import print_datasets
    from caffeconv.inspection.data_listing import list_hdf5_data

    print_datasets(path, list_hdf5_data(path))
