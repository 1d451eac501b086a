// ConvWeightGrad and ConvBottomGrad on the CPU: what conv_grad_cpu.cc offers once per instruction set. Plain structs and
// function pointers only, because both sides are compiled for different processors.
#pragma once

#include <cstdint>

#include "isa.h"

namespace caffeconv {

// One axis of a convolution's window; with it the bottom's size, the window's positions, and what these see of the padded
// bottom: (positions - 1)·stride + (kernel - 1)·dilation + 1.
struct ConvAxis {
  int64_t kernel, stride, pad, dilation, size, positions, reach;
};

// In C order: bottom (and its diff) items × group·channels × size…, top_diff items × group·outputs × positions…, weight
// (and its diff) group·outputs × channels × kernel….
struct ConvShape {
  int64_t items, group, channels, outputs;  // channels and outputs of one group
  ConvAxis rows, columns;
};

// A share of a weight's diff: some channels of one group, over some of the items.
struct WeightGradPart {
  int64_t group, first_channel, channels, first_item, items;
};

// `scratch` holds as many floats as the scratch_size before it says; nobody clears it.
struct ConvGradKernels {
  const char* name;

  int64_t (*weight_scratch_size)(const ConvShape& shape, const WeightGradPart& part);
  // Writes the part's own places of the weight's diff.
  void (*add_weight_grad)(const ConvShape& shape, const WeightGradPart& part, const float* bottom, const float* top_diff,
                          float* scratch, float* weight_diff);

  // From here on the axes are as the top's diff sees them: strides are 1, the size is the diff's, the positions are the
  // places of the bottom, and the pad is what lies before the diff. `packed` has panels of panel_size floats, panels
  // begin..end-1 of which a call of pack_weights fills.
  int64_t (*panels)(const ConvShape& shape);
  int64_t (*panel_size)(const ConvShape& shape);
  void (*pack_weights)(const ConvShape& shape, int64_t begin, int64_t end, const float* weight, float* packed);
  int64_t (*bottom_scratch_size)(const ConvShape& shape);
  // One group of one item.
  void (*bottom_grad)(const ConvShape& shape, int64_t item, int64_t group, const float* top_diff, const float* packed,
                      float* scratch, float* bottom_diff);
};

const ConvGradKernels& conv_grad_kernels_portable();
const ConvGradKernels& conv_grad_kernels_avx2();
const ConvGradKernels& conv_grad_kernels_avx512();

inline const ConvGradKernels& conv_grad_kernels(Isa build) {
#if defined(CAFFECONV_WITH_AVX512)
  if (build == Isa::kAvx512) return conv_grad_kernels_avx512();
#endif
#if defined(CAFFECONV_WITH_AVX2)
  if (build == Isa::kAvx2) return conv_grad_kernels_avx2();
#endif
  (void)build;
  return conv_grad_kernels_portable();
}

}  // namespace caffeconv
