"""Every layer type that caffeconv knows, in one table. A new type is a class, a line here and a fixture."""

from __future__ import annotations

from caffeconv.ir.layer import Layer
from caffeconv.layers.accuracy import Accuracy
from caffeconv.layers.activations import (
    BNLL,
    ELU,
    AbsVal,
    Clip,
    Cosine,
    Dropout,
    Exp,
    Log,
    Mish,
    Power,
    PReLU,
    ReLU,
    SeLu,
    SeLuDropout,
    Sigmoid,
    Swish,
    TanH,
    Threshold,
)
from caffeconv.layers.bn import BN, CuDNNBatchNorm
from caffeconv.layers.bounded_activations import HardSigmoid, HardSwish, ReLU6, ReLUX, Sparsify, Truncation
from caffeconv.layers.box_output import BoxGroupOutput, BoxOutput, DecodeBBox, FrcnnOutput, ScaleRoute
from caffeconv.layers.broadcasting import Add, ChannelScale, Div, Mul, Pairwise, Sub
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
from caffeconv.layers.deformable_convolution import DeformableConvolution
from caffeconv.layers.dense_block import DenseBlock
from caffeconv.layers.detection import DetectionOutput
from caffeconv.layers.distances import InnerDistance, Mean
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
from caffeconv.layers.meanfield import MultiStageMeanfield
from caffeconv.layers.normalization import LRN, MVN, BatchNorm
from caffeconv.layers.norms import L2Norm, L2Normalize, Normalization, Normalize, NormL2
from caffeconv.layers.optical_flow import ChannelNorm, Correlation, FlowWarp, Resample
from caffeconv.layers.peaks import Nms
from caffeconv.layers.pooling import SPP, Pooling
from caffeconv.layers.prior_boxes import PriorBox, PriorBoxClustered
from caffeconv.layers.proposals import Proposal, PythonProposal
from caffeconv.layers.python import Python
from caffeconv.layers.rearranging import BatchToSpaceND, DepthToSpace, Flip, Reorg, SpaceToBatchND, SpaceToDepth
from caffeconv.layers.recurrent import LSTM, RNN, LSTMUnit
from caffeconv.layers.reductions import (
    Gram,
    ReduceL1,
    ReduceL2,
    ReduceLogsumexp,
    ReduceMax,
    ReduceMean,
    ReduceMin,
    ReduceProd,
    ReduceSum,
)
from caffeconv.layers.resampling import ImResize, Interp, ShuffleChannel, Upsample
from caffeconv.layers.resizing import Downsample, ResizeBilinear, ResizeNearestNeighbor, UpsampleDarknet
from caffeconv.layers.ristretto import ConvolutionRistretto, DeconvolutionRistretto, FcRistretto
from caffeconv.layers.roi_sampling import MaskPooling, MaskResize, PSROIAlign, ROIAlign, ROIWarping
from caffeconv.layers.rois import PSROIPooling, ROIPooling
from caffeconv.layers.scale import Axpy, Bias, Scale
from caffeconv.layers.select import BatchReindex, Filter
from caffeconv.layers.sequences import ContinuationIndicator, ReverseTime
from caffeconv.layers.shape import Flatten, Pad, Permute, Reshape, Reverse, Squeeze, Tile, Transpose
from caffeconv.layers.softmax import ArgMax, Reduction, Softmax
from caffeconv.layers.spatial_attention import PointwiseSpatialAttention
from caffeconv.layers.unpooling import Unpooling
from caffeconv.layers.video import Convolution3D, Deconvolution3D, Pooling3D
from caffeconv.layers.yolo_output import YoloDetectionOutput, Yolov3DetectionOutput

LAYERS: dict[str, type[Layer]] = {
    "AbsVal": AbsVal,
    "Accuracy": Accuracy,
    "Add": Add,
    "ArgMax": ArgMax,
    "AutoCrop": Crop,
    "Axpy": Axpy,
    "BN": BN,
    "BNLL": BNLL,
    "BatchNorm": BatchNorm,
    "BatchReindex": BatchReindex,
    "BatchToSpaceND": BatchToSpaceND,
    "Bias": Bias,
    "BoxGroupOutput": BoxGroupOutput,
    "BoxOutput": BoxOutput,
    "CTCGreedyDecoder": CTCGreedyDecoder,
    "ChannelNorm": ChannelNorm,
    "ChannelScale": ChannelScale,
    "Clip": Clip,
    "Concat": Concat,
    "ContinuationIndicator": ContinuationIndicator,
    "ContrastiveLoss": ContrastiveLoss,
    "Convolution": Convolution,
    "Convolution3D": Convolution3D,
    "ConvolutionDepthwise": ConvolutionDepthwise,
    "ConvolutionRistretto": ConvolutionRistretto,
    "Correlation": Correlation,
    "Cosine": Cosine,
    "Crop": Crop,
    "CuDNNBatchNorm": CuDNNBatchNorm,
    "Data": Data,
    "DecodeBBox": DecodeBBox,
    "Deconvolution": Deconvolution,
    "Deconvolution3D": Deconvolution3D,
    "DeconvolutionRistretto": DeconvolutionRistretto,
    "DeformableConvolution": DeformableConvolution,
    "DenseBlock": DenseBlock,
    "DepthToSpace": DepthToSpace,
    "DepthwiseConvolution": Convolution,
    "DetectionOutput": DetectionOutput,
    "Div": Div,
    "Downsample": Downsample,
    "Dropout": Dropout,
    "DummyData": DummyData,
    "ELU": ELU,
    "Eltwise": Eltwise,
    "Embed": Embed,
    "EuclideanLoss": EuclideanLoss,
    "Exp": Exp,
    "FcRistretto": FcRistretto,
    "Filter": Filter,
    "Flatten": Flatten,
    "Flip": Flip,
    "FlowWarp": FlowWarp,
    "FrcnnOutput": FrcnnOutput,
    "Gram": Gram,
    "HDF5Data": HDF5Data,
    "HDF5Output": HDF5Output,
    "HardSigmoid": HardSigmoid,
    "HardSwish": HardSwish,
    "HingeLoss": HingeLoss,
    "Im2col": Im2col,
    "ImResize": ImResize,
    "ImageData": ImageData,
    "InfogainLoss": InfogainLoss,
    "InnerDistance": InnerDistance,
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
    "MaskPooling": MaskPooling,
    "MaskResize": MaskResize,
    "Mean": Mean,
    "MemoryData": MemoryData,
    "Mish": Mish,
    "Mul": Mul,
    "MultiStageMeanfield": MultiStageMeanfield,
    "MultinomialLogisticLoss": MultinomialLogisticLoss,
    "Nms": Nms,
    "NormL2": NormL2,
    "Normalization": Normalization,
    "Normalize": Normalize,
    "PReLU": PReLU,
    "PSROIAlign": PSROIAlign,
    "PSROIPooling": PSROIPooling,
    "Pad": Pad,
    "Pairwise": Pairwise,
    "Parameter": Parameter,
    "Permute": Permute,
    "PointwiseSpatialAttention": PointwiseSpatialAttention,
    "Pooling": Pooling,
    "Pooling3D": Pooling3D,
    "Power": Power,
    "PriorBox": PriorBox,
    "PriorBoxClustered": PriorBoxClustered,
    "Proposal": Proposal,
    "Python": Python,
    "RNN": RNN,
    "ROIAlign": ROIAlign,
    "ROIPooling": ROIPooling,
    "ROIWarping": ROIWarping,
    "ReLU": ReLU,
    "ReLU6": ReLU6,
    "ReLUX": ReLUX,
    "ReduceL1": ReduceL1,
    "ReduceL2": ReduceL2,
    "ReduceLogsumexp": ReduceLogsumexp,
    "ReduceMax": ReduceMax,
    "ReduceMean": ReduceMean,
    "ReduceMin": ReduceMin,
    "ReduceProd": ReduceProd,
    "ReduceSum": ReduceSum,
    "Reduction": Reduction,
    "Reorg": Reorg,
    "Resample": Resample,
    "Reshape": Reshape,
    "ResizeBilinear": ResizeBilinear,
    "ResizeNearestNeighbor": ResizeNearestNeighbor,
    "Reverse": Reverse,
    "ReverseTime": ReverseTime,
    "SPP": SPP,
    "Scale": Scale,
    "ScaleRoute": ScaleRoute,
    "SeLUDropout": SeLuDropout,
    "SeLu": SeLu,
    "SeLuDropout": SeLuDropout,
    "ShuffleChannel": ShuffleChannel,
    "Sigmoid": Sigmoid,
    "SigmoidCrossEntropyLoss": SigmoidCrossEntropyLoss,
    "Silence": Silence,
    "Slice": Slice,
    "SmoothL1Loss": SmoothL1Loss,
    "Softmax": Softmax,
    "SoftmaxWithLoss": SoftmaxWithLoss,
    "SpaceToBatchND": SpaceToBatchND,
    "SpaceToDepth": SpaceToDepth,
    "Sparsify": Sparsify,
    "Split": Split,
    "Squeeze": Squeeze,
    "Sub": Sub,
    "Swish": Swish,
    "TanH": TanH,
    "Threshold": Threshold,
    "Tile": Tile,
    "Transpose": Transpose,
    "Truncation": Truncation,
    "Unpooling": Unpooling,
    "Upsample": Upsample,
    "UpsampleDarknet": UpsampleDarknet,
    "WindowData": WindowData,
    "YoloDetectionOutput": YoloDetectionOutput,
    "Yolov3DetectionOutput": Yolov3DetectionOutput,
}

PYTHON_LAYERS: dict[tuple[str, str], type[Layer]] = {("rpn.proposal_layer", "ProposalLayer"): PythonProposal}
"""Module and class of layers in Python whose published code has a rule here, so that nobody's code has to run."""


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
