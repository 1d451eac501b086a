"""A net over a small database, for the tests of runs over data."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from support.databases import encoded, pixels, raw, write_lmdb

LAYERS = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" }
"""


def data_layer(database: Path, batch_size: int, more: str = "") -> str:
    return (
        f'layer {{ name: "data" type: "Data" top: "data" top: "label" transform_param {{ scale: 0.01 }} {more}\n'
        f'  data_param {{ source: "{database}" backend: LMDB batch_size: {batch_size} }} }}\n'
    )


def write_database(path: Path, items: int, damaged: Collection[int] = ()) -> Path:
    """Pictures of 3×8×8 with labels; of those `damaged` the end is missing."""
    records = {f"{i:05d}": raw(pixels(3, 8, 8, seed=i), i % 3) for i in range(items)}
    for i in damaged:
        records[f"{i:05d}"] = encoded(pixels(8, 8, 3, seed=i))[:-70]
    return write_lmdb(path, records)


def write_data_net(
    folder: Path, items: int, batch_size: int, damaged: Collection[int] = (), layers: str = LAYERS
) -> Path:
    """The net, over a database beside it."""
    database = write_database(folder / "db", items, damaged)
    path = folder / "net.prototxt"
    path.write_text(data_layer(database, batch_size) + layers)
    return path
