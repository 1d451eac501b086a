// caffeconv.ConvWeightGrad, ConvBottomGrad, MaxPoolGrad, ReLUGrad and SGDUpdate: what training spends its time on where
// standard operators need many passes over the same numbers. All tensors are float32.
//
//   ConvWeightGrad(bottom N×C×H×W, top_diff N×O×H'×W') -> weight_diff O×C/group×kernel_h×kernel_w
//   ConvBottomGrad(top_diff N×O×H'×W', weight O×C/group×kernel_h×kernel_w) -> bottom_diff N×C×height×width
//     attributes kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, and for the second,
//     whose strides are 1, height, width: the diffs of a convolution (caffe: ConvolutionLayer::Backward_cpu). What a window
//     sees beyond the bottom is 0. The results do not depend on the number of threads. Of a deconvolution, the first has
//     its top's diff as bottom, and its bottom as top_diff.
//   MaxPoolGrad(bottom N×C×H×W, top_diff N×C×H'×W') -> bottom_diff
//     attributes kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w: each window's diff goes to the first of its
//     greatest values (caffe: PoolingLayer::Backward_cpu).
//   ReLUGrad(values, top_diff, negative_slope) -> bottom_diff
//     The diff, times the slope, a scalar, where the values, a ReLU's bottom or top, are not above 0 (caffe:
//     ReLULayer::Backward_cpu).
//   SGDUpdate(value, gradient, history, rate, momentum, decay) -> (value', history')
//     history' = momentum·history + rate·(gradient + decay·value); value' = value - history'. The last three are scalars.
#pragma once

#include "ort_abi.h"

extern "C" {
// For whoever asks whether this library has these operators: 2; 1 if it has no ConvWeightGrad and ConvBottomGrad.
ORT_EXPORT int caffeconv_has_training_ops();
}

namespace caffeconv {

OrtStatus* add_training_ops(const OrtApi* api, OrtCustomOpDomain* domain);

}  // namespace caffeconv
