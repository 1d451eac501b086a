"""Every layer's gradient against its own forward pass: the derivative along a random direction, by differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from support.golden_cases import forward
from support.small_nets import Array, write_net

import caffeconv
from caffeconv.caffe_format.terms import Phase

STEP = 1e-2
Made = Callable[[np.random.Generator, tuple[int, ...]], Array]


def spread(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Values at least 0.05 from each other and from 0, so that no step crosses a kink."""
    count = int(np.prod(shape))
    values = (np.arange(count) - count // 2 + 0.5) * 0.1
    return rng.permutation(values).reshape(shape).astype(np.float32)


def smooth(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.normal(0, 0.7, shape).astype(np.float32)


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.uniform(0.5, 2, shape).astype(np.float32)


def continues(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Sequences that start with the first step, so that no pass hangs on the one before."""
    values = (rng.random(shape) < 0.7).astype(np.float32)
    values[0] = 0
    values[1] = 1
    return values


def rows(*numbers: int) -> Made:
    return lambda rng, shape: np.array(numbers, np.float32).reshape(shape)


@dataclass(frozen=True)
class Rule:
    """A layer with bottoms x0, x1, …; `held` ones are no variables of the derivative."""

    type: str
    shapes: tuple[tuple[int, ...], ...]
    extra: str = ""
    made: Made = smooth
    held: dict[int, Made] = field(default_factory=dict)
    tops: int = 1
    smooth_tops: int | None = None
    """How many of the tops have a gradient; None: all."""
    phase: Phase = "TEST"
    forced: bool = True
    """Whether Caffe takes `force_backward` with this layer; else Scale layers below make it learn."""
    learnt: tuple[int, ...] | None = None
    """Which parameters have a gradient; None: all."""
    set_params: tuple[float, ...] = ()
    """Values for the first parameters, instead of their fillers'."""

    @property
    def text(self) -> str:
        bottom = "s" if not self.forced else "x"
        names = "".join(f' bottom: "{"x" if i in self.held else bottom}{i}"' for i in range(len(self.shapes)))
        names += "".join(f' top: "y{i}"' for i in range(self.tops))
        return f'layer {{ name: "l" type: "{self.type}"{names} {self.extra} }}\n'

    @property
    def below(self) -> str:
        if self.forced:
            return ""
        free = [i for i in range(len(self.shapes)) if i not in self.held]
        extra = "scale_param { axis: 0 num_axes: 0 }"
        return "".join(f'layer {{ name: "s{i}" type: "Scale" bottom: "x{i}" top: "s{i}" {extra} }}\n' for i in free)

    @property
    def losses(self) -> list[str]:
        if "loss_weight" in self.extra:
            return []
        extra = "reduction_param { operation: SUMSQ coeff: 0.5 }"
        return [
            f'layer {{ name: "r{i}" type: "Reduction" bottom: "y{i}" top: "r{i}" loss_weight: {i + 1} {extra} }}\n'
            for i in range(self.tops if self.smooth_tops is None else self.smooth_tops)
        ]


X = ((2, 3, 5, 4),)
GAUSSIAN = 'weight_filler { type: "gaussian" std: 0.5 } bias_filler { type: "gaussian" std: 0.5 }'
REGIONS = (0, 0, 0, 9, 12, 1, 2, 3, 6, 4, 1, 8, 8, 30, 40, 0, -4, 1, 5, 5)  # overlapping, beyond the edge, very small
FILLED = 'filler { type: "gaussian" std: 0.5 }'
CONV = f"num_output: 4 {GAUSSIAN}"

RULES = {
    "channel norm": Rule("ChannelNorm", X, made=spread),
    "unpooling without mask": Rule(
        "Unpooling", ((2, 3, 3, 4),), "unpooling_param { kernel_size: 2 stride: 2 unpool_h: 6 unpool_w: 8 }"
    ),
    "unpooling ave": Rule(
        "Unpooling", ((2, 3, 3, 4),), "unpooling_param { unpool: AVE kernel_size: 3 stride: 2 unpool_h: 6 unpool_w: 9 }"
    ),
    "interp like a blob": Rule(
        "Interp", ((2, 3, 3, 4), (1, 1, 5, 7)), "interp_param { use_blob_size: true }", held={1: smooth}
    ),
    "abs": Rule("AbsVal", X, made=spread),
    "bnll": Rule("BNLL", X),
    "sigmoid": Rule("Sigmoid", X),
    "tanh": Rule("TanH", X),
    "scale tanh": Rule("ScaleTanH", X, "scale_tanh_param { init_scale: 1.5 }"),
    "relu": Rule("ReLU", X, made=spread),
    "relu leaky": Rule("ReLU", X, "relu_param { negative_slope: 0.3 }", spread),
    "prelu": Rule("PReLU", X, f"prelu_param {{ {FILLED} }}", spread),
    "prelu 2-D": Rule("PReLU", ((4, 6),), f"prelu_param {{ {FILLED} }}", spread),
    "prelu shared": Rule("PReLU", X, "prelu_param { channel_shared: true }", spread),
    "elu": Rule("ELU", X, "elu_param { alpha: 0.7 }", spread),
    "exp": Rule("Exp", X, "exp_param { base: 2 scale: 0.5 shift: 0.3 }"),
    "exp e": Rule("Exp", X),
    "log": Rule("Log", X, "log_param { base: 10 scale: 2 shift: 0.5 }", positive),
    "power": Rule("Power", X, "power_param { power: 2.5 scale: 0.5 shift: 1 }", positive),
    "power 2": Rule("Power", X, "power_param { power: 2 scale: -0.5 shift: 1 }"),
    "power 1": Rule("Power", X, "power_param { scale: 3 shift: 1 }"),
    "power 0": Rule("Power", X, "power_param { power: 0 scale: 3 shift: 1 }"),
    "power -1": Rule("Power", X, "power_param { power: -1 scale: 2 }", positive),
    "clip": Rule("Clip", X, "clip_param { min: -1.0 max: 2.0 }", spread),
    "swish": Rule("Swish", X, "swish_param { beta: 1.5 }"),
    "dropout": Rule("Dropout", X),
    "dropout unscaled": Rule("Dropout", X, "dropout_param { scale_train: false dropout_ratio: 0.3 }"),
    "eltwise sum": Rule("Eltwise", X * 3, "eltwise_param { coeff: 1 coeff: -2 coeff: 0.5 }"),
    "eltwise product": Rule("Eltwise", X * 3, "eltwise_param { operation: PROD }"),
    "eltwise unstable product": Rule(
        "Eltwise", X * 2, "eltwise_param { operation: PROD stable_prod_grad: false }", positive
    ),
    "eltwise max": Rule("Eltwise", ((4, 6),) * 3, "eltwise_param { operation: MAX }"),
    "scale": Rule("Scale", X, f"scale_param {{ {FILLED} bias_term: true }}"),
    "scale axes": Rule("Scale", X, f"scale_param {{ axis: 1 num_axes: 2 {FILLED} }}"),
    "scale all": Rule("Scale", X, f"scale_param {{ axis: 0 num_axes: -1 {FILLED} bias_term: true }}"),
    "scale number": Rule("Scale", X, f"scale_param {{ axis: 0 num_axes: 0 {FILLED} }}"),
    "scale two": Rule("Scale", ((2, 3, 5, 4), (3, 5)), "scale_param { bias_term: true }"),
    "scale scalar": Rule("Scale", ((2, 3), ())),
    "bias": Rule("Bias", X),
    "bias two": Rule("Bias", ((2, 3, 5, 4), (2, 3)), "bias_param { axis: 0 }"),
    "inner product": Rule("InnerProduct", X, f"inner_product_param {{ num_output: 3 {GAUSSIAN} }}"),
    "merge crop": Rule("MergeCrop", ((2, 3, 2, 3), (2, 3, 4, 6)), "mergecrop_param { backward: [true, true] }"),
    "merge crop adds": Rule(
        "MergeCrop", ((2, 3, 2, 3), (2, 3, 4, 6)), "mergecrop_param { operation: ADD backward: [true, true] }"
    ),
    "inner product of bottoms": Rule(
        "InnerProduct", ((2, 3, 2), (4, 6)), f"inner_product_param {{ num_output: 1 {GAUSSIAN} }}"
    ),
    "inner product of bottoms axis": Rule(
        "InnerProduct", ((2, 3, 4), (3, 2, 2), (3,)), "inner_product_param { axis: 2 num_output: 9 }"
    ),
    "inner product 2-D": Rule("InnerProduct", ((4, 6),), f"inner_product_param {{ num_output: 3 {GAUSSIAN} }}"),
    "inner product axis": Rule("InnerProduct", X, f"inner_product_param {{ num_output: 3 axis: -1 {GAUSSIAN} }}"),
    "inner product transposed": Rule(
        "InnerProduct", X, f"inner_product_param {{ num_output: 3 transpose: true bias_term: false {GAUSSIAN} }}"
    ),
    "convolution": Rule("Convolution", X, f"convolution_param {{ {CONV} kernel_size: 3 pad: 1 }}"),
    "convolution odd": Rule(
        "Convolution", ((2, 4, 9, 8),),
        f"convolution_param {{ {CONV} group: 2 kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 3 pad_h: 1 pad_w: 0 }}",
    ),
    "convolution dilated": Rule(
        "Convolution", ((2, 4, 10, 9),),
        f"convolution_param {{ {CONV} group: 4 kernel_size: 3 dilation: 2 stride: 2 pad: 2 bias_term: false }}",
    ),
    "convolution stride over kernel": Rule(
        "Convolution", ((1, 2, 11, 9),), f"convolution_param {{ {CONV} kernel_size: 2 stride: 4 pad: 1 }}"
    ),
    "convolution 1-D": Rule("Convolution", ((2, 3, 9),), f"convolution_param {{ {CONV} kernel_size: 3 stride: 2 }}"),
    "convolution 3-D": Rule(
        "Convolution", ((1, 2, 4, 5, 3),), f"convolution_param {{ {CONV} kernel_size: 2 stride: 2 }}"
    ),
    "convolution axis": Rule(
        "Convolution", ((2, 3, 2, 5, 4),), f"convolution_param {{ {CONV} axis: 2 kernel_size: 3 }}"
    ),
    "convolution without space": Rule("Convolution", ((2, 3),), f"convolution_param {{ {CONV} kernel_size: 1 }}"),
    "convolution of two": Rule("Convolution", X * 2, f"convolution_param {{ {CONV} kernel_size: 3 }}", tops=2),
    "depthwise": Rule("ConvolutionDepthwise", X, f"convolution_param {{ kernel_size: 3 num_output: 3 {GAUSSIAN} }}"),
    "deconvolution": Rule("Deconvolution", X, f"convolution_param {{ {CONV} kernel_size: 4 stride: 2 pad: 1 }}"),
    "deconvolution odd": Rule(
        "Deconvolution", ((2, 4, 5, 4),),
        f"convolution_param {{ {CONV} group: 2 kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 3 pad_h: 1 dilation: 1 }}",
    ),
    "deconvolution dilated": Rule(
        "Deconvolution", ((1, 2, 4, 3),), f"convolution_param {{ {CONV} kernel_size: 3 dilation: 2 stride: 3 pad: 2 }}"
    ),
    "im2col": Rule("Im2col", X, "convolution_param { kernel_size: 3 stride: 2 pad: 1 }"),
    "pooling max": Rule("Pooling", X, "pooling_param { kernel_size: 3 stride: 2 pad: 1 }", spread),
    "pooling max beyond": Rule("Pooling", ((1, 2, 6, 7),), "pooling_param { kernel_size: 2 stride: 3 pad: 1 }", spread),
    "pooling max wide pad": Rule("Pooling", X, "pooling_param { kernel_size: 3 stride: 3 pad: 2 }", spread),
    "pooling mask": Rule("Pooling", X, "pooling_param { kernel_size: 2 stride: 1 }", spread, tops=2, smooth_tops=1),
    "pooling average": Rule("Pooling", X, "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"),
    "pooling average floor": Rule(
        "Pooling", ((1, 2, 7, 8),), "pooling_param { pool: AVE kernel_size: 2 stride: 3 round_mode: FLOOR }"
    ),
    "pooling average wide pad": Rule("Pooling", X, "pooling_param { pool: AVE kernel_size: 3 stride: 3 pad: 2 }"),
    "pooling global": Rule("Pooling", X, "pooling_param { pool: AVE global_pooling: true }"),
    "pooling global max": Rule("Pooling", X, "pooling_param { global_pooling: true }", spread),
    "spp": Rule("SPP", ((2, 3, 7, 6),), "spp_param { pyramid_height: 3 pool: AVE }"),
    "spp max": Rule("SPP", ((2, 3, 7, 6),), "spp_param { pyramid_height: 2 }", spread),
    "spp of one": Rule("SPP", X, "spp_param { pyramid_height: 1 }", spread),
    "lrn": Rule("LRN", X, "lrn_param { local_size: 3 alpha: 2 beta: 0.75 k: 1.5 }"),
    "lrn wide": Rule("LRN", ((1, 12, 2, 2),), "lrn_param { local_size: 11 alpha: 3 beta: 0.6 }"),
    "lrn within": Rule("LRN", X, "lrn_param { local_size: 3 alpha: 2 beta: 0.75 norm_region: WITHIN_CHANNEL }"),
    "mvn": Rule("MVN", X),
    "mvn mean": Rule("MVN", X, "mvn_param { normalize_variance: false }"),
    "mvn across": Rule("MVN", X, "mvn_param { across_channels: true }"),
    "mvn 3-D": Rule("MVN", ((2, 3, 8),)),
    "batch norm": Rule("BatchNorm", X, learnt=(), set_params=(0.5, 1.5, 2)),
    "batch norm train": Rule("BatchNorm", X, phase="TRAIN", learnt=()),
    "batch norm 1-D": Rule("BatchNorm", ((7,),), phase="TRAIN", learnt=()),
    "batch norm of one axis": Rule("BatchNorm", ((7,),), learnt=(), set_params=(0.5, 1.5, 2)),
    "batch norm affine": Rule(
        "BatchNorm", X, f"batch_norm_param {{ scale_bias: true scale_{FILLED} }}", learnt=(3, 4),
        set_params=(0.5, 1.5, 2),
    ),
    "batch norm affine train": Rule(
        "BatchNorm", X, f"batch_norm_param {{ scale_bias: true scale_{FILLED} }}", learnt=(3, 4), phase="TRAIN"
    ),
    "softmax": Rule("Softmax", X),
    "softmax axis": Rule("Softmax", X, "softmax_param { axis: -1 }"),
    "reduction sum": Rule("Reduction", X, "reduction_param { axis: 1 coeff: 0.3 }"),
    "reduction all": Rule("Reduction", X, "loss_weight: 1 reduction_param { operation: MEAN }"),
    "reduction mean": Rule("Reduction", X, "reduction_param { operation: MEAN axis: 2 coeff: 3 }"),
    "reduction asum": Rule("Reduction", X, "reduction_param { operation: ASUM axis: 1 }", spread),
    "reduction squares": Rule("Reduction", X, "reduction_param { operation: SUMSQ axis: -1 }"),
    "split": Rule("Split", X, tops=3),
    "flatten": Rule("Flatten", X, "flatten_param { axis: 1 end_axis: 2 }"),
    "reshape": Rule("Reshape", X, "reshape_param { shape { dim: 0 dim: -1 dim: 2 } }"),
    "permute": Rule("Permute", X, "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
    "concat": Rule("Concat", ((2, 3, 4), (2, 1, 4), (2, 2, 4))),
    "concat one": Rule("Concat", X),
    "slice": Rule("Slice", X, "slice_param { axis: 2 slice_point: 1 slice_point: 3 }", tops=3),
    "crop": Rule("Crop", ((2, 3, 5, 4), (2, 3, 3, 2)), "crop_param { axis: 2 offset: 1 offset: 2 }", held={1: smooth}),
    "tile": Rule("Tile", X, "tile_param { axis: 1 tiles: 3 }"),
    "lstm": Rule(
        "LSTM", ((4, 2, 3), (4, 2)), f"recurrent_param {{ num_output: 3 {GAUSSIAN} }}", held={1: continues}
    ),
    "lstm static": Rule(
        "LSTM", ((4, 2, 3), (4, 2), (2, 5)), f"recurrent_param {{ num_output: 3 {GAUSSIAN} }}", held={1: continues}
    ),
    "rnn": Rule("RNN", ((4, 2, 3), (4, 2)), f"recurrent_param {{ num_output: 3 {GAUSSIAN} }}", held={1: continues}),
    "rnn static": Rule(
        "RNN", ((4, 2, 3), (4, 2), (2, 2, 2)), f"recurrent_param {{ num_output: 3 {GAUSSIAN} }}", held={1: continues}
    ),
    "lstm unit": Rule("LSTMUnit", ((1, 2, 3), (1, 2, 12), (1, 2)), held={2: rows(1, 0)}, tops=2),
    "axpy": Rule("Axpy", ((2, 3), (2, 3, 2, 4), (2, 3, 2, 4))),
    "axpy 4-D": Rule("Axpy", ((2, 3, 1, 1), (2, 3, 2, 4), (2, 3, 2, 4))),
    "relu6": Rule("ReLU6", X, made=spread),
    "relux": Rule("ReLUX", X, "relux_param { maximal_value: 2 negative_slope: 0.2 }", spread),
    "selu": Rule("SeLu", X, made=spread),
    "mish": Rule("Mish", X),
    "local": Rule("Local", ((2, 3, 5, 4),), f"local_param {{ {CONV} kernel_size: 3 pad: 1 stride: 2 }}"),
    "local without bias": Rule(
        "Local", ((2, 2, 5, 6),), f"local_param {{ {CONV} kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 bias_term: false }}"
    ),
    "convolution3d": Rule(
        "Convolution3D", ((2, 3, 4, 5, 6),),
        f"convolution3d_param {{ {CONV} kernel_size: 3 kernel_depth: 2 stride: 2 pad: 1 temporal_stride: 1 }}",
    ),
    "convolution3d without bias": Rule(
        "Convolution3D", ((1, 2, 4, 5, 4),),
        f"convolution3d_param {{ {CONV} kernel_size: 2 kernel_depth: 3 temporal_pad: 1 bias_term: false }}",
    ),
    "pooling3d": Rule(
        "Pooling3D", ((1, 2, 4, 5, 6),),
        "pooling3d_param { kernel_size: 2 kernel_depth: 2 stride: 2 temporal_stride: 2 }", spread,
    ),
    "pooling3d average": Rule(
        "Pooling3D", ((1, 2, 4, 5, 6),),
        "pooling3d_param { pool: AVE kernel_size: 3 kernel_depth: 2 stride: 2 temporal_stride: 1 pad: 1 }",
    ),
    "upsample": Rule("Upsample", X, "upsample_param { scale: 3 }"),
    "upsample mask": Rule(
        "Upsample", ((1, 2, 2, 2),) * 2, "upsample_param { scale: 2 }", held={1: rows(0, 2, 9, 15, 5, 6, 12, 10)}
    ),
    "interp": Rule("Interp", X, "interp_param { height: 9 width: 7 }"),
    "interp cropped": Rule("Interp", ((2, 3, 7, 8),), "interp_param { zoom_factor: 2 pad_beg: -1 pad_end: -2 }"),
    "interp shrunk": Rule("Interp", ((2, 3, 7, 9),), "interp_param { shrink_factor: 2 }"),
    "interp to one": Rule("Interp", X, "interp_param { height: 1 width: 4 }"),
    "interp as another": Rule("Interp", ((2, 3, 5, 4), (1, 1, 8, 3)), held={1: smooth}),
    "reorg": Rule("Reorg", ((2, 8, 4, 6),), "reorg_param { stride: 2 }"),
    "reorg reverse": Rule("Reorg", ((2, 8, 3, 2),), "reorg_param { stride: 2 reverse: true }"),
    "relu bounded": Rule("ReLU", X, "relu_param { maximum: 3.02 minimum: 0.52 }", spread),
    "relu 6": Rule("ReLU", X, "relu_param { relu6: true }", spread),
    "hard sigmoid": Rule("HardSigmoid", X, "hard_sigmoid_param { alpha: 0.31 beta: 0.4 }", spread),
    "hard swish": Rule("HardSwish", ((2, 3, 5, 5),), made=spread),
    "truncation": Rule("Truncation", X, "truncation_param { lower_bound: -1.02 upper_bound: 2.03 }", spread),
    "sparsify": Rule("Sparsify", X, "sparsify_param { thre: 0.52 }", spread),
    "sparsify nothing": Rule("Sparsify", X, "sparsify_param { thre: 0 }", spread),
    "selu dropout": Rule("SeLuDropout", X),
    "add": Rule("Add", ((2, 1, 4), (3, 1))),
    "sub": Rule("Sub", ((3, 4), (2, 1, 4))),
    "mul": Rule("Mul", ((2, 3, 4), (3, 1))),
    "div": Rule("Div", ((2, 3, 4), (1, 4)), made=positive),
    "mul by a parameter": Rule("Mul", ((2, 3, 2),), "mul_param { mul_shape: 3 mul_shape: 1 }", set_params=(0.5, -2, 1.5)),
    "channel scale": Rule("ChannelScale", ((2, 3, 2, 4), (2, 1, 2, 4))),
    "pairwise sum": Rule("Pairwise", ((3, 4), (2, 4)), "pairwise_param { operation: SUM coeff: 2 coeff: -0.5 }"),
    "pairwise product": Rule("Pairwise", ((3, 4), (2, 4)), "pairwise_param { operation: PROD }"),
    "pairwise max": Rule("Pairwise", ((3, 4), (2, 4)), "pairwise_param { operation: MAX }"),
    "inner distance": Rule("InnerDistance", ((3, 5),), f"inner_distance_param {{ num_output: 4 {GAUSSIAN} }}"),
    "inner distance of bottoms": Rule("InnerDistance", ((3, 5), (4, 5)), "inner_distance_param { num_output: 4 }"),
    "squeeze": Rule("Squeeze", ((2, 1, 3, 1),), "squeeze_param { axis: -1 }"),
    "pad": Rule("Pad", ((2, 3, 2),), "pad_param { paddings: 0 paddings: 0 paddings: 1 paddings: 2 paddings: 0 paddings: 3 }"),
    "pad rows and columns": Rule("Pad", X, "pad_param { pad_h: 1 pad_w: 2 }"),
    "flip": Rule("Flip", X, "flip_param { flip_height: true }"),
    "depth to space": Rule("DepthToSpace", ((2, 8, 2, 3),), 'depth_to_space_param { block_size: 2 data_format: "CRD" }'),
    "space to depth": Rule("SpaceToDepth", ((2, 4, 6, 3),), "space_to_depth_param { block_size: 2 }"),
    "pixel shuffle": Rule("Reshape", ((2, 8, 2, 3),), "reshape_param { pixelshuffler: 2 }"),
    "upsample darknet": Rule("UpsampleDarknet", X, "upsample_darknet_param { stride: 3 }"),
    "convolution sides": Rule(
        "Convolution", ((2, 3, 6, 7),), f"convolution_param {{ {CONV} kernel_size: 3 stride: 2 pad_l: 1 pad_b: 2 }}"
    ),
    "convolution same": Rule(
        "Convolution", ((2, 3, 6, 7),), f"convolution_param {{ {CONV} kernel_size: 4 stride: 2 pad_type: 1 }}"
    ),
    "deconvolution sides": Rule(
        "Deconvolution", ((2, 3, 4, 3),), f"convolution_param {{ {CONV} kernel_size: 3 stride: 2 pad_r: 1 pad_t: 2 }}"
    ),
    "deconvolution3d": Rule(
        "Deconvolution3D", ((1, 2, 2, 3, 3),),
        f"convolution3d_param {{ num_output: 3 kernel_size: 3 kernel_depth: 2 stride: 2 pad: 1 {GAUSSIAN} }}",
    ),
    "pooling sides": Rule(
        "Pooling", ((2, 3, 6, 7),), "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad_l: 1 pad_b: 2 }"
    ),
    "pooling without padding": Rule(
        "Pooling", ((2, 3, 6, 7),), "pooling_param { pool: AVE_EXC_PAD kernel_size: 3 stride: 2 pad: 1 }"
    ),
    "pooling same": Rule(
        "Pooling", ((2, 3, 6, 7),), "pooling_param { pool: MAX kernel_size: 3 stride: 2 pad_type: 1 }", spread
    ),
    "shuffle channel": Rule("ShuffleChannel", ((2, 6, 3, 2),), "shuffle_channel_param { group: 3 }"),
    "roi pooling": Rule(
        "ROIPooling", ((2, 3, 7, 6), (4, 5)), "roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.5 }",
        spread, held={1: rows(*REGIONS)}, forced=False,
    ),
    "psroi pooling": Rule(
        "PSROIPooling", ((2, 18, 7, 6), (4, 5)),
        "psroi_pooling_param { output_dim: 2 group_size: 3 spatial_scale: 0.5 }", held={1: rows(*REGIONS)}, forced=False,
    ),
    "roi pooling padded": Rule(
        "ROIPooling", ((2, 3, 7, 6), (4, 5)),
        "roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.5 pad_ratio: 0.2 }", spread,
        held={1: rows(*REGIONS)}, forced=False,
    ),
    "roi align": Rule(
        "ROIAlign", ((2, 3, 7, 6), (4, 5)), "roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.5 pad_ratio: 0.1 }",
        held={1: rows(*REGIONS)}, forced=False,
    ),
    "roi warping": Rule(
        "ROIWarping", ((2, 3, 7, 6), (4, 5)), "roi_warping_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.4 }",
        held={1: rows(*REGIONS)}, forced=False,
    ),
    "psroi align": Rule(
        "PSROIAlign", ((2, 18, 7, 6), (4, 5)),
        "psroi_pooling_param { output_dim: 2 group_size: 3 spatial_scale: 0.4 }", held={1: rows(*REGIONS)}, forced=False,
    ),
    "mask pooling": Rule("MaskPooling", ((2, 3, 4, 2), (2, 1, 4, 2))),
    "mask resize": Rule("MaskResize", ((2, 1, 3, 4),), "mask_resize_param { output_height: 5 output_width: 7 }"),
    "normalize": Rule("Normalize", X, "norm_param { across_spatial: false }"),
    "normalize across": Rule("Normalize", X, "norm_param { channel_shared: true }"),
    "normalize coeff": Rule("Normalize", X, "normalize_param { coeff: 2.5 }"),
    "normalize place": Rule("Normalize", X, "normalize_param { normalize_type: \"L2\" }"),
    "resize planes": Rule("Resize", ((2, 3, 3, 4),), "resize_param { resize_ratio: 1.6 type: BILINEAR }"),
    "resize planes to places": Rule("Resize", ((2, 3, 3, 4),), "resize_param { resize_ratio: 2 }"),
    "scale filter": Rule("ScaleFilter", ((2, 3, 2, 2),)),
    "fixed convolution": Rule(
        "ConvolutionFixed", ((2, 3, 4, 4),), f"convolution_param {{ {CONV} kernel_size: 3 }} "
        "fixed_param { fixed_method: DIFF_S bit_width: 20 }",
    ),
    "fixed inner product": Rule(
        "InnerProductFixed", ((2, 5),), f"inner_product_param {{ {CONV} }} "
        "fixed_param { fixed_method: DIFF_S bit_width: 20 }",
    ),
    "transpose": Rule("Transpose", ((2, 3, 4),), "transpose_param { dim: 2 dim: 0 dim: 1 }"),
    "reverse": Rule("Reverse", X, "reverse_param { axis: 1 axis: -1 }"),
    "reverse time": Rule("ReverseTime", ((4, 2, 3), (2,)), held={1: rows(4, 2)}),
    "l2norm place": Rule("L2Norm", X, "l2norm_param { l2_length: 4 }"),
    "l2norm": Rule("L2Norm", ((3, 6),)),
    "grn": Rule("GRN", ((2, 3, 2, 2),), "grn_param { bias: 0.1 }"),
    "l2normalize": Rule("L2Normalize", ((2, 3, 2, 2, 3),)),
    "norml2": Rule("NormL2", ((3, 6),)),
    "normalization": Rule("Normalization", X),
    "bn segnet": Rule("BN", X, f"bn_param {{ scale_{FILLED} shift_{FILLED} }}"),
    "batch norm eps after": Rule("BatchNorm", X, "batch_norm_param { add_eps_before_sqrt: false eps: 0.5 }", learnt=()),
    "mvn eps before": Rule("MVN", X, "mvn_param { add_eps_before_sqrt: true eps: 0.1 }"),
    "cudnn batch norm": Rule("CuDNNBatchNorm", X, f"cudnn_batch_norm_param {{ frozen: true scale_{FILLED} }}", learnt=(0, 1)),
    "bn segnet plain": Rule("BN", ((3, 4),), f"bn_param {{ bn_mode: INFERENCE scale_{FILLED} }}"),
    "bn pspnet": Rule("BN", X, f"bn_param {{ frozen: true slope_{FILLED} }}", learnt=()),
    "embed": Rule(
        "Embed", ((2, 3),), f"embed_param {{ num_output: 4 input_dim: 5 {GAUSSIAN} }}", held={0: rows(4, 0, 0, 2, 4, 4)},
        forced=False,
    ),
    "batch reindex": Rule("BatchReindex", ((3, 2, 2), (5,)), held={1: rows(2, 0, 2, 2, 1)}, forced=False),
    "filter": Rule("Filter", ((4, 2, 2), (4, 3), (4,)), held={2: rows(0, 1, 0, 1)}, tops=2, forced=False),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_rule(tmp_path: Path, name: str) -> None:
    rule = RULES[name]
    rng = np.random.default_rng(len(name))
    inputs = {f"x{i}": shape for i, shape in enumerate(rule.shapes)}
    head = "force_backward: true\n" if rule.forced else ""
    text = "".join((rule.below, rule.text, *rule.losses))
    net = caffeconv.Net(write_net(tmp_path, inputs, text, head), phase=rule.phase)
    feeds = {f"x{i}": rule.held.get(i, rule.made)(rng, shape) for i, shape in enumerate(rule.shapes)}
    params = net.params.get("l", [])
    for param, value in zip(params, rule.set_params, strict=False):
        param.data[...] = value

    def total() -> float:
        results = forward(net, feeds)
        tops = [f"r{i}" for i in range(len(rule.losses))] or ["y0"]
        return sum(float(results[top].sum()) * (i + 1) for i, top in enumerate(tops))

    total()
    net.backward()
    free = {f"x{i}": feeds[f"x{i}"] for i in range(len(rule.shapes)) if i not in rule.held and rule.forced}
    found = [(what, values, net.blobs[what].diff.copy()) for what, values in free.items()]
    learnt = range(len(params)) if rule.learnt is None else rule.learnt
    learning = [*(params[i] for i in learnt), *(net.params[f"s{i}"][0] for i in range(9) if f"s{i}" in net.params)]
    found += [(f"parameter {i}", param.data, param.diff.copy()) for i, param in enumerate(learning)]
    assert found
    for what, values, diff in found:
        assert diff.shape == values.shape
        direction = np.clip(rng.normal(0, 0.5, values.shape), -1, 1)
        kept, around = values.copy(), []
        for sign in (1, -1):
            values[...] = kept + sign * STEP * direction
            around.append(total())
        values[...] = kept
        measured = (around[0] - around[1]) / (2 * STEP)
        assert float((diff * direction).sum()) == pytest.approx(measured, rel=4e-3, abs=4e-3), what


def test_dropout_passes_on_what_it_kept(tmp_path: Path) -> None:
    layers = 'layer { name: "l" type: "Dropout" bottom: "x" top: "x" dropout_param { dropout_ratio: 0.75 } }\n'
    layers += 'layer { name: "r" type: "Scale" bottom: "x" top: "y" }\n'
    net = caffeconv.Net(write_net(tmp_path, {"x": (50, 40)}, layers, "force_backward: true\n"), phase="TRAIN")
    net.forward(x=np.ones((50, 40)))
    diff = net.backward(y=np.ones((50, 40)))["x"]
    assert set(np.unique(diff)) == {0, 4}
    assert 0.2 < (diff == 4).mean() < 0.3
