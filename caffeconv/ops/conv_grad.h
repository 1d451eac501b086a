// caffeconv.ConvWeightGrad and ConvBottomGrad: see training.h.
#pragma once

#include "ort_abi.h"

namespace caffeconv {

const OrtCustomOp* conv_weight_grad();
const OrtCustomOp* conv_bottom_grad();

}  // namespace caffeconv
