// caffeconv.MaxPoolGrad, ReLUGrad and SGDUpdate: what training spends its time on where standard operators need many
// passes over the same numbers. All tensors are float32.
//
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
// There for whoever asks whether this library has these operators.
ORT_EXPORT int caffeconv_has_training_ops();
}

namespace caffeconv {

OrtStatus* add_training_ops(const OrtApi* api, OrtCustomOpDomain* domain);

}  // namespace caffeconv
