"""Public detectors and segmentation nets, end to end with random weights: do they convert, run, and agree?

    python benchmarks/public_nets.py                    every net, at two sizes and two batch sizes
    python benchmarks/public_nets.py hed segnet         some of them
    python benchmarks/public_nets.py --width 1          at their full number of channels; the default is an eighth

Each net is written from its published structure: the layers, windows and heads of the paper's or fork's own prototxt. It
is converted, run by a plain onnxruntime with nothing of caffeconv's registered, and compared with `caffeconv.Net`; then
`caffeconv convert --verify` compares every blob with another engine (OpenCV 4 where that reads the net, else our own).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import caffeconv

Array = NDArray[np.float32]
MSRA = "weight_filler { type: 'msra' }"
SMALL = "weight_filler { type: 'gaussian' std: 0.0002 }"
"""Of heads over pictures of 0 to 255, so that scores neither tie at 1 nor boxes grow without end."""
BBOX_REG = (
    "bbox_reg_param { bbox_mean: 0 bbox_mean: 0 bbox_mean: 0 bbox_mean: 0 "
    "bbox_std: 0.1 bbox_std: 0.1 bbox_std: 0.2 bbox_std: 0.2 }"
)


def roi_pooling(size: int, scale: float, more: str = "") -> str:
    return f"roi_pooling_param {{ pooled_w: {size} pooled_h: {size} spatial_scale: {scale} {more} }}"


def dims(*sizes: int) -> str:
    return f"reshape_param {{ shape {{ {' '.join(f'dim: {size}' for size in sizes)} }} }}"


class Prototxt:
    """A net being written, layer by layer; every method gives the top's name. Channels are times `width`, at least 4."""

    def __init__(self, width: float, *inputs: tuple[str, Sequence[int]]) -> None:
        self.width = width
        self.text = "".join(
            f'layer {{ name: "{name}" type: "Input" top: "{name}" '
            f"input_param {{ shape {{ {' '.join(f'dim: {dim}' for dim in shape)} }} }} }}\n"
            for name, shape in inputs
        )

    def channels(self, number: int) -> int:
        return max(4, round(number * self.width / 4) * 4)

    def layer(self, kind: str, name: str, bottoms: str | Sequence[str], param: str = "", top: str = "") -> str:
        names = [bottoms] if isinstance(bottoms, str) else bottoms
        reads = " ".join(f'bottom: "{bottom}"' for bottom in names)
        self.text += f'layer {{ name: "{name}" type: "{kind}" {reads} top: "{top or name}" {param} }}\n'
        return top or name

    def conv(
        self, name: str, bottom: str, number: int, kernel: int = 3, *, pad: int | None = None, stride: int = 1, group: int = 1,
        dilation: int = 1, exact: bool = False, relu: bool = True, bias: bool = True, kind: str = "Convolution",
        filler: str = MSRA,
    ) -> str:  # fmt: skip
        number = number if exact else self.channels(number)
        pad = dilation * (kernel // 2) if pad is None else pad
        self.layer(
            kind, name, bottom, f"convolution_param {{ num_output: {number} kernel_size: {kernel} pad: {pad} stride: {stride} "
            f"group: {group} dilation: {dilation} bias_term: {str(bias).lower()} {filler} }}",
        )  # fmt: skip
        return self.layer("ReLU", f"{name}_relu", name, top=name) if relu else name

    def conv_bn(
        self,
        name: str,
        bottom: str,
        number: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        group: int = 1,
        relu: bool = True,
    ) -> str:
        self.conv(name, bottom, number, kernel, stride=stride, group=group, relu=False, bias=False)
        self.layer("BatchNorm", f"{name}/bn", name, "batch_norm_param { use_global_stats: true }", top=name)
        self.layer("Scale", f"{name}/scale", name, "scale_param { bias_term: true }", top=name)
        return self.layer("ReLU", f"{name}/relu", name, top=name) if relu else name

    def pool(self, name: str, bottom: str, kernel: int = 2, stride: int = 2, pad: int = 0, how: str = "MAX") -> str:
        return self.layer(
            "Pooling",
            name,
            bottom,
            f"pooling_param {{ pool: {how} kernel_size: {kernel} stride: {stride} pad: {pad} }}",
        )

    def fc(self, name: str, bottom: str, number: int, *, exact: bool = False, relu: bool = True) -> str:
        number = number if exact else self.channels(number)
        self.layer(
            "InnerProduct",
            name,
            bottom,
            f"inner_product_param {{ num_output: {number} {MSRA} }}",
        )
        return self.layer("ReLU", f"{name}_relu", name, top=name) if relu else name

    def vgg(self, bottom: str, blocks: int = 5, first_pad: int = 1, last_pool: bool = False) -> str:
        """VGG-16's convolutions."""
        for block, (number, repeats) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))[:blocks], 1):
            for i in range(1, repeats + 1):
                pad = first_pad if (block, i) == (1, 1) else 1
                bottom = self.conv(f"conv{block}_{i}", bottom, number, pad=pad)
            if block < blocks or last_pool:
                bottom = self.pool(f"pool{block}", bottom)
        return bottom

    def mobilenet(self, bottom: str) -> tuple[str, str]:
        """MobileNet's depthwise layers: conv11, of stride 16, and conv13, of stride 32."""
        x = self.conv_bn("conv0", bottom, 32, stride=2)
        plan = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
        before, eleventh = 32, ""
        for i, (number, stride) in enumerate(plan, 1):
            x = self.conv_bn(f"conv{i}/dw", x, before, stride=stride, group=self.channels(before))
            x = self.conv_bn(f"conv{i}", x, number, 1)
            eleventh, before = x if i == 11 else eleventh, number
        return eleventh, x

    def ssd_head(self, sources: Sequence[tuple[str, int, float, float]], classes: int, kernel: int = 3) -> str:
        """Locations, confidences and priors of each source (blob, priors a place, min_size, max_size), and the detections."""
        parts: dict[str, list[str]] = {"loc": [], "conf": [], "prior": []}
        for source, priors, least, most in sources:
            name = source.replace("/", "_")
            for what, number in (("loc", 4), ("conf", classes)):
                head = f"{name}_mbox_{what}"
                self.conv(head, source, priors * number, kernel, exact=True, relu=False, filler=SMALL)
                moved = self.layer(
                    "Permute", f"{head}_perm", head, "permute_param { order: 0 order: 2 order: 3 order: 1 }"
                )
                parts[what].append(self.layer("Flatten", f"{head}_flat", moved))
            ratios = "aspect_ratio: 2" if priors == 4 else "aspect_ratio: 2 aspect_ratio: 3"
            parts["prior"].append(
                self.layer(
                    "PriorBox", f"{name}_mbox_priorbox", [source, "data"],
                    f"prior_box_param {{ min_size: {least} max_size: {most} {ratios} flip: true clip: false "
                    "variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 }",
                )
            )  # fmt: skip
        loc = self.layer("Concat", "mbox_loc", parts["loc"])
        conf = self.layer("Concat", "mbox_conf", parts["conf"])
        prior = self.layer("Concat", "mbox_priorbox", parts["prior"], "concat_param { axis: 2 }")
        conf = self.layer("Reshape", "mbox_conf_reshape", conf, dims(0, -1, classes))
        conf = self.layer("Softmax", "mbox_conf_softmax", conf, "softmax_param { axis: 2 }")
        conf = self.layer("Flatten", "mbox_conf_flatten", conf)
        return self.layer(
            "DetectionOutput", "detection_out", [loc, conf, prior], f"detection_output_param {{ num_classes: {classes} "
            "share_location: true background_label_id: 0 code_type: CENTER_SIZE keep_top_k: 100 confidence_threshold: 0.01 "
            "nms_param { nms_threshold: 0.45 top_k: 100 } }",
        )  # fmt: skip

    def rpn(self, features: str, number: int) -> str:
        """Faster R-CNN's region proposal network: the regions."""
        x = self.conv("rpn_conv", features, number)
        score = self.conv("rpn_cls_score", x, 18, 1, exact=True, relu=False)
        delta = self.conv("rpn_bbox_pred", x, 36, 1, exact=True, relu=False)
        pair = self.layer("Reshape", "rpn_cls_score_reshape", score, dims(0, 2, -1, 0))
        prob = self.layer("Softmax", "rpn_cls_prob", pair)
        prob = self.layer("Reshape", "rpn_cls_prob_reshape", prob, dims(0, 18, -1, 0))
        return self.layer(
            "Python", "proposal", [prob, delta, "im_info"], 'python_param { module: "rpn.proposal_layer" '
            "layer: \"ProposalLayer\" param_str: \"'feat_stride': 16\" }", top="rois",
        )  # fmt: skip

    def heads(self, x: str, classes: int) -> None:
        self.layer("Softmax", "cls_prob", self.fc("cls_score", x, classes, exact=True, relu=False))
        self.fc("bbox_pred", x, 4 * classes, exact=True, relu=False)

    def upsample(self, name: str, bottom: str, number: int, factor: int) -> str:
        return self.conv(
            name,
            bottom,
            number,
            2 * factor,
            pad=factor // 2,
            stride=factor,
            exact=True,
            relu=False,
            bias=False,
            kind="Deconvolution",
        )


def mobilenet_ssd(net: Prototxt) -> None:
    eleventh, x = net.mobilenet("data")
    sources = [(eleventh, 6, 60, 90), (x, 6, 105, 150)]
    for i, (squeeze, number) in enumerate(((256, 512), (128, 256)), 14):
        x = net.conv_bn(f"conv{i}_2", net.conv_bn(f"conv{i}_1", x, squeeze, 1), number, stride=2)
        sources.append((x, 6, 150 + 45 * (i - 14), 195 + 45 * (i - 14)))
    net.ssd_head(sources, 21, kernel=1)


def vgg_ssd(net: Prototxt, kernel: int = 3) -> None:
    conv4_3 = net.vgg("data", 4)
    scale = "norm_param { across_spatial: false channel_shared: false scale_filler { value: 20 } }"
    source = net.layer("Normalize", "conv4_3_norm", conv4_3, scale)
    x = net.pool("pool4", conv4_3)
    for i in (1, 2, 3):
        x = net.conv(f"conv5_{i}", x, 512)
    x = net.conv("fc6", net.pool("pool5", x, 3, 1, 1), 1024, dilation=6)
    fc7 = net.conv("fc7", x, 1024, 1)
    conv6 = net.conv("conv6_2", net.conv("conv6_1", fc7, 256, 1), 512, stride=2)
    net.ssd_head([(source, 4, 30, 60), (fc7, 6, 60, 111), (conv6, 6, 111, 162)], 21, kernel)


def textboxes(net: Prototxt) -> None:
    vgg_ssd(net, kernel=5)


def faster_rcnn_vgg16(net: Prototxt) -> None:
    features = net.vgg("data")
    rois = net.rpn(features, 512)
    pool = net.layer("ROIPooling", "pool5", [features, rois], roi_pooling(7, 1 / 16))
    net.heads(net.fc("fc7", net.fc("fc6", pool, 4096), 4096), 21)


def faster_rcnn_zf(net: Prototxt) -> None:
    lrn = "lrn_param { local_size: 3 alpha: 0.00005 beta: 0.75 norm_region: WITHIN_CHANNEL }"
    x = net.layer("LRN", "norm1", net.conv("conv1", "data", 96, 7, stride=2), lrn)
    x = net.layer("LRN", "norm2", net.conv("conv2", net.pool("pool1", x, 3, 2, 1), 256, 5, stride=2), lrn)
    x = net.conv("conv5", net.conv("conv4", net.conv("conv3", net.pool("pool2", x, 3, 2, 1), 384), 384), 256)
    rois = net.rpn(x, 256)
    pool = net.layer("ROIPooling", "roi_pool", [x, rois], roi_pooling(6, 1 / 16))
    net.heads(net.fc("fc7", net.fc("fc6", pool, 4096), 4096), 21)


def rfcn(net: Prototxt) -> None:
    x = net.vgg("data")
    rois = net.rpn(x, 512)
    x = net.conv("conv_new", x, 1024, 1)
    for name, number in (("cls", 21), ("bbox", 8)):
        score = net.conv(f"rfcn_{name}", x, number * 49, 1, exact=True, relu=False)
        psroi = f"psroi_pooling_param {{ spatial_scale: 0.0625 output_dim: {number} group_size: 7 }}"
        pool = net.layer("PSROIPooling", f"psroi_{name}", [score, rois], psroi)
        vote = net.pool(f"vote_{name}", pool, 7, 7, how="AVE")
        if name == "cls":
            net.layer("Softmax", "cls_prob", vote)


def ms_cnn(net: Prototxt) -> None:
    conv4_3 = net.vgg("data", 4)
    x = net.pool("pool4", conv4_3)
    for i in (1, 2, 3):
        x = net.conv(f"conv5_{i}", x, 512)
    maps = []
    for i, (source, rate, field) in enumerate(((conv4_3, 8, 40), (x, 16, 80), (net.pool("pool5", x), 32, 160))):
        maps.append((net.conv(f"loss{i}_conv", source, 6, 5, exact=True, relu=False), rate, field))
    fields = " ".join(f"field_h: {field} field_w: {field} downsample_rate: {rate}" for _, rate, field in maps)
    param = f"fg_thr: -5 iou_thr: 0.65 {fields} max_nms_num: 200 max_post_nms_num: 50 min_size: 4"
    param = f"box_output_param {{ {param} }} {BBOX_REG}"
    rois = net.layer("BoxOutput", "proposals", [name for name, _, _ in maps], param)
    up = net.upsample("roi_up", conv4_3, net.channels(512), 2)
    pool = net.layer(
        "ROIPooling",
        "roi_pool",
        [up, rois],
        roi_pooling(5, 1 / 4, "pad_ratio: 0.25"),
    )
    net.heads(net.fc("fc6", pool, 2048), 2)


def mobilenet_yolov3(net: Prototxt) -> None:
    eleventh, x = net.mobilenet("data")
    deep = net.conv_bn("conv15", x, 512, 1)
    first = net.conv("conv18", net.conv_bn("conv16", deep, 1024), 75, 1, exact=True, relu=False)
    up = net.layer("Upsample", "upsample", net.conv_bn("conv19", deep, 256, 1), "upsample_param { scale: 2 }")
    x = net.layer("Concat", "route", [up, eleventh])
    second = net.conv("conv23", net.conv_bn("conv21", x, 512), 75, 1, exact=True, relu=False)
    sizes = (10, 14, 23, 27, 37, 58, 81, 82, 135, 169, 344, 319)
    anchors = " ".join(f"biases: {size}" for size in sizes)
    masks = " ".join(f"mask: {i}" for i in (3, 4, 5, 0, 1, 2))
    net.layer(
        "Yolov3DetectionOutput", "detection_out", [first, second], "yolov3_detection_output_param { num_classes: 20 "
        f"confidence_threshold: 0.3 nms_threshold: 0.45 {anchors} {masks} mask_group_num: 2 "
        "anchors_scale: 32 anchors_scale: 16 }",
    )  # fmt: skip


def ctpn(net: Prototxt) -> None:
    x = net.layer("Im2col", "im2col", net.vgg("data"), "convolution_param { kernel_size: 3 pad: 1 }")
    x = net.layer("Transpose", "im2col_transpose", x, "transpose_param { dim: 3 dim: 2 dim: 0 dim: 1 }")
    x = net.layer("Reshape", "lstm_input", x, "reshape_param { shape { dim: -1 } axis: 1 num_axes: 2 }")
    units = net.channels(128)
    lstm = f"lstm_param {{ num_output: {units} weight_filler {{ type: 'gaussian' std: 0.01 }} }}"
    forward = net.layer("Lstm", "lstm", x, lstm)
    back = net.layer("Reverse", "rlstm_input", x, "reverse_param { axis: 0 }")
    back = net.layer("Reverse", "rlstm_reverse", net.layer("Lstm", "rlstm", back, lstm), "reverse_param { axis: 0 }")
    x = net.layer("Concat", "merged", [forward, back], "concat_param { axis: 2 }")
    x = net.layer("Reshape", "merged_rows", x, "reshape_param { shape { dim: -1 dim: 1 } axis: 1 num_axes: 1 }")
    x = net.layer("Transpose", "lstm_output", x, "transpose_param { dim: 2 dim: 3 dim: 1 dim: 0 }")
    x = net.conv("fc", x, 512, 1)
    score = net.conv("rpn_cls_score", x, 20, 1, exact=True, relu=False)
    delta = net.conv("rpn_bbox_pred", x, 20, 1, exact=True, relu=False)
    pair = net.layer("Reshape", "rpn_cls_score_reshape", score, dims(0, 2, -1, 0))
    prob = net.layer("Softmax", "rpn_cls_prob", pair)
    prob = net.layer("Reshape", "rpn_cls_prob_reshape", prob, dims(0, 20, -1, 0))
    net.text += (
        f'layer {{ name: "proposal" type: "Python" bottom: "{prob}" bottom: "{delta}" bottom: "im_info" top: "rois" '
        'top: "scores" python_param { module: "layers.text_proposal_layer" layer: "ProposalLayer" '
        "param_str: \"'feat_stride': 16\" } }\n"
    )


def segnet(net: Prototxt) -> None:
    masks, x = [], "data"
    for i, number in enumerate((64, 128, 256, 512), 1):
        x = net.conv_bn(f"conv{i}", x, number)
        pool, mask = f"pool{i}", f"pool{i}_mask"
        net.text += (
            f'layer {{ name: "{pool}" type: "Pooling" bottom: "{x}" top: "{pool}" top: "{mask}" '
            "pooling_param { pool: MAX kernel_size: 2 stride: 2 } }\n"
        )
        x = pool
        masks.append(mask)
    for i, number in zip((4, 3, 2, 1), (256, 128, 64, 64), strict=True):
        x = net.layer("Upsample", f"upsample{i}", [x, masks[i - 1]], "upsample_param { scale: 2 }")
        x = net.conv_bn(f"conv{i}_D", x, number)
    net.layer("Softmax", "prob", net.conv("score", x, 12, exact=True, relu=False))


def pspnet(net: Prototxt) -> None:
    x = net.vgg("data", 4)
    branches = [x]
    for bins in (1, 2, 3):
        # the published net names kernel and stride for its one size
        branch = net.conv(f"branch{bins}", net.pool(f"pool_b{bins}", x, 2 * bins, 2 * bins, how="AVE"), 128, 1)
        branches.append(net.layer("Interp", f"interp{bins}", [branch, x], "interp_param { use_blob_size: true }"))
    x = net.conv("conv5_4", net.layer("Concat", "pyramid", branches), 512)
    score = net.conv("conv6", x, 21, 1, exact=True, relu=False)
    net.layer("Interp", "score", score, "interp_param { zoom_factor: 8 }")


def hed(net: Prototxt) -> None:
    net.vgg("data", first_pad=35)
    sides = []
    for i, (source, factor) in enumerate(
        (("conv1_2", 1), ("conv2_2", 2), ("conv3_3", 4), ("conv4_3", 8), ("conv5_3", 16)), 1
    ):
        score = net.conv(f"score-dsn{i}", source, 1, 1, exact=True, relu=False)
        if factor > 1:
            score = net.conv(
                f"upsample_{factor}",
                score,
                1,
                2 * factor,
                pad=0,
                stride=factor,
                exact=True,
                relu=False,
                kind="Deconvolution",
            )
        sides.append(net.layer("Crop", f"crop{i}", [score, "data"]))
    fused = net.layer("Concat", "concat", sides)
    net.layer("Sigmoid", "sigmoid-fuse", net.conv("new-score", fused, 1, 1, exact=True, relu=False))


def openpose(net: Prototxt) -> None:
    features = net.conv("conv4_4_CPM", net.conv("conv4_3_CPM", net.vgg("data", 4), 256), 128)
    x = features
    for stage in (1, 2):
        outputs = []
        for branch, number in ((1, 38), (2, 19)):
            y = x
            for i in (1, 2, 3):
                y = net.conv(f"Mconv{i}_stage{stage}_L{branch}", y, 128, 7 if stage > 1 else 3)
            outputs.append(net.conv(f"Mconv5_stage{stage}_L{branch}", y, number, 1, exact=True, relu=False))
        x = net.layer("Concat", f"concat_stage{stage}", [*outputs, features])
    maps = net.layer("Concat", "net_output", list(reversed(outputs)))
    big = net.layer("ImResize", "resized_map", maps, "imresize_param { factor: 8 }")
    net.layer("Nms", "joints", big, "nms_param { threshold: 0.05 num_parts: 18 max_peaks: 20 }")


def c3d(net: Prototxt) -> None:
    x = "data"
    for i, number in enumerate((64, 128, 256), 1):
        param = f"num_output: {net.channels(number)} kernel_size: 3 kernel_depth: 3 pad: 1 temporal_pad: 1 {MSRA}"
        x = net.layer("Convolution3D", f"conv{i}a", x, f"convolution_param {{ {param} }}")
        x = net.layer("ReLU", f"relu{i}a", x, top=x)
        depth = 1 if i == 1 else 2
        pooling = f"pool: MAX kernel_size: 2 kernel_depth: {depth} stride: 2 temporal_stride: {depth}"
        x = net.layer("Pooling3D", f"pool{i}", x, f"pooling_param {{ {pooling} }}")
    net.layer("Softmax", "prob", net.fc("fc8", net.fc("fc6", x, 4096), 487, exact=True, relu=False))


def ssh(net: Prototxt) -> None:
    conv4_3 = net.vgg("data", 4)
    x = net.pool("pool4", conv4_3)
    for i in (1, 2, 3):
        x = net.conv(f"conv5_{i}", x, 512)
    context = net.conv("context", x, 128)
    large = net.conv("context_2", net.conv("context_1", context, 128), 128)
    x = net.layer("Concat", "ssh", [net.conv("ssh_3x3", x, 256), net.conv("context_3", context, 128), large])
    net.rpn(x, 256)


DETECTOR = (("data", (1, 3, 160, 192)), ("im_info", (1, 3)))
PICTURE = (("data", (1, 3, 160, 192)),)
NETS: dict[str, tuple[Callable[[Prototxt], None], Sequence[tuple[str, Sequence[int]]], str | None, bool]] = {
    "mobilenet-ssd": (mobilenet_ssd, (("data", (1, 3, 300, 300)),), None, True),
    "vgg-ssd": (vgg_ssd, (("data", (1, 3, 160, 160)),), None, True),
    "textboxes": (textboxes, (("data", (1, 3, 160, 160)),), None, True),
    "faster-rcnn-vgg16": (faster_rcnn_vgg16, DETECTOR, None, False),
    "faster-rcnn-zf": (faster_rcnn_zf, DETECTOR, None, False),
    "r-fcn": (rfcn, DETECTOR, None, False),
    "ms-cnn": (ms_cnn, PICTURE, None, False),
    "mobilenet-yolov3": (mobilenet_yolov3, (("data", (1, 3, 224, 224)),), None, True),
    "ctpn": (ctpn, DETECTOR, None, False),
    "segnet": (segnet, PICTURE, None, True),
    "pspnet": (pspnet, PICTURE, None, True),
    "hed": (hed, PICTURE, "hed", True),
    "openpose": (openpose, PICTURE, None, False),
    "c3d": (c3d, (("data", (1, 3, 8, 32, 32)),), None, True),
    "ssh": (ssh, DETECTOR, None, False),
}
"""Name → what writes it, its inputs, its dialect, and whether it takes batches."""


def feeds_of(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Array]:
    """A picture of noise; im_info says its size."""
    random = np.random.default_rng(seed)
    feeds = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    if "im_info" in feeds:
        feeds["im_info"][:] = (*shapes["data"][2:], 1)
    return feeds


def check(name: str, width: float, folder: Path) -> str:
    """One net at its own size and a larger one, alone and in a batch of two; what was found."""
    write, inputs, dialect, takes_batches = NETS[name]
    net = Prototxt(width, *inputs)
    write(net)
    path, weights = folder / f"{name}.prototxt", folder / f"{name}.caffemodel"
    path.write_text(net.text)
    save_random(path, weights, dialect)
    lines = []
    for size in (1.0, 1.25):
        shapes = {key: tuple(shape) for key, shape in inputs}
        data = shapes["data"]
        step = 1 if name == "mobilenet-ssd" else 32
        shapes["data"] = (*data[:-2], *(round(side * size / step) * step for side in data[-2:]))
        if name == "c3d" and size > 1:
            continue  # its inner products fix the size
        start = time.perf_counter()
        model = caffeconv.convert(path, weights, shapes=shapes, dialect=dialect, seed=0)
        seconds = time.perf_counter() - start
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        reference = caffeconv.Net(path, weights, shapes=shapes, dialect=dialect)
        for batch in (1, 2) if takes_batches else (1,):
            feeds = feeds_of({key: (batch, *shape[1:]) for key, shape in shapes.items()}, seed=batch)
            results = dict(
                zip([output.name for output in session.get_outputs()], session.run(None, feeds), strict=True)
            )
            for key, value in feeds.items():
                reference.blobs[key].reshape(*value.shape)
                reference.blobs[key].data[...] = value
            expected = reference.forward(blobs=list(results))
            worst = max(float(np.abs(results[key] - expected[key]).max(initial=0)) for key in results)
            shown = ", ".join(f"{key} {'×'.join(map(str, value.shape))}" for key, value in results.items())
            lines.append(
                f"  {'×'.join(map(str, feeds['data'].shape)):>14}  converted in {seconds:.2f} s; off by {worst:.1e}; {shown}"
            )
    return "\n".join([*lines, f"  --verify: {verified(path, weights, dialect)}"])


def save_random(path: Path, weights: Path, dialect: str | None) -> None:
    """The net's fillers as a weights file, with averages of BatchNorm that keep values in their range."""
    net = caffeconv.Net(path, dialect=dialect)
    for name, blobs in net.params.items():
        if name.endswith("/bn"):
            for blob in blobs[1:]:
                blob.data[...] = 1
    net.save(weights)


def verified(path: Path, weights: Path, dialect: str | None) -> str:
    """What `convert --verify` says of the net at its own size."""
    command = [sys.executable, "-m", "caffeconv", "convert", str(path), str(weights), "-o", f"{path}.onnx", "--verify"]
    if dialect is not None:
        command += ["--dialect", dialect]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=path.parent)
    lines = [line.strip() for line in run.stderr.splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith("caffeconv: compared with")), " ".join(lines[-1:]))
    return f"exit {run.returncode}; {said.partition(': ')[2][:100]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", metavar="NET", help=", ".join(NETS))
    parser.add_argument("--width", type=float, default=0.125)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.nets or NETS:
            print(name, flush=True)
            print(check(name, arguments.width, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
