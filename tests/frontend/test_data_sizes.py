"""What the fields of forks' data layers say of the size of their data."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffeconv.caffe_format.prototxt import read_prototxt
from caffeconv.frontend.data_sizes import item_shape
from caffeconv.frontend.netdef import define_net
from caffeconv.frontend.options import NetOptions


@pytest.mark.parametrize(
    ("kind", "fields", "shape"),
    [
        ("AnnotatedData", "transform_param { resize_param { height: 300 width: 320 } }", (1, 3, 300, 320)),
        ("AnnotatedData", "transform_param { resize_param { resize_mode: FIT_SMALL_SIZE height: 9 width: 9 } }", None),
        ("AnnotatedData", "data_param { batch_size: 4 }", None),
        ("DenseImageData", "dense_image_data_param { new_height: 6 new_width: 8 is_color: false }", (1, 1, 6, 8)),
        ("ImageSegData", "transform_param { crop_size: 5 } image_data_param { new_height: 9 new_width: 9 }", (1, 3, 5, 5)),
        ("ImageSegData", "transform_param { crop_height: 5 crop_width: 7 mean_value: 1 mean_value: 2 }", (1, 2, 5, 7)),
        ("ImageGtData", "image_gt_data_param { resize_width: 8 resize_height: 6 crop_width: 4 crop_height: 3 }", (1, 3, 3, 4)),
        ("VideoData", "video_data_param { new_length: 16 } transform_param { crop_size: 112 }", (1, 3, 16, 112, 112)),
        ("VideoData", "image_data_param { new_length: 8 crop_size: 9 new_height: 12 new_width: 17 }", (1, 3, 8, 9, 9)),
        (
            "VideoData",
            "video_data_param { new_length: 1 num_segments: 3 modality: RGB } transform_param { crop_size: 224 }",
            (1, 9, 224, 224),
        ),
        ("VideoData", "video_data_param { new_length: 5 num_segments: 3 } transform_param { crop_size: 4 }", (1, 30, 4, 4)),
        ("CPMData", "cpm_transform_param { crop_size_x: 368 crop_size_y: 184 }", (1, 3, 184, 368)),
        ("OthersData", "their_param { is_color: true height: 4 width: 3 }", (1, 3, 4, 3)),
    ],
)  # fmt: skip
def test_item_shape(tmp_path: Path, kind: str, fields: str, shape: tuple[int, ...] | None) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(f'layer {{ name: "d" type: "{kind}" top: "data" top: "label" {fields} }}')
    source = read_prototxt(path, ignore_unknown_fields=True)
    (layer,) = define_net(source, NetOptions(deploy=True)).layers
    assert item_shape(layer) == shape
