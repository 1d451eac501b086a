"""Every layer type that caffeconv knows, in one table. A new type is a class, a line here and a fixture."""

from __future__ import annotations

from caffeconv.ir.layer import Layer
from caffeconv.layers.accuracy import Accuracy
from caffeconv.layers.activations import (
    BNLL,
    ELU,
    AbsVal,
    Clip,
    Dropout,
    Exp,
    Log,
    Mish,
    Power,
    PReLU,
    ReLU,
    ReLU6,
    ReLUX,
    SeLu,
    Sigmoid,
    Swish,
    TanH,
    Threshold,
)
from caffeconv.layers.bn import BN, CuDNNBatchNorm
from caffeconv.layers.concat_slice import Concat, Silence, Slice, Split
from caffeconv.layers.contrastive_loss import ContrastiveLoss
from caffeconv.layers.convolution import Convolution, Deconvolution, Im2col
from caffeconv.layers.crop import Crop
from caffeconv.layers.ctc import CTCGreedyDecoder
from caffeconv.layers.data import (
    Data,
    DummyData,
    HDF5Data,
    HDF5Output,
    ImageData,
    Input,
    MemoryData,
    Parameter,
    WindowData,
)  # fmt: skip
from caffeconv.layers.dense_block import DenseBlock
from caffeconv.layers.detection import DetectionOutput, PriorBox
from caffeconv.layers.eltwise import Eltwise
from caffeconv.layers.infogain_loss import InfogainLoss
from caffeconv.layers.inner_product import Embed, InnerProduct
from caffeconv.layers.local import ConvolutionDepthwise, Local
from caffeconv.layers.losses import (
    EuclideanLoss,
    HingeLoss,
    MultinomialLogisticLoss,
    SigmoidCrossEntropyLoss,
    SmoothL1Loss,
    SoftmaxWithLoss,
)
from caffeconv.layers.lstm import Lstm
from caffeconv.layers.normalization import LRN, MVN, BatchNorm
from caffeconv.layers.norms import L2Norm, L2Normalize, Normalization, Normalize, NormL2
from caffeconv.layers.pooling import SPP, Pooling
from caffeconv.layers.python import Python
from caffeconv.layers.recurrent import LSTM, RNN, LSTMUnit
from caffeconv.layers.resampling import Interp, Reorg, ShuffleChannel, Upsample
from caffeconv.layers.rois import PSROIPooling, ROIPooling
from caffeconv.layers.scale import Axpy, Bias, Scale
from caffeconv.layers.select import BatchReindex, Filter
from caffeconv.layers.sequences import ContinuationIndicator, ReverseTime
from caffeconv.layers.shape import Flatten, Permute, Reshape, Reverse, Tile, Transpose
from caffeconv.layers.softmax import ArgMax, Reduction, Softmax
from caffeconv.layers.video import Convolution3D, Pooling3D

LAYERS: dict[str, type[Layer]] = {
    "AbsVal": AbsVal,
    "Accuracy": Accuracy,
    "ArgMax": ArgMax,
    "Axpy": Axpy,
    "BN": BN,
    "BNLL": BNLL,
    "BatchNorm": BatchNorm,
    "BatchReindex": BatchReindex,
    "Bias": Bias,
    "CTCGreedyDecoder": CTCGreedyDecoder,
    "Clip": Clip,
    "Concat": Concat,
    "ContinuationIndicator": ContinuationIndicator,
    "ContrastiveLoss": ContrastiveLoss,
    "Convolution": Convolution,
    "Convolution3D": Convolution3D,
    "ConvolutionDepthwise": ConvolutionDepthwise,
    "Crop": Crop,
    "CuDNNBatchNorm": CuDNNBatchNorm,
    "Data": Data,
    "Deconvolution": Deconvolution,
    "DenseBlock": DenseBlock,
    "DepthwiseConvolution": Convolution,
    "DetectionOutput": DetectionOutput,
    "Dropout": Dropout,
    "DummyData": DummyData,
    "ELU": ELU,
    "Eltwise": Eltwise,
    "Embed": Embed,
    "EuclideanLoss": EuclideanLoss,
    "Exp": Exp,
    "Filter": Filter,
    "Flatten": Flatten,
    "HDF5Data": HDF5Data,
    "HDF5Output": HDF5Output,
    "HingeLoss": HingeLoss,
    "Im2col": Im2col,
    "ImageData": ImageData,
    "InfogainLoss": InfogainLoss,
    "InnerProduct": InnerProduct,
    "Input": Input,
    "Interp": Interp,
    "L2Norm": L2Norm,
    "L2Normalize": L2Normalize,
    "LRN": LRN,
    "LSTM": LSTM,
    "LSTMUnit": LSTMUnit,
    "Local": Local,
    "Log": Log,
    "Lstm": Lstm,
    "MVN": MVN,
    "MemoryData": MemoryData,
    "Mish": Mish,
    "MultinomialLogisticLoss": MultinomialLogisticLoss,
    "NormL2": NormL2,
    "Normalization": Normalization,
    "Normalize": Normalize,
    "PReLU": PReLU,
    "PSROIPooling": PSROIPooling,
    "Parameter": Parameter,
    "Permute": Permute,
    "Pooling": Pooling,
    "Pooling3D": Pooling3D,
    "Power": Power,
    "PriorBox": PriorBox,
    "Python": Python,
    "RNN": RNN,
    "ROIPooling": ROIPooling,
    "ReLU": ReLU,
    "ReLU6": ReLU6,
    "ReLUX": ReLUX,
    "Reduction": Reduction,
    "Reorg": Reorg,
    "Reshape": Reshape,
    "Reverse": Reverse,
    "ReverseTime": ReverseTime,
    "SPP": SPP,
    "Scale": Scale,
    "SeLu": SeLu,
    "ShuffleChannel": ShuffleChannel,
    "Sigmoid": Sigmoid,
    "SigmoidCrossEntropyLoss": SigmoidCrossEntropyLoss,
    "Silence": Silence,
    "Slice": Slice,
    "SmoothL1Loss": SmoothL1Loss,
    "Softmax": Softmax,
    "SoftmaxWithLoss": SoftmaxWithLoss,
    "Split": Split,
    "Swish": Swish,
    "TanH": TanH,
    "Threshold": Threshold,
    "Tile": Tile,
    "Transpose": Transpose,
    "Upsample": Upsample,
    "WindowData": WindowData,
}


def register_layer(kind: type[Layer], name: str | None = None) -> type[Layer]:
    """Adds a layer type from outside, under its class's name or `name`; gives the class back, so it can decorate one.

    Raises TypeError for what is no `Layer`, ValueError for a type that caffeconv has already.
    """
    if not (isinstance(kind, type) and issubclass(kind, Layer)):
        raise TypeError(f"{kind!r} is no class derived from caffeconv.ir.layer.Layer")
    name = name or kind.__name__
    if LAYERS.get(name, kind) is not kind:
        raise ValueError(f"there is a layer type {name} already: {LAYERS[name].__module__}.{LAYERS[name].__qualname__}")
    LAYERS[name] = kind
    return kind
