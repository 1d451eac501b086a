"""A table of classes that are imported when they are asked for: a net has a dozen of the two hundred layer types."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, MutableMapping

from caffeconv.ir.layer import Layer

OTHER_NAMES: Mapping[str, str] = {
    "avepooling": "Pooling", "avgpool": "Pooling", "averagepooling": "Pooling", "batchnormalization": "BatchNorm",
    "bn": "BatchNorm", "conv": "Convolution", "conv2d": "Convolution", "crossentropyloss": "SoftmaxWithLoss",
    "deconv": "Deconvolution", "dense": "InnerProduct", "depthwiseconv": "DepthwiseConvolution",
    "eltwiseproduct": "Eltwise", "euclidean": "EuclideanLoss", "fc": "InnerProduct", "flattening": "Flatten",
    "fullyconnected": "InnerProduct", "hdf5": "HDF5Data", "hsigmoid": "HardSigmoid", "hswish": "HardSwish",
    "innerprod": "InnerProduct", "leakyrelu": "ReLU",
    "linear": "InnerProduct", "localresponsenormalization": "LRN", "maxpool": "Pooling", "maxpooling": "Pooling",
    "norm": "LRN", "pool": "Pooling", "rectifiedlinear": "ReLU",
    "softmaxloss": "SoftmaxWithLoss", "transposedconvolution": "Deconvolution",
}  # fmt: skip
"""What layers of this kind are called elsewhere, in small letters and digits alone → Caffe's type."""

_TYPES_OF_FORKS = {
    "CMU's caffe_rtpose (github.com/CMU-Perceptual-Computing-Lab/caffe_rtpose)": "Maximum Switch",
    "DeepLab 1 (bitbucket.org/deeplab/deeplab-public)": "DenseCRF",
    "FlowNet 2.0 (github.com/lmb-freiburg/flownet2)": "Accum",
    "MobileNet-YOLO (github.com/eric612/MobileNet-YOLO)": "AssistedExcitation",
    "MyCaffe, a program of its own that reads prototxt (github.com/MyCaffe/MyCaffe)": (
        "ChannelEmbedding DataSequence DataTemporal Debug Decode GLU GateAddNorm Knn LayerNorm LstmAttention LstmSimple "
        "MemoryLoss MultiheadAttentionInterp Normalization2 QuantileAccuracy ReshapeTemporal SoftmaxCrossEntropy2Loss "
        "TokenizedData TokenizedDataPairs TransformerBlock UnPooling VarSelNet"
    ),
    "NVIDIA's Caffe, where TensorRT computes the whole net (github.com/NVIDIA/caffe)": "TRT",
    "PDB-ConvLSTM (github.com/shenjianbing/PDB-ConvLSTM)": "ConvLSTM",
    "Ristretto (github.com/pmgysel/caffe), which computes it on a GPU alone": "LRNRistretto",
    "Synopsys' Caffe (github.com/foss-for-synopsys-dwc-arc-processors/synopsys-caffe)": "ICNetSubgraph",
    "TMM2018_DRFN (github.com/Mhaiyang/TMM2018_DRFN)": "PwAttend",
    "TSN's Caffe (github.com/yjxiong/caffe)": "BatchReduction Gather Scatter",
    "Xilinx's Caffe of Vitis AI (github.com/Xilinx/Vitis-AI)": (
        "BatchNormFixed ConvolutionBNFixed DeconvolutionFixed DetectionOutputRefine NormalizeFixed PReLUFixed ScaleFixed"
    ),
    "autocolorize (github.com/gustavla/autocolorize)": (
        "BgrToHsv BgrToLab BgrToMunsell ExtendedImageData SparseHistogramExtractor SparseHypercolumnExtractor StripDecimals "
        "UniformToHistogram"
    ),
    "happynear's caffe-windows (github.com/happynear/caffe-windows)": "Slope SoftTruncation SubRegion Transformer",
    "jolibrain's Caffe (github.com/jolibrain/caffe)": "SparseInnerProduct",
}
KNOWN_ELSEWHERE: Mapping[str, str] = {kind: fork for fork, kinds in _TYPES_OF_FORKS.items() for kind in kinds.split()}
"""Types that are not known here → the fork whose they are."""


class LayerTypes(MutableMapping[str, type[Layer]]):
    """Classes by layer type. `rows`: for each type its class, as `module.Class` of `caffeconv.layers`."""

    def __init__(self, rows: Mapping[str, str]) -> None:
        self._rows = dict(rows)
        self._classes: dict[str, type[Layer]] = {}

    def __getitem__(self, type_name: str) -> type[Layer]:
        if type_name not in self._classes:
            module, _, name = self._rows[type_name].partition(".")
            self._classes[type_name] = getattr(importlib.import_module(f"caffeconv.layers.{module}"), name)
        return self._classes[type_name]

    def __setitem__(self, type_name: str, kind: type[Layer]) -> None:
        self._classes[type_name] = kind

    def __delitem__(self, type_name: str) -> None:
        if type_name in self._rows:
            raise KeyError(f"{type_name} is a type of caffeconv's own")
        del self._classes[type_name]

    def __contains__(self, type_name: object) -> bool:
        return type_name in self._rows or type_name in self._classes  # without importing its class

    def __iter__(self) -> Iterator[str]:
        yield from self._rows
        yield from self._classes.keys() - self._rows.keys()

    def __len__(self) -> int:
        return len(self._rows.keys() | self._classes.keys())

    @property
    def registered(self) -> Mapping[str, type[Layer]]:
        """The types that came from outside."""
        return {name: kind for name, kind in self._classes.items() if name not in self._rows}
