// InfogainLoss on the GPU: what infogain_loss.cu offers to infogain_loss.cc. Every pointer is a device pointer.
#pragma once

#include "infogain_loss.h"

namespace caffeconv {

struct CudaJob {
  InfogainShape shape;
  void* stream;        // cudaStream_t
  const void* scores;  // float, or IEEE half where `half`
  bool half;
  const float* labels;
  const float* h;
  float* loss;             // forward; backward, where it may be null
  void* prob;              // forward, may be null
  const float* loss_diff;  // backward
  void* scores_diff;       // backward
};

struct CudaResult {
  const char* error;  // null, or what CUDA said
  int64_t bad_label;  // position of the first label outside 0..classes-1, or -1
  float bad_value;
};

CudaResult infogain_loss_cuda(const CudaJob& job);
CudaResult infogain_loss_grad_cuda(const CudaJob& job);

}  // namespace caffeconv
