"""Blocks that move, against TensorFlow's and darknet's rules written as loops, and what the layers refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_nets import Array, run_model, write_net

import caffeconv


def run(folder: Path, layer: str, x: Array, dialect: str | None = None) -> Array:
    path = write_net(folder, {"x": x.shape}, f'layer {{ name: "l" bottom: "x" top: "y" {layer} }}\n')
    return run_model(caffeconv.convert(path, dialect=dialect, batch="keep"), {"x": x})["y"]


def counted(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("data_format", ["NHWC", "NCHW", "DCR", "CRD"])
def test_depth_to_space(tmp_path: Path, data_format: str) -> None:
    x = counted(2, 2, 3, 12) if data_format == "NHWC" else counted(2, 12, 2, 3)
    got = run(
        tmp_path, f'type: "DepthToSpace" depth_to_space_param {{ block_size: 2 data_format: "{data_format}" }}', x
    )
    if data_format == "NHWC":
        got, x = got.transpose(0, 3, 1, 2), x.transpose(0, 3, 1, 2)
    for channel in range(3):
        for row, column in np.ndindex(2, 2):
            block = row * 2 + column
            source = channel * 4 + block if data_format == "CRD" else block * 3 + channel
            np.testing.assert_array_equal(got[:, channel, row::2, column::2], x[:, source])


def test_batch_to_space_undoes_space_to_batch(tmp_path: Path) -> None:
    x = counted(2, 5, 4, 3)
    blocks = "block_shape: 3 block_shape: 2"
    there = (
        f'type: "SpaceToBatchND" space_to_batch_nd_param {{ {blocks} paddings: 1 paddings: 0 paddings: 2 paddings: 0 }}'
    )
    back = f'type: "BatchToSpaceND" batch_to_space_nd_param {{ {blocks} crops: 1 crops: 0 crops: 2 crops: 0 }}'
    spread = run(tmp_path, there, x)
    assert spread.shape == (12, 2, 3, 3)
    padded = np.pad(x, ((0, 0), (1, 0), (2, 0), (0, 0)))
    np.testing.assert_array_equal(spread[2:4], padded[:, 0::3, 1::2])
    np.testing.assert_array_equal(run(tmp_path, back, spread), x)


def test_synopsys_reorg_takes_height_for_width(tmp_path: Path) -> None:
    x = counted(1, 4, 4, 6)
    reorg = 'type: "Reorg" reorg_param { stride: 2 }'
    turned = run(tmp_path, reorg, x.reshape(1, 4, 6, 4)).reshape(1, 16, 2, 3)
    np.testing.assert_array_equal(run(tmp_path, reorg, x, dialect="synopsys"), turned)


@pytest.mark.parametrize(
    ("layer", "shape", "complaint"),
    [
        ('type: "DepthToSpace"', (1, 4, 2, 2), "block_size is 0"),
        (
            'type: "DepthToSpace" depth_to_space_param { block_size: 2 data_format: "HWCN" }',
            (1, 4, 2, 2),
            "CRD was needed",
        ),
        ('type: "DepthToSpace" depth_to_space_param { block_size: 2 }', (1, 4, 2, 2), "a multiple of block_size² = 4"),
        ('type: "SpaceToDepth" space_to_depth_param { block_size: 2 }', (1, 3, 2, 2), "multiples of block_size 2"),
        ('type: "SpaceToBatchND" space_to_batch_nd_param { block_shape: 2 }', (1, 3, 2, 2), "0 paddings for 1 axes"),
        (
            'type: "BatchToSpaceND" batch_to_space_nd_param { block_shape: 2 crops: 0 crops: 0 }',
            (3, 3, 2),
            "a multiple",
        ),
        ('type: "Flip"', (3, 3), "N×C×H×W was needed"),
    ],
)
def test_refusals(tmp_path: Path, layer: str, shape: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match=complaint):
        run(tmp_path, layer, counted(*shape))


def test_synopsys_reorg_knows_stride_2_only(tmp_path: Path) -> None:
    with pytest.raises(caffeconv.CaffeconvError, match="dialect='synopsys'"):
        run(tmp_path, 'type: "Reorg" reorg_param { stride: 3 }', counted(1, 9, 3, 3), dialect="synopsys")
