"""Every layer type that caffeconv knows, in one table. A new type is a class, a line here and a fixture."""

from __future__ import annotations

from caffeconv.layers.base import Layer
from caffeconv.layers.convolution import Convolution, Deconvolution, Im2col
from caffeconv.layers.data import DummyData, Input, MemoryData, Parameter
from caffeconv.layers.elementwise import (
    BNLL, ELU, AbsVal, Clip, Dropout, Eltwise, Exp, Log, Power, PReLU, ReLU, Sigmoid, Swish, TanH, Threshold,
)  # fmt: skip
from caffeconv.layers.inner_product import Embed, InnerProduct
from caffeconv.layers.normalization import LRN, MVN, BatchNorm
from caffeconv.layers.pooling import SPP, Pooling
from caffeconv.layers.scale import Bias, Scale
from caffeconv.layers.shape import (
    BatchReindex, Concat, Crop, Filter, Flatten, Permute, Reshape, Silence, Slice, Split, Tile,
)  # fmt: skip
from caffeconv.layers.softmax import ArgMax, Reduction, Softmax

LAYERS: dict[str, type[Layer]] = {
    "AbsVal": AbsVal,
    "ArgMax": ArgMax,
    "BNLL": BNLL,
    "BatchNorm": BatchNorm,
    "BatchReindex": BatchReindex,
    "Bias": Bias,
    "Clip": Clip,
    "Concat": Concat,
    "Convolution": Convolution,
    "Crop": Crop,
    "Deconvolution": Deconvolution,
    "Dropout": Dropout,
    "DummyData": DummyData,
    "ELU": ELU,
    "Eltwise": Eltwise,
    "Embed": Embed,
    "Exp": Exp,
    "Filter": Filter,
    "Flatten": Flatten,
    "Im2col": Im2col,
    "InnerProduct": InnerProduct,
    "Input": Input,
    "LRN": LRN,
    "Log": Log,
    "MVN": MVN,
    "MemoryData": MemoryData,
    "PReLU": PReLU,
    "Parameter": Parameter,
    "Permute": Permute,
    "Pooling": Pooling,
    "Power": Power,
    "ReLU": ReLU,
    "Reduction": Reduction,
    "Reshape": Reshape,
    "SPP": SPP,
    "Scale": Scale,
    "Sigmoid": Sigmoid,
    "Silence": Silence,
    "Slice": Slice,
    "Softmax": Softmax,
    "Split": Split,
    "Swish": Swish,
    "TanH": TanH,
    "Threshold": Threshold,
    "Tile": Tile,
}
