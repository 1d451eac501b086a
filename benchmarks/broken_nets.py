"""Thirty nets as people break them, and what `inspect` says first: the table of docs/inspect.md.

Each is a fixture's net, or a small one, with one mistake from memory of what people ask about. Printed as the table's rows:
what was broken, the first words of the cause, the first cure, and the seconds that this took.

    python benchmarks/broken_nets.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import caffeconv
from caffeconv.caffe_format.caffemodel_writer import write_caffemodel
from caffeconv.errors import CaffeconvError

Shapes = Mapping[str, Sequence[tuple[int, ...]]]
MOST_LETTERS = 150


def layer(name: str, kind: str, bottoms: str, fields: str = "") -> str:
    reads = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {reads} top: "{name}" {fields} }}\n'


def conv(name: str, bottom: str, fields: str, kind: str = "Convolution") -> str:
    return layer(name, kind, bottom, f"convolution_param {{ {fields} }}")


def pool(name: str, bottom: str, fields: str) -> str:
    return layer(name, "Pooling", bottom, f"pooling_param {{ {fields} }}")


def product(name: str, bottom: str, outputs: int) -> str:
    return layer(name, "InnerProduct", bottom, f"inner_product_param {{ num_output: {outputs} }}")


def image(shape: str, name: str = "data") -> str:
    return f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ dim: [{shape}] }} }} }}\n'


@dataclass(frozen=True)
class Case:
    """What was broken, the net, and the shapes in its weights file."""

    words: str
    net: str
    weights: Shapes = field(default_factory=dict)


ALEXNET = (
    conv("conv1", "data", "num_output: 96 kernel_size: 11 stride: 4") + pool("pool1", "conv1", "kernel_size: 3 stride: 2")
    + conv("conv2", "pool1", "num_output: 256 kernel_size: 5 pad: 2 %s") + pool("pool2", "conv2", "kernel_size: 3 stride: 2")
    + conv("conv3", "pool2", "num_output: 384 kernel_size: 3 pad: 1") + pool("pool5", "conv3", "kernel_size: 3 stride: 2")
    + product("fc6", "pool5", 4096) + product("fc8", "fc6", 1000)
)  # fmt: skip
ALEXNET_WEIGHTS: Shapes = {
    "conv1": [(96, 3, 11, 11), (96,)], "conv2": [(256, 48, 5, 5), (256,)], "conv3": [(384, 256, 3, 3), (384,)],
    "fc6": [(4096, 384 * 6 * 6), (4096,)], "fc8": [(1000, 4096), (1000,)],
}  # fmt: skip
TEN_CLASSES = (ALEXNET % "group: 2").replace("num_output: 1000", "num_output: 10")
NO_STRIDE = (ALEXNET % "group: 2").replace(
    'top: "pool2" pooling_param { kernel_size: 3 stride: 2', 'top: "pool2" pooling_param { kernel_size: 3'
)
BLOCK = (
    conv("conv1", "data", "num_output: 16 kernel_size: 3 pad: 1") + layer("bn1", "BatchNorm", "conv1")
    + layer("scale1", "Scale", "bn1", "scale_param { bias_term: true }") + layer("relu1", "ReLU", "scale1")
)  # fmt: skip
BLOCK_WEIGHTS: Shapes = {"conv1": [(16, 3, 3, 3), (16,)], "bn1": [(16,), (16,), (1,)], "scale1": [(16,), (16,)]}
FCN = (
    conv("down", "data", "num_output: 8 kernel_size: 3 stride: 2 pad: 1")
    + conv("up", "down", "num_output: 8 kernel_size: 4 stride: 2", "Deconvolution")
    + layer("score", "Crop", "up data", "crop_param { axis: 2 offset: %d }")
)
SCORES = image("2, 3, 8, 8") + conv("score", "data", "num_output: 5 kernel_size: %d")
SSD = (
    conv("loc", "data", "num_output: 16 kernel_size: 3 pad: 1")
    + conv("conf", "data", "num_output: %(conf)d kernel_size: 3 pad: 1")
    + layer("loc_perm", "Permute", "loc", "permute_param { order: [0, 2, 3, 1] }") + layer("loc_flat", "Flatten", "loc_perm")
    + layer("conf_perm", "Permute", "conf", "permute_param { order: [0, 2, 3, 1] }")
    + layer("rows", "Reshape", "conf_perm", "reshape_param { shape { dim: [0, -1, %(classes)d] } }")
    + layer("softmax", "Softmax", "rows", "softmax_param { axis: 2 }") + layer("conf_flat", "Flatten", "softmax")
    + layer("prior", "PriorBox", "loc data", "prior_box_param { min_size: 8 max_size: 16 aspect_ratio: %(ratios)s flip: true }")
    + layer("out", "DetectionOutput", "loc_flat conf_flat prior", "detection_output_param { num_classes: %(classes)d }")
)  # fmt: skip
SSD_WEIGHTS: Shapes = {"loc": [(16, 3, 3, 3), (16,)], "conf": [(84, 3, 3, 3), (84,)]}
RPN = (
    image("1, 8, 14, 14")
    + image("1, 3", "im_info")
    + conv("cls", "data", "num_output: 18 kernel_size: 1")
    + conv("box", "data", "num_output: 36 kernel_size: 1")
    + layer(
        "rois",
        "Proposal",
        "cls box im_info",
        "proposal_param { ratio: [0.5, 1, 2] scale: [8, 16, 32] feat_stride: 16 }",
    )
)
UNET = (
    image("1, 1, 100, 100")
    + conv("c1", "data", "num_output: 4 kernel_size: 3 pad: 1")
    + pool("p1", "c1", "kernel_size: 2 stride: 2")
    + conv("c2", "p1", "num_output: 8 kernel_size: 3 pad: 1")
    + pool("p2", "c2", "kernel_size: 2 stride: 2")
    + conv("c3", "p2", "num_output: 8 kernel_size: 3 pad: 1")
    + pool("p3", "c3", "kernel_size: 2 stride: 2")
    + conv("up3", "p3", "num_output: 8 kernel_size: 2 stride: 2", "Deconvolution")
    + layer("joined", "Concat", "up3 c3")
)
CASES = (
    Case("AlexNet with pictures of 256×256", image("1, 3, 256, 256") + ALEXNET % "group: 2", ALEXNET_WEIGHTS),
    Case("AlexNet with CIFAR's pictures", image("1, 3, 32, 32") + ALEXNET % "group: 2", ALEXNET_WEIGHTS),
    Case("`group: 2` left out", image("1, 3, 227, 227") + ALEXNET % "", ALEXNET_WEIGHTS),
    Case("10 classes, weights for 1000", image("1, 3, 227, 227") + TEN_CLASSES, ALEXNET_WEIGHTS),
    Case(
        "pad on a 1×1 reduction",
        image("1, 64, 7, 7", "pool5")
        + conv("reduce", "pool5", "num_output: 32 kernel_size: 1 pad: 1")
        + product("fc6", "reduce", 128),
        {"reduce": [(64, 64, 1, 1), (64,)], "fc6": [(128, 3136), (128,)]},
    ),
    Case("grey pictures for a colour net", image("1, 1, 227, 227") + ALEXNET % "group: 2", ALEXNET_WEIGHTS),
    Case(
        "pooling stride forgotten",
        image("1, 3, 227, 227")
        + (ALEXNET % "group: 2").replace(
            'top: "pool2" pooling_param { kernel_size: 3 stride: 2', 'top: "pool2" pooling_param { kernel_size: 3'
        ),
        ALEXNET_WEIGHTS,
    ),
    Case(
        "all layers renamed for a new project",
        image("1, 3, 32, 32")
        + BLOCK.replace('"conv1"', '"my_conv1"').replace('"bn1"', '"my_bn1"').replace('"scale1"', '"my_scale1"'),
        BLOCK_WEIGHTS,
    ),
    Case(
        "BatchNorm copied without its Scale",
        image("1, 3, 32, 32")
        + conv("conv1", "data", "num_output: 16 kernel_size: 3 pad: 1")
        + layer("bn1", "BatchNorm", "conv1")
        + layer("relu1", "ReLU", "bn1"),
        BLOCK_WEIGHTS,
    ),
    Case(
        "NVIDIA's weights in BVLC's net",
        image("1, 3, 32, 32") + BLOCK,
        {"conv1": BLOCK_WEIGHTS["conv1"], "bn1": [(16,), (16,), (1,), (16,), (16,)]},
    ),
    Case(
        "fully convolutional weights in fc6",
        image("1, 8, 7, 7") + product("fc6", "data", 16),
        {"fc6": [(16, 8, 7, 7), (16,)]},
    ),
    Case(
        "SSD for 9 classes, weights for 21",
        image("1, 3, 32, 32") + SSD % {"conf": 36, "classes": 9, "ratios": "2"},
        SSD_WEIGHTS,
    ),
    Case(
        "another aspect ratio in a PriorBox",
        image("1, 3, 32, 32") + SSD % {"conf": 84, "classes": 21, "ratios": "[2, 3]"},
        SSD_WEIGHTS,
    ),
    Case("12 anchors in the file, 9 in the net", RPN, {"cls": [(24, 8, 1, 1), (24,)], "box": [(48, 8, 1, 1), (48,)]}),
    Case("Crop's offset too large", image("1, 3, 32, 32") + FCN % 19),
    Case("one-hot labels", SCORES % 1 + image("2, 5, 8, 8", "label") + layer("loss", "SoftmaxWithLoss", "score label")),
    Case(
        "label maps larger than the scores",
        SCORES % 3 + image("2, 1, 8, 8", "label") + layer("loss", "SoftmaxWithLoss", "score label"),
    ),
    Case(
        "class numbers for a sigmoid loss",
        image("2, 6")
        + product("fc", "data", 5)
        + image("2, 1", "label")
        + layer("loss", "SigmoidCrossEntropyLoss", "fc label"),
    ),
    Case("channels last, as TensorFlow has them", image("1, 227, 227, 3") + ALEXNET % "group: 2", ALEXNET_WEIGHTS),
    Case("a picture without a batch", image("3, 227, 227") + ALEXNET % "group: 2", ALEXNET_WEIGHTS),
    Case(
        "a Permute the wrong way round",
        image("1, 32, 32, 3")
        + layer("p", "Permute", "data", "permute_param { order: [0, 2, 3, 1] }")
        + conv("conv1", "p", "num_output: 8 kernel_size: 5"),
        {"conv1": [(8, 3, 5, 5), (8,)]},
    ),
    Case(
        "words of another length for an LSTM",
        image("6, 2, 100")
        + image("6, 2", "cont")
        + layer("lstm", "LSTM", "data cont", "recurrent_param { num_output: 16 }"),
        {"lstm": [(64, 300), (64,), (64, 16)]},
    ),
    Case(
        "ReLU where the file has PReLU",
        image("1, 3, 8, 8") + conv("conv1", "data", "num_output: 6 kernel_size: 1") + layer("relu1", "ReLU", "conv1"),
        {"conv1": [(6, 3, 1, 1), (6,)], "relu1": [(6,)]},
    ),
    Case(
        "two layers renamed, the others not",
        image("1, 3, 32, 32") + BLOCK.replace('"conv1"', '"first"').replace('"scale1"', '"factors"'),
        BLOCK_WEIGHTS,
    ),
    Case(
        "SSD: `flip` off",
        (image("1, 3, 32, 32") + SSD % {"conf": 84, "classes": 21, "ratios": "2"}).replace("flip: true", "flip: false"),
        SSD_WEIGHTS,
    ),
    Case("U-Net with 100×100", UNET),
    Case(
        "one target for three outputs of a regression",
        image("4, 8") + product("fc", "data", 3) + image("4, 1", "label") + layer("loss", "EuclideanLoss", "fc label"),
    ),
    Case(
        "the data layer is for TRAIN alone",
        'layer { name: "data" type: "Data" top: "data" include { phase: TRAIN } }\n' + BLOCK,
    ),
    Case("a brace that is never closed", image("1, 3, 32, 32") + BLOCK[:-3] + layer("fc", "InnerProduct", "relu1")),
    Case(
        "num_output beside its block",
        image("1, 3, 32, 32") + 'layer { name: "c" type: "Convolution" bottom: "data" top: "c" '
        "num_output: 8 kernel_size: 3 }",
    ),
)


def write(case: Case, folder: Path) -> tuple[Path, Path | None]:
    """The net and its weights, which are zeros."""
    net, weights = folder / "net.prototxt", folder / "w.caffemodel"
    net.write_text(case.net)
    if not case.weights:
        return net, None
    layers = (
        (name, "", [(shape, np.zeros(shape, np.float32).ravel()) for shape in shapes])
        for name, shapes in case.weights.items()
    )
    with weights.open("wb") as file:
        write_caffemodel(file, "", layers)
    return net, weights


def said(net: Path, weights: Path | None) -> tuple[str, str]:
    """The cause that inspect tells first, and its first cure."""
    try:
        report = caffeconv.inspect(net, weights)
    except CaffeconvError as error:
        return str(error).replace(f"{net.parent}/", ""), ""
    first = next((d for d in report.diagnostics if d.severity != "note"), None)
    lines = [line.strip() for line in (first.hint if first else "").splitlines()]
    causes = [line for line in lines if not line.startswith(("file:", "net:", "how ")) and "  " not in line]
    causes += [" ".join(line.replace("←", "–").split()) for line in lines if "←" in line]
    cause = causes[0] if causes else first.message if first else ""
    return cause.replace(f"{net.parent}/", ""), report.cures[0].text(4).replace("\n", " ") if report.cures else ""


def short(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS].rsplit(' ', 1)[0]} …"


def main() -> None:
    print("| what was broken | what inspect says first | the first cure | s |\n|---|---|---|---|")
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            net, weights = write(case, Path(folder))
            start = time.perf_counter()
            cause, cure = said(net, weights)
            seconds = time.perf_counter() - start
        print(f"| {case.words} | {short(cause)} | {f'`{short(cure)}`' if cure else ''} | {seconds:.2f} |")


if __name__ == "__main__":
    main()
