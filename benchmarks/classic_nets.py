"""Well-known classifiers at their published sizes, with weights that keep the variance of what goes through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from public_nets import Prototxt, mobilenet_ssd, vgg_ssd

from caffeconv.caffe_format.caffemodel_writer import WrittenBlob, write_layer
from caffeconv.conversion.load import load

LRN = "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"
Build = Callable[[Prototxt], object]


def lenet(net: Prototxt) -> None:
    x = net.pool("pool1", net.conv("conv1", "data", 20, 5, pad=0, relu=False))
    x = net.pool("pool2", net.conv("conv2", x, 50, 5, pad=0, relu=False))
    net.layer("Softmax", "prob", net.fc("ip2", net.fc("ip1", x, 500), 10, exact=True, relu=False))


def caffenet(net: Prototxt) -> None:
    x = net.conv("conv1", "data", 96, 11, pad=0, stride=4)
    x = net.layer("LRN", "norm1", net.pool("pool1", x, 3), LRN)
    x = net.conv("conv2", x, 256, 5, group=2)
    x = net.layer("LRN", "norm2", net.pool("pool2", x, 3), LRN)
    x = net.conv("conv5", net.conv("conv4", net.conv("conv3", x, 384), 384, group=2), 256, group=2)
    x = net.fc("fc7", net.fc("fc6", net.pool("pool5", x, 3), 4096), 4096)
    net.layer("Softmax", "prob", net.fc("fc8", x, 1000, relu=False))


def vgg16(net: Prototxt) -> None:
    x = net.fc("fc7", net.fc("fc6", net.vgg("data", last_pool=True), 4096), 4096)
    net.layer("Softmax", "prob", net.fc("fc8", x, 1000, relu=False))


def squeezenet(net: Prototxt) -> None:
    x = net.pool("pool1", net.conv("conv1", "data", 64, 3, pad=0, stride=2), 3)
    for i, (squeezed, expanded) in enumerate(
        ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)), 2
    ):
        x = net.conv(f"fire{i}/squeeze1x1", x, squeezed, 1)
        sides = [net.conv(f"fire{i}/expand{k}x{k}", x, expanded, k) for k in (1, 3)]
        x = net.layer("Concat", f"fire{i}/concat", sides)
        x = net.pool(f"pool{i}", x, 3) if i in (3, 5) else x
    x = net.conv("conv10", x, 1000, 1)
    net.layer("Softmax", "prob", _mean(net, x))


def _mean(net: Prototxt, x: str) -> str:
    return net.layer("Pooling", f"{x}_mean", x, "pooling_param { pool: AVE global_pooling: true }")


def googlenet(net: Prototxt) -> None:
    x = net.layer("LRN", "norm1", net.pool("pool1", net.conv("conv1", "data", 64, 7, stride=2), 3), LRN)
    x = net.layer("LRN", "norm2", net.conv("conv2", net.conv("conv2_reduce", x, 64, 1), 192), LRN)
    x = net.pool("pool2", x, 3)
    plan = {
        "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64), "4a": (192, 96, 208, 16, 48, 64),
        "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64), "4d": (112, 144, 288, 32, 64, 64),
        "4e": (256, 160, 320, 32, 128, 128), "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
    }  # fmt: skip
    for name, (one, three_in, three, five_in, five, pooled) in plan.items():
        if name in ("4a", "5a"):
            x = net.pool(f"pool{name}", x, 3)
        branches = [
            net.conv(f"{name}/1x1", x, one, 1),
            net.conv(f"{name}/3x3", net.conv(f"{name}/3x3_reduce", x, three_in, 1), three),
            net.conv(f"{name}/5x5", net.conv(f"{name}/5x5_reduce", x, five_in, 1), five, 5),
            net.conv(f"{name}/pool_proj", net.pool(f"{name}/pool", x, 3, 1, 1), pooled, 1),
        ]
        x = net.layer("Concat", f"{name}/output", branches)
    net.layer("Softmax", "prob", net.fc("classifier", _mean(net, x), 1000, relu=False))


def resnet50(net: Prototxt) -> None:
    x = net.pool("pool1", net.conv_bn("conv1", "data", 64, 7, stride=2), 3)
    for stage, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 2):
        for i in range(depth):
            name, stride = f"res{stage}{'abcdef'[i]}", 2 if i == 0 and stage > 2 else 1
            shortcut = x if i else net.conv_bn(f"{name}/1", x, 4 * width, 1, stride=stride, relu=False)
            x = net.conv_bn(f"{name}/2b", net.conv_bn(f"{name}/2a", x, width, 1, stride=stride), width)
            x = net.layer("Eltwise", name, [shortcut, net.conv_bn(f"{name}/2c", x, 4 * width, 1, relu=False)])
            x = net.layer("ReLU", f"{name}/relu", x, top=x)
    net.layer("Softmax", "prob", net.fc("fc1000", _mean(net, x), 1000, relu=False))


def densenet121(net: Prototxt) -> None:
    x = net.pool("pool1", net.conv_bn("conv1", "data", 64, 7, stride=2), 3)
    channels = 64
    for block, depth in enumerate((6, 12, 24, 16), 2):
        for i in range(1, depth + 1):
            name = f"conv{block}_{i}"
            y = net.conv(f"{name}/x1", _norm(net, f"{name}/x1", x), 128, 1, relu=False, bias=False)
            y = net.conv(f"{name}/x2", _norm(net, f"{name}/x2", y), 32, relu=False, bias=False)
            x = net.layer("Concat", f"concat_{block}_{i}", [x, y])
            channels += 32
        if block < 5:
            channels //= 2
            x = net.conv(f"conv{block}_blk", _norm(net, f"conv{block}_blk", x), channels, 1, relu=False, bias=False)
            x = net.pool(f"pool{block}", x, how="AVE")
    net.layer("Softmax", "prob", net.fc("fc6", _mean(net, _norm(net, "conv5_blk", x)), 1000, relu=False))


def _norm(net: Prototxt, name: str, x: str) -> str:
    y = net.layer("BatchNorm", f"{name}/bn", x, "batch_norm_param { use_global_stats: true }")
    net.layer("Scale", f"{name}/scale", y, "scale_param { bias_term: true }", top=y)
    return net.layer("ReLU", f"{name}/relu", y, top=y)


def mobilenet(net: Prototxt) -> None:
    _, x = net.mobilenet("data")
    net.layer("Softmax", "prob", net.fc("fc7", _mean(net, x), 1000, relu=False))


def lstm(net: Prototxt) -> None:
    filler = "weight_filler { type: 'xavier' }"
    x = net.layer("LSTM", "lstm1", ["data", "cont"], f"recurrent_param {{ num_output: 256 {filler} }}")
    x = net.layer("InnerProduct", "score", x, f"inner_product_param {{ num_output: 100 axis: 2 {filler} }}")
    net.layer("Softmax", "prob", x, "softmax_param { axis: 2 }")


PICTURE = (3, 224, 224)
NETS: dict[str, tuple[Build, dict[str, tuple[int, ...]]]] = {
    "LeNet": (lenet, {"data": (1, 28, 28)}),
    "CaffeNet": (caffenet, {"data": (3, 227, 227)}),
    "GoogLeNet": (googlenet, {"data": PICTURE}),
    "SqueezeNet 1.1": (squeezenet, {"data": (3, 227, 227)}),
    "VGG-16": (vgg16, {"data": PICTURE}),
    "ResNet-50": (resnet50, {"data": PICTURE}),
    "DenseNet-121": (densenet121, {"data": PICTURE}),
    "MobileNet": (mobilenet, {"data": PICTURE}),
    "MobileNet-SSD": (mobilenet_ssd, {"data": (3, 300, 300)}),
    "SSD-300": (vgg_ssd, {"data": (3, 300, 300)}),
}
"""Name → what builds it, and its inputs without the batch axis."""
QUICK = ("LeNet", "SqueezeNet 1.1", "MobileNet")


def write_net(name: str, batch: int, folder: Path, width: float = 1.0) -> tuple[Path, Path]:
    """Writes prototxt and caffemodel of a net, and says where."""
    build, inputs = NETS[name]
    net = Prototxt(width, *((blob, (batch, *shape)) for blob, shape in inputs.items()))
    build(net)
    path = folder / "net.prototxt"
    path.write_text(net.text)
    weights = folder / "net.caffemodel"
    with weights.open("wb") as file:
        for node in load(path).graph.nodes:
            blobs = [
                WrittenBlob.of(
                    p.shape,
                    _values(p.name, p.array().reshape(p.shape)),
                )
                for p in node.params
            ]
            write_layer(file, node.definition.proto.SerializeToString(), blobs)
    return path, weights


def _values(name: str, filled: np.ndarray) -> np.ndarray:
    """What the layer's filler gives; a BatchNorm of mean 0 and variance 1."""
    return np.ones_like(filled) if name in ("variance", "scale_factor") else filled


def example_inputs(name: str, batch: int) -> dict[str, np.ndarray]:
    """Values of mean 0 and variance 1 for every input."""
    random = np.random.default_rng(0)
    shapes: Sequence[tuple[str, tuple[int, ...]]] = list(NETS[name][1].items())
    return {blob: random.standard_normal((batch, *shape), np.float32) for blob, shape in shapes}
