"""What is said of nets that cannot be built or do not take their weights: the exact text, and that the edits hold.

`python tests/inspection/test_diagnose.py` writes the texts again; read every line that changes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from support.databases import write_mean
from support.golden_cases import GOLDENS
from support.small_nets import net_text

import caffeconv
from caffeconv.caffe_pb2 import LayerParameter, NetParameter
from caffeconv.errors import InvalidNetError
from caffeconv.files.wire import encode_varint
from caffeconv.inspection.diagnose import THOROUGH
from caffeconv.inspection.diagnose.trial_net import Misfit, TrialNet
from caffeconv.ir.definition import LayerDef
from caffeconv.ir.layer import Layer
from caffeconv.tensor.shape import Shape

TEXTS = Path(__file__).parent / "diagnoses"
ERRORS = GOLDENS / "errors"
GOLDEN = [*sorted(path.name for path in ERRORS.glob("weights_*")), "fc6_after_padded_1x1"]
UNREADABLE = ("weights_file_missing", "weights_not_a_model", "weights_truncated")
Shapes = Mapping[str, Sequence[tuple[int, ...]]]


def conv(name: str, bottom: str, fields: str, kind: str = "Convolution") -> str:
    return (
        f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{name}" convolution_param {{ {fields} }} }}\n'
    )


def pool(name: str, bottom: str, fields: str) -> str:
    return f'layer {{ name: "{name}" type: "Pooling" bottom: "{bottom}" top: "{name}" pooling_param {{ {fields} }} }}\n'


def product(name: str, bottom: str, fields: str) -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" '
        f"inner_product_param {{ {fields} }} }}\n"
    )


def plain(name: str, kind: str, bottoms: str, fields: str = "") -> str:
    reads = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {reads} top: "{name}" {fields} }}\n'


IMAGES = 'type: "ImageData" image_data_param { source: "list.txt" batch_size: 2'
DETECTOR = {"data": (1, 3, 64, 96), "im_info": (1, 3)}


def regions(param_str: str, fields: str) -> str:
    """The end of a Faster R-CNN with a place every 16 pixels."""
    python = f'module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "{param_str}"'
    return (
        conv("conv", "data", "num_output: 6 kernel_size: 3 stride: 8 pad: 1")
        + pool("pool", "conv", "kernel_size: 2 stride: 2")
        + conv("score", "pool", "num_output: 18 kernel_size: 1")
        + conv("bbox", "pool", "num_output: 36 kernel_size: 1")
        + plain("rows", "Reshape", "score", "reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 0 } }")
        + plain("prob", "Softmax", "rows")
        + plain("places", "Reshape", "prob", "reshape_param { shape { dim: 0 dim: 18 dim: -1 dim: 0 } }")
        + plain("rois", "Python", "places bbox im_info", f"python_param {{ {python} }}")
        + plain("roi_pool", "ROIPooling", "pool rois", f"roi_pooling_param {{ pooled_w: 7 pooled_h: 7 {fields} }}")
    )


PICTURE = {"data": (1, 3, 32, 32)}
CONV1 = conv("conv1", "data", "num_output: 8 kernel_size: 3 pad: 1")
NET_32 = CONV1 + pool("pool1", "conv1", "kernel_size: 2 stride: 2")
DATA = (
    'layer { name: "data" type: "Data" top: "data" top: "label" transform_param { crop_size: %d } '
    'data_param { source: "train_lmdb" batch_size: 2 backend: LMDB } }\n'
)
INCEPTION = (
    conv("a", "data", "num_output: 8 kernel_size: 3 stride: 2 pad: 1")
    + conv("b1", "data", "num_output: 4 kernel_size: 1")
    + conv("b2", "b1", "num_output: 4 kernel_size: 3 %s")
    + plain("joined", "Concat", "a b2")
)
INCEPTION_WEIGHTS = {"a": [(8, 3, 3, 3), (8,)], "b1": [(4, 3, 1, 1), (4,)], "b2": [(4, 4, 3, 3), (4,)]}
BN = plain("bn1", "BatchNorm", "data")

SSD = (
    "".join(
        conv(f"{name}_loc", "data", f"num_output: 16 kernel_size: 3 stride: {stride} pad: 1")
        + conv(f"{name}_conf", "data", f"num_output: %(outputs)d kernel_size: 3 stride: {stride} pad: 1")
        + "".join(
            plain(f"{name}_{what}_perm", "Permute", f"{name}_{what}", "permute_param { order: [0, 2, 3, 1] }")
            + plain(f"{name}_{what}_flat", "Flatten", f"{name}_{what}_perm") for what in ("loc", "conf")
        )
        + plain(f"{name}_prior", "PriorBox", f"{name}_loc data",
                "prior_box_param { min_size: 8 max_size: 16 aspect_ratio: 2 flip: true variance: 0.1 }")
        for name, stride in (("a", 8), ("b", 16))
    )
    + plain("loc", "Concat", "a_loc_flat b_loc_flat") + plain("conf", "Concat", "a_conf_flat b_conf_flat")
    + plain("prior", "Concat", "a_prior b_prior", "concat_param { axis: 2 }")
    + plain("rows", "Reshape", "conf", "reshape_param { shape { dim: [0, -1, %(rows)d] } }")
    + plain("softmax", "Softmax", "rows", "softmax_param { axis: 2 }") + plain("flat", "Flatten", "softmax")
    + plain("detections", "DetectionOutput", "loc flat prior", "detection_output_param { num_classes: %(classes)d }")
)  # fmt: skip
CLASSES = {number: {"outputs": 4 * number, "rows": number, "classes": number} for number in (9, 21)}
SSD_WEIGHTS = {
    f"{name}_{what}": [(outputs, 3, 3, 3), (outputs,)] for name in "ab" for what, outputs in (("loc", 16), ("conf", 84))
}
SEGNET = (
    pool("pool1", "data", "kernel_size: 2 stride: 2").replace('top: "pool1"', 'top: "pool1" top: "mask1"')
    + pool("pool2", "pool1", "kernel_size: 2 stride: 2").replace('top: "pool2"', 'top: "pool2" top: "mask2"')
    + plain("up2", "Upsample", "pool2 mask2", "upsample_param { %s }")
    + plain("up1", "Upsample", "up2 mask1", "upsample_param { upsample_h: 118 upsample_w: 120 }")
)
RPN_PICTURE = {"data": (1, 3, 14, 14), "im_info": (1, 3)}
RPN = (
    conv("rpn_cls_score", "data", "num_output: %(scores)d kernel_size: 1")
    + conv("rpn_bbox_pred", "data", "num_output: %(offsets)d kernel_size: 1")
    + plain("pairs", "Reshape", "rpn_cls_score", "reshape_param { shape { dim: [0, 2, -1, 0] } }")
    + plain("rpn_cls_prob", "Softmax", "pairs")
    + plain("scores", "Reshape", "rpn_cls_prob", "reshape_param { shape { dim: [0, %(rows)d, -1, 0] } }")
    + plain(
        "rois",
        "Proposal",
        "scores rpn_bbox_pred im_info",
        "proposal_param { ratio: [0.5, 1, 2] scale: %(scales)s base_size: 16 feat_stride: 16 pre_nms_topn: 60 }",
    )
)
NINE = {"scores": 18, "offsets": 36, "rows": 18, "scales": "[8, 16, 32]"}
RPN_WEIGHTS = {number: {"rpn_cls_score": [(2 * number, 3, 1, 1), (2 * number,)],
                        "rpn_bbox_pred": [(4 * number, 3, 1, 1), (4 * number,)]} for number in (9, 12)}  # fmt: skip


@dataclass(frozen=True)
class Broken:
    """A net, the shapes in its weights file, and the net that this file carries."""

    inputs: Mapping[str, tuple[int, ...]]
    layers: str
    weights: Shapes = field(default_factory=dict)
    inside: str = ""
    legacy: bool = False
    """Whether the file is of the old form: num, channels, height, width in place of a shape."""

    def write(self, folder: Path) -> tuple[Path, Path | None]:
        net = folder / "net.prototxt"
        net.write_text(net_text(self.inputs, self.layers))
        if not self.weights:
            return net, None
        weights = folder / "weights.caffemodel"
        write_shapes(weights, self.weights, self.inside, legacy=self.legacy)
        return net, weights


def write_shapes(path: Path, weights: Shapes, inside: str = "", *, legacy: bool = False) -> None:
    """A caffemodel whose blobs are holes in the file: zeros that take no room."""
    net = NetParameter()
    text_format.Parse(inside, net)
    with path.open("wb") as file:
        heads = {layer.name: layer.SerializeToString() for layer in net.layer}
        file.write(NetParameter(name=net.name).SerializeToString())
        for name in dict.fromkeys((*heads, *weights)):
            head = heads.get(name) or LayerParameter(name=name).SerializeToString()
            shapes = weights.get(name, ())
            blobs = []
            for shape in shapes:
                count = 1
                for dim in shape:
                    count *= dim
                form = (old_form if legacy else new_form)(shape) + b"\x2a" + encode_varint(4 * count)
                blobs.append((b"\x3a" + encode_varint(len(form) + 4 * count) + form, 4 * count))
            size = len(head) + sum(len(front) + data for front, data in blobs)
            file.write(b"\xa2\x06" + encode_varint(size) + head)
            for front, data in blobs:
                file.write(front)
                file.seek(data, 1)
        file.truncate()


def new_form(shape: Sequence[int]) -> bytes:
    """`shape { dim: … }` of a BlobProto."""
    dims = b"".join(encode_varint(dim) for dim in shape)
    packed = b"\x0a" + encode_varint(len(dims)) + dims
    return b"\x3a" + encode_varint(len(packed)) + packed


def old_form(shape: Sequence[int]) -> bytes:
    """num, channels, height and width of a BlobProto, filled up with ones in front."""
    dims = (*(1,) * (4 - len(shape)), *shape)
    return b"".join(encode_varint(number << 3) + encode_varint(dim) for number, dim in enumerate(dims, 1))


CASES: dict[str, Broken] = {
    "resolution": Broken(
        PICTURE, NET_32 + product("fc", "pool1", "num_output: 10"),
        {"conv1": [(8, 3, 3, 3), (8,)], "fc": [(10, 1568), (10,)]},
    ),
    "resolution_known": Broken(
        PICTURE, NET_32 + product("fc", "pool1", "num_output: 10"),
        {"conv1": [(8, 3, 3, 3), (8,)], "fc": [(10, 1568), (10,)]},
        net_text({"data": (1, 3, 28, 28)}, NET_32 + product("fc", "pool1", "num_output: 10")),
    ),
    "stride": Broken(
        PICTURE, conv("conv1", "data", "num_output: 8 kernel_size: 3 pad: 1 stride: 2")
        + product("fc", "conv1", "num_output: 10"), {"conv1": [(8, 3, 3, 3), (8,)], "fc": [(10, 8192), (10,)]},
    ),
    "grey_picture": Broken(
        {"data": (1, 1, 28, 28)}, conv("conv1", "data", "num_output: 4 kernel_size: 5"), {"conv1": [(4, 3, 5, 5), (4,)]}
    ),
    "group_missing": Broken(
        {"data": (1, 8, 8, 8)}, conv("conv2", "data", "num_output: 4 kernel_size: 3"), {"conv2": [(4, 4, 3, 3), (4,)]}
    ),
    "group_surplus": Broken(
        {"data": (1, 8, 8, 8)}, conv("conv2", "data", "num_output: 4 kernel_size: 3 group: 2"),
        {"conv2": [(4, 8, 3, 3), (4,)]},
    ),
    "transposed": Broken(
        {"data": (1, 6)}, product("fc", "data", "num_output: 4"), {"fc": [(6, 4), (4,)]}
    ),
    "bias_surplus": Broken(
        PICTURE, conv("conv1", "data", "num_output: 8 kernel_size: 3 bias_term: false"), {"conv1": [(8, 3, 3, 3), (8,)]}
    ),
    "scale_bias": Broken(
        PICTURE, BN + plain("scale1", "Scale", "bn1"), {"bn1": [(3,), (3,), (1,)], "scale1": [(3,), (3,)]}
    ),
    "batch_norm_without_scale": Broken(
        PICTURE, BN, {"bn1": [(3,), (3,), (1,)], "scale1": [(3,), (3,)]},
        net_text(PICTURE, BN + plain("scale1", "Scale", "bn1", "scale_param { bias_term: true }")),
    ),
    "batch_norm_of_nvidia": Broken(PICTURE, BN, {"bn1": [(3,), (3,), (1,), (3,), (3,)]}),
    "product_for_convolution": Broken(
        {"data": (1, 4, 6, 6)}, conv("fc6", "data", "num_output: 5 kernel_size: 6"), {"fc6": [(5, 144), (5,)]}
    ),
    "names": Broken(
        PICTURE, conv("conv1_1", "data", "num_output: 4 kernel_size: 3")
        + conv("conv1_2", "conv1_1", "num_output: 4 kernel_size: 3"),
        {"conv1-1": [(4, 3, 3, 3), (4,)], "conv1-2": [(4, 4, 3, 3), (4,)]},
    ),
    "two_mistakes": Broken(
        PICTURE, conv("conv1", "data", "num_output: 16 kernel_size: 3")
        + conv("conv2", "conv1", "num_output: 4 kernel_size: 5"),
        {"conv1": [(8, 3, 3, 3), (8,)], "conv2": [(4, 8, 3, 3), (4,)]},
    ),
    "another_net": Broken(
        PICTURE, NET_32 + conv("conv2", "pool1", "num_output: 8 kernel_size: 3")
        + product("fc", "conv2", "num_output: 10"),
        {"conv1": [(96, 3, 11, 11), (96,)], "conv2": [(256, 48, 5, 5), (256,)], "fc": [(4096, 9216), (4096,)]},
        'name: "AlexNet"' + net_text({"data": (1, 3, 227, 227)}, ""),
    ),
    "concat_of_unequal_heights": Broken(
        {"data": (1, 3, 28, 28)}, conv("conv1", "data", "num_output: 8 kernel_size: 3 stride: 2")
        + pool("pool1", "data", "kernel_size: 3 stride: 2") + plain("joined", "Concat", "conv1 pool1"),
    ),
    "eltwise_in_an_encoder_decoder": Broken(
        {"data": (1, 3, 30, 30)}, conv("down1", "data", "num_output: 8 kernel_size: 3 stride: 2 pad: 1")
        + conv("down2", "down1", "num_output: 8 kernel_size: 3 stride: 2 pad: 1")
        + conv("up", "down2", "num_output: 8 kernel_size: 2 stride: 2", "Deconvolution")
        + plain("sum", "Eltwise", "down1 up"),
    ),
    "crop": Broken(
        {"data": (1, 3, 20, 20)}, conv("down", "data", "num_output: 8 kernel_size: 3 stride: 2")
        + conv("up", "down", "num_output: 8 kernel_size: 2 stride: 2", "Deconvolution")
        + plain("crop", "Crop", "up data", "crop_param { axis: 2 }"),
    ),
    "slice_point": Broken(
        {"data": (1, 48, 4, 4)},
        'layer { name: "s" type: "Slice" bottom: "data" top: "a" top: "b" slice_param { slice_point: 64 } }',
    ),
    "reshape_count": Broken(
        {"data": (1, 48, 4, 5)}, plain("r", "Reshape", "data", "reshape_param { shape { dim: 0 dim: 48 dim: 16 } }")
    ),
    "pooling_5d": Broken({"data": (1, 2, 3, 4, 6)}, pool("p", "data", "kernel_size: 2")),
    "infogain_labels": Broken(
        {"x": (2, 4, 5, 5), "label": (2, 1, 5, 4), "H": (1, 1, 3, 3)}, plain("loss", "InfogainLoss", "x label H")
    ),
    "training_net": Broken(
        {}, 'layer { name: "data" type: "Data" top: "data" top: "label" data_param { source: "x" batch_size: 3 } }\n'
        + conv("conv1", "data", "num_output: 4 kernel_size: 3"), {"conv1": [(4, 3, 3, 3), (4,)]},
    ),
    "training_net_of_a_known_size": Broken(
        {}, 'layer { name: "data" type: "Data" top: "data" top: "label" data_param { source: "x" batch_size: 3 } }\n'
        + conv("conv1", "data", "num_output: 4 kernel_size: 11 stride: 4") + product("fc", "conv1", "num_output: 5")
        + plain("loss", "SoftmaxWithLoss", "fc label"),
        {"conv1": [(4, 3, 11, 11), (4,)], "fc": [(5, 4 * 55 * 55), (5,)]},
    ),
    "residual_sum": Broken(
        PICTURE, conv("a", "data", "num_output: 8 kernel_size: 3 pad: 1 stride: 2")
        + conv("b", "data", "num_output: 8 kernel_size: 1") + plain("sum", "Eltwise", "a b"),
        {"a": [(8, 3, 3, 3), (8,)], "b": [(8, 3, 1, 1), (8,)]},
    ),
    "two_inputs_together": Broken(
        {"left": (1, 3, 32, 32), "right": (1, 3, 32, 32)}, plain("both", "Concat", "left right")
        + conv("conv1", "both", "num_output: 8 kernel_size: 3 pad: 1") + product("fc", "conv1", "num_output: 10"),
        {"conv1": [(8, 6, 3, 3), (8,)], "fc": [(10, 8 * 28 * 28), (10,)]},
    ),
    "summands_together": Broken(
        PICTURE, conv("a", "data", "num_output: 8 kernel_size: 3 pad: 1")
        + conv("b", "data", "num_output: 8 kernel_size: 1") + plain("sum", "Eltwise", "a b")
        + plain("relu", "ReLU", "sum") + conv("c", "relu", "num_output: 4 kernel_size: 3"),
        {"c": [(4, 16, 3, 3), (4,)]},
    ),
    "branches_together": Broken(
        PICTURE, conv("a", "data", "num_output: 8 kernel_size: 3 pad: 1 stride: 2")
        + pool("b", "data", "kernel_size: 3 pad: 1 stride: 2 round_mode: FLOOR") + plain("joined", "Concat", "a b")
        + product("fc", "joined", "num_output: 10"),
        {"a": [(8, 3, 3, 3), (8,)], "fc": [(10, 11 * 32 * 32), (10,)]},
    ),
    "second_branch": Broken(
        PICTURE, INCEPTION % "stride: 2" + product("fc", "joined", "num_output: 10"),
        {**INCEPTION_WEIGHTS, "fc": [(10, 12 * 16 * 16), (10,)]},
        net_text(PICTURE, INCEPTION % "stride: 2 pad: 1" + product("fc", "joined", "num_output: 10")),
    ),
    "second_branch_of_other_channels": Broken(
        PICTURE, INCEPTION % "stride: 2 pad: 1" + product("fc", "joined", "num_output: 10"),
        {**INCEPTION_WEIGHTS, "b2": [(8, 4, 3, 3), (8,)], "fc": [(10, 16 * 16 * 16), (10,)]},
        net_text(PICTURE, (INCEPTION % "stride: 2 pad: 1").replace("4 kernel_size: 3", "8 kernel_size: 3")
                 + product("fc", "joined", "num_output: 10")),
    ),
    "crop_size": Broken(
        {}, DATA % 32 + NET_32 + product("fc", "pool1", "num_output: 10"),
        {"conv1": [(8, 3, 3, 3), (8,)], "fc": [(10, 1568), (10,)]},
    ),
    "crop_size_in_the_file": Broken(
        PICTURE, NET_32 + product("fc", "pool1", "num_output: 10"),
        {"conv1": [(8, 3, 3, 3), (8,)], "fc": [(10, 1568), (10,)]},
        DATA % 28 + NET_32 + product("fc", "pool1", "num_output: 10"),
    ),
    "resolution_of_alexnet": Broken(
        {"data": (1, 3, 32, 32)}, conv("conv1", "data", "num_output: 8 kernel_size: 11 stride: 4")
        + pool("pool1", "conv1", "kernel_size: 3 stride: 2") + pool("pool2", "pool1", "kernel_size: 3 stride: 2")
        + pool("pool5", "pool2", "kernel_size: 3 stride: 2")
        + product("fc6", "pool5", "num_output: 10"), {"conv1": [(8, 3, 11, 11), (8,)], "fc6": [(10, 8 * 6 * 6), (10,)]},
    ),
    "resolution_of_a_portrait": Broken(
        PICTURE, NET_32 + pool("pool2", "pool1", "kernel_size: 2 stride: 2") + product("fc", "pool2", "num_output: 10"),
        {"conv1": [(8, 3, 3, 3), (8,)], "fc": [(10, 8 * 28 * 24), (10,)]},
    ),
    "new_height_of_a_list_of_pictures": Broken(
        {}, 'layer { name: "data" type: "ImageData" top: "data" top: "label" image_data_param { source: "a.txt" '
        "new_height: 32 new_width: 32 batch_size: 2 } }" + NET_32 + product("fc", "pool1", "num_output: 10"),
        {"conv1": [(8, 3, 3, 3), (8,)], "fc": [(10, 1568), (10,)]},
    ),
    "grey_pictures_of_a_list": Broken(
        {}, 'layer { name: "data" type: "ImageData" top: "data" top: "label" image_data_param { source: "a.txt" '
        "is_color: false new_height: 32 new_width: 32 batch_size: 2 } }" + NET_32, {"conv1": [(8, 3, 3, 3), (8,)]},
    ),
    "size_of_memory_data": Broken(
        {}, 'layer { name: "data" type: "MemoryData" top: "data" top: "label" memory_data_param { batch_size: 1 channels: 1 '
        "height: 32 width: 32 } }" + NET_32 + product("fc", "pool1", "num_output: 10"),
        {"conv1": [(8, 3, 3, 3), (8,)], "fc": [(10, 1568), (10,)]},
    ),
    "size_of_dummy_data": Broken(
        {}, 'layer { name: "data" type: "DummyData" top: "data" dummy_data_param { num: 1 channels: 3 height: 32 width: 32 } }'
        + NET_32 + product("fc", "pool1", "num_output: 10"),
        {"conv1": [(8, 3, 3, 3), (8,)], "fc": [(10, 1568), (10,)]},
    ),
    "convolution_for_product": Broken(
        {"pool5": (1, 512, 7, 7)}, product("fc6", "pool5", "num_output: 4096")
        + product("fc7", "fc6", "num_output: 4096"),
        {"fc6": [(4096, 512, 7, 7), (4096,)], "fc7": [(4096, 4096), (4096,)]},
    ),
    "fully_convolutional_weights": Broken(
        {"pool5": (1, 512, 7, 7)}, product("fc6", "pool5", "num_output: 64") + plain("relu6", "ReLU", "fc6")
        + product("fc7", "relu6", "num_output: 32"),
        {"fc6": [(64, 512, 7, 7), (64,)], "fc7": [(32, 64, 1, 1), (32,)]},
    ),
    "infogain_h_size": Broken(
        {"data": (2, 3, 5, 5), "label": (2, 1, 5, 5), "H": (1, 1, 3, 3)},
        conv("score", "data", "num_output: 4 kernel_size: 1") + plain("loss", "InfogainLoss", "score label H"),
    ),
    "softmax_labels": Broken(
        {"data": (2, 3, 8, 8), "label": (2, 1, 8, 8)},
        conv("score", "data", "num_output: 4 kernel_size: 3") + plain("loss", "SoftmaxWithLoss", "score label"),
    ),
    "pooling_5d_with_weights": Broken(
        {"data": (1, 2, 3, 4, 6)}, pool("p", "data", "kernel_size: 2 stride: 2") + plain("relu", "ReLU", "p")
        + product("fc", "relu", "num_output: 6"), {"fc": [(5, 2 * 3 * 2 * 3), (5,)]},
    ),
    "batch_norm_without_scale_by_its_blobs": Broken(
        PICTURE, CONV1 + plain("bn_conv1", "BatchNorm", "conv1") + plain("relu1", "ReLU", "bn_conv1")
        + conv("conv2", "relu1", "num_output: 8 kernel_size: 3") + plain("bn_conv2", "BatchNorm", "conv2"),
        {"conv1": [(8, 3, 3, 3), (8,)], "bn_conv1": [(8,), (8,), (1,)], "scale_conv1": [(8,), (8,)],
         "conv2": [(8, 8, 3, 3), (8,)], "bn_conv2": [(8,), (8,), (1,)], "scale_conv2": [(8,), (8,)]},
    ),
    "slice_for_weights": Broken(
        {"data": (1, 48, 4, 4)},
        'layer { name: "s" type: "Slice" bottom: "data" top: "a" top: "b" }\n'
        + conv("left", "a", "num_output: 4 kernel_size: 1") + conv("right", "b", "num_output: 4 kernel_size: 1"),
        {"left": [(4, 32, 1, 1), (4,)], "right": [(4, 16, 1, 1), (4,)]},
    ),
    "reshape_of_another_size": Broken(
        {"data": (1, 3, 32, 32)}, CONV1
        + plain("rows", "Reshape", "conv1", "reshape_param { shape { dim: 0 dim: 8 dim: 784 } }"),
        {"conv1": [(8, 3, 3, 3), (8,)]},
    ),
    "unknown_bottom": Broken(
        PICTURE, CONV1 + product("fc", "conv_1", "num_output: 4") + product("other", "conv1", "num_output: 4"),
        {"conv1": [(8, 3, 5, 5), (8,)], "fc": [(4, 8192), (4,)], "other": [(4, 8192), (4,)]},
    ),
    "unknown_bottom_unlike_any": Broken(
        PICTURE, CONV1 + product("fc", "features", "num_output: 4"), {"conv1": [(8, 3, 5, 5), (8,)]},
    ),
    "softmax_with_the_label_of_its_loss": Broken(
        {"data": (1, 8)}, product("fc", "data", "num_output: 4") + plain("prob", "Softmax", "fc label"),
    ),
    "top_made_twice": Broken(
        PICTURE, CONV1 + pool("pool1", "conv1", "kernel_size: 2 stride: 2")
        + plain("relu", "ReLU", "pool1").replace('top: "relu"', 'top: "conv1"'), {"conv1": [(8, 3, 5, 5), (8,)]},
    ),
    "roi_pooling": Broken(
        {"conv5": (1, 16, 14, 14), "rois": (3, 5)},
        plain("pool5", "ROIPooling", "conv5 rois", "roi_pooling_param { pooled_h: 6 pooled_w: 6 spatial_scale: 0.0625 }")
        + product("fc6", "pool5", "num_output: 8"), {"fc6": [(8, 16 * 7 * 7), (8,)]},
    ),
    "upsampled_to_another_size": Broken(
        {"data": (1, 8, 45, 60)}, pool("pool", "data", "kernel_size: 2 stride: 2")
        + plain("up", "Interp", "pool", "interp_param { height: 46 width: 60 }") + plain("sum", "Eltwise", "up data"),
    ),
    "whole_file_renamed": Broken(
        PICTURE, NET_32 + product("ip", "pool1", "num_output: 4") + product("score", "ip", "num_output: 2"),
        {"features": [(8, 3, 3, 3), (8,)], "hidden": [(4, 2048), (4,)], "classes": [(2, 4), (2,)]},
    ),
    "whole_file_renamed_but_one_layer": Broken(
        PICTURE, NET_32 + product("ip", "pool1", "num_output: 4"), {"features": [(8, 3, 3, 3), (8,)]}
    ),
    "scale_bias_for_a_layer_of_its_own": Broken(
        PICTURE, plain("bn1", "BatchNorm", "data", "batch_norm_param { scale_bias: true }"),
        {"bn1": [(3,), (3,), (1,)], "scale1": [(3,), (3,)]},
    ),
    "layer_of_its_own_for_scale_bias": Broken(
        PICTURE, BN + plain("scale1", "Scale", "bn1", "scale_param { bias_term: true }") + plain("relu", "ReLU", "scale1"),
        {"bn1": [(3,), (3,), (1,), (3,), (3,)]},
    ),
    "grouped_weights_for_a_dense_layer": Broken(
        {"data": (1, 8, 8, 8)}, conv("conv2", "data", "num_output: 4 kernel_size: 3"), {"conv2": [(4, 2, 3, 3), (4,)]}
    ),
    "classes_of_an_ssd": Broken(PICTURE, SSD % CLASSES[9], SSD_WEIGHTS),
    "classes_of_rows_and_detections": Broken(
        PICTURE,
        (SSD % CLASSES[21]).replace("dim: [0, -1, 21]", "dim: [0, -1, 5]").replace("num_classes: 21", "num_classes: 5"),
        SSD_WEIGHTS,
    ),
    "classes_of_detections_alone": Broken(PICTURE, SSD % {**CLASSES[21], "classes": 9}, SSD_WEIGHTS),
    "ratios_of_prior_boxes": Broken(
        PICTURE, (SSD % CLASSES[21]).replace("aspect_ratio: 2", "aspect_ratio: [2, 3]", 1), SSD_WEIGHTS
    ),
    "ratios_of_all_prior_boxes": Broken(
        PICTURE, (SSD % CLASSES[21]).replace("aspect_ratio: 2", "aspect_ratio: [2, 3]"), SSD_WEIGHTS
    ),
    "prior_boxes_that_are_not_flipped": Broken(
        PICTURE, (SSD % CLASSES[21]).replace("flip: true", "flip: false"), SSD_WEIGHTS
    ),
    "two_sizes_of_prior_boxes": Broken(
        PICTURE, (SSD % CLASSES[21]).replace("min_size: 8 max_size: 16", "min_size: [8, 12] max_size: [16, 20]"), SSD_WEIGHTS
    ),
    "prior_boxes_without_a_size": Broken(PICTURE, (SSD % CLASSES[21]).replace("max_size: 16 ", ""), SSD_WEIGHTS),
    "six_boxes_in_the_file": Broken(
        PICTURE, SSD % CLASSES[21],
        {f"{name}_{what}": [(outputs, 3, 3, 3), (outputs,)] for name in "ab" for what, outputs in (("loc", 24), ("conf", 126))},
    ),
    "anchors_of_the_file": Broken(RPN_PICTURE, RPN % NINE, RPN_WEIGHTS[12]),
    "anchors_of_the_proposals_alone": Broken(RPN_PICTURE, RPN % {**NINE, "scales": "[4, 8, 16, 32]"}, RPN_WEIGHTS[9]),
    "anchors_of_a_python_proposal": Broken(
        RPN_PICTURE,
        (RPN % NINE).partition('layer { name: "rois"')[0]
        + 'layer { name: "rois" type: "Python" bottom: "scores" bottom: "rpn_bbox_pred" bottom: "im_info" top: "rois" '
        """python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "'feat_stride': 16" } }\n""",
        RPN_WEIGHTS[12],
    ),
    "anchors_of_the_reshape_alone": Broken(RPN_PICTURE, RPN % {**NINE, "rows": 24}, RPN_WEIGHTS[9]),
    "classes_of_faster_rcnn": Broken(
        {"pool5": (5, 8, 3, 3)}, product("cls_score", "pool5", "num_output: 2")
        + product("bbox_pred", "pool5", "num_output: 8") + plain("prob", "Softmax", "cls_score")
        + plain("reshaped", "Reshape", "prob", "reshape_param { shape { dim: -1 dim: 2 } }"),
        {"cls_score": [(21, 72), (21,)], "bbox_pred": [(84, 72), (84,)]},
    ),
    "classes_of_an_rfcn": Broken(
        {"conv": (1, 8, 14, 14), "rois": (2, 5)}, conv("rfcn_cls", "conv", "num_output: 36 kernel_size: 1")
        + plain("psroi", "PSROIPooling", "rfcn_cls rois",
                "psroi_pooling_param { spatial_scale: 0.0625 output_dim: 4 group_size: 3 }")
        + pool("average", "psroi", "pool: AVE kernel_size: 3"), {"rfcn_cls": [(63, 8, 1, 1), (63,)]},
    ),
    "classes_of_an_fcn": Broken(
        {"pool4": (1, 8, 8, 8), "fc7": (1, 16, 4, 4)}, conv("score_fr", "fc7", "num_output: 5 kernel_size: 1")
        + conv("upscore2", "score_fr", "num_output: 5 kernel_size: 4 stride: 2 pad: 1 bias_term: false", "Deconvolution")
        + conv("score_pool4", "pool4", "num_output: 5 kernel_size: 1") + plain("fuse", "Eltwise", "upscore2 score_pool4")
        + conv("upscore", "fuse", "num_output: 5 group: 5 kernel_size: 4 stride: 2 pad: 1", "Deconvolution"),
        {"score_fr": [(21, 16, 1, 1), (21,)], "upscore2": [(21, 21, 4, 4)], "score_pool4": [(21, 8, 1, 1), (21,)]},
    ),
    "upsample_of_the_wrong_size": Broken({"data": (1, 3, 118, 120)}, SEGNET % "upsample_h: 30 upsample_w: 30"),
    "upsample_by_scale_of_an_odd_size": Broken({"data": (1, 3, 118, 120)}, SEGNET % "scale: 2"),
    "module_that_is_missing": Broken(
        {"data": (1, 3, 65, 96)}, conv("a", "data", "num_output: 6 kernel_size: 3 pad: 1 stride: 16")
        + pool("b", "data", "kernel_size: 3 pad: 1 stride: 16")
        + plain("p", "Python", "a b", 'python_param { module: "a_module_that_nobody_has" layer: "Layer" }'),
    ),
    "one_hot_labels": Broken(
        {"data": (2, 6), "label": (2, 5)}, product("fc", "data", "num_output: 5") + plain("loss", "SoftmaxWithLoss", "fc label")
    ),
    "one_hot_labels_of_a_loss_and_its_accuracy": Broken(
        {"data": (2, 3, 6, 6), "label": (2, 5, 6, 6)}, conv("score", "data", "num_output: 5 kernel_size: 1")
        + plain("loss", "SoftmaxWithLoss", "score label") + plain("accuracy", "Accuracy", "score label"),
    ),
    "a_label_for_each_loss": Broken(
        {"data": (2, 6), "label": (2, 2)}, product("a", "data", "num_output: 5") + product("b", "data", "num_output: 3")
        + plain("loss_a", "SoftmaxWithLoss", "a label") + plain("loss_b", "SoftmaxWithLoss", "b label")
        + plain("accuracy_b", "Accuracy", "b label"),
    ),
    "a_target_for_each_loss": Broken(
        {"data": (2, 6), "label": (2, 2), "label_1": (1,)}, product("a", "data", "num_output: 1")
        + product("b", "data", "num_output: 1") + plain("x", "EuclideanLoss", "a label")
        + plain("y", "EuclideanLoss", "b label"),
    ),
    "label_before_its_scores": Broken(
        {"data": (4, 6), "label": (4,)}, product("fc", "data", "num_output: 5") + plain("loss", "SoftmaxWithLoss", "label fc")
    ),
    "picture_before_what_is_cropped": Broken(
        {"data": (1, 3, 32, 32)}, conv("up", "data", "num_output: 3 kernel_size: 4 stride: 2", "Deconvolution")
        + plain("crop", "Crop", "data up"),
    ),
    "axis_of_a_concat": Broken({"a": (4, 8), "b": (4, 6)}, plain("c", "Concat", "a b", "concat_param { axis: 0 }")),
    "rows_of_an_embed": Broken(
        {"data": (1, 6)}, plain("e", "Embed", "data", "embed_param { num_output: 10 input_dim: 100 }"),
        {"e": [(120, 10), (10,)]},
    ),
    "kernel_of_one_side": Broken({"data": (1, 3, 32, 32)}, conv("c", "data", "num_output: 4 kernel_h: 3")),
    "kernel_in_two_forms": Broken(
        {"data": (1, 3, 32, 32)}, conv("c", "data", "num_output: 4 kernel_size: 3 kernel_h: 5 kernel_w: 1")
    ),
    "norms_merged_in_the_file": Broken(
        PICTURE,
        conv("c", "data", "num_output: 4 kernel_size: 3 bias_term: false") + plain("bn", "BatchNorm", "c")
        + plain("sc", "Scale", "bn", "scale_param { bias_term: true }") + plain("r", "ReLU", "sc"),
        {"c": [(4, 3, 3, 3), (4,)]},
    ),
    "norms_merged_in_the_net": Broken(
        PICTURE, conv("c", "data", "num_output: 4 kernel_size: 3") + plain("r", "ReLU", "c"),
        {"c": [(4, 3, 3, 3)], "bn": [(4,), (4,), (1,)], "sc": [(4,), (4,)]},
    ),
    "a_scale_for_each_channel": Broken(
        PICTURE, conv("c", "data", "num_output: 4 kernel_size: 3") + plain("n", "Normalize", "c"),
        {"c": [(4, 3, 3, 3), (4,)], "n": [(4,)]},
    ),
    "proposals_without_stride": Broken(DETECTOR, regions("", "spatial_scale: 0.0625")),
    "proposals_of_another_stride": Broken(DETECTOR, regions("{'feat_stride': 8}", "spatial_scale: 0.0625")),
    "regions_without_scale": Broken(DETECTOR, regions("'scales': [8, 16, 32]", "")),
    "labels_of_a_colour_picture": Broken(
        {"data": (2, 3, 6, 6), "label": (2, 3, 6, 6)}, conv("score", "data", "num_output: 5 kernel_size: 1")
        + plain("loss", "SoftmaxWithLoss", "score label"),
    ),
    "class_numbers_for_a_target_each": Broken(
        {"data": (2, 6), "label": (2, 1)},
        product("fc", "data", "num_output: 5") + plain("loss", "SigmoidCrossEntropyLoss", "fc label"),
    ),
    "gates_of_an_lstm": Broken(
        {"x": (4, 1, 10), "cont": (4, 1)}, plain("lstm", "LSTM", "x cont", "recurrent_param { num_output: 6 }"),
        {"lstm": [(32, 10), (32,), (32, 8)]},
    ),
    "inputs_of_an_lstm": Broken(
        {"x": (4, 1, 10), "cont": (4, 1)}, plain("lstm", "LSTM", "x cont", "recurrent_param { num_output: 8 }"),
        {"lstm": [(32, 12), (32,), (32, 8)]},
    ),
    "pictures_with_channels_last": Broken(
        {"data": (1, 32, 32, 3)}, NET_32 + product("fc", "pool1", "num_output: 10"),
        {"conv1": [(8, 3, 3, 3), (8,)], "fc": [(10, 2048), (10,)]},
    ),
    "picture_without_a_batch": Broken({"data": (3, 32, 32)}, NET_32, {"conv1": [(8, 3, 3, 3), (8,)]}),
    "permuted_the_wrong_way": Broken(
        {"data": (1, 32, 32, 3)}, plain("p", "Permute", "data", "permute_param { order: [0, 2, 3, 1] }")
        + conv("conv1", "p", "num_output: 8 kernel_size: 5"), {"conv1": [(8, 3, 5, 5), (8,)]},
    ),
    "padding_of_one_axis": Broken({"data": (1, 3, 8, 8)}, pool("p", "data", "kernel_size: 3 pad_h: 1")),
    "stride_in_two_forms": Broken(
        {"data": (1, 3, 8, 8)}, pool("p", "data", "kernel_size: 2 stride: 2 stride_h: 1 stride_w: 1")
    ),
    "too_high_a_pyramid": Broken({"data": (1, 1, 9, 9)}, plain("s", "SPP", "data", "spp_param { pyramid_height: 4 }")),
    "slopes_for_a_relu": Broken(
        PICTURE, CONV1 + plain("relu1", "ReLU", "conv1"), {"conv1": [(8, 3, 3, 3), (8,)], "relu1": [(8,)]}
    ),
    "more_best_scores_than_classes": Broken(
        {"score": (4, 3), "label": (4,)}, plain("accuracy", "Accuracy", "score label", "accuracy_param { top_k: 5 }")
    ),
    "targets_of_a_regression": Broken(
        {"data": (2, 6), "label": (2, 1)}, product("fc", "data", "num_output: 3") + plain("loss", "EuclideanLoss", "fc label"),
    ),
    "pairs_with_two_labels": Broken(
        {"a": (4, 8), "b": (4, 8), "similar": (4, 2)}, plain("loss", "ContrastiveLoss", "a b similar")
    ),
    "two_layers_under_other_names": Broken(
        PICTURE, NET_32 + conv("conv2", "pool1", "num_output: 4 kernel_size: 1") + product("fc", "conv2", "num_output: 2"),
        {"c1": [(8, 3, 3, 3), (8,)], "c2": [(4, 8, 1, 1), (4,)], "fc": [(2, 1024), (2,)]},
    ),
    "priors_without_max_size": Broken(
        {"data": (1, 3, 32, 32), "other": (1, 3, 4, 4)}, conv("loc", "data", "num_output: 16 kernel_size: 1")
        + conv("conf", "data", "num_output: 8 kernel_size: 1")
        + "".join(plain(f"{n}_perm", "Permute", n, "permute_param { order: [0, 2, 3, 1] }")
                  + plain(f"{n}_flat", "Flatten", f"{n}_perm") for n in ("loc", "conf"))
        + plain("prior", "PriorBox", "data data", "prior_box_param { min_size: 8 aspect_ratio: 2 flip: true }")
        + plain("next", "PriorBox", "other data", "prior_box_param { min_size: 20 }")
        + plain("out", "DetectionOutput", "loc_flat conf_flat prior", "detection_output_param { num_classes: 2 }"),
    ),
    "weights_of_another_type": Broken(
        {"data": (1, 8, 4, 4)}, plain("scale", "Bias", "data"), {"scale": [(8,)]},
        net_text({"data": (1, 8, 4, 4)}, plain("scale", "Scale", "data")),
    ),
    "nothing_in_common": Broken(
        PICTURE, NET_32, {"block1": [(64, 3, 7, 7), (64,)], "block2": [(64, 64, 3, 3)]},
        'name: "Other"' + net_text(PICTURE, ""),
    ),
    "legacy_resolution": Broken(
        PICTURE, NET_32 + product("fc", "pool1", "num_output: 10"),
        {"conv1": [(8, 3, 3, 3), (8,)], "fc": [(10, 1568), (10,)]}, legacy=True,
    ),
    "leading_ones": Broken(
        {"data": (1, 6)}, product("fc", "data", "num_output: 4"), {"fc": [(1, 1, 4, 6), (1, 1, 1, 4)]}
    ),
    "skip_with_crop": Broken(
        {"data": (1, 3, 32, 32)}, conv("down", "data", "num_output: 8 kernel_size: 3 stride: 2 pad: 1")
        + conv("up", "down", "num_output: 3 kernel_size: 4 stride: 2 pad: 1", "Deconvolution")
        + plain("crop", "Crop", "up data", "crop_param { axis: 2 offset: 5 }"),
    ),
}  # fmt: skip


def told(net: Path, weights: Path | None) -> str:
    """Everything that inspect says but for notes, with the folder left out."""
    report = caffeconv.inspect(net, weights)
    lines = [f"{d.severity}: {d}" for d in report.diagnostics if d.severity != "note"]
    text = "\n".join([*lines, report.advice]).rstrip() + "\n"
    return text.replace(f"{net.parent}/", "").replace(str(Path.cwd()), "FOLDER")


def golden_files(name: str) -> tuple[Path, Path]:
    folder = ERRORS / name
    return folder / "net.prototxt", next(folder.glob("weights.caffemodel*"))


def assert_mended(net: Path, weights: Path | None, folder: Path) -> None:
    """Every edit that is offered makes the net fit, by what `--fix` would write and inspect would say of it."""
    report = caffeconv.inspect(net, weights)
    if report.fixed is None:
        assert not report.cures
        return
    fixed = folder / "fixed.prototxt"
    fixed.write_text(report.fixed_text)
    again = caffeconv.inspect(fixed, weights)
    assert again.ok, again.diagnostics
    assert again.advice == ""


@pytest.mark.parametrize("name", [name for name in GOLDEN if name not in UNREADABLE])
def test_golden_text(name: str) -> None:
    assert told(*golden_files(name)) == (TEXTS / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", [name for name in GOLDEN if name not in (*UNREADABLE, "weights_layer_without_blobs")])
def test_golden_mended(name: str, tmp_path: Path) -> None:
    net, weights = golden_files(name)
    report = caffeconv.inspect(net, weights)
    assert report.cures or name == "weights_blob_too_short"
    assert_mended(net, weights, tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_text(name: str, tmp_path: Path) -> None:
    net, weights = CASES[name].write(tmp_path)
    assert told(net, weights) == (TEXTS / f"{name}.txt").read_text()
    assert_mended(net, weights, tmp_path)


def true_size(folder: Path) -> tuple[Path, Path]:
    """The fc6 case at true size; the weights as an old file has them: 1×1×4096×25088."""
    weights = folder / "weights.caffemodel"
    write_shapes(weights, {"fc6": [(4096, 25088), (4096,)]}, legacy=True)
    return ERRORS / "fc6_after_padded_1x1_true_size" / "net.prototxt", weights


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The layers that are evaluated, one entry each: what the search costs on any machine."""
    calls: list[int] = []
    evaluate = TrialNet.evaluate

    def counted(
        self: TrialNet, index: int, definition: LayerDef, layer: Layer | None, changed: Mapping[str, Shape | None]
    ) -> tuple[Layer | None, Mapping[str, Shape | None], Misfit | None]:
        calls.append(index)
        return evaluate(self, index, definition, layer, changed)

    monkeypatch.setattr(TrialNet, "evaluate", counted)
    return calls


def test_fc6_at_true_size(tmp_path: Path, evaluated: list[int]) -> None:
    net, weights = true_size(tmp_path)
    text = told(net, weights).replace(f"{tmp_path}/", "")
    assert text == (TEXTS / "fc6_at_true_size.txt").read_text()
    assert "Source param shape is 1 1 4096 25088 (102760448); target param shape is 4096 10368 (42467328)" in text
    assert "reduce { pad: 1 → 0, num_output: 128 → 512 }" in text
    assert len(evaluated) < THOROUGH / 10
    assert_mended(net, weights, tmp_path)


def test_the_same_in_what_convert_raises(tmp_path: Path) -> None:
    with pytest.raises(InvalidNetError, match="Cannot copy param 0 weights from layer 'fc6'") as raised:
        caffeconv.convert(*golden_files("fc6_after_padded_1x1"))
    assert str(raised.value).startswith("fc6 (InnerProduct), line 33")
    assert "784 = 16×7×7" in str(raised.value)
    assert "1. reduce { pad: 1 → 0, num_output: 4 → 16 }" in str(raised.value)


def test_all_problems_at_once(tmp_path: Path) -> None:
    layers = conv("a", "data", "num_output: 8 kernel_size: 3") + plain("b", "Softmaxx", "data")
    net, weights = Broken(PICTURE, layers + conv("c", "a", "num_output: 2 kernel_size: 1"), {
        "a": [(4, 3, 3, 3), (4,)], "c": [(2, 9, 1, 1)],
    }).write(tmp_path)  # fmt: skip
    text = told(net, weights)
    assert "Unknown layer type: Softmaxx; did you mean Softmax?" in text
    assert "Source param shape is 4 3 3 3 (108); target param shape is 8 3 3 3 (216)" in text
    assert "Incompatible number of blobs for layer c: the file has 1, the net needs 2" in text


def test_the_search_in_a_long_net_is_bounded(tmp_path: Path, evaluated: list[int]) -> None:
    layers = "".join(
        conv(f"conv{i}", f"conv{i - 1}" if i else "data", "num_output: 8 kernel_size: 3 pad: 1") for i in range(300)
    )
    weights = {f"conv{i}": [(8, 8 if i else 3, 3, 3), (8,)] for i in range(300)}
    broken = Broken(
        PICTURE, layers + product("fc", "conv299", "num_output: 4"), {**weights, "fc": [(4, 8 * 900), (4,)]}
    )
    net, file = broken.write(tmp_path)
    report = caffeconv.inspect(net, file)
    assert len(evaluated) < 1.1 * THOROUGH
    assert str(report.cures[0]) == "data { shape: 1×3×32×32 → 1×3×30×30 }"


def test_the_search_in_a_net_of_many_joins_is_bounded(tmp_path: Path, evaluated: list[int]) -> None:
    layers, before = "", "data"
    weights: dict[str, list[tuple[int, ...]]] = {}
    for i in range(120):
        layers += conv(f"a{i}", before, "num_output: 8 kernel_size: 3 pad: 1")
        layers += conv(f"b{i}", before, "num_output: 8 kernel_size: 1") + plain(f"sum{i}", "Eltwise", f"a{i} b{i}")
        layers += plain(f"relu{i}", "ReLU", f"sum{i}")
        weights |= {f"a{i}": [(8, 8 if i else 3, 3, 3), (8,)], f"b{i}": [(8, 8 if i else 3, 1, 1), (8,)]}
        before = f"relu{i}"
    broken = Broken(PICTURE, layers + product("fc", before, "num_output: 4"), {**weights, "fc": [(4, 16 * 900), (4,)]})
    caffeconv.inspect(*broken.write(tmp_path))
    assert len(evaluated) < 1.1 * THOROUGH


def test_a_cure_of_many_layers_is_told_in_part(tmp_path: Path) -> None:
    names = [f"fc{i}" for i in range(20)]
    layers = "".join(
        product(name, before, "num_output: 4") for name, before in zip(names, ["data", *names], strict=False)
    )
    weights = {f"my_{name}": [(4, 4 if i else 3 * 32 * 32), (4,)] for i, name in enumerate(names)}
    report = caffeconv.inspect(*Broken(PICTURE, layers, weights).write(tmp_path))
    assert len(report.cures[0].edits) == 20
    assert 'fc11 { name: "fc11" → "my_fc11" }; and 8 more edits\n' in report.advice
    assert "fc12 {" not in report.advice


@pytest.mark.parametrize(
    "data",
    [
        'type: "Data" data_param { source: "train_lmdb" batch_size: 2 backend: LMDB }',
        'type: "ImageData" image_data_param { source: "a.txt" batch_size: 2 new_height: 32 new_width: 32 }',
    ],
    ids=["Data", "ImageData"],
)
def test_pictures_are_as_large_as_their_mean(data: str, tmp_path: Path) -> None:
    """Where these are too large for the weights, they are cropped: Caffe takes the mean off before."""
    write_mean(tmp_path / "mean.binaryproto", np.zeros((3, 32, 32), np.float32))
    transform = 'transform_param { mean_file: "mean.binaryproto" }'
    layers = f'layer {{ name: "data" top: "data" top: "label" {data} {transform} }}\n' + NET_32
    layers += product("fc", "pool1", "num_output: 10")
    report = caffeconv.inspect(*Broken({}, layers, {"fc": [(10, 8 * 14 * 14), (10,)]}).write(tmp_path))
    assert str(report.cures[0]) == "data { crop_size: not given → 28 }"


@pytest.mark.parametrize(
    ("data", "crop", "expected"),
    [
        (
            f"{IMAGES} new_height: 28 new_width: 28 }}",
            0,
            "new_height: 28 → 32, new_width: 28 → 32, crop_size: 0 → 28",
        ),
        (f"{IMAGES} new_height: 40 new_width: 40 }}", 28, "new_height: 40 → 32, new_width: 40 → 32"),
        ('type: "Data" data_param { source: "a" batch_size: 2 }', 40, ""),
        ('type: "MemoryData" memory_data_param { batch_size: 2 channels: 1 height: 32 width: 32 }', 0, ""),
    ],
)
def test_pictures_are_weighed_against_their_mean(data: str, crop: int, expected: str, tmp_path: Path) -> None:
    """Caffe stops where they differ, which no shape tells."""
    write_mean(tmp_path / "mean.binaryproto", np.zeros((3, 32, 32), np.float32))
    transform = f'transform_param {{ mean_file: "mean.binaryproto" crop_size: {crop} }}'
    layers = f'layer {{ name: "data" top: "data" top: "label" {data} {transform} }}'
    report = caffeconv.inspect(*Broken({}, layers + conv("c", "data", "num_output: 2 kernel_size: 3")).write(tmp_path))
    assert [str(cure) for cure in report.cures] == ([f"data {{ {expected} }}"] if expected else [])
    assert any(str(d).startswith("data (") and "the mean image" in str(d) for d in report.diagnostics)


def test_a_shape_without_a_batch_is_told(tmp_path: Path) -> None:
    net = Broken({"data": (1, 3, 8, 8)}, pool("p", "data", "kernel_size: 2")).write(tmp_path)[0]
    report = caffeconv.inspect(net, shapes={"data": (3, 8, 8)})
    hint = "Caffe's pictures are N×C×H×W; 3×8×8 was given for 'data': `shapes={'data': (1, 3, 8, 8)}`"
    assert report.diagnostics[0].hint.splitlines()[0] == hint


def main() -> None:
    TEXTS.mkdir(exist_ok=True)
    for name in GOLDEN:
        if name not in UNREADABLE:
            (TEXTS / f"{name}.txt").write_text(told(*golden_files(name)))
    for name, broken in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            (TEXTS / f"{name}.txt").write_text(told(*broken.write(Path(folder))))
    with tempfile.TemporaryDirectory() as folder:
        net, weights = true_size(Path(folder))
        (TEXTS / "fc6_at_true_size.txt").write_text(told(net, weights).replace(f"{folder}/", ""))


if __name__ == "__main__":
    main()
